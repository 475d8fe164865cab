//! Distillation of embeddings by their squared distance (Reimers & Gurevych 2020; sentence-transformers' `EmbedDistillLoss`).
//!
//! With x the student's N embeddings of d values and y the teacher's of the same samples,
//!
//! ```text
//! L = 1/(N·d) Σ (x − y)²          ∂L/∂x = 2 (x − y) / (N·d)
//! ```
//!
//! With `normalise`, x and y are scaled to length 1 first. The teacher gets no gradient. Over several ranks N counts all rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::over_ranks;
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Terms, attach, normalise};
use crate::error::{Error, Result};
use crate::nn::params::Scope;

/// `[loss.mse]` (Reimers & Gurevych 2020).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MseRecipe {
    /// Whether the embeddings of both are scaled to length 1 first.
    pub normalise: bool,
    /// Also at smaller widths, of the teacher's embeddings too.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Spec for MseRecipe {
    fn needs(&self) -> Needs {
        Needs { teacher: true, ..Needs::default() }
    }

    fn check(&self, _: &Checks) -> Result<()> {
        Ok(())
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(Mse { normalise: self.normalise }))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// The mean squared distance to the teacher's embeddings.
pub struct Mse {
    /// Whether embeddings are scaled to length 1 first.
    pub normalise: bool,
}

impl Objective for Mse {
    /// # Errors
    /// There is not one view of the left side and one of the right, or they differ in shape.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (student, teacher) = inputs.online.taught()?;
        let ([x], [y]) = (&student[..], &teacher[..]) else {
            let what = format!("this loss compares one view with a teacher's, not {} with {}", student.len(), teacher.len());
            return Err(Error::usage(what));
        };
        let ((n, width), of_teacher) = (x.dims2()?, y.dims2()?);
        if of_teacher != (n, width) {
            let what = format!("the student's embeddings are {:?}, the teacher's {of_teacher:?}", (n, width));
            return Err(Error::usage(what).hint("give the student embeddings of the teacher's width"));
        }
        let (x, y) = match self.normalise {
            true => (normalise(x)?, normalise(&y.detach())?),
            false => ((*x).clone(), y.detach()),
        };
        let off = (x.detach() - y)?;
        let mean = 1.0 / (over_ranks(n, &x, inputs.world)? * width as f64);
        let value = inputs.world.sum(&(off.sqr()?.sum_all()? * mean)?)?;
        inputs.terms(&attach(&value, &[(&x, (off * (2.0 * mean))?)])?, &[], Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use candle_core::Tensor;

    use crate::data::known::Known;
    use crate::model::embeddings::Embeddings;
    use crate::world::{Collective, Solo};

    fn views(x: &Tensor, y: &Tensor) -> Embeddings {
        Embeddings::new(1, vec![Some(x.clone().into()), Some(y.clone().into())])
    }

    fn loss(normalise: bool, x: &Tensor, y: &Tensor, world: &dyn Collective) -> Tensor {
        loss_known(&Mse { normalise }, &views(x, y), &Known::default(), world)
    }

    #[test]
    fn golden_of_sines() {
        let (x, y) = (sines(1), sines(2));
        let found = loss(false, &x, &y, &Solo).to_scalar::<f64>().unwrap();
        assert!((found - 1.0378278939).abs() < 1e-9, "{found}");
        let pull = gradient(&x, |x| loss(false, x, &y, &Solo));
        assert!((length(&pull) - 0.5093691917).abs() < 1e-9);
        // Of unit rows (x − y)² = 2 − 2 cos: twice the loss of cosines, divided by the width.
        let unit = loss(true, &x, &y, &Solo).to_scalar::<f64>().unwrap();
        assert!((unit - 2.0 * 1.0166490728 / 4.0).abs() < 1e-9, "{unit}");
        let pull = gradient(&x, |x| loss(true, x, &y, &Solo));
        assert!((length(&pull) - 2.0 * 0.3424028011 / 4.0).abs() < 1e-9);
    }

    #[test]
    fn the_gradient_is_the_difference_and_the_teacher_has_none() {
        let (x, y) = (random(1, 5, 3), random(2, 5, 3));
        for normalise in [false, true] {
            finite_difference(&x, |x| loss(normalise, x, &y, &Solo));
            let of = |y: &Tensor| loss(normalise, &x, y, &Solo);
            assert_eq!(length(&gradient(&y, of)), 0.0);
            let still = gradient(&y, |x| loss(normalise, x, &y, &Solo));
            assert!(length(&still) < 1e-15, "a perfect student stands still");
        }
    }

    #[test]
    fn two_ranks_are_one() {
        for normalise in [false, true] {
            super::super::testing::two_ranks_are_one(1e-15, |x, y, world| loss(normalise, x, y, world));
        }
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let (x, known) = (random(1, 3, 2), Known::default());
        let said = |views: &Embeddings| terms_known(&Mse { normalise: false }, views, &known, &Solo).err().unwrap().to_string();
        assert!(said(&views(&x, &random(2, 3, 4))).contains("teacher's (3, 4)"));
        assert!(said(&views(&x, &random(2, 2, 2))).contains("hint: "));
        let none = said(&two(&x, &x));
        assert!(none.contains("needs a teacher's embeddings") && none.contains("hint: "), "{none}");
        let more = Embeddings::new(2, (0..3).map(|_| Some(x.clone().into())).collect());
        assert!(said(&more).contains("not 2 with 1"));
    }
}
