//! The corpus: text files, read once into a stream of word numbers.
//!
//! Text is never whole in memory: pieces of a few megabytes are cut at line ends, turned into numbers on all threads and
//! merged in order, so the result does not depend on the number of threads. What stays is four bytes a word. A line is a
//! document: no window crosses its end.

mod files;
mod tokens;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use crate::vocabulary::Vocabulary;
use files::{Chunk, Chunks};

pub use files::find;
pub use tokens::{Invalid, Normalise, Tokens};

/// Words of a block at most. Blocks are the samples of training: small enough to balance threads, large enough to make a
/// random stream's start cheap. word2vec.c cuts its sentences at the same length.
pub const BLOCK: usize = 1000;

/// Marks the end of a line in a stream of word numbers.
pub const END: u32 = u32::MAX;

/// How text becomes words.
#[derive(Debug)]
pub struct Reading {
    /// What is a word.
    pub tokens: Tokens,
    /// Whether words are lower-cased.
    pub lowercase: bool,
    /// Which Unicode normal form text is brought to before it is cut.
    pub normalise: Normalise,
    /// What is done about bytes that are not UTF-8.
    pub invalid: Invalid,
}

impl Default for Reading {
    fn default() -> Self {
        Reading { tokens: Tokens::Whitespace, lowercase: false, normalise: Normalise::None, invalid: Invalid::Refuse }
    }
}

/// Which words are kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rarer words are dropped from the text.
    pub min_count: u64,
    /// Only so many words are kept, the most frequent ones.
    pub max_size: Option<usize>,
}

/// A corpus as numbers.
#[derive(Debug)]
pub struct Corpus {
    stream: Vec<u32>,
    blocks: Vec<Range<usize>>,
    vocabulary: Vocabulary,
    tokens: u64,
    notes: Vec<String>,
}

impl Corpus {
    /// Reads files, in order.
    ///
    /// # Errors
    /// A file that cannot be read or, under [`Invalid::Refuse`], is not UTF-8; no words at all; fewer than two words left by
    /// `limits`; no line with two of them.
    pub fn read(files: &[impl AsRef<Path>], reading: &Reading, limits: Limits) -> Result<Corpus> {
        let mut counter = Counter::default();
        let mut notes = Vec::new();
        let group = 4 * rayon::current_num_threads();
        for path in files {
            let path = path.as_ref();
            let mut chunks = Chunks::open(path)?;
            let mut replaced: Option<(u64, u64)> = None;
            loop {
                let group: Vec<Chunk> = chunks.by_ref().take(group).collect::<Result<_>>()?;
                if group.is_empty() {
                    break;
                }
                let counted: Vec<Result<Counted>> = group.par_iter().map(|chunk| Counted::new(chunk, reading, path)).collect();
                for part in counted {
                    let part = part?;
                    if let Some((at, count)) = part.replaced {
                        let (first, sum) = replaced.unwrap_or((at, 0));
                        replaced = Some((first, sum + count));
                    }
                    counter.merge(part);
                }
            }
            // The file's end ends its last line.
            counter.end_line();
            if let Some((at, count)) = replaced {
                let place = place(path, at, chunks.compressed());
                notes.push(format!("replaced {count} stretches of bytes that are not UTF-8, the first at {place}"));
            }
        }
        let place = match files {
            [only] => only.as_ref().display().to_string(),
            _ => format!("{} files", files.len()),
        };
        counter.finish(limits, notes).at(place)
    }

    /// The corpus of a text that is in memory already, one document a line, words between white space.
    pub fn from_text(text: &str, limits: Limits) -> Result<Corpus> {
        let mut counter = Counter::default();
        for line in text.lines() {
            line.split_whitespace().for_each(|word| counter.word(word));
            counter.end_line();
        }
        counter.finish(limits, Vec::new())
    }

    /// Words as they were read, the dropped ones included.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The words that were kept.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
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

    /// Block `index`: word numbers, with [`END`] after each line that ends inside it. At most [`BLOCK`] words.
    pub fn block(&self, index: usize) -> &[u32] {
        &self.stream[self.blocks[index].clone()]
    }
}

fn place(path: &Path, offset: u64, compressed: bool) -> String {
    let of = if compressed { " of the decompressed text" } else { "" };
    format!("{}: byte {offset}{of}", path.display())
}

/// One chunk's words under numbers of its own.
struct Counted {
    words: Words,
    stream: Vec<u32>,
    // Where the first replacement was made, and how many there were.
    replaced: Option<(u64, u64)>,
}

impl Counted {
    fn new(chunk: &Chunk, reading: &Reading, path: &Path) -> Result<Counted> {
        let mut replaced = None;
        let text = match std::str::from_utf8(&chunk.bytes) {
            Ok(text) => std::borrow::Cow::Borrowed(text),
            Err(e) => {
                let at = chunk.offset + e.valid_up_to() as u64;
                if reading.invalid == Invalid::Refuse {
                    let byte = chunk.bytes[e.valid_up_to()];
                    return Err(Error::new(format!("this is not UTF-8: byte 0x{byte:02x} belongs to no character"))
                        .at(place(path, at, chunk.compressed))
                        .hint("convert the file (iconv -t utf-8), or set data.invalid = \"replace\""));
                }
                let bad = chunk.bytes.utf8_chunks().filter(|c| !c.invalid().is_empty()).count() as u64;
                replaced = Some((at, bad));
                String::from_utf8_lossy(&chunk.bytes)
            }
        };
        let mut words = Words::default();
        let mut stream = Vec::with_capacity(text.len() / 5);
        for line in text.split_inclusive('\n') {
            reading.words(line, |word| stream.push(words.number(word)))?;
            // An end before any word counts: it may close the line of the chunk before.
            if line.ends_with('\n') && stream.last() != Some(&END) {
                stream.push(END);
            }
        }
        Ok(Counted { words, stream, replaced })
    }
}

