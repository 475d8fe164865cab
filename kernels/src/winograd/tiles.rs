//! Kernels that transform tiles and weights to planes and back, one vector of channels at a time.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector")]

use std::marker::PhantomData;

use super::shape::{GAP, Shape};
use super::transform::{Form, tile};
use crate::fast::{Factor, Fast};
use crate::micro::panel_width;
use crate::panels::widths;
use crate::passes::Channels;
use crate::rows::Ready;
use crate::simd::{MixedKernel, Simd, WithSimd};

/// U of one panel: outputs `first..first + width` of `outputs`, rows of `stride` factors.
pub struct Kernels<'a, F, A> {
    pub form: PhantomData<F>,
    pub weight: &'a [f32],
    /// Whether the weight is (input, output, 3, 3), to be rotated by half a turn.
    pub flip: bool,
    pub inputs: usize,
    pub outputs: usize,
    pub first: usize,
    pub width: usize,
    pub stride: usize,
    pub u: &'a mut [A],
}

impl<F: Form, A: Factor> WithSimd for Kernels<'_, F, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (lanes, rows) = (S::F32_LANES, self.inputs.div_ceil(A::DEPTH));
        let size = rows * self.stride + GAP;
        let mut taps = [[0.0; 16]; 9];
        let mut planes = [[simd.splat_f32s(0.0); 2]; 36];
        for from in (0..self.stride).step_by(lanes) {
            let count = lanes.min(self.width.saturating_sub(from));
            for row in 0..rows {
                for number in 0..A::DEPTH {
                    let channel = row * A::DEPTH + number;
                    for i in 0..lanes {
                        let output = self.first + from + i;
                        let at = if self.flip { channel * self.outputs + output } else { output * self.inputs + channel };
                        let there = i < count && channel < self.inputs;
                        let weight = if there { &self.weight[at * 9..][..9] } else { &[0.0; 9][..] };
                        for (tap, &v) in weight.iter().enumerate() {
                            taps[if self.flip { 8 - tap } else { tap }][i] = v;
                        }
                    }
                    tile!(
                        simd,
                        F::kernel,
                        3 => F::PATCH,
                        |i, j| f32::load(simd, &taps[i * 3 + j], 0),
                        |k, v| planes[k][number] = v
                    );
                }
                for k in 0..F::PLANES {
                    A::join::<S, false>(simd, self.u, k * size + row * self.stride + from, planes[k]);
                }
            }
        }
    }
}

/// dW of one panel, `(width, inputs, 3, 3)`, from dU, whose planes are `plane` floats apart.
pub struct KernelGradients<'a, F> {
    pub form: PhantomData<F>,
    pub du: &'a [f32],
    pub inputs: usize,
    pub plane: usize,
    pub width: usize,
    pub stride: usize,
    pub dw: &'a mut [f32],
}

impl<F: Form> WithSimd for KernelGradients<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let mut taps = [[0.0; 16]; 9];
        for from in (0..self.width).step_by(lanes) {
            for channel in 0..self.inputs {
                let du = &self.du[channel * self.stride + from..][..(F::PLANES - 1) * self.plane + lanes];
                tile!(
                    simd,
                    F::kernel_gradient,
                    F::PATCH => 3,
                    // SAFETY: `du` ends a whole vector after the start of the last plane's row, so a vector may be read at every row's
                    // start.
                    |i, j| unsafe { f32::read(simd, du.as_ptr().add((i * F::PATCH + j) * self.plane)) },
                    |k, v| f32::store::<S, false>(simd, &mut taps[k], 0, v)
                );
                for i in 0..lanes.min(self.width - from) {
                    let dw = &mut self.dw[((from + i) * self.inputs + channel) * 9..][..9];
                    dw.iter_mut().zip(&taps).for_each(|(to, tap)| *to = tap[i]);
                }
            }
        }
    }
}

/// V of bands `from..to`, normalised first if there is a normalisation.
pub struct Inputs<'a, F, T> {
    pub form: PhantomData<F>,
    pub s: Shape,
    pub x: &'a [T],
    pub normal: Option<Channels<'a, f32>>,
    pub from: usize,
    pub to: usize,
    /// Number of tiles, or factors made of them, that V is allocated for.
    pub tiles: usize,
    pub v: &'a mut [T],
}

