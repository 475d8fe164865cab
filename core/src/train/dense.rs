//! The autograd learner: towers, objective, backward, optimizer.

use crate::data::feed::Feed;
use crate::data::pair::Batch;
use crate::error::{Error, Result};
use crate::model::target::{Target, joined};
use crate::model::tower::{Side, Towers};
use crate::nn::params::{Gradients, Params};
use crate::nn::pass::{Groups, Pass, Precision, Statistics};
use crate::objective::{Objective, Terms};
use crate::optim::Optimizer;
use crate::store::checkpoint::{Reader, Writer};
use crate::train::learner::Learner;
use crate::world::{Collective, Solo};

use candle_core::{Tensor, Var};

/// Where the encoder's tensors go, alone and under their public names.
pub const MODEL: &str = "model.safetensors";
/// Where the projection head's go.
pub const HEAD: &str = "head.safetensors";
/// Where the optimizer's state goes.
pub const TRAINER: &str = "trainer.safetensors";

/// What a step has just done: see [`Dense::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its batch, or the next part of it, is here.
    Batch,
    /// Embeddings of what is here.
    Forward,
    /// The loss and its gradient with respect to the embeddings.
    Loss,
    /// Gradients of the parameters.
    Backward,
    /// The parameters have moved.
    Optimizer,
}

/// What a step computed: the loss, the gradients, and the target's embeddings where there is a target.
type Done = (Terms, Gradients, Option<(Side, Side)>);

/// A model that learns by backpropagation. Parameters below `encoder.` are the model, those below `head.` (a predictor's, too) the
/// rest.
pub struct Dense<T, O> {
    /// Views to embeddings.
    pub towers: T,
    /// Their momentum copy, for losses that compare with one.
    pub target: Option<Target<T>>,
    /// The loss.
    pub objective: O,
    /// Every parameter of `towers`.
    pub params: Params,
    /// Moves them.
    pub optimizer: Optimizer,
    /// What a step's feature maps are kept and multiplied in.
    pub precision: Precision,
    /// Whether residual blocks run once more on the way back, and keep less meanwhile: see [`Pass::recompute`].
    pub recompute: bool,
    /// Which rows of a step share batch statistics.
    pub groups: Groups,
    /// What normalisation does in a step.
    pub statistics: Statistics,
    /// The other ranks.
    pub world: Box<dyn Collective>,
}

impl<T: Towers, O: Objective> Dense<T, O> {
    /// A learner alone in the world, in f32, without a target, whose rows all share their batch statistics.
    pub fn new(towers: T, objective: O, params: Params, optimizer: Optimizer) -> Self {
        Dense {
            towers,
            target: None,
            objective,
            params,
            optimizer,
            precision: Precision::F32,
            recompute: false,
            groups: Groups::Together,
            statistics: Statistics::Update,
            world: Box::new(Solo),
        }
    }

    /// A step (see [`Learner::step`]) that tells `done` of each stage as it ends; a batch in parts goes through some of them
    /// once a part.
    ///
    /// # Errors
    /// Whatever drawing the batch or computing met.
    pub fn stages(&mut self, feed: &Feed<Batch<T::Left, T::Right>>, rate: f64, done: &mut dyn FnMut(Stage)) -> Result<Terms> {
        let pass = Pass { groups: self.groups, recompute: self.recompute, ..Pass::train(feed.key(), &*self.world) };
        let pass = pass.at(self.precision).with(self.statistics).of(self.objective.sides().0);
        let (terms, mut gradients, target) = match feed.parts() {
            1 => self.whole(feed, &pass, done)?,
            _ => self.in_parts(feed, &pass, done)?,
        };
        if self.world.world() > 1 {
            for gradient in gradients.iter_mut().flatten() {
                *gradient = self.world.sum(gradient)?;
            }
        }
        self.optimizer.step(&self.params, &gradients, rate)?;
        self.objective.settle(target.as_ref(), &pass)?;
        self.target.as_ref().map_or(Ok(()), |target| target.follow(&self.params, feed.share()))?;
        done(Stage::Optimizer);
        Ok(terms)
    }

    fn whole(&self, feed: &Feed<Batch<T::Left, T::Right>>, pass: &Pass, done: &mut dyn FnMut(Stage)) -> Result<Done> {
        let batch = feed.part(0)?;
        done(Stage::Batch);
        let target = self.keys(&batch, pass)?;
        let sides = self.towers.project(&batch, pass)?;
        done(Stage::Forward);
        let terms = self.objective.loss(&sides, target.as_ref(), batch.labels.as_deref(), pass)?;
        done(Stage::Loss);
        let gradients = self.params.gradients(&terms.loss.backward()?)?;
        done(Stage::Backward);
        Ok((terms, gradients, target))
    }

    /// The target's embeddings of a batch, where there is one.
    fn keys(&self, batch: &Batch<T::Left, T::Right>, pass: &Pass) -> Result<Option<(Side, Side)>> {
        self.target.as_ref().map(|target| target.project(batch, self.objective.sides().1, pass)).transpose()
    }

