//! Word analogies: a is to b as c is to what? (Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector
//! Space", §4: the row nearest to b − a + c, 3CosAdd, the three question words excepted.)

use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::Features;
use super::words::Words;
use crate::error::{Context, Error, Result};

/// a is to b as c is to `answer`.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// a, b, c.
    pub given: [String; 3],
    /// What is right.
    pub answer: String,
    /// Whether it is about grammar (its section's name begins with `gram`) and not about meaning.
    pub syntactic: bool,
}

/// What was found. Shares are of the answered questions; `None` where there was none of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Analogy {
    /// Share of right answers, 0–1.
    pub accuracy: f64,
    /// The same over questions of meaning.
    pub semantic: Option<f64>,
    /// The same over questions of grammar.
    pub syntactic: Option<f64>,
    /// Questions whose four words are among the searched rows.
    pub answered: usize,
    /// Questions that were passed over.
    pub skipped: usize,
}

/// Reads the format of `questions-words.txt`: sections `: name`, below them four words a line.
pub fn read(path: &Path) -> Result<Vec<Question>> {
    parse(&super::given(path)?).at(path.display())
}

/// [`read`] on a text that is in memory.
pub fn parse(text: &str) -> Result<Vec<Question>> {
    let mut questions = Vec::new();
    let mut syntactic = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if let Some(section) = line.strip_prefix(':') {
            syntactic = section.trim_start().starts_with("gram");
        } else if !line.is_empty() && !line.starts_with('#') {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [a, b, c, answer] = words[..] else {
                return Err(Error::new(format!("a question has four words, this line has {}", words.len()))
                    .at(format!("line {}: {line}", number + 1))
                    .hint("the format is that of questions-words.txt: sections `: name`, below them four words a line"));
            };
            questions.push(Question { given: [a, b, c].map(String::from), answer: answer.to_string(), syntactic });
        }
    }
    if questions.is_empty() {
        return Err(Error::new("there is no question in this file"));
    }
    Ok(questions)
}

/// Questions that share one matrix product: their scores against 30,000 rows take 30 MB.
const BLOCK: usize = 256;

/// Answers questions among the first `restrict` rows (rows are in order of frequency; 30,000 is customary). Words are looked
/// up as written, or else lower-cased.
///
/// # Errors
/// When no question has all its words among those rows.
pub fn analogy(features: &Features, questions: &[Question], restrict: usize) -> Result<Analogy> {
    let count = restrict.min(features.len());
    let words = Words::new(features, count);
    let unit = Features { rows: features.rows[..count * features.width].to_vec(), width: features.width, ..Features::default() };
    let unit = Features { names: features.names[..count].to_vec(), ..unit }.normalised();
    let asked: Vec<([usize; 4], bool)> = questions
        .iter()
        .filter_map(|q| {
            let [a, b, c] = &q.given;
            Some(([words.row(a)?, words.row(b)?, words.row(c)?, words.row(&q.answer)?], q.syntactic))
        })
        .collect();
    if asked.is_empty() {
        return Err(Error::new(format!(
            "none of the {} questions has all its words among the first {count} rows",
            questions.len()
        ))
        .hint("are the words of the same language as the vectors'? A larger --restrict searches more rows"));
    }
    let rows = Tensor::from_slice(&unit.rows, (count, unit.width), &Device::Cpu)?.t()?;
    let mut right = Vec::with_capacity(asked.len());
    for block in asked.chunks(BLOCK) {
        let mut targets = Vec::with_capacity(block.len() * unit.width);
        for ([a, b, c, _], _) in block {
            let (a, b, c) = (unit.row(*a), unit.row(*b), unit.row(*c));
            targets.extend(a.iter().zip(b).zip(c).map(|((a, b), c)| b - a + c));
        }
        let targets = Tensor::from_vec(targets, (block.len(), unit.width), &Device::Cpu)?;
        let scores = targets.matmul(&rows)?.flatten_all()?.to_vec1::<f32>()?;
        let answers = scores.par_chunks_exact(count).zip(block).map(|(scores, (q, _))| best(scores, &q[..3]) == Some(q[3]));
        right.par_extend(answers);
    }
    let share = |kind: Option<bool>| {
        let of: Vec<bool> =
            asked.iter().zip(&right).filter(|((_, s), _)| kind.is_none_or(|k| k == *s)).map(|(_, &right)| right).collect();
        (!of.is_empty()).then(|| of.iter().filter(|&&r| r).count() as f64 / of.len() as f64)
    };
    Ok(Analogy {
        accuracy: share(None).unwrap_or(0.0),
        semantic: share(Some(false)),
        syntactic: share(Some(true)),
        answered: asked.len(),
        skipped: questions.len() - asked.len(),
    })
}

