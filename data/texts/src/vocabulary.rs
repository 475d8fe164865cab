//! The vocabulary: words in order of frequency, with their counts.

use std::fmt::Write;

use ctk_core::{Error, Result};

/// Words by falling count, equal counts by word; a word's number is its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    words: Vec<String>,
    counts: Vec<u64>,
}

impl Vocabulary {
    /// `words` with their `counts`, in order.
    pub fn new(words: Vec<String>, counts: Vec<u64>) -> Vocabulary {
        assert_eq!(words.len(), counts.len(), "one count a word");
        Vocabulary { words, counts }
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The count of each word.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Lines `word<TAB>count`: `vocabulary.tsv` of a checkpoint.
    pub fn to_tsv(&self) -> String {
        let mut out = String::new();
        for (word, count) in self.words.iter().zip(&self.counts) {
            let _ = writeln!(out, "{word}\t{count}");
        }
        out
    }

    /// Parses what [`to_tsv`](Self::to_tsv) wrote.
    pub(crate) fn from_tsv(text: &str) -> Result<Vocabulary> {
        let mut vocabulary = Vocabulary::new(Vec::new(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let parsed = line.split_once('\t').and_then(|(word, count)| Some((word.to_string(), count.parse().ok()?)));
            let (word, count) = parsed
                .ok_or_else(|| Error::new("not a word, a tab and its count").at(format!("vocabulary.tsv:{}", number + 1)))?;
            vocabulary.words.push(word);
            vocabulary.counts.push(count);
        }
        Ok(vocabulary)
    }

    /// The same from a file's bytes.
    ///
    /// # Errors
    /// The bytes are not such a table.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Vocabulary> {
        Vocabulary::from_tsv(&String::from_utf8(bytes).map_err(|_| Error::new("this is not UTF-8").at("vocabulary.tsv"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_words_round_trips() {
        let vocabulary = Vocabulary::new(["a", "b", "c"].map(String::from).to_vec(), vec![30, 20, 1]);
        assert_eq!(Vocabulary::from_tsv(&vocabulary.to_tsv()).unwrap(), vocabulary);
        let error = Vocabulary::from_tsv("a\t3\nb\n").unwrap_err().to_string();
        assert!(error.contains("vocabulary.tsv:2"), "{error}");
    }
}
