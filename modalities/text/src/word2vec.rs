//! Word2vec: word vectors by skip-gram with negative sampling (Mikolov et al. 2013).
//!
//! [`windows`] draws what is trained with what, [`sparse`] trains it on all threads, [`kernel`] is one update and [`rows`]
//! where the numbers live. [`recipe`], [`init`], [`job`] and [`model`] are the way in and out, [`files`] the formats of others.

use std::path::Path;

use ctk_core::checkpoint::Checkpoint;
use ctk_core::modality::{Job, Modality, Model};
use ctk_core::recipe::Recipe;
use ctk_core::{Device, Result};

pub mod files;
pub mod init;
pub mod job;
pub mod kernel;
pub mod model;
pub mod recipe;
pub mod rows;
pub mod shards;
pub mod sparse;
pub mod windows;

const NAME: &str = "word2vec";

/// The modality.
pub struct Word2Vec;

impl Modality for Word2Vec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn recipe(&self, data: Option<&Path>) -> Result<String> {
        let Some(path) = data else { return Ok(include_str!("../../../configs/word2vec/generated.toml").to_string()) };
        let path = toml::Value::String(path.display().to_string());
        Ok(format!("# Word vectors of a text.\n[data]\npath = {path}\n\n{GENERAL}"))
    }

    fn schema(&self) -> serde_json::Value {
        schemars::schema_for!(recipe::Word2VecRecipe).to_value()
    }

    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>> {
        Ok(Box::new(job::Word2VecJob::new(recipe)?))
    }

    fn open(&self, from: &Checkpoint, _: &Device) -> Result<Box<dyn Model>> {
        Ok(Box::new(model::Vectors::open(from)?))
    }
}

/// The recipe for a text that nobody wrote one for.
const GENERAL: &str = "[vocabulary]
min_count = 5

[pairs]
window = 5
subsample = 1e-4

[encoder.table]
width = 100

[loss.negative-sampling]
negatives = 5
power = 0.75

[optimizer.sgd]
rate = 0.05

[train]
epochs = 5
batch = 256
seed = 0
";
