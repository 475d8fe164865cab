//! word2vec's binary form: read once for its words and where rows lie.
//!
//! word2vec.c writes a line's end after each row, others do not; GoogleNews' vectors have none. So line ends before a word are
//! passed over.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use ctk_core::{Context, Error, Result};
use ctk_texts::files::decompressed;

use super::names::Names;
use super::values::Values;
use super::{Header, WordVectors, not_finite};

/// No word is longer than this; a damaged file must not be read whole into one.
const LONGEST: usize = 1 << 16;

/// Reads a file that begins with `header`.
pub fn read(path: &Path, header: Header) -> Result<WordVectors> {
    let (reader, compressed) = decompressed(path)?;
    let mut reader = BufReader::with_capacity(1 << 20, reader);
    let mut line = Vec::new();
    let mut at = reader.read_until(b'\n', &mut line)? as u64;
    let bytes = header.width * size_of::<f32>();
    let file = File::open(path)?;
    if !compressed {
        header.check(bytes as u64 + 1, file.metadata()?.len())?;
    }

    let (mut names, mut starts, mut memory) = (Names::default(), Vec::new(), Vec::new());
    let (mut word, mut row, mut replaced) = (Vec::new(), vec![0; bytes], 0);
    for number in 1..=header.words {
        let here = |at: u64| format!("byte {at}, row {number} of {}", header.words);
        word.clear();
        at += reader.by_ref().take(LONGEST as u64).read_until(b' ', &mut word).at(here(at))? as u64;
        if word.pop() != Some(b' ') {
            let what = if word.len() < LONGEST - 1 { "the file ends before its last row" } else { "there is no word here" };
            return Err(Error::new(what).at(here(at)).hint("is the file cut short, or are its rows of another width?"));
        }
        let start = word.iter().take_while(|&&b| b == b'\n' || b == b'\r').count();
        if start == word.len() {
            return Err(Error::new("this row has no word").at(here(at)));
        }
        replaced += usize::from(names.push(&word[start..]));
        reader.read_exact(&mut row).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new("the file ends inside a row").at(here(at)).hint("is the file cut short?")
            }
            _ => Error::from(e).at(here(at)),
        })?;
        let values = row.as_chunks::<4>().0;
        if !finite(values) {
            let value = values.iter().map(|v| f32::from_le_bytes(*v)).find(|v| !v.is_finite()).unwrap_or(f32::NAN);
            return Err(not_finite(names.get(names.len() - 1), value).at(here(at)));
        }
        match compressed {
            true => memory.extend(values.iter().map(|v| f32::from_le_bytes(*v))),
            false => starts.push(at),
        }
        at += bytes as u64;
    }
    // What follows the last row can be its line's end.
    let mut rest = Vec::new();
    reader.take(16).read_to_end(&mut rest)?;
    if rest.iter().any(|b| !b.is_ascii_whitespace()) {
        return Err(Error::new(format!("the file goes on after the {} words that its first line promises", header.words))
            .at(format!("byte {at}")));
    }
    let values = if compressed { Values::Memory(memory) } else { Values::File { file, starts } };
    WordVectors::new(names, values, header.width, super::replaced(replaced))
}

/// Whether all are finite: no exponent has every bit set. Without a branch a value.
pub fn finite(values: &[[u8; 4]]) -> bool {
    values.iter().fold(0, |most: u32, v| most.max(u32::from_le_bytes(*v) & 0x7fff_ffff)) < f32::INFINITY.to_bits()
}
