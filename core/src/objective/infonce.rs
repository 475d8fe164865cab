//! InfoNCE over a batch (van den Oord et al. 2018, equation 4), in both directions, as in CLIP (Radford et al. 2021, figure 3).
//!
//! Each left row must find its right row among all right rows, and the other way round. Unlike in NT-Xent, rows of the same side are not
//! negatives. With q and k the sides' N rows, of length 1, and s = q·kᵀ/T,
//!
//! ```text
//! L = 1/2N Σᵢ (log Σⱼ exp sᵢⱼ − sᵢᵢ) + 1/2N Σᵢ (log Σⱼ exp sⱼᵢ − sᵢᵢ)
//! D = ∂L/∂s = (P + P' − 2·1) / 2N            P the softmax of rows of s, P' that of its columns, 1 the identity
//! ∂L/∂q = D·k/T,   ∂L/∂k = Dᵀ·q/T
//! ```
//!
//! That is [`Ranking`] in both directions without hard negatives, which computes it and leaves out false negatives. A learned temperature
//! (CLIP) has the gradient ∂L/∂(−log T) = Σ D∘s.

use ctk_kernels::Judge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ranking::{Directions, Ranking};
use super::sharpness::Sharpness;
use super::spec::{Checks, EmbeddingSpace, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Terms};
use crate::error::Result;
use crate::nn::params::Scope;

/// `[loss.infonce]` (van den Oord et al. 2018).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InfonceRecipe {
    /// Temperature by which similarities are divided; if it is learned, before training.
    pub temperature: f64,
    /// Whether the temperature is learned, as in CLIP, which begins with .07.
    pub learned: bool,
    /// The largest value of one over a learned temperature.
    pub sharpest: f64,
    /// Also at smaller widths.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Default for InfonceRecipe {
    fn default() -> Self {
        InfonceRecipe { temperature: 0.1, learned: false, sharpest: 100.0, matryoshka: None }
    }
}

impl Spec for InfonceRecipe {
    fn check(&self, checks: &Checks) -> Result<()> {
        Sharpness::check(self.temperature, self.learned.then_some(self.sharpest), checks)
    }

