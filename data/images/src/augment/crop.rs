//! The rectangle of a random resized crop, by torchvision's sampler.

use ctk_core::rng::Rng;
use rand::Rng as _;

use super::uniform;
use crate::picture::Picture;

/// A rectangle of an image, in pixels.
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
    /// The whole image.
    pub fn whole(picture: &Picture) -> Crop {
        Crop { top: 0, left: 0, height: picture.height, width: picture.width }
    }

    /// A centred rectangle.
    pub fn centre(picture: &Picture, height: usize, width: usize) -> Crop {
        Crop { top: (picture.height - height) / 2, left: (picture.width - width) / 2, height, width }
    }

    /// torchvision's `RandomResizedCrop.get_params`: up to ten proposals, of which the first that fits is taken; otherwise the largest
    /// centred rectangle of an allowed ratio. (TensorFlow's `sample_distorted_bounding_box`, which Google's code calls, has another
    /// distribution.)
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

/// A proposal: the fraction of the area, uniform; width over height, log-uniform.
pub(super) fn propose(area: [f64; 2], ratio: [f64; 2], rng: &mut Rng) -> (f64, f64) {
    (uniform(area, rng), uniform(ratio.map(f64::ln), rng).exp())
}

/// An index below `count`.
pub(super) fn below(count: usize, rng: &mut Rng) -> usize {
    ((rng.random::<f64>() * count as f64) as usize).min(count - 1)
}
