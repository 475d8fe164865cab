//! Writes vectors for other programs: word2vec's text and binary formats, GloVe's text, safetensors. Blocks of rows are formatted on all
//! threads; the formatted table is never whole in memory.

use std::io::Write;
use std::path::{Path, PathBuf};

use ctk_core::eval::Table;
use ctk_core::{Error, Result, store::files, store::safetensors_header};
use ctk_texts::corpus::Reading;
use ctk_texts::files::is_packed;
use rayon::prelude::*;

use super::text::looks_like_one;
use super::{Format, HEAD, Header, LONGEST_WORD, WIDEST, kind, not_finite, too_long};
use crate::static_embedding;

/// Blocks that are formatted at once.
const BATCH: usize = 64;

/// Writes `table` in one of [`FORMATS`](super::FORMATS), and returns notes. Every file written can be read again.
///
/// # Errors
/// A word that the format cannot hold, a value that is not finite, or an unknown format.
pub(crate) fn as_format(table: &dyn Table, format: &str, out: &Path) -> Result<Vec<String>> {
    match format {
        "static-embedding" => return static_embedding::write(table, Reading::default(), out),
        "word2vec-text" => text(table, out),
        "word2vec-binary" => binary(table, out),
        "glove" => glove(table, out),
        "safetensors" => safetensors(table, out),
        other => Err(Error::usage(format!("`{other}` is not a format of word vectors"))),
    }?;
    Ok(Vec::new())
}

/// Writes word2vec's text format: `words width` on the first line, then a word and its values on each line. gensim's
/// `KeyedVectors.load_word2vec_format` reads it.
///
/// # Errors
/// A word that the format cannot hold, a value that is not finite, or a file that cannot be written.
pub fn text(table: &dyn Table, out: &Path) -> Result<()> {
    check(
        table,
        |name| !name.contains([' ', '\t', '\n', '\r']),
        "word2vec's forms end a word with a space: use glove or safetensors",
    )?;
    write(table, out, counts(table).as_bytes(), row_of_text, Format::Text(header(table)))
}

/// Writes GloVe's text format: the same without the first line; words may contain spaces.
///
/// # Errors
/// As [`text`].
pub fn glove(table: &dyn Table, out: &Path) -> Result<()> {
    // The last part of a word must not look like a value.
    let clear = |name: &str| name.rsplit_once([' ', '\t']).is_none_or(|(_, last)| !looks_like_one(last.as_bytes()));
    // A word that begins with a byte order mark could be the first in the file, and would lose the mark.
    let marked = |name: &str| name.starts_with('\u{feff}');
    let plain = |name: &str| !name.contains(['\n', '\r']) && name.trim_matches([' ', '\t']) == name && !marked(name);
    check(table, |name| plain(name) && clear(name), "a line of text cannot hold this word: use safetensors")?;
    write(table, out, b"", row_of_text, Format::Glove { width: table.width() })
}

/// Writes word2vec's binary format: the first line as text; then for each row a word, a space, little-endian f32 and a line end (as
/// word2vec.c). gensim's `KeyedVectors.load_word2vec_format(…, binary=True)` reads it.
///
/// # Errors
/// As [`text`].
pub fn binary(table: &dyn Table, out: &Path) -> Result<()> {
    check(table, |name| !name.contains([' ', '\n', '\r']), "word2vec's forms end a word with a space: use glove or safetensors")?;
    let row = |into: &mut Vec<u8>, name: &str, row: &[f32]| {
        into.extend_from_slice(name.as_bytes());
        into.push(b' ');
        row.iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
        into.push(b'\n');
        Ok(())
    };
    write(table, out, counts(table).as_bytes(), row, Format::Binary(header(table)))
}

/// Writes safetensors: `input`, (words, width), and the words in a `.tsv` beside it, one on each line.
///
/// # Errors
/// As [`text`]; the two files would have the same name.
pub fn safetensors(table: &dyn Table, out: &Path) -> Result<()> {
    // A number after a tab would be read as the word's count.
    let plain =
        |name: &str| !name.contains(['\n', '\r']) && name.rsplit_once('\t').is_none_or(|(_, n)| n.parse::<u64>().is_err());
    check(table, plain, "a line of text cannot hold this word")?;
    let beside = words_beside(out)?;
    let head = safetensors_header::of_one("input", [table.len(), table.width()])?;
    let row = |into: &mut Vec<u8>, _: &str, row: &[f32]| {
        row.iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
        Ok(())
    };
    write(table, out, &head, row, Format::Safetensors)?;
    files::write_with(&beside, |file| (0..table.len()).try_for_each(|row| Ok(writeln!(file, "{}", table.name(row))?)))
}