impl<F: Form, T: Fast> MixedKernel for Inputs<'_, F, T> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(self, simd: S) {
        match (self.normal, self.s.deep > 1) {
            (None, false) => self.tiles::<S, NATIVE, false, false>(simd, NOTHING),
            (None, true) => self.tiles::<S, NATIVE, false, true>(simd, NOTHING),
            (Some(normal), false) => self.tiles::<S, NATIVE, true, false>(simd, normal),
            (Some(normal), true) => self.tiles::<S, NATIVE, true, true>(simd, normal),
        }
    }
}

/// Stands for a normalisation that is not used.
const NOTHING: Channels<f32> = Channels { mean: &[], scale: &[], shift: &[], relu: false };

impl<F: Form, T: Fast> Inputs<'_, F, T> {
    /// Patches of neighbouring tiles share two columns, so each column is transformed once and used twice.
    #[inline(always)]
    fn tiles<S: Simd, const NATIVE: bool, const NORMALISE: bool, const DEEP: bool>(self, simd: S, normal: Channels<f32>) {
        let Shape { h, w, c, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, w.div_ceil(F::TILE), h.div_ceil(F::TILE));
        let line = self.s.line::<T>();
        let plane = self.tiles * line + GAP;
        let zero = simd.splat_f32s(0.0);
        for band in self.from..self.to {
            let image = &self.x[band / bands * h * w * c..][..h * w * c];
            let top = band % bands * F::TILE;
            let inside = top > 0 && top + F::TILE < h;
            for from in (0..c).step_by(lanes) {
                let count = lanes.min(c - from);
                let ready = if NORMALISE { normal.ready(simd, from, count) } else { Ready::nothing(simd) };
                let mut columns = [[zero; 6]; 6];
                let mut both = [[zero; 2]; 36];
                for tile in 0..across {
                    let left = tile * F::TILE;
                    for j in 0..F::PATCH {
                        if j < 2 && tile > 0 {
                            columns[j] = columns[j + F::TILE];
                            continue;
                        }
                        let x = (left + j).wrapping_sub(1);
                        let mut column = [zero; 6];
                        if x < w && inside && count == lanes {
                            let column_at = &image[((top - 1) * w + x) * c + from..][..(F::PATCH - 1) * w * c + lanes];
                            for i in 0..F::PATCH {
                                // SAFETY: the slice ends a whole vector after the start of the last row, so a vector may be read at every
                                // row's start.
                                let value = unsafe { T::read(simd, column_at.as_ptr().add(i * w * c)) };
                                column[i] = if NORMALISE { ready.apply(simd, value) } else { value };
                            }
                        } else if x < w {
                            for i in 0..F::PATCH {
                                let y = (top + i).wrapping_sub(1);
                                if y < h {
                                    let value = T::load_some(simd, image, (y * w + x) * c + from, count);
                                    column[i] = if NORMALISE { ready.apply(simd, value) } else { value };
                                }
                            }
                        }
                        columns[j] = F::input(simd, column);
                    }
                    let (cell, number) = if DEEP { (tile / T::Factor::DEPTH, tile % T::Factor::DEPTH) } else { (tile, 0) };
                    let start = ((band - self.from) * self.s.across() + cell) * line + from;
                    let v = &mut self.v[start * self.s.deep..][..((F::PLANES - 1) * plane + lanes) * self.s.deep];
                    for i in 0..F::PATCH {
                        let mut row = [zero; 6];
                        for j in 0..F::PATCH {
                            row[j] = columns[j][i];
                        }
                        let row = F::input(simd, row);
                        for j in 0..F::PATCH {
                            if DEEP {
                                both[i * F::PATCH + j][number] = row[j];
                            } else {
                                // SAFETY: `v` ends a whole vector after the start of the last plane's tile, so a vector may be written at
                                // every tile's start.
                                unsafe { T::write::<S, NATIVE>(simd, v.as_mut_ptr().add((i * F::PATCH + j) * plane), row[j]) };
                            }
                        }
                    }
                    if DEEP && (number + 1 == T::Factor::DEPTH || tile + 1 == across) {
                        put_deep::<S, F, T, NATIVE>(simd, v, plane, &mut both, number);
                    }
                }
            }
        }
    }
}

