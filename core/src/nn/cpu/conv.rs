//! Convolutions: the shapes, and which kernel computes what.
//!
//! f32 goes by [`winograd`] where that pays and by [`direct`] where not; f64, the oracle, by [`im2col`].

use std::sync::Arc;

use super::norm::{Affine, BlockMoments};
use super::rows::{GradientSums, Moments};
use super::{direct, elementwise, im2col, simd, wide, winograd};
use crate::nn::layer::Sums;
use crate::nn::map::{Pool, Real};

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

/// Whether this convolution can normalise its input as it reads it.
pub fn normalises<T: Real>(g: &Geometry) -> bool {
    T::f32s(&[]).is_some() && winograd::pays(g)
}

/// Y from X, normalised on the way if it [can be](normalises), and the weight (OIHW). Y is written whole. With `watch`, the
/// moments of Y's blocks, if they come cheaply.
pub fn forward<T: Real>(
    g: &Geometry,
    x: (&[T], Option<&Affine<T>>),
    weight: &[T],
    y: &mut [T],
    watch: bool,
    pool: &Arc<Pool<T>>,
) -> Option<Vec<BlockMoments>> {
    if let (Some(data), Some(weight), Some(pool)) = (T::f32s(x.0), T::f32s(weight), T::pool32(pool)) {
        let (y, normal, c) = (T::f32s_mut(y)?, x.1.and_then(Affine::normal), g.o);
        let moments = |_: usize, rows: &mut [f32]| watch.then(|| simd::run(Moments { rows: &*rows, c }));
        let seen = if winograd::pays(g) {
            winograd::forward(g, (data, normal), weight, y, moments, pool)
        } else {
            debug_assert!(normal.is_none(), "only tiles are normalised as they are read");
            direct::forward(g, data, weight, y, moments, pool)
        };
        return seen.into_iter().collect();
    }
    im2col::forward(g, x.0, &im2col::pack(weight, g), y, pool);
    None
}

/// dX from dY and the weight, plus what is `beside` it. dX is written whole. If X came from a normalisation, of `before`, the
/// sums that its step back begins with, if they come cheaply.
pub fn input_gradient<T: Real>(
    g: &Geometry,
    dy: &[T],
    weight: &[T],
    dx: &mut [T],
    beside: Option<&[T]>,
    before: Option<(&[T], &Affine<T>)>,
    pool: &Arc<Pool<T>>,
) -> Option<Sums> {
    if let (Some(dy), Some(weight), Some(pool)) = (T::f32s(dy), T::f32s(weight), T::pool32(pool)) {
        let dx = T::f32s_mut(dx)?;
        let beside = beside.and_then(T::f32s);
        let before = before.and_then(|(x, affine)| Some((T::f32s(x)?, affine.normal()?, affine)));
        let each = |at: usize, dx: &mut [f32]| {
            if let Some(beside) = beside {
                wide(|| dx.iter_mut().zip(&beside[at..]).for_each(|(x, &v)| *x += v));
            }
            let dy = &*dx;
            before.map(|(x, normal, _)| simd::run(GradientSums { x: &x[at..at + dy.len()], dy, normal }))
        };
        let seen = if winograd::pays(g) {
            winograd::input_gradient(g, dy, weight, dx, each, pool)
        } else {
            direct::input_gradient(g, dy, weight, dx, each, pool)
        };
        let seen: Option<Vec<Vec<f64>>> = seen.into_iter().collect();
        return Some(before?.2.split(&seen?));
    }
    im2col::input_gradient(g, dy, &im2col::pack(weight, g), dx, pool);
    if let Some(beside) = beside {
        elementwise::add(dx, beside);
    }
    None
}

/// dW in OIHW from X, normalised on the way if it [can be](normalises), and dY.
pub fn weight_gradient<T: Real>(g: &Geometry, x: (&[T], Option<&Affine<T>>), dy: &[T], pool: &Arc<Pool<T>>) -> Vec<T> {
    let fast = match (T::f32s(x.0), T::f32s(dy), T::pool32(pool)) {
        (Some(data), Some(dy), Some(pool)) if winograd::pays(g) => {
            T::from_f32s(winograd::weight_gradient(g, (data, x.1.and_then(Affine::normal)), dy, pool))
        }
        (Some(data), Some(dy), Some(pool)) => T::from_f32s(direct::weight_gradient(g, data, dy, pool)),
        _ => None,
    };
    fast.unwrap_or_else(|| im2col::weight_gradient(g, x.0, dy, pool))
}
