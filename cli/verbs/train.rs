//! `ctk train`: trains a new run by a recipe, or resumes a run.

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;

use crate::Modalities;
use crate::shared::args::Train;
use crate::shared::{recipe, run as runs};

pub fn run(args: Train, modalities: Modalities) -> Result<()> {
    let modality = crate::modality(modalities, &args.modality)?;
    match &args.resume {
        Some(folder) => runs::gone_on(modality, folder, &args.recipe.set, args.accept_changes, &args.new),
        None => runs::told(modality, &begun(&args, modality)?, &args.new),
    }
}

/// The recipe of a new run; `--init` changes it, and supplies one if `--config` does not.
fn begun(args: &Train, modality: &dyn Modality) -> Result<Recipe> {
    let Some(init) = &args.init else { return recipe::recipe(&args.recipe, modality) };
    // A file, on this machine or on the hub, is another program's weights. A folder may be too; runs have a recipe or a manifest, and
    // those of some other modalities are weights as well.
    let described = ["config.json", "modules.json", "open_clip_config.json"].iter().any(|name| init.join(name).is_file());
    let foreign = init.is_file() || ctk_hub::is_remote(init) || described;
    let own = args.recipe.config.is_none();
    let from = if foreign { None } else { Some(Checkpoint::open(init)?) };
    let Some(from) = from.filter(|from| !modality.reads_weights_of(&from.manifest().modality)) else {
        let mut recipe = recipe::recipe(&args.recipe, modality)?;
        modality.set_weights(&mut recipe, init, own)?;
        // What the weights say replaced the default, and the user's changes replace that.
        return if own { recipe::changed(recipe, &args.recipe, modality) } else { Ok(recipe) };
    };
    let of = &from.manifest().modality;
    if of != modality.name() {
        return Err(Error::usage(format!("this is a run of {of}, not of {}", modality.name())).at(init.display()));
    }
    if own {
        // The user's changes come last, since they are of what the new run is.
        let mut recipe = from.recipe();
        modality.set_init(&mut recipe, init)?;
        return recipe::changed(recipe, &args.recipe, modality);
    }
    let mut recipe = recipe::recipe(&args.recipe, modality)?;
    modality.set_init(&mut recipe, init)?;
    Ok(recipe)
}
