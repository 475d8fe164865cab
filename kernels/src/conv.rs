//! Convolutions: chooses the kernel. f32 and bf16 use [`winograd`] where it is faster and [`direct`] elsewhere; f64, which only oracles
//! use, uses [`im2col`].

use std::sync::Arc;

use crate::blocks::{BlockMoments, BlockSums, Sums, split};
use crate::buffer::BufferPool;
use crate::element::{Bf16, Element, Real};
use crate::elementwise;
use crate::fast::Fast;
use crate::gelu::Gelu;
use crate::geometry::Geometry;
use crate::norm::{Affine, Read};
use crate::passes::{Add, pass};
use crate::{direct, im2col, winograd};

/// A number type for whose maps there are convolutions.
pub trait Convolve: BlockSums {
    /// Whether this convolution can normalise its input while it reads it.
    fn normalises(g: &Geometry) -> bool;

    /// Computes Y from X, normalised first if that [is possible](Convolve::normalises), and the weight (OIHW). Y is written completely.
    /// With `watch`, returns the moments of Y's blocks if the kernel computes them cheaply.
    fn convolve(
        g: &Geometry,
        x: Read<Self>,
        weight: &[Self::Real],
        y: &mut [Self],
        watch: bool,
        pool: &Arc<BufferPool>,
    ) -> Option<Vec<BlockMoments>>;

    /// Y = X·Wᵀ for each row of X, and then what `finish` says. `before` is set to what the GELU is taken of.
    fn transform(
        g: &Geometry,
        x: &[Self],
        weight: &[Self::Real],
        finish: Finish<Self::Real>,
        before: Option<&mut [Self]>,
        y: &mut [Self],
        pool: &Arc<BufferPool>,
    );

    /// Computes dX from dY and the weight, plus the gradient `beside`. dX is written completely. If X came from the normalisation `before`,
    /// returns its gradient sums if the kernel computes them cheaply.
    fn input_gradient(
        g: &Geometry,
        dy: &[Self],
        weight: &[Self::Real],
        dx: &mut [Self],
        beside: Option<&[Self]>,
        before: Option<(&[Self], &Affine<Self::Real>)>,
        pool: &Arc<BufferPool>,
    ) -> Option<Sums>;

    /// dW in OIHW from X, normalised first if that [is possible](Convolve::normalises), and dY.
    fn weight_gradient(g: &Geometry, x: Read<Self>, dy: &[Self], pool: &Arc<BufferPool>) -> Vec<Self::Real>;
}

/// What is done with a product while it is in cache: a bias is added to each row, then the GELU is taken.
#[derive(Clone, Copy)]
pub struct Finish<'a, R> {
    pub bias: Option<&'a [R]>,
    pub gelu: Option<Gelu>,
}

impl<R: Real> Finish<'_, R> {
    /// Finishes some rows; `before` is set to what the GELU is taken of.
    fn run<T: Element<Real = R>>(&self, y: &mut [T], before: Option<&mut [T]>) {
        if let Some(bias) = self.bias {
            elementwise::add_bias_here(y, bias);
        }
        if let Some(before) = before {
            before.copy_from_slice(y);
        }
        if let Some(gelu) = self.gelu {
            gelu.in_place(y);
        }
    }
}

impl Convolve for f64 {
    fn normalises(_: &Geometry) -> bool {
        false
    }

    fn convolve(
        g: &Geometry,
        x: Read<f64>,
        weight: &[f64],
        y: &mut [f64],
        _: bool,
        pool: &Arc<BufferPool>,
    ) -> Option<Vec<BlockMoments>> {
        im2col::forward(g, x.0, &im2col::pack(weight, g), y, pool);
        None
    }

    fn transform(
        g: &Geometry,
        x: &[f64],
        weight: &[f64],
        finish: Finish<f64>,
        before: Option<&mut [f64]>,
        y: &mut [f64],
        pool: &Arc<BufferPool>,
    ) {
        im2col::forward(g, x, weight, y, pool);
        finish.run(y, before);
    }