    fn build(&self, _: &EmbeddingSpace, mut scope: Scope) -> Result<Box<dyn Objective>> {
        let sharpest = self.learned.then_some(self.sharpest);
        Ok(Box::new(InfoNce { sharpness: Sharpness::new(self.temperature, sharpest, &mut scope) }))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// InfoNCE, the mean of both directions.
pub struct InfoNce {
    sharpness: Sharpness,
}

impl InfoNce {
    /// That with a fixed temperature.
    pub fn fixed(temperature: f64) -> InfoNce {
        InfoNce { sharpness: Sharpness::fixed(temperature) }
    }
}

impl Objective for InfoNce {
    /// `extras` has the mean cosine of positive pairs, a learned temperature and, if it is known what rows show, the share of candidates that is
    /// left out (`masked`).
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let temperature = self.sharpness.temperature()?;
        let ranking = Ranking { temperature, directions: Directions::Both, margin: None, judge: Judge::Softmax };
        let (mut terms, slopes) = ranking.of(inputs, &[&first.query, &second.query])?;
        self.sharpness.told(&mut terms, slopes.sharpness)?;
        Ok(terms)
    }

    fn after_step(&mut self, _: &Inputs) -> Result<()> {
        self.sharpness.clamp()
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::super::testing::{self, angles, both_differences, distance, gradient, random, two};
    use super::*;
    use crate::device::Device;
    use crate::nn::params::Params;
    use crate::rng::Key;
    use crate::world::{Collective, Solo};
    use candle_core::{DType, Tensor};

    fn loss(temperature: f64, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(&InfoNce::fixed(temperature), &two(left, right), None, None, world)
    }

    fn value(temperature: f64, left: &Tensor, right: &Tensor) -> f64 {
        loss(temperature, left, right, &Solo).to_scalar().unwrap()
    }

    #[test]
    fn golden_angles() {
        let (left, right) = (angles(&[0.0, 90.0, 200.0]), angles(&[10.0, 80.0, 230.0]));
        for (temperature, expected) in [(0.1, 0.000200331118), (0.5, 0.167487701152), (1.0, 0.440505248902)] {
            let found = value(temperature, &left, &right);
            assert!((found - expected).abs() < 1e-10, "{temperature}: {found}");
            assert!((value(temperature, &right, &left) - found).abs() < 1e-12, "sides are alike");
        }
    }

    #[test]
    fn equal_embeddings_cost_the_log_of_the_choices() {
        for n in [1usize, 2, 5] {
            let rows = Tensor::ones((n, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
            assert!((value(0.1, &rows, &rows) - (n as f64).ln()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.07, 0.1, 1.0] {
            both_differences(&random(1, 4, 3), &random(2, 4, 3), |l, r| loss(temperature, l, r, &Solo));
        }
    }

    #[test]
    fn blocks_of_anchors_add_up() {
        let (left, right) = (random(1, 700, 3), random(2, 700, 3));
        let oracle = |l: &Tensor, r: &Tensor| {
            let s = (normalise(l).unwrap().matmul(&normalise(r).unwrap().t().unwrap()).unwrap() / 0.3).unwrap();
            let classes = Tensor::arange(0u32, 700, &candle_core::Device::Cpu).unwrap();
            let [forth, back] =
                [s.clone(), s.t().unwrap().contiguous().unwrap()].map(|s| candle_nn::loss::cross_entropy(&s, &classes).unwrap());
            ((forth + back).unwrap() / 2.0).unwrap()
        };
        assert!((value(0.3, &left, &right) - oracle(&left, &right).to_scalar::<f64>().unwrap()).abs() < 1e-12);
        let ours = gradient(&left, |x| loss(0.3, x, &right, &Solo));
        assert!(distance(&ours, &gradient(&left, |x| oracle(x, &right))) < 1e-14);
    }

    #[test]
    fn clips_golden_and_the_gradient_of_its_temperature() {
        let (mut params, [x, y]) = (Params::new(), [1, 2].map(testing::sines));
        let recipe = InfonceRecipe { temperature: 0.07, learned: true, ..InfonceRecipe::default() };
        let space = EmbeddingSpace { width: 4, dtype: DType::F64 };
        let mut of = recipe.build(&space, params.root().sub("loss")).unwrap();
        params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
        let terms = testing::terms(&*of, &two(&x, &y), None, None, &Solo).unwrap();
        let number = |of: &Tensor| of.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
        assert!((number(&terms.loss) - 6.5974725096).abs() < 1e-9, "{}", number(&terms.loss));
        let first = terms.gradients[0].query.as_ref().unwrap().to_vec2::<f64>().unwrap()[0].clone();
        let golden = [-3.05970899, 1.30854468, 0.24946095, -1.78328706];
        assert!(first.iter().zip(golden).all(|(found, golden)| (found - golden).abs() < 1e-8), "{first:?}");
        let (param, slope) = &terms.parameters[0];
        assert!(param.name() == "loss.logit_scale" && (number(slope) - 6.4339787767).abs() < 1e-9, "{}", number(slope));
        let told: Vec<&str> = terms.extras.iter().map(|(name, _)| *name).collect();
        assert_eq!(told, ["positive_similarity", "temperature"]);

        // Clamped after the step, not in the loss.
        for (set, expected) in [(9.0, 100f64.ln()), (-1.0, 0.0), (2.0, 2.0)] {
            param.set(&Tensor::new(set, &candle_core::Device::Cpu).unwrap()).unwrap();
            testing::after_step(&mut *of, None, &Solo).unwrap();
            assert!((number(param.var().as_tensor()) - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn two_ranks_are_one() {
        testing::two_ranks_are_one(1e-15, |l, r, world| loss(0.2, l, r, world));
    }
}
