//! NT-Xent, SimCLR's normalised temperature-scaled cross entropy (Chen et al. 2020a, equation 1 and algorithm 1).
//!
//! The 2N embeddings of N pairs are scaled to length 1 and stacked, left sides first, so that row i's positive is row p(i) = (i + N) mod
//! 2N. With s = z·zᵀ/T and M further negatives q from a memory,
//!
//! ```text
//! L = 1/2N Σᵢ (log(Σ_{j≠i} exp sᵢⱼ + Σₘ exp(zᵢ·qₘ/T)) − s_{i,p(i)})
//! ∂L/∂sᵢⱼ = (Pᵢⱼ − [j = p(i)]) / 2N          P the softmax of that row, without i itself
//! ∂L/∂z   = (D + Dᵀ)·z/T + Pᵐ·q/(2N·T)       D = ∂L/∂s
//! ```
//!
//! Over several ranks, every rank gathers all rows, computes the loss of the whole batch, and keeps the gradient of its own rows: parameter
//! gradients summed over ranks equal those of one rank with the whole batch. The row's maximum is subtracted before the logarithm: at T =
//! .01 the exponents reach 100, and exp overflows f32 at 89.

use candle_core::Tensor;
use ctk_cuda::{Contrast, Denominator, NO_LABEL};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::contrast::{contrast, numbered, paired, several, softmax, without};
use super::spec::{Checks, EmbeddingSpace, MOMENTUM, Needs, Spec};
use super::{Inputs, MatryoshkaRecipe, Objective, Queue, Terms, attach, normalise};
use crate::error::Result;
use crate::model::target::Momentum;
use crate::nn::params::Scope;
use crate::store::checkpoint::{Reader, Writer};

/// `[loss.nt-xent]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NtXentRecipe {
    /// Temperature by which similarities are divided. .5 for CIFAR, .1 for ImageNet.
    pub temperature: f64,
    /// The loss is multiplied by it. Google's code minimises 2 times the paper's mean, which matters with LARS.
    pub scale: f64,
    /// Keys of a momentum encoder that are kept as further negatives (SimCLRv2's memory; 65536 there). Default: none.
    pub memory: Option<usize>,
    /// Momentum of that encoder; default: .999.
    pub momentum: Option<f64>,
    /// Also at smaller widths; not together with `memory`.
    pub matryoshka: Option<MatryoshkaRecipe>,
}

impl Default for NtXentRecipe {
    fn default() -> Self {
        NtXentRecipe { temperature: 0.5, scale: 1.0, memory: None, momentum: None, matryoshka: None }
    }
}

impl Spec for NtXentRecipe {
    fn needs(&self) -> Needs {
        let momentum = self.memory.map(|_| Momentum::Constant(self.momentum.unwrap_or(MOMENTUM)));
        Needs { momentum, queue: self.memory, ..Needs::default() }
    }

    fn check(&self, checks: &Checks) -> Result<()> {
        checks.positive("temperature", self.temperature, "; SimCLR uses .1 to .5")?;
        checks.positive("scale", self.scale, "")?;
        checks.queue("memory", self.memory)?;
        checks.momentum("momentum", self.momentum.unwrap_or(MOMENTUM))?;
        let idle = self.momentum.is_some() && self.memory.is_none();
        checks.require(!idle, "momentum", "is of the memory's encoder, and there is no `memory`")?;
        let whole = self.matryoshka.is_none() || self.memory.is_none();
        checks.require(whole, "matryoshka", "cannot be with `memory`, whose keys have the whole width: remove one of them")
    }

    fn build(&self, space: &EmbeddingSpace, _: Scope) -> Result<Box<dyn Objective>> {
        let memory = self.memory.map(|keys| Queue::new(keys, space.width, space.dtype)).transpose()?;
        Ok(Box::new(NtXent { memory, ..NtXent::new(self) }))
    }

    fn matryoshka(&self) -> Option<&MatryoshkaRecipe> {
        self.matryoshka.as_ref()
    }
}

