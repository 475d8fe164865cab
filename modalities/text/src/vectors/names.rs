//! A compact list of millions of words: one text and the end of each word in it, because one allocation a word would take more memory than
//! the words.

use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;

/// Words by number.
#[derive(Debug, Default)]
pub struct Names {
    text: String,
    ends: Vec<usize>,
}

impl Names {
    /// The number of words.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Word `at`.
    pub fn get(&self, at: usize) -> &str {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }

    /// Appends a word. Bytes that are not UTF-8 become U+FFFD; returns whether there were any.
    pub fn push(&mut self, word: &[u8]) -> bool {
        let word = String::from_utf8_lossy(word);
        self.text.push_str(&word);
        self.ends.push(self.text.len());
        matches!(word, std::borrow::Cow::Owned(_))
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: &Names) {
        let before = self.text.len();
        self.text.push_str(&other.text);
        self.ends.extend(other.ends.iter().map(|end| before + end));
    }

    /// The numbers of words that occur earlier under another number, ascending.
    pub fn repeated(&self) -> Vec<usize> {
        let hash = |at: usize| {
            let mut hasher = DefaultHasher::new();
            self.get(at).hash(&mut hasher);
            hasher.finish()
        };
        let mut order: Vec<(u64, usize)> = (0..self.len()).into_par_iter().map(|at| (hash(at), at)).collect();
        order.par_sort_unstable();
        let mut repeated = Vec::new();
        for alike in order.chunk_by(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            let mut first: Vec<&str> = Vec::new();
            for &(_, at) in alike {
                match first.contains(&self.get(at)) {
                    true => repeated.push(at),
                    false => first.push(self.get(at)),
                }
            }
        }
        repeated.sort_unstable();
        repeated
    }

    /// All words except those with the numbers `left_out`, which ascend.
    pub fn without(&self, left_out: &[usize]) -> Names {
        let mut names = Names::default();
        for at in (0..self.len()).filter(|at| left_out.binary_search(at).is_err()) {
            names.push(self.get(at).as_bytes());
        }
        names
    }
}
