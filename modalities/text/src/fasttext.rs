//! fastText's models, `.bin` files, read and written (Bojanowski et al. 2017; fastText's `FastText::saveModel`).
//!
//! All numbers are little-endian. A file is
//!
//! - its magic number and version, and how it was trained ([`Args`]): twelve i32 and a f64;
//! - the dictionary: entries, words, labels (i32), words of the text, pruned n-grams (i64); then an entry each: its bytes, a zero,
//!   its count (i64), and 0 for a word or 1 for a label (i8);
//! - whether the table is quantised (a byte), its rows and width (i64), and its f32: words, then the buckets of n-grams;
//! - the same for the output table.

mod read;
mod write;

use ctk_texts::vocabulary::Vocabulary;

use crate::subwords::SubwordVectors;

pub(crate) use read::is_old;
pub use read::open;
pub use write::write;

/// The file's first four bytes.
pub const MAGIC: i32 = 793_712_314;

/// The version that fastText has written since 2017.
const VERSION: i32 = 12;

/// A model that was read.
#[derive(Debug)]
pub struct FastText {
    /// How it was trained.
    pub args: Args,
    /// Its words and their counts, and what they are made of.
    pub vectors: SubwordVectors,
    /// How often each word was seen.
    pub counts: Vec<u64>,
    /// Labels of a classifier and how often each was seen, by falling count; none otherwise.
    pub labels: Vec<(String, u64)>,
    /// What happened on the way and should be known.
    pub notes: Vec<String>,
}

/// How a model was trained, as its file says (fastText's `Args`).
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// Values a vector.
    pub width: i32,
    /// Words to each side at most.
    pub window: i32,
    /// Passes over the text.
    pub epochs: i32,
    /// Rarer words were dropped.
    pub min_count: i32,
    /// Negatives a pair.
    pub negatives: i32,
    /// Longest sequence of words that a classifier hashes.
    pub word_ngrams: i32,
    /// What was minimised.
    pub loss: Loss,
    /// What was trained.
    pub kind: ModelKind,
    /// Rows that n-grams share.
    pub buckets: i32,
    /// Characters of the shortest n-gram.
    pub min: i32,
    /// Characters of the longest; 0: words are not cut.
    pub max: i32,
    /// Words between two changes of the rate.
    pub rate_every: i32,
    /// The threshold of subsampling.
    pub subsample: f64,
}

/// What was minimised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Hierarchical softmax.
    HierarchicalSoftmax = 1,
    /// Negative sampling.
    NegativeSampling,
    /// Softmax over the labels.
    Softmax,
    /// A logistic loss for each label.
    OneVsAll,
}

/// What was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Word vectors, by CBOW.
    Cbow = 1,
    /// Word vectors, by skip-gram.
    SkipGram,
    /// A classifier of texts.
    Supervised,
}

/// A model to be written.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// How it was trained.
    pub args: Args,
    /// Its words, by falling count.
    pub vocabulary: &'a Vocabulary,
    /// The words' rows, then those of the buckets: (words + buckets, width).
    pub input: &'a [f32],
    /// The rows that words were contrasted with: (words, width). With hierarchical softmax those of the tree's inner nodes, as
    /// fastText has them: where a path turns right, the label is 1; the last row is not used.
    pub output: &'a [f32],
}

#[cfg(test)]
mod tests;
