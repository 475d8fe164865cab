//! word2vec's binary format, read once for its words and row positions.
//!
//! word2vec.c writes a line end after each row, other programs do not; GoogleNews' vectors have none. So line ends before a word are
//! skipped. If rows have line ends, these also show where a word with spaces ends: only after the right space are there a row's values
//! followed by a line end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ctk_core::{Error, Result};
use ctk_texts::files::{Unpacked, open, unpacked};

use super::names::Names;
use super::values::Values;
use super::{Header, LONGEST_WORD, WordVectors, fits, not_finite};

/// The largest number of bytes after the first space of a word with spaces.
const TAIL: usize = 1 << 10;

/// The usual range of values in trained vectors; other bytes read as floats are rarely in it.
const USUAL: std::ops::Range<f32> = 1e-15..1e10;

/// Reads a file that begins with `header`.
///
/// # Errors
/// A file that is cut short or damaged, or values that are not finite.
pub fn read(path: &Path, header: Header) -> Result<WordVectors> {
    let Unpacked { reader, packed, length } = unpacked(path)?;
    let bytes = header.width * size_of::<f32>();
    match (packed, length) {
        (false, Some(length)) => header.check(bytes as u64 + 1, length)?,
        _ => fits(header.words, header.width)?,
    }
    let mut rows =
        Rows { reader: BufReader::with_capacity(1 << 20, reader), at: 0, lines: None, word: Vec::new(), values: vec![0; bytes] };
    rows.at = rows.reader.read_until(b'\n', &mut rows.word)? as u64;

    let (mut names, mut starts, mut memory) = (Names::default(), Vec::new(), Vec::new());
    let (mut replaced, mut odd) = (0, false);
    for number in 1..=header.words {
        let here = |at: u64| format!("byte {at}, row {number} of {}", header.words);
        let begin = rows.at;
        rows.next(number == header.words).map_err(|e| e.at(here(begin)))?;
        let word = names.push(rows.word());
        replaced += usize::from(word);
        // Without line ends, nothing shows where a row should end. So values outside the usual range that look like the rest of a word, or
        // are followed by something that is not a word, are refused.
        let unusual = rows.lines == Some(false) && !usual(rows.values.as_chunks::<4>().0);
        if (odd && (word || rows.word().iter().any(|b| *b < b' ' && *b != b'\t'))) || (unusual && rows.goes_on()) {
            return Err(Error::new("this row has values that training never produces, and they look like the rest of a word").at(here(begin)).hint(
                "do words contain spaces? Then only a line end after each row shows where they end: write the vectors as text",
            ));
        }
        let values = rows.values.as_chunks::<4>().0;
        if !finite(values) {
            let value = values.iter().map(|v| f32::from_le_bytes(*v)).find(|v| !v.is_finite()).unwrap_or(f32::NAN);
            return Err(not_finite(names.get(names.len() - 1), value).at(here(rows.start())));
        }
        odd = unusual;
        match packed {
            true => memory.extend(values.iter().map(|v| f32::from_le_bytes(*v))),
            false => starts.push(rows.start()),
        }
    }
    // The bytes after the last row may be its line end.
    let mut rest = Vec::new();
    rows.reader.take(16).read_to_end(&mut rest)?;
    if rest.iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(Error::new(format!("the file continues after the {} words that its first line announces", header.words))
            .at(format!("byte {}", rows.at)));
    }
    let values = if packed { Values::Memory(memory) } else { Values::File { file: open(path)?, starts } };
    WordVectors::new(names, values, header.width, super::replaced(replaced))
}

/// Reads the rows of a file one after the other.
struct Rows<R> {
    reader: BufReader<R>,
    /// Bytes that were read.
    at: u64,
    // Whether rows end with a line end; known after the first row.
    lines: Option<bool>,
    // The last row's word, with the line ends before it.
    word: Vec<u8>,
    values: Vec<u8>,
}

