//! Cross entropy with labels, with a teacher's soft targets, or with both: fine-tuning and distillation (Chen et al. 2020b, §2).
//!
//! With s the logits of n rows, P = softmax(s), y the labels of the rows that have one (L of them, as a set), t the teacher's
//! logits, q = softmax(t/τ) and Pᵗ = softmax(s/τ),
//!
//! ```text
//! hard = 1/n Σ_{i∈L} (log Σⱼ exp sᵢⱼ − s_{i,yᵢ})              ∂hard/∂sᵢⱼ = [i ∈ L] (Pᵢⱼ − [j = yᵢ]) / n
//! soft = τ²/n Σᵢ (log Σⱼ exp(sᵢⱼ/τ) − Σⱼ qᵢⱼ sᵢⱼ/τ)           ∂soft/∂sᵢⱼ = τ (Pᵗᵢⱼ − qᵢⱼ) / n
//! L    = hard                 without a teacher
//! L    = (1 − α) hard + α soft                with one
//! ```
//!
//! The factor τ² keeps the size of the soft gradient as τ changes (Hinton et al. 2015). `soft` is a cross entropy, so it includes the
//! teacher's own entropy, which training cannot lower. The row's maximum is subtracted before logarithms are taken, so that τ = .1 does not
//! overflow. Over several ranks n counts all rows: parameter gradients summed over ranks equal those of one rank with the whole batch.

use candle_core::{D, DType, Tensor};

use super::contrast::{compare, numbered, over_ranks, softmax};
use super::{Inputs, Objective, Terms, attach};
use crate::error::{Error, Result};

/// The label of a row without a label.
pub const UNLABELLED: u32 = u32::MAX;

/// The teacher's part in the loss; its logits are the second view.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    /// τ: both networks' logits are divided by it. .1 for self-distillation, 1 from a large network to a small one.
    pub temperature: f64,
    /// α: the weight of the teacher's part in the loss; labels have the weight 1 − α.
    pub alpha: f64,
}

/// Cross entropy of the first view's logits `(n, classes)`.
pub struct CrossEntropy {
    /// The teacher, if there is one.
    pub teacher: Option<Distillation>,
}

impl Objective for CrossEntropy {
    fn compares(&self) -> bool {
        false
    }

    /// `extras` has the fraction of rows whose largest logit is the label's (`accuracy`) or the teacher's (`agreement`).
    ///
    /// # Errors
    /// Labels are missing or beyond the classes, or the teacher's logits have another shape.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let s = &inputs.online.view(0)?.query;
        let (n, classes) = s.dims2()?;
        let rows = s.detach();
        let mean = 1.0 / over_ranks(n, s, inputs.world)?;
        let hard = self.teacher.is_none_or(|teacher| teacher.alpha < 1.0);
        let (mut value, mut gradient) = (Tensor::zeros((), s.dtype(), s.device())?, rows.zeros_like()?);
        let mut extras = Vec::new();
        if hard {
            let weight = mean * self.teacher.map_or(1.0, |teacher| 1.0 - teacher.alpha);
            let labels = check(inputs.labels(), n, classes, self.teacher.is_some())?;
            let (loss, d) = with_labels(&rows, labels)?;
            value = (value + (loss * weight)?)?;
            gradient = (gradient + (d * weight)?)?;
            if self.teacher.is_none() {
                extras.push(("accuracy", same(&rows.argmax(D::Minus1)?, &Tensor::new(labels, s.device())?)?));
            }
        }
        if let Some(Distillation { temperature, alpha }) = self.teacher {
            let t = inputs.online.view(1)?.query.detach();
            if t.dims() != s.dims() {
                return Err(Error::new(format!("the teacher's logits are {:?}, the student's {:?}", t.dims(), s.dims())));
            }
            let (loss, d) = with_teacher(&rows, &t, None, temperature)?;
            value = (value + (loss * (alpha * mean))?)?;
            gradient = (gradient + (d * (alpha * mean))?)?;
            extras.push(("agreement", same(&rows.argmax(D::Minus1)?, &t.argmax(D::Minus1)?)?));
        }
        inputs.terms(&attach(&inputs.world.sum(&value)?, &[(s, gradient)])?, &[], extras)
    }
}

