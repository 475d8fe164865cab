//! Phrases: neighbouring words that occur together far more often than by chance become one word (Mikolov et al. 2013, §4; word2phrase.c).
//!
//! A pair's score is (count(ab) − min_count) / (count(a)·count(b)) · number of words in the text. If it is above the threshold, a and b are
//! joined, from left to right; a word that was joined does not begin another pair. A further pass over the result joins longer phrases.
//! Pairs are counted exactly: counts that do not fit into memory go through sorted files, as for words.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_core::{Error, Result};
use rayon::prelude::*;

use super::blocks::DROPPED;
use super::lock;
use super::numbering::Counted;
use super::numbers::{Numbers, Room};
use super::tally::{Sorted, SortedRun, merge};
use super::words::Hash;

/// Which neighbours become one word.
#[derive(Clone, Debug, PartialEq)]
pub struct Phrases {
    /// The number of passes over the text; each may double the length of phrases. 0 joins nothing.
    pub passes: usize,
    /// The score above which two words are joined.
    pub threshold: f64,
    /// Subtracted from a pair's count; rarer pairs and words are never joined.
    pub min_count: u64,
    /// The text between the words of a phrase.
    pub joiner: String,
}

/// The phrases of a text by pass, so that later texts are joined alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    joiner: String,
    // Both words of each phrase, with a space between.
    passes: Vec<BTreeSet<String>>,
}

/// The largest number of words in a phrase that is split by its spelling alone.
const PARTS: usize = 16;

impl Found {
    /// Whether there is no phrase.
    pub fn is_empty(&self) -> bool {
        self.passes.iter().all(BTreeSet::is_empty)
    }

    /// How many phrases there are.
    pub fn len(&self) -> usize {
        self.passes.iter().map(BTreeSet::len).sum()
    }

    /// Joins the words of one line.
    pub fn join(&self, mut words: Vec<String>) -> Vec<String> {
        let mut pair = String::new();
        for pass in self.passes.iter().filter(|pass| !pass.is_empty()) {
            let mut out: Vec<String> = Vec::with_capacity(words.len());
            // The last word, while it may still begin a phrase.
            let mut open = false;
            for word in words {
                if open && let Some(last) = out.last_mut() {
                    pair.clear();
                    [last.as_str(), " ", &word].iter().for_each(|part| pair.push_str(part));
                    if pass.contains(&pair) {
                        last.push_str(&self.joiner);
                        last.push_str(&word);
                        open = false;
                        continue;
                    }
                }
                out.push(word);
                open = true;
            }
            words = out;
        }
        words
    }

    /// Lines `pass<TAB>first<TAB>second` after a header with these names and the joiner: `phrases.tsv` of a checkpoint.
    pub fn to_tsv(&self) -> String {
        let mut out = format!("pass\tfirst\tsecond\t{}\n", self.joiner);
        for (pass, pairs) in self.passes.iter().enumerate() {
            pairs.iter().for_each(|pair| out.push_str(&format!("{pass}\t{}\n", pair.replace(' ', "\t"))));
        }
        out
    }

    /// Parses what [`to_tsv`](Self::to_tsv) wrote.
    ///
    /// # Errors
    /// Any other bytes, with the line.
    pub fn from_bytes(bytes: &[u8]) -> Result<Found> {
        let wrong = |line: usize| Error::new("not a pass, a tab and both words of a phrase").at(format!("phrases.tsv:{line}"));
        let text = std::str::from_utf8(bytes).map_err(|_| Error::new("this is not UTF-8").at("phrases.tsv"))?;
        let mut lines = text.split_terminator('\n').enumerate();
        let head = lines.next().and_then(|(_, line)| line.strip_prefix("pass\tfirst\tsecond\t"));
        let mut found = Found { joiner: head.ok_or_else(|| wrong(1))?.to_string(), passes: Vec::new() };
        for (number, line) in lines {
            let fields: Vec<&str> = line.split('\t').collect();
            let pass = fields[0].parse::<usize>().ok().filter(|pass| *pass < 64);
            let (Some(pass), [_, first, second]) = (pass, &fields[..]) else { return Err(wrong(number + 1)) };
            let passes = found.passes.len().max(pass + 1);
            found.passes.resize(passes, BTreeSet::new());
            found.passes[pass].insert(format!("{first} {second}"));
        }
        Ok(found)
    }

