//! Statistics for batch normalisation, computed for blocks of rows and merged.
//!
//! Statistics are computed block by block, each around the block's own mean, and merged in f64 (Chan, Golub & LeVeque 1983), so that
//! neither many rows nor a large mean costs precision. Blocks depend on the problem's shape alone.

use crate::element::{Bf16, Element, Real, zero};
use crate::passes::Channels;
use crate::rows::{GradientSums, Moments};
use crate::simd::run;

/// Values in a block of an elementwise pass: few enough for a core's cache, and enough to be worth a task.
pub const BLOCK: usize = 1 << 14;

/// Rows of `c` channels in a block.
pub(crate) fn block_rows(c: usize) -> usize {
    (BLOCK / c).max(1)
}

/// Number of rows, mean, and sum of squared deviations for each column of a block.
pub type BlockMoments = (f64, Vec<f64>, Vec<f64>);

/// Σ dy and Σ dy·(x − mean) for each channel: the sums that the backward pass of a normalisation begins with.
pub type Sums = (Vec<f64>, Vec<f64>);

/// Sums over one block.
pub trait BlockSums: Element {
    /// Number of rows, mean, and sum of squared deviations of a block of `c` columns.
    fn moments(block: &[Self], c: usize) -> BlockMoments;

    /// Σ dy and Σ dy·(x − mean) for each channel of a block, one after the other; dy is masked by the normalisation's ReLU.
    fn gradient_sums(x: &[Self], dy: &[Self], normal: Channels<Self::Real>) -> Vec<f64>;
}

impl BlockSums for f64 {
    fn moments(block: &[f64], c: usize) -> BlockMoments {
        block_moments(block, c)
    }

    fn gradient_sums(x: &[f64], dy: &[f64], normal: Channels<f64>) -> Vec<f64> {
        block_sums(x, dy, normal)
    }
}

impl BlockSums for f32 {
    fn moments(block: &[f32], c: usize) -> BlockMoments {
        run(Moments { rows: block, c })
    }

    fn gradient_sums(x: &[f32], dy: &[f32], normal: Channels<f32>) -> Vec<f64> {
        run(GradientSums { x, dy, normal })
    }
}

impl BlockSums for Bf16 {
    fn moments(block: &[Bf16], c: usize) -> BlockMoments {
        run(Moments { rows: block, c })
    }

    fn gradient_sums(x: &[Bf16], dy: &[Bf16], normal: Channels<f32>) -> Vec<f64> {
        run(GradientSums { x, dy, normal })
    }
}

/// Mean and biased variance of the columns over all blocks.
pub fn merge(blocks: Vec<BlockMoments>, c: usize) -> [Vec<f64>; 2] {
    let (mut count, mut mean, mut spread) = (0.0, vec![0.0; c], vec![0.0; c]);
    for (n, block_mean, block_spread) in blocks {
        let total = count + n;
        for i in 0..c {
            let d = block_mean[i] - mean[i];
            mean[i] += d * n / total;
            spread[i] += block_spread[i] + d * d * count * n / total;
        }
        count = total;
    }
    spread.iter_mut().for_each(|s| *s /= count);
    [mean, spread]
}

/// The gradient sums of all blocks over `c` channels, added, as two vectors.
pub fn split(blocks: &[Vec<f64>], c: usize) -> Sums {
    let mut plain = total(blocks, 2 * c);
    let centred = plain.split_off(c);
    (plain, centred)
}

/// The sum of all blocks' sums, added in order.
pub fn total(blocks: &[Vec<f64>], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    blocks.iter().for_each(|b| sums.iter_mut().zip(b).for_each(|(s, v)| *s += v));
    sums
}

/// Rows summed in the working precision before the sum is added in f64.
const RUN: usize = 16;

/// Adds each row to `sums`: short runs in T, their sums in f64.
#[inline(always)]
pub(crate) fn accumulate<T: Element>(rows: &[T], c: usize, sums: &mut [f64]) {
    let zero = zero::<T>();
    let mut short = vec![zero; c];
    for run in rows.chunks(RUN * c) {
        short.fill(zero);
        for row in run.chunks_exact(c) {
            short.iter_mut().zip(row).for_each(|(s, &v)| *s += v.up());
        }
        sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
    }
}

/// Number of rows, mean, and sum of squared deviations of a block.
#[inline(always)]
fn block_moments<T: Real>(block: &[T], c: usize) -> BlockMoments {
    let n = (block.len() / c) as f64;
    let mut mean = vec![0.0; c];
    accumulate(block, c, &mut mean);
    // The pivot is the mean rounded to T; the first-order term corrects the rounding.
    let pivot: Vec<T> = mean.iter().map(|s| T::of(s / n)).collect();
    let (mut first, mut second) = (vec![0.0; c], vec![0.0; c]);
    let zero = zero::<T>();
    let (mut short, mut square) = (vec![zero; c], vec![zero; c]);
    for run in block.chunks(RUN * c) {
        short.fill(zero);
        square.fill(zero);
        for row in run.chunks_exact(c) {
            for (((s, q), &v), &p) in short.iter_mut().zip(&mut square).zip(row).zip(&pivot) {
                *s += v - p;
                *q += (v - p) * (v - p);
            }
        }
        first.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
        second.iter_mut().zip(&square).for_each(|(sum, s)| *sum += s.wide());
    }
    for i in 0..c {
        mean[i] = pivot[i].wide() + first[i] / n;
        second[i] = (second[i] - first[i] * first[i] / n).max(0.0);
    }
    (n, mean, second)
}

/// Σ dy and Σ dy·(x − mean) for each channel of a block, one after the other.
fn block_sums<T: Real>(x: &[T], dy: &[T], normal: Channels<T>) -> Vec<f64> {
    let Channels { mean, scale, shift, relu } = normal;
    let (c, zero) = (mean.len(), zero::<T>());
    let mut sums = vec![0.0; 2 * c];
    let mut short = vec![zero; 2 * c];
    for (x, dy) in x.chunks(RUN * c).zip(dy.chunks(RUN * c)) {
        short.fill(zero);
        let (plain, centred) = short.split_at_mut(c);
        for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
            let channels = mean.iter().zip(scale).zip(shift);
            let sums = plain.iter_mut().zip(centred.iter_mut());
            for (((&x, &dy), (plain, centred)), ((&mean, &scale), &shift)) in x.iter().zip(dy).zip(sums).zip(channels) {
                let d = if relu && (x - mean) * scale + shift <= zero { zero } else { dy };
                *plain += d;
                *centred += d * (x - mean);
            }
        }
        sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
    }
    sums
}
