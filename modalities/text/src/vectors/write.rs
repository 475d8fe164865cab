//! Writes vectors for other programs: word2vec's text and binary form, GloVe's text, safetensors. Blocks of rows are put into form
//! on all threads; a table is never whole in memory for it.

use std::io::Write;
use std::path::Path;

use ctk_core::eval::Table;
use ctk_core::{Error, Result, store::files, store::safetensors_header};
use ctk_texts::corpus::Reading;
use rayon::prelude::*;

use super::text::looks_like_one;
use crate::static_embedding;

/// Blocks that are put into form at once.
const BATCH: usize = 64;

/// Writes `table` in one of [`FORMATS`](super::FORMATS).
///
/// # Errors
/// A word that the format cannot hold; a format that is none.
pub(crate) fn as_format(table: &dyn Table, format: &str, out: &Path) -> Result<()> {
    match format {
        "word2vec-text" => text(table, out),
        "word2vec-binary" => binary(table, out),
        "glove" => glove(table, out),
        "static-embedding" => static_embedding::write(table, Reading::default(), out),
        "safetensors" => safetensors(table, out),
        other => Err(Error::usage(format!("`{other}` is not a format of word vectors"))),
    }
}

/// word2vec's text form: `words width` on the first line, then a word and its values a line. gensim's
/// `KeyedVectors.load_word2vec_format` reads it.
pub fn text(table: &dyn Table, out: &Path) -> Result<()> {
    check(
        table,
        |name| !name.contains([' ', '\t', '\n', '\r']),
        "word2vec's forms end a word with a space: use glove or safetensors",
    )?;
    write(table, out, counts(table).as_bytes(), row_of_text)
}

/// GloVe's text: the same without the first line; words may have spaces in them.
pub fn glove(table: &dyn Table, out: &Path) -> Result<()> {
    // The last part of a word must not look like a value of its own.
    let clear = |name: &str| name.rsplit_once([' ', '\t']).is_none_or(|(_, last)| !looks_like_one(last.as_bytes()));
    let plain = |name: &str| !name.contains(['\n', '\r']) && name.trim_matches([' ', '\t']) == name;
    check(table, |name| plain(name) && clear(name), "a line of text cannot hold this word: use safetensors")?;
    write(table, out, b"", row_of_text)
}

/// word2vec's binary form: the first line as text, then a word, a space, little-endian f32 and a line's end a row (word2vec.c).
/// gensim's `KeyedVectors.load_word2vec_format(…, binary=True)` reads it.
pub fn binary(table: &dyn Table, out: &Path) -> Result<()> {
    check(table, |name| !name.contains([' ', '\n', '\r']), "word2vec's forms end a word with a space: use glove or safetensors")?;
    write(table, out, counts(table).as_bytes(), |into, name, row| {
        into.extend_from_slice(name.as_bytes());
        into.push(b' ');
        row.iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
        into.push(b'\n');
        Ok(())
    })
}

/// safetensors: `input`, (words, width), and the words in a `.tsv` beside it, one a line.
pub fn safetensors(table: &dyn Table, out: &Path) -> Result<()> {
    // A number behind a tab is read as the word's count.
    let plain =
        |name: &str| !name.contains(['\n', '\r']) && name.rsplit_once('\t').is_none_or(|(_, n)| n.parse::<u64>().is_err());
    check(table, plain, "a line of text cannot hold this word")?;
    files::write_with(&out.with_extension("tsv"), |file| {
        (0..table.len()).try_for_each(|row| Ok(writeln!(file, "{}", table.name(row))?))
    })?;
    write(table, out, &safetensors_header::of_one("input", [table.len(), table.width()])?, |into, _, row| {
        row.iter().for_each(|value| into.extend_from_slice(&value.to_le_bytes()));
        Ok(())
    })
}

/// word2vec's first line.
fn counts(table: &dyn Table) -> String {
    format!("{} {}\n", table.len(), table.width())
}

fn row_of_text(into: &mut Vec<u8>, name: &str, row: &[f32]) -> std::io::Result<()> {
    into.extend_from_slice(name.as_bytes());
    // The shortest digits that read back as the same float.
    row.iter().try_for_each(|value| write!(into, " {value}"))?;
    into.push(b'\n');
    Ok(())
}

/// That every word can be written in a form.
fn check(table: &dyn Table, fits: impl Fn(&str) -> bool + Sync, hint: &str) -> Result<()> {
    match (0..table.len()).into_par_iter().find_first(|&row| table.name(row).is_empty() || !fits(table.name(row))) {
        Some(row) => Err(Error::new(format!("the word `{}` cannot be written in this format", table.name(row).escape_debug()))
            .at(format!("row {}", row + 1))
            .hint(hint)),
        None => Ok(()),
    }
}

fn write<F>(table: &dyn Table, out: &Path, head: &[u8], row: F) -> Result<()>
where
    F: Fn(&mut Vec<u8>, &str, &[f32]) -> std::io::Result<()> + Sync,
{
    let form = |range: &std::ops::Range<usize>| -> Result<Vec<u8>> {
        let (mut room, mut bytes) = (Vec::new(), Vec::new());
        let values = table.block(range.clone(), &mut room)?;
        for (at, values) in range.clone().zip(values.chunks_exact(table.width())) {
            row(&mut bytes, table.name(at), values)?;
        }
        Ok(bytes)
    };
    files::write_with(out, |file| {
        file.write_all(head)?;
        for batch in table.blocks().chunks(BATCH) {
            for bytes in batch.par_iter().map(form).collect::<Vec<_>>() {
                file.write_all(&bytes?)?;
            }
        }
        Ok(())
    })
}
