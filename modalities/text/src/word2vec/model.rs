//! A trained table of word vectors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::checkpoint::Checkpoint;
use ctk_core::eval::Features;
use ctk_core::modality::{Model, Query};
use ctk_core::{Context, Error, Result};

use super::parts::{Parts, mean};
use super::recipe::Word2VecRecipe;
use super::sparse::{HEAD, MODEL, VOCABULARY};
use super::{exports, files};
use crate::static_embedding;
use crate::subwords::Subwords;
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

    /// Vectors of `words`, one a line of a file; of words that were never seen, by their n-grams alone.
    fn of_words(&self, path: &Path) -> Result<Features> {
        let all = self.all()?;
        let places: HashMap<&str, usize> = all.names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
        let width = all.width;
        let table = self.input.flatten_all()?.to_vec1::<f32>()?;
        let (mut rows, mut names, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let text = std::fs::read_to_string(path).at(path.display())?;
        for (number, word) in text.lines().map(str::trim).enumerate().filter(|(_, word)| !word.is_empty()) {
            match (places.get(word), &self.subwords) {
                (Some(place), _) => rows.extend_from_slice(&all.rows[place * width..][..width]),
                (None, Some(subwords)) => {
                    ids.clear();
                    subwords.ids(word, &mut ids);
                    ids.iter_mut().for_each(|id| *id += self.vocabulary.len() as u32);
                    rows.extend(mean(&table, width, &ids));
                }
                (None, None) => {
                    return Err(Error::usage(format!("`{word}` is not in the vocabulary"))
                        .at(format!("{}:{}", path.display(), number + 1))
                        .hint("a run with encoder.subwords has vectors of words that it never saw"));
                }
            }
            names.push(word.to_string());
        }
        Ok(Features { rows, width, names, ..Features::default() })
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
    /// A row a word, in order of frequency: the published (input) vectors; or a row for each word of a file, one a line. A word has
    /// no random views.
    fn features(&self, query: &Query) -> Result<Features> {
        match (&query.baseline, &query.data) {
            (Some(name), _) => Err(Error::usage(format!("word2vec has no baseline `{name}`"))),
            (None, Some(path)) => self.of_words(path),
            (None, None) => self.all(),
        }
    }

    fn formats(&self) -> &'static [&'static str] {
        &["word2vec-text", "word2vec-binary", "fasttext", "static-embedding", "safetensors"]
    }

    /// `fasttext` is a `.bin` file, `static-embedding` a folder for sentence-transformers. `safetensors` holds `input` and `output`, each of (rows, width), as they were trained: a row a word, then, with subwords, one
    /// a bucket; with hierarchical softmax an output row is an inner node of the tree. The words are in a `.tsv` beside it.
    fn export(&self, format: &str, out: &Path) -> Result<()> {
        match format {
            "word2vec-text" => files::write_text(&self.all()?, out),
            "word2vec-binary" => files::write_binary(&self.all()?, out),
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
            other => Err(Error::usage(format!("`{other}` is not a format of word2vec"))),
        }
    }
}
