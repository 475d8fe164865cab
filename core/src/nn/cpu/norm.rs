//! Batch normalisation over rows of channels, and the column sums it needs.
//!
//! Statistics are gathered block by block, each block around its own mean, and merged in f64 (Chan, Golub & LeVeque 1983), so
//! that neither many rows nor a large mean costs digits.

use rayon::prelude::*;

use super::rows::{GradientSums, Moments, Normal};
use super::{block_rows, simd, wide};
use crate::nn::map::Real;

/// Rows summed in the working precision before the sum goes to f64.
const RUN: usize = 16;

/// Adds the `map` of each row to `sums`: short runs in T, their sums in f64.
#[inline(always)]
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

/// Rows, mean and summed squared deviations of a block.
#[inline(always)]
fn block_moments<T: Real>(block: &[T], c: usize) -> BlockMoments {
    let n = (block.len() / c) as f64;
    let mut mean = vec![0.0; c];
    accumulate(block, c, &mut mean, |_, v| v);
    // The pivot is the mean rounded to T; the first-order term puts right what the rounding lost.
    let pivot: Vec<T> = mean.iter().map(|s| T::of(s / n)).collect();
    let (mut first, mut second) = (vec![0.0; c], vec![0.0; c]);
    let zero = <T as num_traits::Zero>::zero();
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

/// Rows, mean and summed squared deviations of each of a block's columns.
pub type BlockMoments = (f64, Vec<f64>, Vec<f64>);

/// Mean and biased variance of each of `c` columns.
pub fn moments<T: Real>(x: &[T], c: usize) -> (Vec<f64>, Vec<f64>) {
    let one = |block: &[T]| match T::f32s(block) {
        Some(rows) => simd::run(Moments { rows, c }),
        None => wide(|| block_moments(block, c)),
    };
    merge(x.par_chunks(block_rows(c) * c).map(one).collect(), c)
}

/// Mean and biased variance of all blocks' columns.
pub fn merge(blocks: Vec<BlockMoments>, c: usize) -> (Vec<f64>, Vec<f64>) {
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
        wide(|| {
            let mut sums = vec![0.0; c];
            accumulate(block, c, &mut sums, |_, v| v);
            sums
        })
    };
    let blocks: Vec<Vec<f64>> = x.par_chunks(block_rows(c) * c).map(one).collect();
    total(&blocks, c)
}

/// The sum of all blocks' sums, in order.
pub fn total(blocks: &[Vec<f64>], width: usize) -> Vec<f64> {
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
    /// y of x.
    pub fn forward(&self, x: &[T], y: &mut [T]) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        blocks.for_each(|(y, x)| wide(|| self.forward_block(x, y)));
    }

    #[inline(always)]
    fn forward_block(&self, x: &[T], y: &mut [T]) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            let channels = self.mean.iter().zip(&self.scale).zip(&self.shift);
            for ((y, &x), ((&mean, &scale), &shift)) in y.iter_mut().zip(x).zip(channels) {
                let v = (x - mean) * scale + shift;
                *y = if self.relu && v < zero { zero } else { v };
            }
        }
    }

    /// Σ dy and Σ dy·(x − mean) per channel, dy masked by the ReLU.
    pub fn sums(&self, x: &[T], dy: &[T]) -> (Vec<f64>, Vec<f64>) {
        let c = self.mean.len();
        let block = block_rows(c) * c;
        let blocks: Vec<Vec<f64>> = x.par_chunks(block).zip(dy.par_chunks(block)).map(|(x, dy)| self.sums_of(x, dy)).collect();
        self.split(&blocks)
    }

    /// The sums of one block, one after the other.
    pub fn sums_of(&self, x: &[T], dy: &[T]) -> Vec<f64> {
        match (T::f32s(x), T::f32s(dy), self.normal()) {
            (Some(x), Some(dy), Some(normal)) => simd::run(GradientSums { x, dy, normal }),
            _ => wide(|| self.sums_block(x, dy)),
        }
    }

    /// The same for kernels in f32.
    pub fn normal(&self) -> Option<Normal<'_>> {
        let [mean, scale, shift] = [&self.mean, &self.scale, &self.shift].map(|v| T::f32s(v));
        Some(Normal { mean: mean?, scale: scale?, shift: shift?, relu: self.relu })
    }

    /// All blocks' sums, told apart.
    pub fn split(&self, blocks: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let c = self.mean.len();
        let mut plain = total(blocks, 2 * c);
        let centred = plain.split_off(c);
        (plain, centred)
    }

    #[inline(always)]
    fn sums_block(&self, x: &[T], dy: &[T]) -> Vec<f64> {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        let mut sums = vec![0.0; 2 * c];
        let mut short = vec![zero; 2 * c];
        for (x, dy) in x.chunks(RUN * c).zip(dy.chunks(RUN * c)) {
            short.fill(zero);
            let (plain, centred) = short.split_at_mut(c);
            for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
                let channels = self.mean.iter().zip(&self.scale).zip(&self.shift);
                let sums = plain.iter_mut().zip(centred.iter_mut());
                for (((&x, &dy), (plain, centred)), ((&mean, &scale), &shift)) in x.iter().zip(dy).zip(sums).zip(channels) {
                    let d = if self.relu && (x - mean) * scale + shift <= zero { zero } else { dy };
                    *plain += d;
                    *centred += d * (x - mean);
                }
            }
            sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
        }
        sums
    }

    /// dx = scale·(dy − offset − (x − mean)·slope), dy masked by the ReLU; in place of dy if there is no other memory.
    pub fn backward(&self, x: &[T], dy: Option<&[T]>, dx: &mut [T], offset: &[T], slope: &[T]) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        dx.par_chunks_mut(block).zip(x.par_chunks(block)).enumerate().for_each(|(i, (dx, x))| {
            if let Some(dy) = dy {
                dx.copy_from_slice(&dy[i * block..][..dx.len()]);
            }
            wide(|| self.backward_block(x, dx, offset, slope));
        });
    }

    #[inline(always)]
    fn backward_block(&self, x: &[T], dy: &mut [T], offset: &[T], slope: &[T]) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        for (dy, x) in dy.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            let channels = self.mean.iter().zip(&self.scale).zip(&self.shift).zip(offset.iter().zip(slope));
            for ((dy, &x), (((&mean, &scale), &shift), (&offset, &slope))) in dy.iter_mut().zip(x).zip(channels) {
                let d = if self.relu && (x - mean) * scale + shift <= zero { zero } else { *dy };
                *dy = scale * (d - offset - (x - mean) * slope);
            }
        }
    }

    #[inline(always)]
    fn add_block(&self, x: &[T], y: &mut [T], relu: bool) {
        let (c, zero) = (self.mean.len(), <T as num_traits::Zero>::zero());
        for (y, x) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            let channels = self.mean.iter().zip(&self.scale).zip(&self.shift);
            for ((y, &x), ((&mean, &scale), &shift)) in y.iter_mut().zip(x).zip(channels) {
                let v = (x - mean) * scale + shift;
                let v = *y + if self.relu && v < zero { zero } else { v };
                *y = if relu && v < zero { zero } else { v };
            }
        }
    }
}

