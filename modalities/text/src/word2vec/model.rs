//! A trained table of word vectors.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::checkpoint::Checkpoint;
use ctk_core::eval::Features;
use ctk_core::modality::{Model, Query, Split};
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

use super::files;
use super::parts::{Parts, mean};
use super::recipe::Word2VecRecipe;
use super::sparse::{HEAD, MODEL, VOCABULARY};
use crate::subwords::Subwords;
use crate::texts::Texts;
use crate::vocabulary::Vocabulary;

/// The baseline of [`random`].
const RANDOM: &str = "random";

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

    /// A row a text of a file: see [`Texts`]. Words that were never seen have their n-grams' mean, if `grams`.
    fn of_texts(&self, path: &Path, split: Split, words: &Features, grams: bool) -> Result<Features> {
        let reading = Word2VecRecipe::parse(&self.checkpoint.recipe())?.reading()?;
        let table = match &self.subwords {
            Some(_) if grams => self.input.flatten_all()?.to_vec1::<f32>()?,
            _ => Vec::new(),
        };
        let unseen = |word: &str| {
            let subwords = self.subwords.filter(|_| grams)?;
            let mut ids = Vec::new();
            subwords.ids(word, &mut ids);
            ids.iter_mut().for_each(|id| *id += self.vocabulary.len() as u32);
            (!ids.is_empty()).then(|| mean(&table, words.width, &ids))
        };
        let (texts, origin) = Texts::read(path, reading.invalid)?.part(split).at(path.display())?;
        let mut features = texts.features(words, &reading, unseen).at(path.display())?;
        features.told.extend(origin.map(|origin| ("split", origin.into())));
        Ok(features)
    }
}

/// Random directions in place of the rows', with the rows' lengths: what a classifier makes of words alone.
fn random(features: &mut Features, seed: u64) {
    let key = Key::new(seed).of("random baseline");
    features.rows.par_chunks_exact_mut(features.width).enumerate().for_each(|(row, values)| {
        let length = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let wanted = length(values);
        StandardNormal.sample_iter(key.at(row as u64).rng()).zip(values.iter_mut()).for_each(|(drawn, v): (f32, _)| *v = drawn);
        let scale = (wanted / length(values).max(f64::MIN_POSITIVE)) as f32;
        values.iter_mut().for_each(|v| *v *= scale);
    });
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
        let mut words = self.all()?;
        match query.baseline.as_deref() {
            None => {}
            Some(RANDOM) => random(&mut words, query.seed),
            Some(name) => return Err(Error::usage(format!("word2vec has no baseline `{name}`"))),
        }
        match &query.data {
            Some(path) => self.of_texts(path, query.split, &words, query.baseline.is_none()),
            None => Ok(words),
        }
    }

    fn baselines(&self) -> &'static [&'static str] {
        &[RANDOM]
    }

    fn formats(&self) -> &'static [&'static str] {
        &["word2vec-text", "word2vec-binary", "safetensors"]
    }

    /// `safetensors` holds `input` and `output`, each of (rows, width), as they were trained: a row a word, then, with subwords, one
    /// a bucket; with hierarchical softmax an output row is an inner node of the tree. The words are in a `.tsv` beside it.
    fn export(&self, format: &str, out: &Path) -> Result<()> {
        match format {
            "word2vec-text" => files::write_text(&self.all()?, out),
            "word2vec-binary" => files::write_binary(&self.all()?, out),
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
