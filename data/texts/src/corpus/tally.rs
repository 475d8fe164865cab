//! Merges counts that were made separately: each part is sorted, and sorted parts are merged.
//!
//! Each thread counts in a table of its own. A full table is sorted and written to a file, and a new one is begun. So memory is bounded
//! however many different words there are, and no count is lost: the sums do not depend on what was counted where.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use ctk_core::{Context, Error, Result};

/// How error messages name these files.
pub const PLACE: &str = "the counted words beside the run";

/// The hint if there are too many files or the disk is full.
pub const HINT: &str = "give --out on a larger disk, or raise vocabulary.in_memory";

/// Sorted words (or other byte strings), each with its number and count: stored as number, count and length, then the bytes.
#[derive(Default)]
pub struct Sorted {
    bytes: Vec<u8>,
    len: usize,
}

impl Sorted {
    /// Appends a word, which must not sort before the last one.
    pub fn push(&mut self, word: &[u8], number: u32, count: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
        self.bytes.extend_from_slice(&count.to_le_bytes());
        self.bytes.extend_from_slice(&(word.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(word);
        self.len += 1;
    }

    /// Ready to be merged from memory.
    pub fn in_memory(self) -> SortedRun {
        SortedRun { left: self.len, len: self.len, filed: false, from: Box::new(Cursor::new(self.bytes)) }
    }

    /// Ready to be merged from a temporary file in `folder`.
    ///
    /// # Errors
    /// The disk is full, or cannot be written.
    pub(crate) fn into_file(self, folder: &Path) -> Result<SortedRun> {
        let mut file = temporary(folder)?;
        file.write_all(&self.bytes).at(PLACE).hint(HINT)?;
        file.rewind().at(PLACE)?;
        let from = Box::new(BufReader::with_capacity(1 << 16, file));
        Ok(SortedRun { left: self.len, len: self.len, filed: true, from })
    }
}

/// A temporary file without a name, which disappears when the process ends, in whatever way.
///
/// # Errors
/// The file cannot be created.
pub fn temporary(folder: &Path) -> Result<File> {
    tempfile::tempfile_in(folder).at(folder.display()).hint(HINT)
}

/// Sorted words that are being read.
pub struct SortedRun {
    from: Box<dyn BufRead + Send>,
    left: usize,
    len: usize,
    filed: bool,
}

impl SortedRun {
    /// The number of words.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is in a file.
    pub(crate) fn filed(&self) -> bool {
        self.filed
    }

    /// Reads the next word, its number and its count, if there is one.
    fn next(&mut self, word: &mut Vec<u8>) -> Result<Option<(u32, u64)>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let (mut number, mut count, mut length) = ([0; 4], [0; 8], [0; 4]);
        self.from.read_exact(&mut number).at(PLACE)?;
        self.from.read_exact(&mut count).at(PLACE)?;
        self.from.read_exact(&mut length).at(PLACE)?;
        word.clear();
        let length = u32::from_le_bytes(length);
        let read = self.from.by_ref().take(u64::from(length)).read_to_end(word).at(PLACE)?;
        if read != length as usize {
            return Err(Error::new("a file of counted words ends early").at(PLACE));
        }
        Ok(Some((u32::from_le_bytes(number), u64::from_le_bytes(count))))
    }
}

/// Calls `each` for every different word of `runs`, in the order of bytes, with its total count and its number in each run: (index in
/// `runs`, number there).
///
/// # Errors
/// A file that cannot be read; the errors of `each`.
/// A file that cannot be read; what `each` meets.
pub fn merge(mut runs: Vec<SortedRun>, mut each: impl FnMut(&[u8], u64, &[(usize, u32)]) -> Result<()>) -> Result<()> {
    let mut heads = BinaryHeap::with_capacity(runs.len());
    for (run, from) in runs.iter_mut().enumerate() {
        let mut word = Vec::new();
        if let Some((number, count)) = from.next(&mut word)? {
            heads.push(Reverse((word, run, number, count)));
        }
    }
    let (mut current, mut sum, mut places) = (Vec::new(), 0, Vec::new());
    while let Some(mut head) = heads.peek_mut() {
        let Reverse((word, run, number, count)) = &mut *head;
        if *word != current && !places.is_empty() {
            each(&current, sum, &places)?;
            sum = 0;
            places.clear();
        }
        current.clone_from(word);
        sum += *count;
        places.push((*run, *number));
        match runs[*run].next(word)? {
            Some(next) => (*number, *count) = next,
            None => drop(PeekMut::pop(head)),
        }
    }
    if places.is_empty() { Ok(()) } else { each(&current, sum, &places) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ctk_core::rng::Key;
    use rand::Rng as _;

    use super::*;

    #[test]
    fn merged_counts_are_sums_wherever_runs_lie() {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = Key::new(5).rng();
        let (mut runs, mut expected) = (Vec::new(), BTreeMap::<Vec<u8>, (u64, Vec<(usize, u32)>)>::new());
        for run in 0..7usize {
            let mut words = BTreeMap::new();
            // The empty word, and runs without words, are allowed.
            for _ in 0..[0, 1, 400][run % 3] {
                let word: Vec<u8> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..5u8)).collect();
                words.insert(word, (rng.random_range(0..1000u32), rng.random_range(1..u64::MAX / 16)));
            }
            let mut sorted = Sorted::default();
            for (word, (number, count)) in words {
                sorted.push(&word, number, count);
                let entry = expected.entry(word).or_default();
                entry.0 += count;
                entry.1.push((run, number));
            }
            let len = sorted.len;
            let made = if run % 2 == 0 { sorted.in_memory() } else { sorted.into_file(folder.path()).unwrap() };
            assert_eq!((made.len(), made.filed()), (len, run % 2 == 1));
            runs.push(made);
        }
        let mut found = BTreeMap::new();
        let mut last = None;
        merge(runs, |word, count, places| {
            assert!(last.as_deref() < Some(word) || last.is_none(), "in order");
            last = Some(word.to_vec());
            let mut places = places.to_vec();
            places.sort_unstable();
            found.insert(word.to_vec(), (count, places));
            Ok(())
        })
        .unwrap();
        assert!(expected.len() > 100 && found == expected);
        assert!(merge(Vec::new(), |_, _, _| panic!("there is no word")).is_ok());
        let mut sorted = Sorted::default();
        sorted.push(b"a", 0, 1);
        assert!(merge(vec![sorted.in_memory()], |_, _, _| Err(Error::new("no"))).is_err());
    }

    #[test]
    fn a_file_that_was_cut_is_an_error() {
        let mut sorted = Sorted::default();
        sorted.push(b"word", 0, 1);
        for cut in 1..6 {
            let mut run = Sorted { bytes: sorted.bytes[..sorted.bytes.len() - cut].to_vec(), len: 1 }.in_memory();
            assert!(run.next(&mut Vec::new()).unwrap_err().to_string().contains(PLACE));
        }
        let folder = tempfile::tempdir().unwrap();
        let error = sorted.into_file(&folder.path().join("nowhere")).err().unwrap().to_string();
        assert!(error.contains("nowhere") && error.contains("vocabulary.in_memory"), "{error}");
    }
}
