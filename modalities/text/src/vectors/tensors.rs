//! Vectors in safetensors files: `input` with its words in a `.tsv` beside it, as `ctk export` writes them, stays in its file;
//! `features`, as `ctk embed` writes them, are read into memory.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use ctk_core::eval::{Features, Table};
use ctk_core::{Context, Error, Result};
use serde::Deserialize;

use super::names::Names;
use super::values::{Values, read_at};
use super::{WordVectors, not_finite};

/// The format's own limit of its header.
const LONGEST: u64 = 100_000_000;

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Reads the words, and where the rows lie.
pub fn read(path: &Path) -> Result<WordVectors> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut size = [0; 8];
    read_at(&file, &mut size, 0)?;
    let size = u64::from_le_bytes(size);
    if size > LONGEST || size > length.saturating_sub(8) {
        return Err(Error::new(format!("not a readable safetensors file: its header would take {size} bytes of {length}")));
    }
    let mut header = vec![0; size as usize];
    read_at(&file, &mut header, 8)?;
    let header: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| Error::new(format!("not a readable safetensors file: {e}")))?;
    let Some(tensor) = header.get("input") else {
        return match header.contains_key("features") {
            true => features(Features::load(path)?),
            false => Err(Error::usage("this safetensors file holds no word vectors")
                .hint("ctk keeps them in a tensor `input` (`ctk export`) or `features` (`ctk embed`)")),
        };
    };
    let tensor = Tensor::deserialize(tensor).map_err(|e| Error::new(format!("the tensor `input` is not described: {e}")))?;
    let [rows, width] = tensor.shape[..] else {
        return Err(Error::new(format!("the tensor `input` has shape {:?}, expected words and width", tensor.shape)));
    };
    if tensor.dtype != "F32" {
        return Err(Error::new(format!("the tensor `input` holds {}, expected F32", tensor.dtype)));
    }
    let [from, to] = tensor.data_offsets;
    let start = size + 8;
    let bytes = rows.checked_mul(width).and_then(|values| values.checked_mul(4));
    let end = start.checked_add(to);
    if width == 0 || width >= super::WIDEST as u64 || from > to || bytes != Some(to - from) || end.is_none_or(|end| end > length)
    {
        return Err(Error::new(format!("the tensor `input`, {rows} by {width}, does not fit into bytes {from} to {to}"))
            .hint("is the file cut short?"));
    }

    let beside = path.with_extension("tsv");
    let text = std::fs::read_to_string(&beside).at(beside.display()).hint("the words lie beside the vectors, one a line")?;
    let mut names = Names::default();
    for line in text.lines() {
        // Counts are behind a word where they are known.
        let word = line.rsplit_once('\t').filter(|(_, count)| count.parse::<u64>().is_ok()).map_or(line, |(word, _)| word);
        names.push(word.as_bytes());
    }
    if names.len() as u64 != rows {
        return Err(Error::new(format!("{rows} rows, but {} words", names.len())).at(beside.display()));
    }
    let starts = (0..rows).map(|row| start + from + row * width * 4).collect();
    finish(names, Values::File { file, starts }, width as usize)
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
