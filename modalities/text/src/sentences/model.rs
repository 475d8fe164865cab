//! Implements the model interface for encoders of sentences.

use ctk_core::eval::{Features, NOTES};
use ctk_core::modality::{self, Classifier, Query};
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::Invalid;
use ctk_texts::files::Encoding;
use ctk_texts::table::Texts;

use super::encoder::SentenceEncoder;

/// A trained encoder of sentences.
pub struct Model {
    /// The encoder.
    pub encoder: SentenceEncoder,
    /// Notes from opening it.
    pub notes: Vec<String>,
}

impl Model {
    /// The features of texts that have these names.
    fn rows<T: AsRef<str> + Sync>(&self, texts: &[T], names: Vec<String>, mut notes: Vec<String>) -> Result<Features> {
        let found = self.encoder.embed(texts)?;
        if found.cut > 0 {
            notes.push(format!(
                "texts longer than the encoder reads, so that their ends are left out: {} of {}",
                found.cut,
                texts.len()
            ));
        }
        if found.empty > 0 {
            notes.push(format!("texts without a token, so that their rows are zeros: {} of {}", found.empty, texts.len()));
        }
        let extras = if notes.is_empty() { Vec::new() } else { vec![(NOTES, notes.into())] };
        Ok(Features { rows: found.rows, width: self.encoder.width(), names, extras, ..Features::default() })
    }
}

impl modality::Model for Model {
    /// A row for each text of the data: lines, or a table with a column of texts.
    fn features(&self, query: &Query) -> Result<Features> {
        if let Some(name) = &query.baseline {
            return Err(Error::usage(format!("encoders of sentences have no baseline `{name}`")));
        }
        let path = query.data.as_ref().ok_or_else(|| {
            Error::usage("an encoder of sentences has no texts of its own")
                .hint("give --data: a file with a text on each line, or a table with a column `text`")
        })?;
        let texts = Texts::read(path, Encoding::default(), Invalid::Refuse)?;
        let (texts, origin) = texts.part(query.split).at(path.display())?;
        let mut features = self.rows(&texts.texts, texts.names, texts.notes)?;
        features.labels = texts.labels;
        features.classes = texts.classes;
        features.extras.extend(origin.map(|origin| ("split", origin.into())));
        Ok(features)
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        self.rows(texts, texts.to_vec(), Vec::new())
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(Error::usage("this encoder has no classifier of texts, so it cannot predict classes")
            .hint("`ctk eval text-classification RUN TRAIN.tsv TEST.tsv` fits one and judges it"))
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
