//! The sigmoid loss of SigLIP (Zhai et al. 2023, §3.2): is this pair one of the data's, or not?
//!
//! With u and v the sides' N rows, of length 1, s = u·vᵀ/T and z = 1 for a pair, −1 for any other two,
//!
//! ```text
//! L = −1/N Σᵢⱼ log σ(zᵢⱼ (sᵢⱼ + b))          divided by N, not by N²
//! D = ∂L/∂s = (σ(s + b) − 1) / N             1 the identity
//! ∂L/∂u = D·v/T,   ∂L/∂v = Dᵀ·u/T,   ∂L/∂(−log T) = Σ D∘s,   ∂L/∂b = Σ D
//! ```
//!
//! The loss is a plain sum, so no row waits for all others; [`Ranking`] computes it by blocks, with the false negatives left out. The
//! temperature and the bias are learned; with b = −10 nearly all similarities begin as those of strangers.

use std::sync::Arc;

use ctk_kernels::Judge;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ranking::{Directions, Ranking};
use super::sharpness::{Sharpness, learn, number};
use super::spec::{Checks, EmbeddingSpace, Spec};
use super::{Inputs, Objective, Terms};
use crate::error::Result;
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// `[loss.siglip]` (Zhai et al. 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SiglipRecipe {
    /// The learned temperature before training.
    pub temperature: f64,
    /// The learned bias before training.
    pub bias: f64,
    /// The largest value of one over the temperature.
    pub sharpest: f64,
}

impl Default for SiglipRecipe {
    fn default() -> Self {
        SiglipRecipe { temperature: 0.1, bias: -10.0, sharpest: 1000.0 }
    }
}

impl Spec for SiglipRecipe {
    fn check(&self, checks: &Checks) -> Result<()> {
        Sharpness::check(self.temperature, Some(self.sharpest), checks)?;
        checks.require((-100.0..=100.0).contains(&self.bias), "bias", "must be -100 to 100; -10 is usual")
    }

    fn build(&self, _: &EmbeddingSpace, mut scope: Scope) -> Result<Box<dyn Objective>> {
        let sharpness = Sharpness::new(self.temperature, Some(self.sharpest), &mut scope);
        let bias = scope.param("logit_bias", (), ParamKind::Scalar, Init::Constant(self.bias));
        Ok(Box::new(Siglip { sharpness, bias }))
    }
}

/// The sigmoid loss.
pub struct Siglip {
    sharpness: Sharpness,
    bias: Arc<Param>,
}

