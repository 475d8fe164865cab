//! Evaluators: functions over frozen [`Features`]. They cannot reach an encoder, so they cannot change one.

pub mod analogy;
pub mod categorize;
mod classify;
pub mod correlation;
mod cross_entropy;
pub mod crossmodal;
mod file;
pub mod geometry;
mod judgement;
pub mod knn;
mod lbfgs;
pub mod linear_probe;
pub mod mining;
mod nearest;
mod neighbors;
pub mod pca;
pub mod precision;
mod predictions;
pub mod retrieval;
pub mod ridge;
mod sets;
pub mod similarity;
pub mod spread;
pub mod sts;
mod table;
mod words;
pub mod zero_shot;

use rayon::prelude::*;

use crate::data::dataset::Dataset;
use crate::error::{Error, Result};

pub use cross_entropy::cross_entropy;
pub use file::{files_of, holds_codes, is_features};
pub use judgement::{ClassFigures, Judgement, temperature};
pub use neighbors::{Sum, doesnt_match, neighbors, search};
pub use predictions::Predictions;
pub use sets::Set;
pub use table::Table;

/// The key of the notes among [`Features::extras`]: a list of sentences to print, not a figure.
pub const NOTES: &str = "notes";

/// Frozen features on the host: the input of every evaluator, export and look-up.
///
/// ```
/// use ctk_core::eval::{Features, knn};
///
/// let mut animals = Features::default();
/// for (name, row) in [("a", [1.0, 0.1]), ("b", [0.9, 0.0]), ("c", [0.0, 1.0]), ("d", [0.1, 0.8])] {
///     animals.push(name, &row)?;
/// }
/// let animals = animals.labelled(&["cat", "cat", "dog", "dog"].map(String::from));
/// let options = knn::Options { k: Some(1), ..Default::default() };
/// let found = knn::knn(&animals.select(&[0, 2]), &animals.select(&[1, 3]), &options)?;
/// assert_eq!(found.top1, 1.0); // A share, 0 to 1.
/// # Ok::<(), ctk_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Row-major values, `len() · width`.
    pub rows: Vec<f32>,
    /// Values in a row.
    pub width: usize,
    /// A name for each row: a path, a word.
    pub names: Vec<String>,
    /// A class for each row, if known.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes by number; empty if they have none.
    pub classes: Vec<String>,
    /// The part of the data that each row belongs to (`train`, `test`, …), empty if unknown; no entries at all if it is unknown for all
    /// rows.
    pub parts: Vec<String>,
    /// Further figures under their JSON names.
    pub extras: Vec<(&'static str, serde_json::Value)>,
}

impl Features {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.width..(i + 1) * self.width]
    }

    /// The number of values that are left of a row if it is cut to the first `truncate`, as embeddings of Matryoshka models can be.
    ///
    /// # Errors
    /// None are left, or rows have fewer.
    pub(crate) fn kept(&self, truncate: Option<usize>) -> Result<usize> {
        match truncate {
            Some(values) if values == 0 || values > self.width => {
                let what = format!("rows of {} values cannot be cut to {values}", self.width);
                Err(Error::usage(what).hint(format!("give 1 to {}", self.width)))
            }
            _ => Ok(truncate.unwrap_or(self.width)),
        }
    }

    /// Checks that all values are finite.
    ///
    /// # Errors
    /// One is not; the message has the name of its row.
    pub(crate) fn finite(&self) -> Result<()> {
        match self.rows.iter().position(|value| !value.is_finite()) {
            Some(at) => {
                let row = at / self.width.max(1);
                Err(Error::new(format!("row {row} has a value that is not finite")).at(&self.names[row]))
            }
            None => Ok(()),
        }
    }

    /// Appends a row; the first one says how wide all are.
    ///
    /// # Errors
    /// A row of another width, and one without values.
    pub fn push(&mut self, name: impl Into<String>, row: &[f32]) -> Result<()> {
        let width = if self.is_empty() { row.len() } else { self.width };
        if row.len() != width || row.is_empty() {
            return Err(Error::new(format!("a row of {} values cannot be among rows of {width}", row.len())));
        }
        self.width = width;
        self.rows.extend_from_slice(row);
        self.names.push(name.into());
        Ok(())
    }

    /// The same rows, whose classes have these names, one a row: classes are numbered by their sorted names. Where one is empty, no
    /// row has a label.
    pub fn labelled(mut self, names: &[String]) -> Features {
        if names.is_empty() || names.iter().any(String::is_empty) {
            return self;
        }
        self.classes = names.to_vec();
        self.classes.sort_unstable();
        self.classes.dedup();
        let number = |name: &String| self.classes.partition_point(|class| class < name) as u32;
        self.labels = Some(names.iter().map(number).collect());
        self
    }

    /// The classes.
    ///
    /// # Errors
    /// There are none; the hint says what to do without labels.
    pub fn labels(&self) -> Result<&[u32]> {
        self.labels.as_deref().ok_or_else(|| {
            Error::new("this data has no labels, so there is nothing to probe")
                .hint("use data with classes (one folder for each class), or `ctk eval geometry`, which needs none")
        })
    }

    /// The same rows with classes numbered as in `other`, by name; classes that `other` does not have come after. Without names on either
    /// side nothing changes.
    pub fn numbered_as(mut self, other: &Features) -> Features {
        if self.classes.is_empty() || other.classes.is_empty() {
            return self;
        }
        let mut classes = other.classes.clone();
        let mut number = |name: &String| {
            classes.iter().position(|class| class == name).unwrap_or_else(|| {
                classes.push(name.clone());
                classes.len() - 1
            }) as u32
        };
        let numbers: Vec<u32> = self.classes.iter().map(&mut number).collect();
        self.labels.iter_mut().flatten().for_each(|label| *label = numbers.get(*label as usize).copied().unwrap_or(u32::MAX));
        self.classes = classes;
        self
    }

    /// The rows with these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Features {
        Features {
            rows: indices.iter().flat_map(|&i| self.row(i)).copied().collect(),
            names: indices.iter().map(|&i| self.names[i].clone()).collect(),
            labels: self.labels.as_ref().map(|labels| indices.iter().map(|&i| labels[i]).collect()),
            classes: self.classes.clone(),
            parts: if self.parts.is_empty() { Vec::new() } else { indices.iter().map(|&i| self.parts[i].clone()).collect() },
            extras: self.extras.clone(),
            width: self.width,
        }
    }

    /// These rows followed by `more`, whose classes are matched by name. The result has labels only if both have.
    ///
    /// # Errors
    /// The widths differ.
    pub fn followed_by(mut self, more: Features) -> Result<Features> {
        if self.width != more.width {
            return Err(Error::new(format!("rows of {} values cannot follow rows of {}", more.width, self.width)));
        }
        if !(self.parts.is_empty() && more.parts.is_empty()) {
            self.parts.resize(self.len(), String::new());
            self.parts.extend(more.parts.iter().cloned());
            self.parts.resize(self.len() + more.len(), String::new());
        }
        let more = more.numbered_as(&self);
        self.labels = self.labels.zip(more.labels).map(|(labels, more)| [labels, more].concat());
        if !more.classes.is_empty() {
            self.classes = more.classes;
        }
        self.rows.extend(more.rows);
        self.names.extend(more.names);
        Ok(self)
    }

    /// The rows scaled to length 1 (zero rows stay zero).
    pub fn normalised(&self) -> Features {
        let mut out = self.clone();
        normalise(&mut out.rows, self.width);
        out
    }
}

