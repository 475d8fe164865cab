//! Matryoshka representations (Kusupati et al. 2022, equation 1): a loss at several widths, so that the first values of an embedding are a
//! useful embedding by themselves.
//!
//! ```text
//! L = Σ_d w_d ℓ(the first d values of every embedding)          ∂L/∂z = Σ_d w_d (∂ℓ/∂z[..d], followed by zeros)
//! ```
//!
//! ℓ scales what it compares to length 1 again, if it does so at all. The sum is not divided by the number of widths (sentence-transformers'
//! `MatryoshkaLoss`). All views are cut, a teacher's too.

use std::collections::BTreeSet;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::{Checks, EmbeddingSpace};
use super::{Inputs, Objective, Reads, Terms};
use crate::error::{Error, Result};
use crate::model::embeddings::EmbeddedGradient;
use crate::store::checkpoint::{Reader, Writer};

/// `[loss.*.matryoshka]` (Kusupati et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatryoshkaRecipe {
    /// The widths, in any order. The loss is computed at these alone, so the whole width belongs into the list, too.
    pub widths: Vec<usize>,
    /// The weight of the loss at each width. Default: 1 each.
    pub weights: Option<Vec<f64>>,
}

impl MatryoshkaRecipe {
    /// Checks widths and weights of the loss whose section `checks` are for.
    pub(super) fn check(&self, checks: &Checks) -> Result<()> {
        let widths = "matryoshka.widths";
        checks.require(!self.widths.is_empty(), widths, "must be one width or more, such as [256, 128, 64]")?;
        checks.require(!self.widths.contains(&0), widths, "must be 1 or more each")?;
        let different: BTreeSet<&usize> = self.widths.iter().collect();
        checks.require(
            different.len() == self.widths.len(),
            widths,
            "must not have a width twice: give it a larger weight instead",
        )?;
        let Some(weights) = &self.weights else { return Ok(()) };
        let what = format!("must be as many as widths: {}, not {}", self.widths.len(), weights.len());
        checks.require(weights.len() == self.widths.len(), "matryoshka.weights", &what)?;
        weights.iter().try_for_each(|weight| checks.positive("matryoshka.weights", *weight, ""))
    }

    /// `loss` at these widths. `name` is its name in the recipe.
    ///
    /// # Errors
    /// A width is larger than that of the embeddings.
    pub(super) fn around(&self, loss: Box<dyn Objective>, space: &EmbeddingSpace, name: &str) -> Result<Box<dyn Objective>> {
        if let Some(width) = self.widths.iter().find(|width| **width > space.width) {
            let what = format!("loss.{name}.matryoshka.widths: {width} is more than the {} values of an embedding", space.width);
            return Err(Error::usage(what).hint(format!("give widths of 1 to {}, or make the embeddings wider", space.width)));
        }
        let weights = self.weights.iter().flatten().copied().chain(std::iter::repeat(1.0));
        Ok(Box::new(Matryoshka { loss, widths: self.widths.iter().copied().zip(weights).collect() }))
    }
}

/// A loss at several widths.
struct Matryoshka {
    loss: Box<dyn Objective>,
    /// Widths and their weights.
    widths: Vec<(usize, f64)>,
}

impl Objective for Matryoshka {
    /// `extras` are those at the largest width.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let mut sum: Option<Terms> = None;
        let largest = self.widths.iter().map(|(width, _)| *width).max();
        for &(width, weight) in &self.widths {
            let online = inputs.online.cut(width)?;
            let target = inputs.target.map(|target| target.cut(width)).transpose()?;
            let mut terms = self.loss.loss(&Inputs { online: &online, target: target.as_ref(), ..*inputs })?;
            terms.loss = (terms.loss * weight)?;
            for (number, view) in inputs.online.views() {
                let EmbeddedGradient { query, key } = &mut terms.gradients[number];
                for (gradient, rows) in [(query, &view.query), (key, &view.key)] {
                    let Some(cut) = gradient.take() else { continue };
                    *gradient = Some((cut * weight)?.pad_with_zeros(1, 0, rows.dim(1)? - width)?);
                }
            }
            for (_, gradient) in &mut terms.parameters {
                *gradient = (&*gradient * weight)?;
            }
            if Some(width) != largest {
                terms.extras.clear();
            }
            sum = Some(match sum {
                Some(sum) => added(sum, terms)?,
                None => terms,
            });
        }
        sum.ok_or_else(|| Error::new("a loss without a width"))
    }

    fn compares(&self) -> bool {
        self.loss.compares()
    }

    fn reads(&self) -> Reads {
        self.loss.reads()
    }

    fn after_step(&mut self, inputs: &Inputs) -> Result<()> {
        self.loss.after_step(inputs)
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.loss.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.loss.load(reader)
    }
}

