//! Word vectors composed of parts: the mean of a word's own row and the rows of its n-grams.

use std::collections::HashMap;
use std::ops::Range;

use ctk_core::eval::Table;
use ctk_core::{Error, Result};
use rayon::prelude::*;

use super::Subwords;

/// A table of (words + buckets, width) values, and its words and n-grams.
#[derive(Debug)]
pub struct SubwordVectors {
    words: Vec<String>,
    // The words' numbers by their spelling; of two equal ones the first.
    order: Vec<u32>,
    input: Vec<f32>,
    width: usize,
    subwords: Subwords,
    // The bytes of words that are not UTF-8, by row: their n-grams are made from these, not from the names.
    raw: HashMap<usize, Vec<u8>>,
}

impl SubwordVectors {
    /// `input` has a row of `width` values for each of `words`, then one for each bucket of `subwords`. Without buckets a word's vector is
    /// its row.
    ///
    /// # Errors
    /// The table has another size.
    pub fn new(words: Vec<String>, input: Vec<f32>, width: usize, subwords: Subwords) -> Result<SubwordVectors> {
        let rows = words.len() + subwords.buckets;
        if u32::try_from(rows).is_err() || width == 0 || rows.checked_mul(width) != Some(input.len()) {
            let (words, buckets) = (words.len(), subwords.buckets);
            return Err(Error::new(format!("{words} words and {buckets} buckets of {width} values are not {}", input.len())));
        }
        let mut order: Vec<u32> = (0..words.len() as u32).collect();
        order.par_sort_unstable_by_key(|&row| (words[row as usize].as_str(), row));
        Ok(SubwordVectors { words, order, input, width, subwords, raw: HashMap::new() })
    }

    /// The same table, in which the words of some rows are these bytes, which are not UTF-8.
    pub(crate) fn with_raw(self, raw: HashMap<usize, Vec<u8>>) -> SubwordVectors {
        SubwordVectors { raw, ..self }
    }

    /// The words, in the order of their rows.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The n-grams of words.
    pub fn subwords(&self) -> Subwords {
        self.subwords
    }

    /// The table as it was trained, row by row.
    pub fn input(&self) -> &[f32] {
        &self.input
    }

    /// The number of `word`, if it is in the vocabulary.
    pub fn place(&self, word: &str) -> Option<usize> {
        let at = self.order.partition_point(|&row| self.words[row as usize].as_str() < word);
        self.order.get(at).map(|&row| row as usize).filter(|&row| self.words[row] == word)
    }

    /// The vector of `word`: the mean of its own row and the rows of its n-grams. A word outside the vocabulary has only its n-grams, and a
    /// word without n-grams is zeros (fastText's `getWordVector`).
    pub fn vector(&self, word: &str) -> Vec<f32> {
        let mut vector = vec![0.0; self.width];
        self.mean(self.place(word), word, &mut Vec::new(), &mut vector);
        vector
    }

    /// Writes the vector of `word` into `vector`; `ids` is a buffer.
    fn mean(&self, row: Option<usize>, word: &str, ids: &mut Vec<u32>, vector: &mut [f32]) {
        ids.clear();
        let bytes = row.and_then(|row| self.raw.get(&row)).map_or(word.as_bytes(), Vec::as_slice);
        self.subwords.ids_of(bytes, ids);
        let grams = ids.iter().map(|&bucket| self.words.len() + bucket as usize);
        mean(&self.input, row.into_iter().chain(grams), vector);
    }
}

/// Writes the mean of `rows` of a table of the same width into `vector`; zeros if there are none.
pub fn mean(table: &[f32], rows: impl Iterator<Item = usize>, vector: &mut [f32]) {
    vector.fill(0.0);
    let (width, mut count) = (vector.len(), 0usize);
    for row in rows {
        vector.iter_mut().zip(&table[row * width..][..width]).for_each(|(sum, value)| *sum += value);
        count += 1;
    }
    // As in fastText: multiplied by the inverse, once.
    let scale = 1.0 / count.max(1) as f32;
    vector.iter_mut().for_each(|value| *value *= scale);
}

impl Table for SubwordVectors {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn name(&self, row: usize) -> &str {
        &self.words[row]
    }

    /// Vectors are composed when they are asked for: all of them would be a second table in memory.
    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        if self.subwords.buckets == 0 {
            return Ok(&self.input[range.start * self.width..range.end * self.width]);
        }
        room.resize(range.len() * self.width, 0.0);
        let rows = room.par_chunks_exact_mut(self.width).zip(range);
        rows.for_each_init(Vec::new, |ids, (vector, row)| self.mean(Some(row), &self.words[row], ids, vector));
        Ok(room)
    }

    /// The mean of the n-grams' rows; none for a word without n-grams.
    fn unseen(&self, word: &str) -> Option<Vec<f32>> {
        let (mut ids, mut vector) = (Vec::new(), vec![0.0; self.width]);
        self.mean(None, word, &mut ids, &mut vector);
        (!ids.is_empty()).then_some(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> SubwordVectors {
        let words = ["the", "a", "the"].map(str::to_string).to_vec();
        let subwords = Subwords { min: 3, max: 3, buckets: 7 };
        SubwordVectors::new(words, (0..20).map(|i| i as f32).collect(), 2, subwords).unwrap()
    }

    #[test]
    fn a_vector_is_the_mean_of_its_parts() {
        let vectors = some();
        let mut ids = Vec::new();
        // <th the he>, and <un unk nk>, which was never seen.
        for (word, own) in [("the", Some(0.0)), ("unk", None), ("a", Some(2.0))] {
            ids.clear();
            vectors.subwords().ids(word, &mut ids);
            let first: Vec<f32> = own.into_iter().chain(ids.iter().map(|id| 2.0 * (3 + id) as f32)).collect();
            let mean = first.iter().sum::<f32>() / first.len() as f32;
            let vector = vectors.vector(word);
            assert!((vector[0] - mean).abs() < 1e-5 && (vector[1] - mean - 1.0).abs() < 1e-5, "{word}: {vector:?}");
        }
        assert_eq!(vectors.vector(""), [0.0, 0.0], "<> has no n-gram of three");
        assert_eq!(vectors.features().unwrap().rows[..4], [vectors.vector("the"), vectors.vector("a")].concat());
        assert_eq!((vectors.unseen("unk"), vectors.unseen("")), (Some(vectors.vector("unk")), None));
        assert_eq!(
            (vectors.place("the"), vectors.place("a"), vectors.place("b"), vectors.place("")),
            (Some(0), Some(1), None, None)
        );
    }

    #[test]
    fn without_buckets_words_are_their_rows() {
        let none = Subwords { min: 0, max: 0, buckets: 0 };
        let vectors = SubwordVectors::new(vec!["x".into()], vec![0.1, 0.7], 2, none).unwrap();
        assert_eq!((vectors.vector("x"), vectors.vector("y"), vectors.unseen("y")), (vec![0.1, 0.7], vec![0.0, 0.0], None));
        assert_eq!(vectors.features().unwrap().rows, [0.1, 0.7]);
        let error = SubwordVectors::new(vec!["x".into()], vec![0.5; 3], 2, none).unwrap_err();
        assert!(error.to_string().contains("are not 3"), "{error}");
    }
}