/// Stores the planes of tiles that are combined, the last of which is `number`, each plane at its start in `v`.
#[inline(always)]
fn put_deep<S: Simd, F: Form, T: Fast, const NATIVE: bool>(
    simd: S,
    v: &mut [T],
    plane: usize,
    both: &mut [[S::f32s; 2]; 36],
    number: usize,
) {
    let v: &mut [T::Factor] = bytemuck::cast_slice_mut(v);
    let v = &mut v[..(F::PLANES - 1) * plane + S::F32_LANES];
    for k in 0..F::PLANES {
        if number == 0 {
            both[k][1] = simd.splat_f32s(0.0);
        }
        // SAFETY: `v` ends a whole vector after the start of the last plane's tile, so a vector may be written at every tile's start.
        let to = unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().add(k * plane), S::F32_LANES) };
        T::Factor::join::<S, NATIVE>(simd, to, 0, both[k]);
    }
}

/// Y of bands `from..to`, panel after panel in each plane.
pub struct Gradients<'a, F, T> {
    pub form: PhantomData<F>,
    pub s: Shape,
    pub dy: &'a [T],
    pub from: usize,
    pub to: usize,
    /// Number of tiles, or factors made of them, that Y is allocated for.
    pub tiles: usize,
    pub y: &'a mut [T],
}

impl<F: Form, T: Fast> MixedKernel for Gradients<'_, F, T> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(self, simd: S) {
        if self.s.deep > 1 { self.tiles::<S, NATIVE, true>(simd) } else { self.tiles::<S, NATIVE, false>(simd) }
    }
}

impl<F: Form, T: Fast> Gradients<'_, F, T> {
    #[inline(always)]
    fn tiles<S: Simd, const NATIVE: bool, const DEEP: bool>(self, simd: S) {
        let Shape { h, w, o, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, w.div_ceil(F::TILE), h.div_ceil(F::TILE));
        let cells = self.tiles;
        let plane = cells * o.next_multiple_of(lanes) + GAP;
        let zero = simd.splat_f32s(0.0);
        let mut both = [[zero; 2]; 36];
        for band in self.from..self.to {
            let image = &self.dy[band / bands * h * w * o..][..h * w * o];
            let top = band % bands * F::TILE;
            for (panel, (_, stride)) in widths(o).enumerate() {
                for within in (0..stride).step_by(lanes) {
                    let from = panel * panel_width() + within;
                    let count = lanes.min(o.saturating_sub(from));
                    for tile in 0..across {
                        let left = tile * F::TILE;
                        let (cell, number) = if DEEP { (tile / T::Factor::DEPTH, tile % T::Factor::DEPTH) } else { (tile, 0) };
                        let cell = (band - self.from) * self.s.across() + cell;
                        let start = cells * panel * panel_width() + cell * stride + within;
                        let to = &mut self.y[start * self.s.deep..][..((F::PLANES - 1) * plane + lanes) * self.s.deep];
                        let mut tile_at = [[zero; 4]; 4];
                        if top + F::TILE <= h && left + F::TILE <= w && count == lanes {
                            let tile = &image[(top * w + left) * o + from..][..((F::TILE - 1) * (w + 1)) * o + lanes];
                            for i in 0..F::TILE {
                                for j in 0..F::TILE {
                                    // SAFETY: the slice ends a whole vector after the start of the last pixel, so a vector may be read at
                                    // every pixel's start.
                                    tile_at[i][j] = unsafe { T::read(simd, tile.as_ptr().add((i * w + j) * o)) };
                                }
                            }
                        } else {
                            for (i, row) in tile_at.iter_mut().enumerate().take(F::TILE) {
                                for (j, to) in row.iter_mut().enumerate().take(F::TILE) {
                                    let (y, x) = (top + i, left + j);
                                    if y < h && x < w {
                                        *to = T::load_some(simd, image, (y * w + x) * o + from, count);
                                    }
                                }
                            }
                        }
                        tile!(simd, F::gradient, F::TILE => F::PATCH, |i, j| tile_at[i][j], |k, v| if DEEP {
                            both[k][number] = v;
                        } else {
                            // SAFETY: `to` ends a whole vector after the start of the last plane's tile, so a vector may be written at
                            // every tile's start.
                            unsafe { T::write::<S, NATIVE>(simd, to.as_mut_ptr().add(k * plane), v) };
                        });
                        if DEEP && (number + 1 == T::Factor::DEPTH || tile + 1 == across) {
                            put_deep::<S, F, T, NATIVE>(simd, to, plane, &mut both, number);
                        }
                    }
                }
            }
        }
    }
}

