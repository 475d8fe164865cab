//! Vectors in safetensors files: `input` with its words in a `.tsv` beside it, as `ctk export` writes them, stays in its file;
//! `features`, as `ctk embed` writes them, are read into memory.

use std::fs::File;
use std::path::Path;

use ctk_core::eval::{Features, Table};
use ctk_core::store::safetensors_header::Header;
use ctk_core::{Context, Error, Result};
use safetensors::Dtype;

use super::names::Names;
use super::values::Values;
use super::{WordVectors, not_finite};

/// Reads the words, and where the rows lie.
pub fn read(path: &Path) -> Result<WordVectors> {
    let file = File::open(path)?;
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

    let beside = path.with_extension("tsv");
    let text = std::fs::read_to_string(&beside).at(beside.display()).hint("the words lie beside the vectors, one a line")?;
    let mut names = Names::default();
    for line in text.lines() {
        // Counts are behind a word where they are known.
        let word = line.rsplit_once('\t').filter(|(_, count)| count.parse::<u64>().is_ok()).map_or(line, |(word, _)| word);
        names.push(word.as_bytes());
    }
    if names.len() != rows {
        return Err(Error::new(format!("{rows} rows, but {} words", names.len())).at(beside.display()));
    }
    let starts = (0..rows).map(|row| first + (row * width * 4) as u64).collect();
    finish(names, Values::File { file, starts }, width)
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
