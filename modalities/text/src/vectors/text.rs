//! Vectors as text, a word and its values on each line, parsed on all threads.
//!
//! The last `width` fields of a line are its values. Everything before them is the word, including spaces (as in glove.840B) and Unicode
//! white space. Only ASCII spaces and tabs separate fields.

use std::collections::BTreeMap;
use std::path::Path;

use ctk_core::{Error, Result, memory};
use ctk_texts::files::{Chunk, Chunks};
use rayon::prelude::*;

use super::names::Names;
use super::values::Values;
use super::{Header, WordVectors, fits, fits_within, not_finite};

/// Pieces that are parsed at once, while the next ones are read.
const BATCH: usize = 8;

/// Rows of a file without a row count may take this fraction (one part in so many) of the memory that is free when reading begins.
const SHARE: u64 = 2;

/// Lines that are inspected to find the width.
const LINES: usize = 100;

/// Whether all lines after a first line are a word and `width` numbers.
pub fn holds(rest: &[u8], width: usize, whole: bool) -> bool {
    let mut lines: Vec<&[u8]> = rest.split(|&b| b == b'\n').take(LINES + 1).collect();
    if lines.len() > LINES || !whole {
        lines.pop();
    }
    let mut lines = lines.into_iter().map(trimmed).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| fields(line) > width && numbers(line) >= width)
}

/// Whether what follows a first line is text and not binary: the first row ends in `width` numbers.
pub fn begins(rest: &[u8], width: usize, whole: bool) -> bool {
    let ends = rest.iter().position(|&b| b == b'\n');
    let line = trimmed(&rest[..ends.unwrap_or(rest.len())]);
    if line.is_empty() {
        return whole;
    }
    match ends {
        Some(_) => numbers(line) >= width.min(fields(line).saturating_sub(1)).max(1) || spoilt(line, width),
        None if whole => numbers(line) >= 1,
        // For a row longer than what is inspected, the last field may be cut.
        None => fields(line) > 2 && line.iter().rposition(|b| separates(*b)).is_some_and(|at| numbers(&line[..at]) >= 8),
    }
}

/// Whether this is a text row with a mistake in it, which must not be taken for binary.
fn spoilt(line: &[u8], width: usize) -> bool {
    let plain = str::from_utf8(line).is_ok_and(|line| !line.contains(|c: char| c.is_control() && c != '\t'));
    let some = line.split(|&b| separates(b)).skip(1).any(|field| number(field).is_some());
    plain && some && width > 1 && fields(line) == width + 1
}

/// The width of lines without a header: how many numbers end most of the first lines. None if this is not such text.
pub fn width(head: &[u8], whole: bool) -> Option<usize> {
    let mut lines: Vec<&[u8]> = head.split(|&b| b == b'\n').take(LINES + 1).collect();
    // The last line may be cut.
    if lines.len() > LINES || !whole {
        lines.pop();
    }
    let mut counts = BTreeMap::new();
    for line in lines.into_iter().map(trimmed).filter(|line| !line.is_empty()) {
        // A line of only numbers begins with a word that is a number.
        *counts.entry(numbers(line).min(fields(line).saturating_sub(1))).or_insert(0) += 1;
    }
    // Of equally frequent widths the smallest: a word can end in a number, but no line lacks a value.
    let (width, _) = counts.into_iter().rev().max_by_key(|(_, count)| *count)?;
    (width > 0).then_some(width)
}

