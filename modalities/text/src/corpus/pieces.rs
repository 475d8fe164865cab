//! From files to one stream of numbers: pieces of text are read in turn, numbered on all threads, and joined in order.
//!
//! Each thread numbers words for itself, for as long as there is text; when all are done, words get their final numbers, by
//! falling count, and the stream is translated. The result does not hang on which thread had what.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use super::files::{Chunk, Chunks, shown};
use super::numbers::{Numbers, Room};
use super::words::{Hash, Words};
use super::{BLOCK, Corpus, END, Invalid, Limits, Reading, Tokens, lock, place};
use crate::vocabulary::Vocabulary;

/// In place of a word that is not kept.
const DROPPED: u32 = END - 1;

/// Numbers the words of `files`, in order.
pub fn number(files: &[&Path], reading: &Reading, limits: Limits, room: &mut Room) -> Result<Corpus> {
    let place = match files {
        [only] => shown(only),
        _ => format!("{} files", files.len()),
    };
    let text = Mutex::new(Text { files, open: None, next: 0, failed: false });
    let joined = Mutex::new(Joined::new(room));
    let threads = 0..rayon::current_num_threads();
    let run = |me| Worker::run(me, &text, reading, &joined);
    let mut workers: Vec<Worker> = threads.into_par_iter().with_max_len(1).map(run).collect();
    let failed = workers.iter_mut().filter_map(|worker| worker.failed.take()).min_by_key(|(number, _)| *number);
    if let Some((_, e)) = failed {
        return Err(e);
    }
    let joined = joined.into_inner().unwrap_or_else(PoisonError::into_inner);
    let notes = joined.notes(files);
    finish(joined, workers, limits, notes).at(place)
}

/// Numbers the words of a text that is in memory already, between white space.
pub fn number_text(text: &str, limits: Limits) -> Result<Corpus> {
    let mut worker = Worker::default();
    let chunk = Chunk { bytes: text.as_bytes().to_vec(), offset: 0, compressed: false };
    let opened = Opened { number: 0, file: 0, first: true };
    let mut room = Room { limit: usize::MAX, folder: &mut || Ok(std::env::temp_dir()) };
    let mut joined = Joined::new(&mut room);
    joined.add(0, worker.piece(opened, chunk, &Reading::default(), Path::new("text"))?)?;
    finish(joined, vec![worker], limits, Vec::new())
}

/// The pieces of all files, to be taken by whoever has time.
struct Text<'a> {
    files: &'a [&'a Path],
    open: Option<(usize, Chunks, bool)>,
    next: usize,
    failed: bool,
}

/// Which piece it is.
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
                    *file + 1
                }
                None => 0,
            };
            let path = self.files.get(file)?;
            match Chunks::open(path) {
                Ok(chunks) => self.open = Some((file, chunks, true)),
                Err(e) => {
                    self.failed = true;
                    return Some((Opened { number: self.next, file, first: true }, Err(e)));
                }
            }
        }
        None
    }
}

/// One piece under its worker's numbers.
struct Piece {
    opened: Opened,
    stream: Vec<u32>,
    // Where the first replacement was made, and how many there were.
    replaced: Option<(u64, u64)>,
    compressed: bool,
}

/// The pieces so far, in order, under their workers' numbers.
struct Joined<'a, 'r> {
    stream: Numbers,
    room: &'a mut Room<'r>,
    // Where each worker's numbers stand.
    parts: Vec<(usize, Range<usize>)>,
    // Pieces that were done before their turn.
    early: BTreeMap<usize, (usize, Piece)>,
    next: usize,
    // File, place of its first replacement, their number, and whether the place is one of decompressed text.
    replaced: Vec<(usize, u64, u64, bool)>,
}

impl<'a, 'r> Joined<'a, 'r> {
    fn new(room: &'a mut Room<'r>) -> Self {
        let (stream, parts, early, next, replaced) = Default::default();
        Joined { stream, room, parts, early, next, replaced }
    }

    fn add(&mut self, worker: usize, piece: Piece) -> Result<()> {
        self.early.insert(piece.opened.number, (worker, piece));
        while let Some((worker, piece)) = self.early.remove(&self.next) {
            self.next += 1;
            if let Some((at, count)) = piece.replaced {
                self.replaced.push((piece.opened.file, at, count, piece.compressed));
            }
            let open = self.stream.last().is_some_and(|last| last != END);
            let ends = piece.stream.first() == Some(&END);
            // The end of the file before ends its last line.
            if open && piece.opened.first && !ends {
                self.stream.extend(&[END], self.room)?;
            }
            let start = self.stream.len();
            self.stream.extend(&piece.stream[usize::from(ends && !open)..], self.room)?;
            self.parts.push((worker, start..self.stream.len()));
        }
        Ok(())
    }

