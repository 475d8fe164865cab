//! `ctk finetune`: fine-tunes a run's network with few labels. The modality writes the recipe.

use ctk_core::error::Result;
use ctk_core::store::checkpoint::Checkpoint;

use crate::Modalities;
use crate::shared::args::Finetune;
use crate::shared::{recipe, run as runs};

pub fn run(args: Finetune, modalities: Modalities) -> Result<()> {
    let from = Checkpoint::open(&args.run)?;
    let modality = crate::modality(modalities, &from.manifest().modality)?;
    let task = args.choices.task(args.labels, args.seed, args.from_scratch);
    let mut recipe = modality.task(&from, &args.tuning.request(&args.run, args.data.as_deref(), task))?;
    recipe::set(&mut recipe, &args.tuning.set)?;
    runs::told(modality, &recipe, &args.new)
}
