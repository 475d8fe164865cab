//! Random resized crop: torchvision's sampler, PIL's bicubic filter.

use ctk_core::rng::Rng;
use rand::Rng as _;

use super::uniform;
use crate::image::Picture;

/// A rectangle of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Columns, at least 1.
    pub width: usize,
}

impl Crop {
    /// The whole of a picture.
    pub fn whole(picture: &Picture) -> Crop {
        Crop { top: 0, left: 0, height: picture.height, width: picture.width }
    }

    /// A centred rectangle.
    pub fn centre(picture: &Picture, height: usize, width: usize) -> Crop {
        Crop { top: (picture.height - height) / 2, left: (picture.width - width) / 2, height, width }
    }

    /// torchvision's `RandomResizedCrop.get_params`: ten proposals, the first that fits; else the largest centred rectangle
    /// of an allowed ratio. (TensorFlow's `sample_distorted_bounding_box`, which Google's code calls, has another law.)
    pub(super) fn random(picture: &Picture, area: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> Crop {
        let whole = (picture.height * picture.width) as f64;
        for _ in 0..10 {
            let (share, aspect) = propose(area, ratio, rng);
            // Python rounds halves to even.
            let width = (whole * share * aspect).sqrt().round_ties_even() as usize;
            let height = (whole * share / aspect).sqrt().round_ties_even() as usize;
            if (1..=picture.width).contains(&width) && (1..=picture.height).contains(&height) {
                return Crop {
                    top: below(picture.height - height + 1, rng),
                    left: below(picture.width - width + 1, rng),
                    height,
                    width,
                };
            }
        }
        let (height, width) = (picture.height as f64, picture.width as f64);
        let (height, width) = match width / height {
            wide if wide < ratio[0] => (width / ratio[0], width),
            wide if wide > ratio[1] => (height, height * ratio[1]),
            _ => (height, width),
        };
        let side = |v: f64, most: usize| (v.round_ties_even() as usize).clamp(1, most);
        Crop::centre(picture, side(height, picture.height), side(width, picture.width))
    }
}

/// A proposal: the share of the area, uniform; width over height, uniform in its logarithm.
pub(super) fn propose(area: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> (f64, f64) {
    (uniform(area, rng), uniform(ratio.map(f64::ln), rng).exp())
}

/// An index below `count`.
pub(super) fn below(count: usize, rng: &mut Rng) -> usize {
    ((rng.random::<f64>() * count as f64) as usize).min(count - 1)
}

/// Resamples a part of a picture to `size` × `size`, mirrored or not, into `out` (`size · size · 3`, channels last),
/// scaled and clipped to [0, 1].
///
/// PIL's filter: bicubic with a = −½, widened when shrinking (antialiasing), cut off and renormalised at the crop's edge. In
/// f32 throughout, where PIL rounds to bytes after each direction.
pub(super) fn resample(picture: &Picture, crop: Crop, size: usize, mirror: bool, scratch: &mut Vec<f32>, out: &mut [f32]) {
    let stride = picture.width * 3;
    let corner = crop.top * stride + crop.left * 3;
    if (crop.height, crop.width) == (size, size) && !mirror {
        for (row, out) in out.chunks_exact_mut(size * 3).enumerate() {
            let from = corner + row * stride;
            for (o, &v) in out.iter_mut().zip(&picture.pixels[from..from + size * 3]) {
                *o = f32::from(v) * (1.0 / 255.0);
            }
        }
        return;
    }
    let columns = Filter::new(crop.width, size);
    let rows = Filter::new(crop.height, size);
    let length = crop.width * 3;
    scratch.clear();
    scratch.resize(length, 0.0);
    for (y, out) in out.chunks_exact_mut(size * 3).enumerate() {
        // Rows first: that loop runs over contiguous bytes.
        let (first, weights) = rows.taps(y);
        scratch.fill(0.0);
        for (k, &weight) in weights.iter().enumerate() {
            let from = corner + (first + k) * stride;
            let weight = weight * (1.0 / 255.0);
            for (s, &v) in scratch.iter_mut().zip(&picture.pixels[from..from + length]) {
                *s += weight * f32::from(v);
            }
        }
        for x in 0..size {
            let (first, weights) = columns.taps(x);
            let mut sum = [0.0_f32; 3];
            for (&weight, pixel) in weights.iter().zip(scratch[first * 3..].chunks_exact(3)) {
                sum[0] += weight * pixel[0];
                sum[1] += weight * pixel[1];
                sum[2] += weight * pixel[2];
            }
            let to = if mirror { size - 1 - x } else { x } * 3;
            for (o, s) in out[to..to + 3].iter_mut().zip(sum) {
                *o = s.clamp(0.0, 1.0);
            }
        }
    }
}

/// One direction's weights: for each output, the first input and the weights from there on.
struct Filter {
    first: Vec<u32>,
    weights: Vec<f32>,
    most: usize,
}

impl Filter {
    fn new(from: usize, to: usize) -> Filter {
        let scale = from as f64 / to as f64;
        let widen = scale.max(1.0);
        let support = 2.0 * widen;
        let most = 2 * support.ceil() as usize + 1;
        let mut filter = Filter { first: Vec::with_capacity(to), weights: vec![0.0; to * most], most };
        for (i, weights) in filter.weights.chunks_exact_mut(most).enumerate() {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let mut sum = 0.0;
            for (x, weight) in (first..end).zip(weights.iter_mut()) {
                let w = cubic((x as f64 - centre + 0.5) / widen);
                sum += w;
                *weight = w as f32;
            }
            weights.iter_mut().for_each(|w| *w = (f64::from(*w) / sum) as f32);
            filter.first.push(first as u32);
        }
        filter
    }

    // Weights past the end are 0, and the zip in the caller ends with the row.
    fn taps(&self, i: usize) -> (usize, &[f32]) {
        let weights = &self.weights[i * self.most..(i + 1) * self.most];
        let used = weights.iter().rposition(|&w| w != 0.0).map_or(0, |last| last + 1);
        (self.first[i] as usize, &weights[..used])
    }
}

/// Keys' cubic convolution kernel, a = −½ (PIL's bicubic).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    match x.abs() {
        x if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        _ => 0.0,
    }
}
