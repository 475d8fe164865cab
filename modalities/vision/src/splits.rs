//! What a run may learn from and what it is judged by: the data as it lies there, or with the hold-out that the run stores.

use std::path::Path;

use ctk_core::modality::{Query, Split};
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Result};
use ctk_images::dataset::{self, Splits};
use ctk_images::holdout::{self, Holdout};
use ctk_images::recipe::DataRecipe;

use crate::recipe::VisionRecipe;

/// The data of a run: as it lies there, or with the hold-out that the run stored (or now stores): the one it inherits, or a new one.
pub(crate) fn of_run(
    of: &DataRecipe,
    seed: u64,
    inherited: Option<Holdout>,
    run: &mut Run,
    process: &mut Process,
) -> Result<Splits> {
    let splits = of.open()?;
    dataset::check_classes(&splits).map_err(|e| e.at(of.path.as_deref().unwrap_or(Path::new("generated")).display()))?;
    if splits.test.is_some() || !splits.labelled() {
        return Ok(splits);
    }
    let stored = run.read(holdout::FILE)?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?;
    let holdout: Holdout = match stored {
        Some(holdout) => holdout,
        None => {
            let fits = inherited.as_ref().is_some_and(|holdout| holdout.apply(&splits.train).is_ok());
            if inherited.is_some() && !fits {
                process.tell(&Event::Note("this is other data than the network was trained on: a hold-out of its own is drawn"));
            }
            let holdout = match inherited.filter(|_| fits) {
                Some(holdout) => holdout,
                None => Holdout::draw(&splits.train, of.holdout, seed)?,
            };
            if process.writes() {
                run.write(holdout::FILE, &serde_json::to_vec_pretty(&holdout)?)?;
            }
            holdout
        }
    };
    process.tell(&Event::Note(&holdout.line()));
    let held = holdout.apply(&splits.train)?;
    Ok(Splits { unlabelled: splits.unlabelled, ..held })
}

/// The data of `query` for a trained model, with a test part where there are labels: its own, the run's hold-out, or one drawn the
/// same way.
pub(crate) fn of_model(recipe: &VisionRecipe, checkpoint: &Checkpoint, query: &Query) -> Result<Splits> {
    let of = match &query.data {
        Some(path) => DataRecipe { path: Some(path.clone()), format: None, ..recipe.data.clone() },
        None => recipe.data.clone(),
    };
    let splits = of.open()?;
    if splits.test.is_some() || !splits.labelled() || query.split == Split::All {
        return Ok(splits);
    }
    let place = of.path.as_deref().unwrap_or(Path::new("the generated dataset")).display().to_string();
    dataset::check_classes(&splits).at(&place)?;
    let holdout = match Holdout::stored(checkpoint)? {
        Some(holdout) if query.data.is_none() => holdout,
        _ => Holdout::draw(&splits.train, of.holdout, recipe.train.seed).at(&place)?,
    };
    let held = holdout.apply(&splits.train).at(&place)?;
    Ok(Splits { unlabelled: splits.unlabelled, ..held })
}
