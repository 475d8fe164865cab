//! Decoupled contrastive learning (Yeh et al. 2022, equation 6): NT-Xent with only negatives in the denominator.
//!
//! In NT-Xent's gradient every term has the factor 1 − P of the positive: where the positive is easy, the negatives teach little, which
//! hurts small batches most. Without the positive in the denominator that factor is gone. With z the 2N embeddings of N pairs, scaled to
//! length 1 and stacked, s = z·zᵀ/T and row i's positive p(i) = (i + N) mod 2N,
//!
//! ```text
//! L = 1/2N Σᵢ (log Σ_{j ∉ {i, p(i)}} exp sᵢⱼ − s_{i,p(i)})
//! ∂L/∂sᵢⱼ = (Pᵢⱼ − [j = p(i)]) / 2N          P the softmax of that row, without i and p(i)
//! ```
//!
//! The loss may be negative.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ntxent::{Pairs, pairs};
use super::spec::{Checks, EmbeddingSpace, Spec};
use super::{Inputs, Objective, Terms};
use crate::error::Result;
use crate::nn::params::Scope;

/// `[loss.dcl]` (Yeh et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DclRecipe {
    /// Temperature by which similarities are divided.
    pub temperature: f64,
}

impl Default for DclRecipe {
    fn default() -> Self {
        DclRecipe { temperature: 0.1 }
    }
}

impl Spec for DclRecipe {
    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "; the paper uses .1")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(Dcl { temperature: self.temperature }))
    }
}

/// The decoupled loss; all pairs have the same weight.
pub struct Dcl {
    /// Temperature by which similarities are divided; .1 in the paper.
    pub temperature: f64,
}

impl Objective for Dcl {
    /// `extras` are those of NT-Xent. A batch of one pair is an error, because it has no negatives.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        pairs(inputs, &Pairs { temperature: self.temperature, scale: 1.0, memory: None, decoupled: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, angles, both_differences, gradient, random, two};
    use super::*;
    use crate::world::{Collective, Solo};
    use candle_core::{DType, Device, Tensor};

    fn loss(temperature: f64, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(&Dcl { temperature }, &two(left, right), None, None, world)
    }

    fn value(temperature: f64, left: &Tensor, right: &Tensor) -> f64 {
        loss(temperature, left, right, &Solo).to_scalar().unwrap()
    }

    #[test]
    fn golden_angles() {
        let (left, right) = (angles(&[0.0, 90.0, 200.0]), angles(&[10.0, 80.0, 230.0]));
        for (temperature, expected) in [(0.1, -9.143550314753), (0.5, -1.071541090657), (1.0, 0.093267193959)] {
            let found = value(temperature, &left, &right);
            assert!((found - expected).abs() < 1e-10, "{temperature}: {found}");
        }
    }

    #[test]
    fn equal_embeddings_cost_the_log_of_the_negatives() {
        for n in [2usize, 5] {
            let rows = Tensor::ones((n, 3), DType::F64, &Device::Cpu).unwrap();
            assert!((value(0.1, &rows, &rows) - ((2 * n - 2) as f64).ln()).abs() < 1e-12);
        }
        let one = two(&random(1, 1, 3), &random(2, 1, 3));
        let error = testing::terms(&Dcl { temperature: 0.1 }, &one, None, None, &Solo).err().unwrap().to_string();
        assert!(error.contains("hint: "), "{error}");
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.07, 0.1, 1.0] {
            both_differences(&random(1, 4, 3), &random(2, 4, 3), |l, r| loss(temperature, l, r, &Solo));
        }
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-15, |l, r, world| loss(0.2, l, r, world));
    }

    #[test]
    fn sharp_temperatures_stay_finite_in_f32() {
        let rows = random(1, 6, 8).to_dtype(DType::F32).unwrap();
        let near = (&rows + 1e-5).unwrap();
        assert!(loss(0.01, &rows, &near, &Solo).to_scalar::<f32>().unwrap().is_finite());
        let g = gradient(&rows, |x| loss(0.01, x, &near, &Solo)).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(g.iter().all(|g| g.is_finite()));
    }
}
