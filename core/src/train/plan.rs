//! The plan of a run: the checked recipe, with every value that the training loop needs.

use crate::error::Result;
use crate::optim::Schedule;
use crate::recipe::{CheckpointRecipe, Recipe, Saves, TrainRecipe};

/// A checked plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The modality's name.
    pub modality: &'static str,
    /// The recipe it was made from, as it is saved in the run.
    pub recipe: Recipe,
    /// The `[train]` keys that every modality has.
    pub train: TrainRecipe,
    /// The learning rate's schedule.
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
    /// Checks the keys that every modality has. The caller makes the schedule, because optimizers differ. A step is one part, and
    /// checkpoints are saved as in a recipe without `[checkpoint]`.
    ///
    /// # Errors
    /// As for [`TrainRecipe::check`].
    pub fn new(modality: &'static str, recipe: &Recipe, train: TrainRecipe, schedule: Schedule) -> Result<Self> {
        train.check(recipe)?;
        let part = train.batch;
        let saves = CheckpointRecipe::default().saves(&train, recipe)?;
        Ok(Plan { modality, recipe: recipe.clone(), train, schedule, shuffle: true, drop_last: true, part, saves })
    }
}
