//! Baselines that learned nothing: features of an untrained network, raw pixels, a colour histogram.

use ctk_core::data::dataset::Dataset;
use ctk_core::eval::Features;
use ctk_core::nn::pass::Precision;
use ctk_core::{Device, Error, Result};
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels;

use crate::calibration::calibrate;
use crate::features::{batches, features, named};
use crate::network;
use crate::recipe::Checked;

/// The baselines' names, and the JSON keys of their accuracy.
pub(crate) const BASELINES: [(&str, &str); 3] =
    [("untrained", "untrained_top1"), ("pixels", "pixels_top1"), ("histogram", "histogram_top1")];

/// The baseline `name` for each of `parts`; the statistics of an untrained network are calibrated on `train`, and it computes
/// in `precision`.
pub(crate) fn baseline<const N: usize>(
    checked: &Checked,
    name: &str,
    train: &Images,
    parts: [&Images; N],
    (device, precision): (&Device, Precision),
) -> Result<[Features; N]> {
    let Checked { recipe, augment } = checked;
    let all: Vec<Features> = match name {
        "untrained" => {
            let (_, tower) = network::build(recipe, device)?;
            calibrate(&tower.encoder, train, augment)?;
            parts.iter().map(|images| features(&tower.encoder, images, augment, precision)).collect::<Result<_>>()?
        }
        "pixels" => parts.iter().map(|images| pixel_features(images, augment)).collect::<Result<_>>()?,
        "histogram" => parts.iter().map(|images| histogram_features(images, augment)).collect::<Result<_>>()?,
        other => return Err(Error::usage(format!("there is no baseline `{other}`"))),
    };
    Ok(all.try_into().unwrap_or_else(|_| unreachable!("one for each part")))
}

/// Raw pixels of the evaluation view, at most 32 × 32 of them.
fn pixel_features(images: &Images, augment: &Augment) -> Result<Features> {
    let small = augment.evaluated_at(augment.eval_size().min(32));
    let mut rows = Vec::new();
    for batch in batches(images.len(), small.eval_size()) {
        rows.extend_from_slice(pixels::evaluation(images, &small, batch)?.values());
    }
    Ok(named(images, rows, small.eval_size() * small.eval_size() * pixels::CHANNELS))
}

/// A colour histogram: fractions of the evaluation view's pixels in 8 × 8 × 8 bins of red, green and blue.
fn histogram_features(images: &Images, augment: &Augment) -> Result<Features> {
    const BINS: usize = 8;
    let plain = augment.visible();
    let mut rows = vec![0.0; images.len() * BINS.pow(3)];
    let share = 1.0 / (plain.eval_size() * plain.eval_size()) as f32;
    for batch in batches(images.len(), plain.eval_size()) {
        let views = pixels::evaluation(images, &plain, batch.clone())?;
        for (view, image) in batch.enumerate() {
            let row = &mut rows[image * BINS.pow(3)..][..BINS.pow(3)];
            for pixel in views.row(view).chunks_exact(pixels::CHANNELS) {
                let bin = |v: f32| ((v * BINS as f32) as usize).min(BINS - 1);
                row[(bin(pixel[0]) * BINS + bin(pixel[1])) * BINS + bin(pixel[2])] += share;
            }
        }
    }
    Ok(named(images, rows, BINS.pow(3)))
}
