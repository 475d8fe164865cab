//! Tables of texts with classes: reading them, and holding out a part for testing.

pub(crate) mod columns;
pub(crate) mod rows;

use std::collections::BTreeMap;
use std::path::Path;

use ctk_core::modality::Split;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand::RngCore;

use crate::corpus::Invalid;
use crate::files::{Encoding, Whole, whole};

pub use columns::{Column, Wish};

/// The fraction of each class that is held out if the data has no test part.
const SHARE: f64 = 0.2;

/// Texts, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    /// File and line of each text, without the file's folder; for texts without classes, the text itself.
    pub names: Vec<String>,
    /// The texts.
    pub texts: Vec<String>,
    /// The class of each text, if there are classes.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
    /// Whether each text is a test text, if the file says so.
    pub test: Option<Vec<bool>>,
    /// Notes about the reading.
    pub notes: Vec<String>,
}

impl Texts {
    /// Reads a file, compressed or not. Its lines are label, tab, text; a `.csv` file has cells; a file whose first line has no tab has one
    /// text on each line and no classes.
    ///
    /// The first line may name the columns. The label is then the column `label`, or one with another common name (`class`, `sentiment`,
    /// …), or else the first column. The text is the column `text`, or all columns with common names of texts (`sentence`, `review`,
    /// `question`, …), or else all columns after the label, or before it. The column `split` says `train` or `test`. Row numbers (`idx`,
    /// `id`) are not texts. In columns whose name ends in `_escaped`, the escapes `\n`, `\t`, `\r` and `\\` are replaced. Without names the
    /// label is the first column; it is the last one if the first is different in most lines and the last is not. Empty lines are skipped.
    /// A note says how columns were recognised, unless they are named `label` and `text`.
    ///
    /// # Errors
    /// A file that cannot be read or is not text; with [`Invalid::Refuse`], bytes that are not characters; a line without its columns; no
    /// text at all.
    pub fn read(path: &Path, encoding: Encoding, invalid: Invalid) -> Result<Texts> {
        let mut texts = Texts::parsed(path, encoding, invalid, &Wish::default())?;
        texts.in_file(&path.file_name().unwrap_or_default().to_string_lossy());
        Ok(texts)
    }

    /// The same with columns that the user names; texts are named by their lines.
    pub(crate) fn parsed(path: &Path, encoding: Encoding, invalid: Invalid, wish: &Wish) -> Result<Texts> {
        if !path.exists() {
            return Err(Error::usage("cannot read the texts: there is no such file")
                .at(path.display())
                .hint("give a file of lines `label`, tab, text; paths are relative to the current folder"));
        }
        let Whole { text, notes } = whole(path, encoding, invalid)?;
        let mut texts = rows::parse(&text, rows::is_csv(path), wish).at(path.display())?;
        texts.notes.splice(0..0, notes);
        Ok(texts)
    }

    /// Parses a table; names are line numbers. See [`read`](Self::read) for the format.
    ///
    /// # Errors
    /// A line without its columns, or no text at all.
    pub fn parse(text: &str) -> Result<Texts> {
        rows::parse(text, false, &Wish::default())
    }

    /// Puts the file's name before those of its texts, if they are lines.
    pub(crate) fn in_file(&mut self, file: &str) {
        if self.labels.is_some() {
            self.names.iter_mut().for_each(|name| *name = format!("{file}:{name}"));
        }
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The texts of one part, and a description of how the parts were made. If the file does not name parts, a fifth of each class is held
    /// out, at least one text of two. The choice depends on the texts alone, and equal texts of a class stay together. Empty texts, and texts
    /// whose class is empty, belong to no part; classes are those of the part.
    ///
    /// # Errors
    /// The texts have no classes, or the part is empty.
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
        let of_part = (0..self.len()).filter(|i| test[*i] == (split == Split::Test)).collect::<Vec<_>>();
        let wanted: Vec<usize> = of_part.iter().copied().filter(|i| !self.is_blank(*i)).collect();
        let name = if split == Split::Test { "test" } else { "training" };
        if wanted.is_empty() {
            return Err(Error::usage(format!("there is no {name} text")).hint("every class needs two different texts"));
        }
        let mut part = self.select(&wanted);
        if let Some(first) = of_part.iter().find(|i| self.is_blank(**i)) {
            let (skipped, all) = (of_part.len() - wanted.len(), of_part.len());
            let what = format!("{skipped} of {all} {name} texts are skipped, because the text or its class is empty");
            part.notes.push(format!("{what} (the first is {})", self.names[*first]));
        }
        Ok((part, Some(origin)))
    }

    /// Whether text `i` is empty, or its class is.
    fn is_blank(&self, i: usize) -> bool {
        let class = self.labels.as_ref().and_then(|labels| self.classes.get(labels[i] as usize));
        self.texts[i].trim().is_empty() || class.is_some_and(String::is_empty)
    }

    /// The texts with these indices; classes are those that they have, numbered anew.
    pub fn select(&self, indices: &[usize]) -> Texts {
        let pick = |of: &[String]| indices.iter().map(|i| of[*i].clone()).collect();
        let mut numbers: BTreeMap<u32, u32> = BTreeMap::new();
        let of_these = |labels: &Vec<u32>| indices.iter().map(|i| labels[*i]).collect::<Vec<u32>>();
        let labels = self.labels.as_ref().map(of_these);
        labels.iter().flatten().for_each(|label| {
            numbers.insert(*label, 0);
        });
        numbers.values_mut().zip(0..).for_each(|(number, next)| *number = next);
        Texts {
            names: pick(&self.names),
            texts: pick(&self.texts),
            labels: labels.map(|labels| labels.iter().map(|label| numbers[label]).collect()),
            classes: numbers.keys().filter_map(|label| self.classes.get(*label as usize).cloned()).collect(),
            test: None,
            notes: self.notes.clone(),
        }
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
                // Never a whole class.
                if taken < wanted && taken + equal.len() < class.len() {
                    taken += equal.len();
                    equal.iter().for_each(|(_, _, i)| test[*i] = true);
                }
            }
        }
        test
    }
}

#[cfg(test)]
mod tests;
