//! SimSiam (Chen & He 2021, equations 1 to 4): the prediction of each view is pulled to the other view's embedding, without a momentum
//! encoder.
//!
//! ```text
//! L = −½ mean cos(p, sg(z')) − ½ mean cos(p', sg(z))          p = predictor(z), sg: no gradient
//! ```
//!
//! The loss is [`predict`](super::predict) with a = 0 and b = ½. Gradients reach the encoder only through the predictor. Without the
//! predictor or the stopped gradient, all embeddings collapse to one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::predict::predict;
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms};
use crate::error::Result;
use crate::nn::params::Scope;
use crate::nn::pass::Groups;

/// `[loss.simsiam]` (Chen & He 2021). It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimsiamRecipe {}

impl Spec for SimsiamRecipe {
    fn needs(&self) -> Needs {
        Needs { groups: Groups::Each(1), predictor: true, ..Needs::default() }
    }

    fn check(&self, _: &Checks) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(SimSiam))
    }
}

/// The negative cosine, in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimSiam;

impl Objective for SimSiam {
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        predict(inputs, (&first.key, &second.key), 0.0, 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, distance, finite_difference, gradient, random, ranks, two, wave};
    use super::*;
    use crate::model::embeddings::{Embedded, Embeddings};
    use crate::world::{Collective, Solo};
    use candle_core::{Tensor, Var};

    fn loss(p: [&Tensor; 2], z: [&Tensor; 2], world: &dyn Collective) -> Tensor {
        let view = |i: usize| Embedded { query: p[i].clone(), key: z[i].clone() };
        testing::loss(&SimSiam, &Embeddings::of_two(view(0), view(1)), None, None, world)
    }

    #[test]
    fn golden_waves() {
        let (p, z) = ([wave(5, 3, 1.7), wave(5, 3, 0.9)], [wave(5, 3, 2.3), wave(5, 3, 0.6)]);
        let found = loss(p.each_ref(), z.each_ref(), &Solo).to_scalar::<f64>().unwrap();
        assert!((found - -0.018829387424).abs() < 1e-11, "{found}");
    }

    #[test]
    fn alike_is_minus_one_and_opposite_is_one() {
        let x = random(1, 4, 3);
        let value = |y: &Tensor| testing::loss_of(&SimSiam, &x, y).to_scalar::<f64>().unwrap();
        assert!((value(&(&x * 3.0).unwrap()) + 1.0).abs() < 1e-12);
        assert!((value(&x.neg().unwrap()) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_gradient_is_the_difference_and_stops_at_keys() {
        let [a, b, c] = [2, 3, 4].map(|seed| random(seed, 4, 3));
        finite_difference(&random(1, 4, 3), |x| loss([x, &a], [&b, &c], &Solo));
        finite_difference(&random(1, 4, 3), |x| loss([&a, x], [&b, &c], &Solo));
        let (p, z) = (Var::from_tensor(&a).unwrap(), Var::from_tensor(&b).unwrap());
        let store = loss([&p, &p], [&z, &z], &Solo).backward().unwrap();
        assert!(store.get(&p).is_some() && store.get(&z).is_none());
    }

    #[test]
    fn two_ranks_are_one() {
        let [p, q, y, z] = [1, 2, 3, 4].map(|seed| random(seed, 6, 3));
        let found = ranks(2, |world| {
            let own = |t: &Tensor| t.narrow(0, 3 * world.rank(), 3).unwrap();
            gradient(&own(&p), |x| loss([x, &own(&q)], [&own(&y), &own(&z)], world))
        });
        let whole = gradient(&p, |x| loss([x, &q], [&y, &z], &Solo));
        assert!(distance(&Tensor::cat(&found, 0).unwrap(), &whole) < 1e-15);
    }

    #[test]
    fn collapse_is_seen() {
        let spread = |z: &Tensor| {
            let extras = testing::terms(&SimSiam, &two(z, z), None, None, &Solo).unwrap().extras;
            extras.iter().find(|(name, _)| *name == "spread").unwrap().1.to_scalar::<f64>().unwrap()
        };
        assert!(spread(&random(1, 2000, 8)) > 0.95);
        assert!(spread(&random(1, 1, 8).broadcast_as((9, 8)).unwrap().contiguous().unwrap()) < 1e-7);
    }
}
