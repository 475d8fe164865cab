//! Passes over rows of channels: read values, apply an operation channel by channel, store the results.
//!
//! An operation is a type with an inlined method and not a closure: a closure that the compiler does not inline is compiled for the
//! narrowest vectors.

use super::simd::{Simd, WithSimd, run};
use crate::element::{Element, Real, zero};

/// An operation on a channel's values.
pub trait Op<R>: Copy {
    /// The new value from the present y, and x and z.
    fn at(&self, channel: usize, y: R, x: R, z: R) -> R;
}

/// y = op(y, x, z) in rows of `c` channels, the last of which may be short.
pub fn pass<T: Element, O: Op<T::Real>>(y: &mut [T], x: &[T], z: &[T], c: usize, op: O) {
    run(Pass { y, x, z, c, op });
}

struct Pass<'a, T, O> {
    y: &'a mut [T],
    x: &'a [T],
    z: &'a [T],
    c: usize,
    op: O,
}

impl<T: Element, O: Op<T::Real>> WithSimd for Pass<'_, T, O> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Pass { y, x, z, c, op } = self;
        for ((y, x), z) in y.chunks_mut(c).zip(x.chunks(c)).zip(z.chunks(c)) {
            let (x, z) = (&x[..y.len()], &z[..y.len()]);
            for i in 0..y.len() {
                y[i] = T::down(op.at(i, y[i].up(), x[i].up(), z[i].up()));
            }
        }
    }
}

/// The identity.
#[derive(Clone, Copy)]
pub struct Plain;

/// (x − mean)·scale + shift, optionally followed by max(·, 0); the slices have as many values as there are channels.
#[derive(Clone, Copy)]
pub struct Channels<'a, R> {
    pub mean: &'a [R],
    pub scale: &'a [R],
    pub shift: &'a [R],
    pub relu: bool,
}

/// An operation on a single value.
pub trait Alone<R>: Copy {
    fn of(&self, channel: usize, x: R) -> R;
}

impl<R> Alone<R> for Plain {
    #[inline(always)]
    fn of(&self, _: usize, x: R) -> R {
        x
    }
}

impl<R: Real> Alone<R> for Channels<'_, R> {
    #[inline(always)]
    fn of(&self, i: usize, x: R) -> R {
        let v = (x - self.mean[i]) * self.scale[i] + self.shift[i];
        let zero = zero::<R>();
        if self.relu && v < zero { zero } else { v }
    }
}

/// y = x after an operation.
#[derive(Clone, Copy)]
pub struct Apply<A>(pub A);

impl<R, A: Alone<R>> Op<R> for Apply<A> {
    #[inline(always)]
    fn at(&self, i: usize, _: R, x: R, _: R) -> R {
        self.0.of(i, x)
    }
}

/// y = max(x + z, 0), each after an operation.
#[derive(Clone, Copy)]
pub struct Join<A, B>(pub A, pub B);

impl<R: Real, A: Alone<R>, B: Alone<R>> Op<R> for Join<A, B> {
    #[inline(always)]
    fn at(&self, i: usize, _: R, x: R, z: R) -> R {
        let v = self.0.of(i, x) + self.1.of(i, z);
        let zero = zero::<R>();
        // NaN stays NaN, so that a diverged network is noticed.
        if v < zero { zero } else { v }
    }
}

/// y = x + z, each after an operation.
#[derive(Clone, Copy)]
pub struct Sum<A, B>(pub A, pub B);

impl<R: Real, A: Alone<R>, B: Alone<R>> Op<R> for Sum<A, B> {
    #[inline(always)]
    fn at(&self, i: usize, _: R, x: R, z: R) -> R {
        self.0.of(i, x) + self.1.of(i, z)
    }
}

/// y = 0 where x, the output of a ReLU, is 0.
#[derive(Clone, Copy)]
pub struct Mask;

impl<R: Real> Op<R> for Mask {
    #[inline(always)]
    fn at(&self, _: usize, y: R, x: R, _: R) -> R {
        let zero = zero::<R>();
        if x > zero { y } else { zero }
    }
}

/// y += x.
#[derive(Clone, Copy)]
pub struct Add;

impl<R: Real> Op<R> for Add {
    #[inline(always)]
    fn at(&self, _: usize, y: R, x: R, _: R) -> R {
        y + x
    }
}

/// y = scale·(y − offset − (x − mean)·slope), with y masked where the normalised x is at most 0 if a ReLU followed: the backward pass of a
/// normalisation.
#[derive(Clone, Copy)]
pub struct Backward<'a, R> {
    pub norm: Channels<'a, R>,
    pub offset: &'a [R],
    pub slope: &'a [R],
}

impl<R: Real> Op<R> for Backward<'_, R> {
    #[inline(always)]
    fn at(&self, i: usize, y: R, x: R, _: R) -> R {
        let Channels { mean, scale, shift, relu } = self.norm;
        let (x, zero) = (x - mean[i], zero::<R>());
        let d = if relu && x * scale[i] + shift[i] <= zero { zero } else { y };
        scale[i] * (d - self.offset[i] - x * self.slope[i])
    }
}
