//! Batch normalisation over rows of channels, and column sums: passes over whole maps, with a block of rows for each task.

use rayon::prelude::*;

use crate::blocks::{BlockMoments, BlockSums, Sums, accumulate, block_rows, split, total};
use crate::element::{Element, Real, zero};
use crate::passes::{Alone, Apply, Backward, Channels, Join, Mask, Plain, Sum, pass};
use crate::wide;

/// A map's values, and a normalisation that is still to be applied to them.
pub type Read<'a, T> = (&'a [T], Option<&'a Affine<<T as Element>::Real>>);

/// Row length of passes over `c` channels: several rows of few channels are processed as one, so that vectors are filled.
fn wide_row(c: usize) -> usize {
    c * (256 / c).max(1)
}

/// The moments of each block of rows of `c` columns.
pub fn moments<T: BlockSums>(x: &[T], c: usize) -> Vec<BlockMoments> {
    x.par_chunks(block_rows(c) * c).map(|block| T::moments(block, c)).collect()
}

/// The sum of each of `c` columns.
pub fn column_sums<T: Element>(x: &[T], c: usize) -> Vec<f64> {
    let one = |block: &[T]| {
        wide!({
            let mut sums = vec![0.0; c];
            accumulate(block, c, &mut sums);
            sums
        })
    };
    let blocks: Vec<Vec<f64>> = x.par_chunks(block_rows(c) * c).map(one).collect();
    total(&blocks, c)
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
    /// 1/√(variance + ε).
    pub inverse: Vec<f64>,
}

impl<R: Real> Affine<R> {
    /// A normalisation by these statistics, γ, and β (0 if it is none).
    pub fn new(mean: &[f64], variance: &[f64], gamma: &[R], beta: Option<&[R]>, epsilon: f64, relu: bool) -> Self {
        let inverse: Vec<f64> = variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect();
        let scale = gamma.iter().zip(&inverse).map(|(g, i)| R::of(g.wide() * i)).collect();
        let shift = beta.map_or_else(|| vec![zero::<R>(); mean.len()], <[R]>::to_vec);
        Affine { mean: mean.iter().map(|&m| R::of(m)).collect(), scale, shift, relu, inverse }
    }

    /// dγ and dβ.
    pub fn gradients(&self, (plain, centred): &Sums) -> [Vec<R>; 2] {
        [centred.iter().zip(&self.inverse).map(|(s, i)| R::of(s * i)).collect(), plain.iter().map(|&s| R::of(s)).collect()]
    }

    /// Computes y from x.
    pub fn forward<T: Element<Real = R>>(&self, x: &[T], y: &mut [T]) {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
        let (c, wide) = (self.row(), self.widened());
        blocks.for_each(|(y, x)| pass(y, x, x, c, Apply(wide.channels(c))));
    }

    /// The row length of passes.
    fn row(&self) -> usize {
        wide_row(self.mean.len())
    }

    /// The same normalisation for rows of that length.
    fn widened(&self) -> Affine<R> {
        let wide = |v: &[R]| v.repeat(self.row() / v.len());
        let (mean, scale, shift) = (wide(&self.mean), wide(&self.scale), wide(&self.shift));
        Affine { mean, scale, shift, relu: self.relu, inverse: Vec::new() }
    }

