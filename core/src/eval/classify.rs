//! What the evaluators that classify share: checks of their inputs, class numbers without gaps, and the count of hits.

use crate::error::{Error, Result};
use crate::eval::Features;

/// The checked labels of the training rows.
pub(super) struct Classes {
    /// The classes that occur, ascending.
    names: Vec<u32>,
    /// Each row's class, as a place in `names`.
    pub(super) of: Vec<u32>,
}

impl Classes {
    /// The classes of `train`.
    ///
    /// # Errors
    /// There are no rows, no labels, only one class, or values that are not finite.
    pub(super) fn new(train: &Features) -> Result<Self> {
        check(train, "training")?;
        let labels = train.labels()?;
        let mut names = labels.to_vec();
        names.sort_unstable();
        names.dedup();
        if let [only] = names[..] {
            let name = train.classes.get(only as usize).map_or_else(|| only.to_string(), |n| format!("`{n}`"));
            return Err(Error::new(format!("one-class labels: every training row is of class {name}"))
                .hint("a classifier needs two classes or more: give data with one folder for each class"));
        }
        // The names are sorted, so each label is found by binary search.
        let of = labels.iter().map(|l| names.partition_point(|n| n < l) as u32).collect();
        Ok(Classes { names, of })
    }

    /// The numbers of the classes that occur, ascending.
    pub(super) fn numbers(&self) -> &[u32] {
        &self.names
    }

    /// How many classes occur.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    /// Rows of the smallest class.
    pub(super) fn smallest(&self) -> usize {
        let mut sizes = vec![0usize; self.count()];
        self.of.iter().for_each(|c| sizes[*c as usize] += 1);
        sizes.into_iter().min().unwrap_or(0)
    }

    /// The class of each row of `test`; `None` for a class that training has not seen.
    pub(super) fn truth(&self, test: &Features, width: usize) -> Result<Vec<Option<usize>>> {
        check(test, "test")?;
        if test.width != width {
            return Err(Error::new(format!("test rows have {} values, training rows {width}", test.width))
                .hint("both must come from the same model"));
        }
        Ok(test.labels()?.iter().map(|l| self.names.binary_search(l).ok()).collect())
    }
}

fn check(features: &Features, part: &str) -> Result<()> {
    if features.is_empty() || features.width == 0 {
        return Err(Error::new(format!("the {part} part is empty")).hint("give data with more samples"));
    }
    let labels = features.labels.as_ref().map_or(features.len(), Vec::len);
    if features.rows.len() != features.len() * features.width || labels != features.len() {
        return Err(Error::new(format!(
            "the {part} part has {} names, {labels} labels and {} values",
            features.len(),
            features.rows.len()
        )));
    }
    if let Some(at) = features.rows.iter().position(|v| !v.is_finite()) {
        return Err(Error::new(format!("a feature of the {part} part is not finite"))
            .at(&features.names[at / features.width])
            .hint("training has diverged: use an earlier checkpoint, or a lower rate"));
    }
    Ok(())
}

/// Fractions of test rows whose true class has the highest score (top-1), or is among the first five (top-5).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hits {
    pub(super) top1: f64,
    /// `None` if there are five classes or fewer.
    pub(super) top5: Option<f64>,
}

impl Hits {
    /// Counts the hits from each test row's [`rank`].
    pub(super) fn new(ranks: &[usize], classes: usize) -> Hits {
        let share = |k: usize| ranks.iter().filter(|r| **r < k).count() as f64 / ranks.len() as f64;
        Hits { top1: share(1), top5: (classes > 5).then(|| share(5)) }
    }
}

/// The number of classes that come before `truth` if classes are sorted by score; equal scores go by class number.
pub(super) fn rank(scores: &[f64], truth: Option<usize>) -> usize {
    let Some(truth) = truth else { return usize::MAX };
    let before = |(c, s): (usize, &f64)| *s > scores[truth] || (*s == scores[truth] && c < truth);
    scores.iter().enumerate().filter(|e| before(*e)).count()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Labelled rows.
    pub fn features(rows: Vec<f32>, width: usize, labels: &[u32]) -> Features {
        let names = (0..labels.len()).map(|i| format!("row {i}")).collect();
        Features { rows, width, names, labels: Some(labels.to_vec()), ..Features::default() }
    }

    #[test]
    fn classes_are_numbered_without_gaps() {
        let train = features(vec![0.0; 5], 1, &[900_000_000, 7, 7, 900_000_000, 8]);
        let classes = Classes::new(&train).unwrap();
        assert_eq!((classes.of.as_slice(), classes.count(), classes.smallest()), (&[2, 0, 0, 2, 1][..], 3, 1));
        let test = features(vec![0.0; 2], 1, &[8, 9]);
        assert_eq!(classes.truth(&test, 1).unwrap(), [Some(1), None]);
    }

    #[test]
    fn bad_inputs_are_errors_with_hints() {
        let message = |f: Features| Classes::new(&f).err().unwrap().to_string();
        assert!(message(Features::default()).contains("empty"));
        assert!(message(Features { labels: None, ..features(vec![0.0; 2], 1, &[0, 1]) }).contains("no labels"));
        let one = message(Features { classes: vec!["cat".into()], ..features(vec![0.0; 2], 1, &[0, 0]) });
        assert!(one.contains("one-class labels") && one.contains("`cat`") && one.contains("hint: "));
        assert!(message(features(vec![0.0, f32::NAN], 1, &[0, 1])).contains("row 1"));
        assert!(message(features(vec![0.0; 3], 1, &[0, 1])).contains("3 values"));
        let classes = Classes::new(&features(vec![0.0; 2], 1, &[0, 1])).unwrap();
        assert!(classes.truth(&features(vec![0.0; 4], 2, &[0, 1]), 1).is_err());
    }

    #[test]
    fn ranks_and_hits() {
        assert_eq!(rank(&[0.1, 0.5, 0.5, 0.2], Some(1)), 0);
        assert_eq!(rank(&[0.1, 0.5, 0.5, 0.2], Some(2)), 1);
        assert_eq!(rank(&[0.1, 0.5, 0.5, 0.2], Some(0)), 3);
        assert_eq!(rank(&[0.1], None), usize::MAX);
        assert_eq!(Hits::new(&[0, 4, 5, usize::MAX], 6), Hits { top1: 0.25, top5: Some(0.5) });
        assert_eq!(Hits::new(&[0, 1], 5).top5, None);
    }
}
