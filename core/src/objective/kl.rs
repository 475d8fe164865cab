//! Distillation of similarities: a student's embeddings prefer the same candidates as a teacher's (Lin et al. 2020;
//! sentence-transformers' `DistillKLDivLoss`).
//!
//! With sᵢⱼ the student's dot products of sample i and its candidates j, tᵢⱼ the teacher's, q = softmax(t/τ) and P = softmax(s/τ) over a
//! sample's candidates,
//!
//! ```text
//! L = τ²/N Σᵢ Σⱼ qᵢⱼ (log qᵢⱼ − log Pᵢⱼ)          ∂L/∂sᵢⱼ = τ (Pᵢⱼ − qᵢⱼ) / N
//! ```
//!
//! The candidates depend on the views, of which student and teacher have as many:
//!
//! - One view: the other samples of the batch (similarity-preserving distillation, as in SEED, Fang et al. 2021, without its queue). With x
//!   the student's rows and D = ∂L/∂s, ∂L/∂x = (D + Dᵀ)·x.
//! - Three and more: views 1, 2, … of the same sample, such as a positive and hard negatives of a query. ∂L/∂xᵢ = Σⱼ Dᵢⱼ·cᵢⱼ and
//!   ∂L/∂cᵢⱼ = Dᵢⱼ·xᵢ.
//!
//! Only similarities are compared, so that the widths of student and teacher may differ. The teacher gets no gradient. Over several ranks N
//! counts all samples, and the batch is that of all ranks.

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{numbered, on_host, over_ranks, several, without};
use super::cross_entropy::with_teacher;
use super::spec::{Checks, EmbeddingSpace, Needs, Spec};
use super::{Inputs, Objective, Terms, attach};
use crate::error::{Error, Result};
use crate::nn::params::Scope;

/// `[loss.kl]` (Lin et al. 2020).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KlRecipe {
    /// τ: the dot products of both are divided by it.
    pub temperature: f64,
}

impl Default for KlRecipe {
    fn default() -> Self {
        KlRecipe { temperature: 1.0 }
    }
}

impl Spec for KlRecipe {
    fn needs(&self) -> Needs {
        Needs { teacher: true, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "")
    }

    fn build(&self, _: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        Ok(Box::new(Kl { temperature: self.temperature }))
    }
}

/// The divergence from the teacher's similarities.
pub struct Kl {
    /// τ: dot products are divided by it.
    pub temperature: f64,
}

impl Objective for Kl {
    /// # Errors
    /// Student and teacher have different views, or a sample has fewer than two candidates.
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let (student, teacher) = inputs.online.taught()?;
        let rows = |views: &[&Tensor]| views.iter().map(|view| Ok(view.dims2()?.0)).collect::<Result<Vec<_>>>();
        if rows(&student)? != rows(&teacher)? {
            let [student, teacher] = [rows(&student)?, rows(&teacher)?];
            return Err(Error::usage(format!("the student's views have {student:?} rows, the teacher's {teacher:?}")));
        }
        match (&student[..], &teacher[..]) {
            ([x], [y]) => self.in_batch(inputs, x, &y.detach()),
            ([x, candidates @ ..], [y, of_teacher @ ..]) if candidates.len() > 1 => {
                self.of_sample(inputs, x, candidates, &similarities(y, of_teacher)?)
            }
            _ => Err(Error::usage(format!("with {} views a sample has too few candidates", student.len()))
                .hint("give one view of each sample, whose candidates are the others, or three and more")),
        }
    }
}

impl Kl {
    /// The sum over samples of τ²·KL(q ‖ P), and its gradient with respect to `s` (n, c); `mask` is added to both.
    fn divergence(&self, s: &Tensor, t: &Tensor, mask: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let (cross, gradient) = with_teacher(s, t, mask, self.temperature)?;
        // The teacher's own entropy is its cross entropy with itself.
        Ok(((cross - with_teacher(t, t, mask, self.temperature)?.0)?, gradient))
    }

    /// Candidates are the other samples of the batch.
    fn in_batch(&self, inputs: &Inputs, x: &Tensor, y: &Tensor) -> Result<Terms> {
        let (xs, ys) = (inputs.world.gather(&x.detach())?, inputs.world.gather(y)?.rows);
        let n = xs.rows.dim(0)?;
        if several(n)? == 2 {
            return Err(Error::new("with two samples in a batch, each has one candidate").hint("use a larger batch"));
        }
        let of_teacher = ys.t()?;
        let (sum, gradient) = on_host(&xs.rows, None, 1.0, |first, s| {
            let count = s.dim(0)?;
            let t = ys.narrow(0, first, count)?.matmul(&of_teacher)?;
            self.divergence(s, &t, Some(&without(s, &numbered(first, count), &numbered(0, n))?))
        })?;
        let gradient = xs.own(&(gradient / n as f64)?, x.dim(0)?)?;
        inputs.terms(&attach(&(sum / n as f64)?, &[(x, gradient)])?, &[], Vec::new())
    }

    /// Candidates are further views of the same sample, with which the teacher has the similarities `t` (n, c).
    fn of_sample(&self, inputs: &Inputs, x: &Tensor, candidates: &[&Tensor], t: &Tensor) -> Result<Terms> {
        let n = over_ranks(x.dim(0)?, x, inputs.world)?;
        let (sum, d) = self.divergence(&similarities(x, candidates)?, t, None)?;
        let d = (d / n)?;
        let mut of_x = x.zeros_like()?;
        let mut gradients = Vec::new();
        for (at, candidate) in candidates.iter().enumerate() {
            let d = d.narrow(1, at, 1)?;
            of_x = (of_x + candidate.detach().broadcast_mul(&d)?)?;
            gradients.push((*candidate, x.detach().broadcast_mul(&d)?));
        }
        gradients.push((x, of_x));
        inputs.terms(&attach(&inputs.world.sum(&(sum / n)?)?, &gradients)?, &[], Vec::new())
    }
}