/// y = max(a + b, 0), each perhaps normalised on the way: the end of a residual block, in one pass.
pub fn join<T: Real>(a: Read<T>, b: Read<T>, c: usize, y: &mut [T]) {
    let block = block_rows(c) * c;
    let zero = <T as num_traits::Zero>::zero();
    y.par_chunks_mut(block).enumerate().for_each(|(i, y)| {
        let part = |x: &[T]| i * block..(i * block + y.len()).min(x.len());
        let (x, z) = (&a.0[part(a.0)], &b.0[part(b.0)]);
        wide(|| {
            match b.1 {
                Some(affine) => affine.forward_block(z, y),
                None => y.copy_from_slice(z),
            }
            match a.1 {
                Some(affine) => affine.add_block(x, y, true),
                None => y.iter_mut().zip(x).for_each(|(y, &x)| *y = if *y + x < zero { zero } else { *y + x }),
            }
        });
    });
}

/// A map and the normalisation that is still to be done to it.
pub type Read<'a, T> = (&'a [T], Option<&'a Affine<T>>);

/// The beginning of a residual block's way back, in one pass: dy is masked where y, the block's output, is 0, and each side that
/// ends in a normalisation is told its [sums](Affine::sums).
pub fn masked_sums<T: Real>(dy: &mut [T], y: &[T], c: usize, sides: [Read<T>; 2]) -> [Option<(Vec<f64>, Vec<f64>)>; 2] {
    let block = block_rows(c) * c;
    let zero = <T as num_traits::Zero>::zero();
    let one = |(i, (dy, y)): (usize, (&mut [T], &[T]))| {
        wide(|| dy.iter_mut().zip(y).for_each(|(d, &y)| *d = if y > zero { *d } else { zero }));
        let dy = &*dy;
        sides.map(|(x, affine)| affine.map(|affine| affine.sums_of(&x[i * block..][..dy.len()], dy)))
    };
    let blocks: Vec<[Option<Vec<f64>>; 2]> = dy.par_chunks_mut(block).zip(y.par_chunks(block)).enumerate().map(one).collect();
    let mut sums = [Vec::new(), Vec::new()];
    for seen in blocks {
        sums.iter_mut().zip(seen).for_each(|(sums, seen)| sums.extend(seen));
    }
    let [left, right] = sums;
    [sides[0].1.map(|affine| affine.split(&left)), sides[1].1.map(|affine| affine.split(&right))]
}
