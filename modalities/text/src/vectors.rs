//! Files of word vectors, of ctk and of other programs: word2vec's text (`.txt`, fastText's `.vec`) and binary formats, GloVe's text,
//! safetensors; text and binary also compressed by gzip, zstd, bzip2 or xz.
//!
//! The format is recognised by the file's content. Binary vectors stay in their file. Opening it reads it once, for the words and to check
//! that every value is finite; words and row positions stay in memory. Rows are read again by position when they are needed. The operating
//! system caches the file as it would for a memory map, but a file that is cut short meanwhile gives an error and not a crash. Text is
//! parsed on all threads into memory.

mod binary;
mod model;
mod names;
mod tensors;
mod text;
mod values;
pub mod write;

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use ctk_core::eval::Table;
use ctk_core::{Context, Error, Result, memory};
use ctk_texts::files::unpacked;

use crate::fasttext;

pub use model::{FORMATS, Model};
use names::Names;
pub(crate) use tensors::{open_parts, parts_of};
use values::Values;

/// The formats of vector files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// word2vec's text, also fastText's `.vec`: `words width` on the first line, then a word and its values on each line.
    Text(Header),
    /// GloVe's text: the same without the first line. Words may contain spaces.
    Glove {
        /// Values on a line.
        width: usize,
    },
    /// word2vec's binary format: the first line as text; then for each row a word, a space and little-endian f32, with or without a line
    /// end.
    Binary(Header),
    /// A safetensors file: `input` with its words in a `.tsv` beside it (from `ctk export`), or `features` (from `ctk embed`).
    Safetensors,
    /// fastText's own binary model; [`fasttext`] opens it.
    FastText,
}

/// The sizes on the first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows.
    pub words: usize,
    /// Values in a row.
    pub width: usize,
}

/// Word vectors from a file.
#[derive(Debug)]
pub struct WordVectors {
    names: Names,
    values: Values,
    width: usize,
    notes: Vec<String>,
}

/// Bytes of a file's beginning that are inspected: some lines of any usual width.
const HEAD: usize = 1 << 20;

/// Wider rows are a sign of damage; no vectors are so wide.
const WIDEST: usize = 1 << 20;

/// No word in any format is so long, in bytes: a damaged file must not be read whole as one word.
pub(crate) const LONGEST_WORD: usize = 16 << 20;

/// Opens a file of vectors; none if it is not such a file.
///
/// # Errors
/// A file that cannot be read; one that is cut short, has another number of rows than it says, values that are not finite, or absurd sizes.
/// The error has the line or byte, and the word.
pub fn open(path: &Path) -> Result<Option<WordVectors>> {
    let Some(format) = look(path)? else { return Ok(None) };
    let opened = match format {
        Format::Text(header) => text::read(path, header.width, Some(header)),
        Format::Glove { width } => text::read(path, width, None),
        Format::Binary(header) => binary::read(path, header),
        Format::Safetensors => tensors::read(path),
        Format::FastText => {
            Err(Error::usage("a fastText model is not a plain table of vectors").hint("`fasttext::open` reads it"))
        }
    };
    opened.map(Some).at(path.display())
}

/// Recognises the format of a file by its first bytes; none if it does not hold vectors.
///
/// # Errors
/// A file that cannot be read, or a first line with absurd sizes.
pub fn look(path: &Path) -> Result<Option<Format>> {
    let mut head = Vec::new();
    unpacked(path)?.reader.take(HEAD as u64).read_to_end(&mut head).at(path.display())?;
    kind(&head, head.len() < HEAD).at(path.display())
}

