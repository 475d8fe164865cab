//! Cells: runs that are part of a study. Each has a folder of its own, is trained once, and is resumed where it was stopped.
//!
//! A cell with a `result.json` is finished; one with a checkpoint is resumed. A cell that was made by another recipe is an error, because a
//! table must not mix recipes.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use ctk_core::Device;
use ctk_core::error::{Context, Error, ErrorKind, Result};
use ctk_core::modality::Modality;
use ctk_core::process::{Process, Stop};
use ctk_core::recipe::Recipe;
use ctk_core::store::files;
use ctk_core::store::run::{Place, Run};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::Show;
use super::pace::{Cell, Kind, Pace};
use super::{output, progress, run};

const RESULT: &str = "result.json";

/// The stored result of a cell, if it is finished. `recipe` is the recipe that it should have been made by.
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

/// Stores the result of a cell, which is then finished.
pub fn keep<T: Serialize>(place: &Path, result: &T) -> Result<()> {
    files::write(&place.join(RESULT), serde_json::to_string_pretty(result)?.as_bytes())
}

/// The cells of a study in the order in which they are made: each one's folder, and its kind; cells of a kind take about the same time.
pub fn pace(cells: &[(PathBuf, Kind)]) -> Arc<Mutex<Pace>> {
    let to_make = |(place, kind): &(PathBuf, Kind)| (!place.join(RESULT).is_file()).then_some(*kind);
    Arc::new(Mutex::new(Pace::new(cells.iter().map(to_make).collect())))
}

/// Runs the cells of one part of a study.
pub struct Runner<'a> {
    pub modality: &'a dyn Modality,
    pub device: Device,
    pub show: Show,
    pub stop: Stop,
    /// The progress of all cells, those of other runners too.
    pub pace: Arc<Mutex<Pace>>,
    /// How many cells of other runners are made before these.
    pub before: usize,
    /// The cell that is running.
    pub now: RefCell<Option<Cell>>,
}

impl Runner<'_> {
    /// The stored result of the run of `recipe`. If the cell is not finished, it is trained, from the start or from its checkpoint, and
    /// `found` chooses the result from the figures of `ctk train --json`.
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
        let observer = match self.now.borrow().clone() {
            Some(cell) => progress::of_cell(self.show.quiet, cell),
            None => progress::observer(self.show.quiet),
        };
        let process = Process::new(self.device.clone()).observed_by(observer).stopped_by(self.stop.clone());
        let result = found(run::train(self.modality, recipe, Place::reached(place.to_path_buf())?, process)?.figures())?;
        keep(place, &result)?;
        Ok(result)
    }

    /// Runs `work` as cell `number`; its errors name the cell.
    pub fn cell<T>(&self, number: usize, place: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let cell = Cell { pace: self.pace.clone(), number: self.before + number, began: Instant::now() };
        let line = cell.line(None);
        if !self.show.quiet {
            output::say(format!("{line}: {}", place.display()));
        }
        *self.now.borrow_mut() = Some(cell.clone());
        let made = work().map_err(|e| match e.kind() {
            ErrorKind::Interrupted => {
                let which = line.split(',').next().unwrap_or_default();
                Error::interrupted(format!("stopped in {which}; it is saved")).hint("go on with the same command")
            }
            _ => e.at(place.display()),
        })?;
        cell.done();
        Ok(made)
    }
}
