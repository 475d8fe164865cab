//! Tables of texts with their classes: what a file holds, and which part of it is held out for testing.

mod columns;
mod rows;

use std::path::Path;

use ctk_core::modality::Split;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use rand::RngCore;

use crate::corpus::Invalid;
use crate::files::{Encoding, Whole, whole};

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
    /// What should be known of how they were read.
    pub notes: Vec<String>,
}

impl Texts {
    /// Reads a file, plain or packed, of a label, a tab and a text a line; of a `.csv` file, of its cells; or, where the first line has
    /// no tab, of a text a line and no classes.
    ///
    /// The first line may name the columns. The label is then `label`, or another name that is in use for it (`class`, `sentiment`, …),
    /// or else the first column; the text is `text`, or all columns with a name in use for texts (`sentence`, `review`, `question`, …), or
    /// else all columns after the label, or before it; `split` says `train` or `test`. Numbers of rows (`idx`, `id`) are no texts. In
    /// columns whose name ends in `_escaped`, `\n`, `\t`, `\r` and `\\` stand for what they stand for elsewhere. Without names the label
    /// is the first column, or the last, if the first is another text in most lines and the last is not. Empty lines are passed over.
    /// What was told by anything but `label` and `text` is a note.
    ///
    /// # Errors
    /// A file that cannot be read, or is no text; under [`Invalid::Refuse`], bytes that belong to no character; a line without its
    /// columns; no text at all.
    pub fn read(path: &Path, encoding: Encoding, invalid: Invalid) -> Result<Texts> {
        if !path.exists() {
            return Err(Error::usage("cannot read the texts: there is no such file")
                .at(path.display())
                .hint("give a file of lines `label`, tab, text; paths are relative to the current folder"));
        }
        let Whole { text, notes } = whole(path, encoding, invalid)?;
        let mut texts = rows::parse(&text, rows::is_csv(path)).at(path.display())?;
        if texts.labels.is_some() {
            texts.names.iter_mut().for_each(|name| *name = format!("{}:{name}", path.display()));
        }
        texts.notes.splice(0..0, notes);
        Ok(texts)
    }

    /// A table from its text; names are lines' numbers. [`read`](Self::read) says what a table is.
    ///
    /// # Errors
    /// A line without its columns; no text at all.
    pub fn parse(text: &str) -> Result<Texts> {
        rows::parse(text, false)
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
            Texts {
                names: pick(&self.names),
                texts: pick(&self.texts),
                labels,
                classes: self.classes,
                test: None,
                notes: self.notes,
            },
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

#[cfg(test)]
mod tests;
