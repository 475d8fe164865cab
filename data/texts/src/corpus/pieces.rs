//! From files to one stream of numbers: pieces of text are read in turn, numbered on all threads, and joined in order.
//!
//! Each thread numbers words in a table of its own, which it keeps until the text ends or the table is full; [`numbering`] then gives the
//! words their final numbers. The result depends neither on which thread had which piece nor on the size of the tables.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use super::numbering::{self, Stream};
use super::numbers::{Numbers, Room};
use super::tally::SortedRun;
use super::words::Words;
use super::{Corpus, END, Invalid, Reading, Selection, Tokens, lock};
use crate::files::{Chunk, Chunks, Encoding, Origin, shown};

/// Numbers the words of `files`, in order.
///
/// # Errors
/// Those of [`Corpus::read`].
pub fn number(files: &[&Path], reading: &Reading, selection: &Selection, room: &mut Room) -> Result<Corpus> {
    let place = match files {
        [only] => shown(only),
        _ => format!("{} files", files.len()),
    };
    let text =
        Mutex::new(Text { files, encoding: reading.encoding, open: None, next: 0, failed: false, notes: Notes::default() });
    let joined = Mutex::new(Joined::new(room));
    let threads = rayon::current_num_threads();
    let full = selection.in_memory.div_ceil(threads);
    let run = |_| Worker::new(&joined, full).run(&text, reading, &joined);
    let mut workers: Vec<Worker> = (0..threads).into_par_iter().with_max_len(1).map(run).collect();
    let failed = workers.iter_mut().filter_map(|worker| worker.failed.take()).min_by_key(|(number, _)| *number);
    if let Some((_, e)) = failed {
        return Err(e);
    }
    let joined = joined.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut notes = reading.notes.clone();
    notes.extend(text.into_inner().unwrap_or_else(PoisonError::into_inner).notes.lines(files));
    notes.extend(joined.notes(files));
    finish(joined, workers, selection, notes).at(place)
}

/// Numbers the words, between white space, of a text in memory.
pub(crate) fn number_text(text: &str, selection: &Selection) -> Result<Corpus> {
    let chunk = Chunk { bytes: text.as_bytes().to_vec(), offset: 0, origin: Origin::default() };
    let opened = Opened { number: 0, file: 0, first: true };
    let mut room = Room { limit: usize::MAX, folder: &mut || Ok(std::env::temp_dir()) };
    let joined = Mutex::new(Joined::new(&mut room));
    let mut worker = Worker::new(&joined, usize::MAX);
    let piece = worker.piece(opened, chunk, &Reading::default(), Path::new("text"))?;
    lock(&joined).add(worker.table, piece)?;
    finish(joined.into_inner().unwrap_or_else(PoisonError::into_inner), vec![worker], selection, Vec::new())
}

fn finish(joined: Joined, workers: Vec<Worker>, selection: &Selection, notes: Vec<String>) -> Result<Corpus> {
    // Sorting takes so long that all threads share it.
    let sort = |mut worker: Worker| {
        worker.filed.push((worker.table, worker.words.sorted().in_memory()));
        worker.filed
    };
    let mut runs: Vec<(usize, SortedRun)> = workers.into_par_iter().flat_map_iter(sort).collect();
    runs.sort_unstable_by_key(|(table, _)| *table);
    let runs = runs.into_iter().map(|(_, run)| run).collect();
    let Joined { numbers, parts, room, .. } = joined;
    numbering::finish(Stream { numbers, parts, runs }, selection, room, notes)
}

/// The pieces of all files, handed out one after the other.
struct Text<'a> {
    files: &'a [&'a Path],
    encoding: Encoding,
    open: Option<(usize, Chunks, bool)>,
    next: usize,
    failed: bool,
    notes: Notes,
}

/// Notes about files: how many there are of each kind, and the first of them.
#[derive(Default)]
struct Notes {
    // By encoding, and how it was recognised.
    seen: BTreeMap<(&'static str, &'static str), (usize, usize)>,
    // Files that grew: the first one, and the bytes added to all of them.
    grown: Option<(usize, usize, u64)>,
}