/// The loss of SimCLR; with a memory, that of SimCLRv2.
pub struct NtXent {
    /// The temperature T by which similarities are divided.
    pub temperature: f64,
    /// The paper's mean over 2N rows is multiplied by it; Google's code uses 2.
    pub scale: f64,
    /// Earlier keys of a momentum encoder as further negatives (Chen et al. 2020b, §2.1).
    pub memory: Option<Queue>,
}

impl NtXent {
    /// The loss without a memory.
    pub fn new(recipe: &NtXentRecipe) -> Self {
        NtXent { temperature: recipe.temperature, scale: recipe.scale, memory: None }
    }
}

impl Objective for NtXent {
    /// `extras` has the mean cosine of positives and of negatives (over rows of the batch; none if N = 1).
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let memory = self.memory.as_ref().map(Queue::keys).transpose()?.flatten();
        pairs(inputs, &Pairs { temperature: self.temperature, scale: self.scale, memory, decoupled: false })
    }

    fn after_step(&mut self, inputs: &Inputs) -> Result<()> {
        let Some(memory) = &mut self.memory else { return Ok(()) };
        let mut views = inputs.target()?.views();
        views.try_for_each(|(_, view)| memory.enqueue(&inputs.world.gather(&view.key.detach())?.rows))
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.save(writer))
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.memory.as_mut().map_or(Ok(()), |memory| memory.load(reader))
    }
}

/// How pairs are contrasted.
pub(super) struct Pairs {
    pub temperature: f64,
    pub scale: f64,
    /// Further negatives (M, d).
    pub memory: Option<Tensor>,
    /// Whether a positive is left out of its own denominator ([`Dcl`](super::Dcl)).
    pub decoupled: bool,
}

/// The loss of pairs.
pub(super) fn pairs(inputs: &Inputs, of: &Pairs) -> Result<Terms> {
    let (first, second) = inputs.online.pair()?;
    let own = paired(&first.query, &second.query)?.0;
    let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
    let lefts = inputs.world.gather(&left.detach())?;
    let rights = inputs.world.gather(&right.detach())?;
    let z = Tensor::cat(&[&lefts.rows, &rights.rows], 0)?;
    let (n, width) = lefts.rows.dims2()?;
    if of.decoupled {
        several(n)?;
    }
    let positive = |i: usize| (i + n) % (2 * n);

    let mean = of.scale / (2 * n) as f64;
    let labels = [numbered(0, n), numbered(0, n)].concat();
    let further = of.memory.as_ref().map_or(Ok(0), |memory| memory.dim(0)).map(|k| vec![NO_LABEL; k])?;
    let described = Contrast {
        labels: &labels,
        memory: &further,
        weights: &vec![1.0; 2 * n],
        width,
        temperature: of.temperature,
        sides: &[(0..2 * n, 0..2 * n)],
        denominator: if of.decoupled { Denominator::Negatives } else { Denominator::All },
    };
    let (sum, gradient) = contrast(inputs.device, &z, of.memory.as_ref(), &described, |first, s| {
        let (anchors, candidates) = s.dims2()?;
        let positives: Vec<u32> = (first..first + anchors).map(|i| positive(i) as u32).collect();
        let columns = numbered(0, candidates);
        let mut s_without = (s + without(s, &numbered(first, anchors), &columns)?)?;
        if of.decoupled {
            s_without = (s_without + without(s, &positives, &columns)?)?;
        }
        let (top, p) = softmax(&s_without)?;
        let positives = Tensor::from_vec(positives, (anchors, 1), s.device())?;
        let loss = (top - s.gather(&positives, 1)?)?.sum_all()?;
        p.scatter_add_set(&positives, &Tensor::ones((anchors, 1), s.dtype(), s.device())?.neg()?, 1)?;
        Ok((loss, p))
    })?;
    let gradient = (gradient * mean)?;
    let gradients = [(&left, lefts.own(&gradient, own)?), (&right, rights.own(&gradient.narrow(0, n, n)?, own)?)];
    inputs.terms(&attach(&(sum * mean)?, &gradients)?, &[], similarities(&lefts.rows, &rights.rows)?)
}

