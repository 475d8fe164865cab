//! `checkpoint.keep_best`: the labelled images on which checkpoints are compared.
//!
//! They are the part `val` if the data has one, else a tenth of the training labels: stratified and seeded, with copies and groups on one
//! side, stored in the run. Their labels are not trained on. Test images are not used.

use std::collections::HashSet;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::observer::Event;
use ctk_core::process::Process;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::Run;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::{Images, Splits};
use ctk_images::holdout::Holdout;

use crate::recipe::VisionRecipe;

/// The fraction of the labels that is held back.
const SHARE: f64 = 0.1;

/// The file of a run with the names of these images.
const FILE: &str = "held_back.json";

/// The images that checkpoints are measured on, and those that remain.
pub(crate) struct Watched {
    /// Labelled images whose labels are not trained on.
    pub on: Images,
    /// A description of these images.
    pub what: &'static str,
    /// The labelled images that remain.
    pub rest: Images,
}

impl Watched {
    /// The images for a run with `splits` that gets the labels of `labelled`, images of the training part; none if the recipe does not ask
    /// for them. A resumed run has the same ones as before.
    ///
    /// # Errors
    /// There are no labels, too few to hold any back, or the data differs from the one that the run began with.
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
            process.tell(&Event::Note(&format!("the best checkpoint is decided by the {} images of the part `val`", val.len())));
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
            "the best checkpoint is decided by {} of the {} labels, which are held back and not trained on; stored in {FILE}",
            on.len(),
            labelled.len()
        )));
        Ok(Some(Watched { on, what: "a tenth of the training labels", rest: held.train }))
    }
}

/// The error for data without labels.
pub(crate) fn unlabelled() -> Error {
    Error::usage("checkpoint.keep_best needs labels to compare checkpoints, and this data has none")
        .hint("give data with classes (one folder for each class, or a table with labels), or leave checkpoint.keep_best out")
}

/// The names of the images whose labels the run of `checkpoint` held back.
///
/// # Errors
/// The file is damaged.
pub(crate) fn held_back(checkpoint: &Checkpoint) -> Result<HashSet<String>> {
    let stored = checkpoint.of_run(FILE)?.map(|bytes| serde_json::from_slice::<Holdout>(&bytes).at(FILE)).transpose()?;
    Ok(stored.map(|stored| stored.held_out.into_iter().collect()).unwrap_or_default())
}

/// A share of the images as people read it.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