impl<R: Read> Rows<R> {
    /// Reads a row.
    fn next(&mut self, last: bool) -> Result<()> {
        self.word.clear();
        self.at += self.reader.by_ref().take(LONGEST_WORD as u64).read_until(b' ', &mut self.word)? as u64;
        if self.word.pop() != Some(b' ') {
            let what =
                if self.word.len() < LONGEST_WORD - 1 { "the file ends before its last row" } else { "there is no word here" };
            return Err(Error::new(what).hint("is the file cut short, or are its rows of another width?"));
        }
        if self.word().is_empty() {
            return Err(Error::new("this row has no word"));
        }
        self.reader.read_exact(&mut self.values).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::new("the file ends inside a row").hint("is the file cut short?"),
            _ => Error::from(e),
        })?;
        self.at += self.values.len() as u64;
        // The first row shows whether rows end with a line end. If they do, a row that does not has a word with spaces.
        if self.lines == Some(false) {
            return Ok(());
        }
        let ended = ends(self.reader.fill_buf()?, 0, last) || self.longer(last)?;
        if !ended && self.lines == Some(true) {
            return Err(Error::new("the rows before end in a line's end, and this one does not")
                .hint("is the file cut short, or are its rows of another width?"));
        }
        self.lines = Some(ended);
        Ok(())
    }

    /// Tries whether the word ends at a later space, after which a row's values and a line end follow; if so, the row is read in this way.
    fn longer(&mut self, last: bool) -> Result<bool> {
        let ahead = self.reader.fill_buf()?;
        let from = self.values.len().min(TAIL).min(ahead.len());
        for space in (0..from).filter(|&at| self.values[at] == b' ') {
            let tail = &self.values[..space];
            let word = std::str::from_utf8(tail).is_ok_and(|tail| !tail.contains(char::is_control));
            if !(word && space < ahead.len() && ends(ahead, space + 1, last)) {
                continue;
            }
            let values = [&self.values[space + 1..], &ahead[..space + 1]].concat();
            if finite(values.as_chunks::<4>().0) {
                self.word.push(b' ');
                self.word.extend_from_slice(tail);
                self.values = values;
                self.reader.consume(space + 1);
                self.at += space as u64 + 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the last row's values begin like the rest of a word and a space.
    fn goes_on(&self) -> bool {
        let tail = self.values.iter().take(TAIL).position(|&b| b == b' ').map(|at| &self.values[..at]);
        tail.is_some_and(|tail| {
            !tail.is_empty() && std::str::from_utf8(tail).is_ok_and(|tail| tail.chars().all(|c| !c.is_control()))
        })
    }

    /// The last row's word.
    fn word(&self) -> &[u8] {
        let start = self.word.iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
        &self.word[start..]
    }

    /// The position of the last row's values.
    fn start(&self) -> u64 {
        self.at - self.values.len() as u64
    }
}

/// Whether a row ends before byte `at` of what follows it: with a line end and a word without one or, for the last row, with nothing.
fn ends(ahead: &[u8], at: usize, last: bool) -> bool {
    let newline = |b: &&u8| matches!(b, b'\n' | b'\r');
    let Some(rest) = ahead.get(at..).filter(|rest| !rest.is_empty()) else { return last && at == ahead.len() };
    let word = &rest[rest.iter().take_while(newline).count()..];
    word.len() < rest.len() && !word.iter().take_while(|&&b| b != b' ').any(|b| newline(&b))
}

/// Whether these bytes, which follow `header`, are binary rows and not text.
pub fn holds(rest: &[u8], header: Header, whole: bool) -> bool {
    let (mut left, mut rows, mut control) = (rest, 0, false);
    let bytes = header.width * size_of::<f32>();
    while rows < header.words {
        let start = left.iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
        let Some(space) = left[start..].iter().position(|&b| b == b' ') else { break };
        let Some(values) = left.get(start + space + 1..start + space + 1 + bytes) else { break };
        if space == 0 || !finite(values.as_chunks::<4>().0) {
            return false;
        }
        // Text contains none of these.
        control |= values.iter().any(|&b| b < b'\t' || (0x0e..b' ').contains(&b)) || std::str::from_utf8(values).is_err();
        left = &left[start + space + 1 + bytes..];
        rows += 1;
    }
    let all = !whole || (rows == header.words && left.iter().all(u8::is_ascii_whitespace));
    rows > 0 && control && all
}

/// Whether all values are finite: no exponent has every bit set. Written without a branch for each value.
pub fn finite(values: &[[u8; 4]]) -> bool {
    values.iter().fold(0, |most: u32, v| most.max(u32::from_le_bytes(*v) & 0x7fff_ffff)) < f32::INFINITY.to_bits()
}

/// Whether all values are zero or in the usual range.
fn usual(values: &[[u8; 4]]) -> bool {
    values.iter().map(|v| f32::from_le_bytes(*v).abs()).all(|v| v == 0.0 || USUAL.contains(&v))
}