    /// Phrases derived from the spelling of a vocabulary alone: every split of its words into two at `joiner`, in each of `passes` passes.
    pub fn by_spelling<'a>(words: impl IntoIterator<Item = &'a str>, joiner: &str, passes: usize) -> Found {
        let mut pairs = BTreeSet::new();
        for word in words {
            let parts: Vec<&str> = word.split(joiner).collect();
            if parts.len() < 2 || parts.len() > PARTS || parts.contains(&"") {
                continue;
            }
            // Longer phrases are made of shorter ones. In a single pass they cannot be, so there further joiners belong to the text's own
            // words.
            let shortest = if passes == 1 { parts.len() } else { 2 };
            for length in shortest..=parts.len() {
                for part in parts.windows(length) {
                    (1..length).for_each(|at| {
                        pairs.insert(format!("{} {}", part[..at].join(joiner), part[at..].join(joiner)));
                    });
                }
            }
        }
        Found { joiner: joiner.to_string(), passes: vec![pairs; passes] }
    }
}

type Pair = (u32, u32);

/// Joins the phrases of a text of `words`. Numbers that are not words stay in place, and no phrase crosses them. At most `in_memory` pairs
/// are counted in memory at once. Also returns a note about the phrases found.
///
/// # Errors
/// A file of counts cannot be written or read.
pub fn join(
    numbers: &mut Numbers,
    words: &mut Counted,
    how: &Phrases,
    in_memory: usize,
    room: &mut Room,
) -> Result<(Found, String)> {
    let mut total = words.tokens;
    // A phrase that is spelled like an existing word is that word.
    let of_phrase = |word: &str| word.contains(&how.joiner);
    let mut spelled: HashMap<Box<str>, u32, Hash> =
        words.words.iter().enumerate().filter(|(_, word)| of_phrase(word)).map(|(i, word)| (word.clone(), i as u32)).collect();
    let mut found = Found { joiner: how.joiner.clone(), passes: Vec::new() };
    for _ in 0..how.passes {
        let mut names = BTreeSet::new();
        let mut joined = HashMap::<Pair, u32, Hash>::default();
        let mut begins = vec![false; words.words.len()];
        for (a, b) in pairs(numbers, &words.counts, total, how, in_memory, room)? {
            let (first, second) = (&words.words[a as usize], &words.words[b as usize]);
            let name = format!("{first}{}{second}", how.joiner);
            names.insert(format!("{first} {second}"));
            let number = *spelled.entry(name.as_str().into()).or_insert_with(|| {
                words.push(&name, 0);
                words.words.len() as u32 - 1
            });
            joined.insert((a, b), number);
            begins[a as usize] = true;
        }
        found.passes.push(names);
        if joined.is_empty() {
            break;
        }
        total -= replace(numbers, &joined, &begins, &mut words.counts)?;
    }
    let counts: Vec<String> = found.passes.iter().map(|names| names.len().to_string()).collect();
    let note = format!("phrases found, pass by pass: {}", counts.join(", "));
    // The last pass may have found none.
    found.passes.retain(|names| !names.is_empty());
    Ok((found, note))
}

