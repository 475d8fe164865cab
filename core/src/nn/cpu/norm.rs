//! Batch normalisation over rows of channels, and the column sums it needs.
//!
//! Statistics are gathered block by block, each block around its own mean, and merged in f64 (Chan, Golub & LeVeque 1983), so
//! that neither many rows nor a large mean costs digits.

use rayon::prelude::*;

use super::passes::{Apply, Backward, Channels, Join, Mask, Plain, pass};
use super::rows::Normal;
use super::{block_rows, wide};
use crate::nn::cell::{Cell, Read, Real, zero};

/// Numbers in a row that passes over `c` channels work on: several rows of few channels are one, so that vectors are filled.
fn wide_row(c: usize) -> usize {
    c * (256 / c).max(1)
}

/// Rows summed in the working precision before the sum goes to f64.
const RUN: usize = 16;

/// Adds the `map` of each row to `sums`: short runs in T, their sums in f64.
#[inline(always)]
pub(super) fn accumulate<T: Cell>(rows: &[T], c: usize, sums: &mut [f64], map: impl Fn(usize, T::Real) -> T::Real) {
    let zero = zero::<T>();
    let mut short = vec![zero; c];
    for run in rows.chunks(RUN * c) {
        short.fill(zero);
        for row in run.chunks_exact(c) {
            short.iter_mut().zip(row).enumerate().for_each(|(i, (s, &v))| *s += map(i, v.up()));
        }
        sums.iter_mut().zip(&short).for_each(|(sum, s)| *sum += s.wide());
    }
}

/// Rows, mean and summed squared deviations of a block.
#[inline(always)]
pub fn block_moments<T: Real>(block: &[T], c: usize) -> BlockMoments {
    let n = (block.len() / c) as f64;
    let mut mean = vec![0.0; c];
    accumulate(block, c, &mut mean, |_, v| v);
    // The pivot is the mean rounded to T; the first-order term puts right what the rounding lost.
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

/// Rows, mean and summed squared deviations of each of a block's columns.
pub type BlockMoments = (f64, Vec<f64>, Vec<f64>);

/// Mean and biased variance of each of `c` columns.
pub fn moments<T: Cell>(x: &[T], c: usize) -> (Vec<f64>, Vec<f64>) {
    merge(x.par_chunks(block_rows(c) * c).map(|block| T::moments(block, c)).collect(), c)
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
pub fn column_sums<T: Cell>(x: &[T], c: usize) -> Vec<f64> {
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

impl<R: Real> Affine<R> {
    /// y of x.
    pub fn forward<T: Cell<Real = R>>(&self, x: &[T], y: &mut [T]) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        let (c, wide) = (self.row(), self.widened());
        blocks.for_each(|(y, x)| pass(y, x, x, c, Apply(wide.channels(c))));
    }

    /// Numbers in a row that passes work on.
    fn row(&self) -> usize {
        wide_row(self.mean.len())
    }

    /// The same for such rows.
    fn widened(&self) -> Affine<R> {
        let wide = |v: &[R]| v.repeat(self.row() / v.len());
        Affine { mean: wide(&self.mean), scale: wide(&self.scale), shift: wide(&self.shift), relu: self.relu }
    }

    /// The numbers of `c` channels, as slices whose length a loop knows.
    fn channels(&self, c: usize) -> Channels<'_, R> {
        Channels { mean: &self.mean[..c], scale: &self.scale[..c], shift: &self.shift[..c], relu: self.relu }
    }

    /// Σ dy and Σ dy·(x − mean) per channel, dy masked by the ReLU.
    pub fn sums<T: Cell<Real = R>>(&self, x: &[T], dy: &[T]) -> (Vec<f64>, Vec<f64>) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let blocks = x.par_chunks(block).zip(dy.par_chunks(block));
        self.split(&blocks.map(|(x, dy)| T::gradient_sums(x, dy, self)).collect::<Vec<_>>())
    }

    /// All blocks' sums, told apart.
    pub fn split(&self, blocks: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let c = self.mean.len();
        let mut plain = total(blocks, 2 * c);
        let centred = plain.split_off(c);
        (plain, centred)
    }

    /// The sums of one block, one after the other.
    pub fn block_sums(&self, x: &[R], dy: &[R]) -> Vec<f64> {
        let (c, zero) = (self.mean.len(), zero::<R>());
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
    pub fn backward<T: Cell<Real = R>>(&self, x: &[T], dy: Option<&[T]>, dx: &mut [T], offset: &[R], slope: &[R]) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let (c, wide) = (self.row(), self.widened());
        let [offset, slope] = [offset, slope].map(|v| v.repeat(c / v.len()));
        dx.par_chunks_mut(block).zip(x.par_chunks(block)).enumerate().for_each(|(i, (dx, x))| {
            if let Some(dy) = dy {
                dx.copy_from_slice(&dy[i * block..][..dx.len()]);
            }
            pass(dx, x, x, c, Backward { norm: wide.channels(c), offset: &offset[..c], slope: &slope[..c] });
        });
    }
}

impl Affine<f32> {
    /// The same for kernels in f32.
    pub fn normal(&self) -> Normal<'_> {
        Normal { mean: &self.mean, scale: &self.scale, shift: &self.shift, relu: self.relu }
    }
}

/// y = max(a + b, 0), each perhaps normalised on the way: the end of a residual block, in one pass.
pub fn join<T: Cell>(a: Read<T>, b: Read<T>, c: usize, y: &mut [T]) {
    let block = block_rows(c) * c;
    let (wide_a, wide_b, c) = (a.1.map(Affine::widened), b.1.map(Affine::widened), wide_row(c));
    y.par_chunks_mut(block).enumerate().for_each(|(i, y)| {
        let part = |x: &[T]| i * block..(i * block + y.len()).min(x.len());
        let (x, z) = (&a.0[part(a.0)], &b.0[part(b.0)]);
        match (wide_a.as_ref().map(|a| a.channels(c)), wide_b.as_ref().map(|b| b.channels(c))) {
            (Some(a), Some(b)) => pass(y, x, z, c, Join(a, b)),
            (Some(a), None) => pass(y, x, z, c, Join(a, Plain)),
            (None, Some(b)) => pass(y, x, z, c, Join(Plain, b)),
            (None, None) => pass(y, x, z, c, Join(Plain, Plain)),
        }
    });
}

/// The beginning of a residual block's way back, in one pass: dy is masked where y, the block's output, is 0, and each side that
/// ends in a normalisation is told its [sums](Affine::sums).
pub fn masked_sums<T: Cell>(dy: &mut [T], y: &[T], c: usize, sides: [Read<T>; 2]) -> [Option<(Vec<f64>, Vec<f64>)>; 2] {
    let block = block_rows(c) * c;
    let one = |(i, (dy, y)): (usize, (&mut [T], &[T]))| {
        pass(dy, y, y, y.len(), Mask);
        let dy = &*dy;
        sides.map(|(x, affine)| affine.map(|affine| T::gradient_sums(&x[i * block..][..dy.len()], dy, affine)))
    };
    let blocks: Vec<[Option<Vec<f64>>; 2]> = dy.par_chunks_mut(block).zip(y.par_chunks(block)).enumerate().map(one).collect();
    let mut sums = [Vec::new(), Vec::new()];
    for seen in blocks {
        sums.iter_mut().zip(seen).for_each(|(sums, seen)| sums.extend(seen));
    }
    let [left, right] = sums;
    [sides[0].1.map(|affine| affine.split(&left)), sides[1].1.map(|affine| affine.split(&right))]
}
