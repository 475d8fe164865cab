//! CoSENT (Su 2022, "CoSENT: a more effective sentence vector scheme than Sentence-BERT"; sentence-transformers' `CoSENTLoss`): pairs with
//! higher scores should be more similar.
//!
//! With cᵢ the cosine of pair i, yᵢ its score, and λ the scale,
//!
//! ```text
//! L = log(1 + Σ_{yᵢ<yⱼ} exp λ(cᵢ − cⱼ))
//! ∂L/∂cᵢ = λ (exp(λcᵢ + hᵢ − L) − exp(lᵢ − λcᵢ − L))          lᵢ = log Σ_{yⱼ<yᵢ} exp λcⱼ,   hᵢ = log Σ_{yⱼ>yᵢ} exp −λcⱼ
//! ```
//!
//! Only the order of scores counts, and pairs with equal scores are not compared. The loss is one number for a batch, not divided by the
//! number of pairs. With the pairs sorted by score, l and h are running sums, so N pairs take N log N steps. All sums are logarithms in f64
//! whose largest term is subtracted first, so that no λ overflows. Over several ranks, cosines and scores of all pairs are gathered.

use candle_core::{DType, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::paired;
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Terms, attach, normalise};
use crate::error::{Error, Result};
use crate::nn::params::Scope;

/// `[loss.cosent]` (Su 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CosentRecipe {
    /// What cosines are multiplied by: one over the temperature.
    pub scale: f64,
    /// Also at smaller widths.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Default for CosentRecipe {
    fn default() -> Self {
        CosentRecipe { scale: 20.0, matryoshka: None }
    }
}

