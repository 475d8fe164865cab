//! Word similarity: do cosines rank pairs of words as people do? (WordSim-353, SimLex-999, …)

use std::path::Path;

use super::Table;
use super::correlation::spearman;
use super::sets::{self, Columns, Set};
use super::words::{Words, values};
use crate::error::{Error, Result};

/// Two words, and how similar people judge them to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The first word.
    pub left: String,
    /// The second word.
    pub right: String,
    /// The judgement, on any scale.
    pub score: f64,
}

/// The results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Spearman's rank correlation of cosines and judgements, −1 to 1.
    pub spearman: f64,
    /// Pairs of which both words have rows.
    pub pairs: usize,
    /// Pairs of which a word has none.
    pub missing: usize,
}

/// Reads pairs, `word1 word2 score` on each line, separated by tabs, commas or spaces; further columns are ignored. A first line may name
/// the columns `word1`, `word2` and `score` (or `similarity`, `rating`, …). Lines before the first pair that are not pairs are headers;
/// after it, empty lines and lines that begin with `#` are skipped. If every word ends in a tag, as in MEN (`sun-n`), the tags are removed.
///
/// # Errors
/// A file that cannot be read, a line of another form, or no pair at all.
pub fn read(path: &Path) -> Result<Vec<Pair>> {
    Ok(read_all(path)?.0.remove(0).questions)
}

/// [`read`] of a file, or of every file of pairs below a folder. Also returns the names of the files that were skipped.
///
/// # Errors
/// As [`read`]; a folder without any file of pairs.
pub fn read_all(path: &Path) -> Result<(Vec<Set<Pair>>, Vec<String>)> {
    let is = |text: &str| {
        let mut lines = sets::lines(text).map(|(_, line)| line);
        let first = lines.next().unwrap_or_default();
        columns(first).is_some() || pair(first).or_else(|| pair(lines.next()?)).is_some()
    };
    sets::read(path, "word pairs", is, parse)
}

fn columns(header: &str) -> Option<Columns<3>> {
    let scores = ["score", "similarity", "simlex999", "simlex", "human(mean)", "rating", "mean", "relatedness"];
    Columns::of(header, [&["word1"], &["word2"], &scores])
}

fn parse(text: &str, path: &Path) -> Result<Vec<Pair>> {
    const FORM: &str = "a pair is `word1 word2 score`, with tabs, commas or spaces between";
    let mut pairs = Vec::new();
    let mut named: Option<Columns<3>> = None;
    for (number, line) in sets::lines(text) {
        let found = match &named {
            Some(columns) if columns.empty(line) => continue,
            Some(columns) => named_pair(columns, line),
            None => pair(line),
        };
        match found {
            Some(pair) => pairs.push(pair),
            None if pairs.is_empty() && named.is_none() => named = columns(line),
            None => {
                return Err(Error::new("not two words and a score")
                    .at(format!("{}:{number}: {line}", path.display()))
                    .hint(FORM));
            }
        }
    }
    if pairs.is_empty() {
        return Err(Error::new("there is no pair in this file").at(path.display()).hint(FORM));
    }
    let tagged = |word: &str| word.len() > 2 && ["-n", "-v", "-j", "-a", "-r"].iter().any(|tag| word.ends_with(tag));
    if pairs.iter().all(|pair| tagged(&pair.left) && tagged(&pair.right)) {
        pairs.iter_mut().flat_map(|pair| [&mut pair.left, &mut pair.right]).for_each(|word| word.truncate(word.len() - 2));
    }
    Ok(pairs)
}

fn named_pair(columns: &Columns<3>, line: &str) -> Option<Pair> {
    let [left, right, score] = columns.fields(line)?;
    of(left, right, score)
}

fn pair(line: &str) -> Option<Pair> {
    let mut fields = sets::split(line, sets::separator(line)).filter(|f| !f.is_empty());
    of(fields.next()?, fields.next()?, fields.next()?)
}

fn of(left: &str, right: &str, score: &str) -> Option<Pair> {
    let score = score.parse().ok().filter(|score: &f64| score.is_finite())?;
    Some(Pair { left: left.to_string(), right: right.to_string(), score })
}

/// Compares cosines with judgements. Words are looked up as written, and then lower-cased.
///
/// # Errors
/// Fewer than two pairs have rows, or all of these have the same score, so that there is nothing to rank; or the table cannot be read.
pub fn similarity(table: &dyn Table, pairs: &[Pair]) -> Result<Similarity> {
    let found = similarities(table, &[pairs])?.remove(0);
    found.spearman.map(|spearman| Similarity { spearman, pairs: found.pairs, missing: found.missing }).ok_or_else(|| {
        Error::new(format!("nothing to rank: of {} pairs, {} have both words in the vocabulary", pairs.len(), found.pairs))
            .hint("are the words of the same language, and of the same case, as the vectors'?")
    })
}

/// [`Similarity`] of one of several sets, which may have nothing to rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// See [`Similarity::spearman`]; none if there is nothing to rank.
    pub spearman: Option<f64>,
    /// Pairs of which both words have rows.
    pub pairs: usize,
    /// Pairs of which a word has none.
    pub missing: usize,
}

/// [`similarity`] of several sets of pairs; the words of all are looked up at once.
///
/// # Errors
/// The table cannot be read.
pub fn similarities(table: &dyn Table, sets: &[&[Pair]]) -> Result<Vec<Ranked>> {
    let asked = sets.iter().flat_map(|pairs| pairs.iter()).flat_map(|pair| [pair.left.as_str(), pair.right.as_str()]);
    let words = Words::find(table, table.len(), asked);
    let one = |pairs: &&[Pair]| {
        let (mut cosines, mut scores) = (Vec::new(), Vec::new());
        for pair in *pairs {
            if let (Some(a), Some(b)) = (values(table, &words, &pair.left)?, values(table, &words, &pair.right)?) {
                cosines.push(cosine(&a.1, &b.1));
                scores.push(pair.score);
            }
        }
        Ok(Ranked { spearman: spearman(&cosines, &scores), pairs: scores.len(), missing: pairs.len() - scores.len() })
    };
    sets.iter().map(one).collect()
}

/// The cosine of two rows; 0 if one is zero.
pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Features;

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
        assert_eq!(read("\u{feff},similarity,word1,word2,relation\n0,1.58,old,new,antonyms\n").unwrap(), expected);
        assert_eq!(read("word1\tword2\tPOS\tSimLex999\tconc(w1)\nold\tnew\tA\t1.58\t2.72\n").unwrap(), expected);
        assert_eq!(read("old-j new-j 1.58\n").unwrap(), expected, "MEN's tags");
        assert_eq!(read("old-j new 1.58\n").unwrap()[0].left, "old-j", "no tag where others have none");
        assert_eq!(read(",word1,word2,similarity\n0,old,new,1.58\n1,,,\n").unwrap(), expected, "a row of nothing");
        assert!(read(",word1,word2,similarity\n0,old,new,1.58\n1,old,new,\n").unwrap_err().to_string().contains("pairs:3"));
        assert!(read("old new nan\n").unwrap_err().to_string().contains("no pair"));
        assert!(read("old new 1\nold new\n").unwrap_err().to_string().contains("pairs:2"));
        assert!(read("nothing here\n").unwrap_err().to_string().contains("no pair"));
    }
}
