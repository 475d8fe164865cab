//! Word similarity: do cosines rank pairs of words as people do? (WordSim-353, SimLex-999, …)

use std::path::Path;

use super::Features;
use super::words::Words;
use crate::error::{Error, Result};

/// Two words and how similar people find them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The one.
    pub left: String,
    /// The other.
    pub right: String,
    /// The judgement; its scale does not matter.
    pub score: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Spearman's rank correlation of cosines and judgements, −1 to 1.
    pub spearman: f64,
    /// Pairs with both words among the rows.
    pub pairs: usize,
    /// Pairs without.
    pub missing: usize,
}

/// Reads pairs, `word1 word2 score` a line with tabs, commas or spaces between; further columns are passed over. Lines
/// before the first pair that are no pair are headers; after it, empty lines and those that begin with `#` are passed over.
pub fn read(path: &Path) -> Result<Vec<Pair>> {
    let text = super::given(path)?;
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match pair(line) {
            Some(pair) => pairs.push(pair),
            None if pairs.is_empty() => {}
            None => {
                return Err(Error::new("not two words and a score")
                    .at(format!("{}:{}: {line}", path.display(), number + 1))
                    .hint("a pair is `word1 word2 score`, with tabs, commas or spaces between"));
            }
        }
    }
    if pairs.is_empty() {
        return Err(Error::new("there is no pair in this file")
            .at(path.display())
            .hint("a pair is `word1 word2 score`, with tabs, commas or spaces between"));
    }
    Ok(pairs)
}

fn pair(line: &str) -> Option<Pair> {
    let separator = ['\t', ','].into_iter().find(|&c| line.contains(c)).unwrap_or(' ');
    let mut fields = line.split(separator).map(str::trim).filter(|f| !f.is_empty());
    let (left, right, score) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    Some(Pair { left: left.to_string(), right: right.to_string(), score })
}

/// Compares cosines with judgements. Words are looked up as written, or else lower-cased.
///
/// # Errors
/// When fewer than two pairs are among the rows, or all of them score the same: there is nothing to rank.
pub fn similarity(features: &Features, pairs: &[Pair]) -> Result<Similarity> {
    let words = Words::new(features, features.len());
    let (mut cosines, mut scores) = (Vec::new(), Vec::new());
    for pair in pairs {
        if let (Some(a), Some(b)) = (words.row(&pair.left), words.row(&pair.right)) {
            cosines.push(cosine(features.row(a), features.row(b)));
            scores.push(pair.score);
        }
    }
    let spearman = spearman(&cosines, &scores).ok_or_else(|| {
        Error::new(format!("nothing to rank: of {} pairs, {} have both words in the vocabulary", pairs.len(), scores.len()))
            .hint("are the words of the same language, and of the same case, as the vectors'?")
    })?;
    Ok(Similarity { spearman, pairs: scores.len(), missing: pairs.len() - scores.len() })
}

/// The cosine of two rows; 0 if one is zero.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// Spearman's rank correlation: Pearson's of the ranks, equal values sharing the mean of theirs. None where a side has one
/// value alone.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "two values each");
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let covariance = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| (x - mean) * (y - mean)).sum::<f64>();
    let scale = (covariance(&a, &a) * covariance(&b, &b)).sqrt();
    (scale > 0.0).then(|| covariance(&a, &b) / scale)
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut place = 0;
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let mean = place as f64 + (tied.len() as f64 - 1.0) / 2.0;
        tied.iter().for_each(|&i| ranks[i] = mean);
        place += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_with_ties_agrees_with_scipy() {
        // scipy.stats.spearmanr([1, 2, 2, 4, 5], [2, 1, 3, 3, 9]) = 0.763157894736842
        let rho = spearman(&[1.0, 2.0, 2.0, 4.0, 5.0], &[2.0, 1.0, 3.0, 3.0, 9.0]).unwrap();
        assert!((rho - 0.763_157_894_736_842).abs() < 1e-12, "{rho}");
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[-1.0, -2.0, -9.0]), Some(-1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }

    #[test]
    fn pairs_are_ranked_by_cosine_and_missing_words_are_counted() {
        let names = ["cat", "dog", "car", "Paris"].map(str::to_string).to_vec();
        let features = Features { rows: vec![1.0, 0.0, 2.0, 0.2, 0.0, 3.0, 1.0, 1.0], width: 2, names, ..Features::default() };
        let pair = |left: &str, right: &str, score| Pair { left: left.into(), right: right.into(), score };
        let pairs = [pair("Cat", "dog", 9.0), pair("cat", "Paris", 5.0), pair("cat", "car", 1.0), pair("cat", "paris", 3.0)];
        let found = similarity(&features, &pairs).unwrap();
        assert_eq!(found, Similarity { spearman: 1.0, pairs: 3, missing: 1 });
        assert!(similarity(&features, &pairs[3..]).unwrap_err().what().contains("0 have both"));
    }

    #[test]
    fn files_of_every_form_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            super::read(&path)
        };
        let expected = [Pair { left: "old".into(), right: "new".into(), score: 1.58 }];
        assert_eq!(read("word1\tword2\tsimlex\nold\tnew\t1.58\n").unwrap(), expected);
        assert_eq!(read("# comment\nWord 1,Word 2,Human (mean)\nold,new,1.58,more\n").unwrap(), expected);
        assert_eq!(read("old new  1.58\r\n\n").unwrap(), expected);
        assert!(read("old new 1\nold new\n").unwrap_err().to_string().contains("pairs:2"));
        assert!(read("nothing here\n").unwrap_err().to_string().contains("no pair"));
    }
}
