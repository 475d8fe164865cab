//! VICReg (Bardes et al. 2022, equations 1 to 6): variance, invariance, covariance.
//!
//! Of the sides' N embeddings z and z' of d values, with m their mean, S² = Σ (z − m)²/(N − 1) a column's variance, S = √(S² + ε),
//! ε = 1e-4, and K = (z − m)ᵀ(z − m)/(N − 1) the covariance,
//!
//! ```text
//! L = λ·s + μ·(v(z) + v(z'))/2 + ν·(c(z) + c(z'))
//! s = Σ (z − z')² / (N·d)          v = 1/d Σⱼ max(0, 1 − Sⱼ)          c = 1/d Σ_{i≠j} Kᵢⱼ²
//!
//! ∂s/∂z = 2(z − z') / (N·d)        ∂v/∂zⱼ = −[Sⱼ < 1]·(zⱼ − mⱼ) / (d·(N − 1)·Sⱼ)
//! ∂c/∂z = 4/(d·(N − 1)) · (z − m)·(K without its diagonal)
//! ```
//!
//! s is divided by d and v is halved as in the authors' code (`main_vicreg.py`), whose weights 25, 25, 1 are the defaults; the paper's
//! equations have neither factor.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{paired, several};
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms, attach};
use crate::error::Result;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;
use crate::recipe::MOST;

const EPSILON: f64 = 1e-4;

/// `[loss.vicreg]` (Bardes et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VicregRecipe {
    /// λ: the weight of the distance between the views.
    pub invariance: f64,
    /// μ: the weight of the variance term, which pushes each column's standard deviation up to 1.
    pub variance: f64,
    /// ν: the weight of the covariance term, the sum of squared covariances.
    pub covariance: f64,
}

impl Default for VicregRecipe {
    fn default() -> Self {
        VicregRecipe { invariance: 25.0, variance: 25.0, covariance: 1.0 }
    }
}

impl Spec for VicregRecipe {
    fn needs(&self) -> Needs {
        Needs { groups: Groups::Each(1), correlates: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("invariance", self.invariance, "; the paper's is 25")?;
        checks.positive("variance", self.variance, ": without it all embeddings become one; the paper's is 25")?;
        let sound = (0.0..=MOST).contains(&self.covariance);
        checks.require(sound, "covariance", "must be 0 to 1000000; the paper's is 1")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        let VicregRecipe { invariance, variance, covariance } = *self;
        Ok(Box::new(VicReg { invariance, variance, covariance }))
    }
}

/// The VICReg loss.
pub struct VicReg {
    /// λ, the weight of the distance between the views.
    pub invariance: f64,
    /// μ, the weight of the variance term.
    pub variance: f64,
    /// ν, the weight of the covariance term.
    pub covariance: f64,
}

impl Objective for VicReg {
    /// `extras` has s, and the mean of v over both sides. A batch of one pair is an error, because it has no statistics.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let (left, right) = (&first.query, &second.query);
        let own = paired(left, right)?.0;
        let (of_left, of_right) = (inputs.world.gather(&left.detach())?, inputs.world.gather(&right.detach())?);
        let (a, b) = (&of_left.rows, &of_right.rows);
        let (n, d) = (several(a.dim(0)?)? as f64, a.dim(1)? as f64);
        let apart = (a - b)?;
        let invariance = (apart.sqr()?.sum_all()? / (n * d))?;
        let pull = (apart * (2.0 * self.invariance / (n * d)))?;
        let (left_spread, right_spread) = (self.spread(a)?, self.spread(b)?);
        let variance = ((left_spread.variance + right_spread.variance)? / 2.0)?;
        let covariance = (left_spread.covariance + right_spread.covariance)?;
        let value = ((&invariance * self.invariance)? + (&variance * self.variance)?)?;
        let value = (value + (covariance * self.covariance)?)?;
        let gradients = [
            (left, of_left.own(&(left_spread.gradient + &pull)?, own)?),
            (right, of_right.own(&(right_spread.gradient - &pull)?, own)?),
        ];
        let extras = vec![("invariance", invariance), ("variance", variance)];
        inputs.terms(&attach(&value, &gradients)?, &[], extras)
    }
}

