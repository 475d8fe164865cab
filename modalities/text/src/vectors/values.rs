//! The f32 rows of a set of word vectors: kept in memory, or left in the file of vectors and read when they are needed.

use std::fs::File;
use std::ops::Range;

use ctk_core::store::files::read_at;
use ctk_core::{Context, Result};

/// Rows of equal width.
#[derive(Debug)]
pub enum Values {
    /// One row after the other.
    Memory(Vec<f32>),
    /// Little-endian f32 in a file.
    File {
        /// The file.
        file: File,
        /// The byte at which each row begins, ascending.
        starts: Vec<u64>,
    },
}

const SIZE: usize = size_of::<f32>();

impl Values {
    /// The rows of `range`; `room` is a buffer for rows in a file.
    ///
    /// # Errors
    /// The file can no longer be read, or has become shorter.
    pub fn get<'a>(&'a self, range: Range<usize>, width: usize, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        let (file, starts) = match self {
            Values::Memory(values) => return Ok(&values[range.start * width..range.end * width]),
            Values::File { file, starts } => (file, &starts[range]),
        };
        let (Some(first), Some(last)) = (starts.first(), starts.last()) else { return Ok(&[]) };
        // Everything between the first row and the end of the last is read at once; then the words between rows are removed.
        let span = (last - first) as usize + width * SIZE;
        room.resize(span.div_ceil(SIZE), 0.0);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(room);
        read_at(file, &mut bytes[..span], *first).at(format!("byte {first}")).hint("has the file changed meanwhile?")?;
        for (row, start) in starts.iter().enumerate() {
            let from = (start - first) as usize;
            bytes.copy_within(from..from + width * SIZE, row * width * SIZE);
        }
        let values = &mut room[..starts.len() * width];
        if cfg!(target_endian = "big") {
            values.iter_mut().for_each(|v| *v = f32::from_bits(v.to_bits().swap_bytes()));
        }
        Ok(values)
    }

    /// Removes rows, whose numbers ascend.
    pub fn remove(&mut self, rows: &[usize], width: usize) {
        match self {
            Values::Memory(values) => {
                let mut at = 0;
                for row in (0..values.len() / width).filter(|row| rows.binary_search(row).is_err()) {
                    values.copy_within(row * width..(row + 1) * width, at * width);
                    at += 1;
                }
                values.truncate(at * width);
            }
            Values::File { starts, .. } => {
                let mut row = 0;
                starts.retain(|_| {
                    row += 1;
                    rows.binary_search(&(row - 1)).is_err()
                });
            }
        }
    }
}
