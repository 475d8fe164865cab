//! A fastText model behind the front door.

use std::path::Path;

use ctk_core::Result;
use ctk_core::eval::{Features, Table};
use ctk_core::modality::{Model, Query};

use super::FastText;
use crate::corpus::Reading;
use crate::texts;
use crate::vectors;

impl Model for FastText {
    /// A row a word, in the file's order; of data, a row a text, whose words stand between white space.
    fn features(&self, query: &Query) -> Result<Features> {
        let unseen = |word: &str| self.vectors.unseen(word);
        texts::answer(self.vectors.features()?, query, || Ok(Reading::default()), unseen)
    }

    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        match (&query.data, &query.baseline) {
            (None, None) => Ok(Box::new(&self.vectors)),
            _ => Ok(Box::new(self.features(query)?)),
        }
    }

    fn baselines(&self) -> &'static [&'static str] {
        texts::BASELINES
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn formats(&self) -> &'static [&'static str] {
        vectors::FORMATS
    }

    fn export(&self, format: &str, out: &Path) -> Result<()> {
        vectors::write::as_format(&self.vectors, format, out)
    }
}