impl Notes {
    fn opened(&mut self, file: usize, chunks: &Chunks) {
        if let Some(seen) = chunks.seen() {
            self.seen.entry(seen).or_insert((0, file)).0 += 1;
        }
    }

    fn done(&mut self, file: usize, chunks: &Chunks) {
        if let Some(more) = chunks.grown() {
            let (count, first, bytes) = self.grown.unwrap_or((0, file, 0));
            self.grown = Some((count + 1, first, bytes + more));
        }
    }

    fn lines(&self, files: &[&Path]) -> Vec<String> {
        let name = |count: usize, first: usize| match count {
            1 => shown(files[first]),
            count => format!("{count} files, {} the first of them,", shown(files[first])),
        };
        let read = |((encoding, by), (count, first)): (&(&str, &str), &(usize, usize))| {
            format!("{}: read as {encoding}, known by {by}; data.encoding names another", name(*count, *first))
        };
        let grown = |(count, first, bytes): (usize, usize, u64)| {
            format!("{}: grew by {bytes} bytes while being read, which are left out", name(count, first))
        };
        self.seen.iter().map(read).chain(self.grown.map(grown)).collect()
    }
}

/// A piece that was read: its number and its file.
#[derive(Clone, Copy)]
struct Opened {
    number: usize,
    file: usize,
    // Whether a file begins with it.
    first: bool,
}

impl Text<'_> {
    fn take(&mut self) -> Option<(Opened, Result<Chunk>)> {
        while !self.failed {
            let file = match &mut self.open {
                Some((file, chunks, first)) => {
                    if let Some(chunk) = chunks.next() {
                        let opened = Opened { number: self.next, file: *file, first: std::mem::take(first) };
                        self.next += 1;
                        self.failed = chunk.is_err();
                        return Some((opened, chunk));
                    }
                    self.notes.done(*file, chunks);
                    *file + 1
                }
                None => 0,
            };
            let path = self.files.get(file)?;
            match Chunks::text(path, self.encoding) {
                Ok(chunks) => {
                    self.notes.opened(file, &chunks);
                    self.open = Some((file, chunks, true));
                }
                Err(e) => {
                    self.failed = true;
                    return Some((Opened { number: self.next, file, first: true }, Err(e)));
                }
            }
        }
        None
    }
}

/// A piece as numbers of its thread's table.
struct Piece {
    opened: Opened,
    stream: Vec<u32>,
    // The place of the first replacement, and the number of replacements.
    replaced: Option<(u64, u64)>,
    origin: Origin,
}

/// The pieces so far, in order, each as numbers of a table.
struct Joined<'a, 'r> {
    numbers: Numbers,
    room: &'a mut Room<'r>,
    // The number of tables that were begun.
    tables: usize,
    // The table of each range of numbers.
    parts: Vec<(usize, Range<usize>)>,
    // Pieces that were finished before their turn.
    early: BTreeMap<usize, (usize, Piece)>,
    next: usize,
    // A file, the place of its first replacement, their number, and the origin of the place.
    replaced: Vec<(usize, u64, u64, Origin)>,
}

impl<'a, 'r> Joined<'a, 'r> {
    fn new(room: &'a mut Room<'r>) -> Self {
        let (numbers, tables, parts, early, next, replaced) = Default::default();
        Joined { numbers, room, tables, parts, early, next, replaced }
    }

    fn table(&mut self) -> usize {
        self.tables += 1;
        self.tables - 1
    }

    fn folder(&mut self) -> Result<PathBuf> {
        (self.room.folder)()
    }

    fn add(&mut self, table: usize, piece: Piece) -> Result<()> {
        self.early.insert(piece.opened.number, (table, piece));
        while let Some((table, piece)) = self.early.remove(&self.next) {
            self.next += 1;
            if let Some((at, count)) = piece.replaced {
                self.replaced.push((piece.opened.file, at, count, piece.origin));
            }
            let start = self.numbers.len();
            let open = self.numbers.last().is_some_and(|last| last != END);
            let ends = piece.stream.first() == Some(&END);
            // The end of the previous file ends its last line.
            if open && piece.opened.first && !ends {
                self.numbers.extend(&[END], self.room)?;
            }
            self.numbers.extend(&piece.stream[usize::from(ends && !open)..], self.room)?;
            self.parts.push((table, start..self.numbers.len()));
        }
        Ok(())
    }

