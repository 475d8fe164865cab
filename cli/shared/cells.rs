//! Runs that belong to a larger piece of work: each in a folder of its own, done once, found again, gone on with where it stopped.
//!
//! A cell that is done has a `result.json`; one with a checkpoint is resumed; one that was made by another recipe is an error, since a
//! table must not mix them.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ctk_core::error::{Context, Error, ErrorKind, Result};
use ctk_core::modality::Modality;
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::files;
use ctk_core::store::run::{Place, Run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::Show;
use super::{output, progress, run};

const RESULT: &str = "result.json";

/// What a cell found, if it is done. `recipe` is what it should have been made by.
pub fn found<T: DeserializeOwned>(place: &Path, recipe: Option<&Recipe>) -> Result<Option<T>> {
    if let Some(recipe) = recipe
        && Run::has_begun(place)
        && Run::recipe_of(place)?.text() != recipe.text()
    {
        return Err(Error::usage("this cell was made by another recipe").hint("ask for the same again, or give another --out"));
    }
    let path = place.join(RESULT);
    if !path.is_file() {
        return Ok(None);
    }
    serde_json::from_slice(&fs::read(&path).at(path.display())?).at(path.display()).map(Some)
}

/// Stores what a cell found: it is done.
pub fn keep<T: Serialize>(place: &Path, result: &T) -> Result<()> {
    files::write(&place.join(RESULT), serde_json::to_string_pretty(result)?.as_bytes())
}

/// How cells are run.
pub struct Runner<'a> {
    pub modality: &'a dyn Modality,
    pub device: &'a str,
    pub show: Show,
    pub stop: Arc<AtomicBool>,
    /// Cells there are.
    pub count: usize,
}

impl Runner<'_> {
    /// What is kept of the run of `recipe`. Where it is not done, it is trained, from the start or from where it was stopped, and
    /// `found` says what to keep of the figures of `ctk train --json`.
    pub fn trained<T>(&self, recipe: &Recipe, place: &Path, found: impl FnOnce(Value) -> Result<T>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        // A cell that an earlier version began has the recipe as it was written.
        let as_written = Run::has_begun(place) && Run::recipe_of(place)?.text() == recipe.text();
        let recipe = &if as_written { recipe.clone() } else { run::completed(self.modality, recipe)? };
        if let Some(done) = self::found(place, Some(recipe))? {
            return Ok(done);
        }
        let device = ctk_core::device::device(self.device)?;
        let process = Process::new(device).observed_by(progress::observer(self.show.quiet)).stopped_by(self.stop.clone());
        let result = found(run::train(self.modality, recipe, Place::reached(place.to_path_buf())?, process)?.figures())?;
        keep(place, &result)?;
        Ok(result)
    }

    /// Does cell `number`, whose errors then name it.
    pub fn cell<T>(&self, number: usize, place: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.show.quiet {
            output::say(format!("cell {number} of {}: {}", self.count, place.display()));
        }
        work().map_err(|e| match e.kind() {
            ErrorKind::Interrupted => Error::interrupted(format!("stopped in cell {number} of {}; it is saved", self.count))
                .hint("go on with the same command"),
            _ => e.at(place.display()),
        })
    }
}