/// Reads rows of `width` values, after a header if there is one.
///
/// # Errors
/// A line with a mistake, another number of rows than the header says, or values that are not finite.
pub fn read(path: &Path, width: usize, header: Option<Header>) -> Result<WordVectors> {
    let (mut names, mut values) = (Names::default(), Vec::new());
    let mut chunks = Chunks::lines(path)?;
    if let Some(header) = header {
        // A value takes at least a digit and a separator.
        if !chunks.origin().packed {
            header.check(2 * width as u64 + 1, std::fs::metadata(path)?.len())?;
        }
        fits(header.words, width)?;
    }
    if let Some(header) = header.filter(|_| !chunks.origin().packed) {
        values.reserve_exact(header.words * width);
    }
    // The size of a compressed file is only known when it is unpacked.
    let most = memory::free().map_or(usize::MAX, |free| usize::try_from(free / SHARE).unwrap_or(usize::MAX));
    let mut next = || chunks.by_ref().take(BATCH).collect::<Result<Vec<Chunk>>>();
    let mut batch = next()?;
    let (mut lines, mut replaced) = (0, 0);
    let mut skip = header.is_some();
    while !batch.is_empty() {
        if lines == 0 {
            // A byte order mark has been replaced by spaces.
            let first = batch[0].bytes.iter().take_while(|b| **b == b' ').count().min(3);
            batch[0].bytes.drain(..first);
        }
        let parse = |(at, chunk): (usize, &Chunk)| Piece::parse(&chunk.bytes, width, skip && at == 0);
        let (pieces, following) = rayon::join(|| batch.par_iter().enumerate().map(parse).collect::<Vec<Piece>>(), &mut next);
        skip = false;
        for piece in pieces {
            if let Some(error) = piece.error {
                return Err(error.at(format!("line {}", lines + piece.lines)));
            }
            lines += piece.lines;
            replaced += piece.replaced;
            names.append(&piece.names);
            values.extend_from_slice(&piece.values);
        }
        if header.is_none_or(|header| names.len() > header.words) && values.len().saturating_mul(size_of::<f32>()) > most {
            fits_within(names.len(), width, most as u64)?;
        }
        batch = following?;
    }
    if let Some(header) = header.filter(|header| header.words != names.len()) {
        return Err(Error::new(format!("the first line says {} words, the file has {}", header.words, names.len()))
            .at(format!("line {lines}"))
            .hint("is the file cut short, or were lines added or taken without changing the first?"));
    }
    WordVectors::new(names, Values::Memory(values), width, super::replaced(replaced))
}

/// The rows of a piece, up to the first mistake.
#[derive(Default)]
struct Piece {
    names: Names,
    values: Vec<f32>,
    // The lines up to the one with the mistake.
    lines: usize,
    replaced: usize,
    error: Option<Error>,
}

impl Piece {
    fn parse(bytes: &[u8], width: usize, skip: bool) -> Piece {
        let mut piece = Piece::default();
        piece.values.reserve(bytes.len() / 8);
        for (at, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            piece.lines += 1;
            let line = trimmed(line);
            if line.is_empty() || (skip && at == 0) {
                continue;
            }
            if let Err(error) = piece.row(line, width) {
                piece.error = Some(error);
                break;
            }
        }
        piece
    }

    fn row(&mut self, line: &[u8], width: usize) -> Result<()> {
        let wrong =
            |what: String| Error::new(what).hint(format!("each row is a word and {width} numbers; is the file cut short?"));
        let start = self.values.len();
        self.values.resize(start + width, 0.0);
        let mut word = line;
        for at in (0..width).rev() {
            let Some((before, field)) = last(word) else {
                return Err(wrong(format!("this row has {} values, expected {width}", width - at - 1)));
            };
            self.values[start + at] = number(field).ok_or_else(|| {
                let (field, word) = (String::from_utf8_lossy(field), String::from_utf8_lossy(first(line)));
                wrong(format!("`{field}` is not a number, in the row of `{word}`"))
            })?;
            word = before;
        }
        if last(word).is_some_and(|(_, field)| looks_like_one(field)) {
            return Err(wrong(format!("this row has more than {width} values")));
        }
        self.replaced += usize::from(self.names.push(word));
        match self.values[start..].iter().find(|v| !v.is_finite()) {
            Some(value) => Err(not_finite(&String::from_utf8_lossy(word), *value)),
            None => Ok(()),
        }
    }
}

/// The last field, and what comes before it and its separators; none if nothing does.
fn last(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().rposition(|&b| separates(b))?;
    let before = trimmed(&line[..at]);
    (!before.is_empty()).then_some((before, &line[at + 1..]))
}

fn first(line: &[u8]) -> &[u8] {
    line.split(|&b| separates(b)).next().unwrap_or_default()
}

fn trimmed(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|&b| !separates(b) && b != b'\n' && b != b'\r').map_or(0, |at| at + 1);
    &line[..end]
}

fn separates(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn fields(line: &[u8]) -> usize {
    line.split(|&b| separates(b)).filter(|field| !field.is_empty()).count()
}

/// The number of fields at a line's end that are numbers.
fn numbers(line: &[u8]) -> usize {
    line.rsplit(|&b| separates(b)).filter(|field| !field.is_empty()).take_while(|field| number(field).is_some()).count()
}

fn number(field: &[u8]) -> Option<f32> {
    str::from_utf8(field).ok()?.parse().ok()
}

/// Whether the last part of a word looks like one value too many. `nan` and `infinity` are words.
pub(crate) fn looks_like_one(field: &[u8]) -> bool {
    number(field).is_some() && field.iter().any(u8::is_ascii_digit)
}
