//! Recognises the columns of a table: by the names in its first line, or by their content.

use std::collections::HashSet;

use ctk_core::error::short;
use ctk_core::{Error, Result};

/// Common names of labels, the surest first.
pub const LABELS: [&str; 14] = [
    "label",
    "labels",
    "gold_label",
    "class",
    "class_name",
    "category",
    "target",
    "sentiment",
    "polarity",
    "intent",
    "topic",
    "emotion",
    "stars",
    "quality",
];

/// Common names of texts; `text` is used alone, of the others all are used.
const TEXTS: [&str; 30] = [
    "text",
    "sentence",
    "sentences",
    "sentence1",
    "sentence2",
    "premise",
    "hypothesis",
    "question",
    "question1",
    "question2",
    "review",
    "comment",
    "comment_text",
    "content",
    "body",
    "document",
    "doc",
    "article",
    "abstract",
    "summary",
    "headline",
    "title",
    "description",
    "tweet",
    "utterance",
    "query",
    "passage",
    "message",
    "#1 string",
    "#2 string",
];

/// Common names of row numbers and sources.
const NUMBERS: [&str; 9] = ["", "id", "idx", "index", "guid", "uid", "unnamed: 0", "#1 id", "#2 id"];

/// The column with the part of each text.
const SPLIT: &str = "split";

/// Whether this is a common name of texts.
pub fn is_text(name: &str) -> bool {
    TEXTS.contains(&name.trim().to_lowercase().as_str())
}

/// A column that the user names.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// By its number, from 1 on.
    Number(usize),
    /// By its name in the first line.
    Name(String),
}

/// The columns that the user names; others are recognised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wish {
    /// The text.
    pub text: Option<Column>,
    /// The class.
    pub label: Option<Column>,
}

impl Wish {
    /// The columns of a table whose first row is `line`, and whether this row has the columns' names. None if they are not told by names.
    ///
    /// # Errors
    /// A column that there is not.
    pub fn columns(&self, line: &[&str]) -> Result<(Option<Columns>, bool)> {
        let known = Columns::named(line);
        if self.text.is_none() && self.label.is_none() {
            let header = known.is_some();
            return Ok((known, header));
        }
        let is_name = |column: &Option<Column>| matches!(column, Some(Column::Name(_)));
        let header = known.is_some() || is_name(&self.text) || is_name(&self.label);
        let at = |column: &Column, key: &str| {
            let found = match column {
                Column::Number(number) => number.checked_sub(1).filter(|at| *at < line.len()),
                Column::Name(name) => {
                    line.iter().position(|known| known.trim().trim_matches('"').eq_ignore_ascii_case(name.trim()))
                }
            };
            found.ok_or_else(|| {
                let named = match column {
                    Column::Number(number) => number.to_string(),
                    Column::Name(name) => format!("`{name}`"),
                };
                let all: Vec<String> =
                    line.iter().zip(1..).map(|(cell, number)| format!("{number} `{}`", short(cell.trim(), 30))).collect();
                Error::usage(format!("there is no column {named}: the first line has {}", all.join(", ")))
                    .hint(format!("set {key} to one of them, by name or by number"))
            })
        };
        let text = self.text.as_ref().map(|column| at(column, "data.columns.anchor (the text)")).transpose()?;
        let label = self.label.as_ref().map(|column| at(column, "data.columns.label")).transpose()?;
        let split = if header { known.as_ref().and_then(|known| known.split) } else { None };
        let other = |taken: Option<usize>| {
            (line.len() == 2).then(|| 1 - taken.unwrap_or_default()).filter(|_| taken.is_some_and(|at| at < 2))
        };
        let label = label.or(known.as_ref().and_then(|known| known.label).filter(|at| Some(*at) != text)).or_else(|| other(text));
        let text = match text {
            Some(text) => vec![text],
            None => {
                let told = known.as_ref().map(|known| known.text.clone()).unwrap_or_default();
                let told: Vec<usize> = told.into_iter().filter(|at| Some(*at) != label).collect();
                if told.is_empty() { other(label).into_iter().collect() } else { told }
            }
        };
        if text.is_empty() {
            return Err(Error::usage("the column of the texts is not recognised").hint("name it: data.columns.anchor"));
        }
        let escaped = line.iter().map(|name| header && name.trim().to_lowercase().ends_with("_escaped")).collect();
        Ok((Some(Columns { label, text, split, between: "\n", escaped, note: None }), header))
    }
}

