//! The corpus: text files, read once into a stream of word numbers.
//!
//! Text is never whole in memory: pieces of a few megabytes are cut at line ends, turned into numbers on all threads and
//! joined in order, so the result does not depend on the number of threads. What stays is four bytes a word, in a file if that
//! does not fit into memory. A line is a document: no window crosses its end.

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
pub use tokens::{Invalid, Normalise, Tokens};

/// Words of a block at most. Blocks are the samples of training: small enough to balance threads, large enough to make a
/// random stream's start cheap. word2vec.c cuts its sentences at the same length.
pub const BLOCK: usize = 1000;

/// Marks the end of a line in a stream of word numbers.
pub const END: u32 = u32::MAX;

/// How text becomes words.
#[derive(Debug, Default)]
pub struct Reading {
    /// How bytes become characters.
    pub encoding: Encoding,
    /// What is a word.
    pub tokens: Tokens,
    /// Whether words are lower-cased.
    pub lowercase: bool,
    /// Which Unicode normal form text is brought to before it is cut.
    pub normalise: Normalise,
    /// What is done about bytes that are no character.
    pub invalid: Invalid,
    /// Which neighbours are one word, where a text was read before.
    pub phrases: Found,
    /// What should be known of all this.
    pub notes: Vec<String>,
}

/// Which words are kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rarer words are dropped from the text.
    pub min_count: u64,
    /// Only so many words are kept, the most frequent ones.
    pub max_size: Option<usize>,
}

/// Different words that are counted in memory at once, where nothing else is asked for: some 40 bytes each.
pub const IN_MEMORY: usize = 3_500_000;

/// Which words a corpus has: more than [`Limits`], from which it can be made.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// Which words are kept.
    pub limits: Limits,
    /// Words that are kept however rare, or absent, they are.
    pub known: &'a [String],
    /// Which neighbours become one word.
    pub phrases: Option<Phrases>,
    /// Different words (and pairs of them) that are counted in memory at once, by all threads; more go through files in the room's
    /// folder, which changes nothing.
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
    /// Reads files, in order.
    ///
    /// # Errors
    /// A file that cannot be read or, under [`Invalid::Refuse`], is not UTF-8; no words at all; fewer than two words left by
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

    /// The corpus of a text that is in memory already, one document a line, words between white space.
    pub fn from_text<'a>(text: &str, selection: impl Into<Selection<'a>>) -> Result<Corpus> {
        pieces::number_text(text, &selection.into())
    }

    /// Words as they were read, the dropped ones included.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The words that were kept.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The phrases that were found, to be joined in texts that are read later.
    pub fn phrases(&self) -> &Found {
        &self.phrases
    }

    /// What happened on the way and should be known.
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

    /// Block `index`: word numbers, with [`END`] after each line that ends inside it. At most [`BLOCK`] words. `buffer` is room for
    /// it, where it is not in memory.
    pub fn block<'a>(&'a self, index: usize, buffer: &'a mut Vec<u32>) -> Result<&'a [u32]> {
        self.stream.get(self.blocks[index].clone(), buffer)
    }

    /// Whether the text did not fit into memory.
    pub fn in_file(&self) -> bool {
        self.stream.in_file()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
