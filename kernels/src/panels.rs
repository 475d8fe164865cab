//! The right factor of a product, divided into panels a few vectors wide, so that the inner loop reads it in order.

#![allow(clippy::needless_range_loop, reason = "a square that is turned")]

use std::sync::Arc;

use rayon::prelude::*;

use super::fast::{Factor, Fast as _};
use super::geometry::Geometry;
use super::micro::panel_width;
use super::simd::{MixedKernel, Simd, lanes, run_mixed};
use crate::buffer::{Buffer, BufferPool};

/// The widths of the panels that `columns` columns make, and the same rounded up to whole vectors.
pub fn widths(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let (panel, lanes) = (panel_width(), lanes());
    (0..columns.div_ceil(panel)).map(move |j| {
        let width = panel.min(columns - j * panel);
        (width, width.next_multiple_of(lanes))
    })
}

/// Weights (OIHW) as the right factor of a convolution, or of its gradient, `depth` × `columns`.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    weight: &'a [f32],
    /// Input channels, and taps of an output's kernel.
    c: usize,
    taps: usize,
    /// Number of outputs.
    o: usize,
    /// Whether sums are over outputs.
    back: bool,
}

impl<'a> Weights<'a> {
    /// For [`Taps::forward`](super::taps::Taps::forward): rows are (tap, input channel), columns outputs.
    pub fn forward(weight: &'a [f32], g: &Geometry) -> Self {
        Weights { weight, c: g.c, taps: g.kernel * g.kernel, o: g.o, back: false }
    }

    /// For [`Taps::backward`](super::taps::Taps::backward): rows are (tap, output), columns input channels.
    pub fn backward(weight: &'a [f32], g: &Geometry) -> Self {
        Weights { back: true, ..Weights::forward(weight, g) }
    }

    /// Rows of factors for a tap.
    fn rows<F: Factor>(&self) -> usize {
        if self.back { self.o } else { self.c }.div_ceil(F::DEPTH)
    }

    /// Total rows of factors.
    pub fn depth<F: Factor>(&self) -> usize {
        self.taps * self.rows::<F>()
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        if self.back { self.c } else { self.o }
    }

    /// Packs all panels, one after the other.
    pub(crate) fn panels<F: Factor>(&self, pool: &Arc<BufferPool>) -> Panels<F> {
        let (depth, columns) = (self.depth::<F>(), self.columns());
        let mut data = Buffer::new(depth * columns.next_multiple_of(lanes()), pool);
        data.par_chunks_mut(depth * panel_width()).enumerate().for_each(|(j, data)| self.panel(j, data));
        Panels { data, depth, columns }
    }

    /// Packs panel number `j`. Columns that fill its last vector are zeros.
    pub(crate) fn panel<F: Factor>(&self, j: usize, to: &mut [F]) {
        let first = j * panel_width();
        let (width, stride) = (panel_width().min(self.columns() - first), to.len() / self.depth::<F>());
        if width < stride {
            to.fill(F::zeroed());
        }
        if self.back { self.inputs(first, width, stride, to) } else { self.outputs(first, width, stride, to) }
    }

    fn outputs<F: Factor>(&self, first: usize, width: usize, stride: usize, panel: &mut [F]) {
        let Weights { c, taps, .. } = *self;
        let rows = self.rows::<F>();
        // Sixteen rows at a time, so that their part of the panel stays in the nearest cache.
        for from in (0..rows).step_by(16) {
            if taps == 1 && (from + 16) * F::DEPTH <= c {
                let (from, to) = (&self.weight[first * c + from * F::DEPTH..], &mut panel[from * stride..]);
                run_mixed(Transpose { from, stride: c, rows: width, to, to_stride: stride });
                continue;
            }
            for o in 0..width {
                let weight = &self.weight[(first + o) * c * taps..][..c * taps];
                for (i, tap) in (from..rows.min(from + 16)).flat_map(|i| (0..taps).map(move |tap| (i, tap))) {
                    let number = |k| weight.get((i * F::DEPTH + k) * taps + tap).copied().unwrap_or(0.0);
                    panel[(tap * rows + i) * stride + o] = F::of(number);
                }
            }
        }
    }

    fn inputs<F: Factor>(&self, first: usize, width: usize, stride: usize, panel: &mut [F]) {
        let Weights { c, taps, o, .. } = *self;
        let rows = self.rows::<F>();
        for (i, tap) in (0..rows).flat_map(|i| (0..taps).map(move |tap| (i, tap))) {
            let row = &mut panel[(tap * rows + i) * stride..][..width];
            // After the last output there are zeros; its own weights are read in place of missing ones.
            let weight = |k: usize| &self.weight[((i * F::DEPTH + k).min(o - 1) * c + first) * taps..][..width * taps];
            let (one, other, both) = (weight(0), weight(F::DEPTH - 1), (i + 1) * F::DEPTH <= o);
            if taps == 1 && both {
                run_mixed(Join { numbers: [one, other], to: row });
                continue;
            }
            for (j, to) in row.iter_mut().enumerate() {
                *to = F::of(|k| match k {
                    0 => one[j * taps + tap],
                    _ if both => other[j * taps + tap],
                    _ => 0.0,
                });
            }
        }
    }
}

/// A `depth` × `columns` matrix of factors in panels, one after the other.
pub struct Panels<F> {
    data: Buffer<F>,
    depth: usize,
    columns: usize,
}

impl<F: Factor> Panels<F> {
    /// Each panel: its first column, its width, its factors.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, &[F])> {
        let size = self.depth * panel_width();
        widths(self.columns)
            .enumerate()
            .map(move |(j, (width, stride))| (j * panel_width(), width, &self.data[j * size..][..self.depth * stride]))
    }
}

/// Combines rows of values number 0, 1, … of factors.
struct Join<'a, F> {
    numbers: [&'a [f32]; 2],
    to: &'a mut [F],
}

impl<F: Factor> MixedKernel for Join<'_, F> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(self, simd: S) {
        let Join { numbers: [one, other], to } = self;
        let whole = to.len() / S::F32_LANES * S::F32_LANES;
        for at in (0..whole).step_by(S::F32_LANES) {
            F::join::<S, NATIVE>(simd, to, at, [f32::load(simd, one, at), f32::load(simd, other, at)]);
        }
        for at in whole..to.len() {
            to[at] = F::of(|k| if k == 0 { one[at] } else { other[at] });
        }
    }
}

/// Transposes sixteen columns of factors of `rows` rows, at distance `stride`, to sixteen rows at distance `to_stride`.
struct Transpose<'a, F> {
    from: &'a [f32],
    stride: usize,
    rows: usize,
    to: &'a mut [F],
    to_stride: usize,
}

impl<F: Factor> MixedKernel for Transpose<'_, F> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(self, simd: S) {
        let Transpose { from, stride, rows, to, to_stride } = self;
        let (mut square, mut turned) = ([[F::zeroed(); 16]; 16], [[F::zeroed(); 16]; 16]);
        for first in (0..rows).step_by(16) {
            let count = (rows - first).min(16);
            for i in 0..count {
                F::row::<S, NATIVE>(simd, &from[(first + i) * stride..][..16 * F::DEPTH], &mut square[i]);
            }
            for i in 0..16 {
                for j in 0..16 {
                    turned[j][i] = square[i][j];
                }
            }
            for j in 0..16 {
                to[j * to_stride + first..][..count].copy_from_slice(&turned[j][..count]);
            }
        }
    }
}