    /// Gradient caching (Gao et al. 2021): embeddings of all parts first, without a graph; the loss and its gradient with
    /// respect to them; then each part again, with a graph, pulled by that gradient. The sum over parts is the gradient of
    /// the whole batch, except that batch normalisation sees one part at a time. Running statistics move in the second
    /// pass only; those of the target, which has no second one, in the first.
    fn in_parts(&self, feed: &Feed<Batch<T::Left, T::Right>>, pass: &Pass, done: &mut dyn FnMut(Stage)) -> Result<Done> {
        let look = Pass { train: false, ..pass.with(pass.statistics.held()) };
        let (mut lefts, mut rights, mut labels, mut sizes) = (Vec::new(), Vec::new(), Some(Vec::new()), Vec::new());
        let mut target = Vec::new();
        for part in 0..feed.parts() {
            let batch = feed.part(part)?;
            done(Stage::Batch);
            if batch.samples.is_empty() {
                break;
            }
            target.extend(self.keys(&batch, pass)?);
            let (left, right) = self.towers.project(&batch, &look)?;
            done(Stage::Forward);
            sizes.push(batch.samples.len());
            lefts.push(left);
            rights.push(right);
            labels = labels.zip(batch.labels).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        let (left, right) = (Cached::new(&lefts)?, Cached::new(&rights)?);
        let target = joined(&target)?;
        let terms = self.objective.loss(&(left.side(), right.side()), target.as_ref(), labels.as_deref(), pass)?;
        let store = terms.loss.backward()?;
        done(Stage::Loss);
        let mut sum: Gradients = Vec::new();
        let mut from = 0;
        for (part, &size) in sizes.iter().enumerate() {
            let batch = feed.part(part)?;
            done(Stage::Batch);
            let (l, r) = self.towers.project(&batch, pass)?;
            done(Stage::Forward);
            let mut pull = Vec::new();
            for (side, cached) in [(&l, &left), (&r, &right)] {
                pull.extend(dot(&side.query, store.get(&cached.query), from, size)?);
                pull.extend(dot(&side.key, store.get(&cached.key), from, size)?);
            }
            let total = pull.into_iter().try_fold(None, |sum: Option<Tensor>, t| -> Result<_> {
                Ok(Some(match sum {
                    Some(s) => (s + t)?,
                    None => t,
                }))
            })?;
            let total = total.ok_or_else(|| Error::new("the loss does not depend on the embeddings"))?;
            add(&mut sum, self.params.gradients(&total.backward()?)?)?;
            done(Stage::Backward);
            from += size;
        }
        Ok((terms, sum, target))
    }
}

impl<T: Towers, O: Objective> Learner for Dense<T, O> {
    type Batch = Batch<T::Left, T::Right>;

    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms> {
        self.stages(feed, rate, &mut |_| ())
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        writer.tensors(MODEL, &self.params.section("encoder"))?;
        writer.tensors(HEAD, &self.params.section("head"))?;
        writer.tensors(TRAINER, &self.optimizer.state())?;
        self.target.as_ref().map_or(Ok(()), |target| target.save(writer))?;
        self.objective.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.params.load_section("encoder", &reader.tensors(MODEL)?)?;
        self.params.load_section("head", &reader.tensors(HEAD)?)?;
        self.optimizer.restore(&self.params, &reader.tensors(TRAINER)?)?;
        self.target.as_ref().map_or(Ok(()), |target| target.load(reader))?;
        self.objective.load(reader)
    }
}

/// One side's embeddings of all parts, as leaves of a new graph.
struct Cached {
    query: Var,
    key: Var,
}

impl Cached {
    fn new(parts: &[Side]) -> Result<Self> {
        let leaf = |of: fn(&Side) -> &Tensor| -> Result<Var> {
            let rows: Vec<Tensor> = parts.iter().map(|s| of(s).detach()).collect();
            Ok(Var::from_tensor(&Tensor::cat(&rows, 0)?)?)
        };
        Ok(Cached { query: leaf(|s| &s.query)?, key: leaf(|s| &s.key)? })
    }

