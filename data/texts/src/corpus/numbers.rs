//! The numbered text: in memory as long as it fits, then in a temporary file beside the run.
//!
//! The file has no name, so it disappears when the process ends, in whatever way.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use ctk_core::{Context, Result};

use super::lock;

const SIZE: usize = size_of::<u32>();

/// The default size of a part.
const PART: usize = 1 << 20;

/// How much memory the numbers may take, and where they go otherwise.
pub struct Room<'a> {
    /// The limit in bytes.
    pub limit: usize,
    /// Returns the folder for the file; called when it is needed.
    pub folder: &'a mut (dyn FnMut() -> Result<PathBuf> + Send),
}

/// A list of numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    memory: Vec<u32>,
    // The file that holds them instead.
    file: Option<Mutex<File>>,
    len: usize,
    last: Option<u32>,
}

impl Numbers {
    /// The count of numbers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The last number.
    pub fn last(&self) -> Option<u32> {
        self.last
    }

    /// Whether they are in a file.
    pub fn in_file(&self) -> bool {
        self.file.is_some()
    }

    /// Appends numbers.
    ///
    /// # Errors
    /// The disk is full, or cannot be written.
    pub fn extend(&mut self, numbers: &[u32], room: &mut Room) -> Result<()> {
        if self.file.is_none() && (self.len + numbers.len()).saturating_mul(SIZE) > room.limit {
            let folder = (room.folder)()?;
            let mut file = tempfile::tempfile_in(&folder).at(folder.display())?;
            file.write_all(bytemuck::cast_slice(&self.memory)).at(folder.display()).hint(FULL)?;
            (self.memory, self.file) = (Vec::new(), Some(Mutex::new(file)));
        }
        match &self.file {
            Some(file) => lock(file).write_all(bytemuck::cast_slice(numbers)).at("the numbered text").hint(FULL)?,
            None => self.memory.extend_from_slice(numbers),
        }
        self.len += numbers.len();
        self.last = numbers.last().copied().or(self.last);
        Ok(())
    }

    /// The numbers in `range`; `buffer` is used if they are in a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u32>) -> Result<&'a [u32]> {
        let Some(file) = &self.file else { return Ok(&self.memory[range]) };
        buffer.resize(range.len(), 0);
        let mut file = lock(file);
        file.seek(SeekFrom::Start((range.start * SIZE) as u64))?;
        file.read_exact(bytemuck::cast_slice_mut(buffer)).at("the numbered text")?;
        Ok(buffer)
    }

    /// The numbers in memory, for changes; none if they are in a file.
    pub fn in_memory(&mut self) -> Option<&mut Vec<u32>> {
        self.file.is_none().then_some(&mut self.memory)
    }

    /// Ranges that cover all numbers, some million each.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = self.len;
        (0..len).step_by(PART).map(move |start| start..len.min(start + PART))
    }

    /// Rewrites the numbers from the front, part by part. `change` gets each of `parts`, which must follow one another, and its index. It
    /// may return any number of numbers, as long as all parts so far do not grow.
    ///
    /// # Errors
    /// The disk is full, or cannot be read or written; the errors of `change`.
    /// The disk is full, or cannot be read or written; what `change` meets.
    pub(crate) fn rewrite(
        &mut self,
        parts: impl IntoIterator<Item = Range<usize>>,
        mut change: impl FnMut(usize, &mut Vec<u32>) -> Result<()>,
    ) -> Result<()> {
        let (mut to, mut buffer) = (0, Vec::new());
        for (place, part) in parts.into_iter().enumerate() {
            let end = part.end;
            if self.file.is_none() {
                buffer.clear();
                buffer.extend_from_slice(&self.memory[part]);
            } else {
                let _ = self.get(part, &mut buffer)?;
            }
            change(place, &mut buffer)?;
            // Writing must never overtake reading.
            assert!(to + buffer.len() <= end, "a part grew");
            self.set(to, &buffer)?;
            to += buffer.len();
        }
        self.memory.truncate(to);
        self.memory.shrink_to_fit();
        self.len = to;
        Ok(())
    }

    fn set(&mut self, at: usize, numbers: &[u32]) -> Result<()> {
        let Some(file) = &self.file else {
            self.memory[at..at + numbers.len()].copy_from_slice(numbers);
            return Ok(());
        };
        let mut file = lock(file);
        file.seek(SeekFrom::Start((at * SIZE) as u64))?;
        file.write_all(bytemuck::cast_slice(numbers)).at("the numbered text").hint(FULL)
    }
}

const FULL: &str =
    "numbers that do not fit into memory go to a file beside the run: give --out on a larger disk, or raise data.cache";
