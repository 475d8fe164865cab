//! `ctk train`: a recipe, new or of a run that goes on, and the run by it.

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::{Place, Run};

use crate::Modalities;
use crate::shared::args::Train;
use crate::shared::{recipe, run as runs};

pub fn run(args: Train, modalities: Modalities) -> Result<()> {
    let modality = crate::modality(modalities, &args.modality)?;
    let (recipe, place) = match &args.resume {
        Some(folder) => (Run::recipe_of(folder)?, Place::Resume(folder.clone())),
        None => (begun(&args, modality)?, args.new.place()),
    };
    runs::told(modality, &recipe, place, &args.new)
}

/// The recipe of a new run: `--init` changes it, and names one where `--config` does not.
fn begun(args: &Train, modality: &dyn Modality) -> Result<Recipe> {
    let Some(init) = &args.init else { return recipe::recipe(&args.recipe, modality) };
    let from = Checkpoint::open(init)?;
    let of = &from.manifest().modality;
    if of != modality.name() {
        return Err(Error::usage(format!("this is a run of {of}, not of {}", modality.name())).at(init.display()));
    }
    let mut recipe = match &args.recipe.config {
        Some(_) => recipe::recipe(&args.recipe, modality)?,
        None => recipe::changed(from.recipe(), &args.recipe, modality)?,
    };
    modality.set_init(&mut recipe, init)?;
    Ok(recipe)
}
