//! Tables of texts with their classes: what a file holds, and which part of it is held out for testing.

use std::collections::BTreeSet;
use std::path::Path;

use ctk_core::modality::Split;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand::RngCore;

use crate::corpus::Invalid;

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
        Texts::parse(text.trim_start_matches('\u{feff}')).at(path.display()).map(|mut texts| {
            if texts.labels.is_some() {
                texts.names.iter_mut().for_each(|name| *name = format!("{}:{name}", path.display()));
            }
            texts
        })
    }

    /// A table from its text; names are lines' numbers. [`read`](Self::read) says what a table is.
    ///
    /// # Errors
    /// A line without its columns; no text at all.
    pub fn parse(text: &str) -> Result<Texts> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_every_form_are_read() {
        let expected = |texts: &Texts| (texts.texts.clone(), texts.labels.clone(), texts.classes.clone(), texts.test.clone());
        let plain = Texts::parse("b\tone two\na\tthree\n").unwrap();
        assert_eq!(expected(&plain).1, Some(vec![1, 0]));
        for text in [
            "label\ttext\nb\tone two\n\na\tthree\r\n",
            "text\tmore\tlabel\none two\t7\tb\nthree\t8\ta\n",
            "coarse\tfine\ttext\nb\tx\tone two\na\ty\tthree\n",
        ] {
            assert_eq!(expected(&Texts::parse(text).unwrap()), expected(&plain), "{text}");
        }
        let news = Texts::parse("split\tgroup\tid\tbody_escaped\ntest\tz\t7\\n\ta\\nb\\\\n\\t\ntrain\ty\t8\tc\n").unwrap();
        assert_eq!(news.texts, ["7\\n\na\nb\\n\t", "8\nc"]);
        assert_eq!((news.test.clone(), news.labels.clone()), (Some(vec![true, false]), Some(vec![1, 0])));
        let (test, origin) = news.part(Split::Test).unwrap();
        assert_eq!((&test.names[..], test.labels, origin), (&["2".to_string()][..], Some(vec![1]), Some("the file's own")));
        let bare = Texts::parse("one two\nthree\tfour\n").unwrap();
        assert_eq!((bare.texts.len(), &bare.labels), (2, &None));
        assert_eq!(bare.part(Split::Train).unwrap_err().exit_code(), 2);
        assert_eq!(Texts::parse("x\ta\tb\n").unwrap().texts, ["a\tb"], "a text may hold tabs");
    }

    #[test]
    fn a_fifth_of_each_class_is_held_out_whatever_the_order() {
        let line = |i: usize| format!("{}\ttext {}\n", if i % 10 < 3 { "few" } else { "many" }, i.min(197));
        let forth: String = (0..200).map(line).collect();
        let back: String = (0..200).rev().map(line).collect();
        let part = |text: &str, split| Texts::parse(text).unwrap().part(split).unwrap();
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
        assert!(Texts::parse("a\tx\na\tx\n").unwrap().part(Split::Test).is_err(), "copies alone");
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
