//! Convolutions: the shapes, and which kernel computes what.
//!
//! f32 goes by [`winograd`] where that pays and by [`direct`] where not; f64, the oracle, by [`im2col`].

use std::sync::Arc;

use super::{direct, im2col, winograd};
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

/// Y from X and the weight (OIHW). Y is written whole.
pub fn forward<T: Real>(g: &Geometry, x: &[T], weight: &[T], y: &mut [T], pool: &Arc<Pool<T>>) {
    match (T::f32s(x), T::f32s(weight), T::pool32(pool)) {
        (Some(x), Some(weight), Some(pool)) => {
            let Some(y) = T::f32s_mut(y) else { return };
            if winograd::pays(g) { winograd::forward(g, x, weight, y, pool) } else { direct::forward(g, x, weight, y, pool) }
        }
        _ => im2col::forward(g, x, &im2col::pack(weight, g), y, pool),
    }
}

/// dX from dY and the weight. dX is written whole.
pub fn input_gradient<T: Real>(g: &Geometry, dy: &[T], weight: &[T], dx: &mut [T], pool: &Arc<Pool<T>>) {
    match (T::f32s(dy), T::f32s(weight), T::pool32(pool)) {
        (Some(dy), Some(weight), Some(pool)) => {
            let Some(dx) = T::f32s_mut(dx) else { return };
            let kernel = if winograd::pays(g) { winograd::input_gradient } else { direct::input_gradient };
            kernel(g, dy, weight, dx, pool);
        }
        _ => im2col::input_gradient(g, dy, &im2col::pack(weight, g), dx, pool),
    }
}

/// dW in OIHW from X and dY.
pub fn weight_gradient<T: Real>(g: &Geometry, x: &[T], dy: &[T], pool: &Arc<Pool<T>>) -> Vec<T> {
    let fast = match (T::f32s(x), T::f32s(dy), T::pool32(pool)) {
        (Some(x), Some(dy), Some(pool)) => {
            let kernel = if winograd::pays(g) { winograd::weight_gradient } else { direct::weight_gradient };
            T::from_f32s(kernel(g, x, dy, pool))
        }
        _ => None,
    };
    fast.unwrap_or_else(|| im2col::weight_gradient(g, x, dy, pool))
}
