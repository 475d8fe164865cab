//! The cosines of pairs as their scores (Reimers & Gurevych 2019; sentence-transformers' `CosineSimilarityLoss`): a pair's cosine should be its
//! score. SetFit trains by it, with the scores 1 (of one class) and 0 (of two).
//!
//! With cᵢ = uᵢ·vᵢ the cosine of pair i of N, of the unit rows u of x and v of y, and sᵢ its score,
//!
//! ```text
//! L = 1/N Σ (cᵢ − sᵢ)²          ∂L/∂uᵢ = 2 (cᵢ − sᵢ) vᵢ / N          ∂L/∂vᵢ = 2 (cᵢ − sᵢ) uᵢ / N
//! ```
//!
//! Over several ranks N counts all pairs.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{over_ranks, paired};
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Terms, attach, normalise};
use crate::error::{Error, Result};
use crate::nn::params::Scope;

/// `[loss.cosine-similarity]` (Reimers & Gurevych 2019).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CosineSimilarityRecipe {
    /// Also at smaller widths.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Spec for CosineSimilarityRecipe {
    fn needs(&self) -> Needs {
        Needs { scores: true, ..Needs::default() }
    }

    fn check(&self, _: &Checks) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(CosineSimilarity))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// The mean squared distance between cosines and scores.
pub struct CosineSimilarity;

impl Objective for CosineSimilarity {
    /// # Errors
    /// Samples without scores, or with one that no cosine can be: outside of −1 to 1.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (first, second) = inputs.online.pair()?;
        let own = paired(&first.query, &second.query)?.0;
        let scores = inputs.known.scores.as_deref().ok_or_else(|| {
            Error::usage("the cosine similarity loss needs a score for every pair, and this data has none")
                .hint("use [loss.ranking], which needs none")
        })?;
        if scores.len() != own {
            return Err(Error::new(format!("{} scores for {own} pairs", scores.len())));
        }
        if let Some(odd) = scores.iter().find(|score| !(-1.0..=1.0).contains(*score)) {
            return Err(Error::new(format!("a pair has the score {odd}, and cosines are −1 to 1"))
                .hint("scale the scores to 0 to 1, or use [loss.cosent], for which only their order counts"));
        }
        let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
        let (u, v) = (left.detach(), right.detach());
        let scores = Tensor::from_slice(scores, (own, 1), u.device())?.to_dtype(u.dtype())?;
        let off = ((&u * &v)?.sum_keepdim(1)? - scores)?;
        let mean = 1.0 / over_ranks(own, &u, inputs.world)?;
        let value = inputs.world.sum(&(off.sqr()?.sum_all()? * mean)?)?;
        let pull = (off * (2.0 * mean))?;
        let gradients = [(&left, v.broadcast_mul(&pull)?), (&right, u.broadcast_mul(&pull)?)];
        inputs.terms(&attach(&value, &gradients)?, &[], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::data::known::Known;
    use crate::world::Solo;

    fn scored(scores: &[f32]) -> Known {
        Known { scores: Some(scores.to_vec()), ..Known::default() }
    }

    fn loss(x: &Tensor, y: &Tensor, scores: &[f32]) -> Tensor {
        loss_known(&CosineSimilarity, &two(x, y), &scored(scores), &Solo)
    }

    #[test]
    fn golden_of_sines() {
        let (x, y, scores) = (sines(1), sines(2), [0.9, 0.1, 0.5, 0.5]);
        let found = loss(&x, &y, &scores).to_scalar::<f64>().unwrap();
        // Scores are f32.
        assert!((found - 0.614786232370).abs() < 1e-7, "{found}");
        let pulls = [gradient(&x, |x| loss(x, &y, &scores)), gradient(&y, |y| loss(&x, y, &scores))];
        assert!((length(&pulls[0]) - 0.534699157662).abs() < 1e-7 && (length(&pulls[1]) - 0.500699266056).abs() < 1e-7);
    }

    #[test]
    fn the_gradient_is_the_difference() {
        both_differences(&random(1, 5, 3), &random(2, 5, 3), |x, y| loss(x, y, &[1.0, 0.0, 0.5, -1.0, 0.25]));
    }

    #[test]
    fn two_ranks_are_one() {
        let known = scored(&[1.0, 0.0, 1.0, 0.0, 0.5, -0.5]);
        two_ranks_of_views_are_one(1e-13, &CosineSimilarity, &[random(1, 6, 3), random(2, 6, 3)], &known);
    }

    #[test]
    fn a_pair_that_is_as_its_score_says_stands_still() {
        let x = random(1, 4, 3);
        let same = loss(&x, &x, &[1.0; 4]).to_scalar::<f64>().unwrap();
        assert!(same.abs() < 1e-20 && length(&gradient(&x, |x| loss(x, &random(2, 4, 3), &[0.0; 4]))) > 0.01, "{same}");
        // A text without a token is a row of zeros: its cosine is 0, and nothing becomes infinite.
        let zeros = x.zeros_like().unwrap();
        assert_eq!(loss(&zeros, &x, &[1.0; 4]).to_scalar::<f64>().unwrap(), 1.0);
        assert!(length(&gradient(&zeros, |zeros| loss(zeros, &x, &[0.0; 4]))).is_finite());
    }

    #[test]
    fn missing_and_odd_scores_are_errors() {
        let views = two(&random(1, 3, 2), &random(2, 3, 2));
        let said = |known: &Known| terms_known(&CosineSimilarity, &views, known, &Solo).err().unwrap().to_string();
        let none = said(&Known::default());
        assert!(none.contains("needs a score") && none.contains("hint: "), "{none}");
        assert!(said(&scored(&[1.0, 0.0])).contains("2 scores for 3 pairs"));
        for odd in [5.0, f32::NAN, -1.5] {
            assert!(said(&scored(&[1.0, odd, 0.0])).contains("cosines are −1 to 1"));
        }
    }
}
