//! Vectors in safetensors files. `input` with its words in a `.tsv` beside it, from `ctk export`, stays in its file; `features`, from `ctk
//! embed`, are read into memory, and so is an `input` that has rows of n-grams after those of words.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ctk_core::eval::{Features, Table};
use ctk_core::store::safetensors_header::Header;
use ctk_core::{Context, Error, Result};
use ctk_texts::files::open;
use safetensors::Dtype;

use super::names::Names;
use super::values::Values;
use super::{WordVectors, fits, not_finite};
use crate::subwords::{SubwordVectors, Subwords};

/// Reads the words and the positions of the rows.
///
/// # Errors
/// A file that is not such a safetensors file, or that does not match its list of words.
pub fn read(path: &Path) -> Result<WordVectors> {
    let file = open(path)?;
    let Header { tensors, start } = Header::read(&file)?;
    let Some(tensor) = tensors.info("input") else {
        return match tensors.info("features") {
            Some(_) => features(Features::load(path)?),
            None => Err(Error::usage("this safetensors file holds no word vectors")
                .hint("ctk keeps them in a tensor `input` (`ctk export`) or `features` (`ctk embed`)")),
        };
    };
    let [rows, width] = tensor.shape[..] else {
        return Err(Error::new(format!("the tensor `input` has shape {:?}, expected words and width", tensor.shape)));
    };
    if tensor.dtype != Dtype::F32 {
        return Err(Error::new(format!("the tensor `input` holds {:?}, expected F32", tensor.dtype)));
    }
    if width == 0 || width >= super::WIDEST {
        return Err(Error::new(format!("the tensor `input` has vectors of {width} values")));
    }
    let first = start + tensor.data_offsets.0 as u64;

    let (beside, words) = words(path)?;
    let mut names = Names::default();
    words.iter().for_each(|word| {
        names.push(word.as_bytes());
    });
    if names.len() < rows && tensors.info("output").is_some_and(|output| output.shape[..] == [names.len(), width]) {
        let what = format!(
            "{rows} rows of {} words: the rows behind those of words are of n-grams, by which words are made",
            names.len()
        );
        return Err(Error::new(what).at(beside.display()).hint("the file has no description of them: export the run again"));
    }
    if names.len() != rows {
        return Err(Error::new(format!("{rows} rows, but {} words", names.len())).at(beside.display()));
    }
    let starts = (0..rows).map(|row| first + (row * width * 4) as u64).collect();
    finish(names, Values::File { file, starts }, width)
}

/// The file of words beside a safetensors file, and its words.
fn words(path: &Path) -> Result<(PathBuf, Vec<String>)> {
    let beside = path.with_extension("tsv");
    let text = std::fs::read_to_string(&beside).at(beside.display()).hint("the words lie beside the vectors, one a line")?;
    // A word may be followed by its count.
    let word = |line: &str| {
        line.rsplit_once('\t').filter(|(_, count)| count.parse::<u64>().is_ok()).map_or(line, |(word, _)| word).to_string()
    };
    let words = text.lines().map(word).collect();
    Ok((beside, words))
}

/// The metadata key of the n-grams: the shortest, the longest, and the number of rows that they share.
const PARTS: &str = "subwords";

/// The metadata of a file whose words are composed of n-grams.
pub fn parts_of(subwords: &Subwords) -> HashMap<String, String> {
    let Subwords { min, max, buckets } = subwords;
    HashMap::from([(PARTS.to_string(), format!("{min} {max} {buckets}"))])
}

/// Reads a file with the metadata of [`parts_of`]: vectors of words are means of their own row and those of their n-grams. None if the file
/// has no such metadata.
///
/// # Errors
/// A file that cannot be read, or whose rows do not match its words and n-grams.
pub fn open_parts(path: &Path) -> Result<Option<SubwordVectors>> {
    parts(path).at(path.display())
}

fn parts(path: &Path) -> Result<Option<SubwordVectors>> {
    let file = open(path)?;
    let Header { tensors, start } = Header::read(&file)?;
    let Some(said) = tensors.metadata().as_ref().and_then(|metadata| metadata.get(PARTS)) else { return Ok(None) };
    let numbers: Vec<usize> = said.split(' ').filter_map(|number| number.parse().ok()).collect();
    let ([min, max, buckets], Some(input)) = (&numbers[..], tensors.info("input")) else {
        return Err(Error::new(format!("`{said}` are not the lengths of n-grams and a number of rows")));
    };
    let [rows, width] = input.shape[..] else {
        return Err(Error::new(format!("the tensor `input` has shape {:?}, expected rows and width", input.shape)));
    };
    if input.dtype != Dtype::F32 {
        return Err(Error::new(format!("the tensor `input` holds {:?}, expected F32", input.dtype)));
    }
    fits(rows, width)?;
    let starts = (0..rows).map(|row| start + input.data_offsets.0 as u64 + (row * width * 4) as u64).collect();
    let mut room = Vec::new();
    let values = Values::File { file, starts }.get(0..rows, width, &mut room)?.to_vec();
    let (_, words) = words(path)?;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        let row = at / width.max(1);
        let name = words.get(row).map_or_else(|| format!("n-gram {}", row - words.len()), String::clone);
        return Err(not_finite(&name, values[at]).at(format!("row {}", row + 1)));
    }
    SubwordVectors::new(words, values, width, Subwords { min: *min, max: *max, buckets: *buckets }).map(Some)
}

fn features(features: Features) -> Result<WordVectors> {
    if features.width == 0 {
        return Err(Error::new("these features have no values"));
    }
    let mut names = Names::default();
    for name in &features.names {
        names.push(name.as_bytes());
    }
    finish(names, Values::Memory(features.rows), features.width)
}

fn finish(names: Names, values: Values, width: usize) -> Result<WordVectors> {
    let vectors = WordVectors::new(names, values, width, Vec::new())?;
    let mut room = Vec::new();
    for range in vectors.blocks() {
        let from = range.start;
        let block = vectors.block(range, &mut room)?;
        if let Some(at) = block.iter().position(|v| !v.is_finite()) {
            let row = from + at / width;
            return Err(not_finite(vectors.name(row), block[at]).at(format!("row {}", row + 1)));
        }
    }
    Ok(vectors)
}
