//! A file of features used in place of a model: its rows are the features.

use std::path::{Path, PathBuf};

use ctk_core::error::{Error, Result};
use ctk_core::eval::{Features, Table};
use ctk_core::modality::{Model, Query, Split};

/// Features that `ctk embed` wrote, or any `.npy` file of rows.
pub struct Stored {
    path: PathBuf,
    features: Features,
}

impl Stored {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Stored> {
        Ok(Stored { path: path.to_path_buf(), features: Features::load(path)? })
    }

    /// Checks that a file of features can answer the query.
    ///
    /// # Errors
    /// The query asks for something that only a model can compute.
    fn check(&self, query: &Query) -> Result<()> {
        if query.data.is_some() || !query.files.is_empty() {
            return Err(Error::usage("a file of features cannot compute features of other data")
                .at(self.path.display())
                .hint("give the run that the features come from: ctk embed RUN --data PATH"));
        }
        match &query.baseline {
            Some(name) => Err(Error::usage(format!("a file of features has no baseline `{name}`")).at(self.path.display())),
            None => Ok(()),
        }
    }
}

impl Model for Stored {
    fn features(&self, query: &Query) -> Result<Features> {
        self.check(query)?;
        let part = match query.split {
            Split::All => return Ok(self.features.clone()),
            Split::Train => "train",
            Split::Test => "test",
        };
        let rows: Vec<usize> = self.features.parts.iter().enumerate().filter(|(_, of)| *of == part).map(|(row, _)| row).collect();
        if rows.is_empty() {
            return Err(Error::usage(format!("no row of this file belongs to the {part} part"))
                .at(self.path.display())
                .hint("the column `split` says which part a row belongs to; `ctk embed` writes it for data with parts"));
        }
        Ok(self.features.select(&rows))
    }

    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        self.check(query)?;
        match query.split {
            Split::All => Ok(Box::new(&self.features)),
            _ => Ok(Box::new(self.features(query)?)),
        }
    }

    fn formats(&self) -> &'static [&'static str] {
        &[]
    }

    fn export(&self, format: &str, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("features cannot be exported as `{format}`")).at(self.path.display()))
    }
}
