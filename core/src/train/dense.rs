//! The learner of all methods that train by backpropagation: embeddings, loss, gradients, optimizer.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use crate::data::feed::Feed;
use crate::data::known::Known;
use crate::data::pair::Batch;
use crate::error::{Error, Result};
use crate::model::embeddings::Embeddings;
use crate::model::target::Target;
use crate::model::tower::{EmbeddingsTape, Places, Towers};
use crate::nn::params::{Gradients, Param, Params};
use crate::nn::pass::{Groups, Pass, Precision, Statistics};
use crate::objective::{Inputs, Objective, Terms};
use crate::optim::{Optimizer, clip};
use crate::store::checkpoint::{Reader, Writer};
use crate::train::learner::Learner;
use crate::train::log::diverged;
use crate::world::{Collective, solo};

/// The file of the optimizer's state in a checkpoint.
pub const TRAINER: &str = "trainer.safetensors";

/// A stage of a step that has just ended: see [`Dense::stages`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The batch, or its next part, was drawn.
    Batch,
    /// Its embeddings were computed.
    Forward,
    /// The loss and its gradient with respect to the embeddings were computed.
    Loss,
    /// The gradients of the parameters were computed.
    Backward,
    /// The parameters were updated.
    Optimizer,
}

/// The batch of a learner.
type BatchOf<T> = Batch<<T as Towers>::Left, <T as Towers>::Right>;

/// A model trained by backpropagation. Parameters that begin with `encoder.` are the encoder's, those with `head.` the projection head's
/// and predictor's, those with `loss.` the loss's own.
pub struct Dense<T> {
    /// Encoder and heads, from views to embeddings.
    pub towers: T,
    /// Their momentum copy, for losses that compare with one.
    pub target: Option<Target<T>>,
    /// The loss.
    pub objective: Box<dyn Objective>,
    /// Every parameter of `towers` and of `objective`.
    pub params: Params,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The type in which a step's feature maps are stored and multiplied.
    pub precision: Precision,
    /// Whether residual blocks are recomputed in the backward pass to save memory: see [`Pass::recompute`].
    pub recompute: bool,
    /// Which rows of a step share batch statistics.
    pub groups: Groups,
    /// How batch normalisation uses statistics in a step.
    pub statistics: Statistics,
    /// Whether a step whose loss or gradient is not finite is skipped, so that the learner stays unchanged.
    pub leaves_out: bool,
    /// The largest norm of all gradients together; larger ones are scaled down to it.
    pub clip: Option<f64>,
    /// The other ranks.
    pub world: Arc<dyn Collective>,
}

/// The results of the first pass over a step's batch.
struct Seen {
    online: Embeddings,
    target: Option<Embeddings>,
    known: Known,
    /// The places of each part's samples.
    parts: Vec<Places>,
    /// The tape, if the batch is one part.
    tape: Option<EmbeddingsTape>,
}

