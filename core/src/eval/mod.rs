//! Evaluators: functions over [`Features`]. None of them can reach an encoder, so none can change one.

pub mod analogy;
pub mod categorize;
mod classify;
mod cross_entropy;
mod file;
pub mod geometry;
mod judgement;
pub mod knn;
mod lbfgs;
pub mod linear_probe;
mod neighbors;
mod predictions;
mod sets;
pub mod similarity;
pub mod spread;
mod table;
mod words;

use crate::error::{Error, Result};

pub use cross_entropy::cross_entropy;
pub use file::{files_of, is_features};
pub use judgement::{ClassFigures, Judgement, temperature};
pub use neighbors::{Sum, doesnt_match, neighbors, search};
pub use predictions::Predictions;
pub use sets::Set;
pub use table::Table;

/// The name of what should be said of rows to whoever asked for them: a list of sentences among [`Features::extras`], and no figure.
pub const NOTES: &str = "notes";

/// Frozen representations on the host: what every evaluator, export and look-up works on.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Row-major values, `len() · width`.
    pub rows: Vec<f32>,
    /// Values a row.
    pub width: usize,
    /// One name a row: a path, a word.
    pub names: Vec<String>,
    /// One class a row, where known.
    pub labels: Option<Vec<u32>>,
    /// Names of the classes, by number; empty where they have none.
    pub classes: Vec<String>,
    /// Which part of its data each row is of (`train`, `test`, …), empty where that is not known of it; no entry at all where it is
    /// known of none.
    pub parts: Vec<String>,
    /// What else is to be known of them, under its JSON name.
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

    /// The classes, or an error that says what to do without.
    pub fn labels(&self) -> Result<&[u32]> {
        self.labels.as_deref().ok_or_else(|| {
            Error::new("this data has no labels, so there is nothing to probe")
                .hint("use data with classes (one folder a class), or `ctk eval geometry`, which needs none")
        })
    }

    /// The same rows with their classes numbered as those of `other`, by name; classes that it does not have come after. Without
    /// names on either side nothing changes.
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

    /// The rows of these indices, in this order.
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

    /// These rows and then `more`, whose classes are matched by name. They have labels only where both have.
    ///
    /// # Errors
    /// Rows of another width.
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
        for row in out.rows.chunks_exact_mut(self.width.max(1)) {
            let norm = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
            }
        }
        out
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
}
