//! Word vectors in files, ctk's and other people's: word2vec's text (`.txt`, fastText's `.vec`) and binary form, GloVe's text,
//! safetensors; the text and binary forms packed by gzip, zstd, bzip2 or xz, too.
//!
//! What a file is is found by looking into it. Binary vectors stay in their file: opening it reads it once, for the words and to
//! see that every value is a number; what stays in memory is words and where their rows lie. Rows are read again where they are
//! asked for, by reads at an offset: the operating system keeps the file in its cache, as it would for a map, and a file that is
//! cut short meanwhile is an error and no crash. Text is parsed on all threads, into memory.

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

/// What a file of vectors can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// word2vec's text, also fastText's `.vec`: `words width` on the first line, then a word and its values a line.
    Text(Header),
    /// GloVe's text: the same without the first line. Words may have spaces in them.
    Glove {
        /// Values a line.
        width: usize,
    },
    /// word2vec's binary form: the first line as text, then a word, a space and little-endian f32 a row, with or without a line's
    /// end after it.
    Binary(Header),
    /// A safetensors file: `input` with its words in a `.tsv` beside it (`ctk export`), or `features` (`ctk embed`).
    Safetensors,
    /// fastText's own binary model: [`fasttext`] opens it.
    FastText,
}

/// What the first line says is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Rows.
    pub words: usize,
    /// Values a row.
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

/// Bytes of a file's beginning that are looked at: some lines of any width that is in use.
const HEAD: usize = 1 << 20;

/// Wider rows are damage: no one's vectors are.
const WIDEST: usize = 1 << 20;

/// Bytes that no word reaches, in any format: a damaged file must not be read whole into one.
pub(crate) const LONGEST_WORD: usize = 16 << 20;

/// Opens a file of vectors; none if it is no such file.
///
/// # Errors
/// A file that cannot be read; one that is cut short, has more or fewer rows than it says, values that are no finite numbers, or
/// absurd sizes: with the line or byte, and the word.
pub fn open(path: &Path) -> Result<Option<WordVectors>> {
    let Some(format) = look(path)? else { return Ok(None) };
    let opened = match format {
        Format::Text(header) => text::read(path, header.width, Some(header)),
        Format::Glove { width } => text::read(path, width, None),
        Format::Binary(header) => binary::read(path, header),
        Format::Safetensors => tensors::read(path),
        Format::FastText => Err(Error::usage("a fastText model is no plain table of vectors").hint("`fasttext::open` reads it")),
    };
    opened.map(Some).at(path.display())
}

/// What kind of vectors a file holds, by its first bytes; none if it holds none.
///
/// # Errors
/// A file that cannot be read; a first line that promises more than any file has.
pub fn look(path: &Path) -> Result<Option<Format>> {
    let mut head = Vec::new();
    unpacked(path)?.reader.take(HEAD as u64).read_to_end(&mut head).at(path.display())?;
    kind(&head, head.len() < HEAD).at(path.display())
}

/// [`look`] into a file that begins with `head`, or is no more than it.
fn kind(head: &[u8], whole: bool) -> Result<Option<Format>> {
    if head.starts_with(&fasttext::MAGIC.to_le_bytes()) || fasttext::is_old(head) {
        return Ok(Some(Format::FastText));
    }
    if head.get(8) == Some(&b'{') && head[..8].iter().skip(4).all(|&b| b == 0) {
        return Ok(Some(Format::Safetensors));
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let Some((header, rest)) = header(head)? else { return Ok(text::width(head, whole).map(|width| Format::Glove { width })) };
    // Bytes of values can look like a line of text: all lines, or else all rows, say what the file is.
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
    let absurd = || Error::new(format!("the first line promises {words} words of {width} values"));
    let hint = "no file holds so many: is it damaged?";
    let (words, width) = words.parse().ok().zip(width.parse().ok()).ok_or_else(|| absurd().hint(hint))?;
    match width {
        0 => Err(absurd().hint("a word has at least one value")),
        WIDEST.. => Err(absurd().hint(hint)),
        _ => Ok(Some((Header { words, width }, &head[end + 1..]))),
    }
}

impl Header {
    /// That `bytes` can hold what is promised, at `least` bytes a row: before anything is allocated for it.
    fn check(&self, least: u64, bytes: u64) -> Result<()> {
        match (self.words as u64).checked_mul(least) {
            Some(needed) if needed <= bytes => Ok(()),
            _ => Err(Error::new(format!(
                "the first line promises {} words of {} values, more than {bytes} bytes can hold",
                self.words, self.width
            ))
            .hint("is the file cut short? Fetch or write it again")),
        }
    }
}

impl WordVectors {
    /// Puts together what was read; of words that stand twice the first counts.
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

    /// What happened on the way and should be known.
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

/// That a table of so many rows fits into the memory that is free, before it is read into it.
pub(crate) fn fits(rows: usize, width: usize) -> Result<()> {
    fits_within(rows, width, memory::free().unwrap_or(u64::MAX))
}

/// [`fits`], of `free` bytes.
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

/// What is said of words that are not UTF-8.
pub(crate) fn replaced(words: usize) -> Vec<String> {
    (words > 0)
        .then(|| format!("words that are not UTF-8, in which \u{fffd} stands for what cannot be read: {words}"))
        .into_iter()
        .collect()
}

/// The error of a value that is none.
fn not_finite(word: &str, value: f32) -> Error {
    Error::new(format!("a value of `{word}` is {value}"))
        .hint("vectors are finite numbers: the training that made them went wrong")
}

#[cfg(test)]
mod tests;