/// The files that vectors in `format` are written to for `out`.
pub(crate) fn files(format: &str, out: &Path) -> Vec<PathBuf> {
    // If the `.tsv` would be the same file, writing it gives an error.
    let beside = (format == "safetensors").then(|| out.with_extension("tsv")).filter(|beside| beside != out);
    [out.to_path_buf()].into_iter().chain(beside).collect()
}

/// The file of words beside a safetensors file at `out`.
///
/// # Errors
/// It would be the same file.
pub(crate) fn words_beside(out: &Path) -> Result<PathBuf> {
    let beside = out.with_extension("tsv");
    match beside.to_string_lossy().to_lowercase() == out.to_string_lossy().to_lowercase() {
        true => Err(Error::usage("the words are written into a .tsv file beside the vectors, which would have the same name")
            .at(out.display())
            .hint("give --out another ending, .safetensors")),
        false => Ok(beside),
    }
}

fn header(table: &dyn Table) -> Header {
    Header { words: table.len(), width: table.width() }
}

/// word2vec's first line.
fn counts(table: &dyn Table) -> String {
    format!("{} {}\n", table.len(), table.width())
}

fn row_of_text(into: &mut Vec<u8>, name: &str, row: &[f32]) -> std::io::Result<()> {
    into.extend_from_slice(name.as_bytes());
    // The shortest digits that are read back as the same float.
    row.iter().try_for_each(|value| write!(into, " {value}"))?;
    into.push(b'\n');
    Ok(())
}

/// Checks that a table can be written, and that the format can hold every word.
fn check(table: &dyn Table, fits: impl Fn(&str) -> bool + Sync, hint: &str) -> Result<()> {
    if table.is_empty() || table.width() == 0 || table.width() >= WIDEST {
        let (rows, width) = (table.len(), table.width());
        return Err(Error::new(format!("{rows} rows of {width} values are not word vectors")).hint("there is nothing to write"));
    }
    let names = (0..table.len()).into_par_iter().map(|row| (row, table.name(row)));
    match names.find_first(|(_, name)| name.is_empty() || name.len() >= LONGEST_WORD || !fits(name)) {
        Some((row, name)) if name.len() >= LONGEST_WORD => Err(too_long(name).at(format!("row {}", row + 1))),
        Some((row, name)) => Err(Error::new(format!("the word `{}` cannot be written in this format", name.escape_debug()))
            .at(format!("row {}", row + 1))
            .hint(hint)),
        None => Ok(()),
    }
}

fn write<F>(table: &dyn Table, out: &Path, head: &[u8], row: F, format: Format) -> Result<()>
where
    F: Fn(&mut Vec<u8>, &str, &[f32]) -> std::io::Result<()> + Sync,
{
    let form = |range: &std::ops::Range<usize>| -> Result<Vec<u8>> {
        let (mut room, mut bytes) = (Vec::new(), Vec::new());
        let values = table.block(range.clone(), &mut room)?;
        for (at, values) in range.clone().zip(values.chunks_exact(table.width())) {
            // Longer words are refused by every reader.
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return Err(not_finite(table.name(at), *value).at(format!("row {}", at + 1)));
            }
            row(&mut bytes, table.name(at), values)?;
        }
        Ok(bytes)
    };
    files::write_with(out, |file| {
        file.write_all(head)?;
        // The bytes by which readers recognise the format.
        let mut begin = head[..head.len().min(HEAD)].to_vec();
        let mut looked = false;
        for batch in table.blocks().chunks(BATCH) {
            for bytes in batch.par_iter().map(form).collect::<Vec<_>>() {
                let bytes = bytes?;
                if !looked {
                    begin.extend_from_slice(&bytes[..bytes.len().min(HEAD - begin.len())]);
                    looked = begin.len() == HEAD;
                    if looked {
                        is_known(&begin, false, format)?;
                    }
                }
                file.write_all(&bytes)?;
            }
        }
        if looked { Ok(()) } else { is_known(&begin, true, format) }
    })
}

/// Checks that a file with this beginning is recognised as its format.
fn is_known(begin: &[u8], whole: bool, format: Format) -> Result<()> {
    if is_packed(begin) || kind(begin, whole)? != Some(format) {
        return Err(Error::new("these words and values begin so that a reader would take the file for one of another format")
            .hint("write them in another format: safetensors holds all values, and its words lie beside it"));
    }
    Ok(())
}
