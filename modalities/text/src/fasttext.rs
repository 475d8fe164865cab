//! Reads and writes fastText's models, `.bin` files (Bojanowski et al. 2017; fastText's `FastText::saveModel`).
//!
//! All numbers are little-endian. A file contains
//!
//! - its magic number and version, and the training arguments ([`Args`]): twelve i32 and an f64;
//! - the dictionary: numbers of entries, words, labels (i32), words of the text, pruned n-grams (i64); then for each entry its bytes, a
//!   zero, its count (i64), and 0 for a word or 1 for a label (i8);
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
    /// The training arguments.
    pub args: Args,
    /// Its words, and the table that their vectors are made from.
    pub vectors: SubwordVectors,
    /// The count of each word.
    pub counts: Vec<u64>,
    /// A classifier's labels and their counts, by falling count; empty for other models.
    pub labels: Vec<(String, u64)>,
    /// Notes about the reading.
    pub notes: Vec<String>,
}

/// The training arguments of a model, as its file has them (fastText's `Args`).
#[derive(Clone, Debug, PartialEq)]
pub struct Args {
    /// Values in a vector.
    pub width: i32,
    /// Window: the largest number of words to each side.
    pub window: i32,
    /// Epochs: passes over the text.
    pub epochs: i32,
    /// Smallest count of a word; rarer words were dropped.
    pub min_count: i32,
    /// Negatives for each pair.
    pub negatives: i32,
    /// Length of the longest sequence of words that a classifier hashes.
    pub word_ngrams: i32,
    /// The loss.
    pub loss: Loss,
    /// The kind of model.
    pub kind: ModelKind,
    /// Number of rows that n-grams share by their hash.
    pub buckets: i32,
    /// Length of the shortest n-gram, in characters.
    pub min: i32,
    /// Length of the longest n-gram, in characters; 0: words are not cut into n-grams.
    pub max: i32,
    /// Words between two changes of the learning rate.
    pub rate_every: i32,
    /// Threshold of subsampling.
    pub subsample: f64,
}

/// The loss.
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

/// The kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Word vectors, by CBOW.
    Cbow = 1,
    /// Word vectors, by skip-gram.
    SkipGram,
    /// A classifier of texts.
    Supervised,
}

/// A model to write.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// The training arguments.
    pub args: Args,
    /// Its words, by falling count.
    pub vocabulary: &'a Vocabulary,
    /// The words' rows, then those of the buckets: (words + buckets, width).
    pub input: &'a [f32],
    /// The output table: (words, width). With hierarchical softmax its rows are those of the tree's inner nodes in fastText's form: where a
    /// path turns right, the label is 1, and the last row is not used.
    pub output: &'a [f32],
}

#[cfg(test)]
mod tests;