/// The sum over labelled rows, and its gradient.
fn with_labels(s: &Tensor, labels: &[u32]) -> Result<(Tensor, Tensor)> {
    let (top, p) = softmax(s)?;
    let classes = s.dim(1)?;
    let known = compare(s, labels, &vec![UNLABELLED; classes], [0.0, 1.0])?;
    let truth = compare(s, labels, &numbered(0, classes), [1.0, 0.0])?;
    let of_rows = (top * known.narrow(1, 0, 1)?)?.sum_all()?;
    let loss = (of_rows - (s * &truth)?.sum_all()?)?;
    Ok((loss, ((p * known)? - truth)?))
}

/// The sum of `soft` over all rows, with the factor τ², and its gradient. `mask` is added to the logits of both: −∞ leaves a choice out.
pub(super) fn with_teacher(s: &Tensor, t: &Tensor, mask: Option<&Tensor>, temperature: f64) -> Result<(Tensor, Tensor)> {
    let scaled = (s / temperature)?;
    let soft = |logits: &Tensor| match mask {
        Some(mask) => softmax(&(logits + mask)?),
        None => softmax(logits),
    };
    let ((top, p), (_, q)) = (soft(&scaled)?, soft(&(t / temperature)?)?);
    let loss = (top.sum_all()? - (&q * scaled)?.sum_all()?)?;
    Ok(((loss * temperature.powi(2))?, ((p - q)? * temperature)?))
}

/// Checks the labels: one for each row, below `classes`; with a teacher a row may have none.
fn check(labels: Option<&[u32]>, n: usize, classes: usize, beside_teacher: bool) -> Result<&[u32]> {
    let labels =
        labels.filter(|labels| labels.len() == n).ok_or_else(|| Error::new("cross entropy needs a label for each row"))?;
    let odd = |label: &&u32| **label as usize >= classes && !(beside_teacher && **label == UNLABELLED);
    match labels.iter().find(odd) {
        Some(label) => Err(Error::new(format!("there is no class {label} among {classes}"))),
        None => Ok(labels),
    }
}

