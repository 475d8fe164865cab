//! Texts from a table, with their classes, and each as one row: the mean of its words' vectors.
//!
//! The mean is the plainest representation of a text that word vectors give (fastText's classifier begins with it; Shen et al.
//! 2018 show how far it goes), so what a linear classifier does with it says what the vectors know.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ctk_core::eval::{Features, Table};
use ctk_core::modality::{Query, Split};
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand::RngCore;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde_json::json;

use crate::corpus::{Invalid, Reading};

/// Of data without a test part, the share of each class that is held out.
const SHARE: f64 = 0.2;

/// Texts, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// File and line of each; where there are no classes, the text.
    pub names: Vec<String>,
    /// The texts.
    pub texts: Vec<String>,
    /// The class of each, where there are classes.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
    /// Whether each is held out for testing, where the file says so.
    pub test: Option<Vec<bool>>,
}

/// Which columns hold what.
struct Columns {
    label: usize,
    text: Vec<usize>,
    split: Option<usize>,
    // Of each, whether line ends and tabs are written as `\n` and `\t`.
    escaped: Vec<bool>,
}

impl Columns {
    /// Of a line of names; `None` where the line is no such line.
    fn named(line: &str) -> Option<Columns> {
        let names: Vec<&str> = line.split('\t').collect();
        let at = |name: &str| names.iter().position(|n| *n == name);
        if names.len() < 2 || [at("label"), at("text"), at("split")].iter().all(Option::is_none) {
            return None;
        }
        let (split, text) = (at("split"), at("text"));
        let free = |i: &usize| Some(*i) != split && Some(*i) != text;
        let label = at("label").or_else(|| (0..names.len()).find(free))?;
        let text = text.map_or_else(|| (0..names.len()).filter(|i| free(i) && *i > label).collect(), |text| vec![text]);
        (!text.is_empty()).then(|| Columns {
            label,
            text,
            split,
            escaped: names.iter().map(|n| n.ends_with("_escaped")).collect(),
        })
    }
}