/// The dot products (n, c) of the rows of `x` (n, d) with those of c candidates (n, d), without a graph.
fn similarities(x: &Tensor, candidates: &[&Tensor]) -> Result<Tensor> {
    let columns = candidates.iter().map(|c| Ok((x.detach() * c.detach())?.sum_keepdim(1)?)).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&columns, 1)?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::data::known::Known;
    use crate::model::embeddings::Embeddings;
    use crate::world::{Collective, Solo};

    fn views(student: &[&Tensor], teacher: &[&Tensor]) -> Embeddings {
        let all = student.iter().chain(teacher).map(|view| Some((*view).clone().into()));
        Embeddings::new(student.len(), all.collect())
    }

    fn loss(temperature: f64, student: &[&Tensor], teacher: &[&Tensor], world: &dyn Collective) -> Tensor {
        loss_known(&Kl { temperature }, &views(student, teacher), &Known::default(), world)
    }

    #[test]
    fn goldens_of_sines() {
        let [x, y, z, g, h] = [1, 2, 3, 4, 5].map(sines);
        let of = |tau: f64, x: &Tensor, y: &Tensor| loss(tau, &[x, y, &z], &[&g, &h, &z], &Solo);
        for (tau, value, of_x, of_y) in
            [(1.0, 0.1424779766, 0.2232795794, 0.1754789317), (2.0, 0.1522400264, 0.2429052286, 0.1984784337)]
        {
            let found = of(tau, &x, &y).to_scalar::<f64>().unwrap();
            assert!((found - value).abs() < 1e-9, "{tau}: {found}");
            assert!((length(&gradient(&x, |x| of(tau, x, &y))) - of_x).abs() < 1e-9);
            assert!((length(&gradient(&y, |y| of(tau, &x, y))) - of_y).abs() < 1e-9);
        }
    }

    #[test]
    fn the_gradient_is_the_difference_and_the_teacher_has_none() {
        let [x, y, z, w] = [1, 2, 3, 4].map(|seed| random(seed, 4, 3));
        let [g, h] = [5, 6].map(|seed| random(seed, 4, 5));
        for tau in [0.3, 2.0] {
            finite_difference(&x, |x| loss(tau, &[x], &[&g], &Solo));
            assert_eq!(length(&gradient(&g, |g| loss(tau, &[&x], &[g], &Solo))), 0.0);
            for at in 0..4 {
                let own = [&x, &y, &z, &w];
                finite_difference(own[at], |moved| {
                    let mut own = own;
                    own[at] = moved;
                    loss(tau, &own, &[&g, &h, &h, &g], &Solo)
                });
            }
        }
    }

    #[test]
    fn a_perfect_student_costs_nothing() {
        for student in [&[random(1, 5, 3)][..], &[random(1, 5, 3), random(2, 5, 3), random(3, 5, 3)]] {
            let student: Vec<&Tensor> = student.iter().collect();
            assert!(loss(0.5, &student, &student, &Solo).to_scalar::<f64>().unwrap().abs() < 1e-14);
        }
    }

    #[test]
    fn blocks_of_a_batch_add_up() {
        let (x, y) = ((random(1, 700, 3) * 0.5).unwrap(), random(2, 700, 4));
        let oracle = |x: &Tensor| {
            let log = |z: &Tensor| {
                let mask = (Tensor::eye(700, candle_core::DType::F64, z.device()).unwrap() * -1e9).unwrap();
                let s = (z.matmul(&z.t().unwrap()).unwrap() / 0.7).unwrap();
                candle_nn::ops::log_softmax(&(s + mask).unwrap(), 1).unwrap()
            };
            let (q, p) = (log(&y), log(x));
            ((q.exp().unwrap() * (q - p).unwrap()).unwrap().sum_all().unwrap() * (0.49 / 700.0)).unwrap()
        };
        let of = |x: &Tensor| loss(0.7, &[x], &[&y], &Solo);
        assert!(distance(&of(&x), &oracle(&x)) < 1e-12);
        assert!(distance(&gradient(&x, of), &gradient(&x, oracle)) < 1e-14);
    }

    #[test]
    fn two_ranks_are_one() {
        super::super::testing::two_ranks_are_one(1e-15, |x, y, world| loss(0.5, &[x], &[y], world));
        super::super::testing::two_ranks_are_one(1e-15, |x, y, world| loss(0.5, &[x, y, y], &[y, x, y], world));
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        let x = random(1, 3, 2);
        let said = |views: &Embeddings| terms_known(&Kl { temperature: 1.0 }, views, &Known::default(), &Solo).err().unwrap();
        assert!(said(&two(&x, &x)).to_string().contains("needs a teacher's embeddings"));
        assert!(said(&views(&[&x], &[&random(2, 4, 2)])).to_string().contains("[3] rows, the teacher's [4]"));
        assert!(said(&views(&[&x, &x], &[&x])).to_string().contains("the teacher's [3]"));
        assert!(said(&views(&[&x, &x], &[&x, &x])).to_string().contains("too few candidates"));
        for few in [1, 2] {
            let few = random(3, few, 2);
            assert!(said(&views(&[&few], &[&few])).to_string().contains("hint: "));
        }
    }
}
