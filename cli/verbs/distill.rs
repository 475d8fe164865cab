//! `ctk distill`: trains a student network on the predictions of a fine-tuned run. The modality writes the recipe.

use ctk_core::error::Result;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::{self, Task};

use crate::Modalities;
use crate::shared::args::Distill;
use crate::shared::{recipe, run as runs};

pub fn run(args: Distill, modalities: Modalities) -> Result<()> {
    let teacher = Checkpoint::open(&args.teacher)?;
    let modality = crate::modality(modalities, &teacher.manifest().modality)?;
    let task = Task::Distill(task::Distill {
        student: args.student.as_deref().map(Recipe::read).transpose()?,
        from: args.from,
        temperature: args.temperature,
        alpha: args.alpha,
        epochs: args.epochs,
        rate: args.rate,
    });
    let mut recipe = modality.task(&teacher, &args.tuning.request(&args.teacher, args.data.as_deref(), task))?;
    recipe::set(&mut recipe, &args.tuning.set)?;
    runs::told(modality, &recipe, &args.new)
}
