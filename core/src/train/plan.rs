//! The config as checked: what the training loop needs to know, with every figure resolved.

use crate::error::Result;
use crate::optim::Schedule;
use crate::recipe::{CheckpointRecipe, Recipe, Saves, TrainRecipe};

/// A checked plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The modality's name.
    pub modality: &'static str,
    /// The recipe it came from, as it is saved beside the run.
    pub recipe: Recipe,
    /// What every modality's `[train]` has.
    pub train: TrainRecipe,
    /// The rate of every step.
    pub schedule: Schedule,
    /// Whether samples are shuffled every epoch.
    pub shuffle: bool,
    /// Whether a short last batch is left out.
    pub drop_last: bool,
    /// How many samples of a step go into one part.
    pub part: usize,
    /// When checkpoints are saved, and how many are kept.
    pub saves: Saves,
}

impl Plan {
    /// Checks what every modality's `[train]` has; the schedule is the caller's, since optimizers differ. A step is one part;
    /// checkpoints are saved as a recipe without a `[checkpoint]` has it.
    ///
    /// # Errors
    /// As of [`TrainRecipe::check`].
    pub fn new(modality: &'static str, recipe: &Recipe, train: TrainRecipe, schedule: Schedule) -> Result<Self> {
        train.check(recipe)?;
        let part = train.batch;
        let saves = CheckpointRecipe::default().saves(&train, recipe)?;
        Ok(Plan { modality, recipe: recipe.clone(), train, schedule, shuffle: true, drop_last: true, part, saves })
    }
}
