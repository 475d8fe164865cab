//! Texts to learn sentence embeddings from: single texts, texts with classes, pairs, pairs with scores, and triplets.
//!
//! [`recipe`] is how they are written in a recipe. [`SentencesDataRecipe::open`](recipe::SentencesDataRecipe::open) reads all files into
//! [`Sentences`]: [`Pairs`] to train on and, if wanted, others to measure on. [`cut`] makes two views of a text that has no pair.
//! [`mining`] says what may become a negative of a pair, and [`write`] writes samples.

mod arena;
mod columns;
pub mod cut;
pub mod mining;
mod open;
pub mod recipe;
pub(crate) mod rows;
mod split;
mod weights;
pub mod write;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use ctk_core::data::dataset::Dataset;
use ctk_core::data::distinct::{Arranged, Distinct};
use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::arena::Arena;
use self::weights::Weights;

/// What a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A text.
    Texts,
    /// A text and its class.
    Labelled,
    /// An anchor and its positive.
    Pairs,
    /// Two texts, and how similar they are.
    Scored,
    /// An anchor, its positive, and one negative or more.
    Triplets,
}

impl Kind {
    /// Samples of this kind as messages name them.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Texts => "texts",
            Kind::Labelled => "texts with classes",
            Kind::Pairs => "pairs",
            Kind::Scored => "pairs with scores",
            Kind::Triplets => "triplets",
        }
    }

    /// The kind as a recipe names it.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Texts => "texts",
            Kind::Labelled => "labelled",
            Kind::Pairs => "pairs",
            Kind::Scored => "scored",
            Kind::Triplets => "triplets",
        }
    }
}

/// The data of a run.
pub struct Sentences {
    /// The samples to train on.
    pub train: Pairs,
    /// Samples to measure on.
    pub dev: Option<Pairs>,
    /// What was chosen, skipped and counted while the files were read.
    pub notes: Vec<String>,
}

/// Samples of one kind, each with the same number of texts.
///
/// A sample that an epoch meets several times has several indices, so there may be more indices ([`Dataset::len`]) than
/// [`samples`](Pairs::samples), and an epoch has [`Dataset::per_epoch`] of them.
pub struct Pairs {
    kind: Kind,
    texts: Arc<Arena>,
    /// Number of texts of a sample.
    columns: usize,
    /// Numbers of the texts of all samples.
    cells: Vec<u32>,
    scores: Option<Vec<f32>>,
    labels: Option<Vec<u32>>,
    classes: Vec<String>,
    /// Put before the texts of each column.
    prompts: Vec<String>,
    origins: Origins,
    weights: Weights,
    /// Whether conflicting samples go into different batches, and what is needed for that.
    apart: bool,
    distinct: OnceLock<Distinct>,
}

/// Where samples come from.
#[derive(Clone, Default)]
struct Origins {
    /// For each file its path, what a row is called, and the end of its samples.
    files: Vec<(PathBuf, &'static str, usize)>,
    /// The row of each sample.
    rows: Vec<u32>,
}

impl Pairs {
    /// What a sample is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of texts of a sample: the anchor, the positive and the negatives.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Number of samples, however often an epoch meets them.
    pub fn samples(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// Number of different texts of the whole data, of which these samples may be a part.
    pub fn different_texts(&self) -> usize {
        self.texts.len()
    }

    /// Names of the classes by number, sorted; empty if there are none.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The text of sample `index` in `column`, without its prompt.
    pub fn text(&self, index: usize, column: usize) -> &str {
        self.texts.text(self.row(index)[column])
    }

    /// The texts of all samples, without prompts, one for each time that a sample has it.
    pub fn all_texts(&self) -> impl Iterator<Item = &str> {
        self.cells.iter().map(|text| self.texts.text(*text))
    }

    /// What is put before the texts of `column`.
    pub fn prompt(&self, column: usize) -> &str {
        &self.prompts[column]
    }

    fn row(&self, index: usize) -> &[u32] {
        &self.cells[self.range(index)]
    }

    fn range(&self, index: usize) -> Range<usize> {
        let start = self.weights.sample(index) * self.columns;
        start..start + self.columns
    }
}

impl Dataset for Pairs {
    /// The texts of the columns, each behind its prompt.
    type Sample = Vec<String>;

    fn len(&self) -> usize {
        self.weights.len()
    }

    fn get(&self, index: usize) -> Result<Vec<String>> {
        if index >= self.len() {
            return Err(Error::new(format!("there is no sample {index}: there are {}", self.len())));
        }
        Ok((0..self.columns).map(|column| [self.prompt(column), self.text(index, column)].concat()).collect())
    }

    /// File and line, or row.
    fn name(&self, index: usize) -> String {
        let sample = self.weights.sample(index);
        let file = self.origins.files.partition_point(|(.., end)| *end <= sample);
        match (self.origins.files.get(file), self.origins.rows.get(sample)) {
            (Some((path, "line", _)), Some(row)) => format!("{}:{row}", path.display()),
            (Some((path, word, _)), Some(row)) => format!("{}: {word} {row}", path.display()),
            _ => format!("sample {sample}"),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref()?.get(self.weights.sample(index)).copied()
    }

    fn score(&self, index: usize) -> Option<f32> {
        self.scores.as_ref()?.get(self.weights.sample(index)).copied()
    }

    /// The number of the text in column `view`. All views of a single text show the same.
    fn content(&self, index: usize, view: usize) -> Option<u32> {
        let row = self.row(index);
        if self.columns == 1 { row.first().copied() } else { row.get(view).copied() }
    }

    fn per_epoch(&self) -> usize {
        self.weights.per_epoch()
    }

    /// Leaves out what the weights leave out of the epoch, and puts samples that conflict into different batches.
    fn arrange(&self, order: &mut Vec<u32>, batch: usize, epoch: usize) -> Arranged {
        self.weights.select(order, epoch);
        // In other kinds a batch's other samples are no negatives.
        if !self.apart || !matches!(self.kind, Kind::Texts | Kind::Pairs | Kind::Triplets) {
            return Arranged::default();
        }
        let distinct = self.distinct.get_or_init(|| Distinct::new(&self.cells, self.columns, self.texts.len()));
        distinct.arrange(&self.cells, order, batch, |index| self.weights.sample(index as usize))
    }
}

#[cfg(test)]
mod tests;