/// Scales each row of `width` values to length 1 (zero rows stay zero).
pub fn normalise(rows: &mut [f32], width: usize) {
    rows.par_chunks_exact_mut(width.max(1)).for_each(|row| {
        let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
    });
}

/// Rows are samples, too: vectors to learn from, and raw values before anything has learned of them.
impl Dataset for Features {
    type Sample = Vec<f32>;

    fn len(&self) -> usize {
        self.names.len()
    }

    fn get(&self, index: usize) -> Result<Vec<f32>> {
        Ok(self.row(index).to_vec())
    }

    fn name(&self, index: usize) -> String {
        self.names[index].clone()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.as_ref().map(|labels| labels[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_matched_by_name() {
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let of = |classes: &[&str], labels: Vec<u32>| Features {
            names: vec![String::new(); labels.len()],
            labels: Some(labels),
            classes: names(classes),
            ..Features::default()
        };
        let test = of(&["b", "c", "d"], vec![2, 0, 1]).numbered_as(&of(&["a", "b", "c"], vec![]));
        assert_eq!((test.labels.unwrap(), test.classes), (vec![3, 1, 2], names(&["a", "b", "c", "d"])));
        let some = Features { rows: vec![1.0, 2.0, 3.0], width: 1, ..of(&["a", "b"], vec![1, 0, 1]) }.select(&[2, 1]);
        assert_eq!((some.rows, some.labels.unwrap(), some.names.len()), (vec![3.0, 2.0], vec![1, 0], 2));
        let named = |classes, labels: Vec<u32>| Features { rows: vec![1.0; labels.len()], width: 1, ..of(classes, labels) };
        let both = Features { parts: vec!["train".into()], ..named(&["b", "a"], vec![0]) };
        let both = both.followed_by(named(&["a", "c"], vec![0, 1])).unwrap();
        assert_eq!((both.labels.clone().unwrap(), &both.classes, both.len()), (vec![0, 1, 2], &names(&["b", "a", "c"]), 3));
        assert_eq!(both.parts, ["train", "", ""]);
        let photo = Features { labels: None, classes: vec![], ..named(&[], vec![0]) };
        assert_eq!(both.clone().followed_by(photo).unwrap().labels, None);
        assert!(both.followed_by(Features { width: 2, ..Features::default() }).is_err());
        let bare = of(&[], vec![7]).numbered_as(&of(&["a"], vec![]));
        assert_eq!((bare.labels.unwrap(), bare.classes), (vec![7], names(&[])));
    }

    #[test]
    fn rows_are_put_together_and_are_samples() {
        let mut some = Features::default();
        for (name, row) in [("a", [1.0, 2.0]), ("b", [3.0, 4.0]), ("c", [5.0, 6.0])] {
            some.push(name, &row).unwrap();
        }
        assert!(some.push("d", &[7.0]).is_err() && Features::default().push("e", &[]).is_err());
        let classes = ["dog", "cat", "dog"].map(String::from);
        let labelled = some.clone().labelled(&classes);
        assert_eq!((labelled.labels.as_deref(), labelled.classes.len()), (Some(&[1, 0, 1][..]), 2));
        assert_eq!(
            (labelled.get(2).unwrap(), labelled.label(2), Dataset::name(&labelled, 2)),
            (vec![5.0, 6.0], Some(1), "c".to_string())
        );
        assert_eq!(Dataset::len(&labelled), 3);
        let bare = some.labelled(&["dog".to_string(), String::new(), "dog".to_string()]);
        assert!(bare.labels.is_none() && bare.label(0).is_none() && bare.classes.is_empty());
    }
}
