//! Kernels that carry tiles and weights to the planes and back, a vector of channels at a time.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector")]

use super::transform::{gradient, input, kernel, kernel_gradient, output, tile};
use super::{GAP, PLANES, Shape};
use crate::nn::cpu::micro::panel_width;
use crate::nn::cpu::panels::widths;
use crate::nn::cpu::rows::{Normal, Ready};
use crate::nn::cpu::simd::{Simd, WithSimd, load, load_some, store, store_some};

/// U of one panel: outputs `first..first + width` of `outputs`, rows of `stride` floats.
pub struct Kernels<'a> {
    pub weight: &'a [f32],
    /// Whether the weight is (input, output, 3, 3) and to be turned by half a turn.
    pub flip: bool,
    pub inputs: usize,
    pub outputs: usize,
    pub first: usize,
    pub width: usize,
    pub stride: usize,
    pub u: &'a mut [f32],
}

impl WithSimd for Kernels<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let mut taps = [[0.0; 16]; 9];
        for from in (0..self.stride).step_by(lanes) {
            let count = lanes.min(self.width.saturating_sub(from));
            for channel in 0..self.inputs {
                for i in 0..lanes {
                    let output = self.first + from + i;
                    let at = if self.flip { channel * self.outputs + output } else { output * self.inputs + channel };
                    let weight = if i < count { &self.weight[at * 9..][..9] } else { &[0.0; 9][..] };
                    for (tap, &v) in weight.iter().enumerate() {
                        taps[if self.flip { 8 - tap } else { tap }][i] = v;
                    }
                }
                let (u, plane) = (&mut *self.u, self.inputs * self.stride + GAP);
                let start = channel * self.stride + from;
                tile!(
                    simd,
                    kernel,
                    [0 1 2] => 6 [0 1 2 3 4 5],
                    |i| [load(simd, &taps[i * 3], 0), load(simd, &taps[i * 3 + 1], 0), load(simd, &taps[i * 3 + 2], 0)],
                    |k, v| store(simd, u, k * plane + start, v)
                );
            }
        }
    }
}

/// dW of one panel, `(width, inputs, 3, 3)`, from dU, whose planes are `plane` floats apart.
pub struct KernelGradients<'a> {
    pub du: &'a [f32],
    pub inputs: usize,
    pub plane: usize,
    pub width: usize,
    pub stride: usize,
    pub dw: &'a mut [f32],
}

impl WithSimd for KernelGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let mut taps = [[0.0; 16]; 9];
        for from in (0..self.width).step_by(lanes) {
            for channel in 0..self.inputs {
                let du = &self.du[channel * self.stride + from..];
                tile!(
                    simd,
                    kernel_gradient,
                    [0 1 2 3 4 5] => 3 [0 1 2],
                    |i| six(simd, du, i * 6 * self.plane, self.plane),
                    |k, v| store(simd, &mut taps[k], 0, v)
                );
                for i in 0..lanes.min(self.width - from) {
                    let dw = &mut self.dw[((from + i) * self.inputs + channel) * 9..][..9];
                    dw.iter_mut().zip(&taps).for_each(|(to, tap)| *to = tap[i]);
                }
            }
        }
    }
}

/// V of bands `from..to` of what is normalised on the way, if it is.
pub struct Inputs<'a> {
    pub s: Shape,
    pub x: &'a [f32],
    pub normal: Option<Normal<'a>>,
    pub from: usize,
    pub to: usize,
    pub v: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.normal {
            None => self.tiles::<S, false>(simd, NOTHING),
            Some(normal) => self.tiles::<S, true>(simd, normal),
        }
    }
}

/// What is not looked at.
const NOTHING: Normal = Normal { mean: &[], scale: &[], shift: &[], relu: false };

impl Inputs<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const NORMALISE: bool>(self, simd: S, normal: Normal) {
        let Shape { h, w, c, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, self.s.across(), h.div_ceil(4));
        let padded = c.next_multiple_of(lanes);
        let plane = (self.to - self.from) * across * padded + GAP;
        let zero = simd.splat_f32s(0.0);
        for band in self.from..self.to {
            let image = &self.x[band / bands * h * w * c..][..h * w * c];
            let top = band % bands * 4;
            for tile in 0..across {
                let (left, start) = (tile * 4, ((band - self.from) * across + tile) * padded);
                let inside = top > 0 && left > 0 && top + 5 <= h && left + 5 <= w;
                for from in (0..c).step_by(lanes) {
                    let count = lanes.min(c - from);
                    let ready = if NORMALISE { normal.ready(simd, from, count) } else { Ready::nothing(simd) };
                    let v = &mut self.v[start + from..];
                    // A patch inside the image is read where it lies; others are put together with zeros around.
                    if inside && count == lanes {
                        let patch = &image[((top - 1) * w + left - 1) * c + from..];
                        tile!(
                            simd,
                            input,
                            [0 1 2 3 4 5] => 6 [0 1 2 3 4 5],
                            |y| {
                                let row = six(simd, patch, y * w * c, c);
                                if NORMALISE { ready.six(simd, row) } else { row }
                            },
                            |k, value| store(simd, v, k * plane, value)
                        );
                        continue;
                    }
                    let mut patch = [[zero; 6]; 6];
                    for (dy, row) in patch.iter_mut().enumerate() {
                        let y = (top + dy).wrapping_sub(1);
                        for (dx, to) in row.iter_mut().enumerate() {
                            let x = (left + dx).wrapping_sub(1);
                            if y < h && x < w {
                                let value = load_some(simd, image, (y * w + x) * c + from, count);
                                *to = if NORMALISE { ready.apply(simd, value) } else { value };
                            }
                        }
                    }
                    tile!(
                        simd,
                        input,
                        [0 1 2 3 4 5] => 6 [0 1 2 3 4 5],
                        |y| patch[y],
                        |k, value| store(simd, v, k * plane, value)
                    );
                }
            }
        }
    }
}