impl Texts {
    /// Reads a file: a label, a tab and a text a line; or, where the first line has no tab, a text a line and no classes.
    ///
    /// A first line with the name `label`, `text` or `split` names the columns. The label is then the column `label`, or else the
    /// first; the text is the column `text`, or else all columns after the label; `split` says `train` or `test`. In columns
    /// whose name ends in `_escaped`, `\n`, `\t`, `\r` and `\\` stand for what they stand for elsewhere. Empty lines are passed
    /// over.
    ///
    /// # Errors
    /// A file that cannot be read or, under [`Invalid::Refuse`], is not UTF-8; a line without its columns; no text at all.
    pub fn read(path: &Path, invalid: Invalid) -> Result<Texts> {
        let bytes = std::fs::read(path).map_err(|e| {
            let what = format!("cannot read the texts: {e}");
            Error::usage(what)
                .at(path.display())
                .hint("give a file of lines `label`, tab, text; paths are relative to the current folder")
        })?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) if invalid == Invalid::Replace => String::from_utf8_lossy(e.as_bytes()).into_owned(),
            Err(e) => {
                let at = e.utf8_error().valid_up_to();
                return Err(Error::new("this is not UTF-8").at(format!("{}: byte {at}", path.display())));
            }
        };
        parse(text.trim_start_matches('\u{feff}')).at(path.display()).map(|mut texts| {
            if texts.labels.is_some() {
                texts.names.iter_mut().for_each(|name| *name = format!("{}:{name}", path.display()));
            }
            texts
        })
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Some of them, and in words where the parts come from. Where the file does not say, a fifth of each class is held out,
    /// at least one text of two; which ones hangs on the texts alone, and equal texts of a class stay together.
    ///
    /// # Errors
    /// A part is asked for of texts without classes, or there is none.
    pub fn part(self, split: Split) -> Result<(Texts, Option<&'static str>)> {
        if split == Split::All {
            return Ok((self, None));
        }
        let (test, origin) = match (&self.test, &self.labels) {
            (Some(test), _) => (test.clone(), "the file's own"),
            (None, Some(labels)) => (self.held_out(labels), "a fifth of each class held out, seed 0"),
            (None, None) => {
                return Err(Error::usage("these texts have no classes, so there is nothing to hold out")
                    .hint("give lines of `label`, tab, text"));
            }
        };
        let wanted: Vec<usize> = (0..self.len()).filter(|i| test[*i] == (split == Split::Test)).collect();
        if wanted.is_empty() {
            let name = if split == Split::Test { "test" } else { "training" };
            return Err(Error::usage(format!("there is no {name} text")).hint("every class needs two different texts"));
        }
        let pick = |of: &[String]| wanted.iter().map(|i| of[*i].clone()).collect();
        let labels = self.labels.as_ref().map(|labels| wanted.iter().map(|i| labels[*i]).collect());
        Ok((
            Texts { names: pick(&self.names), texts: pick(&self.texts), labels, classes: self.classes, test: None },
            Some(origin),
        ))
    }

    fn held_out(&self, labels: &[u32]) -> Vec<bool> {
        let key = Key::new(0).of("held-out texts");
        let mut members: Vec<(u32, u64, usize)> =
            (0..self.len()).map(|i| (labels[i], key.of(&self.texts[i]).rng().next_u64(), i)).collect();
        members.sort_unstable();
        let mut test = vec![false; self.len()];
        for class in members.chunk_by(|a, b| a.0 == b.0) {
            let wanted = ((SHARE * class.len() as f64).round() as usize).max(1);
            let mut taken = 0;
            for equal in class.chunk_by(|a, b| a.1 == b.1) {
                // Never all of a class.
                if taken < wanted && taken + equal.len() < class.len() {
                    taken += equal.len();
                    equal.iter().for_each(|(_, _, i)| test[*i] = true);
                }
            }
        }
        test
    }

    /// A row a text: the mean of the rows of its words, which are cut as `reading` says and looked up as they are then, or else
    /// lower-cased, or else come from `unseen`. Words without a vector are left out; a text without any is a row of zeros. What is told
    /// of the rows is `missing`, the share of words that were left out.
    ///
    /// # Errors
    /// A tokenizer that fails. Of a list of words (no classes, no white space), one without a vector.
    pub fn features(
        self,
        words: &Features,
        reading: &Reading,
        unseen: impl Fn(&str) -> Option<Vec<f32>> + Sync,
    ) -> Result<Features> {
        let mut rows = HashMap::with_capacity(words.len());
        for (row, name) in words.names.iter().enumerate() {
            rows.entry(name.as_str()).or_insert(row);
        }
        let of = |text: &String| {
            let (mut sum, mut known, mut all) = (vec![0f64; words.width], 0u64, 0u64);
            // A line's end is an end for the corpus too.
            for line in text.lines() {
                reading.words(line, |word| {
                    all += 1;
                    let mut add = |row: &[f32]| {
                        known += 1;
                        sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
                    };
                    match rows.get(word).or_else(|| rows.get(word.to_lowercase().as_str())) {
                        Some(row) => add(words.row(*row)),
                        None => unseen(word).iter().for_each(|row| add(row)),
                    }
                })?;
            }
            Ok((sum.into_iter().map(|v| (v / known.max(1) as f64) as f32).collect::<Vec<f32>>(), all - known, all))
        };
        let found: Vec<(Vec<f32>, u64, u64)> = self.texts.par_iter().map(of).collect::<Result<_>>()?;
        let bare = self.labels.is_none() && self.texts.iter().all(|text| text.split_whitespace().count() == 1);
        if let (true, Some(unknown)) = (bare, found.iter().position(|(_, missing, all)| missing == all)) {
            return Err(Error::usage(format!("`{}` is not in the vocabulary", self.names[unknown]))
                .hint("a run with encoder.subwords has vectors of words that it never saw"));
        }
        let (missing, all) = found.iter().fold((0, 0), |(m, a), (_, missing, all)| (m + missing, a + all));
        Ok(Features {
            rows: found.into_iter().flat_map(|(row, ..)| row).collect(),
            width: words.width,
            names: self.names,
            labels: self.labels,
            classes: self.classes,
            told: vec![("missing", json!(missing as f64 / all.max(1) as f64))],
        })
    }
}