impl<T: Towers> Dense<T> {
    /// A learner on a single rank, in f32, without a momentum copy, in which all rows share batch statistics.
    pub fn new(towers: T, objective: Box<dyn Objective>, params: Params, optimizer: Optimizer) -> Self {
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
            leaves_out: false,
            clip: None,
            world: solo(),
        }
    }

    /// A step (see [`Learner::step`]) that calls `done` as each stage ends; for a batch in parts some stages occur once for each part.
    ///
    /// # Errors
    /// The batch cannot be drawn, or a computation failed; with [`clip`](Dense::clip) a gradient is not finite.
    pub fn stages(&mut self, feed: &Feed<BatchOf<T>>, rate: f64, done: &mut dyn FnMut(Stage)) -> Result<Terms> {
        let pass = Pass { groups: self.groups, recompute: self.recompute, ..Pass::train(feed.key(), &self.world) };
        let pass = pass.at(self.precision).with(self.statistics);
        // Running statistics change in the forward pass, so they are kept in case the step is skipped.
        let buffers = if self.leaves_out { self.buffers()? } else { Vec::new() };
        let mut seen = self.look(feed, &pass, done)?;
        let tape = seen.tape.take();
        let leaves = seen.online.leaves()?;
        let (world, device) = (self.world.clone(), self.params.device());
        let inputs = Inputs {
            online: &leaves,
            target: seen.target.as_ref(),
            known: &seen.known,
            progress: feed.progress(),
            device: &device,
            world: &*world,
        };
        let mut terms = self.objective.loss(&inputs)?;
        if self.objective.compares() {
            terms.embeddings = leaves.view(0).ok().map(|first| first.query.detach());
        }
        done(Stage::Loss);
        let mut gradients = self.back(feed, &terms, tape, &seen.parts, &pass, done)?;
        if self.world.world() > 1 {
            for gradient in &mut gradients {
                *gradient = gradient.take().map(|own| own.over(&*self.world)).transpose()?;
            }
        }
        // Every rank has these for the whole batch, so they are not summed over ranks.
        for (param, gradient) in &terms.parameters {
            let at = self.params.iter().position(|p| p.name() == param.name());
            let at = at.ok_or_else(|| Error::new("the loss has a parameter that the learner does not have").at(param.name()))?;
            gradients[at] = Some(gradient.clone().into());
        }
        let mut scale = 1.0;
        if self.leaves_out || self.clip.is_some() {
            let norm = clip::norm(&self.params, &mut gradients)?;
            if self.leaves_out && !(norm.is_finite() && finite(&terms.loss)?) {
                buffers.iter().try_for_each(|(param, before)| param.array().set(before))?;
                return Ok(Terms { left_out: true, ..terms });
            }
            if let Some(most) = self.clip {
                if !norm.is_finite() {
                    return Err(diverged("the gradient is no longer a finite number".to_string()));
                }
                scale = clip::factor(norm, most);
                terms.extras.push(("gradient_norm", Tensor::new(norm, &candle_core::Device::Cpu)?));
            }
        }
        self.optimizer.step_scaled(&self.params, &gradients, rate, scale)?;
        self.objective.after_step(&inputs)?;
        self.target.as_ref().map_or(Ok(()), |target| target.follow(&self.params, feed.progress()))?;
        done(Stage::Optimizer);
        Ok(terms)
    }

    /// A copy of the running statistics, the momentum copy's included.
    fn buffers(&self) -> Result<Vec<(Arc<Param>, Tensor)>> {
        let own = self.params.iter().chain(self.target.iter().flat_map(|target| target.params().iter()));
        own.filter(|p| !p.kind().trained()).map(|p| Ok((p.clone(), p.array().tensor()?.copy()?))).collect()
    }

    /// The embeddings of all parts of a batch. A batch of one part keeps its tape. A batch of several parts keeps none (gradient caching,
    /// Gao et al. 2021): each part goes through the towers again in the [backward pass](Dense::back). Running statistics are updated only
    /// in that second pass; those of the momentum copy, which has no second pass, are updated here.
    fn look(&self, feed: &Feed<BatchOf<T>>, pass: &Pass, done: &mut dyn FnMut(Stage)) -> Result<Seen> {
        let (reads, whole) = (self.objective.reads(), feed.parts() == 1);
        let look = if whole { pass.clone() } else { pass.clone().with(pass.statistics.held()).without_tape() };
        let (mut online, mut target, mut known, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::<Places>::new());
        let mut tape = None;
        for part in 0..feed.parts() {
            let batch = feed.part(part)?;
            done(Stage::Batch);
            if batch.samples.is_empty() {
                break;
            }
            let first = places.last().map_or(feed.places().start, |before| before.own.end);
            let own = first..first + batch.samples.len();
            // A part has batch statistics of its own; a whole batch is divided into groups as the batch of all ranks is.
            let at = Places { extent: if whole { 0..feed.count().max(own.end) } else { own.clone() }, own };
            if let Some(copy) = &self.target {
                target.push(copy.project(&batch, reads.target, &at, pass)?);
            }
            let (embeddings, back) = self.towers.project(&batch, reads.online, &at, &look)?;
            done(Stage::Forward);
            online.push(embeddings);
            tape = whole.then_some(back);
            places.push(at);
            known.push(batch.known);
        }
        let target = if target.is_empty() { None } else { Some(Embeddings::joined(&target)?) };
        Ok(Seen { online: Embeddings::joined(&online)?, target, known: Known::joined(known), parts: places, tape })
    }

    /// The gradients of the parameters from those of the embeddings: by the tape of the whole batch, or part by part. The sum over parts is
    /// the gradient of the whole batch, except that batch normalisation sees one part at a time.
    fn back(
        &self,
        feed: &Feed<BatchOf<T>>,
        terms: &Terms,
        tape: Option<EmbeddingsTape>,
        parts: &[Places],
        pass: &Pass,
        done: &mut dyn FnMut(Stage),
    ) -> Result<Gradients> {
        if let Some(tape) = tape {
            tape.play(&terms.gradients)?;
            let gradients = self.params.gradients()?;
            done(Stage::Backward);
            return Ok(gradients);
        }
        let reads = self.objective.reads().online;
        let mut sum: Gradients = Vec::new();
        let mut from = 0;
        for (part, at) in parts.iter().enumerate() {
            let batch = feed.again(part)?;
            done(Stage::Batch);
            let (_, tape) = self.towers.project(&batch, reads, at, pass)?;
            done(Stage::Forward);
            let own = terms.gradients.iter().map(|gradient| gradient.narrow(from, at.own.len())).collect::<Result<Vec<_>>>()?;
            tape.play(&own)?;
            add(&mut sum, self.params.gradients()?)?;
            done(Stage::Backward);
            from += at.own.len();
        }
        Ok(sum)
    }
}

