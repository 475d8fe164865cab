//! word2vec's binary form: read once for its words and where rows lie.
//!
//! word2vec.c writes a line's end after each row, others do not; GoogleNews' vectors have none. So line ends before a word are
//! passed over. Where rows have them they also tell where a word ends that has spaces in it: only behind the right space are there a
//! row's values and then a line's end.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ctk_core::{Error, Result};
use ctk_texts::files::{Unpacked, open, unpacked};

use super::names::Names;
use super::values::Values;
use super::{Header, LONGEST_WORD, WordVectors, fits, not_finite};

/// A word with spaces in it has at most so many bytes behind the first.
const TAIL: usize = 1 << 10;

/// Lengths of values that trained vectors have; bytes that are no values seldom do.
const USUAL: std::ops::Range<f32> = 1e-15..1e10;

/// Reads a file that begins with `header`.
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
        // Without line ends nothing says where a row should end; values that are none of training's do, and begin as the rest of a word
        // or are followed by a word that is none.
        let unusual = rows.lines == Some(false) && !usual(rows.values.as_chunks::<4>().0);
        if (odd && (word || rows.word().iter().any(|b| *b < b' ' && *b != b'\t'))) || (unusual && rows.goes_on()) {
            return Err(Error::new("this row has values that no training makes, and they look like the rest of a word").at(here(begin)).hint(
                "have words spaces in them? Then only a line's end after each row tells where they end: write the vectors as text",
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
    // What follows the last row can be its line's end.
    let mut rest = Vec::new();
    rows.reader.take(16).read_to_end(&mut rest)?;
    if rest.iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(Error::new(format!("the file goes on after the {} words that its first line promises", header.words))
            .at(format!("byte {}", rows.at)));
    }
    let values = if packed { Values::Memory(memory) } else { Values::File { file: open(path)?, starts } };
    WordVectors::new(names, values, header.width, super::replaced(replaced))
}

/// The rows of a file, one after the other.
struct Rows<R> {
    reader: BufReader<R>,
    /// Bytes that were read.
    at: u64,
    // Whether rows end in a line's end, once one was read.
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
        // The first row tells whether rows end lines; where they do, one that does not has a word with spaces in it.
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

    /// Whether the word ends at a later space, behind which a row's values and a line's end lie; the row is read so then.
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

    /// Where the last row's values begin.
    fn start(&self) -> u64 {
        self.at - self.values.len() as u64
    }
}

/// Whether a row ends before byte `at` of what follows it: in a line's end and a word without one, or, if it is the last, in nothing.
fn ends(ahead: &[u8], at: usize, last: bool) -> bool {
    let newline = |b: &&u8| matches!(b, b'\n' | b'\r');
    let Some(rest) = ahead.get(at..).filter(|rest| !rest.is_empty()) else { return last && at == ahead.len() };
    let word = &rest[rest.iter().take_while(newline).count()..];
    word.len() < rest.len() && !word.iter().take_while(|&&b| b != b' ').any(|b| newline(&b))
}

/// Whether this, which follows `header`, is rows of words and values and no text.
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
        // Text has none of these.
        control |= values.iter().any(|&b| b < b'\t' || (0x0e..b' ').contains(&b)) || std::str::from_utf8(values).is_err();
        left = &left[start + space + 1 + bytes..];
        rows += 1;
    }
    let all = !whole || (rows == header.words && left.iter().all(u8::is_ascii_whitespace));
    rows > 0 && control && all
}

/// Whether all are finite: no exponent has every bit set. Without a branch a value.
pub fn finite(values: &[[u8; 4]]) -> bool {
    values.iter().fold(0, |most: u32, v| most.max(u32::from_le_bytes(*v) & 0x7fff_ffff)) < f32::INFINITY.to_bits()
}

/// Whether all are zero or of a length that trained values have.
fn usual(values: &[[u8; 4]]) -> bool {
    values.iter().map(|v| f32::from_le_bytes(*v).abs()).all(|v| v == 0.0 || USUAL.contains(&v))
}
