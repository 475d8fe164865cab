//! A batch of square RGB images in host memory, as f32 values (one row is one image), and functions that make such batches from a dataset:
//! views for evaluation, and the randomly augmented views of training.

use std::ops::Range;

use candle_core::{Device, Tensor};
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch;
use ctk_core::modality::View;
use ctk_core::rng::Key;
use ctk_core::{Error, Result};
use rayon::prelude::*;

use crate::augment::Augment;
use crate::dataset::Images;
use crate::picture::Picture;

/// Channels of every image.
pub const CHANNELS: usize = 3;

/// Rows of square RGB images, `(n, size, size, 3)`, channels last; values in [0, 1] unless the recipe normalises.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pixels {
    size: usize,
    values: Vec<f32>,
}

impl Pixels {
    /// Rows of `size` × `size` images from their values.
    ///
    /// # Panics
    /// If the values are not a whole number of rows.
    pub fn new(size: usize, values: Vec<f32>) -> Pixels {
        assert!(size > 0 && values.len().is_multiple_of(size * size * CHANNELS), "no whole number of rows");
        Pixels { size, values }
    }

    /// Height and width of a row in pixels; 0 before the first row.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / (self.size * self.size * CHANNELS).max(1)
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All rows, one after the other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        let length = self.size * self.size * CHANNELS;
        &self.values[i * length..(i + 1) * length]
    }

    /// Appends a row of zeros to be filled.
    pub fn grow(&mut self, size: usize) -> &mut [f32] {
        debug_assert!(self.values.is_empty() || self.size == size, "rows of one size");
        self.size = size;
        let from = self.values.len();
        self.values.resize(from + size * size * CHANNELS, 0.0);
        &mut self.values[from..]
    }
}

impl HostBatch for Pixels {
    /// `(n, size, size, 3)`, f32.
    type Stacked = Tensor;

    fn size(&self) -> usize {
        self.size
    }

    fn stack(parts: &[&Self]) -> Result<Tensor> {
        let size = parts.iter().map(|part| part.size).max().unwrap_or(0);
        if size == 0 || parts.iter().any(|part| !part.is_empty() && part.size != size) {
            return Err(Error::new("views of different sizes, or none, cannot be one batch"));
        }
        let values = parts.iter().map(|part| part.values.as_slice()).collect::<Vec<_>>().concat();
        let rows = values.len() / (size * size * CHANNELS);
        Ok(Tensor::from_vec(values, (rows, size, size, CHANNELS), &Device::Cpu)?)
    }
}

/// The evaluation views of some images, made on all threads, from which features are computed.
///
/// # Errors
/// The first image (in order) that cannot be decoded, with its name.
pub fn evaluation(images: &Images, augment: &Augment, samples: Range<usize>) -> Result<Pixels> {
    each(images, augment.eval_size(), samples, |picture, _, row| augment.evaluation(picture, row))
}

/// One of the two views of each image's positive pair: both are drawn in turn from `key` at the image's index, and the requested one is
/// kept.
///
/// # Errors
/// As [`evaluation`].
pub fn side(images: &Images, augment: &Augment, samples: Range<usize>, view: View, key: Key) -> Result<Pixels> {
    each(images, augment.size, samples, |picture, i, row| {
        let rng = &mut key.at(i as u64).rng();
        augment.view(picture, rng, row);
        if view == View::Right {
            augment.view(picture, rng, row);
        }
    })
}

/// One row for each sample, made on all threads.
fn each(
    images: &Images,
    size: usize,
    samples: Range<usize>,
    make: impl Fn(&Picture, usize, &mut [f32]) + Sync,
) -> Result<Pixels> {
    let length = size * size * CHANNELS;
    let mut values = vec![0.0; samples.len() * length];
    let failures: Vec<Option<Error>> = values
        .par_chunks_mut(length)
        .zip(samples)
        .map(|(row, i)| match images.picture(i) {
            Ok(picture) => {
                make(&picture, i, row);
                None
            }
            Err(e) => Some(e.at(images.name(i))),
        })
        .collect();
    match failures.into_iter().flatten().next() {
        Some(failure) => Err(failure),
        None => Ok(Pixels { size, values }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_and_right_become_one_batch() {
        let (mut left, mut right) = (Pixels::default(), Pixels::default());
        left.grow(2).fill(0.25);
        right.grow(2).fill(0.5);
        right.grow(2).fill(0.75);
        let on = Pixels::stack(&[&left, &right, &Pixels::default()]).unwrap();
        assert_eq!(on.dims(), [3, 2, 2, 3]);
        assert_eq!(on.mean((1, 2, 3)).unwrap().to_vec1::<f32>().unwrap(), [0.25, 0.5, 0.75]);
        assert!(Pixels::stack(&[&Pixels::default()]).is_err());
    }
}
