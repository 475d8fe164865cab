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

/// Numbers of a part, where nothing else says so.
const PART: usize = 1 << 20;

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

    /// All of them, in parts of some million.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let len = self.len;
        (0..len).step_by(PART).map(move |start| start..len.min(start + PART))
    }

    /// Changes all numbers from the front, part by part: `change` is given each of `parts`, which must follow one another, and its
    /// place among them, and may leave any number of numbers, as long as those of all parts so far are not more than there were.
    ///
    /// # Errors
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
            // What is written must never reach what is still to be read.
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
