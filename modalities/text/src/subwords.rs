//! The n-grams of words, as fastText cuts and numbers them (Bojanowski et al. 2017, "Enriching Word Vectors with Subword
//! Information"; `Dictionary::computeSubwords`), so that its files and ctk's mean the same rows.

/// Which n-grams a word has, and how many rows they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subwords {
    /// Characters of the shortest, the marks `<` and `>` at a word's ends included.
    pub min: usize,
    /// Characters of the longest.
    pub max: usize,
    /// Rows: an n-gram's is its hash, modulo their number.
    pub buckets: usize,
}

impl Subwords {
    /// The buckets of a word's n-grams, by where they begin, the shorter first, go behind what is in `into`. A mark alone is none.
    pub fn ids(&self, word: &str, into: &mut Vec<u32>) {
        let marked = format!("<{word}>");
        let bytes = marked.as_bytes();
        let starts: Vec<usize> = marked.char_indices().map(|(at, _)| at).chain([bytes.len()]).collect();
        let characters = starts.len() - 1;
        for first in 0..characters {
            for length in self.min.max(1)..=self.max.min(characters - first) {
                let end = first + length;
                if length > 1 || (first > 0 && end < characters) {
                    into.push(hash(&bytes[starts[first]..starts[end]]) % self.buckets as u32);
                }
            }
        }
    }
}

/// FNV-1a of 32 bits, over bytes that are taken for signed, as fastText does.
fn hash(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(2_166_136_261, |hash, &byte| (hash ^ i32::from(byte.cast_signed()).cast_unsigned()).wrapping_mul(16_777_619))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(min: usize, max: usize, buckets: usize, word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        Subwords { min, max, buckets }.ids(word, &mut ids);
        ids
    }

    #[test]
    fn n_grams_and_their_numbers_are_fasttexts() {
        // By gensim 4.4's `compute_ngrams_bytes` and `ft_hash_bytes`, which are held against fastText's own.
        assert_eq!(ids(3, 6, 2_000_000, "where")[..6], [167_652, 989_715, 1_526_707, 1_071_586, 420_941, 312_621]);
        assert_eq!(ids(3, 6, 2_000_000, "where").len(), 14);
        assert_eq!(ids(3, 6, 2_000_000, "a"), [1_087_600]);
        assert_eq!(ids(3, 6, 2_000_000, "größe")[..6], [606_866, 525_807, 149_953, 148_140, 1_605_985, 925_915]);
        assert_eq!(ids(3, 6, 2_000_000, "日本"), [758_587, 1_313_759, 196_157]);
        assert_eq!(ids(3, 6, 2_000_000, "<b"), [664_293, 474_177, 495_743]);
        assert_eq!(hash("größe".as_bytes()), 576_799_898);
    }

    #[test]
    fn a_mark_alone_is_no_n_gram_and_a_short_word_has_few() {
        assert_eq!(ids(1, 2, 100, "größe").len(), 11);
        assert!(ids(4, 6, 100, "a").is_empty());
        assert!(ids(3, 3, 100, "").is_empty());
        assert_eq!(ids(1, 1, 100, "ab").len(), 2);
    }
}
