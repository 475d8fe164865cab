//! Running statistics for a network that was never trained.

use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch;
use ctk_core::nn::pass::{Pass, Statistics};
use ctk_core::nn::rows::Rows;
use ctk_core::{Device, Result};
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels::{self, Pixels};

use crate::encoder::ImageEncoder;
use crate::features::batches;

/// Moves the running statistics of an untrained encoder to what its layers see of training images; without this its
/// evaluation mode would normalise by nothing, and any baseline would look bad.
pub(crate) fn calibrate(encoder: &dyn ImageEncoder, images: &Images, augment: &Augment, device: &Device) -> Result<()> {
    // Forty steps of momentum .1 forget 98.5 % of the initial values.
    const STEPS: usize = 40;
    let all = batches(images.len(), augment.eval_size());
    let pass = Pass::eval().with(Statistics::Update);
    for batch in all.iter().cycle().take(STEPS) {
        let x = Pixels::upload(&[&pixels::evaluation(images, augment, batch.clone())?], device)?;
        encoder.encode(&x, &Rows::alone(batch.len()), &pass)?;
    }
    Ok(())
}
