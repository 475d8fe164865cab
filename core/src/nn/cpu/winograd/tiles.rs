//! Kernels that carry tiles and weights to the planes and back, a vector of channels at a time.

use super::transform::{gradient_tile, input_tile, kernel_gradient_tile, kernel_tile, output_tile};
use super::{GAP, PLANES, Shape};
use crate::nn::cpu::micro::panel_width;
use crate::nn::cpu::panels::widths;
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
            for input in 0..self.inputs {
                for i in 0..lanes {
                    let output = self.first + from + i;
                    let at = if self.flip { input * self.outputs + output } else { output * self.inputs + input };
                    let kernel = if i < count { &self.weight[at * 9..][..9] } else { &[0.0; 9][..] };
                    for (tap, &v) in kernel.iter().enumerate() {
                        taps[if self.flip { 8 - tap } else { tap }][i] = v;
                    }
                }
                let (u, plane) = (&mut *self.u, self.inputs * self.stride + GAP);
                kernel_tile(
                    simd,
                    |i| [load(simd, &taps[i * 3], 0), load(simd, &taps[i * 3 + 1], 0), load(simd, &taps[i * 3 + 2], 0)],
                    |k, v| store(simd, u, k * plane + input * self.stride + from, v),
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
            for input in 0..self.inputs {
                let at = |k: usize| load(simd, self.du, k * self.plane + input * self.stride + from);
                kernel_gradient_tile(
                    simd,
                    |i| [at(i * 6), at(i * 6 + 1), at(i * 6 + 2), at(i * 6 + 3), at(i * 6 + 4), at(i * 6 + 5)],
                    |k, v| store(simd, &mut taps[k], 0, v),
                );
                for i in 0..lanes.min(self.width - from) {
                    let kernel = &mut self.dw[((from + i) * self.inputs + input) * 9..][..9];
                    kernel.iter_mut().zip(&taps).for_each(|(to, tap)| *to = tap[i]);
                }
            }
        }
    }
}

/// V of bands `from..to`.
pub struct Inputs<'a> {
    pub s: Shape,
    pub x: &'a [f32],
    pub from: usize,
    pub to: usize,
    pub v: &'a mut [f32],
}

impl WithSimd for Inputs<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
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
                    let v = &mut *self.v;
                    let put = |k: usize, value| store(simd, v, k * plane + start + from, value);
                    if inside && from + lanes <= c {
                        let patch = &image[((top - 1) * w + left - 1) * c + from..];
                        input_tile(
                            simd,
                            |y| {
                                let row = &patch[y * w * c..][..5 * c + lanes];
                                let at = |x: usize| load(simd, row, x * c);
                                [at(0), at(1), at(2), at(3), at(4), at(5)]
                            },
                            put,
                        );
                    } else {
                        let at = |y: usize, x: usize| {
                            let (y, x) = ((top + y).wrapping_sub(1), (left + x).wrapping_sub(1));
                            if y < h && x < w { load_some(simd, image, (y * w + x) * c + from, c - from) } else { zero }
                        };
                        input_tile(simd, |y| [at(y, 0), at(y, 1), at(y, 2), at(y, 3), at(y, 4), at(y, 5)], put);
                    }
                }
            }
        }
    }
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
                        let at = |y: usize, x: usize| {
                            let (y, x) = (top + y, left + x);
                            if y < h && x < w { load_some(simd, image, (y * w + x) * o + from, o - from) } else { zero }
                        };
                        let y = &mut *self.y;
                        gradient_tile(
                            simd,
                            |y| [at(y, 0), at(y, 1), at(y, 2), at(y, 3)],
                            |k, v| store(simd, y, k * plane + start + within, v),
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
                        let at = |k: usize| load(simd, m, k * plane + within);
                        let y = &mut *self.y;
                        output_tile(
                            simd,
                            |i| [at(i * 6), at(i * 6 + 1), at(i * 6 + 2), at(i * 6 + 3), at(i * 6 + 4), at(i * 6 + 5)],
                            |k, v| {
                                let (dy, dx) = (k / 4, k % 4);
                                if top + dy < h && left + dx < w {
                                    store_some(simd, y, ((row + dy) * w + left + dx) * o + from, o - from, v);
                                }
                            },
                        );
                    }
                }
            }
        }
    }
}
