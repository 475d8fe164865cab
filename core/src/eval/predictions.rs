//! The predictions of a classifier: a row of logits for each sample, with the names of the classes.
//!
//! Each dataset numbers its classes in its own order, so labels are matched by name and never by number. A class that the classifier does
//! not know gets a number after those that it knows.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// The logits of samples, with their names and labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// A name for each sample.
    pub names: Vec<String>,
    /// Names of the classes by number: first the [`known`](Self::known) classes of the classifier, then other classes that samples have.
    pub classes: Vec<String>,
    /// How many classes the classifier knows.
    pub known: usize,
    /// The class of each sample, a number of `classes`; none if it has no label.
    pub labels: Vec<Option<u32>>,
    /// Row-major, `(samples, known)`.
    pub logits: Vec<f32>,
    /// Sentences to print.
    pub notes: Vec<String>,
    /// Further figures under their JSON names.
    pub extras: Vec<(&'static str, serde_json::Value)>,
}

impl Predictions {
    /// The logits of a classifier of `classes` for samples called `names`, whose `labels` are numbers of the names in `of`.
    ///
    /// # Errors
    /// The logits are not one row for each sample, or not finite.
    pub fn new(
        classes: &[String],
        names: Vec<String>,
        labels: &[Option<u32>],
        of: &[String],
        logits: Vec<f32>,
    ) -> Result<Predictions> {
        if logits.len() != names.len() * classes.len() || labels.len() != names.len() || classes.is_empty() {
            let (samples, labels, count) = (names.len(), labels.len(), logits.len());
            return Err(Error::new(format!("{samples} samples, {labels} labels, {count} logits of {} classes", classes.len())));
        }
        if let Some(at) = logits.iter().position(|v| !v.is_finite()) {
            return Err(Error::new("a logit is not finite")
                .at(&names[at / classes.len()])
                .hint("training has diverged: use an earlier checkpoint, or a lower rate"));
        }
        let mut all = Predictions { names, classes: classes.to_vec(), known: classes.len(), logits, ..Predictions::default() };
        let numbers = all.numbers(of);
        all.labels = labels.iter().map(|label| numbers.get((*label)? as usize).copied()).collect();
        Ok(all)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// These followed by `more`, from the same classifier.
    ///
    /// # Errors
    /// `more` has other classes.
    pub fn followed_by(mut self, more: Predictions) -> Result<Predictions> {
        if more.classes[..more.known] != self.classes[..self.known] {
            return Err(Error::new("predictions of two classifiers cannot be joined"));
        }
        let numbers = self.numbers(&more.classes);
        self.labels.extend(more.labels.iter().map(|label| label.map(|label| numbers[label as usize])));
        self.names.extend(more.names);
        self.logits.extend(more.logits);
        let new = more.notes.into_iter().filter(|note| !self.notes.contains(note)).collect::<Vec<_>>();
        self.notes.extend(new);
        Ok(self)
    }

    /// The name of sample `i`'s class, if it has a label.
    pub fn label(&self, i: usize) -> Option<&str> {
        self.labels[i].map(|label| self.classes[label as usize].as_str())
    }

    /// The logits of sample `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.logits[i * self.known..(i + 1) * self.known]
    }

    /// The class probabilities of sample `i`, with logits divided by `temperature`.
    pub fn probabilities(&self, i: usize, temperature: f64) -> Vec<f64> {
        let row = self.row(i);
        let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let of = |v: &f32| ((f64::from(*v) - f64::from(top)) / temperature).exp();
        let sum: f64 = row.iter().map(of).sum();
        row.iter().map(|v| of(v) / sum).collect()
    }

