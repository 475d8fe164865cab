//! A trained table of word vectors.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use ctk_core::eval::{Features, Table};
use ctk_core::modality::{Classifier, Model, Query};
use ctk_core::store::checkpoint::{Checkpoint, Reader};
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::{Found, Reading};
use ctk_texts::recipe::PhrasesRecipe;
use ctk_texts::vocabulary::Vocabulary;

use super::exports;
use super::recipe::Word2VecRecipe;
use super::sparse::{HEAD, MODEL, PHRASES, VOCABULARY, table};
use crate::static_embedding;
use crate::subwords::SubwordVectors;
use crate::texts;
use crate::vectors;

/// Word vectors from a checkpoint.
pub struct Vectors {
    checkpoint: Checkpoint,
    recipe: Word2VecRecipe,
    vocabulary: Vocabulary,
    vectors: SubwordVectors,
    phrases: Found,
}

impl Vectors {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// A file that is missing or damaged, or a recipe of another modality.
    pub fn open(from: &Checkpoint) -> Result<Vectors> {
        let reader = from.reader();
        let vocabulary = Vocabulary::from_bytes(reader.bytes(VOCABULARY)?)?;
        let recipe = Word2VecRecipe::parse(&from.recipe())?;
        // The words' rows, then those of the n-grams' buckets, if there are any.
        let subwords = recipe.subwords().unwrap_or_default();
        let input = table(&reader, MODEL, "input")?;
        let (width, input) = (input.dim(1)?, input.flatten_all()?.to_vec1()?);
        let vectors = SubwordVectors::new(vocabulary.words().to_vec(), input, width, subwords).at(MODEL)?;
        let phrases = phrases_of(&reader, &recipe, &vocabulary)?;
        Ok(Vectors { checkpoint: from.clone(), recipe, vocabulary, vectors, phrases })
    }

    /// How the run's text was read, including its phrases.
    ///
    /// # Errors
    /// A tokenizer's file that cannot be read.
    pub fn reading(&self) -> Result<Reading> {
        Ok(Reading { phrases: self.phrases.clone(), ..self.recipe.data.reading()? })
    }

    /// The output table: (rows, width).
    fn output(&self) -> Result<Tensor> {
        table(&self.checkpoint.reader(), HEAD, "output")
    }
}

/// The phrases of a checkpoint's text, in a run of `recipe`. A run from before they were stored has those that its spelling shows.
///
/// # Errors
/// A damaged file.
pub(super) fn phrases_of(reader: &Reader, recipe: &Word2VecRecipe, vocabulary: &Vocabulary) -> Result<Found> {
    let PhrasesRecipe { passes, joiner, .. } = &recipe.vocabulary.phrases;
    match reader.has(PHRASES) {
        true => Found::from_bytes(&reader.bytes(PHRASES)?),
        false if *passes > 0 => Ok(Found::by_spelling(vocabulary.words().iter().map(String::as_str), joiner, *passes)),
        false => Ok(Found::default()),
    }
}

impl Model for Vectors {
    /// Without data, a row for each word in order of frequency: the published (input) vectors. For data, a row for each text. A word has no
    /// random views.
    fn features(&self, query: &Query) -> Result<Features> {
        texts::answer(&self.vectors, query, || self.reading())
    }

    /// With subwords this also has vectors of words that were never seen.
    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        texts::answer_table(&self.vectors, query, || self.reading())
    }

    fn texts(&self, texts: &[String]) -> Result<Features> {
        texts::of_texts(&self.vectors, texts, &self.reading()?)
    }

    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(texts::no_classifier())
    }

    fn baselines(&self) -> &'static [&'static str] {
        texts::BASELINES
    }

    fn formats(&self) -> &'static [&'static str] {
        &["word2vec-text", "word2vec-binary", "glove", "fasttext", "static-embedding", "safetensors"]
    }

    fn exported(&self, format: &str, out: &Path) -> Vec<PathBuf> {
        vectors::write::files(format, out)
    }

    /// `fasttext` is a `.bin` file, `static-embedding` a folder for sentence-transformers. `safetensors` holds `input` and `output`, each
    /// of (rows, width), as they were trained: a row for each word and, with subwords, one for each bucket; with hierarchical softmax an
    /// output row is an inner node of the tree. The words are in a `.tsv` beside it.
    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        match format {
            "fasttext" => {
                let output = self.output()?.flatten_all()?.to_vec1()?;
                exports::fasttext(&self.recipe, &self.vocabulary, self.vectors.input(), output, out)?;
                let absent = self.vocabulary.counts().iter().filter(|count| **count == 0).count();
                let note = format!("words that the run's text lacks, which are written as if they occurred once: {absent}");
                Ok(Vec::from_iter((absent > 0).then_some(note)))
            }
            "static-embedding" => static_embedding::write(&self.vectors, self.reading()?, out),
            "safetensors" => {
                let beside = vectors::write::words_beside(out)?;
                if let Some(at) = self.vectors.input().iter().position(|value| !value.is_finite()) {
                    return Err(Error::new(format!("a value in row {} is not a finite number", at / self.vectors.width() + 1))
                        .hint("training has diverged: use an earlier checkpoint"));
                }
                let rows = |values: &[f32]| {
                    Tensor::from_slice(values, (values.len() / self.vectors.width(), self.vectors.width()), &Device::Cpu)
                };
                let tensors = [("input", rows(self.vectors.input())?), ("output", self.output()?)];
                // Metadata about the rows after the words', so that words can be composed of them again.
                let parts = self.recipe.subwords().map(|subwords| vectors::parts_of(&subwords));
                let bytes = safetensors::serialize(tensors, parts)?;
                ctk_core::store::files::write(out, &bytes)?;
                ctk_core::store::files::write(&beside, self.vocabulary.to_tsv().as_bytes())?;
                Ok(Vec::new())
            }
            other => vectors::write::as_format(&self.vectors, other, out),
        }
    }
}