    /// The values of all channels.
    pub fn plain(&self) -> Channels<'_, R> {
        self.channels(self.mean.len())
    }

    /// The values of `c` channels, as slices whose length the compiler knows in loops.
    fn channels(&self, c: usize) -> Channels<'_, R> {
        Channels { mean: &self.mean[..c], scale: &self.scale[..c], shift: &self.shift[..c], relu: self.relu }
    }

    /// Σ dy and Σ dy·(x − mean) per channel, dy masked by the ReLU.
    pub fn sums<T: BlockSums<Real = R>>(&self, x: &[T], dy: &[T]) -> Sums {
        let block = block_rows(self.mean.len()) * self.mean.len();
        let blocks = x.par_chunks(block).zip(dy.par_chunks(block));
        let each = |(x, dy): (&[T], &[T])| T::gradient_sums(x, dy, self.plain());
        split(&blocks.map(each).collect::<Vec<_>>(), self.mean.len())
    }

    /// Computes dx from the sums, x and dy; in place of dy if there is no other memory. Statistics of a batch of `rows` rows depend on x,
    /// so the mean of dx and its component along x are subtracted. Frozen statistics, with `rows` none, do not.
    pub fn backward<T: Element<Real = R>>(
        &self,
        (plain, centred): &Sums,
        rows: Option<usize>,
        x: &[T],
        dy: Option<&[T]>,
        dx: &mut [T],
    ) {
        let n = rows.map_or(f64::INFINITY, |rows| rows as f64);
        let offset: Vec<R> = plain.iter().map(|s| R::of(s / n)).collect();
        let slope: Vec<R> = centred.iter().zip(&self.inverse).map(|(s, i)| R::of(s * i * i / n)).collect();
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

/// Moves running statistics towards a batch's by the fraction `share`; the batch's are multiplied by `factor` first.
pub fn follow<R: Real>(running: &mut [R], batch: &[f64], factor: f64, share: f64) {
    for (running, batch) in running.iter_mut().zip(batch) {
        *running = R::of((1.0 - share) * running.wide() + share * (batch * factor));
    }
}

/// y = a + b, each normalised first if it has a normalisation, then optionally max(y, 0): the end of a residual block, in one pass.
pub fn join<T: Element>(a: Read<T>, b: Read<T>, c: usize, relu: bool, y: &mut [T]) {
    let block = block_rows(c) * c;
    let (wide_a, wide_b, c) = (a.1.map(Affine::widened), b.1.map(Affine::widened), wide_row(c));
    y.par_chunks_mut(block).enumerate().for_each(|(i, y)| {
        let part = |x: &[T]| i * block..(i * block + y.len()).min(x.len());
        let (x, z) = (&a.0[part(a.0)], &b.0[part(b.0)]);
        match (wide_a.as_ref().map(|a| a.channels(c)), wide_b.as_ref().map(|b| b.channels(c))) {
            (Some(a), Some(b)) => meet(y, x, z, c, relu, a, b),
            (Some(a), None) => meet(y, x, z, c, relu, a, Plain),
            (None, Some(b)) => meet(y, x, z, c, relu, Plain, b),
            (None, None) => meet(y, x, z, c, relu, Plain, Plain),
        }
    });
}

fn meet<T: Element>(y: &mut [T], x: &[T], z: &[T], c: usize, relu: bool, a: impl Alone<T::Real>, b: impl Alone<T::Real>) {
    if relu { pass(y, x, z, c, Join(a, b)) } else { pass(y, x, z, c, Sum(a, b)) }
}

/// The start of a residual block's backward pass, in one pass: dy is masked where y, the output of the block's ReLU if it has one, is 0;
/// returns the [sums](Affine::sums) of each side that has a normalisation.
pub fn masked_sums<T: BlockSums>(dy: &mut [T], y: Option<&[T]>, c: usize, sides: [Read<T>; 2]) -> [Option<Sums>; 2] {
    let block = block_rows(c) * c;
    let one = |(i, dy): (usize, &mut [T])| {
        if let Some(y) = y {
            let y = &y[i * block..][..dy.len()];
            pass(dy, y, y, y.len(), Mask);
        }
        let dy = &*dy;
        sides.map(|(x, affine)| affine.map(|affine| T::gradient_sums(&x[i * block..][..dy.len()], dy, affine.plain())))
    };
    let blocks: Vec<[Option<Vec<f64>>; 2]> = dy.par_chunks_mut(block).enumerate().map(one).collect();
    let mut sums = [Vec::new(), Vec::new()];
    for seen in blocks {
        sums.iter_mut().zip(seen).for_each(|(sums, seen)| sums.extend(seen));
    }
    let [left, right] = sums;
    [sides[0].1.map(|_| split(&left, c)), sides[1].1.map(|_| split(&right, c))]
}
