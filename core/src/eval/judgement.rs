//! The quality of a classifier: figures overall and for each class, the confusion matrix, and calibration.
//!
//! A sample of a class that the classifier does not know counts as wrong, because no prediction of it can be right. The expected
//! calibration error (Guo et al. 2017) is the mean distance between confidence and accuracy over 15 equally wide bins of confidence.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::eval::Predictions;

/// Bins of confidence.
const BINS: usize = 15;

/// The range of temperatures that are tried: 1/100 to 100.
const SHARPEST: f64 = 1e-2;

/// The figures of a classifier on labelled samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// Samples with a label.
    pub samples: usize,
    /// Samples whose class was predicted.
    pub hits: usize,
    /// Samples without a label, which are not judged.
    pub unlabelled: usize,
    /// One entry for each class: first those that the classifier knows, then others that samples have.
    pub classes: Vec<ClassFigures>,
    /// How many classes the classifier knows.
    pub known: usize,
    /// How many samples of class `.0` were predicted as class `.1`; pairs without samples are left out.
    pub confusion: BTreeMap<(u32, u32), usize>,
    /// The expected calibration error, 0 to 1.
    pub ece: f64,
}

/// A class of a [`Judgement`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassFigures {
    /// Its name.
    pub name: String,
    /// Samples of it.
    pub count: usize,
    /// Samples that were predicted to be of it.
    pub predicted: usize,
    /// Samples of it that were predicted to be of it.
    pub hits: usize,
}

impl ClassFigures {
    /// The fraction of the predictions of this class that are right; none if there was no such prediction.
    pub fn precision(&self) -> Option<f64> {
        (self.predicted > 0).then(|| self.hits as f64 / self.predicted as f64)
    }

    /// The fraction of this class's samples that were predicted right; none if there is no sample.
    pub fn recall(&self) -> Option<f64> {
        (self.count > 0).then(|| self.hits as f64 / self.count as f64)
    }
}