fn parse(text: &str) -> Result<Texts> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let Some((_, first)) = lines.peek() else { return Err(Error::new("there is no text in this file")) };
    let mut texts = Texts::default();
    if !first.contains('\t') {
        for (_, line) in lines {
            texts.names.push(line.trim().to_string());
            texts.texts.push(line.to_string());
        }
        return Ok(texts);
    }
    let columns = match Columns::named(first) {
        Some(columns) => {
            lines.next();
            columns
        }
        // A text may hold tabs.
        None => Columns { label: 0, text: vec![1], split: None, escaped: vec![false; 2] },
    };
    let (mut labels, mut test) = (Vec::new(), Vec::new());
    for (number, line) in lines {
        let fields: Vec<&str> = line.splitn(columns.escaped.len(), '\t').collect();
        let wrong = |what: String| Error::new(what).at(format!("line {}", number + 1)).hint("a line is `label`, tab, text");
        if fields.len() != columns.escaped.len() {
            return Err(wrong(format!("this line has {} columns, not {}", fields.len(), columns.escaped.len())));
        }
        if let Some(split) = columns.split {
            test.push(match fields[split].trim() {
                "train" => false,
                "test" => true,
                other => return Err(wrong(format!("`{other}` is no part: a text is of `train` or of `test`"))),
            });
        }
        let field = |&at: &usize| if columns.escaped[at] { unescape(fields[at]) } else { fields[at].to_string() };
        labels.push(fields[columns.label].trim());
        texts.texts.push(columns.text.iter().map(field).collect::<Vec<_>>().join("\n"));
        texts.names.push((number + 1).to_string());
    }
    if texts.is_empty() {
        return Err(Error::new("there is no text in this file"));
    }
    let classes: Vec<&str> = labels.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    // Sorted names make the search a proof that each is found.
    texts.labels = Some(labels.iter().map(|label| classes.partition_point(|name| name < label) as u32).collect());
    texts.classes = classes.into_iter().map(String::from).collect();
    texts.test = columns.split.map(|_| test);
    Ok(texts)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(other)) => out.push(other),
            _ => out.push(c),
        }
    }
    out
}

/// Names of vectors that were not learned: random directions of the words' lengths.
pub const BASELINES: &[&str] = &["random"];

/// What a table of word vectors answers: the words' own rows, or, of data, a row a text, read as `reading` says.
///
/// # Errors
/// An unknown baseline; data that [`Texts`] cannot be made of.
pub fn answer(table: &impl Table, query: &Query, reading: impl FnOnce() -> Result<Reading>) -> Result<Features> {
    let mut words = table.features()?;
    match query.baseline.as_deref() {
        None => {}
        Some(name) if BASELINES.contains(&name) => random(&mut words, query.seed),
        Some(name) => return Err(Error::usage(format!("word vectors have no baseline `{name}`"))),
    }
    let Some(path) = &query.data else { return Ok(words) };
    let reading = reading()?;
    let (texts, origin) = Texts::read(path, reading.invalid)?.part(query.split).at(path.display())?;
    let unseen = |word: &str| if query.baseline.is_none() { table.unseen(word) } else { None };
    let mut features = texts.features(&words, &reading, unseen).at(path.display())?;
    features.told.extend(origin.map(|origin| ("split", origin.into())));
    Ok(features)
}

