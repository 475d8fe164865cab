//! The numbers of a text: in memory as long as they fit, then in a file without a name beside the run.
//!
//! The file is opened and forgotten: it goes when the process does, however that ends.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use ctk_core::{Context, Result};

use super::lock;

const SIZE: usize = size_of::<u32>();

/// How much memory numbers may take, and where they go then.
pub struct Room<'a> {
    /// Bytes.
    pub limit: usize,
    /// The folder for what does not fit; asked for when it is needed.
    pub folder: &'a mut (dyn FnMut() -> Result<PathBuf> + Send),
}

/// A list of numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    memory: Vec<u32>,
    // Instead of it.
    file: Option<Mutex<File>>,
    len: usize,
    last: Option<u32>,
}

impl Numbers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The last one.
    pub fn last(&self) -> Option<u32> {
        self.last
    }

    /// Whether they are in a file.
    pub fn in_file(&self) -> bool {
        self.file.is_some()
    }

    /// Adds numbers at the end.
    ///
    /// # Errors
    /// The disk is full, or cannot be written to.
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

    /// Those of `range`; `buffer` is room to read them into.
    pub fn get<'a>(&'a self, range: Range<usize>, buffer: &'a mut Vec<u32>) -> Result<&'a [u32]> {
        let Some(file) = &self.file else { return Ok(&self.memory[range]) };
        buffer.resize(range.len(), 0);
        let mut file = lock(file);
        file.seek(SeekFrom::Start((range.start * SIZE) as u64))?;
        file.read_exact(bytemuck::cast_slice_mut(buffer)).at("the numbered text")?;
        Ok(buffer)
    }

    /// All that are in memory, to be changed; none if they are in a file.
    pub fn in_memory(&mut self) -> Option<&mut Vec<u32>> {
        self.file.is_none().then_some(&mut self.memory)
    }

    /// Overwrites what begins at `at` of a file, which was read before.
    pub fn set(&self, at: usize, numbers: &[u32]) -> Result<()> {
        let mut file = lock(self.file.as_ref().expect("what is in memory is changed there"));
        file.seek(SeekFrom::Start((at * SIZE) as u64))?;
        file.write_all(bytemuck::cast_slice(numbers)).at("the numbered text").hint(FULL)
    }

    /// Drops all from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.memory.truncate(len);
        self.memory.shrink_to_fit();
        self.len = len;
    }
}

const FULL: &str =
    "numbers that do not fit into memory go to a file beside the run: give --out on a larger disk, or raise data.cache";