    /// Notes about replaced bytes, file by file.
    fn notes(&self, files: &[&Path]) -> Vec<String> {
        let mut notes = Vec::new();
        for of_file in self.replaced.chunk_by(|a, b| a.0 == b.0) {
            let (file, at, _, origin) = of_file[0];
            let count: u64 = of_file.iter().map(|(.., count, _)| count).sum();
            let (place, wanted) = (origin.place(files[file], at), origin.encoding.unwrap_or("UTF-8"));
            notes.push(format!("replaced {count} runs of bytes that are not {wanted}, the first at {place}"));
        }
        notes
    }
}

/// One thread's state.
struct Worker {
    // The open table, and its number among all tables.
    words: Words,
    table: usize,
    // The number of words at which a table is full.
    full: usize,
    // Tables that are full.
    filed: Vec<(usize, SortedRun)>,
    failed: Option<(usize, Error)>,
}

impl Worker {
    fn new(joined: &Mutex<Joined>, full: usize) -> Worker {
        Worker { words: Words::default(), table: lock(joined).table(), full, filed: Vec::new(), failed: None }
    }

    fn run(mut self, text: &Mutex<Text>, reading: &Reading, joined: &Mutex<Joined>) -> Worker {
        loop {
            let (taken, files) = {
                let mut text = lock(text);
                (text.take(), text.files)
            };
            let Some((opened, chunk)) = taken else { return self };
            let piece = chunk.and_then(|chunk| self.piece(opened, chunk, reading, files[opened.file]));
            let added = piece.and_then(|piece| lock(joined).add(self.table, piece));
            if let Err(e) = added.and_then(|()| self.put_away_if_full(joined)) {
                lock(text).failed = true;
                self.failed = Some((opened.number, e));
                return self;
            }
        }
    }

    /// Begins a new table if the open one has no room for another word.
    fn put_away_if_full(&mut self, joined: &Mutex<Joined>) -> Result<()> {
        if self.words.len() < self.full {
            return Ok(());
        }
        let (folder, next) = {
            let mut joined = lock(joined);
            (joined.folder()?, joined.table())
        };
        let run = std::mem::take(&mut self.words).sorted().into_file(&folder)?;
        self.filed.push((std::mem::replace(&mut self.table, next), run));
        Ok(())
    }

    fn piece(&mut self, opened: Opened, mut chunk: Chunk, reading: &Reading, path: &Path) -> Result<Piece> {
        let mut piece = Piece { opened, stream: Vec::new(), replaced: None, origin: chunk.origin };
        let stream = &mut piece.stream;
        stream.reserve(chunk.bytes.len() / 5);
        // Control characters other than white space are parts of words.
        let plain = |b: &u8| b.is_ascii() && (*b >= b' ' || (b'\t'..=b'\r').contains(b));
        if matches!(reading.tokens, Tokens::Whitespace) && reading.phrases.is_empty() && chunk.bytes.iter().all(plain) {
            if reading.lowercase {
                chunk.bytes.make_ascii_lowercase();
            }
            self.words.scan(&chunk.bytes, stream);
        } else {
            let text = match std::str::from_utf8(&chunk.bytes) {
                Ok(text) => std::borrow::Cow::Borrowed(text),
                Err(e) => {
                    let at = chunk.offset + e.valid_up_to() as u64;
                    if reading.invalid == Invalid::Refuse {
                        let byte = chunk.bytes[e.valid_up_to()];
                        return Err(chunk.origin.refusal(byte).at(chunk.origin.place(path, at)));
                    }
                    let bad = chunk.bytes.utf8_chunks().filter(|c| !c.invalid().is_empty()).count() as u64;
                    piece.replaced = Some((at, bad));
                    String::from_utf8_lossy(&chunk.bytes)
                }
            };
            for line in text.split_inclusive('\n') {
                reading.words(line, |word| stream.push(self.words.number(word)))?;
                // A line end before any word counts: it may end a line of the piece before.
                if line.ends_with('\n') && stream.last() != Some(&END) {
                    stream.push(END);
                }
            }
        }
        Ok(piece)
    }
}
