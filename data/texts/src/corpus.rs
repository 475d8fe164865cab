//! The corpus: text files, read once into a stream of word numbers.
//!
//! Text is never whole in memory. Pieces of a few megabytes are cut at line ends, turned into numbers on all threads, and joined in order,
//! so that the result does not depend on the number of threads. The stream takes four bytes a word, and goes to a file if it does not fit
//! into memory. A line is a document: no window crosses its end.

mod blocks;
mod numbering;
mod numbers;
mod phrases;
mod pieces;
mod tally;
mod tokenizer;
mod tokens;
mod words;

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ctk_core::Result;

use crate::files::Encoding;
use crate::vocabulary::Vocabulary;
use numbers::Numbers;

pub use numbers::Room;
pub use phrases::{Found, Phrases};
pub use tokenizer::read as read_tokenizer;
pub use tokens::{Invalid, Normalise, Tokens};

/// The largest number of words in a block. Blocks are the samples of training: small enough to balance threads, large enough that starting
/// a random stream costs little. word2vec.c cuts its sentences at the same length.
pub const BLOCK: usize = 1000;

/// Marks the end of a line in a stream of word numbers.
pub const END: u32 = u32::MAX;

/// How text becomes words.
#[derive(Debug, Default)]
pub struct Reading {
    /// The encoding of the bytes.
    pub encoding: Encoding,
    /// How text is cut into words.
    pub tokens: Tokens,
    /// Whether words are lower-cased.
    pub lowercase: bool,
    /// The Unicode normal form that text is converted to before it is cut.
    pub normalise: Normalise,
    /// What to do about bytes that are not characters.
    pub invalid: Invalid,
    /// Phrases to join, if an earlier reading of the text has found them.
    pub phrases: Found,
    /// Notes about these settings.
    pub notes: Vec<String>,
}

/// Limits of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rarer words are dropped from the text.
    pub min_count: u64,
    /// Only so many of the most frequent words are kept.
    pub max_size: Option<usize>,
}

/// The default number of different words that are counted in memory at once, some 40 bytes each.
pub const IN_MEMORY: usize = 3_500_000;

/// How the vocabulary of a corpus is chosen. Can be made from [`Limits`].
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// Limits of the vocabulary.
    pub limits: Limits,
    /// Words that are kept even if they are rare or absent.
    pub known: &'a [String],
    /// Which neighbouring words become phrases.
    pub phrases: Option<Phrases>,
    /// Different words (and pairs of words) that are counted in memory at once, by all threads together. More are counted through files in
    /// the room's folder, with the same result.
    pub in_memory: usize,
}

impl From<Limits> for Selection<'_> {
    fn from(limits: Limits) -> Self {
        Selection { limits, known: &[], phrases: None, in_memory: IN_MEMORY }
    }
}

/// A corpus as numbers.
#[derive(Debug)]
pub struct Corpus {
    stream: Numbers,
    blocks: Vec<Range<usize>>,
    vocabulary: Vocabulary,
    tokens: u64,
    phrases: Found,
    notes: Vec<String>,
}

impl Corpus {
    /// Reads `files` in order.
    ///
    /// # Errors
    /// A file that cannot be read or, with [`Invalid::Refuse`], is not UTF-8; no words at all; fewer than two words left after `selection`;
    /// no line with two of them.
    /// `selection`; no line with two of them.
    pub fn read<'a>(
        files: &[impl AsRef<Path>],
        reading: &Reading,
        selection: impl Into<Selection<'a>>,
        room: &mut Room,
    ) -> Result<Corpus> {
        let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
        pieces::number(&files, reading, &selection.into(), room)
    }

    /// The corpus of a text in memory, with one document on each line and words between white space.
    ///
    /// # Errors
    /// No words, or no line with two words of the vocabulary.
    pub fn from_text<'a>(text: &str, selection: impl Into<Selection<'a>>) -> Result<Corpus> {
        pieces::number_text(text, &selection.into())
    }

    /// The number of words read, dropped ones included.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The words that were kept.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The phrases that were found, so that later texts can be joined alike.
    pub fn phrases(&self) -> &Found {
        &self.phrases
    }

    /// Notes about the reading.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Block `index`: word numbers, with [`END`] after each line that ends in it. At most [`BLOCK`] words. `buffer` is used if the corpus
    /// is in a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn block<'a>(&'a self, index: usize, buffer: &'a mut Vec<u32>) -> Result<&'a [u32]> {
        self.stream.get(self.blocks[index].clone(), buffer)
    }

    /// Whether the corpus is in a file because it did not fit into memory.
    pub fn in_file(&self) -> bool {
        self.stream.in_file()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
