//! Looking words up among the rows, as every evaluator of word vectors does.

use std::collections::HashMap;

use super::Features;

/// Rows by name.
pub(super) struct Words<'a>(HashMap<&'a str, usize>);

impl<'a> Words<'a> {
    /// The names of the first `limit` rows; of equal names the first counts.
    pub(super) fn new(features: &'a Features, limit: usize) -> Self {
        let mut rows = HashMap::with_capacity(limit.min(features.len()));
        for (row, name) in features.names.iter().enumerate().take(limit) {
            rows.entry(name.as_str()).or_insert(row);
        }
        Words(rows)
    }

    /// The row of `word` as it is written, or else lower-cased: lists of questions have capitals where many vocabularies
    /// have none.
    pub(super) fn row(&self, word: &str) -> Option<usize> {
        self.0.get(word).or_else(|| self.0.get(word.to_lowercase().as_str())).copied()
    }
}