/// The sum of the terms of one loss at two widths.
fn added(a: Terms, b: Terms) -> Result<Terms> {
    fn plus(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
        Ok(match (a, b) {
            (Some(a), Some(b)) => Some((a + b)?),
            (a, b) => a.or(b),
        })
    }
    let gradients = a.gradients.into_iter().zip(b.gradients);
    let gradients = gradients.map(|(a, b)| Ok(EmbeddedGradient { query: plus(a.query, b.query)?, key: plus(a.key, b.key)? }));
    let mut parameters = a.parameters;
    for (param, gradient) in b.parameters {
        match parameters.iter_mut().find(|(known, _)| known.name() == param.name()) {
            Some((_, sum)) => *sum = (&*sum + gradient)?,
            None => parameters.push((param, gradient)),
        }
    }
    Ok(Terms {
        extras: [a.extras, b.extras].concat(),
        gradients: gradients.collect::<Result<_>>()?,
        parameters,
        ..Terms::of((a.loss + b.loss)?)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::DType;

    use super::super::testing::*;
    use super::super::{Directions, InfoNce, Ranking};
    use super::*;
    use crate::data::known::Known;
    use crate::model::embeddings::{Embedded, Embeddings};
    use crate::nn::params::{Init, Param, ParamKind, Params};
    use crate::rng::Key;
    use crate::world::Solo;
    use ctk_kernels::Judge;

    fn ranking() -> Box<dyn Objective> {
        Box::new(Ranking { temperature: 0.05, directions: Directions::Forth, margin: None, judge: Judge::Softmax })
    }

    fn at(widths: &[(usize, f64)], loss: Box<dyn Objective>) -> Matryoshka {
        Matryoshka { loss, widths: widths.to_vec() }
    }

    fn number(of: &Tensor) -> f64 {
        of.to_scalar().unwrap()
    }

    #[test]
    fn goldens_of_sines() {
        let (x, y) = (sines(1), sines(2));
        for (second, value, of_x, of_y) in
            [(1.0, 23.5376271077, 12.3256712459, 11.7051830932), (0.5, 16.5198196120, 11.3799771479, 10.3339190807)]
        {
            for widths in [[(4, 1.0), (2, second)], [(2, second), (4, 1.0)]] {
                let of = at(&widths, ranking());
                let found = number(&loss_of(&of, &x, &y));
                assert!((found - value).abs() < 1e-9, "{widths:?}: {found}");
                assert!((length(&gradient(&x, |x| loss_of(&of, x, &y))) - of_x).abs() < 1e-8);
                assert!((length(&gradient(&y, |y| loss_of(&of, &x, y))) - of_y).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn the_gradient_is_the_difference() {
        let of = at(&[(3, 0.7), (5, 2.0), (1, 0.1)], Box::new(InfoNce::fixed(0.3)));
        both_differences(&random(1, 4, 5), &random(2, 4, 5), |x, y| loss_of(&of, x, y));
    }

    #[test]
    fn the_whole_width_alone_is_the_loss_and_two_ranks_are_one() {
        let (x, y) = (random(1, 4, 5), random(2, 4, 5));
        let (of, plain) = (at(&[(5, 1.0)], ranking()), ranking());
        assert_eq!(number(&loss_of(&of, &x, &y)), number(&loss_of(&*plain, &x, &y)));
        let pulls = [gradient(&x, |x| loss_of(&of, x, &y)), gradient(&x, |x| loss_of(&*plain, x, &y))];
        assert_eq!(distance(&pulls[0], &pulls[1]), 0.0);
        two_ranks_are_one(1e-13, |x, y, world| loss(&at(&[(2, 1.0), (3, 0.5)], ranking()), &two(x, y), None, None, world));
    }

    #[test]
    fn figures_to_watch_are_those_of_the_largest_width() {
        let (x, y) = (random(1, 4, 5), random(2, 4, 5));
        let found = terms(&at(&[(2, 1.0), (4, 1.0), (3, 1.0)], ranking()), &two(&x, &y), None, None, &Solo).unwrap().extras;
        let cut = |z: &Tensor| z.narrow(1, 0, 4).unwrap();
        let expected = terms(&*ranking(), &two(&cut(&x), &cut(&y)), None, None, &Solo).unwrap().extras;
        assert_eq!((found.len(), found[0].0), (1, expected[0].0));
        assert_eq!(number(&found[0].1), number(&expected[0].1));
    }

    /// λ·Σ (query · key) of view 0, with a learned λ.
    struct Learned(Arc<Param>);

    impl Objective for Learned {
        fn loss(&self, inputs: &Inputs) -> Result<Terms> {
            let view = inputs.online.view(0)?;
            let product = (&view.query * &view.key)?.sum_all()?;
            inputs.terms(&(self.0.var().as_tensor() * product)?, &[&self.0], Vec::new())
        }
    }

    #[test]
    fn parameters_and_keys_get_the_sum_over_widths() {
        let mut params = Params::new();
        let scale = params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
        params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
        let (query, key) = (random(1, 4, 3), random(2, 4, 3));
        let views = Embeddings::new(1, vec![Some(Embedded { query: query.clone(), key: key.clone() })]);
        let terms = terms_known(&at(&[(3, 1.0), (1, 0.5)], Box::new(Learned(scale))), &views, &Known::default(), &Solo).unwrap();
        let sum = |width: usize| {
            let cut = |z: &Tensor| z.narrow(1, 0, width).unwrap();
            number(&(cut(&query) * cut(&key)).unwrap().sum_all().unwrap())
        };
        let expected = sum(3) + 0.5 * sum(1);
        assert!((number(&terms.loss) - 0.7 * expected).abs() < 1e-12);
        assert_eq!(terms.parameters.len(), 1);
        assert!((number(&terms.parameters[0].1) - expected).abs() < 1e-12);
        // λ times the other of query and key; the first column counts half as much again.
        let weights = Tensor::new(&[[1.5 * 0.7, 0.7, 0.7]], query.device()).unwrap();
        let EmbeddedGradient { query: of_query, key: of_key } = &terms.gradients[0];
        assert!(distance(of_query.as_ref().unwrap(), &key.broadcast_mul(&weights).unwrap()) < 1e-15);
        assert!(distance(of_key.as_ref().unwrap(), &query.broadcast_mul(&weights).unwrap()) < 1e-15);
    }

    #[test]
    fn a_view_that_is_too_narrow_is_an_error() {
        let views = Embeddings::new(1, vec![Some(random(1, 4, 3).into()), Some(random(2, 4, 2).into())]);
        let said = terms_known(&at(&[(3, 1.0)], ranking()), &views, &Known::default(), &Solo).err().unwrap().to_string();
        assert!(said.contains("embeddings of 2 values cannot be cut to 3"), "{said}");
    }
}
