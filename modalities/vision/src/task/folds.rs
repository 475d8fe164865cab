//! The predictions of cross-validation for its held-out images, stored in a fine-tuned run. Each network did not train on these labels, so
//! a temperature can be fitted on them.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ctk_core::data::dataset::Dataset;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::Images;

/// The file of a run.
const FILE: &str = "folds.safetensors";

/// The metadata key of the list of the images' names.
const NAMES: &str = "names";

/// Logits of held-out images, with their labels.
pub(crate) struct Folds {
    pub names: Vec<String>,
    /// By the number of the run's classes.
    pub labels: Vec<u32>,
    /// Row-major, one row for each image.
    pub logits: Vec<f32>,
}

/// Stores in the run the logits of `held`: indices of the labelled `images`, each with a row of logits.
///
/// # Errors
/// The file cannot be written.
pub(super) fn keep(held: &[(usize, Vec<f32>)], images: &Images, run: &mut Run) -> Result<()> {
    let Some((_, first)) = held.first() else { return Ok(()) };
    let all = images.names();
    let names: Vec<&String> = held.iter().map(|(i, _)| &all[*i]).collect();
    let labels: Vec<u32> = held.iter().filter_map(|(i, _)| images.label(*i)).collect();
    let rows: Vec<f32> = held.iter().flat_map(|(_, row)| row.iter().copied()).collect();
    let tensors = [
        ("labels", Tensor::from_vec(labels, held.len(), &Device::Cpu)?),
        ("logits", Tensor::from_vec(rows, (held.len(), first.len()), &Device::Cpu)?),
    ];
    let said = HashMap::from([(NAMES.to_string(), serde_json::to_string(&names)?)]);
    run.write(FILE, &safetensors::serialize(tensors, Some(said))?)
}

impl Folds {
    /// The logits that the run of `checkpoint` stored, if it did.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Folds>> {
        checkpoint.of_run(FILE)?.map(|bytes| Folds::read(&bytes).at(FILE)).transpose()
    }

    fn read(bytes: &[u8]) -> Result<Folds> {
        let (_, header) = safetensors::SafeTensors::read_metadata(bytes)?;
        let names = header.metadata().as_ref().and_then(|said| said.get(NAMES)).cloned().unwrap_or_default();
        let names: Vec<String> = serde_json::from_str(&names)?;
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)?;
        let of = |name: &str| tensors.get(name).ok_or_else(|| Error::new(format!("`{name}` is missing in this file")));
        let labels = of("labels")?.to_dtype(DType::U32)?.to_vec1()?;
        Ok(Folds { names, labels, logits: of("logits")?.flatten_all()?.to_vec1()? })
    }
}
