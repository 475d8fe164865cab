//! Final word numbers: merges the counts of all threads, sorts the kept words by frequency, and translates the stream to their numbers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use super::blocks::{CloseUp, Cut, DROPPED};
use super::numbers::{Numbers, Room};
use super::tally::{HINT, PLACE, SortedRun, merge, temporary};
use super::words::Hash;
use super::{Corpus, Found, Limits, Selection, phrases};
use crate::vocabulary::Vocabulary;

/// A text as numbers of several tables.
pub struct Stream {
    /// The numbers.
    pub numbers: Numbers,
    /// The table of each range of numbers, in order.
    pub parts: Vec<(usize, Range<usize>)>,
    /// The tables, sorted by word.
    pub runs: Vec<SortedRun>,
}

/// Gives the words their final numbers, and drops words that are not kept.
///
/// # Errors
/// No words; fewer than two words left; no line with two of them; a file that cannot be written or read.
pub fn finish(stream: Stream, selection: &Selection, room: &mut Room, mut notes: Vec<String>) -> Result<Corpus> {
    let Stream { mut numbers, parts, runs } = stream;
    let filed = runs.iter().filter(|run| run.filed()).count();
    if filed > 0 {
        notes.push(format!(
            "different words are more than vocabulary.in_memory: they were counted in {filed} files, which takes longer and \
             changes nothing"
        ));
    }
    let limits = selection.limits;
    let phrases = selection.phrases.as_ref().filter(|phrases| phrases.passes > 0);
    // Phrases need every word that can be part of one.
    let lowest = phrases.map_or(limits.min_count, |phrases| limits.min_count.min(phrases.min_count.saturating_add(1)));
    let mut counted = Counted::new(runs, selection.known, lowest, room)?;
    if counted.tokens == 0 {
        return Err(
            Error::new("the corpus is empty: there is no word in it").hint("give text files with one document on each line")
        );
    }
    let locals = std::mem::take(&mut counted.locals);
    let (tokens, different) = (counted.tokens, counted.different);
    let (mut close, mut cut) = (CloseUp::default(), Cut::default());
    let mut closed = |part: &mut Vec<u32>| {
        close.up(part);
        cut.push(part);
    };
    let mut found = Found::default();
    let vocabulary = if let Some(phrases) = phrases {
        translate(&mut numbers, parts, locals, |c| c, |_| ())?;
        let (of_text, note) = phrases::join(&mut numbers, &mut counted, phrases, selection.in_memory, room)?;
        notes.push(note);
        found = of_text;
        let (vocabulary, rank) = counted.select(limits, different)?;
        numbers.rewrite(numbers.parts(), |_, part| {
            part.iter_mut().filter(|word| **word < DROPPED).for_each(|word| *word = rank[*word as usize]);
            closed(part);
            Ok(())
        })?;
        vocabulary
    } else {
        let (vocabulary, rank) = counted.select(limits, different)?;
        translate(&mut numbers, parts, locals, |c| rank[c as usize], closed)?;
        vocabulary
    };
    let Some(blocks) = cut.finish() else {
        return Err(Error::new("no line of the corpus holds two words of the vocabulary: there is no pair to learn from").hint(
            "a line is a document: windows do not cross its end. Put whole texts on lines, or lower vocabulary.min_count",
        ));
    };
    Ok(Corpus { stream: numbers, blocks, vocabulary, tokens, phrases: found, notes })
}

/// Candidate words, numbered in the order of their bytes.
pub struct Counted {
    /// The words.
    pub words: Vec<Box<str>>,
    /// The count of each word.
    pub counts: Vec<u64>,
    /// The number of words in the text, dropped ones included.
    pub tokens: u64,
    // The number of different words.
    different: u64,
    // The number and the numbers of words that are kept whatever their count.
    known: Vec<bool>,
    // The translation of each table's numbers to these.
    locals: Vec<Local>,
}

impl Counted {
    /// Merges the counts of `runs`. `known` words are kept, and words that occur at least `lowest` times.
    fn new(runs: Vec<SortedRun>, known: &[String], lowest: u64, room: &mut Room) -> Result<Counted> {
        let mut locals = Vec::with_capacity(runs.len());
        for run in &runs {
            locals.push(if run.filed() { Local::in_file(run.len(), &(room.folder)()?)? } else { Local::in_memory(run.len()) });
        }
        let mut left: HashSet<&[u8], Hash> = known.iter().map(|word| word.as_bytes()).collect();
        let (words, counts, known_ones) = Default::default();
        let mut all = Counted { words, counts, tokens: 0, different: 0, known: known_ones, locals };
        merge(runs, |word, count, places| {
            all.tokens += count;
            all.different += 1;
            let is_known = left.remove(word);
            if is_known || count >= lowest {
                let number = all.words.len() as u32;
                all.push(std::str::from_utf8(word).map_err(Error::new).at(PLACE)?, count);
                all.known[number as usize] = is_known;
                places.iter().try_for_each(|&(run, local)| all.locals[run].set(local, number))?;
            }
            Ok(())
        })?;
        for word in known.iter().filter(|word| left.contains(word.as_bytes())) {
            all.push(word, 0);
            all.known[all.words.len() - 1] = true;
        }
        Ok(all)
    }

    /// Adds a word.
    pub fn push(&mut self, word: &str, count: u64) {
        self.words.push(word.into());
        self.counts.push(count);
        self.known.push(false);
    }

