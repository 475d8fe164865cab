//! A file of rows that are computed once: they are kept block by block, found again by a later run, and noticed if they are damaged or of
//! something else.
//!
//! The first line is JSON: a digest of what the rows are of, their number and their width. Blocks of [`BLOCK`] rows follow (f32,
//! little-endian), each with its blake3, to which the first line and the block's number belong. A stop leaves a part of a block at most,
//! which is computed again.

use std::fs::File;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::opened;
use crate::store::files;

/// Rows of a block.
const BLOCK: usize = 1024;

/// The version of the format.
const FORMAT: u32 = 1;

/// Bytes of a digest.
const DIGEST: usize = blake3::OUT_LEN;

/// The longest first line.
const LONGEST: usize = 4096;

/// A digest of what rows are of, from any number of pieces.
#[derive(Clone, Default)]
pub struct Identity(blake3::Hasher);

impl Identity {
    /// The digest of these pieces and one more.
    pub fn and(mut self, bytes: &[u8]) -> Identity {
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    fn text(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    format: u32,
    of: String,
    rows: usize,
    width: usize,
}

/// Rows in a file, all of them there and whole when it was opened.
pub struct StoredRows {
    file: File,
    rows: usize,
    width: usize,
    /// Where the first block begins.
    start: u64,
    /// Rows that were there already.
    pub found: usize,
    /// What was found damaged, to be said.
    pub notes: Vec<String>,
}

impl StoredRows {
    /// The rows in the file at `path`; those that are missing are computed by `make`, which gets their numbers. `of` says what the rows are
    /// of, and `shape` how many there are and how many values each has. Another process that does the same is waited for.
    ///
    /// # Errors
    /// The file holds other rows, or is no such file; it cannot be written; the errors of `make`.
    pub fn of(
        path: &Path,
        of: &Identity,
        shape: [usize; 2],
        mut make: impl FnMut(Range<usize>) -> Result<Vec<f32>>,
    ) -> Result<StoredRows> {
        let [rows, width] = shape;
        let header = Header { format: FORMAT, of: of.text(), rows, width };
        let mut head = serde_json::to_vec(&header)?;
        head.push(b'\n');
        if path.is_dir() || path.file_name().is_none() {
            return Err(Error::usage("this is a folder, and rows are kept in a file").at(path.display()));
        }
        opened::check(path)?;
        let lock = files::lock(path)?;
        let start = head.len() as u64;
        let (mut found, mut notes) = (0, Vec::new());
        if path.exists() && path.metadata().at(path.display())?.len() > 0 {
            let file = File::open(path).at(path.display())?;
            agree(&file, &header).at(path.display())?;
            let (whole, damaged) = whole(&file, &head, shape).at(path.display())?;
            found = whole;
            if damaged {
                notes.push(format!("{} is damaged: its rows from {found} on are computed again", path.display()));
            }
        }
        if found < rows {
            let bytes = if found == 0 { 0 } else { start + place(found, width) };
            let mut file = files::go_on(path, bytes).at(path.display())?;
            if bytes == 0 {
                file.write_all(&head).at(path.display())?;
            }
            for block in blocks(rows).filter(|block| block.start >= found) {
                let number = block.start / BLOCK;
                let values = make(block.clone())?;
                if values.len() != block.len() * width {
                    return Err(Error::new(format!("{} values are not {} rows of {width}", values.len(), block.len())));
                }
                let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                bytes.extend(digest(&head, number, &bytes));
                file.write_all(&bytes).at(path.display())?;
            }
            file.sync_all().at(path.display())?;
        }
        drop(lock);
        let file = File::open(path).at(path.display())?;
        Ok(StoredRows { file, rows, width, start, found, notes })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Puts the rows of `range` into `rows`, in place of what is there.
    ///
    /// # Errors
    /// The file can no longer be read.
    pub fn read(&self, range: Range<usize>, rows: &mut Vec<f32>) -> Result<()> {
        rows.clear();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / BLOCK + 1) * BLOCK);
            let mut bytes = vec![0; 4 * self.width * (end - at)];
            files::read_at(&self.file, &mut bytes, self.start + place(at, self.width))?;
            rows.extend(numbers(&bytes));
            at = end;
        }
        Ok(())
    }
}

/// The numbers of the rows of each block.
fn blocks(rows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(BLOCK).map(move |from| from..(from + BLOCK).min(rows))
}

