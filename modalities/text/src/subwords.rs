//! The n-grams of words, cut and numbered as in fastText (Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information";
//! `Dictionary::computeSubwords`), so that fastText's files and ctk's use the same rows.

mod vectors;

pub use vectors::{SubwordVectors, mean};

/// Which n-grams a word has, and how many rows they share; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Subwords {
    /// Length of the shortest n-gram in characters, including the marks `<` and `>` at a word's ends.
    pub min: usize,
    /// Length of the longest n-gram in characters.
    pub max: usize,
    /// Number of rows; an n-gram's row is its hash modulo this number.
    pub buckets: usize,
}

/// fastText's word for a line end, which is not cut.
const END: &str = "</s>";

impl Subwords {
    /// Appends the buckets of a word's n-grams, 0..`buckets`, to `into`, in the order of their starts, shorter ones first. A mark alone is
    /// not an n-gram; the bytes of one character are never separated.
    pub fn ids(&self, word: &str, into: &mut Vec<u32>) {
        self.ids_of(word.as_bytes(), into);
    }

    /// [`ids`](Self::ids) of a word that may not be UTF-8: bytes are hashed, and a continuation byte without a character counts as one.
    pub fn ids_of(&self, word: &[u8], into: &mut Vec<u32>) {
        if word == END.as_bytes() || self.buckets == 0 {
            return;
        }
        let marked = [b"<", word, b">"].concat();
        let begins = |at: usize| marked.get(at).is_none_or(|byte| byte & 0xc0 != 0x80);
        for first in (0..marked.len()).filter(|&at| begins(at)) {
            // The hash of an n-gram continues that of the next shorter one.
            let (mut hash, mut characters) = (BASIS, 0);
            for at in first..marked.len() {
                hash = step(hash, marked[at]);
                if !begins(at + 1) {
                    continue;
                }
                characters += 1;
                if characters > self.max {
                    break;
                }
                let mark = characters == 1 && (first == 0 || at + 1 == marked.len());
                if characters >= self.min && !mark {
                    into.push((hash as usize % self.buckets) as u32);
                }
            }
        }
    }
}

/// Initial value of the 32-bit FNV-1a hash.
const BASIS: u32 = 2_166_136_261;

/// FNV-1a's step for one byte, which fastText treats as signed.
fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ i32::from(byte.cast_signed()).cast_unsigned()).wrapping_mul(16_777_619)
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
        assert_eq!("größe".bytes().fold(BASIS, step), 576_799_898);
    }

    #[test]
    fn a_mark_alone_is_no_n_gram_and_a_short_word_has_few() {
        assert_eq!(ids(1, 2, 100, "größe").len(), 11);
        assert!(ids(4, 6, 100, "a").is_empty());
        assert!(ids(3, 3, 100, "").is_empty());
        assert_eq!(ids(1, 1, 100, "ab").len(), 2);
    }

    #[test]
    fn what_the_fasttext_wheel_says() {
        // `get_subwords` of a model trained with minn=2, maxn=4, bucket=1000, by fasttext-wheel 0.9.2.
        let naive = [655, 890, 692, 112, 546, 404, 750, 832, 7, 403, 570, 548, 612, 654, 490];
        assert_eq!(ids(2, 4, 1000, "naïve"), naive);
        assert_eq!(ids(2, 4, 1000, "日本"), [687, 587, 759, 409, 157, 717]);
        assert_eq!(ids(2, 4, 1000, "x👍🏽y"), [513, 38, 815, 664, 729, 96, 867, 750, 504, 555, 143, 822]);
        assert_eq!(ids(2, 4, 1000, ""), [367]);
        assert_eq!(ids(2, 4, 1000, "</s>"), [0; 0]);
        // minn=1, maxn=1.
        assert_eq!(ids(1, 1, 1000, "ab"), [220, 77]);
        assert_eq!(ids(1, 1, 1000, "日本"), [749, 417]);
    }

    #[test]
    fn every_n_gram_is_hashed_once_and_whole() {
        // The plain way: cut, then hash.
        let plain = |min: usize, max: usize, word: &str| {
            let marked: Vec<char> = format!("<{word}>").chars().collect();
            let mut ids = Vec::new();
            for first in 0..marked.len() {
                for length in min.max(1)..=max.min(marked.len() - first) {
                    let gram: String = marked[first..first + length].iter().collect();
                    if length > 1 || (first > 0 && first + 1 < marked.len()) {
                        ids.push(gram.bytes().fold(BASIS, step) % 99_991);
                    }
                }
            }
            ids
        };
        for word in ["", "a", "über", "日本語のテキスト", "👩‍👩‍👧", "e\u{301}té", "<>", "hyphen-ated"] {
            for (min, max) in [(0, 0), (0, 2), (1, 1), (3, 6), (5, 4), (2, 100)] {
                assert_eq!(ids(min, max, 99_991, word), plain(min, max, word), "{word} {min} {max}");
            }
        }
        assert!(ids(3, 6, 0, "where").is_empty(), "no bucket, no n-gram");
    }
}
