//! The header of a safetensors file, read and written apart from its values: the tensors' names, shapes and positions.
//!
//! Files that fit into memory are read and written whole by the safetensors library (see [`checkpoint`](crate::store::checkpoint)). This
//! module is for files whose header decides whether they are wanted, and for tables that stay in their file or are written piece by piece.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::{Context, Error, Result};

/// The largest header that is accepted, in bytes; the same as in the library.
const LARGEST: u64 = 100_000_000;

/// The header of a file.
#[derive(Debug)]
pub struct Header {
    /// The tensors. Their offsets have been checked: they follow each other and fit the shapes.
    pub tensors: Metadata,
    /// The byte that the offsets count from.
    pub start: u64,
}

impl Header {
    /// Reads the header from the beginning of a file.
    ///
    /// # Errors
    /// Not a safetensors file, or one that is shorter than its header says.
    pub fn read(mut file: &File) -> Result<Header> {
        let length = file.metadata()?.len();
        let short = |e: std::io::Error| Error::new(format!("not a safetensors file: {e}")).hint("get the file again");
        file.rewind()?;
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(short)?;
        let size = u64::from_le_bytes(size);
        let start = size.saturating_add(8);
        if size > LARGEST || start > length {
            return Err(Error::new("not a safetensors file, or one that is cut short")
                .hint("get the file again, or convert it to safetensors"));
        }
        let mut text = vec![0; size as usize];
        file.read_exact(&mut text).map_err(short)?;
        let tensors: Metadata = serde_json::from_slice(&text)
            .map_err(|e| Error::new(format!("not a readable safetensors file: {e}")))
            .hint("get the file again")?;
        let end = start.saturating_add(tensors.data_len() as u64);
        if end != length {
            return Err(Error::new(format!("this file has {length} bytes, and its header says {end}"))
                .hint("it was cut short: get it again"));
        }
        Ok(Header { tensors, start })
    }
}

/// The beginning of a file with one tensor in f32, (rows, width), whose values are to be written after it.
///
/// # Errors
/// The tensor would be larger than the address space.
pub fn of_one(name: &str, [rows, width]: [usize; 2]) -> Result<Vec<u8>> {
    let bytes =
        rows.checked_mul(width).and_then(|values| values.checked_mul(4)).ok_or_else(|| Error::new("too large a tensor"))?;
    let tensor = TensorInfo { dtype: Dtype::F32, shape: vec![rows, width], data_offsets: (0, bytes) };
    // PyTorch's readers ask for this.
    let said = HashMap::from([("format".to_string(), "pt".to_string())]);
    let mut text = serde_json::to_vec(&Metadata::new(Some(said), vec![(name.to_string(), tensor)])?)?;
    // The format wants values at a multiple of eight bytes.
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok([&(text.len() as u64).to_le_bytes(), &text[..]].concat())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_as_it_goes_is_read_by_the_library_and_by_its_header() {
        let values: Vec<u8> = (0..6).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let bytes = [of_one("input", [2, 3]).unwrap(), values].concat();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensor = read.tensor("input").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.data()), (Dtype::F32, &[2, 3][..], &bytes[bytes.len() - 24..]));

        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let header = Header::read(&file).unwrap();
        let info = header.tensors.info("input").unwrap();
        assert_eq!((header.start % 8, header.start + info.data_offsets.1 as u64), (0, bytes.len() as u64));
        file.set_len(bytes.len() as u64 - 1).unwrap();
        assert!(Header::read(&file).unwrap_err().to_string().contains("its header says"));
        file.set_len(7).unwrap();
        assert!(Header::read(&file).unwrap_err().to_string().contains("not a safetensors file"));
    }
}
