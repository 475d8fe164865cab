//! Column sums over rows of channels in f32, several vectors of channels at once with their sums in registers: what batch
//! normalisation needs to know of a block while the block is still in cache.

use super::simd::{Simd, WithSimd, load_some, store};

/// Rows summed in f32 before the sum goes to f64.
const RUN: usize = 64;

/// Rows, mean and summed squared deviations of a block: what [`merge`](super::norm::merge) takes.
pub struct Moments<'a> {
    pub rows: &'a [f32],
    pub c: usize,
}

impl WithSimd for Moments<'_> {
    type Output = (f64, Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let (c, n) = (self.c, (self.rows.len() / self.c) as f64);
        let (mut mean, mut spread) = (vec![0.0; c], vec![0.0; c]);
        // Deviations are taken from the mean of a few rows: close enough to the block's that no digits are lost.
        let few = &self.rows[..self.rows.len().min(16 * c)];
        let share = simd.splat_f32s((c as f64 / few.len() as f64) as f32);
        let mut from = 0;
        while from < c {
            let count = (c - from).min(S::F32_LANES);
            let pivot = simd.mul_f32s(share, add_up(simd, few, c, from, count));
            let pivots = spill(simd, pivot);
            let each = |row: &[f32]| {
                let d = simd.sub_f32s(load_some(simd, row, 0, count), pivot);
                [d, simd.mul_f32s(d, d)]
            };
            let [first, second] = sums(simd, self.rows, c, from, each);
            for i in 0..count {
                mean[from + i] = f64::from(pivots[i]) + first[i] / n;
                spread[from + i] = (second[i] - first[i] * first[i] / n).max(0.0);
            }
            from += count;
        }
        (n, mean, spread)
    }
}

/// Σ dy and Σ dy·(x − mean) per channel, one after the other, dy masked where (x − mean)·scale + shift ≤ 0 if `relu`.
pub struct GradientSums<'a> {
    pub x: &'a [f32],
    pub dy: &'a [f32],
    pub mean: &'a [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub relu: bool,
}

impl WithSimd for GradientSums<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        let c = self.mean.len();
        let mut all = vec![0.0; 2 * c];
        let zero = simd.splat_f32s(0.0);
        let mut from = 0;
        while from < c {
            let count = (c - from).min(S::F32_LANES);
            let [mean, scale, shift] = [self.mean, self.scale, self.shift].map(|v| load_some(simd, v, from, count));
            let (mut plain, mut centred) = ([0.0; 16], [0.0; 16]);
            for (x, dy) in self.x.chunks(RUN * c).zip(self.dy.chunks(RUN * c)) {
                let (mut p, mut q) = (zero, zero);
                for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                    let t = simd.sub_f32s(load_some(simd, x, from, count), mean);
                    let dy = load_some(simd, dy, from, count);
                    let y = simd.mul_add_e_f32s(t, scale, shift);
                    let d = if self.relu { simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, dy) } else { dy };
                    p = simd.add_f32s(p, d);
                    q = simd.mul_add_e_f32s(d, t, q);
                }
                plain.iter_mut().zip(spill(simd, p)).for_each(|(to, v)| *to += f64::from(v));
                centred.iter_mut().zip(spill(simd, q)).for_each(|(to, v)| *to += f64::from(v));
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
    store(simd, &mut spilled, 0, v);
    spilled
}

/// One vector of channels, added up in f32.
#[inline(always)]
fn add_up<S: Simd>(simd: S, rows: &[f32], c: usize, from: usize, count: usize) -> S::f32s {
    let mut sum = simd.splat_f32s(0.0);
    for row in rows.chunks_exact(c) {
        sum = simd.add_f32s(sum, load_some(simd, row, from, count));
    }
    sum
}

/// Two sums of one vector of channels: runs in f32, their sums in f64.
#[inline(always)]
fn sums<S: Simd>(
    simd: S,
    rows: &[f32],
    c: usize,
    from: usize,
    each: impl Fn(&[f32]) -> [S::f32s; 2],
) -> [[f64; 16]; 2] {
    let mut all = [[0.0; 16]; 2];
    for run in rows.chunks(RUN * c) {
        let (mut first, mut second) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for row in run.chunks_exact(c) {
            let [a, b] = each(&row[from..]);
            first = simd.add_f32s(first, a);
            second = simd.add_f32s(second, b);
        }
        for (all, short) in all.iter_mut().zip([first, second]) {
            all.iter_mut().zip(spill(simd, short)).for_each(|(to, v)| *to += f64::from(v));
        }
    }
    all
}
