//! Gives an untrained network running statistics of batch normalisation, from batches of the data: the baseline `untrained` of `ctk eval`.

use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::pair::HostBatch;
use ctk_core::nn::pass::{Pass, Statistics};
use ctk_core::nn::rows::Rows;
use ctk_images::augment::Augment;
use ctk_images::dataset::Images;
use ctk_images::pixels::{self, Pixels};

use crate::encoder::ImageEncoder;
use crate::features::ranges;

/// Updates the running statistics of an untrained encoder on training images. Without that its evaluation mode would normalise by
/// meaningless statistics, and the baseline would be too weak.
pub(crate) fn calibrate(encoder: &dyn ImageEncoder, images: &Images, augment: &Augment) -> Result<()> {
    // Forty steps with momentum .1 replace 98.5 % of the initial values.
    const STEPS: usize = 40;
    let all = ranges(images.len(), augment.eval_size());
    let pass = Pass::eval().with(Statistics::Update);
    for batch in all.iter().cycle().take(STEPS) {
        let x = Pixels::stack(&[&pixels::evaluation(images, augment, batch.clone())?])?;
        encoder.encode(&x, &Rows::alone(batch.len()), &pass)?;
    }
    Ok(())
}