    fn side(&self) -> Side {
        Side { query: self.query.as_tensor().clone(), key: self.key.as_tensor().clone() }
    }
}

/// Σ rows · gradient over the part's rows, whose gradient with respect to `rows` is `gradient`.
fn dot(rows: &Tensor, gradient: Option<&Tensor>, from: usize, size: usize) -> Result<Option<Tensor>> {
    let Some(gradient) = gradient else { return Ok(None) };
    Ok(Some((rows * gradient.narrow(0, from, size)?.detach())?.sum_all()?))
}

fn add(sum: &mut Gradients, more: Gradients) -> Result<()> {
    if sum.is_empty() {
        *sum = more;
        return Ok(());
    }
    for (s, m) in sum.iter_mut().zip(more) {
        *s = match (s.take(), m) {
            (Some(a), Some(b)) => Some((a + b)?),
            (a, b) => a.or(b),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::{DType, Device};

    use super::*;
    use crate::data::pair::Views;
    use crate::model::encoder::Encoder;
    use crate::model::head::ProjectionHead;
    use crate::model::tower::{Dual, Tower};
    use crate::nn::params::{Init, Kind, Param};
    use crate::objective::NtXent;
    use crate::recipe::{HeadRecipe, OptimizerRecipe, SgdRecipe};
    use crate::rng::Key;

    /// Rows of `2 × 5` (left) or 4 (right) numbers.
    #[derive(Clone, Default)]
    struct Rows(Vec<f64>);

    impl Views for Rows {
        type On = Tensor;

        fn upload(parts: &[&Self], device: &Device) -> Result<Tensor> {
            let all: Vec<f64> = parts.iter().flat_map(|p| p.0.iter().copied()).collect();
            Ok(Tensor::from_vec(all.clone(), all.len(), device)?)
        }
    }

    /// W applied to each of a row's two vectors of five.
    struct Twice(Arc<Param>);

    impl Encoder for Twice {
        type Views = Rows;

        fn width(&self) -> usize {
            4
        }

        fn encode(&self, x: &Tensor, _: &Pass) -> Result<Tensor> {
            Ok(x.reshape(((), 5))?.matmul(&self.0.var().t()?)?.reshape(((), 4))?)
        }
    }

    struct Same;

    impl Encoder for Same {
        type Views = Rows;

        fn width(&self) -> usize {
            4
        }

        fn encode(&self, x: &Tensor, _: &Pass) -> Result<Tensor> {
            Ok(x.reshape(((), 4))?)
        }
    }

    fn part(samples: std::ops::Range<usize>) -> Batch<Rows, Rows> {
        Batch {
            left: Rows((samples.start * 10..samples.end * 10).map(|v| v as f64).collect()),
            right: Rows((samples.start * 4..samples.end * 4).map(|v| v as f64).collect()),
            samples: samples.map(|s| s as u32).collect(),
            labels: None,
        }
    }

    /// NT-Xent through a linear layer.
    fn learner() -> Dense<Dual<Twice, Same>, NtXent> {
        let mut params = Params::new();
        let w = params.root().sub("encoder").param("weight", (2, 5), Kind::Weight, Init::Constant(0.0));
        params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
        let start: Vec<f64> = (1..=10).map(|v| f64::from(v) / 10.0).collect();
        w.var().set(&Tensor::from_vec(start, (2, 5), &Device::Cpu).unwrap()).unwrap();
        let none = HeadRecipe { layers: 0, width: 4, ..HeadRecipe::default() };
        let left = Tower {
            encoder: Twice(w.clone()),
            head: ProjectionHead::new(&none, 4, params.root().sub("head.l")),
            predictor: None,
        };
        let right = Tower { encoder: Same, head: ProjectionHead::new(&none, 4, params.root().sub("head.r")), predictor: None };
        let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() });
        let towers = Dual { left, right, device: Device::Cpu };
        Dense::new(towers, NtXent { temperature: 0.5, scale: 1.0, memory: None }, params, Optimizer::new(&sgd))
    }

    /// Ten steps; the losses before and after, and W.
    fn ten_steps(parts: &[std::ops::Range<usize>]) -> (f64, f64, Vec<f64>) {
        let mut dense = learner();
        let draw = |p: usize| Ok(part(parts[p].clone()));
        let feed = Feed::new(parts.len(), Key::new(0), &draw);
        let step = |dense: &mut Dense<_, _>| dense.step(&feed, 0.1).unwrap().loss.to_scalar::<f64>().unwrap();
        let before = step(&mut dense);
        (1..10).for_each(|_| {
            step(&mut dense);
        });
        let weights = dense.towers.left.encoder.0.var().flatten_all().unwrap().to_vec1().unwrap();
        (before, step(&mut dense), weights)
    }

    #[test]
    fn stages_are_told_in_order_whole_and_in_parts() {
        use Stage::{Backward, Batch, Forward, Loss, Optimizer};
        let part_of_step = |parts: usize| {
            let draw = |p: usize| Ok(part(p * 4..p * 4 + 4));
            let mut told = Vec::new();
            learner().stages(&Feed::new(parts, Key::new(0), &draw), 0.1, &mut |stage| told.push(stage)).unwrap();
            told
        };
        assert_eq!(part_of_step(1), [Batch, Forward, Loss, Backward, Optimizer]);
        let again = [Batch, Forward, Backward];
        let cached = [&[Batch, Forward, Batch, Forward, Loss][..], &again, &again, &[Optimizer]].concat();
        assert_eq!(part_of_step(2), cached);
    }

    #[test]
    fn ten_steps_reach_the_golden_loss_whole_and_in_parts() {
        for size in [8, 3, 1] {
            let parts: Vec<_> = (0..8).step_by(size).map(|i| i..(i + size).min(8)).collect();
            let (before, after, weights) = ten_steps(&parts);
            assert!((before - 2.725138395).abs() < 1e-8, "{before}");
            assert!((after - 2.698422739).abs() < 1e-8, "{} parts: {after}", parts.len());
            let golden =
                [0.1674575, 0.2676049, 0.3677522, 0.4678996, 0.5680470, 0.5762509, 0.6741537, 0.7720565, 0.8699593, 0.9678621];
            assert!(weights.iter().zip(golden).all(|(w, g)| (w - g).abs() < 1e-6), "{weights:?}");
        }
    }
}