/// The columns that are used.
#[derive(Debug)]
pub struct Columns {
    /// The class, if there are classes.
    pub label: Option<usize>,
    /// The texts, which are joined line by line.
    pub text: Vec<usize>,
    /// The part.
    pub split: Option<usize>,
    /// The separator between texts of several columns.
    pub between: &'static str,
    /// For each text column, whether line ends and tabs are escaped as `\n` and `\t`.
    pub escaped: Vec<bool>,
    /// A note about how they were recognised.
    pub note: Option<String>,
}

impl Columns {
    /// The columns that the names in `line` stand for; `None` if the line is not a header.
    pub fn named(line: &[&str]) -> Option<Columns> {
        let names: Vec<String> = line.iter().map(|name| name.trim().trim_matches('"').to_lowercase()).collect();
        let at = |name: &str| names.iter().position(|n| n == name);
        let (label, split) = (LABELS.iter().find_map(|name| at(name)), at(SPLIT));
        let told: Vec<usize> = (0..names.len()).filter(|&i| TEXTS.contains(&names[i].as_str()) && Some(i) != label).collect();
        let number = |i: usize| NUMBERS.contains(&names[i].as_str());
        // `label`, `text` and `split` are names by themselves; other words are names only together.
        let sure = ["label", "text", SPLIT].iter().any(|name| at(name).is_some());
        let numbered =
            !told.is_empty() && (0..names.len()).all(|i| number(i) || told.contains(&i)) && (0..names.len()).any(number);
        if names.len() < 2 || !(sure || numbered || (label.is_some() && !told.is_empty())) {
            return None;
        }
        let free = |i: &usize| Some(*i) != split;
        let label = label.or_else(|| (0..names.len()).find(|i| free(i) && !number(*i) && !told.contains(i)));
        let text = match (at("text"), told.is_empty()) {
            (Some(text), _) => vec![text],
            (None, false) => told,
            (None, true) => {
                let free: Vec<usize> = (0..names.len()).filter(|i| free(i) && Some(*i) != label).collect();
                let behind: Vec<usize> = free.iter().copied().filter(|&i| Some(i) > label).collect();
                let before = || free.iter().copied().filter(|&i| !number(i)).collect();
                if behind.is_empty() { before() } else { behind }
            }
        };
        if text.is_empty() {
            return None;
        }
        let called = |i: usize| format!("`{}`", line[i].trim());
        let two = names.len() == 2;
        let plain = (two || at("label").is_some() || label.is_none_or(|i| i == 0)) && (two || at("text").is_some());
        let note = (!plain).then(|| {
            let texts: Vec<String> = text.iter().map(|&i| called(i)).collect();
            let label = label.map_or("there is no label".to_string(), |i| format!("the label is the column {}", called(i)));
            format!("{label}, the text {}; columns named `label` and `text` say it otherwise", texts.join(" and "))
        });
        let between = "\n";
        Some(Columns { label, text, split, between, escaped: names.iter().map(|n| n.ends_with("_escaped")).collect(), note })
    }

    /// The columns of rows without names that all have `count` columns: the label is the first or the last.
    pub fn unnamed(rows: &[Vec<&str>], count: usize, between: &'static str) -> Columns {
        let last = count - 1;
        let different = |column: usize| rows.iter().map(|row| row[column].trim()).collect::<HashSet<_>>().len();
        let words = |column: usize| rows.iter().filter(|row| row[column].trim().contains(char::is_whitespace)).count();
        let (of_first, of_last) = (different(0), different(last));
        // Texts are rarely equal and classes often; with few lines, a class is better recognised by being one word.
        let repeated = rows.len() >= 4 && of_first * 2 > rows.len() && of_last * 2 <= rows.len();
        let worded = rows.len() >= 2 && of_first >= of_last && words(0) == rows.len() && words(last) == 0;
        let backward = repeated || worded;
        let (label, text) = if backward { (last, (0..last).collect()) } else { (0, (1..count).collect::<Vec<_>>()) };
        let (classes, lines) = (if backward { of_last } else { of_first }, rows.len());
        let note = if backward {
            Some(format!("the label is the last column, which has {of_last} different values where the first has {of_first}"))
        } else if lines >= 10 && classes * 2 > lines {
            Some(format!("the first column is taken for the label, and has {classes} different values in {lines} lines"))
        } else if text.len() > 1 {
            Some(format!("the label is the first of {count} columns, the text all others"))
        } else {
            None
        };
        let note = note.map(|note| format!("{note}; a first line with the names `label` and `text` says it otherwise"));
        Columns { label: Some(label), text, split: None, between, escaped: vec![false; count], note }
    }
}
