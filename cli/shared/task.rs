//! The recipe of a task with a trained model: of a run, or of a folder that another program wrote. The modality writes it.

use std::path::Path;

use ctk_core::error::Result;
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::TaskRequest;

use crate::Modalities;

/// The modality of the model that `request` names, and the recipe that it writes.
pub fn asked<'a>(request: &TaskRequest, modalities: Modalities<'a>) -> Result<(&'a dyn Modality, Recipe)> {
    for modality in modalities {
        if let Some(recipe) = modality.foreign_task(request)? {
            return Ok((*modality, recipe));
        }
    }
    let (modality, from) = of_run(&request.run, modalities)?;
    Ok((modality, modality.task(&from, request)?))
}

/// The modality of a run, and its checkpoint.
pub fn of_run<'a>(run: &Path, modalities: Modalities<'a>) -> Result<(&'a dyn Modality, Checkpoint)> {
    let from = Checkpoint::open(run)?;
    Ok((crate::modality(modalities, &from.manifest().modality)?, from))
}
