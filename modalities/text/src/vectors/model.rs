//! Implements the model interface for word vectors from a file.

use std::path::{Path, PathBuf};

use ctk_core::Result;
use ctk_core::eval::{Features, Table};
use ctk_core::modality::{self, Classifier, Query};
use ctk_texts::corpus::Reading;

use super::write;
use crate::texts;

/// The formats that word vectors are written in.
pub const FORMATS: &[&str] = &["word2vec-text", "word2vec-binary", "glove", "static-embedding", "safetensors"];

/// Word vectors from any file, as a model.
pub struct Model<T> {
    /// Its words and their rows.
    pub table: T,
    /// Notes about the reading.
    pub notes: Vec<String>,
}

impl<T: Table> modality::Model for Model<T> {
    /// Without data, a row for each word in the file's order; for data, a row for each text, whose words are separated by white space.
    fn features(&self, query: &Query) -> Result<Features> {
        texts::answer(&self.table, query, || Ok(Reading::default()))
    }

    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        texts::answer_table(&self.table, query, || Ok(Reading::default()))
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        texts::of_texts(&self.table, texts, &Reading::default())
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(texts::no_classifier())
    }

    fn baselines(&self) -> &'static [&'static str] {
        texts::BASELINES
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn formats(&self) -> &'static [&'static str] {
        FORMATS
    }

    fn exported(&self, format: &str, out: &Path) -> Vec<PathBuf> {
        write::files(format, out)
    }

    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        write::as_format(&self.table, format, out)
    }
}
