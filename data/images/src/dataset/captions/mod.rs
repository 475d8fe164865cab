//! Captions of images: the names of their columns, the cells that hold them, and images that have none.
//!
//! Captions are read only where they are asked for (`Reading::captions`). They come from a table's columns (`table.rs`, `parquet/`), from a
//! table beside the images (`beside.rs`), or from the files `key.txt` and `key.json` of an archive (`keyed.rs`). A caption's text stays as it
//! is, except for blanks at its ends.

pub(super) mod beside;
pub(super) mod keyed;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::report::{Found, count};
use super::tree::Leaf;
use super::{Columns, Images, Splits};

/// What is read of tables and archives, and from which columns.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub columns: &'a Columns,
    /// Whether captions are read.
    pub captions: bool,
}

/// One name of a column or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "data.columns.captions must be the name of a column in quotes, or a list of names")]
pub enum ColumnNames {
    /// One.
    One(String),
    /// Several; an image has the captions of all of them.
    Many(Vec<String>),
}

impl ColumnNames {
    /// All names.
    pub fn list(&self) -> &[String] {
        match self {
            ColumnNames::One(name) => std::slice::from_ref(name),
            ColumnNames::Many(names) => names,
        }
    }
}

/// Names of columns and of JSON fields that hold captions; an earlier one is preferred.
const NAMES: [&str; 18] = [
    "caption",
    "captions",
    "image_caption",
    "image_captions",
    "text",
    "texts",
    "sentence",
    "sentences",
    "description",
    "descriptions",
    "alt_text",
    "alt",
    "comment",
    "comments",
    "prompt",
    "prompts",
    "raw",
    "title",
];

/// What to do where no caption was found.
pub(super) const HINT: &str = "name the column: --set data.columns.captions=NAME, or a list of names; common names are caption, text, sentence, description, title";

/// The captions of one image, in the order of the data.
pub(super) type Captions = Vec<Box<str>>;

/// The places of the columns whose names are common for captions: of the first common name, its column and those that are numbered after it
/// (`caption_1` to `caption_5`), by their numbers.
pub(super) fn recognised<'a>(columns: impl Iterator<Item = (usize, &'a str)> + Clone) -> Vec<usize> {
    let of = |known: &&str| {
        let mut places: Vec<(Option<u64>, usize)> =
            columns.clone().filter_map(|(place, name)| Some((number(name, known)?, place))).collect();
        places.sort_unstable();
        places.into_iter().map(|(_, place)| place).collect::<Vec<usize>>()
    };
    NAMES.iter().map(of).find(|places| !places.is_empty()).unwrap_or_default()
}

/// Whether a field's name is common for captions.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.iter().any(|known| number(name, known) == Some(None))
}

/// The number of the column `name` among those called `known`: `Some(None)` for the plain name, `Some(Some(3))` for `Caption 3`.
fn number(name: &str, known: &str) -> Option<Option<u64>> {
    let name = name.trim().to_lowercase().replace(['-', ' '], "_");
    let rest = name.strip_prefix(known)?;
    match rest.strip_prefix('_').unwrap_or(rest) {
        "" if rest.is_empty() => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    }
}

/// Adds a caption without surrounding blanks, unless it is empty.
pub(super) fn add(captions: &mut Captions, text: &str) {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if !text.is_empty() {
        captions.push(text.into());
    }
}

/// Adds the captions of a cell: its text, or the texts of a JSON list.
pub(super) fn add_cell(captions: &mut Captions, cell: &str) {
    let texts = |value: &Value| matches!(value, Value::String(_) | Value::Object(_) | Value::Array(_) | Value::Null);
    let listed = cell.trim_start().starts_with('[').then(|| serde_json::from_str::<Vec<Value>>(cell).ok());
    match listed.flatten() {
        Some(list) if list.iter().all(texts) => list.iter().for_each(|value| add_value(captions, value)),
        _ => add(captions, cell),
    }
}

/// Adds the captions of a JSON value: a text, a list of values, or an object with a field whose name is common for captions.
pub(super) fn add_value(captions: &mut Captions, value: &Value) {
    match value {
        Value::String(text) => add(captions, text),
        Value::Array(values) => values.iter().for_each(|value| add_value(captions, value)),
        Value::Object(fields) => {
            for place in recognised(fields.keys().map(String::as_str).enumerate()) {
                // A field of an object in an object is not one of the image's captions.
                if let Some(value) = fields.values().nth(place).filter(|value| !value.is_object()) {
                    add_value(captions, value);
                }
            }
        }
        Value::Number(number) => add(captions, &number.to_string()),
        Value::Null | Value::Bool(_) => {}
    }
}

/// Captions as an image keeps them; none if there is none.
pub(super) fn kept(captions: Captions) -> Option<Arc<Captions>> {
    (!captions.is_empty()).then(|| Arc::new(captions))
}

/// Up to so many captions are compared with each other one by one.
const FEW: usize = 32;

/// Removes captions that repeat an earlier one of the same image; the number of those removed.
fn unique(captions: &mut Captions) -> usize {
    let before = captions.len();
    if before <= FEW {
        let mut at = 1;
        while at < captions.len() {
            if captions[..at].contains(&captions[at]) {
                captions.remove(at);
            } else {
                at += 1;
            }
        }
    } else {
        let mut seen = HashSet::new();
        let first: Vec<bool> = captions.iter().map(|caption| seen.insert(&**caption)).collect();
        let mut first = first.into_iter();
        captions.retain(|_| first.next().unwrap_or(true));
    }
    captions.shrink_to_fit();
    before - captions.len()
}

