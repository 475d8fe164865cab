//! Barlow Twins (Zbontar et al. 2021, equations 1 and 2): the cross-correlation of the two views should be the identity.
//!
//! Each of the d values of an embedding is standardised over the batch's N rows, ẑ = (z − mean)·r with r = 1/√(variance + 1e-5)
//! (their code's batch normalisation without γ and β). With C = ẑᵀ·ẑ'/N,
//!
//! ```text
//! L = Σᵢ (1 − Cᵢᵢ)² + λ Σ_{i≠j} Cᵢⱼ²
//! ∂L/∂ẑ  = (2λ ẑ'·Cᵀ + ẑ' ∘ w) / N           w = 2(Cᵢᵢ − 1) − 2λ Cᵢᵢ, a factor a column
//! ∂L/∂ẑ' = (2λ ẑ·C + ẑ ∘ w) / N
//! ∂L/∂z  = r ∘ (g − mean(g) − ẑ ∘ mean(g ∘ ẑ))          g = ∂L/∂ẑ, means over rows
//! ```
//!
//! There are no negatives, so batches may be small; the width d should be large.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{paired, several};
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms, attach};
use crate::error::Result;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;

const EPSILON: f64 = 1e-5;

/// `[loss.barlow-twins]` (Zbontar et al. 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BarlowTwinsRecipe {
    /// λ: the weight of the off-diagonal values of the cross-correlation.
    pub lambda: f64,
}

impl Default for BarlowTwinsRecipe {
    fn default() -> Self {
        BarlowTwinsRecipe { lambda: 0.0051 }
    }
}

impl Spec for BarlowTwinsRecipe {
    fn needs(&self) -> Needs {
        Needs { groups: Groups::Each(1), correlates: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("lambda", self.lambda, "; the paper's is .0051")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(BarlowTwins { lambda: self.lambda }))
    }
}

/// The Barlow Twins loss.
pub struct BarlowTwins {
    /// λ: the weight of the off-diagonal values; .0051 in the paper's code.
    pub lambda: f64,
}

impl Objective for BarlowTwins {
    /// `extras` has the mean of C's diagonal. A batch of one pair is an error, because it has no statistics.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let (left, right) = (&first.query, &second.query);
        let own = paired(left, right)?.0;
        let (of_left, of_right) = (inputs.world.gather(&left.detach())?, inputs.world.gather(&right.detach())?);
        let (a, b) = (Standard::of(&of_left.rows)?, Standard::of(&of_right.rows)?);
        let n = several(a.rows.dim(0)?)? as f64;
        let c = (a.rows.t()?.matmul(&b.rows)? / n)?;
        let diagonal = ((&a.rows * &b.rows)?.sum_keepdim(0)? / n)?;
        let off = (c.sqr()?.sum_all()? - diagonal.sqr()?.sum_all()?)?;
        let value = ((1.0 - &diagonal)?.sqr()?.sum_all()? + (off * self.lambda)?)?;
        let w = (((&diagonal - 1.0)? * 2.0)? - (&diagonal * (2.0 * self.lambda))?)?;
        let pull = |other: &Tensor, c: &Tensor| -> Result<Tensor> {
            Ok((((other.matmul(c)? * (2.0 * self.lambda))? + other.broadcast_mul(&w)?)? / n)?)
        };
        let gradients = [
            (left, of_left.own(&a.back(&pull(&b.rows, &c.t()?)?)?, own)?),
            (right, of_right.own(&b.back(&pull(&a.rows, &c)?)?, own)?),
        ];
        inputs.terms(&attach(&value, &gradients)?, &[], vec![("correlation", diagonal.mean_all()?)])
    }
}

/// Columns standardised to mean 0 and variance 1.
struct Standard {
    rows: Tensor,
    inverse: Tensor,
}

impl Standard {
    fn of(z: &Tensor) -> Result<Self> {
        let centred = z.broadcast_sub(&z.mean_keepdim(0)?)?;
        let inverse = (centred.sqr()?.mean_keepdim(0)? + EPSILON)?.sqrt()?.recip()?;
        Ok(Standard { rows: centred.broadcast_mul(&inverse)?, inverse })
    }

    /// The gradient with respect to z, from the gradient with respect to the standardised rows.
    fn back(&self, g: &Tensor) -> Result<Tensor> {
        let along = self.rows.broadcast_mul(&(g * &self.rows)?.mean_keepdim(0)?)?;
        Ok((g.broadcast_sub(&g.mean_keepdim(0)?)? - along)?.broadcast_mul(&self.inverse)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, both_differences, gradient, random, two, wave};
    use super::*;
    use crate::world::{Collective, Solo};
    use candle_core::DType;

    fn loss(lambda: f64, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(&BarlowTwins { lambda }, &two(left, right), None, None, world)
    }

    fn value(lambda: f64, left: &Tensor, right: &Tensor) -> f64 {
        loss(lambda, left, right, &Solo).to_scalar().unwrap()
    }

    #[test]
    fn golden_waves() {
        let (left, right) = (wave(5, 3, 1.7), wave(5, 3, 0.9));
        for (lambda, expected) in [(0.0051, 3.573735489996), (0.5, 3.615767970982)] {
            let found = value(lambda, &left, &right);
            assert!((found - expected).abs() < 1e-9, "{lambda}: {found}");
        }
        let found = value(0.0051, &left, &left);
        assert!((found - 0.009858819623).abs() < 1e-9, "one with itself: {found}");
    }

    #[test]
    fn what_does_not_vary_together_costs_nothing() {
        // Orthogonal columns of mean 0, the same on both sides: C is the identity up to ε.
        let rows = Tensor::new(&[[1f64, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], &candle_core::Device::Cpu).unwrap();
        assert!(value(0.5, &rows, &rows) < 1e-9);
        assert!((value(0.5, &rows, &rows.neg().unwrap()) - 8.0).abs() < 1e-3, "(1 + 1)² for both");
        // The columns' means and scales do not matter.
        let (left, right) = (random(1, 6, 3), random(2, 6, 3));
        let moved = ((&left * 7.0).unwrap() + 3.0).unwrap();
        assert!((value(0.1, &left, &right) - value(0.1, &moved, &right)).abs() < 1e-3);
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for lambda in [0.0051, 0.5] {
            both_differences(&random(1, 5, 3), &random(2, 5, 3), |l, r| loss(lambda, l, r, &Solo));
        }
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-14, |l, r, world| loss(0.1, l, r, world));
    }

    #[test]
    fn collapsed_columns_stay_finite_and_one_pair_is_an_error() {
        let flat = Tensor::ones((4, 3), DType::F32, &candle_core::Device::Cpu).unwrap();
        let g = gradient(&flat, |x| loss(0.0051, x, &flat, &Solo)).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(g.iter().all(|g| g.is_finite()));
        let one = two(&random(1, 1, 3), &random(2, 1, 3));
        let error = testing::terms(&BarlowTwins { lambda: 0.1 }, &one, None, None, &Solo).err().unwrap().to_string();
        assert!(error.contains("hint: "), "{error}");
    }
}
