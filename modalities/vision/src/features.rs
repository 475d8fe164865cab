//! Computes the features of images with a network; training and evaluation both use this.

use std::ops::Range;

use candle_core::DType;
use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch;
use ctk_core::eval::Features;
use ctk_core::modality::View;
use ctk_core::nn::pass::{Pass, Precision};
use ctk_core::nn::rows::Rows;
use ctk_core::observer::advanced;
use ctk_core::process::Stop;
use ctk_core::rng::Key;
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels::{self, Pixels};

use crate::encoder::ImageEncoder;

/// The representations of `images`, computed with running statistics, in order; no tape is kept.
pub(crate) fn features(encoder: &dyn ImageEncoder, images: &Images, augment: &Augment, precision: Precision) -> Result<Features> {
    encoded(encoder, precision, images, augment.eval_size(), |batch| pixels::evaluation(images, augment, batch))
}

/// The representations of one view of each image's positive pair, as [`features`].
pub(crate) fn side(
    encoder: &dyn ImageEncoder,
    images: &Images,
    augment: &Augment,
    precision: Precision,
    (view, key): (View, Key),
) -> Result<Features> {
    encoded(encoder, precision, images, augment.size, |batch| pixels::side(images, augment, batch, view, key))
}

fn encoded(
    encoder: &dyn ImageEncoder,
    precision: Precision,
    images: &Images,
    size: usize,
    pixels: impl Fn(Range<usize>) -> Result<Pixels>,
) -> Result<Features> {
    let mut rows = Vec::with_capacity(images.len() * encoder.width());
    let stop = Stop::here();
    for batch in batches(images.len(), size) {
        stop.check()?;
        let count = batch.len();
        let x = Pixels::stack(&[&pixels(batch)?])?;
        let (h, _) = encoder.encode(&x, &Rows::alone(count), &Pass::eval().at(precision))?;
        rows.extend(h.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(named(images, rows, encoder.width()))
}

/// Ranges of `0..len`, each with about as many pixels as 256 images of CIFAR. Whoever watches is told of each, and of the end.
pub fn batches(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = std::iter::from_fn(move || {
        advanced(len, len);
        None
    });
    ranges(len, size).into_iter().inspect(move |range| advanced(range.start, len)).chain(end)
}

/// The ranges of [`batches`].
pub(crate) fn ranges(len: usize, size: usize) -> Vec<Range<usize>> {
    let batch = (256 * 32 * 32 / (size * size)).clamp(8, 256);
    (0..len).step_by(batch).map(|from| from..(from + batch).min(len)).collect()
}

/// The rows of `images` with their names and classes.
pub fn named(images: &Images, rows: Vec<f32>, width: usize) -> Features {
    Features {
        rows,
        width,
        names: images.names(),
        labels: images.labels(),
        classes: images.classes().to_vec(),
        ..Features::default()
    }
}