    fn input_gradient(
        g: &Geometry,
        dy: &[f64],
        weight: &[f64],
        dx: &mut [f64],
        beside: Option<&[f64]>,
        _: Option<(&[f64], &Affine<f64>)>,
        pool: &Arc<BufferPool>,
    ) -> Option<Sums> {
        im2col::input_gradient(g, dy, &im2col::pack(weight, g), dx, pool);
        if let Some(beside) = beside {
            elementwise::add(dx, beside);
        }
        None
    }

    fn weight_gradient(g: &Geometry, x: Read<f64>, dy: &[f64], pool: &Arc<BufferPool>) -> Vec<f64> {
        im2col::weight_gradient(g, x.0, dy, pool)
    }
}

/// f32 and bf16 share their kernels.
macro_rules! fast {
    ($number:ty) => {
        impl Convolve for $number {
            fn normalises(g: &Geometry) -> bool {
                winograd::pays::<<Self as Fast>::Form>(g)
            }

            fn convolve(
                g: &Geometry,
                x: Read<Self>,
                weight: &[f32],
                y: &mut [Self],
                watch: bool,
                pool: &Arc<BufferPool>,
            ) -> Option<Vec<BlockMoments>> {
                forward(g, x, weight, y, watch, pool)
            }

            fn transform(
                g: &Geometry,
                x: &[Self],
                weight: &[f32],
                finish: Finish<f32>,
                before: Option<&mut [Self]>,
                y: &mut [Self],
                pool: &Arc<BufferPool>,
            ) {
                direct::forward(g, x, weight, y, before, |_, y, before| finish.run(y, before), pool);
            }

            fn input_gradient(
                g: &Geometry,
                dy: &[Self],
                weight: &[f32],
                dx: &mut [Self],
                beside: Option<&[Self]>,
                before: Option<(&[Self], &Affine<f32>)>,
                pool: &Arc<BufferPool>,
            ) -> Option<Sums> {
                input_gradient(g, dy, weight, dx, beside, before, pool)
            }

            fn weight_gradient(g: &Geometry, x: Read<Self>, dy: &[Self], pool: &Arc<BufferPool>) -> Vec<f32> {
                weight_gradient(g, x, dy, pool)
            }
        }
    };
}

fast!(f32);
fast!(Bf16);

fn forward<T: Fast + Convolve>(
    g: &Geometry,
    (x, affine): Read<T>,
    weight: &[f32],
    y: &mut [T],
    watch: bool,
    pool: &Arc<BufferPool>,
) -> Option<Vec<BlockMoments>> {
    let each = |_: usize, rows: &mut [T]| watch.then(|| T::moments(rows, g.o));
    let seen = if T::normalises(g) {
        winograd::forward(g, (x, affine.map(Affine::plain)), weight, y, each, pool)
    } else {
        debug_assert!(affine.is_none(), "only tiles are normalised as they are read");
        direct::forward(g, x, weight, y, None, |at, y, _| each(at, y), pool)
    };
    seen.into_iter().collect()
}

fn input_gradient<T: Fast + Convolve>(
    g: &Geometry,
    dy: &[T],
    weight: &[f32],
    dx: &mut [T],
    beside: Option<&[T]>,
    before: Option<(&[T], &Affine<f32>)>,
    pool: &Arc<BufferPool>,
) -> Option<Sums> {
    let each = |at: usize, dx: &mut [T]| {
        if let Some(beside) = beside {
            let beside = &beside[at..at + dx.len()];
            pass(dx, beside, beside, beside.len(), Add);
        }
        before.map(|(x, affine)| T::gradient_sums(&x[at..at + dx.len()], dx, affine.plain()))
    };
    let seen = if T::normalises(g) {
        winograd::input_gradient(g, dy, weight, dx, each, pool)
    } else {
        direct::input_gradient(g, dy, weight, dx, each, pool)
    };
    let seen: Option<Vec<Vec<f64>>> = seen.into_iter().collect();
    Some(split(&seen?, g.c))
}

fn weight_gradient<T: Fast + Convolve>(g: &Geometry, (x, affine): Read<T>, dy: &[T], pool: &Arc<BufferPool>) -> Vec<f32> {
    if T::normalises(g) {
        winograd::weight_gradient(g, (x, affine.map(Affine::plain)), dy, pool)
    } else {
        direct::weight_gradient(g, x, dy, pool)
    }
}
