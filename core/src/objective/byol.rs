//! BYOL (Grill et al. 2020, equation 2): the prediction of each view is pulled to the momentum encoder's embedding of the other view.
//!
//! The squared distance of vectors of length 1 is 2 − 2·cos, and both directions are added:
//!
//! ```text
//! L = mean (2 − 2·cos(q, k')) + mean (2 − 2·cos(q', k))          q = predictor(z), k of the target
//! ```
//!
//! The loss is [`predict`](super::predict) with a = 4 and b = 2. The momentum encoder's momentum rises to 1 over training
//! ([`Momentum::Rising`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::predict::predict;
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms};
use crate::error::Result;
use crate::model::target::Momentum;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;

/// `[loss.byol]` (Grill et al. 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ByolRecipe {
    /// Momentum of the momentum encoder at the start; it rises to 1 over the run. Short runs need less than the paper's .996.
    pub momentum: f64,
}

impl Default for ByolRecipe {
    fn default() -> Self {
        ByolRecipe { momentum: 0.996 }
    }
}

impl Spec for ByolRecipe {
    fn needs(&self) -> Needs {
        Needs { momentum: Some(Momentum::Rising(self.momentum)), groups: Groups::Each(1), predictor: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.momentum("momentum", self.momentum)
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(Byol))
    }
}

/// The squared distance, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Byol;

impl Objective for Byol {
    /// Without a momentum encoder this is an error.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.target()?.pair()?;
        predict(inputs, (&first.key, &second.key), 4.0, 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, finite_difference, random, two, wave};
    use super::*;
    use crate::world::Solo;
    use candle_core::{Tensor, Var};

    fn loss(q: [&Tensor; 2], k: [&Tensor; 2]) -> Tensor {
        testing::loss(&Byol, &two(q[0], q[1]), Some(&two(k[0], k[1])), None, &Solo)
    }

    #[test]
    fn golden_waves() {
        let (q, k) = ([wave(5, 3, 1.7), wave(5, 3, 0.9)], [wave(5, 3, 2.3), wave(5, 3, 0.6)]);
        let found = loss(q.each_ref(), k.each_ref()).to_scalar::<f64>().unwrap();
        assert!((found - 3.924682450303).abs() < 1e-11, "{found}");
    }

    #[test]
    fn it_is_the_squared_distance() {
        let x = random(1, 4, 3);
        let value = |k: &Tensor| loss([&x, &x], [k, k]).to_scalar::<f64>().unwrap();
        assert!(value(&(&x * 2.0).unwrap()).abs() < 1e-12);
        assert!((value(&x.neg().unwrap()) - 8.0).abs() < 1e-12, "2² both ways");
    }

    #[test]
    fn the_gradient_is_the_difference_and_stops_at_the_target() {
        let [a, b, c] = [2, 3, 4].map(|seed| random(seed, 4, 3));
        finite_difference(&random(1, 4, 3), |x| loss([x, &a], [&b, &c]));
        finite_difference(&random(1, 4, 3), |x| loss([&a, x], [&b, &c]));
        let k = Var::from_tensor(&b).unwrap();
        assert!(loss([&a, &a], [&k, &k]).backward().unwrap().get(&k).is_none());
    }

    #[test]
    fn without_a_target_there_is_nothing_to_predict() {
        let both = two(&random(1, 3, 2), &random(2, 3, 2));
        assert!(testing::terms(&Byol, &both, None, None, &Solo).err().unwrap().to_string().contains("hint: "));
    }
}
