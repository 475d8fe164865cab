//! `ctk import`: turns another program's weights into a run.

use ctk_core::error::{Error, Result};
use ctk_core::modality::{Job, Modality};
use ctk_core::recipe::Recipe;
use ctk_core::store::run::Run;
use serde_json::json;

use crate::Modalities;
use crate::shared::args::Import;
use crate::shared::{output, recipe, run as runs};

pub fn run(args: Import, modalities: Modalities) -> Result<()> {
    let (modality, recipe, job) = recognised(&args, modalities)?;
    let new = &args.new;
    let made = runs::carry_out(job, Run::new(new.place(), modality.name(), recipe)?, runs::process(new, modality)?)?;
    let mut figures = json!({
        "run": made.run.display().to_string(), "checkpoint": made.checkpoint.display().to_string(), "modality": made.modality,
    });
    made.summary.figures.into_iter().for_each(|(name, value)| figures[name] = value);
    output::figures(new.show.json, &figures)
}

/// The modality that reads these weights, the recipe that describes them, with the user's changes, and the job that makes the run.
fn recognised<'a>(args: &Import, modalities: Modalities<'a>) -> Result<(&'a dyn Modality, Recipe, Box<dyn Job>)> {
    for modality in modalities {
        if let Some((recipe, job)) = modality.import(&args.weights, &|recipe| recipe::set(recipe, &args.set))? {
            return Ok((*modality, recipe, job));
        }
    }
    Err(Error::usage("ctk cannot read these weights").at(args.weights.display()))
}