/// The output of bands `from..to` from M, which holds `tiles` tiles, the first of these bands' being number `first`.
pub struct Outputs<'a, F, T> {
    pub form: PhantomData<F>,
    pub s: Shape,
    pub from: usize,
    pub to: usize,
    pub first: usize,
    pub tiles: usize,
    pub m: &'a [f32],
    pub y: &'a mut [T],
}

impl<F: Form, T: Fast> MixedKernel for Outputs<'_, F, T> {
    #[inline(always)]
    fn with<S: Simd, const NATIVE: bool>(self, simd: S) {
        let Shape { h, w, o, .. } = self.s;
        let (lanes, across, bands) = (S::F32_LANES, self.s.across(), h.div_ceil(F::TILE));
        let plane = self.tiles * panel_width() + GAP;
        let origin = self.s.rows_before(self.from);
        for band in self.from..self.to {
            let (top, row) = (band % bands * F::TILE, self.s.rows_before(band) - origin);
            for tile in 0..across {
                let (left, number) = (tile * F::TILE, self.first + (band - self.from) * across + tile);
                for (panel, (_, stride)) in widths(o).enumerate() {
                    let m = &self.m[panel * F::PLANES * plane + number * stride..];
                    for within in (0..stride).step_by(lanes) {
                        let from = panel * panel_width() + within;
                        let (m, count) = (&m[within..][..(F::PLANES - 1) * plane + lanes], lanes.min(o - from));
                        let y = &mut self.y[(row * w + left) * o + from..];
                        if top + F::TILE <= h && left + F::TILE <= w && count == lanes {
                            let y = &mut y[..((F::TILE - 1) * w + F::TILE - 1) * o + lanes];
                            tile!(
                                simd,
                                F::output,
                                F::PATCH => F::TILE,
                                // SAFETY: `m` ends a whole vector after the start of the last plane's tile, so a vector may be read at
                                // every tile's start.
                                |i, j| unsafe { f32::read(simd, m.as_ptr().add((i * F::PATCH + j) * plane)) },
                                |k, v| {
                                    // SAFETY: the slice ends a whole vector after the start of the last pixel, so a vector may be written
                                    // at every pixel's start.
                                    unsafe { T::write::<S, NATIVE>(simd, y.as_mut_ptr().add((k / F::TILE * w + k % F::TILE) * o), v) }
                                }
                            );
                            continue;
                        }
                        let mut tile = [simd.splat_f32s(0.0); 16];
                        tile!(
                            simd,
                            F::output,
                            F::PATCH => F::TILE,
                            // SAFETY: `m` ends a whole vector after the start of the last plane's tile, so a vector may be read at every
                            // tile's start.
                            |i, j| unsafe { f32::read(simd, m.as_ptr().add((i * F::PATCH + j) * plane)) },
                            |k, v| tile[k] = v
                        );
                        for (k, &v) in tile.iter().enumerate().take(F::TILE * F::TILE) {
                            let (i, j) = (k / F::TILE, k % F::TILE);
                            if top + i < h && left + j < w {
                                T::store_some::<S, NATIVE>(simd, y, (i * w + j) * o, count, v);
                            }
                        }
                    }
                }
            }
        }
    }
}
