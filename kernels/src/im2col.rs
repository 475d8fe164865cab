//! Convolution as matrix products over patches of the input (im2col), block by block so that a block stays in cache.
//!
//! Weights are O × (ky, kx, C), so that a patch of an NHWC image is `kernel` contiguous runs. With X the patches, one row for each output
//! pixel: Y = X·Wᵀ, dX = scatter(dY·W), dW = dYᵀ·X. With stride 1, dX is itself a convolution of dY by the flipped, transposed weight. It
//! works for any type and is kept simple: f64, and so the oracles, run by it.

use std::sync::Arc;

use rayon::prelude::*;

use super::gemm::{gemm, matrix, transposed};
use super::geometry::Geometry;
use crate::buffer::{Buffer, BufferPool};
use crate::element::Real;

impl Geometry {
    /// Values in a patch.
    fn depth(&self) -> usize {
        self.kernel * self.kernel * self.c
    }

    /// Whether a patch is a single pixel, so that the image is its own matrix of patches.
    fn is_matrix(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Output pixels processed at once: patches of half a megabyte, and enough blocks for many cores.
    fn block(&self) -> usize {
        ((1 << 17) / self.depth()).clamp(96, 1024).min(self.rows().div_ceil(32).max(32))
    }

    /// The convolution of dY that gives dX, if there is one.
    fn flipped(&self) -> Option<Geometry> {
        (self.stride == 1 && self.padding < self.kernel).then(|| Geometry {
            h: self.oh,
            w: self.ow,
            c: self.o,
            o: self.c,
            oh: self.h,
            ow: self.w,
            padding: self.kernel - 1 - self.padding,
            ..*self
        })
    }
}

/// OIHW → O × (ky, kx, C).
pub fn pack<T: Real>(weight: &[T], g: &Geometry) -> Vec<T> {
    let taps = g.kernel * g.kernel;
    if taps == 1 {
        return weight.to_vec();
    }
    let mut packed = vec![<T as num_traits::Zero>::zero(); weight.len()];
    packed.par_chunks_mut(g.depth()).zip(weight.par_chunks(g.depth())).for_each(|(to, from)| {
        for (i, taps) in from.chunks_exact(taps).enumerate() {
            taps.iter().enumerate().for_each(|(tap, &v)| to[tap * g.c + i] = v);
        }
    });
    packed
}

/// O × (ky, kx, C) → C × (flipped ky, kx, O), the weight of [`Geometry::flipped`].
fn flip<T: Real>(packed: &[T], g: &Geometry) -> Vec<T> {
    let taps = g.kernel * g.kernel;
    let mut flipped = vec![<T as num_traits::Zero>::zero(); packed.len()];
    flipped.par_chunks_mut(taps * g.o).enumerate().for_each(|(c, to)| {
        for (tap, to) in to.chunks_exact_mut(g.o).enumerate() {
            let from = &packed[(taps - 1 - tap) * g.c + c..];
            to.iter_mut().zip(from.iter().step_by(g.depth())).for_each(|(to, &v)| *to = v);
        }
    });
    flipped
}

/// The patches of `out.len() / depth` output pixels, starting at number `first`.
fn patches<T: Real>(x: &[T], g: &Geometry, first: usize, out: &mut [T]) {
    let zero = <T as num_traits::Zero>::zero();
    let run = g.kernel * g.c;
    let (mut image, mut oy, mut ox) = (first / (g.oh * g.ow), first / g.ow % g.oh, first % g.ow);
    for patch in out.chunks_exact_mut(g.depth()) {
        // Taps lo..hi of a run are inside the image.
        let (left, top) = (ox * g.stride, oy * g.stride);
        let lo = g.padding.saturating_sub(left).min(g.kernel);
        let hi = (g.w + g.padding).saturating_sub(left).min(g.kernel).max(lo);
        for (ky, to) in patch.chunks_exact_mut(run).enumerate() {
            let y = (top + ky).wrapping_sub(g.padding);
            if y >= g.h || lo == hi {
                to.fill(zero);
                continue;
            }
            let from = ((image * g.h + y) * g.w + left + lo - g.padding) * g.c;
            to[..lo * g.c].fill(zero);
            to[lo * g.c..hi * g.c].copy_from_slice(&x[from..from + (hi - lo) * g.c]);
            to[hi * g.c..].fill(zero);
        }
        ox += 1;
        if ox == g.ow {
            (ox, oy) = (0, oy + 1);
            if oy == g.oh {
                (oy, image) = (0, image + 1);
            }
        }
    }
}

/// Computes Y from X and the packed weight. Y is written completely.
pub fn forward<T: Real>(g: &Geometry, x: &[T], packed: &[T], y: &mut [T], pool: &Arc<BufferPool>) {
    let (block, depth) = (g.block(), g.depth());
    y.par_chunks_mut(block * g.o).enumerate().for_each(|(i, y)| {
        let (first, count) = (i * block, y.len() / g.o);
        if g.is_matrix() {
            let x = &x[first * g.c..][..count * g.c];
            gemm([count, g.o, depth], y, g.o, false, matrix(x, depth), transposed(packed, depth));
        } else {
            let mut scratch = Buffer::new(block * depth, pool);
            patches(x, g, first, &mut scratch[..count * depth]);
            gemm([count, g.o, depth], y, g.o, false, matrix(&scratch, depth), transposed(packed, depth));
        }
    });
}

/// Computes dX from dY and the packed weight. dX is written completely.
pub fn input_gradient<T: Real>(g: &Geometry, dy: &[T], packed: &[T], dx: &mut [T], pool: &Arc<BufferPool>) {
    if g.is_matrix() {
        let block = g.block();
        return dx.par_chunks_mut(block * g.c).enumerate().for_each(|(i, dx)| {
            let count = dx.len() / g.c;
            gemm([count, g.c, g.o], dx, g.c, false, matrix(&dy[i * block * g.o..], g.o), matrix(packed, g.c));
        });
    }
    if let Some(flipped) = g.flipped() {
        return forward(&flipped, dy, &flip(packed, g), dx, pool);
    }
    // With a stride, an image's patches overlap, so an image is one task.
    let (pixels, depth) = (g.oh * g.ow, g.depth());
    let block = g.block().min(pixels);
    dx.par_chunks_mut(g.h * g.w * g.c).zip(dy.par_chunks(pixels * g.o)).for_each(|(dx, dy)| {
        dx.fill(<T as num_traits::Zero>::zero());
        let mut scratch = Buffer::new(block * depth, pool);
        for (i, dy) in dy.chunks(block * g.o).enumerate() {
            let count = dy.len() / g.o;
            gemm([count, depth, g.o], &mut scratch, depth, false, matrix(dy, g.o), matrix(packed, depth));
            scatter(&scratch[..count * depth], g, i * block, dx);
        }
    });
}

/// Adds the patches of one image, starting at output pixel `first`, to the pixels that they came from.
fn scatter<T: Real>(patches: &[T], g: &Geometry, first: usize, dx: &mut [T]) {
    let run = g.kernel * g.c;
    for (i, patch) in patches.chunks_exact(g.depth()).enumerate() {
        let (top, left) = ((first + i) / g.ow * g.stride, (first + i) % g.ow * g.stride);
        let lo = g.padding.saturating_sub(left).min(g.kernel);
        let hi = (g.w + g.padding).saturating_sub(left).min(g.kernel).max(lo);
        for (ky, from) in patch.chunks_exact(run).enumerate() {
            let y = (top + ky).wrapping_sub(g.padding);
            if y < g.h && lo < hi {
                let to = &mut dx[(y * g.w + left + lo - g.padding) * g.c..][..(hi - lo) * g.c];
                to.iter_mut().zip(&from[lo * g.c..hi * g.c]).for_each(|(to, &v)| *to += v);
            }
        }
    }
}

/// dW in OIHW from X and dY: partial sums over a fixed number of row groups, added in order.
pub fn weight_gradient<T: Real>(g: &Geometry, x: &[T], dy: &[T], pool: &Arc<BufferPool>) -> Vec<T> {
    let (block, depth, size) = (g.block(), g.depth(), g.o * g.depth());
    let blocks = g.rows().div_ceil(block);
    // Partial sums may take 32 MB, so wide layers, in which one block is enough work, have few of them.
    let groups = ((1 << 23) / size).clamp(2, 16).min(blocks);
    let per_group = blocks.div_ceil(groups);
    let groups = blocks.div_ceil(per_group);
    let mut partial = Buffer::<T>::new(groups * size, pool);
    partial.par_chunks_mut(size).enumerate().for_each(|(group, sum)| {
        let mut scratch = Buffer::new(if g.is_matrix() { 0 } else { block * depth }, pool);
        for i in group * per_group..((group + 1) * per_group).min(blocks) {
            let first = i * block;
            let count = block.min(g.rows() - first);
            let rows = if g.is_matrix() {
                &x[first * depth..][..count * depth]
            } else {
                patches(x, g, first, &mut scratch[..count * depth]);
                &scratch[..count * depth]
            };
            let add = i > group * per_group;
            gemm([g.o, depth, count], sum, depth, add, transposed(&dy[first * g.o..], g.o), matrix(rows, depth));
        }
    });
    let taps = g.kernel * g.kernel;
    let mut dw = vec![<T as num_traits::Zero>::zero(); size];
    dw.par_chunks_mut(depth).enumerate().for_each(|(o, dw)| {
        for sum in partial.chunks_exact(size) {
            for (tap, sum) in sum[o * depth..][..depth].chunks_exact(g.c).enumerate() {
                dw.iter_mut().skip(tap).step_by(taps).zip(sum).for_each(|(to, &v)| *to += v);
            }
        }
    });
    dw
}