/// The first of the highest scores, `except` passed over.
fn best(scores: &[f32], except: &[usize]) -> Option<usize> {
    let mut best = (None, f32::NEG_INFINITY);
    for (row, &score) in scores.iter().enumerate() {
        if score > best.1 && !except.contains(&row) {
            best = (Some(row), score);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows where sex and rank are directions; `queens` is a distractor that only the exact sum avoids.
    fn royal() -> Features {
        let rows = [
            ("man", [1.0, 0.0, 0.1]),
            ("woman", [0.0, 1.0, 0.1]),
            ("king", [1.0, 0.0, 1.0]),
            ("queen", [0.0, 1.0, 1.0]),
            ("cart", [1.0, 1.0, 0.0]),
        ];
        Features {
            rows: rows.iter().flat_map(|(_, r)| *r).collect(),
            width: 3,
            names: rows.iter().map(|(n, _)| n.to_string()).collect(),
            ..Features::default()
        }
    }

    #[test]
    fn sums_are_answered_and_sections_are_told_apart() {
        let text =
            ": royals\nman woman king queen\nMan King Woman Queen\nman woman king emperor\n: gram1-silly\nman king woman cart\n";
        let questions = parse(text).unwrap();
        assert_eq!(questions.iter().map(|q| q.syntactic).collect::<Vec<_>>(), [false, false, false, true]);
        let found = analogy(&royal(), &questions, 30_000).unwrap();
        assert_eq!(found, Analogy { accuracy: 2.0 / 3.0, semantic: Some(1.0), syntactic: Some(0.0), answered: 3, skipped: 1 });
        let meaning = analogy(&royal(), &questions[..2], 30_000).unwrap();
        assert_eq!(meaning.syntactic, None);
        assert!(analogy(&royal(), &questions, 3).is_err(), "queen is not among the first three rows");
    }

    #[test]
    fn the_blocked_product_agrees_with_a_plain_search() {
        let (count, width) = (700, 12);
        let rows: Vec<f32> = (0..count * width).map(|i| (i as f32 * 12.9898).sin() * 43_758.547 % 1.0).collect();
        let names: Vec<String> = (0..count).map(|i| format!("w{i}")).collect();
        let features = Features { rows, width, names, ..Features::default() };
        let unit = features.normalised();
        let plain = |given: [usize; 3]| {
            let target: Vec<f32> =
                (0..width).map(|d| unit.row(given[1])[d] - unit.row(given[0])[d] + unit.row(given[2])[d]).collect();
            let score = |r: usize| unit.row(r).iter().zip(&target).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            (0..count).filter(|r| !given.contains(r)).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap()
        };
        let questions: Vec<Question> = (0..300)
            .map(|i| {
                let given = [i % count, (7 * i + 3) % count, (13 * i + 5) % count];
                // Every third question asks for what is wrong.
                let answer = if i % 3 == 0 { (plain(given) + 1) % count } else { plain(given) };
                Question { given: given.map(|g| format!("w{g}")), answer: format!("w{answer}"), syntactic: false }
            })
            .collect();
        assert_eq!(analogy(&features, &questions, count).unwrap().accuracy, 2.0 / 3.0);
    }

    #[test]
    fn bad_files_are_refused_with_their_line() {
        assert!(parse(": a\none two three\n").unwrap_err().to_string().contains("line 2"));
        assert!(parse(": only\n").is_err());
    }
}
