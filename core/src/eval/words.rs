//! Looks words up among the rows of a table; used by every evaluator of word vectors.

use std::collections::HashMap;

use rayon::prelude::*;

use super::Table;
use crate::error::{Error, Result};

/// The rows of the words that were asked for, found in one pass over a table of any size, without an index.
pub(super) struct Words(HashMap<String, usize>);

impl Words {
    /// Looks for `asked` among the first `limit` rows; of equal names the first counts. A word is looked up as it is written, then in the
    /// table's own spelling, then lower-cased, then with `_` for spaces. Lists of questions have capitals where many vocabularies have
    /// none, and vocabularies join the words of a phrase.
    pub(super) fn find<'a>(table: &dyn Table, limit: usize, asked: impl IntoIterator<Item = &'a str>) -> Self {
        let asked: HashMap<&str, Vec<String>> = asked.into_iter().map(|word| (word, spellings(table, word))).collect();
        let mut rows: HashMap<&str, usize> = asked.values().flatten().map(|spelling| (spelling.as_str(), usize::MAX)).collect();
        let all = 0..limit.min(table.len());
        let found: Vec<usize> = all.into_par_iter().filter(|&row| rows.contains_key(table.name(row))).collect();
        for row in found.into_iter().rev() {
            if let Some(first) = rows.get_mut(table.name(row)) {
                *first = row;
            }
        }
        rows.retain(|_, row| *row != usize::MAX);
        let row = |spellings: &Vec<String>| spellings.iter().find_map(|spelling| rows.get(spelling.as_str()).copied());
        Words(asked.iter().filter_map(|(word, spellings)| Some((word.to_string(), row(spellings)?))).collect())
    }

    /// The row of a word that was asked for.
    pub(super) fn row(&self, word: &str) -> Option<usize> {
        self.0.get(word).copied()
    }
}

fn spellings(table: &dyn Table, word: &str) -> Vec<String> {
    let lower = word.to_lowercase();
    let joined = [word.replace(' ', "_"), lower.replace(' ', "_")];
    [word.to_string()].into_iter().chain(table.spelling(word)).chain([lower]).chain(joined).collect()
}

/// A word's values: its row's, or those that the table composes. Also its row, if it has one. None if there is neither.
pub(super) fn values(table: &dyn Table, words: &Words, word: &str) -> Result<Option<(Option<usize>, Vec<f32>)>> {
    let Some(row) = words.row(word) else { return Ok(table.unseen(word).map(|values| (None, values))) };
    let mut room = Vec::new();
    let values = table.block(row..row + 1, &mut room)?.to_vec();
    Ok(Some((Some(row), values)))
}

/// How similar a spelling must be to be suggested, and how many suggestions there are.
const LIKE: f64 = 0.85;
const SUGGESTIONS: usize = 3;

/// The error for a word without a vector; its hint suggests words of similar spelling.
pub(super) fn unknown(table: &dyn Table, word: &str) -> Error {
    let error = Error::new(format!("`{word}` is not in the vocabulary"));
    // Case is ignored in the comparison.
    let lower = word.to_lowercase();
    let like = |row: usize| {
        let name = table.name(row);
        // The similarity cannot be reached without this many letters in common; this test is fast, the similarity itself is slow.
        if name.len().abs_diff(word.len()) > word.len().max(name.len()) / 2 {
            return 0.0;
        }
        strsim::jaro_winkler(&lower, &name.to_lowercase())
    };
    let mut near: Vec<(usize, f64)> =
        (0..table.len()).into_par_iter().map(|row| (row, like(row))).filter(|(_, s)| *s > LIKE).collect();
    near.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let near: Vec<String> = near.iter().take(SUGGESTIONS).map(|(row, _)| format!("`{}`", table.name(*row))).collect();
    match near.is_empty() {
        true => error.hint("rare words have no vector: training leaves out words that are rarer than vocabulary.min_count"),
        false => error.hint(format!("did you mean {}?", near.join(" or "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Features;

    #[test]
    fn a_word_is_found_as_written_before_it_is_lower_cased_or_joined() {
        let names = ["paris", "Paris", "new_york", "paris", "Café"].map(str::to_string).to_vec();
        let table = Features { rows: vec![0.0; 5], width: 1, names, ..Features::default() };
        let asked = ["Paris", "PARIS", "paris", "New York", "café", "Café"];
        let words = Words::find(&table, 5, asked);
        assert_eq!(asked.map(|w| words.row(w)), [Some(1), Some(0), Some(0), Some(2), None, Some(4)]);
        assert_eq!(Words::find(&table, 1, asked).row("Paris"), Some(0), "only the first rows count");
        let hint = unknown(&table, "café").to_string();
        assert!(hint.contains("`café` is not") && hint.contains("did you mean `Café`?"), "{hint}");
        let several = unknown(&table, "parris").to_string();
        assert!(several.contains("`paris` or `Paris`"), "{several}");
        assert!(unknown(&table, "xyz").to_string().contains("min_count"));
    }
}