/// v and c of one side, and the side's part of the loss's gradient.
struct Spread {
    variance: Tensor,
    covariance: Tensor,
    gradient: Tensor,
}

impl VicReg {
    fn spread(&self, z: &Tensor) -> Result<Spread> {
        let (rows, d) = z.dims2()?;
        let (free, d) = (rows as f64 - 1.0, d as f64);
        let centred = z.broadcast_sub(&z.mean_keepdim(0)?)?;
        let own = (centred.sqr()?.sum_keepdim(0)? / free)?;
        let deviation = (&own + EPSILON)?.sqrt()?;
        let short = (1.0 - &deviation)?.relu()?;
        let narrow = deviation.lt(1.0)?.to_dtype(z.dtype())?;
        let k = (centred.t()?.matmul(&centred)? / free)?;
        let covariance = ((k.sqr()?.sum_all()? - own.sqr()?.sum_all()?)? / d)?;
        let wider = centred.broadcast_mul(&(narrow / deviation)?)?;
        let apart = (centred.matmul(&k)? - centred.broadcast_mul(&own)?)?;
        let gradient = ((apart * (4.0 * self.covariance / (d * free)))? - (wider * (self.variance / (2.0 * d * free)))?)?;
        Ok(Spread { variance: short.mean_all()?, covariance, gradient })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, both_differences, gradient, random, two, wave};
    use super::*;
    use crate::world::{Collective, Solo};
    use candle_core::{DType, Device};

    const PAPER: VicReg = VicReg { invariance: 25.0, variance: 25.0, covariance: 1.0 };

    fn loss(objective: &VicReg, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(objective, &two(left, right), None, None, world)
    }

    fn value(objective: &VicReg, left: &Tensor, right: &Tensor) -> f64 {
        loss(objective, left, right, &Solo).to_scalar().unwrap()
    }

    #[test]
    fn golden_waves() {
        let (left, right) = (wave(5, 3, 1.7), wave(5, 3, 0.9));
        let part = |i: usize| {
            let [invariance, variance, covariance] = [0, 1, 2].map(|j| if i == j { 1.0 } else { 0.0 });
            VicReg { invariance, variance, covariance }
        };
        for (objective, expected) in
            [(PAPER, 32.261734261484), (part(0), 1.045133560699), (part(1), 0.228884476973), (part(2), 0.411283319684)]
        {
            let found = value(&objective, &left, &right);
            assert!((found - expected).abs() < 1e-10, "{found}, not {expected}");
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for scale in [0.3, 1.0, 3.0] {
            // Columns on both sides of the hinge.
            let left = (random(1, 5, 3) * scale).unwrap();
            both_differences(&left, &random(2, 5, 3), |l, r| loss(&PAPER, l, r, &Solo));
        }
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-13, |l, r, world| loss(&PAPER, l, r, world));
    }

    #[test]
    fn collapse_costs_the_variance_stays_finite_and_one_pair_is_an_error() {
        let flat = Tensor::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
        let found = loss(&PAPER, &flat, &flat, &Solo).to_scalar::<f32>().unwrap();
        assert!((found - 25.0 * 0.99).abs() < 1e-4, "25·(1 − √ε): {found}");
        let g = gradient(&flat, |x| loss(&PAPER, x, &flat, &Solo)).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(g.iter().all(|g| g.is_finite()));
        let one = two(&random(1, 1, 3), &random(2, 1, 3));
        let error = testing::terms(&PAPER, &one, None, None, &Solo).err().unwrap().to_string();
        assert!(error.contains("hint: "), "{error}");
    }
}
