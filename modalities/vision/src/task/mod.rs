//! Tasks with a trained network: fine-tuning it with few labels, and distilling it into another one (Chen et al. 2020b, §2).
//!
//! A task is a section of the recipe and not a loop of its own: it has its source, learner and loss, and is trained by the same `fit`.
//! [`sections`] defines the section, [`recipe`](mod@recipe) writes the whole recipe for a verb. [`classifier`] is the network of both
//! tasks; [`finetune`] and [`distill`] are the jobs; [`search`] chooses among rates, epochs and crops by cross-validation on the labelled
//! images, and [`folds`] stores its predictions. No label of a test image is read before training is over.

pub(crate) mod classifier;
mod distill;
mod finetune;
mod folds;
mod recipe;
mod search;
pub(crate) mod sections;

use std::path::Path;

use ctk_core::data::labels::{Amount, Subset};
use ctk_core::modality::Job;
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::task;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::Splits;
use serde::de::DeserializeOwned;

use crate::recipe::{Checked, VisionRecipe, check};
use sections::kept;

pub(crate) use ctk_core::task::given;
pub(crate) use folds::Folds;
pub(crate) use recipe::recipe;
pub use sections::{DistillRecipe, FinetuneRecipe, Normalisation, TaskRecipe};

/// The file of a run with its class names by number, if they are not beside its labels.
const CLASSES: &str = "classes.json";

/// The class names of a fine-tuned or distilled run by number, if the run stores them.
pub(crate) fn classes_of(checkpoint: &Checkpoint) -> Result<Option<Vec<String>>> {
    match stored(checkpoint, CLASSES)? {
        Some(classes) => Ok(Some(classes)),
        None => Ok(given(checkpoint)?.map(|subset| subset.classes).filter(|classes| !classes.is_empty())),
    }
}

/// The content of the file `name` in the checkpoint's run, if there is one.
fn stored<T: DeserializeOwned>(checkpoint: &Checkpoint, name: &str) -> Result<Option<T>> {
    checkpoint.of_run(name)?.map(|bytes| serde_json::from_slice(&bytes).at(name)).transpose()
}

/// The job of a checked recipe with a task.
pub(crate) fn plan(task: TaskRecipe, checked: Checked, text: &Recipe) -> Result<Box<dyn Job>> {
    Ok(match task {
        TaskRecipe::Finetune(task) => Box::new(finetune::Finetune::new(task, checked, text)?),
        TaskRecipe::Distill(task) => Box::new(distill::Distill::new(task, checked, text)?),
    })
}

/// Opens a run to start from: its checkpoint must be of pretraining, and of the network that `recipe` names.
fn pretrained(from: &Path, recipe: &VisionRecipe, kept: usize) -> Result<Checkpoint> {
    let (checkpoint, checked) = opened(from)?;
    if checked.recipe.task.is_some() {
        return Err(Error::usage("this run was fine-tuned or distilled: it has no projection head to start from")
            .at(from.display())
            .hint("give the run that it started from"));
    }
    // What pretraining itself started from does not matter.
    let of = checked.recipe;
    if of.encoder.without_weights() != recipe.encoder || (kept > 0 && of.head != recipe.head) {
        return Err(Error::usage("this run has another network than the recipe: their [encoder] or [head] differ")
            .at(from.display())
            .hint("leave them as the run has them"));
    }
    Ok(checkpoint)
}

/// Opens a run of vision and its recipe.
fn opened(run: &Path) -> Result<(Checkpoint, Checked)> {
    let checkpoint = Checkpoint::open(run)?;
    if checkpoint.manifest().modality != "vision" {
        return Err(Error::usage(format!("this is a run of {}, not of vision", checkpoint.manifest().modality)).at(run.display()));
    }
    let checked = check(&checkpoint.recipe())?;
    Ok((checkpoint, checked))
}

/// Draws the training images that keep their labels, and stores them in the run; a resumed run must find the same. Also returns their
/// indices.
fn labelled(splits: &Splits, labels: Amount, seed: u64, run: &mut Run, process: &Process) -> Result<(Subset, Vec<usize>)> {
    let no_labels = || {
        Error::usage("this data has no labels to learn from")
            .hint("use data with classes: one folder for each class, CIFAR, IDX, or tar shards")
    };
    let of = splits.train.labels().filter(|_| splits.labelled()).ok_or_else(no_labels)?;
    let drawn = Subset::draw(&splits.train.names(), &of, splits.train.classes(), labels, seed);
    task::store(&drawn.0, run, process)?;
    Ok(drawn)
}