/// Words by number of first appearance, with counts.
#[derive(Default)]
struct Words {
    numbers: HashMap<Box<str>, u32, Hash>,
    counts: Vec<u64>,
}

impl Words {
    fn number(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.numbers.get(word) {
            self.counts[number as usize] += 1;
            return number;
        }
        let number = self.counts.len() as u32;
        self.numbers.insert(word.into(), number);
        self.counts.push(1);
        number
    }
}

type Hash = std::hash::BuildHasherDefault<Fold>;

/// Folds eight bytes at a time into a product: the standard hasher takes half of the time of reading a corpus. Nothing
/// hangs on the order of a map here.
#[derive(Default)]
struct Fold(u64);

impl std::hash::Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.write_u64(u64::from_le_bytes(*eight));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, _: u8) {} // the terminator of a str: lengths are folded in above

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All words so far under provisional numbers.
#[derive(Default)]
struct Counter {
    words: Words,
    stream: Vec<u32>,
    tokens: u64,
}

impl Counter {
    fn word(&mut self, word: &str) {
        let number = self.words.number(word);
        self.stream.push(number);
        self.tokens += 1;
    }

    fn end_line(&mut self) {
        if self.stream.last().is_some_and(|&last| last != END) {
            self.stream.push(END);
        }
    }

    fn merge(&mut self, part: Counted) {
        let mut global = vec![0; part.words.counts.len()];
        for (word, local) in part.words.numbers {
            let next = self.words.counts.len() as u32;
            let number = *self.words.numbers.entry(word).or_insert(next);
            if number == next {
                self.words.counts.push(0);
            }
            self.words.counts[number as usize] += part.words.counts[local as usize];
            global[local as usize] = number;
        }
        for id in part.stream {
            match id {
                END => self.end_line(),
                word => {
                    self.stream.push(global[word as usize]);
                    self.tokens += 1;
                }
            }
        }
    }

    fn finish(self, limits: Limits, notes: Vec<String>) -> Result<Corpus> {
        let Counter { words, mut stream, tokens } = self;
        if tokens == 0 {
            return Err(
                Error::new("the corpus is empty: there is no word in it").hint("give text files with one document a line")
            );
        }
        let mut order: Vec<(Box<str>, u32)> = words.numbers.into_iter().collect();
        let different = order.len();
        order.retain(|(_, n)| words.counts[*n as usize] >= limits.min_count);
        // Ties by word: the order must not hang on where a word was first seen.
        order.sort_unstable_by(|(a, i), (b, j)| words.counts[*j as usize].cmp(&words.counts[*i as usize]).then_with(|| a.cmp(b)));
        order.truncate(limits.max_size.unwrap_or(usize::MAX));
        if order.len() < 2 {
            return Err(Error::new(format!(
                "the vocabulary has {} of the corpus's {different} different words: word2vec needs at least two",
                ["none", "one"][order.len()]
            ))
            .hint(format!("lower vocabulary.min_count (it is {}), or give more text", limits.min_count)));
        }
        let mut numbers = vec![END; words.counts.len()];
        order.iter().enumerate().for_each(|(new, (_, old))| numbers[*old as usize] = new as u32);
        // Dropped words close up, in place.
        let (mut to, mut line) = (0, 0);
        for from in 0..stream.len() {
            let word = stream[from];
            if word != END {
                let number = numbers[word as usize];
                if number != END {
                    stream[to] = number;
                    to += 1;
                }
            } else if to > line {
                stream[to] = END;
                to += 1;
                line = to;
            }
        }
        stream.truncate(to);
        let blocks = blocks(&stream);
        if !stream.split(|&id| id == END).any(|line| line.len() > 1) {
            return Err(Error::new("no line of the corpus holds two words of the vocabulary: there is no pair to learn from")
                .hint(
                    "a line is a document: windows do not cross its end. Put whole texts on lines, or lower vocabulary.min_count",
                ));
        }
        let counts = order.iter().map(|(_, old)| words.counts[*old as usize]).collect();
        let vocabulary = Vocabulary::new(order.into_iter().map(|(word, _)| word.into()).collect(), counts);
        Ok(Corpus { stream, blocks, vocabulary, tokens, notes })
    }
}

/// Packs whole short lines into blocks and cuts lines that are longer than one.
fn blocks(stream: &[u32]) -> Vec<Range<usize>> {
    let mut blocks = Vec::new();
    let (mut start, mut words, mut at) = (0, 0, 0);
    while at < stream.len() {
        let line = stream[at..].iter().position(|&id| id == END).unwrap_or(stream.len() - at);
        let line = at..at + line;
        if words + line.len() > BLOCK {
            if words > 0 {
                blocks.push(start..at);
                words = 0;
            }
            while at + BLOCK < line.end {
                blocks.push(at..at + BLOCK);
                at += BLOCK;
            }
            start = at;
        }
        words += line.end - at;
        at = (line.end + 1).min(stream.len());
    }
    if words > 0 {
        blocks.push(start..stream.len());
    }
    blocks
}

#[cfg(test)]
mod tests;
