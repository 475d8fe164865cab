//! The best checkpoint of a run, by a measure that is taken whenever a checkpoint is saved.
//!
//! Each checkpoint records which one was the best when it was written, so that a resumed run knows it exactly. The folder
//! `checkpoints/best/` records it for the whole run, and may be given wherever a checkpoint may.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::store::checkpoint::Checkpoint;
use crate::store::files;

/// The file with the record, in checkpoints and in [`FOLDER`].
pub(super) const FILE: &str = "best.json";

/// The folder beside the checkpoints that stands for the best one.
const FOLDER: &str = "best";

/// The best checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The step of the checkpoint.
    pub step: usize,
    /// The measure under its JSON name; more is better.
    pub measure: String,
    /// The value of the measure.
    pub value: f64,
    /// The data that it was measured on.
    pub on: String,
    /// The number of samples of that data.
    pub samples: usize,
}

impl Best {
    /// The best checkpoint when `checkpoint` was written; none if nothing was measured.
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

    /// The content of the file.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// Makes the folder among the checkpoints of `parent` stand for this checkpoint.
    pub(super) fn name(&self, parent: &Path) -> Result<()> {
        files::write(&parent.join(FOLDER).join(FILE), &self.bytes()?)
    }

    /// The folder of the checkpoint that `path` stands for; none if `path` is not such a folder.
    ///
    /// # Errors
    /// The file cannot be read, or the checkpoint no longer exists.
    pub(super) fn meant(path: &Path) -> Result<Option<PathBuf>> {
        let file = path.join(FILE);
        if !file.is_file() {
            return Ok(None);
        }
        let damaged = || {
            Error::new("this file is not as it was written")
                .at(file.display())
                .hint("go on with the run by --resume, which writes it again, or give a checkpoint by its step")
        };
        let best: Best = serde_json::from_slice(&std::fs::read(&file).at(file.display())?).map_err(|_| damaged())?;
        let folder = path.with_file_name(best.step.to_string());
        match folder.is_dir() {
            // The checkpoint itself has the same record.
            true if Best::of(&Checkpoint::open(&folder)?)?.as_ref() == Some(&best) => Ok(Some(folder)),
            true => Err(damaged()),
            false => Err(Error::usage(format!("the best checkpoint, of step {}, is not there any more", best.step))
                .at(path.display())
                .hint("give the run's folder, which means its newest checkpoint")),
        }
    }
}
