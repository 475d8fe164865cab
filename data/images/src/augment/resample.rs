//! Resampling by PIL's filters, rows first, then columns.

use super::crop::Crop;
use super::evaluation;
use super::planes::{LANES, Lanes, Planes};
use crate::picture::Picture;

/// Buffers that are kept from one view to the next.
#[derive(Default)]
pub(super) struct Room {
    rows: Weights,
    columns: Weights,
    line: Vec<f32>,
}

/// The target of one direction: it is resized to `to` pixels, of which the view shows those from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub to: usize,
    pub first: usize,
}

impl Axis {
    /// All of `size` pixels.
    pub fn whole(size: usize) -> Axis {
        Axis { to: size, first: 0 }
    }
}

/// How a part of an image becomes a view.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub crop: Crop,
    pub rows: Axis,
    pub columns: Axis,
    /// Whether rows are reversed.
    pub upside_down: bool,
    /// Whether columns are reversed.
    pub mirror: bool,
    pub filter: evaluation::Filter,
}

/// Resamples a part of an image to the size of `view`, scaled and clipped to [0, 1].
///
/// Uses PIL's filters, widened when shrinking (antialiasing), cut off and renormalised at the crop's edge. Computes in f32 throughout,
/// where PIL rounds to bytes after each direction.
#[inline(always)]
pub(super) fn resample(picture: &Picture, way: Way, room: &mut Room, view: &mut Planes) {
    let crop = way.crop;
    let (stride, length, size) = (picture.width * 3, crop.width * 3, view.size());
    let Room { rows, columns, line } = room;
    rows.set(way.filter, crop.height, way.rows, size, way.upside_down, 1.0 / 255.0);
    columns.set(way.filter, crop.width, way.columns, size, way.mirror, 1.0);
    // The last columns have shorter filters and read zeros here, or values of an earlier view; their weight is zero.
    line.resize(length.max(LANES) + 3 * columns.taps + 1, 0.0);
    let corner = &picture.pixels[crop.top * stride + crop.left * 3..];
    for (y, row) in view.rows_mut().enumerate() {
        let (first, weights) = rows.at(y);
        let source = &corner[first * stride..];
        // No weight reaches below the crop, but padding would, below the image.
        let weights = &weights[..weights.len().min(crop.height - first)];
        if length < LANES {
            let mut sum = [0.0; LANES];
            for (k, &weight) in weights.iter().enumerate() {
                sum.iter_mut().zip(&source[k * stride..k * stride + length]).for_each(|(s, &v)| *s += weight * f32::from(v));
            }
            line[..LANES].copy_from_slice(&sum);
        } else {
            for at in (0..length).step_by(LANES) {
                // The last block overlaps the one before, and computes the same sums again.
                let at = at.min(length - LANES);
                line[at..at + LANES].copy_from_slice(&weighted(&source[at..], stride, weights));
            }
        }
        match columns.taps {
            4 => across::<4>(line, columns, row),
            _ => across::<0>(line, columns, row),
        }
    }
}

/// The weighted sum of some rows of bytes, one block wide.
#[inline(always)]
fn weighted(source: &[u8], stride: usize, weights: &[f32]) -> Lanes {
    let mut sum = [0.0; LANES];
    for (k, &weight) in weights.iter().enumerate() {
        let bytes = &source[k * stride..][..LANES];
        for i in 0..LANES {
            sum[i] += weight * f32::from(bytes[i]);
        }
    }
    sum
}

/// Filters a line of pixels into a row of the view. `TAPS` is the number of the filter's weights, if the compiler should know it.
#[inline(always)]
fn across<const TAPS: usize>(line: &[f32], filter: &Weights, [red, green, blue]: [&mut [Lanes]; 3]) {
    let taps = if TAPS > 0 { TAPS } else { filter.taps };
    let places = filter.first.chunks(LANES).zip(filter.weights.chunks(LANES * taps));
    for (((places, weights), red), (green, blue)) in places.zip(red).zip(green.iter_mut().zip(blue)) {
        let mut pixels = [[0.0; 4]; LANES];
        for (x, (&first, weights)) in places.iter().zip(weights.chunks_exact(taps)).enumerate() {
            // Four values at a time: the fourth is the next pixel's red, and is dropped.
            let source = &line[first as usize * 3..][..3 * taps + 1];
            let mut sum = [0.0_f32; 4];
            for (k, weight) in weights.iter().enumerate() {
                for (s, v) in sum.iter_mut().zip(&source[3 * k..3 * k + 4]) {
                    *s += weight * v;
                }
            }
            pixels[x] = sum;
        }
        for i in 0..LANES {
            red[i] = pixels[i][0].clamp(0.0, 1.0);
            green[i] = pixels[i][1].clamp(0.0, 1.0);
            blue[i] = pixels[i][2].clamp(0.0, 1.0);
        }
    }
}

/// The weights of one direction: for each output the first input, and as many weights as the longest filter has, padded with zeros.
#[derive(Default)]
struct Weights {
    taps: usize,
    first: Vec<u32>,
    weights: Vec<f32>,
}

impl Weights {
    /// The weights of `filter` from `from` pixels to `size` of `axis`, reversed with `turned`; multiplied by `scale`.
    fn set(&mut self, filter: evaluation::Filter, from: usize, axis: Axis, size: usize, turned: bool, scale: f32) {
        match filter {
            evaluation::Filter::Bicubic => self.by((2.0, cubic), from, axis, size, turned, scale),
            evaluation::Filter::Bilinear => self.by((1.0, triangle), from, axis, size, turned, scale),
        }
    }

    /// The same for a filter function and its reach.
    #[inline(always)]
    fn by(&mut self, (reach, filter): (f64, fn(f64) -> f64), from: usize, axis: Axis, size: usize, turned: bool, scale: f32) {
        let step = from as f64 / axis.to as f64;
        let widen = step.max(1.0);
        let support = reach * widen;
        let centre = |i: usize| ((axis.first + if turned { size - 1 - i } else { i }) as f64 + 0.5) * step;
        let reach = |centre: f64| {
            let first = (centre - support + 0.5).max(0.0) as usize;
            (first, ((centre + support + 0.5) as usize).min(from))
        };
        let taps = (0..size).map(|i| reach(centre(i))).map(|(first, end)| end - first).max().unwrap_or(0);
        self.taps = taps;
        self.first.clear();
        self.weights.clear();
        self.weights.resize(size * taps, 0.0);
        let inverse = 1.0 / widen;
        for (i, weights) in self.weights.chunks_exact_mut(taps).enumerate() {
            let centre = centre(i);
            let (first, end) = reach(centre);
            let weights = &mut weights[..end - first];
            let mut sum = 0.0;
            for (k, weight) in weights.iter_mut().enumerate() {
                let w = filter(((first + k) as f64 - centre + 0.5) * inverse);
                sum += w;
                *weight = w as f32;
            }
            let share = (f64::from(scale) / sum) as f32;
            weights.iter_mut().for_each(|w| *w *= share);
            self.first.push(first as u32);
        }
    }

    fn at(&self, i: usize) -> (usize, &[f32]) {
        (self.first[i] as usize, &self.weights[i * self.taps..(i + 1) * self.taps])
    }
}

/// Keys' cubic convolution kernel, a = −½ (PIL's bicubic).
#[inline(always)]
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    let (near, far) = (((A + 2.0) * x - (A + 3.0)) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * A);
    if x < 1.0 {
        near
    } else if x < 2.0 {
        far
    } else {
        0.0
    }
}

#[inline(always)]
fn triangle(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}
