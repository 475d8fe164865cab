//! The right factor of a product, cut into panels of a few vectors' width so that the inner loop reads it in order.

#![allow(clippy::needless_range_loop, reason = "a square that is turned")]

use std::sync::Arc;

use rayon::prelude::*;

use super::conv::Geometry;
use super::micro::panel_width;
use super::simd::lanes;
use crate::nn::map::{Pool, Scratch};

/// Widths of the panels that `columns` columns make, and the same rounded up to whole vectors.
pub fn widths(columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let (panel, lanes) = (panel_width(), lanes());
    (0..columns.div_ceil(panel)).map(move |j| {
        let width = panel.min(columns - j * panel);
        (width, width.next_multiple_of(lanes))
    })
}

/// A `depth` × `columns` matrix in panels, one after the other.
pub struct Panels {
    data: Scratch<f32>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// Weights (OIHW) for [`Taps::forward`](super::taps::Taps::forward): rows are (tap, input channel), columns outputs.
    pub fn forward(weight: &[f32], g: &Geometry, pool: &Arc<Pool<f32>>) -> Self {
        let (taps, c) = (g.kernel * g.kernel, g.c);
        Panels::fill(taps * c, g.o, pool, |first, width, stride, panel| {
            // Sixteen input channels at a time: their rows of the panel stay in the nearest cache.
            for from in (0..c).step_by(16) {
                if taps == 1 && from + 16 <= c {
                    transpose(&weight[first * c + from..], c, width, &mut panel[from * stride..], stride);
                    continue;
                }
                let run = from * taps..c.min(from + 16) * taps;
                for o in 0..width {
                    let weight = &weight[(first + o) * c * taps..][run.clone()];
                    for (i, weight) in weight.chunks_exact(taps).enumerate() {
                        for (tap, &v) in weight.iter().enumerate() {
                            panel[(tap * c + from + i) * stride + o] = v;
                        }
                    }
                }
            }
        })
    }

    /// Weights (OIHW) for [`Taps::backward`](super::taps::Taps::backward): rows are (tap, output), columns input channels.
    pub fn backward(weight: &[f32], g: &Geometry, pool: &Arc<Pool<f32>>) -> Self {
        let (taps, c) = (g.kernel * g.kernel, g.c);
        Panels::fill(taps * g.o, c, pool, |first, width, stride, panel| {
            for o in 0..g.o {
                let weight = &weight[(o * c + first) * taps..][..width * taps];
                if taps == 1 {
                    panel[o * stride..][..width].copy_from_slice(weight);
                    continue;
                }
                for tap in 0..taps {
                    let row = &mut panel[(tap * g.o + o) * stride..][..width];
                    row.iter_mut().zip(weight[tap..].iter().step_by(taps)).for_each(|(to, &v)| *to = v);
                }
            }
        })
    }

    /// `fill(first column, width, stride, panel)` writes a panel whose last columns are zeros already.
    fn fill(depth: usize, columns: usize, pool: &Arc<Pool<f32>>, fill: impl Fn(usize, usize, usize, &mut [f32]) + Sync) -> Self {
        let panel = panel_width();
        let mut data = Scratch::new(depth * columns.next_multiple_of(lanes()), pool);
        data.par_chunks_mut(depth * panel).enumerate().for_each(|(j, data)| {
            let width = panel.min(columns - j * panel);
            let stride = data.len() / depth;
            if width < stride {
                data.fill(0.0);
            }
            fill(j * panel, width, stride, data);
        });
        Panels { data, depth, columns }
    }

    /// Each panel: its first column, its width, its numbers.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, &[f32])> {
        let size = self.depth * panel_width();
        widths(self.columns)
            .enumerate()
            .map(move |(j, (width, stride))| (j * panel_width(), width, &self.data[j * size..][..self.depth * stride]))
    }
}

/// Sixteen columns of `rows` rows, `stride` apart, to sixteen rows, `to_stride` apart.
fn transpose(from: &[f32], stride: usize, rows: usize, to: &mut [f32], to_stride: usize) {
    let mut tile = [[0.0; 16]; 16];
    for first in (0..rows).step_by(16) {
        let count = (rows - first).min(16);
        for i in 0..count {
            let row = &from[(first + i) * stride..][..16];
            for j in 0..16 {
                tile[j][i] = row[j];
            }
        }
        for (j, tile) in tile.iter().enumerate() {
            let to = &mut to[j * to_stride + first..][..count];
            match to.first_chunk_mut::<16>() {
                Some(to) => *to = *tile,
                None => to.copy_from_slice(&tile[..count]),
            }
        }
    }
}