/// The fraction of equal numbers.
fn same(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.eq(b)?.to_dtype(DType::F32)?.mean_all()?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, distance, finite_difference, gradient, random, ranks, two};
    use super::*;
    use crate::world::Solo;
    use candle_core::Device;

    const HARD: CrossEntropy = CrossEntropy { teacher: None };

    fn taught(temperature: f64, alpha: f64) -> CrossEntropy {
        CrossEntropy { teacher: Some(Distillation { temperature, alpha }) }
    }

    fn terms(of: &CrossEntropy, s: &Tensor, t: &Tensor, labels: Option<&[u32]>) -> Result<Terms> {
        testing::terms(of, &two(s, t), None, labels, &Solo)
    }

    fn loss(of: &CrossEntropy, s: &Tensor, t: &Tensor, labels: Option<&[u32]>) -> Tensor {
        testing::loss(of, &two(s, t), None, labels, &Solo)
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn rows(values: &[[f64; 3]; 2]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn goldens() {
        // Computed elsewhere by plain sums of logarithms.
        let (s, t) = (rows(&[[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]]), rows(&[[3.0, 1.0, 0.0], [0.0, 2.0, -1.0]]));
        let labels = Some(&[2, 0][..]);
        let near = |of: CrossEntropy, golden: f64| {
            let found = number(&loss(&of, &s, &t, labels));
            assert!((found - golden).abs() < 1e-12, "{found} {golden}");
        };
        near(HARD, 0.505_868_284_890_554_5);
        near(taught(1.0, 1.0), 2.050_109_186_458_712);
        near(taught(2.0, 1.0), 5.484_644_242_918_858);
        near(taught(0.1, 1.0), 0.175_033_805_008_863_67);
        near(taught(2.0, 0.25), 1.750_562_274_397_630_3);
        // Equal logits: the loss is the logarithm of the number of classes.
        let zeros = s.zeros_like().unwrap();
        assert!((number(&loss(&HARD, &zeros, &t, labels)) - 3f64.ln()).abs() < 1e-12);
        let watched = |of: &CrossEntropy| terms(of, &s, &t, labels).unwrap().extras;
        assert_eq!((watched(&HARD)[0].0, number(&watched(&HARD)[0].1)), ("accuracy", 1.0));
        assert_eq!((watched(&taught(1.0, 1.0))[0].0, number(&watched(&taught(1.0, 1.0))[0].1)), ("agreement", 0.0));
    }

    #[test]
    fn gradients_are_finite_differences() {
        let (s, t) = (random(1, 5, 4), random(2, 5, 4));
        let some = [3, UNLABELLED, 0, 1, UNLABELLED];
        finite_difference(&s, |s| loss(&HARD, s, &t, Some(&[3, 1, 0, 1, 2])));
        for temperature in [0.1, 1.0, 3.0] {
            finite_difference(&s, |s| loss(&taught(temperature, 1.0), s, &t, None));
            finite_difference(&s, |s| loss(&taught(temperature, 0.3), s, &t, Some(&some)));
        }
    }

    #[test]
    fn the_teacher_is_not_taught_and_a_perfect_student_stands_still() {
        let (s, t) = (random(3, 4, 3), random(4, 4, 3));
        let pull = gradient(&t, |t| loss(&taught(2.0, 0.5), &s, t, Some(&[0, 1, 2, 0])));
        assert_eq!(distance(&pull, &t.zeros_like().unwrap()), 0.0);
        let still = gradient(&t, |s| loss(&taught(0.1, 1.0), s, &t, None));
        assert!(distance(&still, &t.zeros_like().unwrap()) < 1e-15);
    }

    #[test]
    fn a_row_without_label_follows_the_teacher_alone() {
        let (s, t) = (random(5, 4, 3), random(6, 4, 3));
        let pull = |labels: &[u32]| gradient(&s, |s| loss(&taught(1.0, 0.25), s, &t, Some(labels)));
        let soft = gradient(&s, |s| loss(&taught(1.0, 1.0), s, &t, None));
        let none = pull(&[UNLABELLED; 4]);
        assert!(distance(&none, &(soft * 0.25).unwrap()) < 1e-15);
        let one = pull(&[UNLABELLED, 2, UNLABELLED, UNLABELLED]);
        let moved = (one - none).unwrap().abs().unwrap().sum(1).unwrap().to_vec1::<f64>().unwrap();
        assert!(moved[1] > 0.01 && moved[0] == 0.0 && moved[2] == 0.0 && moved[3] == 0.0, "{moved:?}");
    }

    #[test]
    fn ranks_agree_with_one() {
        let (s, t, labels) = (random(7, 6, 4), random(8, 6, 4), [0u32, 3, 1, 1, 2, 0]);
        let of = taught(2.0, 0.5);
        let alone = number(&loss(&of, &s, &t, Some(&labels)));
        let pull = gradient(&s, |s| loss(&of, s, &t, Some(&labels)));
        let parts = ranks(2, |world| {
            let from = world.rank() * 3;
            let (mine, theirs) = (s.narrow(0, from, 3).unwrap(), t.narrow(0, from, 3).unwrap());
            let of_rank = |s: &Tensor| testing::loss(&of, &two(s, &theirs), None, Some(&labels[from..from + 3]), world);
            let x = candle_core::Var::from_tensor(&mine).unwrap();
            let value = of_rank(&x);
            let pull = value.backward().unwrap().get(&x).unwrap().clone();
            (number(&value), pull)
        });
        assert!(parts.iter().all(|(value, _)| (value - alone).abs() < 1e-12));
        let joined = Tensor::cat(&[&parts[0].1, &parts[1].1], 0).unwrap();
        assert!(distance(&joined, &pull) < 1e-15);
    }

    #[test]
    fn small_temperatures_stay_finite_in_f32() {
        let s = (random(9, 4, 3) * 100.0).unwrap().to_dtype(DType::F32).unwrap();
        let t = (random(10, 4, 3) * 100.0).unwrap().to_dtype(DType::F32).unwrap();
        assert!(number(&loss(&taught(0.1, 1.0), &s, &t, None)).is_finite());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let s = random(1, 2, 3);
        for labels in [None, Some(&[0][..]), Some(&[0, 3]), Some(&[0, UNLABELLED])] {
            assert!(terms(&HARD, &s, &s, labels).is_err(), "{labels:?}");
        }
        assert!(terms(&taught(1.0, 0.5), &s, &s, Some(&[0, UNLABELLED])).is_ok());
        assert!(terms(&taught(1.0, 1.0), &s, &random(1, 2, 4), None).is_err());
    }
}
