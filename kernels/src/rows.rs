//! Column sums over rows of channels in f32 and bf16, for several vectors of channels at once with the sums in registers: the statistics of
//! batch normalisation for a block that is still in cache.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector")]

use super::fast::Fast;
use super::passes::Channels;
use super::simd::{Simd, WithSimd, mul_add};

/// Rows summed in f32 before the sum is added in f64.
const RUN: usize = 64;

/// Number of rows, mean, and sum of squared deviations of a block, as [`merge`](super::blocks::merge) takes them.
pub struct Moments<'a, T> {
    pub rows: &'a [T],
    pub c: usize,
}

impl<T: Fast> WithSimd for Moments<'_, T> {
    type Output = (f64, Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (c, n) = (self.c, (self.rows.len() / self.c) as f64);
        let (mut mean, mut spread) = (vec![0.0; c], vec![0.0; c]);
        // Deviations are taken from the mean of a few rows: close enough to the block's mean to lose no precision.
        let few = &self.rows[..self.rows.len().min(16 * c)];
        let share = simd.splat_f32s((c as f64 / few.len() as f64) as f32);
        let zero = simd.splat_f32s(0.0);
        let mut from = 0;
        while from < c {
            let count = (c - from).min(S::F32_LANES);
            let mut pivot = zero;
            for row in few.chunks_exact(c) {
                pivot = simd.add_f32s(pivot, T::load_some(simd, row, from, count));
            }
            let pivot = simd.mul_f32s(share, pivot);
            let (mut first, mut second) = ([0.0; 16], [0.0; 16]);
            for run in self.rows.chunks(RUN * c) {
                let (mut s, mut q) = (zero, zero);
                for row in run.chunks_exact(c) {
                    let d = simd.sub_f32s(T::load_some(simd, row, from, count), pivot);
                    s = simd.add_f32s(s, d);
                    q = mul_add(simd, d, d, q);
                }
                add_wide(simd, &mut first, s);
                add_wide(simd, &mut second, q);
            }
            let pivots = spill(simd, pivot);
            for i in 0..16 {
                second[i] = (second[i] - first[i] * first[i] / n).max(0.0);
                first[i] = f64::from(pivots[i]) + first[i] / n;
            }
            mean[from..from + count].copy_from_slice(&first[..count]);
            spread[from..from + count].copy_from_slice(&second[..count]);
            from += count;
        }
        (n, mean, spread)
    }
}

impl Channels<'_, f32> {
    /// The vector of channels `from..from + count`.
    #[inline(always)]
    pub fn ready<S: Simd>(&self, simd: S, from: usize, count: usize) -> Ready<S> {
        Ready {
            mean: f32::load_some(simd, self.mean, from, count),
            scale: f32::load_some(simd, self.scale, from, count),
            shift: f32::load_some(simd, self.shift, from, count),
            floor: simd.splat_f32s(if self.relu { 0.0 } else { f32::NEG_INFINITY }),
        }
    }
}

/// [`Channels`] for one vector of channels.
#[derive(Clone, Copy)]
pub struct Ready<S: Simd> {
    mean: S::f32s,
    scale: S::f32s,
    shift: S::f32s,
    floor: S::f32s,
}

impl<S: Simd> Ready<S> {
    /// A value that is not used.
    #[inline(always)]
    pub fn nothing(simd: S) -> Self {
        let zero = simd.splat_f32s(0.0);
        Ready { mean: zero, scale: zero, shift: zero, floor: zero }
    }

    /// Normalised x. NaN stays NaN, so that a diverged network is noticed.
    #[inline(always)]
    pub fn apply(&self, simd: S, x: S::f32s) -> S::f32s {
        let y = mul_add(simd, simd.sub_f32s(x, self.mean), self.scale, self.shift);
        simd.select_f32s(simd.less_than_f32s(y, self.floor), self.floor, y)
    }
}

/// Σ dy and Σ dy·(x − mean) for each channel, one after the other; dy is masked where the normalised x is ≤ 0 if a ReLU followed.
pub struct GradientSums<'a, T> {
    pub x: &'a [T],
    pub dy: &'a [T],
    pub normal: Channels<'a, f32>,
}

impl<T: Fast> WithSimd for GradientSums<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let Channels { mean, scale, shift, relu } = self.normal;
        let c = mean.len();
        let mut all = vec![0.0; 2 * c];
        let zero = simd.splat_f32s(0.0);
        let mut from = 0;
        while from < c {
            let count = (c - from).min(S::F32_LANES);
            let mean = f32::load_some(simd, mean, from, count);
            let (scale, shift) = (f32::load_some(simd, scale, from, count), f32::load_some(simd, shift, from, count));
            let (mut plain, mut centred) = ([0.0; 16], [0.0; 16]);
            for (x, dy) in self.x.chunks(RUN * c).zip(self.dy.chunks(RUN * c)) {
                let (mut p, mut q) = (zero, zero);
                for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                    let t = simd.sub_f32s(T::load_some(simd, x, from, count), mean);
                    let dy = T::load_some(simd, dy, from, count);
                    let y = mul_add(simd, t, scale, shift);
                    let d = if relu { simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, dy) } else { dy };
                    p = simd.add_f32s(p, d);
                    q = mul_add(simd, d, t, q);
                }
                add_wide(simd, &mut plain, p);
                add_wide(simd, &mut centred, q);
            }
            all[from..from + count].copy_from_slice(&plain[..count]);
            all[c + from..c + from + count].copy_from_slice(&centred[..count]);
            from += count;
        }
        all
    }
}

#[inline(always)]
fn spill<S: Simd>(simd: S, v: S::f32s) -> [f32; 16] {
    let mut spilled = [0.0; 16];
    f32::store::<S, false>(simd, &mut spilled, 0, v);
    spilled
}

/// Adds a vector of short sums to long ones.
#[inline(always)]
fn add_wide<S: Simd>(simd: S, sums: &mut [f64; 16], v: S::f32s) {
    let v = spill(simd, v);
    for i in 0..16 {
        sums[i] += f64::from(v[i]);
    }
}
