//! A trained table of word vectors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::checkpoint::Checkpoint;
use ctk_core::eval::Features;
use ctk_core::modality::{Model, Query};
use ctk_core::{Context, Error, Result};

use super::sparse::{HEAD, MODEL, VOCABULARY};
use crate::vectors;
use crate::vocabulary::Vocabulary;

/// Word vectors from a checkpoint.
pub struct Vectors {
    checkpoint: Checkpoint,
    vocabulary: Vocabulary,
    input: Tensor,
}

impl Vectors {
    /// Reads a checkpoint.
    pub fn open(from: &Checkpoint) -> Result<Vectors> {
        let reader = from.reader();
        let tsv = String::from_utf8(reader.bytes(VOCABULARY)?).map_err(|_| Error::new("this is not UTF-8").at(VOCABULARY))?;
        let vocabulary = Vocabulary::from_tsv(&tsv)?;
        let input = table(&mut reader.tensors(MODEL)?, "input", vocabulary.len()).at(MODEL)?;
        Ok(Vectors { checkpoint: from.clone(), vocabulary, input })
    }

    fn all(&self) -> Result<Features> {
        let width = self.input.dim(1)?;
        let rows = self.input.flatten_all()?.to_vec1::<f32>()?;
        Ok(Features { rows, width, names: self.vocabulary.words().to_vec(), ..Features::default() })
    }
}

fn table(tensors: &mut HashMap<String, Tensor>, name: &str, words: usize) -> Result<Tensor> {
    let tensor = tensors.remove(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))?;
    match tensor.dims() {
        [rows, _] if *rows == words => Ok(tensor),
        other => Err(Error::new(format!("the tensor `{name}` has shape {other:?}, the vocabulary {words} words"))),
    }
}

impl Model for Vectors {
    /// A row a word, in order of frequency: the published (input) vectors. A word has no random views.
    fn features(&self, query: &Query) -> Result<Features> {
        vectors::check(query)?;
        self.all()
    }

    fn formats(&self) -> &'static [&'static str] {
        vectors::FORMATS
    }

    /// `safetensors` holds `input` and `output`, (words, width) each, and has the words in a `.tsv` beside it.
    fn export(&self, format: &str, out: &Path) -> Result<()> {
        match format {
            "safetensors" => {
                let output = table(&mut self.checkpoint.reader().tensors(HEAD)?, "output", self.vocabulary.len()).at(HEAD)?;
                let tensors = [("input", &self.input), ("output", &output)];
                let bytes = safetensors::serialize(tensors, None)?;
                ctk_core::files::write(out, &bytes)?;
                ctk_core::files::write(&out.with_extension("tsv"), self.vocabulary.to_tsv().as_bytes())
            }
            other => vectors::write::as_format(&self.all()?, other, out),
        }
    }
}
