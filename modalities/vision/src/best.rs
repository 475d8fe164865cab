//! `checkpoint.keep_best`: the labelled images that say which checkpoint is the best, and what is told of it.
//!
//! They are the part `val` where the data has one, else a tenth of the training labels: stratified and seeded, copies and groups on one
//! side, stored in the run. Nothing learns from their labels. Test images are not looked at.

use std::collections::HashSet;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::modality::Summary;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::best::Best;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::{Images, Splits};
use ctk_images::holdout::Holdout;
use serde_json::json;

use crate::recipe::VisionRecipe;

/// The share of the labels that is held back.
const SHARE: f64 = 0.1;

/// Where a run stores which images these are.
const FILE: &str = "held_back.json";

/// What checkpoints are measured on, and what is left to learn from.
pub(crate) struct Watched {
    /// Labelled images whose labels nothing learns from.
    pub on: Images,
    /// What they are.
    pub what: &'static str,
    /// The labelled images that remain.
    pub rest: Images,
}

impl Watched {
    /// Those of a run with `splits` that is given the labels of `labelled`, images of the training part; none where the recipe does not
    /// ask. A run that goes on has those that it began with.
    ///
    /// # Errors
    /// No labels; too few to hold any back; other data than the run began with.
    pub fn of(
        recipe: &VisionRecipe,
        splits: &Splits,
        labelled: &Images,
        seed: u64,
        run: &mut Run,
        process: &mut Process,
    ) -> Result<Option<Watched>> {
        if !recipe.checkpoint.keep_best {
            return Ok(None);
        }
        if labelled.labels().is_none_or(|labels| labels.is_empty()) || labelled.classes().is_empty() {
            return Err(unlabelled());
        }
        if let Some(val) = splits.val.as_ref().filter(|val| val.labels().is_some_and(|labels| !labels.is_empty())) {
            process.tell(&Event::Note(&format!("the best checkpoint is told by the {} images of the part `val`", val.len())));
            return Ok(Some(Watched { on: val.clone(), what: "val", rest: labelled.clone() }));
        }
        let holdout: Holdout = match run.read(FILE)? {
            Some(bytes) => serde_json::from_slice(&bytes).at(FILE)?,
            None => {
                let drawn = Holdout::draw(labelled, SHARE, seed)
                    .map_err(|e| e.at("checkpoint.keep_best, which holds a tenth of the labels back"))?;
                if process.writes() {
                    run.write(FILE, &serde_json::to_vec_pretty(&drawn)?)?;
                }
                drawn
            }
        };
        let held = holdout.apply(labelled).map_err(|e| e.at(FILE))?;
        let on = held.test.ok_or_else(|| Error::new("nothing is held back").at(FILE))?;
        process.tell(&Event::Note(&format!(
            "the best checkpoint is told by {} of the {} labels, which are held back: nothing learns from them; stored in {FILE}",
            on.len(),
            labelled.len()
        )));
        Ok(Some(Watched { on, what: "a tenth of the training labels", rest: held.train }))
    }
}

/// The data has no label to measure by.
pub(crate) fn unlabelled() -> Error {
    Error::usage("checkpoint.keep_best tells the best checkpoint by labels, and this data has none")
        .hint("give data with classes (one folder a class, or a table with labels), or leave checkpoint.keep_best out")
}

/// Names of the images whose labels the run of `checkpoint` held back.
///
/// # Errors
/// The file is damaged.
pub(crate) fn held_back(checkpoint: &Checkpoint) -> Result<HashSet<String>> {
    let stored = checkpoint.of_run(FILE)?.map(|bytes| serde_json::from_slice::<Holdout>(&bytes).at(FILE)).transpose()?;
    Ok(stored.map(|stored| stored.held_out.into_iter().collect()).unwrap_or_default())
}

/// Adds to `summary` which checkpoint was the best, and the command that comes `next` with it.
pub(crate) fn tell(best: Option<&Best>, next: &'static str, summary: &mut Summary) {
    let Some(Best { step, measure, value, on, samples }) = best else { return };
    summary.figures.extend([
        ("best_step", json!(step)),
        ("best_value", json!(value)),
        ("best_measure", json!(measure)),
        ("best_on", json!(on)),
    ]);
    summary.text.push_str(&format!(
        "best checkpoint: step {step}, {} {:.1} % on {samples} images ({on}); the folder checkpoints/best stands for it\n",
        measure.replace('_', " "),
        100.0 * value
    ));
    summary.next.push(next);
}
