//! The config as checked: what the training loop needs to know, with every figure resolved.

use crate::error::Result;
use crate::optim::Schedule;
use crate::recipe::{Recipe, TrainRecipe};

/// A checked plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The modality's name.
    pub modality: &'static str,
    /// The recipe it came from, as it is saved beside the run.
    pub recipe: Recipe,
    /// `[train]`.
    pub train: TrainRecipe,
    /// The rate of every step.
    pub schedule: Schedule,
    /// Whether samples are shuffled every epoch.
    pub shuffle: bool,
    /// Whether a short last batch is left out.
    pub drop_last: bool,
    /// How many samples of a step go into one part.
    pub part: usize,
}

impl Plan {
    /// Checks `[train]`; the schedule is the caller's, since optimizers differ.
    pub fn new(modality: &'static str, recipe: &Recipe, train: TrainRecipe, schedule: Schedule) -> Result<Self> {
        recipe.require(train.epochs > 0, "train.epochs", "must be at least 1")?;
        recipe.require(train.batch > 0, "train.batch", "must be at least 1")?;
        recipe.require(train.max_steps != Some(0), "train.max_steps", "must be at least 1")?;
        recipe.require(train.part != Some(0), "train.part", "must be at least 1")?;
        let groups = train.bn_groups.unwrap_or(1);
        recipe.require(groups > 0, "train.bn_groups", "must be at least 1")?;
        let rows = train.part.map_or(train.batch, |part| part.min(train.batch)) / groups;
        recipe.require(
            train.bn_groups.is_none() || rows > 1,
            "train.bn_groups",
            "a group needs two images or more: a larger train.batch (or train.part), or fewer groups",
        )?;
        recipe.require(train.log_every > 0, "train.log_every", "must be at least 1")?;
        recipe.require(train.save_every > 0, "train.save_every", "must be at least 1")?;
        recipe.require(train.keep > 0, "train.keep", "must be at least 1: a run without a checkpoint is lost")?;
        recipe.require(train.loaders <= 1024, "train.loaders", "more than 1024 loader threads cannot be meant")?;
        let part = train.part.unwrap_or(train.batch);
        Ok(Plan { modality, recipe: recipe.clone(), train, schedule, shuffle: true, drop_last: true, part })
    }
}