/// [`look`] for a file that begins with `head`, or consists of it.
fn kind(head: &[u8], whole: bool) -> Result<Option<Format>> {
    if head.starts_with(&fasttext::MAGIC.to_le_bytes()) || fasttext::is_old(head) {
        return Ok(Some(Format::FastText));
    }
    if head.get(8) == Some(&b'{') && head[..8].iter().skip(4).all(|&b| b == 0) {
        return Ok(Some(Format::Safetensors));
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let Some((header, rest)) = header(head)? else { return Ok(text::width(head, whole).map(|width| Format::Glove { width })) };
    // Bytes of values can look like a line of text, so all lines, or else all rows, are checked.
    let text =
        text::holds(rest, header.width, whole) || !binary::holds(rest, header, whole) && text::begins(rest, header.width, whole);
    Ok(Some(if text { Format::Text(header) } else { Format::Binary(header) }))
}

/// The first line, if it is `words width`, and what follows it.
fn header(head: &[u8]) -> Result<Option<(Header, &[u8])>> {
    let Some(end) = head.iter().take(64).position(|&b| b == b'\n') else { return Ok(None) };
    let fields: Vec<&str> = str::from_utf8(&head[..end]).unwrap_or_default().split_ascii_whitespace().collect();
    let [words, width] = fields[..] else { return Ok(None) };
    if ![words, width].iter().all(|field| field.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(None);
    }
    let absurd = || Error::new(format!("the first line announces {words} words of {width} values"));
    let hint = "no file holds so many: is it damaged?";
    let (words, width) = words.parse().ok().zip(width.parse().ok()).ok_or_else(|| absurd().hint(hint))?;
    match width {
        0 => Err(absurd().hint("a word has at least one value")),
        WIDEST.. => Err(absurd().hint(hint)),
        _ => Ok(Some((Header { words, width }, &head[end + 1..]))),
    }
}

impl Header {
    /// Checks that `bytes` can hold what the header says, at `least` bytes a row, before anything is allocated.
    fn check(&self, least: u64, bytes: u64) -> Result<()> {
        match (self.words as u64).checked_mul(least) {
            Some(needed) if needed <= bytes => Ok(()),
            _ => Err(Error::new(format!(
                "the first line announces {} words of {} values, more than {bytes} bytes can hold",
                self.words, self.width
            ))
            .hint("is the file cut short? Fetch or write it again")),
        }
    }
}

impl WordVectors {
    /// Combines what was read; of repeated words the first counts.
    fn new(names: Names, values: Values, width: usize, mut notes: Vec<String>) -> Result<WordVectors> {
        if names.is_empty() {
            return Err(Error::new("there is no row in this file"));
        }
        let twice = names.repeated();
        let mut vectors = WordVectors { names, values, width, notes: Vec::new() };
        if let Some(first) = twice.first() {
            let example = vectors.names.get(*first).to_string();
            notes.push(format!("rows of words that stand before are left out: {} (`{example}` is the first)", twice.len()));
            vectors.names = vectors.names.without(&twice);
            vectors.values.remove(&twice, width);
        }
        vectors.notes = notes;
        Ok(vectors)
    }

    /// Notes about the reading.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

impl Table for WordVectors {
    fn len(&self) -> usize {
        self.names.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn name(&self, row: usize) -> &str {
        self.names.get(row)
    }

    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        self.values.get(range, self.width, room)
    }
}

/// Checks that a table of so many rows fits into free memory, before it is read.
pub(crate) fn fits(rows: usize, width: usize) -> Result<()> {
    fits_within(rows, width, memory::free().unwrap_or(u64::MAX))
}

/// [`fits`] for `free` bytes.
fn fits_within(rows: usize, width: usize, free: u64) -> Result<()> {
    match (rows as u64).checked_mul(width as u64).and_then(|values| values.checked_mul(4)) {
        Some(needed) if needed <= free => Ok(()),
        needed => {
            let needed = needed.map_or("more than any machine has".to_string(), |bytes| format!("{bytes} bytes"));
            Err(Error::new(format!("{rows} rows of {width} values take {needed} of memory, of which {free} bytes are free"))
                .hint("word2vec's binary form stays in its file, where it is not packed: give the vectors so"))
        }
    }
}

/// The error for a word that is too long for every format of word vectors.
pub(crate) fn too_long(word: &str) -> Error {
    let start: String = word.chars().take(40).collect();
    Error::new(format!("the word `{}…` has {} bytes, and no format may have {LONGEST_WORD}", start.escape_debug(), word.len()))
        .hint("a text without white space is one word: choose another data.tokens")
}

/// A note about words that are not UTF-8.
pub(crate) fn replaced(words: usize) -> Vec<String> {
    (words > 0)
        .then(|| format!("words that are not UTF-8, in which \u{fffd} stands for what cannot be read: {words}"))
        .into_iter()
        .collect()
}

/// The error for a value that is not finite.
fn not_finite(word: &str, value: f32) -> Error {
    Error::new(format!("a value of `{word}` is {value}"))
        .hint("vectors are finite numbers: the training that made them went wrong")
}

#[cfg(test)]
mod tests;
