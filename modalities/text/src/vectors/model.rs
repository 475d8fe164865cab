//! A file of vectors behind the front door.

use std::path::Path;

use ctk_core::Result;
use ctk_core::eval::{Features, Table};
use ctk_core::modality::{self, Query};

use super::{WordVectors, write};
use crate::corpus::{Invalid, Normalise, Reading, Tokens};
use crate::texts;

/// The formats that word vectors are written in.
pub const FORMATS: &[&str] = &["word2vec-text", "word2vec-binary", "glove", "static-embedding", "safetensors"];

/// Word vectors from a file, as a model.
pub struct Model(pub WordVectors);

impl modality::Model for Model {
    /// A row a word, in the file's order; of data, a row a text, whose words stand between white space.
    fn features(&self, query: &Query) -> Result<Features> {
        let reading = || {
            let (normalise, invalid) = (Normalise::None, Invalid::Refuse);
            Ok(Reading { tokens: Tokens::named("whitespace")?, lowercase: false, normalise, invalid })
        };
        texts::answer(self.0.features()?, query, reading, |_| None)
    }

    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        match (&query.data, &query.baseline) {
            (None, None) => Ok(Box::new(&self.0)),
            _ => Ok(Box::new(self.features(query)?)),
        }
    }

    fn baselines(&self) -> &'static [&'static str] {
        texts::BASELINES
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
