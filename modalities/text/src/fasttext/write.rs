//! Writes a model in fastText's format.

use std::io::Write;
use std::path::Path;

use ctk_core::{Error, Result, store::files};

use super::{Args, MAGIC, Parts, VERSION};
use crate::vectors::{LONGEST_WORD, too_long};

/// Values that are converted to bytes at once.
const BLOCK: usize = 1 << 14;

/// Writes a model that fastText's program, its Python module and gensim's `load_facebook_model` can read.
///
/// # Errors
/// Tables of other sizes than the arguments say, or with values that are not finite; a word with a zero byte, which ends words in this
/// format, or longer than any reader accepts; more words than an i32 can count.
pub fn write(model: &Parts, out: &Path) -> Result<()> {
    let Parts { args, vocabulary, input, output } = model;
    let words = vocabulary.len();
    let width = args.width.max(0) as usize;
    let count = i32::try_from(words).map_err(|_| Error::new(format!("fastText's files cannot count {words} words")))?;
    if input.len() != (words + args.buckets.max(0) as usize) * width || output.len() != words * width {
        return Err(Error::new(format!(
            "tables of {} and {} values are not those of {words} words and {} buckets of {width} values",
            input.len(),
            output.len(),
            args.buckets
        )));
    }
    if let Some(word) = vocabulary.words().iter().find(|word| word.contains('\0')) {
        return Err(Error::new(format!("fastText's files cannot hold the word {word:?}")).hint("a zero byte ends a word there"));
    }
    if let Some(word) = vocabulary.words().iter().find(|word| word.len() >= LONGEST_WORD) {
        return Err(too_long(word));
    }
    if let Some(at) = input.iter().chain(*output).position(|value| !value.is_finite()) {
        let table = if at < input.len() { "input" } else { "output" };
        return Err(Error::new(format!("a value of the {table} table is not a finite number"))
            .hint("the training that made it went wrong"));
    }
    // gensim drops words with count 0 and then misses their rows, so a word that only another run's text had is written with count 1.
    let counted = |count: &u64| (*count).max(1);
    files::write_with(out, |file| {
        numbers(file, &[MAGIC, VERSION])?;
        arguments(file, args)?;
        numbers(file, &[count, count, 0])?;
        file.write_all(&signed(vocabulary.counts().iter().map(counted).sum()).to_le_bytes())?;
        file.write_all(&(-1i64).to_le_bytes())?;
        for (word, count) in vocabulary.words().iter().zip(vocabulary.counts()) {
            file.write_all(word.as_bytes())?;
            file.write_all(&[0])?;
            file.write_all(&signed(counted(count)).to_le_bytes())?;
            file.write_all(&[0])?;
        }
        table(file, input, width)?;
        table(file, output, width)
    })
}

fn arguments(file: &mut impl Write, args: &Args) -> Result<()> {
    let Args { width, window, epochs, min_count, negatives, word_ngrams, buckets, min, max, rate_every, .. } = *args;
    numbers(file, &[width, window, epochs, min_count, negatives, word_ngrams])?;
    numbers(file, &[args.loss as i32, args.kind as i32, buckets, min, max, rate_every])?;
    Ok(file.write_all(&args.subsample.to_le_bytes())?)
}

fn numbers(file: &mut impl Write, numbers: &[i32]) -> Result<()> {
    Ok(numbers.iter().try_for_each(|number| file.write_all(&number.to_le_bytes()))?)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Writes a table that is not quantised.
fn table(file: &mut impl Write, values: &[f32], width: usize) -> Result<()> {
    file.write_all(&[0])?;
    file.write_all(&((values.len() / width.max(1)) as i64).to_le_bytes())?;
    file.write_all(&(width as i64).to_le_bytes())?;
    let mut bytes = Vec::with_capacity(4 * BLOCK);
    for block in values.chunks(BLOCK) {
        bytes.clear();
        bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}
