//! Supervised contrastive losses: every row of an anchor's class is a positive.
//!
//! With P(i) the positives of anchor i (rows of its class except itself), N(i) the rows of other classes and A the anchors that have a
//! positive, the three variants are
//!
//! ```text
//! SupCon      L = 1/|A| Σ_{i∈A} 1/|P(i)| Σ_{p∈P(i)} (log Σ_{j≠i} exp sᵢⱼ − sᵢₚ)         Khosla et al. 2020, equation 2 (L_out)
//!             ∂L/∂sᵢⱼ = (softmaxᵢⱼ − [j∈P(i)]/|P(i)|) / |A|
//! Pairs       L = Σ_{i∈A} wᵢ Σ_{p∈P(i)} log(1 + exp(nᵢ − sᵢₚ))    nᵢ = log Σ_{j∈N(i)} exp sᵢⱼ,   wᵢ = 1/Σ_{i∈A} |P(i)|
//! Anchors     the same with wᵢ = 1/(|A|·|P(i)|)
//!             ∂L/∂sᵢₚ = −wᵢ σ(nᵢ − sᵢₚ)      ∂L/∂sᵢⱼ = wᵢ exp(sᵢⱼ − nᵢ) Σₚ σ(nᵢ − sᵢₚ)   for j∈N(i)
//! ```
//!
//! The last two are NT-Xent with labels: each pair has its own denominator, without the other positives of its anchor.
//! Anchors without a positive are skipped and do not count in the mean.

use candle_core::Tensor;
use ctk_cuda::{Contrast, Denominator};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{compare, contrast, numbered, numbers_over_ranks, paired, softmax, without};
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms, attach, normalise};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::params::Scope;

/// How an anchor's positives are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Positives {
    /// Every pair has the same weight; other positives are not in the denominator.
    Pairs,
    /// Every anchor has the same weight; other positives are not in the denominator.
    Anchors,
    /// Every anchor has the same weight; all positives are in the denominator (Khosla et al. 2020).
    SupCon,
}

/// `[loss.supcon]` (Khosla et al. 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SupconRecipe {
    /// Temperature by which similarities are divided.
    pub temperature: f64,
    /// How an anchor's positives are weighted: `supcon` is the paper's loss, `pairs` and `anchors` are NT-Xent with labels.
    pub positives: Positives,
}

impl Default for SupconRecipe {
    fn default() -> Self {
        SupconRecipe { temperature: 0.1, positives: Positives::SupCon }
    }
}

impl Spec for SupconRecipe {
    fn needs(&self) -> Needs {
        Needs { labels: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "; SupCon uses .1")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(SupCon { temperature: self.temperature, positives: self.positives }))
    }
}

/// The supervised contrastive loss over both views' rows.
pub struct SupCon {
    /// Temperature by which similarities are divided; .1 in the paper.
    pub temperature: f64,
    /// How positives are weighted.
    pub positives: Positives,
}

impl Objective for SupCon {
    /// Samples without labels are an error.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let own = paired(&first.query, &second.query)?.0;
        let labels = inputs.labels().ok_or_else(|| {
            Error::usage("the supervised contrastive loss needs labels, and this data has none")
                .hint("use [loss.nt-xent], which needs none")
        })?;
        if labels.len() != own {
            return Err(Error::new(format!("{} labels for {own} pairs", labels.len())));
        }
        let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
        let (lefts, rights) = (inputs.world.gather(&left.detach())?, inputs.world.gather(&right.detach())?);
        let z = Tensor::cat(&[&lefts.rows, &rights.rows], 0)?;
        let all = numbers_over_ranks(labels, &left, inputs.world)?;
        let n = all.len();
        let (value, gradient) = supcon(inputs.device, &z, &[&all[..], &all[..]].concat(), self.temperature, self.positives)?;
        let gradients = [(&left, lefts.own(&gradient, own)?), (&right, rights.own(&gradient.narrow(0, n, n)?, own)?)];
        inputs.terms(&attach(&value, &gradients)?, &[], Vec::new())
    }
}

