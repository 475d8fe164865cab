//! Convolutions in f32 and bf16: the shapes, and which kernel computes what: [`winograd`] where that pays, [`direct`] where not.

use std::sync::Arc;

use super::fast::Fast;
use super::norm::{Affine, BlockMoments};
use super::passes::{Add, pass};
use super::rows::{GradientSums, Moments};
use super::{direct, simd, winograd};
use crate::nn::cell::Read;
use crate::nn::layer::Sums;
use crate::nn::map::Pool;

/// A convolution's shapes: n × h × w × c images to n × oh × ow × o, square kernel, zeros around.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub c: usize,
    pub o: usize,
    pub oh: usize,
    pub ow: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Geometry {
    /// Output pixels.
    pub fn rows(&self) -> usize {
        self.n * self.oh * self.ow
    }
}

/// See [`Cell::normalises`](crate::nn::cell::Cell::normalises).
pub fn normalises<T: Fast>(g: &Geometry) -> bool {
    winograd::pays::<T::Form>(g)
}

/// See [`Cell::convolve`](crate::nn::cell::Cell::convolve).
pub fn forward<T: Fast>(
    g: &Geometry,
    (x, affine): Read<T>,
    weight: &[f32],
    y: &mut [T],
    watch: bool,
    pool: &Arc<Pool>,
) -> Option<Vec<BlockMoments>> {
    let each = |_: usize, rows: &mut [T]| watch.then(|| moments(rows, g.o));
    let seen = if winograd::pays::<T::Form>(g) {
        winograd::forward(g, (x, affine.map(Affine::normal)), weight, y, each, pool)
    } else {
        debug_assert!(affine.is_none(), "only tiles are normalised as they are read");
        direct::forward(g, x, weight, y, each, pool)
    };
    seen.into_iter().collect()
}

/// See [`Cell::input_gradient`](crate::nn::cell::Cell::input_gradient).
pub fn input_gradient<T: Fast>(
    g: &Geometry,
    dy: &[T],
    weight: &[f32],
    dx: &mut [T],
    beside: Option<&[T]>,
    before: Option<(&[T], &Affine<f32>)>,
    pool: &Arc<Pool>,
) -> Option<Sums> {
    let each = |at: usize, dx: &mut [T]| {
        if let Some(beside) = beside {
            let beside = &beside[at..at + dx.len()];
            pass(dx, beside, beside, beside.len(), Add);
        }
        before.map(|(x, affine)| gradient_sums(&x[at..at + dx.len()], dx, affine))
    };
    let seen = if winograd::pays::<T::Form>(g) {
        winograd::input_gradient(g, dy, weight, dx, each, pool)
    } else {
        direct::input_gradient(g, dy, weight, dx, each, pool)
    };
    let seen: Option<Vec<Vec<f64>>> = seen.into_iter().collect();
    Some(before?.1.split(&seen?))
}

/// See [`Cell::weight_gradient`](crate::nn::cell::Cell::weight_gradient).
pub fn weight_gradient<T: Fast>(g: &Geometry, (x, affine): Read<T>, dy: &[T], pool: &Arc<Pool>) -> Vec<f32> {
    if winograd::pays::<T::Form>(g) {
        winograd::weight_gradient(g, (x, affine.map(Affine::normal)), dy, pool)
    } else {
        direct::weight_gradient(g, x, dy, pool)
    }
}

/// See [`Cell::moments`](crate::nn::cell::Cell::moments).
pub fn moments<T: Fast>(rows: &[T], c: usize) -> BlockMoments {
    simd::run(Moments { rows, c })
}

/// See [`Cell::gradient_sums`](crate::nn::cell::Cell::gradient_sums).
pub fn gradient_sums<T: Fast>(x: &[T], dy: &[T], affine: &Affine<f32>) -> Vec<f64> {
    simd::run(GradientSums { x, dy, normal: affine.normal() })
}