/// Six vectors, `step` floats apart.
#[inline(always)]
fn six<S: Simd>(simd: S, x: &[f32], at: usize, step: usize) -> [S::f32s; 6] {
    let x = &x[at..at + 5 * step + S::F32_LANES];
    [
        load(simd, x, 0),
        load(simd, x, step),
        load(simd, x, 2 * step),
        load(simd, x, 3 * step),
        load(simd, x, 4 * step),
        load(simd, x, 5 * step),
    ]
}

/// Four vectors, `step` floats apart.
#[inline(always)]
fn four<S: Simd>(simd: S, x: &[f32], at: usize, step: usize) -> [S::f32s; 4] {
    let x = &x[at..at + 3 * step + S::F32_LANES];
    [load(simd, x, 0), load(simd, x, step), load(simd, x, 2 * step), load(simd, x, 3 * step)]
}

/// Y of bands `from..to`, panel after panel in each plane.
pub struct Gradients<'a> {
    pub s: Shape,
    pub dy: &'a [f32],
    pub from: usize,
    pub to: usize,
    pub y: &'a mut [f32],
}

impl WithSimd for Gradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Shape { h, w, o, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, self.s.across(), h.div_ceil(4));
        let tiles = (self.to - self.from) * across;
        let plane = tiles * o.next_multiple_of(lanes) + GAP;
        let zero = simd.splat_f32s(0.0);
        for band in self.from..self.to {
            let image = &self.dy[band / bands * h * w * o..][..h * w * o];
            let top = band % bands * 4;
            for tile in 0..across {
                let (left, number) = (tile * 4, (band - self.from) * across + tile);
                for (panel, (_, stride)) in widths(o).enumerate() {
                    let start = tiles * panel * panel_width() + number * stride;
                    for within in (0..stride).step_by(lanes) {
                        let from = panel * panel_width() + within;
                        let count = lanes.min(o.saturating_sub(from));
                        let y = &mut self.y[start + within..];
                        if top + 4 <= h && left + 4 <= w && count == lanes {
                            let tile = &image[(top * w + left) * o + from..];
                            tile!(
                                simd,
                                gradient,
                                [0 1 2 3] => 6 [0 1 2 3 4 5],
                                |row| four(simd, tile, row * w * o, o),
                                |k, v| store(simd, y, k * plane, v)
                            );
                            continue;
                        }
                        let mut tile = [[zero; 4]; 4];
                        for (dy, row) in tile.iter_mut().enumerate() {
                            for (dx, to) in row.iter_mut().enumerate() {
                                let (y, x) = (top + dy, left + dx);
                                if y < h && x < w {
                                    *to = load_some(simd, image, (y * w + x) * o + from, count);
                                }
                            }
                        }
                        tile!(
                            simd,
                            gradient,
                            [0 1 2 3] => 6 [0 1 2 3 4 5],
                            |row| tile[row],
                            |k, v| store(simd, y, k * plane, v)
                        );
                    }
                }
            }
        }
    }
}

/// The output of bands `from..to` from M, which holds `tiles` tiles of which `first` is the first of these bands.
pub struct Outputs<'a> {
    pub s: Shape,
    pub from: usize,
    pub to: usize,
    pub first: usize,
    pub tiles: usize,
    pub m: &'a [f32],
    pub y: &'a mut [f32],
}

impl WithSimd for Outputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Shape { h, w, o, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, self.s.across(), h.div_ceil(4));
        let plane = self.tiles * panel_width() + GAP;
        let origin = self.s.rows_before(self.from);
        for band in self.from..self.to {
            let (top, row) = (band % bands * 4, self.s.rows_before(band) - origin);
            for tile in 0..across {
                let (left, number) = (tile * 4, self.first + (band - self.from) * across + tile);
                for (panel, (_, stride)) in widths(o).enumerate() {
                    let m = &self.m[panel * PLANES * plane + number * stride..];
                    for within in (0..stride).step_by(lanes) {
                        let from = panel * panel_width() + within;
                        let (m, count) = (&m[within..], lanes.min(o - from));
                        let y = &mut self.y[(row * w + left) * o + from..];
                        if top + 4 <= h && left + 4 <= w && count == lanes {
                            tile!(
                                simd,
                                output,
                                [0 1 2 3 4 5] => 4 [0 1 2 3],
                                |i| six(simd, m, i * 6 * plane, plane),
                                |k, v| store(simd, y, (k / 4 * w + k % 4) * o, v)
                            );
                            continue;
                        }
                        let mut tile = [simd.splat_f32s(0.0); 16];
                        tile!(
                            simd,
                            output,
                            [0 1 2 3 4 5] => 4 [0 1 2 3],
                            |i| six(simd, m, i * 6 * plane, plane),
                            |k, v| tile[k] = v
                        );
                        for (k, &v) in tile.iter().enumerate() {
                            if top + k / 4 < h && left + k % 4 < w {
                                store_some(simd, y, (k / 4 * w + k % 4) * o, count, v);
                            }
                        }
                    }
                }
            }
        }
    }
}