/// Value and gradient for `rows` (m, d) of length 1 with one label each.
fn supcon(device: &Device, rows: &Tensor, labels: &[u32], temperature: f64, positives: Positives) -> Result<(Tensor, Tensor)> {
    let mut sizes = std::collections::HashMap::new();
    labels.iter().for_each(|l| *sizes.entry(l).or_insert(0usize) += 1);
    let count = |i: usize| sizes[&labels[i]] - 1;
    let anchors = (0..labels.len()).filter(|i| count(*i) > 0).count();
    let pairs: usize = (0..labels.len()).map(count).sum();
    let weight = |i: usize| match (count(i), positives) {
        (0, _) => 0.0,
        (_, Positives::Pairs) => 1.0 / pairs as f64,
        (p, _) => 1.0 / (anchors * p) as f64,
    };
    let weights: Vec<f64> = (0..labels.len()).map(weight).collect();
    let described = Contrast {
        labels,
        memory: &[],
        weights: &weights,
        width: rows.dim(1)?,
        temperature,
        sides: &[(0..labels.len(), 0..labels.len())],
        denominator: if positives == Positives::SupCon { Denominator::All } else { Denominator::Each },
    };
    contrast(device, rows, None, &described, |first, s| {
        // The weight of each positive pair; 0 elsewhere.
        let anchors = s.dim(0)?;
        let (own, all) = (numbered(first, anchors), numbered(0, labels.len()));
        let classes = &labels[first..first + anchors];
        let weights =
            Tensor::from_slice(&weights[first..first + anchors], anchors, s.device())?.to_dtype(s.dtype())?.unsqueeze(1)?;
        let positives_of = (compare(s, classes, labels, [1.0, 0.0])? - compare(s, &own, &all, [1.0, 0.0])?)?;
        let w = positives_of.broadcast_mul(&weights)?;
        if positives == Positives::SupCon {
            let (top, p) = softmax(&(s + without(s, &own, &all)?)?)?;
            let loss = (top.broadcast_sub(s)? * &w)?.sum_all()?;
            return Ok((loss, (p.broadcast_mul(&w.sum_keepdim(1)?)? - w)?));
        }
        let (top, p) = softmax(&(s + without(s, classes, labels)?)?)?;
        let x = top.broadcast_sub(s)?;
        // log(1 + eˣ) and σ(x), in forms that neither overflow nor fail at x = −∞ (an anchor without negatives).
        let e = (x.abs()?.neg()?.exp()? + 1.0)?;
        let softplus = (x.maximum(0.0)? + e.log()?)?;
        let sigma = ((x.neg()?.exp()? + 1.0)?.recip()? * &w)?;
        Ok(((softplus * &w)?.sum_all()?, (p.broadcast_mul(&sigma.sum_keepdim(1)?)? - sigma)?))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, angles, distance, finite_difference, gradient, random, ranks, two};
    use super::*;
    use crate::world::{Collective, Solo};
    use candle_core::{DType, Device};

    const ALL: [Positives; 3] = [Positives::Pairs, Positives::Anchors, Positives::SupCon];

    fn value(rows: &Tensor, labels: &[u32], temperature: f64, positives: Positives) -> f64 {
        supcon(&crate::Device::Cpu, rows, labels, temperature, positives).unwrap().0.to_scalar().unwrap()
    }

    #[test]
    fn golden_ways_to_count() {
        let rows = angles(&[0.0, 10.0, 20.0, 50.0, 60.0, 80.0]);
        let expected = [0.2981431, 0.3529424, 0.7200605];
        for (positives, expected) in ALL.into_iter().zip(expected) {
            let found = value(&rows, &[0, 0, 0, 1, 1, 2], 0.1, positives);
            assert!((found - expected).abs() < 1e-7, "{positives:?}: {found}");
            let single =
                value(&rows.to_dtype(DType::F32).unwrap().to_dtype(DType::F64).unwrap(), &[7, 7, 7, 0, 0, 9], 0.1, positives);
            assert!((single - expected).abs() < 1e-6, "labels are names, not numbers");
        }
    }

    #[test]
    fn one_pair_a_class_is_nt_xent() {
        let both = two(&random(1, 5, 3), &random(2, 5, 3));
        let ntxent = super::super::NtXent { temperature: 0.2, scale: 1.0, memory: None };
        let expected = testing::loss(&ntxent, &both, None, None, &Solo).to_scalar::<f64>().unwrap();
        for positives in ALL {
            let objective = SupCon { temperature: 0.2, positives };
            let loss = testing::loss(&objective, &both, None, Some(&[4, 2, 9, 0, 1]), &Solo);
            assert!((loss.to_scalar::<f64>().unwrap() - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for positives in ALL {
            for temperature in [0.05, 1.0] {
                for labels in [[0u32, 0, 1, 2], [3, 3, 3, 3], [0, 1, 2, 3]] {
                    let loss = SupCon { temperature, positives };
                    finite_difference(&random(7, 4, 3), |x| {
                        testing::loss(&loss, &two(x, &random(8, 4, 3)), None, Some(&labels), &Solo)
                    });
                }
            }
        }
    }

    #[test]
    fn two_ranks_are_one() {
        let (left, right, labels) = (random(1, 6, 3), random(2, 6, 3), [0u32, 1, 0, 2, 1, 0]);
        for positives in ALL {
            let objective = SupCon { temperature: 0.2, positives };
            let of = |l: &Tensor, r: &Tensor, labels: &[u32], world: &dyn Collective| {
                testing::loss(&objective, &two(l, r), None, Some(labels), world)
            };
            let found = ranks(2, |world| {
                let from = 3 * world.rank();
                let (l, r) = (left.narrow(0, from, 3).unwrap(), right.narrow(0, from, 3).unwrap());
                gradient(&l, |x| of(x, &r, &labels[from..from + 3], world))
            });
            let whole = gradient(&left, |x| of(x, &right, &labels, &Solo));
            assert!(distance(&Tensor::cat(&found, 0).unwrap(), &whole) < 1e-15);
        }
    }

    #[test]
    fn nothing_to_contrast_costs_nothing() {
        for positives in ALL {
            let (loss, gradient) = supcon(&crate::Device::Cpu, &random(1, 4, 3), &[0, 1, 2, 3], 0.1, positives).unwrap();
            assert_eq!(loss.to_scalar::<f64>().unwrap(), 0.0);
            assert_eq!(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.0);
        }
        // Without negatives the loss of each pair is 0; SupCon still has to choose among all positives.
        let same = angles(&[30.0; 4]);
        assert_eq!(value(&same, &[1; 4], 0.1, Positives::Pairs), 0.0);
        assert!((value(&same, &[1; 4], 0.1, Positives::SupCon) - 3f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn sharp_temperatures_stay_finite_in_f32() {
        let rows = normalise(&random(1, 8, 4).to_dtype(DType::F32).unwrap()).unwrap();
        let near = Tensor::cat(&[&rows, &(&rows + 1e-4).unwrap()], 0).unwrap();
        for positives in ALL {
            let (loss, gradient) =
                supcon(&crate::Device::Cpu, &near, &[0, 0, 1, 1, 2, 2, 3, 4, 0, 0, 1, 1, 2, 5, 5, 6], 0.01, positives).unwrap();
            assert!(loss.to_scalar::<f32>().unwrap().is_finite());
            assert!(gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().is_finite());
        }
    }

    #[test]
    fn missing_or_wrong_labels_are_errors() {
        let both = two(&random(1, 3, 2), &random(2, 3, 2));
        let loss = SupCon { temperature: 0.1, positives: Positives::SupCon };
        assert!(testing::terms(&loss, &both, None, None, &Solo).err().unwrap().to_string().contains("hint: "));
        assert!(testing::terms(&loss, &both, None, Some(&[1, 2]), &Solo).is_err());
        let none = Tensor::zeros((0, 2), DType::F64, &Device::Cpu).unwrap();
        assert!(testing::terms(&loss, &two(&none, &none), None, Some(&[]), &Solo).is_err());
    }
}