/// [`answer`] as a table: the words' own rows are not copied.
///
/// # Errors
/// As of [`answer`].
pub fn answer_table<'a>(
    table: &'a impl Table,
    query: &Query,
    reading: impl FnOnce() -> Result<Reading>,
) -> Result<Box<dyn Table + 'a>> {
    match (&query.data, &query.baseline) {
        (None, None) => Ok(Box::new(table)),
        _ => Ok(Box::new(answer(table, query, reading)?)),
    }
}

/// Random directions in place of the rows', with the rows' lengths: what a classifier makes of words alone.
fn random(features: &mut Features, seed: u64) {
    let key = Key::new(seed).of("random baseline");
    features.rows.par_chunks_exact_mut(features.width).enumerate().for_each(|(row, values)| {
        let length = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let wanted = length(values);
        StandardNormal.sample_iter(key.at(row as u64).rng()).zip(values.iter_mut()).for_each(|(drawn, v): (f32, _)| *v = drawn);
        let scale = (wanted / length(values).max(f64::MIN_POSITIVE)) as f32;
        values.iter_mut().for_each(|v| *v *= scale);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Features {
        let names = ["good", "bad", "Paris", "paris"].map(String::from).to_vec();
        Features { rows: vec![1.0, 0.0, 0.0, 1.0, 4.0, 4.0, 8.0, 2.0], width: 2, names, ..Features::default() }
    }

    #[test]
    fn a_text_is_the_mean_of_its_words() {
        let texts = parse("1\tgood bad good Good\n0\tnothing known\n1\tParis PARIS, bad\n").unwrap();
        assert_eq!((texts.labels.clone().unwrap(), &texts.classes[..]), (vec![1, 0, 1], &["0".to_string(), "1".to_string()][..]));
        let found = texts.clone().features(&words(), &Reading::default(), |_| None).unwrap();
        assert_eq!((found.row(0), found.row(1), found.row(2)), (&[0.75, 0.25][..], &[0.0, 0.0][..], &[2.0, 2.5][..]));
        assert_eq!(found.told, [("missing", json!(3.0 / 9.0))], "`PARIS,` has a comma");
        // Cut as the reading says: now the comma is a word of its own.
        let reading = Reading { tokens: crate::corpus::Tokens::Words, lowercase: true, ..Reading::default() };
        let found = texts.clone().features(&words(), &reading, |_| None).unwrap();
        assert_eq!((found.row(2), &found.told[..]), (&[16.0 / 3.0, 5.0 / 3.0][..], &[("missing", json!(0.3))][..]));
        let made = texts.features(&words(), &reading, |word| (word == ",").then(|| vec![3.0, 0.0])).unwrap();
        assert_eq!((made.row(2), made.row(1)), (&[4.75, 1.25][..], &[0.0, 0.0][..]));
    }

    #[test]
    fn a_list_of_words_has_to_be_known() {
        let list = parse("good\nPARIS\n").unwrap();
        let found = list.features(&words(), &Reading::default(), |_| None).unwrap();
        assert_eq!(
            (&found.names[..], &found.rows[..]),
            (&["good".to_string(), "PARIS".to_string()][..], &[1.0, 0.0, 8.0, 2.0][..])
        );
        let unknown = || parse("good\nbetter\n").unwrap();
        let error = unknown().features(&words(), &Reading::default(), |_| None).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("`better`"), "{error}");
        assert!(unknown().features(&words(), &Reading::default(), |_| Some(vec![1.0, 1.0])).is_ok());
    }

    #[test]
    fn tables_of_every_form_are_read() {
        let expected = |texts: &Texts| (texts.texts.clone(), texts.labels.clone(), texts.classes.clone(), texts.test.clone());
        let plain = parse("b\tone two\na\tthree\n").unwrap();
        assert_eq!(expected(&plain).1, Some(vec![1, 0]));
        for text in [
            "label\ttext\nb\tone two\n\na\tthree\r\n",
            "text\tmore\tlabel\none two\t7\tb\nthree\t8\ta\n",
            "coarse\tfine\ttext\nb\tx\tone two\na\ty\tthree\n",
        ] {
            assert_eq!(expected(&parse(text).unwrap()), expected(&plain), "{text}");
        }
        let news = parse("split\tgroup\tid\tbody_escaped\ntest\tz\t7\\n\ta\\nb\\\\n\\t\ntrain\ty\t8\tc\n").unwrap();
        assert_eq!(news.texts, ["7\\n\na\nb\\n\t", "8\nc"]);
        assert_eq!((news.test.clone(), news.labels.clone()), (Some(vec![true, false]), Some(vec![1, 0])));
        let (test, origin) = news.part(Split::Test).unwrap();
        assert_eq!((&test.names[..], test.labels, origin), (&["2".to_string()][..], Some(vec![1]), Some("the file's own")));
        let bare = parse("one two\nthree\tfour\n").unwrap();
        assert_eq!((bare.texts.len(), &bare.labels), (2, &None));
        assert_eq!(bare.part(Split::Train).unwrap_err().exit_code(), 2);
        assert_eq!(parse("x\ta\tb\n").unwrap().texts, ["a\tb"], "a text may hold tabs");
    }

    #[test]
    fn a_fifth_of_each_class_is_held_out_whatever_the_order() {
        let line = |i: usize| format!("{}\ttext {}\n", if i % 10 < 3 { "few" } else { "many" }, i.min(197));
        let forth: String = (0..200).map(line).collect();
        let back: String = (0..200).rev().map(line).collect();
        let part = |text: &str, split| parse(text).unwrap().part(split).unwrap();
        let (test, origin) = part(&forth, Split::Test);
        assert!(origin.unwrap().contains("seed 0"));
        let count = |texts: &Texts, class| texts.labels.as_ref().unwrap().iter().filter(|l| **l == class).count();
        assert_eq!(count(&test, 0), 12);
        // Three texts of the class are equal, and stay together.
        assert!((28..=30).contains(&count(&test, 1)), "{}", count(&test, 1));
        let copies = test.texts.iter().filter(|t| *t == "text 197").count();
        assert!(copies == 0 || copies == 3);
        let sorted = |mut texts: Vec<String>| {
            texts.sort();
            texts
        };
        assert_eq!(sorted(part(&back, Split::Test).0.texts), sorted(test.texts.clone()));
        let train = part(&forth, Split::Train).0;
        assert_eq!(train.len() + test.len(), 200);
        assert_eq!(part("a\tx\na\ty\nb\tx\nb\ty\n", Split::Test).0.len(), 2, "one of two");
        assert!(parse("a\tx\na\tx\n").unwrap().part(Split::Test).is_err(), "copies alone");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.tsv");
        let read = |bytes: &[u8], invalid| {
            std::fs::write(&path, bytes).unwrap();
            Texts::read(&path, invalid)
        };
        let said = |bytes: &[u8]| read(bytes, Invalid::Refuse).unwrap_err().to_string();
        assert!(said(b"a\tx\nb y\n").contains("line 2"));
        assert!(said(b"split\tlabel\ttext\ndev\ta\tx\n").contains("`dev`"));
        assert!(said(b"").contains("no text") && said(b"label\ttext\n").contains("no text"));
        assert!(said(b"a\tx\xff\n").contains("byte 3"));
        assert_eq!(read(b"a\tx\xff\n", Invalid::Replace).unwrap().texts, ["x\u{fffd}"]);
        assert!(read(b"\xef\xbb\xbfa\tx\n", Invalid::Refuse).unwrap().names[0].ends_with("t.tsv:1"));
        assert_eq!(Texts::read(&folder.path().join("none"), Invalid::Refuse).unwrap_err().exit_code(), 2);
    }
}