/// Keeps each caption of an image once, and notes how many were repeated.
pub(super) fn settle<'a>(leaves: impl Iterator<Item = &'a mut Leaf>, found: &mut Found) {
    let of = |leaf: &'a mut Leaf| leaf.captions.as_mut().map_or(0, |captions| unique(Arc::make_mut(captions)));
    repeated(leaves.map(of).sum(), found);
}

fn repeated(number: usize, found: &mut Found) {
    if number > 0 {
        let what = if number == 1 { "repeats a caption of its image and is" } else { "repeat captions of their images and are" };
        found.note(format!("{} {what} left out", count(number, "caption")));
    }
}

impl Splits {
    /// The same without images that have no caption. Nothing is left out if no image has one. A part that is held back and has labels, but no
    /// caption at all, is kept: it can be evaluated by its classes.
    ///
    /// # Errors
    /// No image to train on has a caption.
    pub(super) fn captioned(self, path: &Path) -> Result<Splits> {
        if !self.all().has_captions() {
            return Ok(self);
        }
        let mut found = (*self.found).clone();
        let mut with = |images: Images| -> Images {
            let (kept, without): (Vec<usize>, Vec<usize>) = (0..images.len()).partition(|&i| !images.captions(i).is_empty());
            without.iter().for_each(|&i| found.pass_over(WITHOUT, &images.name(i)));
            if without.is_empty() { images } else { images.select(&kept) }
        };
        let train = with(self.train);
        let unlabelled = self.unlabelled.map(&mut with);
        let mut spared = Vec::new();
        let [val, test] = [(self.val, "val"), (self.test, "test")].map(|(part, name)| {
            let part = part?;
            if !part.has_captions() && part.each_label().any(|label| label.is_some()) {
                spared.push(format!(
                    "the {name} part has no captions: its {} are kept for their labels",
                    count(part.len(), "image")
                ));
                return Some(part);
            }
            Some(with(part))
        });
        let apart = self.apart.into_iter().map(&mut with).collect();
        found.notes.extend(spared);
        let some = |part: Option<Images>| part.filter(|images| !images.is_empty());
        let mut splits = Splits {
            train,
            val: some(val),
            test: some(test),
            unlabelled: some(unlabelled),
            apart,
            ..Splits::of(Images::new(Vec::new(), Vec::new()))
        };
        let all = splits.all();
        let (with, number) = (0..all.len())
            .map(|i| all.captions(i).len())
            .filter(|of| *of > 0)
            .fold((0, 0), |(with, sum), of| (with + 1, sum + of));
        found.note(format!("{} with {}", count(with, "image"), count(number, "caption")));
        splits.found = found.into();
        if splits.pretraining().is_empty() {
            let left_out = splits.found.unread_line().unwrap_or_default();
            return Err(Error::usage(format!("no image to train on has a caption: {left_out}"))
                .at(path.display())
                .hint("captions of the training part are missing, or belong to other images"));
        }
        Ok(splits)
    }
}

/// The kind under which images without a caption are counted.
const WITHOUT: &str = "image without a caption";

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&'static str]) -> Vec<usize> {
        recognised(names.iter().copied().enumerate())
    }

    #[test]
    fn columns_are_recognised_alone_and_numbered() {
        for (names, places) in [
            (&["image", "caption"][..], &[1][..]),
            (&["text", "image", " Caption "], &[2]),
            (&["caption_10", "caption_2", "x", "Caption 1", "caption", "caption-3"], &[4, 3, 1, 5, 0]),
            (&["captions1", "captions2"], &[0, 1]),
            (&["title", "description"], &[1]),
            (&["caption_id", "captioned", "texture", "alternative", "label"], &[]),
            (&["alt_text"], &[0]),
            (&["alt_99999999999999999999"], &[]),
        ] {
            assert_eq!(columns(names), places, "{names:?}");
        }
        assert!(is_known("Raw") && !is_known("raw_1") && !is_known("tokens"));
    }

    #[test]
    fn cells_are_texts_or_lists() {
        for (cell, expected) in [
            (" a dog \n", &["a dog"][..]),
            ("[\"a\", \" b \", null, \"\"]", &["a", "b"]),
            ("[]", &[]),
            ("[1, 2]", &["[1, 2]"]),
            ("[sic] a dog", &["[sic] a dog"]),
            ("[{\"raw\": \"a\", \"tokens\": [\"x\"]}, {\"raw\": \"b\"}]", &["a", "b"]),
            ("1984", &["1984"]),
            ("\u{feff} \t", &[]),
        ] {
            let mut captions = Captions::new();
            add_cell(&mut captions, cell);
            assert_eq!(captions.iter().map(|c| &**c).collect::<Vec<_>>(), expected, "{cell}");
        }
    }

    #[test]
    fn repeats_are_removed_in_short_and_long_lists() {
        for number in [3, 20, 200] {
            let mut captions: Captions = (0..number).map(|i| format!("{}", i % (number / 2 + 1)).into()).collect();
            let repeats = unique(&mut captions);
            let expected: Captions = (0..number / 2 + 1).map(|i| i.to_string().into()).collect();
            assert_eq!((captions, repeats), (expected, number - number / 2 - 1));
        }
    }
}
