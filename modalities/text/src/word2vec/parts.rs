//! The input rows that words are composed of with subwords: their own, and those of their n-grams (fastText; Bojanowski et al. 2017,
//! "Enriching Word Vectors with Subword Information").

use crate::subwords::{Subwords, mean};

/// The parts of every word; the table has a row for each word, then one for each bucket.
pub struct Parts {
    ids: Vec<u32>,
    // The start of each word's parts, and the end of the last word's.
    starts: Vec<usize>,
}

impl Parts {
    /// The parts of `words`.
    pub fn new(subwords: &Subwords, words: &[String]) -> Parts {
        let (mut ids, mut starts, mut buckets) = (Vec::new(), vec![0], Vec::new());
        for (row, word) in words.iter().enumerate() {
            buckets.clear();
            subwords.ids(word, &mut buckets);
            ids.push(row as u32);
            ids.extend(buckets.iter().map(|bucket| words.len() as u32 + bucket));
            starts.push(ids.len());
        }
        Parts { ids, starts }
    }

    /// The parts of word `word`: its own row first.
    #[inline]
    pub fn of(&self, word: u32) -> &[u32] {
        &self.ids[self.starts[word as usize]..self.starts[word as usize + 1]]
    }

    /// The vectors of all words: the means of their parts in `table`, whose rows have `width` values.
    pub fn means(&self, table: &[f32], width: usize) -> Vec<f32> {
        let mut means = vec![0.0; (self.starts.len() - 1) * width];
        for (word, vector) in (0..).zip(means.chunks_exact_mut(width)) {
            mean(table, self.of(word).iter().map(|&row| row as usize), vector);
        }
        means
    }
}