impl Objective for Siglip {
    /// `extras` has the mean cosine of positive pairs, the temperature, the bias and, if it is known what rows show, the share of candidates
    /// that is left out (`masked`).
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let (temperature, judge) = (self.sharpness.temperature()?, Judge::Sigmoid { bias: number(&self.bias)? });
        let ranking = Ranking { temperature, directions: Directions::Forth, margin: None, judge };
        let (mut terms, slopes) = ranking.of(inputs, &[&first.query, &second.query])?;
        self.sharpness.told(&mut terms, slopes.sharpness)?;
        terms.extras.push(("bias", self.bias.var().as_tensor().detach()));
        learn(&self.bias, slopes.bias, &mut terms)?;
        Ok(terms)
    }

    fn after_step(&mut self, _: &Inputs) -> Result<()> {
        self.sharpness.clamp()
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::super::testing::{self, both_differences, distance, gradient, random, two};
    use super::*;
    use crate::data::known::Known;
    use crate::device::Device;
    use crate::nn::params::Params;
    use crate::rng::Key;
    use crate::world::{Collective, Solo};
    use candle_core::{DType, Tensor};

    fn built(recipe: &SiglipRecipe) -> (Params, Box<dyn Objective>) {
        let mut params = Params::new();
        let of = recipe.build(&EmbeddingSpace { width: 4, dtype: DType::F64 }, params.root().sub("loss")).unwrap();
        params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
        (params, of)
    }

    fn number(of: &Tensor) -> f64 {
        of.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn loss(recipe: &SiglipRecipe, left: &Tensor, right: &Tensor, world: &dyn Collective) -> Tensor {
        testing::loss(&*built(recipe).1, &two(left, right), None, None, world)
    }

    #[test]
    fn goldens_of_sines() {
        let [x, y] = [1, 2].map(testing::sines);
        let (_params, of) = built(&SiglipRecipe::default());
        let terms = testing::terms(&*of, &two(&x, &y), None, None, &Solo).unwrap();
        assert!((number(&terms.loss) - 10.1715769426).abs() < 1e-9, "{}", number(&terms.loss));
        let of_x = terms.gradients[0].query.as_ref().unwrap();
        assert!((testing::length(of_x) - 3.4248768136).abs() < 1e-9);
        let golden = [-1.30511949, 0.49687286, 0.25348058, -0.80687338];
        let first = of_x.to_vec2::<f64>().unwrap()[0].clone();
        assert!(first.iter().zip(golden).all(|(found, golden)| (found - golden).abs() < 1e-8), "{first:?}");
        let slopes: Vec<(&str, f64)> = terms.parameters.iter().map(|(param, slope)| (param.name(), number(slope))).collect();
        for ((name, found), (expected, golden)) in
            slopes.iter().zip([("loss.logit_scale", 0.1899506788), ("loss.logit_bias", -0.9949277704)])
        {
            assert!(*name == expected && (found - golden).abs() < 1e-9, "{name}: {found}");
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for recipe in [SiglipRecipe::default(), SiglipRecipe { temperature: 0.5, bias: 0.3, sharpest: 10.0 }] {
            both_differences(&random(1, 4, 3), &random(2, 4, 3), |l, r| loss(&recipe, l, r, &Solo));
        }
    }

    #[test]
    fn blocks_of_anchors_add_up_and_false_negatives_are_left_out() {
        let (left, right) = (random(1, 700, 3), random(2, 700, 3));
        let recipe = SiglipRecipe { temperature: 0.3, bias: -1.0, sharpest: 10.0 };
        // Every seventh image shows the same, and so does every hundredth caption.
        let contents =
            [7u32, 100].map(|of| (0..700u32).map(|i| if i % of == 0 { of } else { 1000 * of + i }).collect::<Vec<u32>>());
        for contents in [Vec::new(), contents.to_vec()] {
            let own = |at: usize, j: usize| at == j;
            let out = |i: usize, j: usize| {
                !contents.is_empty() && !own(i, j) && (contents[1][j] == contents[1][i] || contents[1][j] == contents[0][i])
            };
            let oracle = |l: &Tensor, r: &Tensor| {
                let s = (normalise(l).unwrap().matmul(&normalise(r).unwrap().t().unwrap()).unwrap() / 0.3).unwrap();
                let of = |f: &dyn Fn(usize, usize) -> f64| {
                    let values: Vec<f64> = (0..700 * 700).map(|k| f(k / 700, k % 700)).collect();
                    Tensor::from_vec(values, (700, 700), &candle_core::Device::Cpu).unwrap()
                };
                let signs = of(&|i, j| if own(i, j) { -1.0 } else { 1.0 });
                let kept = of(&|i, j| f64::from(u8::from(!out(i, j))));
                let each = (((s - 1.0).unwrap() * signs).unwrap().exp().unwrap() + 1.0).unwrap().log().unwrap();
                ((each * kept).unwrap().sum_all().unwrap() / 700.0).unwrap()
            };
            let known = Known { contents: contents.clone(), ..Known::default() };
            let (_params, of) = built(&recipe);
            let ours = |l: &Tensor, r: &Tensor| testing::loss_known(&*of, &two(l, r), &known, &Solo);
            let (found, expected) = (number(&ours(&left, &right)), number(&oracle(&left, &right)));
            assert!((found - expected).abs() < 1e-10, "{found}, not {expected}");
            let apart = distance(&gradient(&left, |x| ours(x, &right)), &gradient(&left, |x| oracle(x, &right)));
            assert!(apart < 1e-12, "{apart:e}");
        }
    }

    /// Memory that the process has used at most, in bytes.
    fn peak() -> f64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        1024.0 * line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(f64::NAN)
    }

    #[test]
    #[ignore = "a minute: the time and memory of both losses of images and captions; run it alone, in a process of its own"]
    fn large_batches_need_little_memory() {
        use crate::objective::InfonceRecipe;
        let space = EmbeddingSpace { width: 128, dtype: DType::F32 };
        for n in [4096usize, 65_536] {
            let rows = |salt: usize| {
                let of = |i: usize| ((i * 7919 + salt * 104_729) as f64 * 0.618).sin() as f32;
                Tensor::from_vec((0..n * 128).map(of).collect::<Vec<f32>>(), (n, 128), &candle_core::Device::Cpu).unwrap()
            };
            let views = two(&rows(1), &rows(2));
            let infonce = InfonceRecipe { temperature: 0.07, learned: true, ..InfonceRecipe::default() };
            for (name, recipe) in [("infonce", &infonce as &dyn Spec), ("siglip", &SiglipRecipe::default())] {
                let mut params = Params::new();
                let of = recipe.build(&space, params.root().sub("loss")).unwrap();
                params.materialise(Key::new(0), DType::F32, &Device::Cpu).unwrap();
                let start = std::time::Instant::now();
                let terms = testing::terms(&*of, &views, None, None, &Solo).unwrap();
                let seconds = start.elapsed().as_secs_f64();
                let loss = number(&terms.loss);
                println!("{name}, {n} pairs of 128 values: loss {loss:.4}, {seconds:.3} s, {:.0} MB at most", peak() / 1e6);
                assert!(loss.is_finite() && peak() < 1e9);
            }
        }
    }

    #[test]
    fn two_ranks_are_one() {
        let recipe = SiglipRecipe { temperature: 0.3, bias: -1.0, sharpest: 10.0 };
        testing::two_ranks_are_one(1e-13, |l, r, world| loss(&recipe, l, r, world));
    }
}