    /// What was replaced, file by file.
    fn notes(&self, files: &[&Path]) -> Vec<String> {
        let mut notes = Vec::new();
        for of_file in self.replaced.chunk_by(|a, b| a.0 == b.0) {
            let (file, at, _, compressed) = of_file[0];
            let count: u64 = of_file.iter().map(|(.., count, _)| count).sum();
            let place = place(files[file], at, compressed);
            notes.push(format!("replaced {count} stretches of bytes that are not UTF-8, the first at {place}"));
        }
        notes
    }
}

#[derive(Default)]
struct Worker {
    words: Words,
    failed: Option<(usize, Error)>,
}

impl Worker {
    fn run(me: usize, text: &Mutex<Text>, reading: &Reading, joined: &Mutex<Joined>) -> Worker {
        let mut worker = Worker::default();
        loop {
            let (taken, files) = {
                let mut text = lock(text);
                (text.take(), text.files)
            };
            let Some((opened, chunk)) = taken else { return worker };
            let piece = chunk.and_then(|chunk| worker.piece(opened, chunk, reading, files[opened.file]));
            match piece.and_then(|piece| lock(joined).add(me, piece)) {
                Ok(()) => {}
                Err(e) => {
                    lock(text).failed = true;
                    worker.failed = Some((opened.number, e));
                    return worker;
                }
            }
        }
    }

    fn piece(&mut self, opened: Opened, mut chunk: Chunk, reading: &Reading, path: &Path) -> Result<Piece> {
        let mut piece = Piece { opened, stream: Vec::new(), replaced: None, compressed: chunk.compressed };
        let stream = &mut piece.stream;
        stream.reserve(chunk.bytes.len() / 5);
        // Control characters that are no white space are parts of words.
        let plain = |b: &u8| b.is_ascii() && (*b >= b' ' || (b'\t'..=b'\r').contains(b));
        if matches!(reading.tokens, Tokens::Whitespace) && chunk.bytes.iter().all(plain) {
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
                        return Err(Error::new(format!("this is not UTF-8: byte 0x{byte:02x} belongs to no character"))
                            .at(place(path, at, chunk.compressed))
                            .hint("convert the file (iconv -t utf-8), or set data.invalid = \"replace\""));
                    }
                    let bad = chunk.bytes.utf8_chunks().filter(|c| !c.invalid().is_empty()).count() as u64;
                    piece.replaced = Some((at, bad));
                    String::from_utf8_lossy(&chunk.bytes)
                }
            };
            for line in text.split_inclusive('\n') {
                reading.words(line, |word| stream.push(self.words.number(word)))?;
                // An end before any word counts: it may close the line of the piece before.
                if line.ends_with('\n') && stream.last() != Some(&END) {
                    stream.push(END);
                }
            }
        }
        Ok(piece)
    }
}

/// Gives words their final numbers, and drops those that are not kept.
fn finish(joined: Joined, workers: Vec<Worker>, limits: Limits, notes: Vec<String>) -> Result<Corpus> {
    let Joined { mut stream, parts, .. } = joined;
    let (mut words, mut names, mut sizes) = (HashMap::<Box<str>, u64, Hash>::default(), Vec::new(), Vec::new());
    for (number, worker) in workers.into_iter().enumerate() {
        let counts = worker.words.counts().to_vec();
        sizes.push(counts.len());
        for (word, local) in worker.words.into_words() {
            *words.entry(word.clone()).or_default() += counts[local as usize];
            names.push((number, local, word));
        }
    }
    let tokens: u64 = words.values().sum();
    if tokens == 0 {
        return Err(Error::new("the corpus is empty: there is no word in it").hint("give text files with one document a line"));
    }
    let different = words.len();
    let mut order: Vec<(Box<str>, u64)> = words.into_iter().filter(|(_, count)| *count >= limits.min_count).collect();
    // Ties by word: the order must not hang on where a word was first seen.
    order.par_sort_unstable_by(|(a, i), (b, j)| j.cmp(i).then_with(|| a.cmp(b)));
    order.truncate(limits.max_size.unwrap_or(usize::MAX));
    if order.len() < 2 {
        return Err(Error::new(format!(
            "the vocabulary has {} of the corpus's {different} different words: word2vec needs at least two",
            ["none", "one"][order.len()]
        ))
        .hint(format!("lower vocabulary.min_count (it is {}), or give more text", limits.min_count)));
    }
    let last: HashMap<&str, u32, Hash> = order.iter().enumerate().map(|(new, (word, _))| (&**word, new as u32)).collect();
    let mut numbers: Vec<Vec<u32>> = sizes.into_iter().map(|size| vec![DROPPED; size]).collect();
    for (worker, local, word) in &names {
        if let Some(&number) = last.get(&**word) {
            numbers[*worker][*local as usize] = number;
        }
    }
    drop((names, last));

    let Some(blocks) = translate(&mut stream, parts, &numbers)? else {
        return Err(Error::new("no line of the corpus holds two words of the vocabulary: there is no pair to learn from").hint(
            "a line is a document: windows do not cross its end. Put whole texts on lines, or lower vocabulary.min_count",
        ));
    };
    let (words, counts) = order.into_iter().map(|(word, count)| (String::from(word), count)).unzip();
    Ok(Corpus { stream, blocks, vocabulary: Vocabulary::new(words, counts), tokens, notes })
}

