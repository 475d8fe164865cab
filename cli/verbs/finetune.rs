//! `ctk finetune`: fine-tunes a trained network with few labels. The modality writes the recipe.

use ctk_core::error::Result;

use crate::Modalities;
use crate::shared::args::Finetune;
use crate::shared::{recipe, run as runs, task};

pub fn run(args: Finetune, modalities: Modalities) -> Result<()> {
    let wanted = args.choices.task(args.labels, args.seed, args.from_scratch, &args.texts);
    let request = args.tuning.request(&args.run, args.data.as_deref(), wanted);
    let (modality, mut recipe) = task::asked(&request, modalities)?;
    recipe::set(&mut recipe, &args.tuning.set)?;
    runs::told(modality, &recipe, &args.new)
}