/// Where row `row` is behind the first line: the blocks before it have a digest each.
fn place(row: usize, width: usize) -> u64 {
    4 * (row as u64) * (width as u64) + (DIGEST * (row / BLOCK)) as u64
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

fn digest(head: &[u8], number: usize, bytes: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(&(number as u64).to_le_bytes()).update(bytes);
    *hasher.finalize().as_bytes()
}

/// Checks that the file's first line is `header`.
///
/// # Errors
/// It is another one, or none.
fn agree(file: &File, header: &Header) -> Result<()> {
    let hint = "remove it, so that its rows are computed again, or give another name";
    let mut bytes = vec![0; LONGEST.min(file.metadata()?.len() as usize)];
    files::read_at(file, &mut bytes, 0)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(found) = serde_json::from_slice::<Header>(line) else {
        return Err(Error::usage("this is no file of rows that ctk wrote, or its first line is damaged").hint(hint));
    };
    if found != *header {
        let what = match (found.rows, found.width) == (header.rows, header.width) {
            true => "this file has the rows of another model or of other texts".to_string(),
            false => format!(
                "this file has {} rows of {} values, and {} rows of {} are needed: they are of another model or of other texts",
                found.rows, found.width, header.rows, header.width
            ),
        };
        return Err(Error::usage(what).hint(hint));
    }
    Ok(())
}

/// How many of the first rows are whole, and whether what follows is damaged and not only cut off.
fn whole(file: &File, head: &[u8], [rows, width]: [usize; 2]) -> Result<(usize, bool)> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    for (number, block) in blocks(rows).enumerate() {
        let from = head.len() as u64 + place(block.start, width);
        bytes.resize(4 * width * block.len() + DIGEST, 0);
        if from + bytes.len() as u64 > length {
            return Ok((block.start, false));
        }
        files::read_at(file, &mut bytes, from)?;
        let (values, sum) = bytes.split_at(bytes.len() - DIGEST);
        if sum != digest(head, number, values) {
            return Ok((block.start, true));
        }
    }
    Ok((rows, false))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SHAPE: [usize; 2] = [2 * BLOCK + 100, 3];

    fn row(at: usize) -> [f32; 3] {
        [at as f32, 0.5 * at as f32, -1.0]
    }

    /// The rows in the file, and the blocks that had to be computed.
    fn opened(path: &Path, of: &[u8]) -> Result<(StoredRows, Vec<usize>)> {
        let mut made = Vec::new();
        let rows = StoredRows::of(path, &Identity::default().and(of), SHAPE, |range| {
            made.push(range.start / BLOCK);
            Ok(range.flat_map(row).collect())
        })?;
        Ok((rows, made))
    }

    fn is_whole(rows: &StoredRows) -> bool {
        let mut found = Vec::new();
        [0..SHAPE[0], BLOCK - 2..BLOCK + 3, 2 * BLOCK..SHAPE[0], 5..5].into_iter().all(|range| {
            rows.read(range.clone(), &mut found).unwrap();
            found == range.flat_map(row).collect::<Vec<f32>>()
        })
    }

    #[test]
    fn rows_are_made_once_and_what_a_stop_left_is_made_up_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.rows");
        let (rows, made) = opened(&path, b"a").unwrap();
        assert!(is_whole(&rows) && made == [0, 1, 2] && rows.found == 0 && (rows.len(), rows.width()) == (SHAPE[0], 3));
        let (rows, made) = opened(&path, b"a").unwrap();
        assert!(is_whole(&rows) && made.is_empty() && rows.found == SHAPE[0] && rows.notes.is_empty());
        let bytes = fs::read(&path).unwrap();
        for (length, first) in [(bytes.len() - 1, 2), (bytes.len() - 1300, 1), (0, 0)] {
            fs::write(&path, &bytes[..length]).unwrap();
            let (rows, made) = opened(&path, b"a").unwrap();
            assert!(is_whole(&rows) && made == (first..3).collect::<Vec<_>>() && rows.notes.is_empty(), "{length}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
        // An error in between keeps the blocks before it.
        fs::remove_file(&path).unwrap();
        let failed = StoredRows::of(&path, &Identity::default().and(b"a"), SHAPE, |range| match range.start {
            0 => Ok(range.flat_map(row).collect()),
            _ => Err(Error::new("stopped")),
        });
        assert!(failed.is_err());
        assert_eq!(opened(&path, b"a").unwrap().1, [1, 2]);
    }

    #[test]
    fn damaged_rows_are_noticed_and_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rows");
        opened(&path, b"a").unwrap();
        let bytes = fs::read(&path).unwrap();
        let head = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for (at, first) in [(head, 0), (head + 4 * 3 * BLOCK + 5, 0), (head + 4 * 3 * BLOCK + DIGEST, 1), (bytes.len() - 1, 2)] {
            let mut wrong = bytes.clone();
            wrong[at] ^= 16;
            fs::write(&path, wrong).unwrap();
            let (rows, made) = opened(&path, b"a").unwrap();
            assert!(is_whole(&rows) && made == (first..3).collect::<Vec<_>>(), "{at}: {made:?}");
            assert!(rows.notes[0].contains("a.rows is damaged"), "{:?}", rows.notes);
        }
    }

    #[test]
    fn rows_of_something_else_are_never_taken_or_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rows");
        opened(&path, b"a").unwrap();
        let bytes = fs::read(&path).unwrap();
        let refused = |of: &[u8], part: &str| {
            let error = opened(&path, of).err().unwrap();
            assert!(
                error.exit_code() == 2 && error.to_string().contains(part) && error.to_string().contains("a.rows"),
                "{error}"
            );
        };
        refused(b"b", "another model or of other texts");
        let other = StoredRows::of(&path, &Identity::default().and(b"a"), [3, 3], |_| Ok(vec![0.0; 9]));
        assert!(other.err().unwrap().to_string().contains("2148 rows of 3 values, and 3 rows of 3"));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        fs::write(&path, "a text\nof mine\n").unwrap();
        refused(b"a", "no file of rows");
        assert_eq!(fs::read(&path).unwrap(), b"a text\nof mine\n");
        // Pieces have borders.
        assert_ne!(Identity::default().and(b"ab").and(b"c").text(), Identity::default().and(b"a").and(b"bc").text());
    }
}