impl<T: Towers> Learner for Dense<T> {
    type Batch = BatchOf<T>;

    fn join(&mut self, world: &Arc<dyn Collective>) {
        self.world = world.clone();
    }

    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms> {
        self.stages(feed, rate, &mut |_| ())
    }

    fn passes(&self) -> usize {
        2
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.params.save(writer)?;
        writer.tensors(TRAINER, &self.optimizer.state(&self.params)?)?;
        self.target.as_ref().map_or(Ok(()), |target| target.save(writer))?;
        self.objective.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.params.load(reader)?;
        self.optimizer.restore(&self.params, &reader.tensors(TRAINER)?)?;
        self.target.as_ref().map_or(Ok(()), |target| target.load(reader))?;
        self.objective.load(reader)
    }
}

/// Whether a loss is finite.
fn finite(loss: &Tensor) -> Result<bool> {
    Ok(loss.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?.iter().all(|loss| loss.is_finite()))
}

fn add(sum: &mut Gradients, more: Gradients) -> Result<()> {
    if sum.is_empty() {
        *sum = more;
        return Ok(());
    }
    for (s, m) in sum.iter_mut().zip(more) {
        *s = match (s.take(), m) {
            (Some(a), Some(b)) => Some(a.plus(b)?),
            (a, b) => a.or(b),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::data::pair::HostBatch;
    use crate::model::encoder::Encoder;
    use crate::model::head::ProjectionHead;
    use crate::model::tower::{Dual, Tower};
    use crate::nn;
    use crate::nn::gradient::GradientStore;
    use crate::nn::params::{Init, Param, ParamKind};
    use crate::nn::tape::Tape;
    use crate::objective::NtXent;
    use crate::recipe::{HeadRecipe, OptimizerRecipe, SgdRecipe};
    use crate::rng::Key;

    /// Rows of `2 × 5` (left) or 4 (right) numbers.
    #[derive(Clone, Default)]
    struct Rows(Vec<f64>);

    impl HostBatch for Rows {
        type Stacked = Tensor;

        fn stack(parts: &[&Self]) -> Result<Tensor> {
            let all: Vec<f64> = parts.iter().flat_map(|p| p.0.iter().copied()).collect();
            Ok(Tensor::from_vec(all.clone(), all.len(), &candle_core::Device::Cpu)?)
        }
    }

    /// W applied to each of a row's two vectors of five, in candle's operations.
    struct Twice {
        weight: Arc<Param>,
        store: GradientStore,
    }

    impl Encoder for Twice {
        type Views = Rows;

        fn width(&self) -> usize {
            4
        }

        fn encode(&self, x: &Tensor, _: &nn::rows::Rows, _: &Pass) -> Result<(Tensor, Tape)> {
            let y = x.reshape(((), 5))?.matmul(&self.weight.var().t()?)?.reshape(((), 4))?;
            Ok((y.detach(), Tape::of_graph(y, None, vec![self.weight.clone()], self.store.clone())))
        }
    }

    struct Same;

    impl Encoder for Same {
        type Views = Rows;

        fn width(&self) -> usize {
            4
        }

        fn encode(&self, x: &Tensor, _: &nn::rows::Rows, _: &Pass) -> Result<(Tensor, Tape)> {
            Ok((x.reshape(((), 4))?, Tape::new(|_, _| Ok(None))))
        }
    }

    fn part(samples: std::ops::Range<usize>) -> Batch<Rows, Rows> {
        Batch {
            left: vec![Rows((samples.start * 10..samples.end * 10).map(|v| v as f64).collect())],
            right: vec![Rows((samples.start * 4..samples.end * 4).map(|v| v as f64).collect())],
            samples: samples.map(|s| s as u32).collect(),
            known: Known::default(),
        }
    }

    /// NT-Xent through a linear layer.
    fn learner() -> Dense<Dual<Twice, Same>> {
        let mut params = Params::new();
        let w = params.root().sub("encoder").param("weight", (2, 5), ParamKind::Weight, Init::Constant(0.0));
        params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
        let start: Vec<f64> = (1..=10).map(|v| f64::from(v) / 10.0).collect();
        w.var().set(&Tensor::from_vec(start, (2, 5), &Device::Cpu).unwrap()).unwrap();
        let none = HeadRecipe { layers: 0, width: 4, ..HeadRecipe::default() };
        let left = Tower {
            encoder: Twice { weight: w.clone(), store: params.gradient_store() },
            head: ProjectionHead::new(&none, 4, params.root().sub("head.l")),
            predictor: None,
        };
        let right = Tower { encoder: Same, head: ProjectionHead::new(&none, 4, params.root().sub("head.r")), predictor: None };
        let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() });
        let towers = Dual { left, right };
        Dense::new(towers, Box::new(NtXent { temperature: 0.5, scale: 1.0, memory: None }), params, Optimizer::new(&sgd))
    }

    /// Ten steps; the losses before and after, and W.
    fn ten_steps(parts: &[std::ops::Range<usize>]) -> (f64, f64, Vec<f64>) {
        let mut dense = learner();
        let draw = |p: usize| Ok(part(parts[p].clone()));
        let feed = Feed::new(parts.len(), 8, Key::new(0), &draw);
        let step = |dense: &mut Dense<_>| dense.step(&feed, 0.1).unwrap().loss.to_scalar::<f64>().unwrap();
        let before = step(&mut dense);
        (1..10).for_each(|_| {
            step(&mut dense);
        });
        let weights = dense.towers.left.encoder.weight.var().flatten_all().unwrap().to_vec1().unwrap();
        (before, step(&mut dense), weights)
    }

    #[test]
    fn stages_are_told_in_order_whole_and_in_parts() {
        use Stage::{Backward, Batch, Forward, Loss, Optimizer};
        let part_of_step = |parts: usize| {
            let draw = |p: usize| Ok(part(p * 4..p * 4 + 4));
            let mut told = Vec::new();
            learner().stages(&Feed::new(parts, 4 * parts, Key::new(0), &draw), 0.1, &mut |stage| told.push(stage)).unwrap();
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