impl Judgement {
    /// Judges `predictions` with logits divided by `temperature`.
    ///
    /// # Errors
    /// No sample has a label.
    pub fn new(predictions: &Predictions, temperature: f64) -> Result<Judgement> {
        let mut classes: Vec<ClassFigures> =
            predictions.classes.iter().map(|name| ClassFigures { name: name.clone(), ..ClassFigures::default() }).collect();
        let (mut confusion, mut bins) = (BTreeMap::new(), [(0usize, 0.0, 0usize); BINS]);
        let mut samples = 0;
        for (i, label) in predictions.labels.iter().enumerate() {
            let Some(label) = *label else { continue };
            let Some(&(class, confidence)) = predictions.likeliest(i, 1, temperature).first() else { continue };
            let hit = usize::from(class == label as usize);
            samples += 1;
            classes[label as usize].count += 1;
            classes[class].predicted += 1;
            classes[class].hits += hit;
            *confusion.entry((label, class as u32)).or_insert(0) += 1;
            // (0, 1/15], (1/15, 2/15], …
            let bin = &mut bins[((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
            *bin = (bin.0 + 1, bin.1 + confidence, bin.2 + hit);
        }
        if samples == 0 {
            return Err(no_labels());
        }
        let hits = classes.iter().map(|class| class.hits).sum();
        let gap: f64 = bins.iter().map(|(_, confidence, hits)| (confidence - *hits as f64).abs()).sum();
        let unlabelled = predictions.len() - samples;
        Ok(Judgement { samples, hits, unlabelled, classes, known: predictions.known, confusion, ece: gap / samples as f64 })
    }

    /// The fraction of right predictions, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.hits as f64 / self.samples as f64
    }

    /// The mean recall over the known classes that have samples; none if there is no such class.
    pub fn mean_class_accuracy(&self) -> Option<f64> {
        let recalls: Vec<f64> = self.classes[..self.known].iter().filter_map(ClassFigures::recall).collect();
        (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64)
    }

    /// The classes of samples that the classifier does not know.
    pub fn unknown(&self) -> impl Iterator<Item = &ClassFigures> {
        self.classes[self.known..].iter().filter(|class| class.count > 0)
    }

    /// Samples of class `label` that were predicted as `class`.
    pub fn taken(&self, label: usize, class: usize) -> usize {
        self.confusion.get(&(label as u32, class as u32)).copied().unwrap_or(0)
    }
}

/// The temperature from 1/100 to 100 that minimises the cross entropy of the labelled `predictions` (Guo et al. 2017). Samples of classes
/// that the classifier does not know are left out. Also returns the number of samples that it was fitted on.
///
/// # Errors
/// No sample has a label that the classifier knows.
pub fn temperature(predictions: &Predictions) -> Result<(f64, usize)> {
    let label = |i: usize| predictions.labels[i].map(|label| label as usize).filter(|label| *label < predictions.known);
    let labelled: Vec<(usize, usize)> = (0..predictions.len()).filter_map(|i| Some((i, label(i)?))).collect();
    if labelled.is_empty() {
        return Err(no_labels());
    }
    // The loss is convex in 1/T. This is its slope: the mean logit minus the logit of the class.
    let slope = |inverse: f64| -> f64 {
        let of = |&(i, label): &(usize, usize)| {
            let row = predictions.row(i);
            let mean: f64 = predictions.probabilities(i, 1.0 / inverse).iter().zip(row).map(|(p, z)| p * f64::from(*z)).sum();
            mean - f64::from(row[label])
        };
        labelled.iter().map(of).sum()
    };
    let (mut low, mut high) = (SHARPEST.ln(), -SHARPEST.ln());
    if slope(1.0) == 0.0 {
        return Ok((1.0, labelled.len()));
    }
    while high - low > 1e-4 {
        let middle = (low + high) / 2.0;
        if slope(middle.exp()) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(((-(low + high) / 2.0).exp(), labelled.len()))
}

fn no_labels() -> Error {
    Error::usage("this data has no labels, so nothing can be evaluated")
        .hint("give data with classes (one folder for each class); `ctk predict` needs no labels")
}

#[cfg(test)]
mod tests {
    use super::super::predictions::tests::predictions;
    use super::*;

    #[test]
    fn figures_are_those_counted_by_hand() {
        // a: two of three right; b: one of one; owl is an unknown class, predicted as b.
        let found = predictions(
            &["a", "b", "c"],
            &[
                (&[2.0, 0.0, 0.0], Some("a")),
                (&[2.0, 0.0, 0.0], Some("a")),
                (&[0.0, 2.0, 0.0], Some("a")),
                (&[0.0, 2.0, 0.0], Some("b")),
                (&[0.0, 2.0, 0.0], Some("owl")),
                (&[0.0, 2.0, 0.0], None),
            ],
        );
        let judged = Judgement::new(&found, 1.0).unwrap();
        assert_eq!((judged.samples, judged.hits, judged.unlabelled, judged.accuracy()), (5, 3, 1, 0.6));
        let figures = |at: usize| (judged.classes[at].count, judged.classes[at].precision(), judged.classes[at].recall());
        assert_eq!([figures(0), figures(1)], [(3, Some(1.0), Some(2.0 / 3.0)), (1, Some(1.0 / 3.0), Some(1.0))]);
        assert_eq!((figures(2), figures(3)), ((0, None, None), (1, None, Some(0.0))));
        assert!((judged.mean_class_accuracy().unwrap() - 5.0 / 6.0).abs() < 1e-12);
        assert_eq!(judged.unknown().map(|class| (class.name.as_str(), class.count)).collect::<Vec<_>>(), [("owl", 1)]);
        assert_eq!((judged.taken(0, 1), judged.taken(3, 1), judged.taken(2, 2)), (1, 1, 0));
        // All samples have the same confidence.
        let confidence = 2f64.exp() / (2f64.exp() + 2.0);
        assert!((judged.ece - (confidence - 0.6).abs()).abs() < 1e-12, "{}", judged.ece);
        assert!(Judgement::new(&predictions(&["a", "b"], &[(&[0.0, 1.0], None)]), 1.0).is_err());
    }

    #[test]
    fn bins_of_confidence_are_apart() {
        // Confident and wrong beside unsure and right: a mean over both would hide it.
        let logit = |p: f64| (p / (1.0 - p)).ln() as f32;
        let found = predictions(&["a", "b"], &[(&[logit(0.9), 0.0], Some("b")), (&[logit(0.6), 0.0], Some("a"))]);
        let judged = Judgement::new(&found, 1.0).unwrap();
        assert!((judged.ece - (0.9 + 0.4) / 2.0).abs() < 1e-6, "{}", judged.ece);
        // Probabilities of 1 fall into the last bin.
        let sure = predictions(&["a", "b"], &[(&[500.0, 0.0], Some("a"))]);
        assert_eq!(Judgement::new(&sure, 1.0).unwrap().ece, 0.0);
    }

    #[test]
    fn the_temperature_undoes_a_scale_and_never_changes_a_prediction() {
        // Of ten samples with logit l, k are right: at T the confidence must be k / 10.
        let rows = |scale: f32| {
            let logit = (0.8f32 / 0.2).ln() * scale;
            (0..10).map(|i| ([logit, 0.0], if i < 8 { "a" } else { "b" })).collect::<Vec<_>>()
        };
        for scale in [0.25, 1.0, 5.0] {
            let rows = rows(scale);
            let rows: Vec<(&[f32], Option<&str>)> = rows.iter().map(|(row, label)| (&row[..], Some(*label))).collect();
            let found = predictions(&["a", "b"], &rows);
            let (fitted, count) = temperature(&found).unwrap();
            assert!((fitted / f64::from(scale) - 1.0).abs() < 1e-3 && count == 10, "{scale}: {fitted}");
            let (before, after) = (Judgement::new(&found, 1.0).unwrap(), Judgement::new(&found, fitted).unwrap());
            assert!(after.ece < 1e-3 && after.ece <= before.ece + 1e-3 && after.hits == before.hits, "{scale}");
        }
        assert_eq!(temperature(&predictions(&["a", "b"], &[(&[0.0, 0.0], Some("a"))])).unwrap(), (1.0, 1));
        let right = temperature(&predictions(&["a", "b"], &[(&[1.0, 0.0], Some("a"))])).unwrap().0;
        assert!((SHARPEST..0.1).contains(&right), "nothing is wrong: so sharp that more makes no difference, {right}");
        assert!(temperature(&predictions(&["a", "b"], &[(&[1.0, 0.0], Some("owl"))])).is_err());
    }
}