    /// The `count` most probable classes of sample `i`, or all if there are fewer, with their probabilities; of equal ones the first.
    pub fn likeliest(&self, i: usize, count: usize, temperature: f64) -> Vec<(usize, f64)> {
        let row = self.row(i);
        let mut order: Vec<usize> = (0..row.len()).collect();
        // Sorted by logits, because probabilities that round to 0 would lose their order.
        let before = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]).then(a.cmp(b));
        if count < order.len() {
            order.select_nth_unstable_by(count, before);
            order.truncate(count);
        }
        order.sort_unstable_by(before);
        let probabilities = self.probabilities(i, temperature);
        order.into_iter().map(|class| (class, probabilities[class])).collect()
    }

    /// The numbers that the classes `of` have here; a new name is added.
    fn numbers(&mut self, of: &[String]) -> Vec<u32> {
        let mut there: HashMap<String, u32> = HashMap::new();
        for (number, class) in self.classes.iter().enumerate() {
            there.entry(class.clone()).or_insert(number as u32);
        }
        of.iter()
            .map(|class| {
                *there.entry(class.clone()).or_insert_with(|| {
                    self.classes.push(class.clone());
                    self.classes.len() as u32 - 1
                })
            })
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| name.to_string()).collect()
    }

    /// Predictions of samples `s0`, `s1`, … by a classifier of `classes`, whose labels are names.
    pub fn predictions(classes: &[&str], rows: &[(&[f32], Option<&str>)]) -> Predictions {
        let of: Vec<String> = rows.iter().filter_map(|(_, label)| label.map(String::from)).collect();
        let labels: Vec<Option<u32>> =
            rows.iter().map(|(_, label)| label.map(|label| of.iter().position(|name| name == label).unwrap() as u32)).collect();
        let samples = (0..rows.len()).map(|i| format!("s{i}")).collect();
        Predictions::new(&names(classes), samples, &labels, &of, rows.iter().flat_map(|(row, _)| row.to_vec()).collect()).unwrap()
    }

    #[test]
    fn labels_are_matched_by_name_and_unknown_classes_keep_theirs() {
        let found = predictions(
            &["a", "b"],
            &[(&[0.0, 1.0], Some("b")), (&[0.0, 1.0], Some("owl")), (&[0.0, 1.0], None), (&[1.0, 0.0], Some("a"))],
        );
        assert_eq!((&found.classes, found.known), (&names(&["a", "b", "owl"]), 2));
        assert_eq!((0..4).map(|i| found.label(i)).collect::<Vec<_>>(), [Some("b"), Some("owl"), None, Some("a")]);
        let more = predictions(&["a", "b"], &[(&[0.0, 1.0], Some("emu")), (&[0.0, 1.0], Some("owl"))]);
        let all = found.clone().followed_by(more).unwrap();
        assert_eq!((all.len(), all.label(4), all.label(5)), (6, Some("emu"), Some("owl")));
        assert_eq!(all.classes, names(&["a", "b", "owl", "emu"]));
        assert!(found.followed_by(predictions(&["b", "a"], &[])).is_err());
    }

    #[test]
    fn probabilities_are_softmax_and_the_likeliest_come_first() {
        let found = predictions(&["a", "b", "c"], &[(&[1.0, 3.0, 1.0], None), (&[500.0, -500.0, 0.0], None)]);
        let e = (2f64).exp();
        let expected = [1.0 / (e + 2.0), e / (e + 2.0), 1.0 / (e + 2.0)];
        assert!(found.probabilities(0, 1.0).iter().zip(expected).all(|(p, q)| (p - q).abs() < 1e-12));
        assert_eq!(
            found.likeliest(0, 9, 1.0).iter().map(|(class, _)| *class).collect::<Vec<_>>(),
            [1, 0, 2],
            "the first of equals"
        );
        assert_eq!(found.likeliest(0, 2, 1.0).len(), 2);
        // A class whose probability rounds to 0 in f64 still has its place.
        assert_eq!(found.likeliest(1, 3, 1.0).iter().map(|(class, _)| *class).collect::<Vec<_>>(), [0, 2, 1]);
        let flat = found.probabilities(0, 1e9);
        assert!(flat.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6) && (flat.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn logits_that_are_no_numbers_name_the_sample() {
        let of = |logits: Vec<f32>| Predictions::new(&names(&["a", "b"]), names(&["x.png", "y.png"]), &[None, None], &[], logits);
        let error = of(vec![0.0, 1.0, f32::NAN, 0.0]).unwrap_err().to_string();
        assert!(error.contains("y.png") && error.contains("hint: "), "{error}");
        assert!(of(vec![0.0; 3]).is_err());
    }
}
