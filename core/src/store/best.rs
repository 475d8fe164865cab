//! Which checkpoint of a run is the best, by a measure that was taken whenever one was saved.
//!
//! Each checkpoint carries what was the best when it was written, so a run that goes on knows it exactly. The folder
//! `checkpoints/best/` says the same of the whole run, and stands wherever a checkpoint is named.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::store::checkpoint::Checkpoint;
use crate::store::files;

/// The file that holds it, in checkpoints and in [`FOLDER`].
pub(super) const FILE: &str = "best.json";

/// The folder beside the checkpoints that stands for the best of them.
const FOLDER: &str = "best";

/// The best checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps that it was saved after.
    pub step: usize,
    /// What was measured, under its JSON name; more is better.
    pub measure: String,
    /// What the measure was.
    pub value: f64,
    /// What it was measured on.
    pub on: String,
    /// How many samples these are.
    pub samples: usize,
}

impl Best {
    /// What was the best when `checkpoint` was written; none where nothing was measured.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Best>> {
        let reader = checkpoint.reader();
        if !reader.has(FILE) {
            return Ok(None);
        }
        serde_json::from_slice(&reader.bytes(FILE)?).map(Some).at(checkpoint.folder().join(FILE).display())
    }

    /// As the file says it.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Makes the folder among the checkpoints of `parent` stand for this one.
    pub(super) fn name(&self, parent: &Path) -> Result<()> {
        files::write(&parent.join(FOLDER).join(FILE), &self.bytes()?)
    }

    /// The folder of the checkpoint that `path` stands for; none where `path` is no such folder.
    ///
    /// # Errors
    /// A file that cannot be read; a checkpoint that has gone.
    pub(super) fn meant(path: &Path) -> Result<Option<PathBuf>> {
        let file = path.join(FILE);
        if !file.is_file() {
            return Ok(None);
        }
        let damaged = || {
            Error::new("this file is not as it was written")
                .at(file.display())
                .hint("go on with the run by --resume, which writes it anew, or give a checkpoint by its step")
        };
        let best: Best = serde_json::from_slice(&std::fs::read(&file).at(file.display())?).map_err(|_| damaged())?;
        let folder = path.with_file_name(best.step.to_string());
        match folder.is_dir() {
            // The checkpoint itself says it too.
            true if Best::of(&Checkpoint::open(&folder)?)?.as_ref() == Some(&best) => Ok(Some(folder)),
            true => Err(damaged()),
            false => Err(Error::usage(format!("the best checkpoint, of step {}, is not there any more", best.step))
                .at(path.display())
                .hint("give the run's folder, which means its newest checkpoint")),
        }
    }
}