impl Spec for CosentRecipe {
    fn needs(&self) -> Needs {
        Needs { scores: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("scale", self.scale, "; 20 is usual")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(CoSent { scale: self.scale }))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// CoSENT: cosines in the order of scores.
pub struct CoSent {
    /// What cosines are multiplied by.
    pub scale: f64,
}

impl Objective for CoSent {
    /// Samples without scores, or with a score that is not finite, are an error.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let own = paired(&first.query, &second.query)?.0;
        let scores = inputs.known.scores.as_deref().ok_or_else(|| {
            Error::usage("CoSENT needs a score for every pair, and this data has none")
                .hint("use [loss.ranking], which needs none")
        })?;
        if scores.len() != own {
            return Err(Error::new(format!("{} scores for {own} pairs", scores.len())));
        }
        if let Some(odd) = scores.iter().find(|score| !score.is_finite()) {
            return Err(Error::new(format!("a pair with the score {odd} is neither above nor below others")));
        }
        let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
        let (u, v) = (left.detach(), right.detach());
        let cosines = (&u * &v)?.sum_keepdim(1)?.to_dtype(DType::F64)?;
        let cosines = inputs.world.gather(&cosines)?;
        let scores = inputs.world.gather(&Tensor::from_slice(scores, (own, 1), u.device())?)?.rows;
        let (value, gradient) = ordered(&cosines.rows.flatten_all()?.to_vec1()?, &scores.flatten_all()?.to_vec1()?, self.scale);
        let pull = Tensor::from_vec(gradient, cosines.rows.shape(), u.device())?;
        let pull = cosines.own(&pull, own)?.to_dtype(u.dtype())?;
        let gradients = [(&left, v.broadcast_mul(&pull)?), (&right, u.broadcast_mul(&pull)?)];
        let value = Tensor::new(value, u.device())?.to_dtype(u.dtype())?;
        inputs.terms(&attach(&value, &gradients)?, &[], Vec::new())
    }
}

/// The loss of pairs with these cosines and finite scores, and its gradient with respect to the cosines.
fn ordered(cosines: &[f64], scores: &[f32], scale: f64) -> (f64, Vec<f64>) {
    let mut order: Vec<usize> = (0..cosines.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let groups: Vec<&[usize]> = order.chunk_by(|a, b| scores[*a] == scores[*b]).collect();
    // For each pair the logarithm of a sum over all pairs of the groups before it.
    let before = |groups: &mut dyn Iterator<Item = &&[usize]>, sign: f64| {
        let (mut of, mut sum) = (vec![f64::NEG_INFINITY; cosines.len()], f64::NEG_INFINITY);
        for group in groups {
            group.iter().for_each(|pair| of[*pair] = sum);
            sum = group.iter().fold(sum, |sum, pair| log_of_sum(sum, sign * scale * cosines[*pair]));
        }
        of
    };
    let (lower, higher) = (before(&mut groups.iter(), 1.0), before(&mut groups.iter().rev(), -1.0));
    let value = (0..cosines.len()).fold(0.0, |sum, pair| log_of_sum(sum, lower[pair] - scale * cosines[pair]));
    let pull = |pair: usize| {
        let s = scale * cosines[pair];
        scale * ((s + higher[pair] - value).exp() - (lower[pair] - s - value).exp())
    };
    (value, (0..cosines.len()).map(pull).collect())
}

/// log(eᵃ + eᵇ); either may be −∞.
fn log_of_sum(a: f64, b: f64) -> f64 {
    let (least, most) = (a.min(b), a.max(b));
    if least == f64::NEG_INFINITY { most } else { most + (least - most).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::data::known::Known;
    use crate::world::Solo;

    const OF: CoSent = CoSent { scale: 20.0 };

    fn scored(scores: &[f32]) -> Known {
        Known { scores: Some(scores.to_vec()), ..Known::default() }
    }

    fn loss(of: &CoSent, x: &Tensor, y: &Tensor, scores: &[f32]) -> Tensor {
        loss_known(of, &two(x, y), &scored(scores), &Solo)
    }

    #[test]
    fn golden_of_sines() {
        let (x, y, scores) = (sines(1), sines(2), [0.9, 0.1, 0.5, 0.5]);
        let found = loss(&OF, &x, &y, &scores).to_scalar::<f64>().unwrap();
        assert!((found - 16.7042541467).abs() < 1e-9, "{found}");
        let pulls = [gradient(&x, |x| loss(&OF, x, &y, &scores)), gradient(&y, |y| loss(&OF, &x, y, &scores))];
        assert!((length(&pulls[0]) - 16.4458253924).abs() < 1e-8 && (length(&pulls[1]) - 17.4999239256).abs() < 1e-8);
    }

    #[test]
    fn running_sums_are_the_sum_over_pairs() {
        for seed in 0..20 {
            let n = 1 + seed as usize * 3;
            let cosines = random(seed, n, 1).flatten_all().unwrap().to_vec1::<f64>().unwrap();
            // Scores with many ties.
            let scores: Vec<f32> = (0..n).map(|i| ((i * 7 + seed as usize) % 5) as f32).collect();
            let pairs = (0..n * n).map(|at| [at / n, at % n]).filter(|[i, j]| scores[*i] < scores[*j]);
            let terms: Vec<([usize; 2], f64)> = pairs.map(|[i, j]| ([i, j], (3.0 * (cosines[i] - cosines[j])).exp())).collect();
            let sum = 1.0 + terms.iter().map(|(_, e)| e).sum::<f64>();
            let (value, gradient) = ordered(&cosines, &scores, 3.0);
            assert!((value - sum.ln()).abs() < 1e-12);
            let mut expected = vec![0.0; n];
            for ([i, j], e) in terms {
                expected[i] += 3.0 * e / sum;
                expected[j] -= 3.0 * e / sum;
            }
            assert!(gradient.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-12));
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for scale in [1.0, 20.0] {
            let of = CoSent { scale };
            both_differences(&random(1, 5, 3), &random(2, 5, 3), |x, y| loss(&of, x, y, &[2.0, 0.0, 5.0, 2.0, 1.0]));
        }
    }

    #[test]
    fn two_ranks_are_one() {
        let known = scored(&[1.0, 0.0, 3.0, 1.0, 2.0, 0.5]);
        two_ranks_of_views_are_one(1e-13, &OF, &[random(1, 6, 3), random(2, 6, 3)], &known);
    }

    #[test]
    fn equal_scores_are_not_compared_and_no_scale_overflows() {
        let (x, y) = (random(1, 4, 3), random(2, 4, 3));
        assert_eq!(loss(&OF, &x, &y, &[3.0; 4]).to_scalar::<f64>().unwrap(), 0.0);
        assert_eq!(length(&gradient(&x, |x| loss(&OF, x, &y, &[3.0; 4]))), 0.0);
        let (value, gradient) = ordered(&[1.0, -1.0, 0.5], &[0.0, 1.0, 2.0], 1e6);
        assert!((value - 2e6).abs() < 1e-6, "{value}");
        assert!(gradient.iter().zip([1e6, -1e6, 0.0]).all(|(found, expected)| (found - expected).abs() < 1.0), "{gradient:?}");
        let sorted = ordered(&[-1.0, 0.0, 1.0], &[0.0, 1.0, 2.0], 1e6);
        assert_eq!((sorted.0, sorted.1), (0.0, vec![0.0; 3]));
    }

    #[test]
    fn missing_and_odd_scores_are_errors() {
        let views = two(&random(1, 3, 2), &random(2, 3, 2));
        let said = |known: &Known| terms_known(&OF, &views, known, &Solo).err().unwrap().to_string();
        let none = said(&Known::default());
        assert!(none.contains("needs a score") && none.contains("hint: "), "{none}");
        assert!(said(&scored(&[1.0, 2.0])).contains("2 scores for 3 pairs"));
        assert!(said(&scored(&[1.0, f32::NAN, 0.0])).contains("score NaN"));
    }
}