/// Mean similarities from sums of rows: Σ_{i,j} zᵢ·zⱼ = ‖Σᵢ zᵢ‖², minus the pairs that are not negatives.
fn similarities(lefts: &Tensor, rights: &Tensor) -> Result<Vec<(&'static str, Tensor)>> {
    let n = lefts.dim(0)? as f64;
    let positive = ((lefts * rights)?.sum_all()? / n)?;
    let mut found = vec![("positive_similarity", positive.clone())];
    if n > 1.0 {
        let all = (lefts.sum(0)? + rights.sum(0)?)?.sqr()?.sum_all()?;
        let own = (lefts.sqr()?.sum_all()? + rights.sqr()?.sum_all()?)?;
        let negative = (((all - own)? - (positive * (2.0 * n))?)? / (2.0 * n * (2.0 * n - 2.0)))?;
        found.push(("negative_similarity", negative));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, angles, both_differences, distance, finite_difference, gradient, random, ranks, two};
    use super::*;
    use crate::world::Solo;
    use candle_core::{DType, Device, Var};

    fn at(temperature: f64) -> NtXent {
        NtXent { temperature, scale: 1.0, memory: None }
    }

    fn loss(objective: &NtXent, left: &Tensor, right: &Tensor) -> Tensor {
        testing::loss_of(objective, left, right)
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn range(count: usize, shape: impl Into<candle_core::Shape>) -> Tensor {
        Tensor::from_vec((0..count).map(|v| v as f64).collect(), shape, &Device::Cpu).unwrap()
    }

    /// First golden test: `step(w, x, y) -> (loss, gradient)` computes one step of a linear layer in any way.
    fn linear(step: impl Fn(&Var, &Tensor, &Tensor) -> (f64, Tensor)) {
        let (x, y) = (range(80, (8, 2, 5)), range(32, (8, 4)));
        let w = Var::from_tensor(&((range(10, (2, 5)) + 1.0).unwrap() * 0.1).unwrap()).unwrap();
        assert!((step(&w, &x, &y).0 - 2.725138395).abs() < 1e-9);
        for _ in 0..10 {
            let moved = (w.as_tensor() - (step(&w, &x, &y).1 * 0.1).unwrap()).unwrap();
            w.set(&moved).unwrap();
        }
        assert!((step(&w, &x, &y).0 - 2.698422739).abs() < 1e-9);
        let expected =
            [[0.1674575, 0.2676049, 0.3677522, 0.4678996, 0.5680470], [0.5762509, 0.6741537, 0.7720565, 0.8699593, 0.9678621]];
        assert!(distance(&w, &Tensor::new(&expected, &Device::Cpu).unwrap()) < 6e-8);
    }

    fn encode(w: &Tensor, x: &Tensor) -> Tensor {
        let n = x.dim(0).unwrap();
        x.reshape((2 * n, 5)).unwrap().matmul(&w.t().unwrap()).unwrap().reshape((n, 4)).unwrap()
    }

    #[test]
    fn golden_linear_layer_on_one_rank() {
        linear(|w, x, y| {
            let loss = loss(&at(0.5), &encode(w, x), y);
            (number(&loss), loss.backward().unwrap().get(w).unwrap().clone())
        });
    }

    #[test]
    fn golden_linear_layer_on_two_ranks() {
        linear(|w, x, y| {
            let found = ranks(2, |world| {
                let own = |t: &Tensor| t.narrow(0, world.rank() * 4, 4).unwrap();
                // Every rank has parameters of its own, as processes have.
                let w = Var::from_tensor(w).unwrap();
                let loss = testing::loss(&at(0.5), &two(&encode(&w, &own(x)), &own(y)), None, None, world);
                let gradient = world.sum(loss.backward().unwrap().get(&w).unwrap()).unwrap();
                (number(&loss), gradient)
            });
            assert_eq!(found[0].0, found[1].0, "each rank reports the loss of all");
            assert_eq!(distance(&found[0].1, &found[1].1), 0.0);
            found.into_iter().next().unwrap()
        });
    }

    #[test]
    fn golden_linear_layer_part_by_part() {
        linear(|w, x, y| {
            let parts = [(0, 3), (3, 3), (6, 2)];
            let rows: Vec<Tensor> =
                parts.iter().map(|(f, c)| encode(&w.as_detached_tensor(), &x.narrow(0, *f, *c).unwrap())).collect();
            let z = Var::from_tensor(&Tensor::cat(&rows, 0).unwrap()).unwrap();
            let loss = loss(&at(0.5), &z, y);
            let dz = loss.backward().unwrap().get(&z).unwrap().detach();
            let pull = |(from, count): &(usize, usize)| {
                let again = encode(w, &x.narrow(0, *from, *count).unwrap());
                let dot = (again * dz.narrow(0, *from, *count).unwrap()).unwrap().sum_all().unwrap();
                dot.backward().unwrap().get(w).unwrap().clone()
            };
            let sum = parts.iter().map(pull).reduce(|a, b| (a + b).unwrap()).unwrap();
            (number(&loss), sum)
        });
    }

    #[test]
    fn golden_angles() {
        let (left, right) = (angles(&[0.0, 90.0, 200.0]), angles(&[10.0, 80.0, 230.0]));
        for (temperature, expected) in [(0.1, 0.0007572321), (0.5, 0.3148759254), (1.0, 0.7460582900)] {
            assert!((number(&loss(&at(temperature), &left, &right)) - expected).abs() < 5e-11);
            let doubled = NtXent { scale: 2.0, ..at(temperature) };
            assert!((number(&loss(&doubled, &left, &right)) - 2.0 * expected).abs() < 1e-10);
        }
        let two = angles(&[0.0, 90.0]);
        assert!((number(&loss(&at(0.5), &two, &two)) - 0.2395447662).abs() < 5e-11);
    }

    #[test]
    fn golden_equal_embeddings() {
        for n in [1usize, 2, 5] {
            for k in [0usize, 1, 6] {
                let mut memory = Queue::new(8, 3, DType::F64).unwrap();
                let rows = Tensor::ones((n.max(k), 3), DType::F64, &Device::Cpu).unwrap();
                memory.enqueue(&rows.narrow(0, 0, k).unwrap()).unwrap();
                let objective = NtXent { memory: Some(memory), ..at(0.1) };
                let rows = rows.narrow(0, 0, n).unwrap();
                let expected = ((2 * n - 1 + k) as f64).ln();
                assert!((number(&loss(&objective, &rows, &rows)) - expected).abs() < 1e-12, "n {n}, k {k}");
            }
        }
    }

    #[test]
    fn one_pair_has_nothing_to_tell_apart() {
        let right = random(2, 1, 4);
        assert_eq!(number(&loss(&at(0.1), &random(1, 1, 4), &right)), 0.0);
        let g = gradient(&random(1, 1, 4), |x| loss(&at(0.1), x, &right));
        assert_eq!(distance(&g, &g.zeros_like().unwrap()), 0.0);
    }

    #[test]
    fn the_gradient_is_the_difference() {
        for temperature in [0.05, 0.1, 0.5, 1.0] {
            let mut memory = Queue::new(9, 4, DType::F64).unwrap();
            memory.enqueue(&random(3, 7, 4)).unwrap();
            for objective in [at(temperature), NtXent { memory: Some(memory), scale: 2.0, ..at(temperature) }] {
                both_differences(&random(1, 5, 4), &random(2, 5, 4), |l, r| loss(&objective, l, r));
                finite_difference(&random(1, 5, 4), |x| loss(&objective, x, &x.sqr().unwrap()));
            }
        }
    }

    #[test]
    fn blocks_of_anchors_add_up() {
        // 700 pairs are three blocks; the oracle is the whole matrix at once, differentiated by candle.
        let (left, right) = (random(1, 700, 3), random(2, 700, 3));
        let oracle = |l: &Tensor, r: &Tensor| {
            let z = Tensor::cat(&[normalise(l).unwrap(), normalise(r).unwrap()], 0).unwrap();
            let own = (Tensor::eye(1400, DType::F64, &Device::Cpu).unwrap() * -1e9).unwrap();
            let s = ((z.matmul(&z.t().unwrap()).unwrap() / 0.3).unwrap() + own).unwrap();
            let p: Vec<u32> = (0..1400).map(|i| (i + 700) % 1400).collect();
            candle_nn::loss::cross_entropy(&s, &Tensor::new(p, &Device::Cpu).unwrap()).unwrap()
        };
        assert!((number(&loss(&at(0.3), &left, &right)) - number(&oracle(&left, &right))).abs() < 1e-12);
        let (ours, theirs) = (gradient(&left, |x| loss(&at(0.3), x, &right)), gradient(&left, |x| oracle(x, &right)));
        assert!(distance(&ours, &theirs) < 1e-14);
    }

    #[test]
    fn order_length_and_sides_do_not_matter() {
        for seed in 0..10 {
            let (left, right) = (random(seed, 6, 3), random(seed + 100, 6, 3));
            let value = number(&loss(&at(0.2), &left, &right));
            let close = |l: &Tensor, r: &Tensor| assert!((number(&loss(&at(0.2), l, r)) - value).abs() < 1e-12);
            close(&right, &left);
            let order = Tensor::new(&[3u32, 0, 5, 1, 4, 2], &Device::Cpu).unwrap();
            close(&left.index_select(&order, 0).unwrap(), &right.index_select(&order, 0).unwrap());
            let lengths = (random(seed + 200, 6, 1).abs().unwrap() + 0.1).unwrap();
            close(&left.broadcast_mul(&lengths).unwrap(), &right);
        }
    }

    #[test]
    fn sharp_temperatures_and_zero_rows_stay_finite_in_f32() {
        let rows = random(1, 6, 8).to_dtype(DType::F32).unwrap();
        let near = (&rows + 1e-5).unwrap();
        let zero =
            Tensor::cat(&[&rows.narrow(0, 0, 5).unwrap(), &rows.zeros_like().unwrap().narrow(0, 0, 1).unwrap()], 0).unwrap();
        for (left, right) in [(&rows, &near), (&rows, &rows), (&zero, &near), (&zero, &zero)] {
            let value = number(&loss(&at(0.01), left, right));
            assert!(value.is_finite() && value >= -1e-5, "{value}");
            let g = gradient(left, |x| loss(&at(0.01), x, right)).flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(g.iter().all(|g| g.is_finite()));
        }
    }

    #[test]
    fn extras_are_mean_similarities() {
        let (left, right) = (angles(&[0.0, 90.0, 200.0]), angles(&[10.0, 80.0, 230.0]));
        let terms = testing::terms(&at(0.5), &two(&left, &right), None, None, &Solo).unwrap();
        let z = Tensor::cat(&[left, right], 0).unwrap().to_vec2::<f64>().unwrap();
        let mut means = [(0.0, 0.0); 2];
        for (i, j) in (0..36).map(|at| (at / 6, at % 6)).filter(|(i, j)| i != j) {
            let mean = &mut means[usize::from((i + 3) % 6 != j)];
            *mean = (mean.0 + z[i][0] * z[j][0] + z[i][1] * z[j][1], mean.1 + 1.0);
        }
        for ((name, found), (sum, count)) in terms.extras.iter().zip(means) {
            assert!((number(found) - sum / count).abs() < 1e-12, "{name}");
        }
        assert_eq!(terms.extras.len(), 2);
    }

    #[test]
    fn the_memory_holds_both_views_of_all_ranks_and_needs_a_target() {
        let held = ranks(2, |world| {
            let mut objective = NtXent { memory: Some(Queue::new(9, 2, DType::F64).unwrap()), ..at(0.1) };
            let target = two(&random(world.rank() as u64, 2, 2), &random(9, 2, 2));
            testing::after_step(&mut objective, Some(&target), world).unwrap();
            objective.memory.unwrap().keys().unwrap().unwrap()
        });
        assert_eq!((held[0].dims(), distance(&held[0], &held[1])), (&[8, 2][..], 0.0));
        let mut objective = NtXent { memory: Some(Queue::new(9, 2, DType::F64).unwrap()), ..at(0.1) };
        assert!(testing::after_step(&mut objective, None, &Solo).is_err());
        assert!(testing::after_step(&mut at(0.1), None, &Solo).is_ok());
    }

    #[test]
    fn views_that_do_not_pair_are_errors() {
        let short = testing::terms(&at(0.1), &two(&random(1, 3, 2), &random(2, 2, 2)), None, None, &Solo);
        assert!(short.err().unwrap().what().contains("pairs"));
    }
}
