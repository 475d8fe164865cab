//! Word analogies: a is to b as c is to what? (Mikolov et al. 2013, "Efficient Estimation of Word Representations in Vector
//! Space", §4: the row nearest to b − a + c, 3CosAdd, the three question words excepted.)

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::sets::{self, Columns, Set};
use super::words::Words;
use super::{Table, normalise};
use crate::error::{Context, Error, Result};

/// The question "a is to b as c is to what?", with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// a, b, c.
    pub given: [String; 3],
    /// The right answer.
    pub answer: String,
    /// Whether the question is about grammar rather than meaning: its section's name begins with `gram`, or is two part-of-speech tags as
    /// in MSR's set (`JJ_JJR`).
    pub syntactic: bool,
}

/// Results. Accuracies are fractions of the answered questions; `None` if there was no such question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Analogy {
    /// Fraction of right answers, 0 to 1.
    pub accuracy: f64,
    /// The same for questions about meaning.
    pub semantic: Option<f64>,
    /// The same for questions about grammar.
    pub syntactic: Option<f64>,
    /// Questions whose four words are among the searched rows.
    pub answered: usize,
    /// Questions that were skipped.
    pub skipped: usize,
}

/// Reads the format of `questions-words.txt` (sections `: name`, below them four words on a line), or a table whose first line names
/// columns `word1`, `word2`, `word3` and `target`, and optionally `type` for the section.
///
/// # Errors
/// A file that cannot be read, that has another format, or that has no question.
pub fn read(path: &Path) -> Result<Vec<Question>> {
    Ok(read_all(path)?.0.remove(0).questions)
}

/// [`read`] of a file, or of every file of questions below a folder. Also returns the names of the files that were skipped.
///
/// # Errors
/// As [`read`]; a folder without any file of questions.
pub fn read_all(path: &Path) -> Result<(Vec<Set<Question>>, Vec<String>)> {
    let is = |text: &str| sets::lines(text).next().is_some_and(|(_, line)| line.starts_with(':') || columns(line).is_some());
    sets::read(path, "analogies", is, |text, path| parse(text).at(path.display()))
}

fn columns(header: &str) -> Option<Columns<4>> {
    Columns::of(header, [&["word1"], &["word2"], &["word3"], &["target", "word4"]])
}

/// [`read`] from a text in memory.
///
/// # Errors
/// A text of another format, or without a question.
pub fn parse(text: &str) -> Result<Vec<Question>> {
    const FORM: &str = "the format is that of questions-words.txt (sections `: name`, below them four words a line), or a table with \
                        columns word1, word2, word3 and target";
    let mut questions = Vec::new();
    let mut syntactic = false;
    let mut lines = sets::lines(text).peekable();
    let header = lines.peek().and_then(|(_, line)| Some((columns(line)?, Columns::of(line, [&["type", "section"]]))));
    if header.is_some() {
        lines.next();
    }
    for (number, line) in lines {
        let words = match &header {
            Some((columns, _)) if columns.empty(line) => continue,
            Some((columns, section)) => {
                syntactic = section.as_ref().and_then(|s| s.fields(line)).is_some_and(|[section]| grammar(section));
                columns.fields(line).map(|words| words.map(String::from))
            }
            None => match line.strip_prefix(':') {
                Some(section) => {
                    syntactic = grammar(section);
                    continue;
                }
                None => <[&str; 4]>::try_from(line.split_whitespace().collect::<Vec<_>>()).ok().map(|w| w.map(String::from)),
            },
        };
        let Some([a, b, c, answer]) = words else {
            let count = line.split_whitespace().count();
            let what = match header {
                Some(_) => "a question has four words, this line lacks one".to_string(),
                None => format!("a question has four words, this line has {count}"),
            };
            return Err(Error::new(what).at(format!("line {number}: {line}")).hint(FORM));
        };
        questions.push(Question { given: [a, b, c], answer, syntactic });
    }
    if questions.is_empty() {
        return Err(Error::new("there is no question in this file").hint(FORM));
    }
    Ok(questions)
}

fn grammar(section: &str) -> bool {
    let section = section.trim();
    let tags = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase());
    section.starts_with("gram") || section.split_once('_').is_some_and(|(a, b)| tags(a) && tags(b))
}

/// Questions, and rows, that share one matrix product: their scores take 8 MB, however large the table is.
const BLOCK: usize = 512;
const ROWS: usize = 4096;

/// Answers questions among the first `restrict` rows (rows are in order of frequency; 30,000 is customary). Words are looked up as written,
/// and then lower-cased.
///
/// # Errors
/// No question has all its words among those rows, or the table cannot be read.
pub fn analogy(table: &dyn Table, questions: &[Question], restrict: usize) -> Result<Analogy> {
    let found = analogies(table, &[questions], restrict)?.remove(0);
    if found.answered == 0 {
        return Err(Error::new(format!(
            "none of the {} questions has all its words among the first {} rows",
            questions.len(),
            restrict.min(table.len())
        ))
        .hint("are the words of the same language as the vectors'? A larger --restrict searches more rows"));
    }
    Ok(found)
}

