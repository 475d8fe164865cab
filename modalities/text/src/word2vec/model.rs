//! A trained table of word vectors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::checkpoint::Checkpoint;
use ctk_core::eval::Features;
use ctk_core::modality::{Model, Query};
use ctk_core::{Context, Error, Result};

use super::exports;
use super::parts::{Parts, mean};
use super::recipe::Word2VecRecipe;
use super::sparse::{HEAD, MODEL, VOCABULARY};
use crate::static_embedding;
use crate::subwords::Subwords;
use crate::texts;
use crate::vectors;
use crate::vocabulary::Vocabulary;

/// Word vectors from a checkpoint.
pub struct Vectors {
    checkpoint: Checkpoint,
    vocabulary: Vocabulary,
    // The words' rows, then those of their n-grams' buckets, if there are any.
    input: Tensor,
    subwords: Option<Subwords>,
}

impl Vectors {
    /// Reads a checkpoint.
    pub fn open(from: &Checkpoint) -> Result<Vectors> {
        let reader = from.reader();
        let tsv = String::from_utf8(reader.bytes(VOCABULARY)?).map_err(|_| Error::new("this is not UTF-8").at(VOCABULARY))?;
        let vocabulary = Vocabulary::from_tsv(&tsv)?;
        let subwords = Word2VecRecipe::parse(&from.recipe())?.subwords();
        let rows = vocabulary.len() + subwords.map_or(0, |subwords| subwords.buckets);
        let input = table(&mut reader.tensors(MODEL)?, "input", Some(rows)).at(MODEL)?;
        Ok(Vectors { checkpoint: from.clone(), vocabulary, input, subwords })
    }

    /// The words' vectors: their rows, or the means of the rows they are made of.
    fn all(&self) -> Result<Features> {
        let width = self.input.dim(1)?;
        let mut rows = self.input.flatten_all()?.to_vec1::<f32>()?;
        let words = self.vocabulary.words();
        if let Some(subwords) = &self.subwords {
            rows = Parts::new(subwords, words).means(&rows, width);
        }
        Ok(Features { rows, width, names: words.to_vec(), ..Features::default() })
    }

    /// The mean of a word's n-grams, which makes up for one that was never seen; none without subwords.
    fn unseen(&self) -> Result<impl Fn(&str) -> Option<Vec<f32>> + Sync + '_> {
        let (table, width) = match &self.subwords {
            Some(_) => (self.input.flatten_all()?.to_vec1::<f32>()?, self.input.dim(1)?),
            None => (Vec::new(), 0),
        };
        Ok(move |word: &str| {
            let mut ids = Vec::new();
            self.subwords?.ids(word, &mut ids);
            ids.iter_mut().for_each(|id| *id += self.vocabulary.len() as u32);
            (!ids.is_empty()).then(|| mean(&table, width, &ids))
        })
    }
}

/// A tensor of rows: `rows` of them, or any number.
fn table(tensors: &mut HashMap<String, Tensor>, name: &str, rows: Option<usize>) -> Result<Tensor> {
    let tensor = tensors.remove(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")))?;
    match (tensor.dims(), rows) {
        ([_, _], None) => Ok(tensor),
        ([found, _], Some(rows)) if *found == rows => Ok(tensor),
        (other, _) => Err(Error::new(format!("the tensor `{name}` has shape {other:?}, not {rows:?} rows"))),
    }
}

impl Model for Vectors {
    /// Without data, a row a word, in order of frequency: the published (input) vectors. Of data, a row a text. A word has no
    /// random views.
    fn features(&self, query: &Query) -> Result<Features> {
        texts::answer(self.all()?, query, || Word2VecRecipe::parse(&self.checkpoint.recipe())?.reading(), self.unseen()?)
    }

    fn baselines(&self) -> &'static [&'static str] {
        texts::BASELINES
    }

    fn formats(&self) -> &'static [&'static str] {
        &["word2vec-text", "word2vec-binary", "glove", "fasttext", "static-embedding", "safetensors"]
    }

    /// `fasttext` is a `.bin` file, `static-embedding` a folder for sentence-transformers. `safetensors` holds `input` and `output`,
    /// each of (rows, width), as they were trained: a row a word, then, with subwords, one a bucket; with hierarchical softmax an
    /// output row is an inner node of the tree. The words are in a `.tsv` beside it.
    fn export(&self, format: &str, out: &Path) -> Result<()> {
        match format {
            "fasttext" => {
                let output = table(&mut self.checkpoint.reader().tensors(HEAD)?, "output", None).at(HEAD)?;
                let (input, output) = (self.input.flatten_all()?.to_vec1::<f32>()?, output.flatten_all()?.to_vec1::<f32>()?);
                exports::fasttext(&Word2VecRecipe::parse(&self.checkpoint.recipe())?, &self.vocabulary, &input, output, out)
            }
            "static-embedding" => {
                let recipe = Word2VecRecipe::parse(&self.checkpoint.recipe())?;
                static_embedding::write(&self.all()?, recipe.reading()?, out)
            }
            "safetensors" => {
                let output = table(&mut self.checkpoint.reader().tensors(HEAD)?, "output", None).at(HEAD)?;
                let tensors = [("input", &self.input), ("output", &output)];
                let bytes = safetensors::serialize(tensors, None)?;
                ctk_core::files::write(out, &bytes)?;
                ctk_core::files::write(&out.with_extension("tsv"), self.vocabulary.to_tsv().as_bytes())
            }
            other => vectors::write::as_format(&self.all()?, other, out),
        }
    }
}
