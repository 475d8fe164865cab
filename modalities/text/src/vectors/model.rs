//! A file of vectors behind the front door.

use std::path::Path;

use ctk_core::eval::{Features, Table};
use ctk_core::modality::{self, Query};
use ctk_core::{Error, Result};

use super::{WordVectors, write};

/// The formats that word vectors are written in.
pub const FORMATS: &[&str] = &["word2vec-text", "word2vec-binary", "glove", "safetensors"];

/// That a question is one which a table of words can answer.
///
/// # Errors
/// Other data, or a baseline, is asked for.
pub fn check(query: &Query) -> Result<()> {
    if let Some(data) = &query.data {
        return Err(Error::usage("word vectors are of their own vocabulary alone, not of other data")
            .at(data.display())
            .hint("leave out --data"));
    }
    match &query.baseline {
        Some(name) => Err(Error::usage(format!("word vectors have no baseline `{name}`"))),
        None => Ok(()),
    }
}

/// Word vectors from a file, as a model.
pub struct Model(pub WordVectors);

impl modality::Model for Model {
    /// A row a word, in the file's order.
    fn features(&self, query: &Query) -> Result<Features> {
        self.table(query)?.features()
    }

    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        check(query)?;
        Ok(Box::new(&self.0))
    }

    fn notes(&self) -> &[String] {
        self.0.notes()
    }

    fn formats(&self) -> &'static [&'static str] {
        FORMATS
    }

    fn export(&self, format: &str, out: &Path) -> Result<()> {
        write::as_format(&self.0, format, out)
    }
}