/// [`analogy`] of several sets, in one pass over the table. A set without a question that can be asked has an accuracy of 0.
///
/// # Errors
/// The table cannot be read.
pub fn analogies(table: &dyn Table, sets: &[&[Question]], restrict: usize) -> Result<Vec<Analogy>> {
    let count = restrict.min(table.len());
    let all = || sets.iter().flat_map(|set| set.iter());
    let asked = all().flat_map(|q| q.given.iter().chain([&q.answer]).map(String::as_str));
    let words = Words::find(table, count, asked);
    let rows = |q: &Question| {
        let [a, b, c] = &q.given;
        Some([words.row(a)?, words.row(b)?, words.row(c)?, words.row(&q.answer)?])
    };
    let asked: Vec<[usize; 4]> = all().filter_map(rows).collect();
    let mut right = answers(table, count, &asked)?.into_iter().zip(&asked).map(|(found, asked)| found == Some(asked[3]));
    let mut judged = sets.iter().map(|set| {
        let judged: Vec<(bool, bool)> =
            set.iter().filter(|q| rows(q).is_some()).zip(right.by_ref()).map(|(q, right)| (q.syntactic, right)).collect();
        let share = |kind: Option<bool>| {
            let of: Vec<bool> = judged.iter().filter(|(s, _)| kind.is_none_or(|k| k == *s)).map(|(_, right)| *right).collect();
            (!of.is_empty()).then(|| of.iter().filter(|&&r| r).count() as f64 / of.len() as f64)
        };
        Analogy {
            accuracy: share(None).unwrap_or(0.0),
            semantic: share(Some(false)),
            syntactic: share(Some(true)),
            answered: judged.len(),
            skipped: set.len() - judged.len(),
        }
    });
    Ok(judged.by_ref().collect())
}

/// For each question the row nearest to b − a + c among the first `count`, its three words excluded; of equal rows the first.
fn answers(table: &dyn Table, count: usize, asked: &[[usize; 4]]) -> Result<Vec<Option<usize>>> {
    let width = table.width();
    let mut room = Vec::new();
    // Words occur in many questions, so each is normalised once.
    let mut units: HashMap<usize, Vec<f32>> = HashMap::new();
    for &row in asked.iter().flat_map(|q| &q[..3]) {
        if let Entry::Vacant(vacant) = units.entry(row) {
            let mut unit = table.block(row..row + 1, &mut room)?.to_vec();
            normalise(&mut unit, width);
            vacant.insert(unit);
        }
    }
    let mut best = vec![(None, f32::NEG_INFINITY); asked.len()];
    for from in (0..if asked.is_empty() { 0 } else { count }).step_by(ROWS) {
        let searched = from..(from + ROWS).min(count);
        let mut rows = table.block(searched.clone(), &mut room)?.to_vec();
        normalise(&mut rows, width);
        let rows = Tensor::from_vec(rows, (searched.len(), width), &Device::Cpu)?.t()?;
        for (asked, best) in asked.chunks(BLOCK).zip(best.chunks_mut(BLOCK)) {
            let mut targets = Vec::with_capacity(asked.len() * width);
            for [a, b, c, _] in asked {
                targets.extend(units[a].iter().zip(&units[b]).zip(&units[c]).map(|((a, b), c)| b - a + c));
            }
            let targets = Tensor::from_vec(targets, (asked.len(), width), &Device::Cpu)?;
            let scores = targets.matmul(&rows)?.flatten_all()?.to_vec1::<f32>()?;
            let scored = scores.par_chunks_exact(searched.len()).zip(asked).zip(best);
            scored.for_each(|((scores, asked), best)| better(best, scores, from, &asked[..3]));
        }
    }
    Ok(best.into_iter().map(|(row, _)| row).collect())
}

/// Updates the highest score and its row; the scores are those of rows from `from` on, and the rows `except` are skipped.
fn better(best: &mut (Option<usize>, f32), scores: &[f32], from: usize, except: &[usize]) {
    for (row, &score) in scores.iter().enumerate() {
        if score > best.1 && !except.contains(&(from + row)) {
            *best = (Some(from + row), score);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Features;

    /// Rows in which sex and rank are directions; `queens` is a distractor that only the exact sum avoids.
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
        // More rows than one matrix product takes.
        let (count, width) = (ROWS + 700, 12);
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
                // Every third question has a wrong answer.
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
        assert!(parse(",type,word1,word2,word3,target\n0,x,a,b,c,d\n1,x,a,b,c\n").unwrap_err().to_string().contains("line 3"));
    }

    #[test]
    fn tables_are_read_by_their_columns() {
        let text = ",type,word1,word2,word3,target\n0,JJ_JJR,good,better,rough,rougher\n1,0,solar system ,  sun,atom , core\n\
                    2,gram2-opposite,a,b,c,d\n3,2c,a,b,c,d\n";
        let questions = parse(text).unwrap();
        assert_eq!(questions.iter().map(|q| q.syntactic).collect::<Vec<_>>(), [true, false, true, false]);
        assert_eq!(questions[1].given, ["solar system", "sun", "atom"].map(String::from));
        assert_eq!(questions[1].answer, "core");
    }

    #[test]
    fn sets_are_judged_apart_and_one_without_a_known_word_stops_no_other() {
        let known = parse("man woman king queen\n").unwrap();
        let mixed = parse(": gram\nman woman king cart\nman woman king emperor\n").unwrap();
        let found = analogies(&royal(), &[&known, &mixed[1..], &mixed], 30_000).unwrap();
        assert_eq!(
            found.iter().map(|f| (f.accuracy, f.answered, f.skipped)).collect::<Vec<_>>(),
            [(1.0, 1, 0), (0.0, 0, 1), (0.0, 1, 1)]
        );
        assert_eq!((found[1].semantic, found[2].syntactic), (None, Some(0.0)));
    }
}