/// The pairs that are phrases, in order.
fn pairs(numbers: &Numbers, counts: &[u64], total: u64, how: &Phrases, in_memory: usize, room: &mut Room) -> Result<Vec<Pair>> {
    // A pair occurs no more often than the rarer of its words, so its score is no more than total / the other's count: words that
    // are too frequent for any phrase, which are most of a text, are not even counted. The factor is for what rounding does.
    let most = total as f64 / how.threshold * (1.0 + 1e-9);
    let may: Vec<bool> = counts.iter().map(|&count| count > how.min_count && count as f64 <= most).collect();
    let mut found = Vec::new();
    merge(count(numbers, &may, in_memory, room)?, |pair, n, _| {
        let pair = u64::from_be_bytes(pair.try_into().map_err(|_| Error::new("a file of counted pairs is damaged"))?);
        let (a, b) = ((pair >> 32) as u32, pair as u32);
        let over = n.saturating_sub(how.min_count) as f64;
        if over / counts[a as usize] as f64 / counts[b as usize] as f64 * total as f64 > how.threshold {
            found.push((a, b));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Counts neighbours that both `may` be joined, on all threads.
fn count(numbers: &Numbers, may: &[bool], in_memory: usize, room: &mut Room) -> Result<Vec<SortedRun>> {
    let parts: Vec<Range<usize>> = numbers.parts().collect();
    let (next, folder) = (AtomicUsize::new(0), Mutex::new(&mut room.folder));
    let threads = rayon::current_num_threads();
    let full = in_memory.div_ceil(threads);
    let work = |_| -> Result<Vec<SortedRun>> {
        let (mut table, mut runs, mut buffer) = (HashMap::<u64, u64, Hash>::default(), Vec::new(), Vec::new());
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            // With the first of the next part: no pair is lost between two.
            let part = numbers.get(part.start..numbers.len().min(part.end + 1), &mut buffer)?;
            // A stretch at a time, so that a table that is full is noticed.
            let stretches = part.len().saturating_sub(1).div_ceil(STRETCH);
            for stretch in 0..stretches {
                let start = stretch * STRETCH;
                for pair in part[start..part.len().min(start + STRETCH + 1)].windows(2) {
                    let holds = |word: u32| word < DROPPED && may[word as usize];
                    if holds(pair[0]) && holds(pair[1]) {
                        *table.entry(u64::from(pair[0]) << 32 | u64::from(pair[1])).or_default() += 1;
                    }
                }
                if table.len() >= full {
                    let folder: PathBuf = (lock(&folder))()?;
                    runs.push(sorted(std::mem::take(&mut table)).into_file(&folder)?);
                }
            }
        }
        runs.push(sorted(table).in_memory());
        Ok(runs)
    };
    let runs: Vec<Result<Vec<SortedRun>>> = (0..threads).into_par_iter().with_max_len(1).map(work).collect();
    Ok(runs.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Numbers between two looks at a table's size.
const STRETCH: usize = 1 << 16;

fn sorted(table: HashMap<u64, u64, Hash>) -> Sorted {
    let mut pairs: Vec<(u64, u64)> = table.into_iter().collect();
    pairs.sort_unstable();
    let mut sorted = Sorted::default();
    pairs.into_iter().for_each(|(pair, count)| sorted.push(&pair.to_be_bytes(), 0, count));
    sorted
}

/// Puts the numbers of phrases in place of their words', and moves counts; how often.
fn replace(numbers: &mut Numbers, joined: &HashMap<Pair, u32, Hash>, begins: &[bool], counts: &mut [u64]) -> Result<u64> {
    let (mut times, len) = (0, numbers.len());
    // The last word, while it may still begin a phrase.
    let mut open: Option<u32> = None;
    let (parts, mut out, mut read) = (numbers.parts(), Vec::new(), 0);
    numbers.rewrite(parts, |_, part| {
        out.clear();
        for &word in &*part {
            if let Some(first) = open.take() {
                if word < DROPPED
                    && let Some(&phrase) = joined.get(&(first, word))
                {
                    out.push(phrase);
                    times += 1;
                    counts[first as usize] -= 1;
                    counts[word as usize] -= 1;
                    counts[phrase as usize] += 1;
                    continue;
                }
                out.push(first);
            }
            if word < DROPPED && begins[word as usize] {
                open = Some(word);
            } else {
                out.push(word);
            }
        }
        read += part.len();
        if read == len {
            out.extend(open.take());
        }
        std::mem::swap(part, &mut out);
        Ok(())
    })?;
    Ok(times)
}
