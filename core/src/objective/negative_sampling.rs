//! Negative sampling: the loss of word2vec (Mikolov et al. 2013, "Distributed Representations of Words and Phrases and
//! their Compositionality", eq. 4).
//!
//! A word's input vector v should have a high score with the output vector u of a word seen near it, and low scores with those of K words
//! drawn from a noise distribution:
//!
//! ```text
//! ℓ = −log σ(u·v) − Σₖ log σ(−uₖ·v)
//! ```
//!
//! Each (v, u) has a score x = u·v and a label y: 1 if they were seen together, 0 if u is noise. Since −log σ(x) = log(1 + e⁻ˣ) and 1 −
//! σ(x) = σ(−x), each term and its derivative are
//!
//! ```text
//! ℓᵢ = log(1 + e^(−sᵢxᵢ)) = max(−sᵢxᵢ, 0) + log(1 + e^(−|xᵢ|))     with sᵢ = 2yᵢ − 1
//! ∂ℓᵢ/∂xᵢ = σ(xᵢ) − yᵢ
//! ∂ℓᵢ/∂vᵢ = (σ(xᵢ) − yᵢ) uᵢ                ∂ℓᵢ/∂uᵢ = (σ(xᵢ) − yᵢ) vᵢ
//! ```
//!
//! The second form of ℓᵢ never raises e to a positive power, so it is finite for every finite score. The word2vec engine fuses these
//! expressions with its update and is tested against this file.

use candle_core::{D, Tensor};

use super::{Inputs, Objective, Terms, attach};
use crate::error::{Error, Result};

/// The mean over positive rows of a positive row's loss plus its share of the negative rows' losses.
///
/// Row i of the left side is an input vector, row i of the right side an output vector; label i is 1 if the two were seen together, and 0
/// if the right one is noise. A pair with K negatives takes K + 1 rows with the same input vector, so that pairs may have different numbers
/// of negatives.
#[derive(Clone, Copy, Debug, Default)]
pub struct NegativeSampling;

impl Objective for NegativeSampling {
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let (v, u) = (&first.query, &second.query);
        let labels = inputs.labels().ok_or_else(|| Error::new("negative sampling needs to know which rows are positive"))?;
        if labels.len() != v.dim(0)? || v.dims() != u.dims() {
            return Err(Error::new(format!("{:?} inputs, {:?} outputs and {} labels", v.dims(), u.dims(), labels.len())));
        }
        let positives = labels.iter().filter(|&&y| y == 1).count();
        if positives == 0 {
            return Err(Error::new("negative sampling needs at least one positive row"));
        }
        let scale = 1.0 / positives as f64;
        let scores = (v * u)?.sum(D::Minus1)?;
        let x = scores.detach();
        let y = Tensor::from_iter(labels.iter().map(|&y| y as f32), x.device())?.to_dtype(x.dtype())?;

        let e = x.abs()?.neg()?.exp()?;
        let against = (&x * (1.0 - (&y * 2.0)?)?)?;
        let value = ((against.relu()? + (&e + 1.0)?.log()?)?.sum_all()? * scale)?;
        // σ(x) = 1 / (1 + e^−|x|) for x ≥ 0 and e^−|x| / (1 + e^−|x|) below.
        let sigmoid = (x.ge(0.0)?.where_cond(&e.ones_like()?, &e)? / (&e + 1.0)?)?;
        let slope = ((sigmoid - y)? * scale)?;
        inputs.terms(&attach(&value, &[(&scores, slope)])?, &[], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, two};
    use super::*;
    use crate::world::Solo;
    use candle_core::{Device, Var};

    const LABELS: [u32; 5] = [1, 0, 0, 1, 0];

    fn rows(scale: f64, phase: f64) -> Vec<f64> {
        (0..15).map(|i| scale * (1.7 * f64::from(i) + phase).sin()).collect()
    }

    fn var(values: Vec<f64>) -> Var {
        Var::from_tensor(&Tensor::from_vec(values, (5, 3), &Device::Cpu).unwrap()).unwrap()
    }

    fn loss(v: &Var, u: &Var) -> Tensor {
        testing::loss(&NegativeSampling, &two(v, u), None, Some(&LABELS), &Solo)
    }

    /// The definition, written as plainly as possible.
    fn plain(v: &[f64], u: &[f64]) -> f64 {
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let score = |i: usize| (0..3).map(|d| v[3 * i + d] * u[3 * i + d]).sum::<f64>();
        (0..5).map(|i| -(if LABELS[i] == 1 { sigma(score(i)) } else { sigma(-score(i)) }).ln()).sum::<f64>() / 2.0
    }

    #[test]
    fn the_value_is_the_papers() {
        let (v, u) = (rows(1.1, 0.3), rows(0.9, 2.0));
        let value = loss(&var(v.clone()), &var(u.clone())).to_scalar::<f64>().unwrap();
        assert!((value - plain(&v, &u)).abs() < 1e-12);
        // Scores of 0: every term is log 2.
        let zero = loss(&var(vec![0.0; 15]), &var(u)).to_scalar::<f64>().unwrap();
        assert!((zero - 2.5 * 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let (v, u) = (rows(1.1, 0.3), rows(0.9, 2.0));
        let (a, b) = (var(v.clone()), var(u.clone()));
        let store = loss(&a, &b).backward().unwrap();
        let step = 1e-6;
        for (which, var) in [&a, &b].into_iter().enumerate() {
            let gradient = store.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for (i, g) in gradient.iter().enumerate() {
                let at = |delta: f64| {
                    let (mut v, mut u) = (v.clone(), u.clone());
                    [&mut v, &mut u][which][i] += delta;
                    plain(&v, &u)
                };
                let difference = (at(step) - at(-step)) / (2.0 * step);
                assert!((g - difference).abs() < 1e-9, "side {which}, value {i}: {g} against {difference}");
            }
        }
    }

    #[test]
    fn large_scores_stay_finite() {
        let (v, u) = (var(vec![100.0; 15]), var(vec![-100.0; 15]));
        let terms = loss(&v, &u);
        // Two positive rows at −30,000 each, over two positives.
        assert_eq!(terms.to_scalar::<f64>().unwrap(), 30_000.0);
        let gradient = terms.backward().unwrap().get(v.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()));
        assert_eq!(gradient[..3], [50.0; 3], "(0 − 1)·(−100) / 2");
    }

    #[test]
    fn a_batch_without_positives_or_labels_is_refused() {
        let rows = Tensor::zeros((2, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
        let both = two(&rows, &rows);
        let fails = |labels: Option<&[u32]>| testing::terms(&NegativeSampling, &both, None, labels, &Solo).is_err();
        assert!(fails(None) && fails(Some(&[0, 0])) && fails(Some(&[1])));
        assert!(!fails(Some(&[1, 0])));
    }
}