/// Final numbers for the workers'; words that are dropped close up. The blocks, unless no line has two words.
fn translate(stream: &mut Numbers, parts: Vec<(usize, Range<usize>)>, numbers: &[Vec<u32>]) -> Result<Option<Vec<Range<usize>>>> {
    let of = |worker: usize, slice: &mut [u32]| {
        slice.iter_mut().filter(|word| **word != END).for_each(|word| *word = numbers[worker][*word as usize]);
    };
    let (mut close, mut cut) = (CloseUp::default(), Cut::default());
    if let Some(memory) = stream.in_memory() {
        let mut rest = &mut memory[..];
        let mut slices = Vec::with_capacity(parts.len());
        let mut at = 0;
        for (worker, part) in parts {
            // Between parts stand ends of files, which stay.
            let (slice, behind) = std::mem::take(&mut rest)[part.start - at..].split_at_mut(part.len());
            (rest, at) = (behind, part.end);
            slices.push((worker, slice));
        }
        slices.into_par_iter().for_each(|(worker, slice)| of(worker, slice));
        let kept = close.up(memory);
        cut.push(&memory[..kept]);
    } else {
        let (mut buffer, mut from) = (Vec::new(), 0);
        for (worker, part) in parts {
            let start = part.start - from;
            stream.get(from..part.end, &mut buffer)?;
            from = part.end;
            of(worker, &mut buffer[start..]);
            // What is written never reaches what is still to be read.
            let (at, kept) = (cut.at, close.up(&mut buffer));
            stream.set(at, &buffer[..kept])?;
            cut.push(&buffer[..kept]);
        }
    }
    stream.truncate(cut.at);
    Ok(cut.finish())
}

/// Takes out words that were dropped, and the ends of lines that are empty then.
struct CloseUp {
    // Whether what was kept last, if anything, ended a line.
    ended: bool,
}

impl Default for CloseUp {
    fn default() -> Self {
        CloseUp { ended: true }
    }
}

impl CloseUp {
    /// Moves what is kept of `stream`, the next part, to its front; how much that is.
    fn up(&mut self, stream: &mut [u32]) -> usize {
        let mut to = 0;
        for from in 0..stream.len() {
            let word = stream[from];
            stream[to] = word;
            let kept = word < DROPPED || (word == END && !self.ended);
            to += usize::from(kept);
            self.ended = if kept { word == END } else { self.ended };
        }
        to
    }
}

/// Packs whole short lines into blocks and cuts lines that are longer than one.
#[derive(Default)]
pub(super) struct Cut {
    blocks: Vec<Range<usize>>,
    // The block that is open: where it starts, and its words in lines that are whole.
    start: usize,
    words: usize,
    // Where the open line starts.
    line: usize,
    at: usize,
    pair: bool,
}

impl Cut {
    /// The next part of the stream.
    pub(super) fn push(&mut self, part: &[u32]) {
        for end in part.iter().enumerate().filter(|(_, id)| **id == END).map(|(at, _)| at) {
            self.end_line(self.at + end);
        }
        self.at += part.len();
    }

    fn end_line(&mut self, end: usize) {
        let mut line = self.line;
        self.pair |= end - line > 1;
        if self.words + (end - line) > BLOCK {
            if self.words > 0 {
                self.blocks.push(self.start..line);
                self.words = 0;
            }
            while line + BLOCK < end {
                self.blocks.push(line..line + BLOCK);
                line += BLOCK;
            }
            self.start = line;
        }
        self.words += end - line;
        self.line = end + 1;
    }

    /// All blocks, if there is a line of two words.
    pub(super) fn finish(mut self) -> Option<Vec<Range<usize>>> {
        if self.line < self.at {
            self.end_line(self.at);
        }
        if self.words > 0 {
            self.blocks.push(self.start..self.at);
        }
        self.pair.then_some(self.blocks)
    }
}
