//! Batch normalisation over rows of channels, and the column sums it needs.
//!
//! Statistics are gathered block by block, each block around its own mean, and merged in f64 (Chan, Golub & LeVeque 1983), so
//! that neither many rows nor a large mean costs digits.

use rayon::prelude::*;

use super::block_rows;
use crate::nn::map::Real;

/// Rows summed in the working precision before the sum goes to f64.
const RUN: usize = 16;

/// Adds the `map` of each row to `sums`: short runs in T, their sums in f64.
pub(super) fn accumulate<T: Real>(rows: &[T], c: usize, sums: &mut [f64], map: impl Fn(usize, T) -> T) {
    let zero = <T as num_traits::Zero>::zero();
    let mut short = vec![zero; c];
    for run in rows.chunks(RUN * c) {
        short.fill(zero);
        for row in run.chunks_exact(c) {
            short.iter_mut().zip(row).enumerate().for_each(|(i, (s, &v))| *s += map(i, v));
        }
        sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
    }
}

/// Mean and biased variance of each of `c` columns.
pub fn moments<T: Real>(x: &[T], c: usize) -> (Vec<f64>, Vec<f64>) {
    let blocks: Vec<_> = x
        .par_chunks(block_rows(c) * c)
        .map(|block| {
            let n = (block.len() / c) as f64;
            let mut mean = vec![0.0; c];
            accumulate(block, c, &mut mean, |_, v| v);
            // The pivot is the mean rounded to T; the first-order term puts right what the rounding lost.
            let pivot: Vec<T> = mean.iter().map(|s| T::of(s / n)).collect();
            let (mut first, mut second) = (vec![0.0; c], vec![0.0; c]);
            accumulate(block, c, &mut first, |i, v| v - pivot[i]);
            accumulate(block, c, &mut second, |i, v| (v - pivot[i]) * (v - pivot[i]));
            for i in 0..c {
                mean[i] = pivot[i].wide() + first[i] / n;
                second[i] = (second[i] - first[i] * first[i] / n).max(0.0);
            }
            (n, mean, second)
        })
        .collect();
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
    (mean, spread)
}

/// The sum of each of `c` columns.
pub fn column_sums<T: Real>(x: &[T], c: usize) -> Vec<f64> {
    let one = |block: &[T]| {
        let mut sums = vec![0.0; c];
        accumulate(block, c, &mut sums, |_, v| v);
        sums
    };
    let blocks: Vec<Vec<f64>> = x.par_chunks(block_rows(c) * c).map(one).collect();
    total(&blocks, c)
}

fn total(blocks: &[Vec<f64>], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    blocks.iter().for_each(|b| sums.iter_mut().zip(b).for_each(|(s, v)| *s += v));
    sums
}

/// y = (x − mean)·scale + shift per channel, then, perhaps, max(y, 0).
pub struct Affine<T> {
    /// Subtracted first.
    pub mean: Vec<T>,
    /// γ/√(variance + ε).
    pub scale: Vec<T>,
    /// β.
    pub shift: Vec<T>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl<T: Real> Affine<T> {
    #[inline(always)]
    fn at(&self, i: usize, x: T) -> T {
        (x - self.mean[i]) * self.scale[i] + self.shift[i]
    }

    /// y of x.
    pub fn forward(&self, x: &[T], y: &mut [T]) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        let block = block_rows(c) * c;
        y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| {
            for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                for i in 0..c {
                    let v = self.at(i, x[i]);
                    y[i] = if self.relu && v < zero { zero } else { v };
                }
            }
        });
    }

    /// Σ dy and Σ dy·(x − mean) per channel, dy masked by the ReLU.
    pub fn sums(&self, x: &[T], dy: &[T]) -> (Vec<f64>, Vec<f64>) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        let rows = block_rows(c);
        let one = |(x, dy): (&[T], &[T])| {
            let mut sums = vec![0.0; 2 * c];
            let mut short = vec![zero; 2 * c];
            for (x, dy) in x.chunks(RUN * c).zip(dy.chunks(RUN * c)) {
                short.fill(zero);
                let (plain, centred) = short.split_at_mut(c);
                for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                    for i in 0..c {
                        let d = if self.relu && self.at(i, x[i]) <= zero { zero } else { dy[i] };
                        plain[i] += d;
                        centred[i] += d * (x[i] - self.mean[i]);
                    }
                }
                sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
            }
            sums
        };
        let blocks: Vec<Vec<f64>> = x.par_chunks(rows * c).zip(dy.par_chunks(rows * c)).map(one).collect();
        let mut plain = total(&blocks, 2 * c);
        let centred = plain.split_off(c);
        (plain, centred)
    }

    /// dx = scale·(dy − offset − (x − mean)·slope), dy masked by the ReLU, in place of dy.
    pub fn backward(&self, x: &[T], dy: &mut [T], offset: &[T], slope: &[T]) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        let block = block_rows(c) * c;
        dy.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(dy, x)| {
            for (dy, x) in dy.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                for i in 0..c {
                    let d = if self.relu && self.at(i, x[i]) <= zero { zero } else { dy[i] };
                    dy[i] = self.scale[i] * (d - offset[i] - (x[i] - self.mean[i]) * slope[i]);
                }
            }
        });
    }
}