    /// The kept words by falling count, and the final number of each word.
    fn select(self, limits: Limits, different: u64) -> Result<(Vocabulary, Vec<u32>)> {
        let Counted { words, counts, known, .. } = self;
        let mut order: Vec<usize> = (0..words.len()).filter(|&i| known[i] || counts[i] >= limits.min_count).collect();
        // Equal counts are ordered by word: the order must not depend on where a word was first seen.
        order.par_sort_unstable_by(|&a, &b| counts[b].cmp(&counts[a]).then_with(|| words[a].cmp(&words[b])));
        let of_known = known.iter().filter(|known| **known).count();
        let mut left = limits.max_size.unwrap_or(usize::MAX).saturating_sub(of_known);
        order.retain(|&i| {
            let kept = known[i] || left > 0;
            left -= usize::from(kept && !known[i]);
            kept
        });
        if order.len() < 2 {
            return Err(Error::new(format!(
                "the vocabulary has {} of the corpus's {different} different words: word2vec needs at least two",
                ["none", "one"][order.len()]
            ))
            .hint(format!("lower vocabulary.min_count (it is {}), or give more text", limits.min_count)));
        }
        let mut rank = vec![DROPPED; words.len()];
        order.iter().enumerate().for_each(|(new, &old)| rank[old] = new as u32);
        let counts = order.iter().map(|&i| counts[i]).collect();
        let mut words: Vec<Option<Box<str>>> = words.into_iter().map(Some).collect();
        let words = order.into_iter().map(|i| String::from(words[i].take().expect("each once"))).collect();
        Ok((Vocabulary::new(words, counts), rank))
    }
}

/// The translation of one table's numbers to common numbers. If the table went to a file, so does this: however long a text is, only the
/// tables in use are in memory.
enum Local {
    Memory(Vec<u32>),
    // Pairs of both numbers, for the kept words.
    File { pairs: BufWriter<File>, len: usize },
}

impl Local {
    fn in_memory(len: usize) -> Local {
        Local::Memory(vec![DROPPED; len])
    }

    fn in_file(len: usize, folder: &Path) -> Result<Local> {
        Ok(Local::File { pairs: BufWriter::with_capacity(1 << 15, temporary(folder)?), len })
    }

    fn set(&mut self, local: u32, number: u32) -> Result<()> {
        match self {
            Local::Memory(numbers) => numbers[local as usize] = number,
            Local::File { pairs, .. } => pairs.write_all(bytemuck::bytes_of(&[local, number])).at(PLACE).hint(HINT)?,
        }
        Ok(())
    }

    /// The translation by local number, mapped by `of`; words that are not kept are [`DROPPED`].
    fn load(self, of: impl Fn(u32) -> u32) -> Result<Vec<u32>> {
        match self {
            Local::Memory(mut numbers) => {
                numbers.iter_mut().filter(|number| **number != DROPPED).for_each(|number| *number = of(*number));
                Ok(numbers)
            }
            Local::File { pairs, len } => {
                let mut file = pairs.into_inner().map_err(|e| e.into_error()).at(PLACE).hint(HINT)?;
                let pairs = file.stream_position().at(PLACE)? / 8;
                file.rewind().at(PLACE)?;
                let (mut file, mut numbers) = (BufReader::with_capacity(1 << 15, file), vec![DROPPED; len]);
                for _ in 0..pairs {
                    let mut pair = [0u32; 2];
                    file.read_exact(bytemuck::cast_slice_mut(&mut pair)).at(PLACE)?;
                    numbers[pair[0] as usize] = of(pair[1]);
                }
                Ok(numbers)
            }
        }
    }
}

/// Replaces the tables' numbers by what `of` makes of the common ones, and passes each part on to `then`.
fn translate(
    numbers: &mut Numbers,
    parts: Vec<(usize, Range<usize>)>,
    locals: Vec<Local>,
    of: impl Fn(u32) -> u32 + Sync,
    mut then: impl FnMut(&mut Vec<u32>),
) -> Result<()> {
    let to = |local: &[u32], part: &mut [u32]| {
        part.iter_mut().filter(|word| **word < DROPPED).for_each(|word| *word = local[*word as usize]);
    };
    if let Some(memory) = numbers.in_memory() {
        let locals: Vec<Vec<u32>> = locals.into_par_iter().map(|local| local.load(&of)).collect::<Result<_>>()?;
        let mut rest = &mut memory[..];
        let mut slices = Vec::with_capacity(parts.len());
        for (table, part) in &parts {
            let (slice, behind) = std::mem::take(&mut rest).split_at_mut(part.len());
            rest = behind;
            slices.push((*table, slice));
        }
        slices.into_par_iter().for_each(|(table, slice)| to(&locals[table], slice));
        return numbers.rewrite(parts.into_iter().map(|(_, part)| part), |_, part| {
            then(part);
            Ok(())
        });
    }
    // Kept from a table's first part to its last: threads change tables in the course of the text.
    let ends: HashMap<usize, usize> = parts.iter().enumerate().map(|(place, (table, _))| (*table, place)).collect();
    let mut locals: Vec<Option<Local>> = locals.into_iter().map(Some).collect();
    let mut open = HashMap::<usize, Vec<u32>>::new();
    let tables: Vec<usize> = parts.iter().map(|(table, _)| *table).collect();
    numbers.rewrite(parts.into_iter().map(|(_, part)| part), |place, part| {
        let table = tables[place];
        if let Some(local) = locals[table].take() {
            open.insert(table, local.load(&of)?);
        }
        to(&open[&table], part);
        if ends[&table] == place {
            open.remove(&table);
        }
        then(part);
        Ok(())
    })
}
