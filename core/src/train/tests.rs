//! Tests of [`Dense`], the learner, in the training loop.
//!
//! The tests here use a small network, views of two sizes (multi-crop) and a loss with a learned scale. They check that a step gives the
//! same result whole, in parts, and on several ranks whose shares of the batch differ; that gradients equal finite differences; that dropout
//! depends on none of these divisions; and that a loss's parameters are saved and loaded.
//!
//! [`best`] tests the best checkpoint, [`clip`] the clipping of gradients, [`cuda`] the CUDA device as it is emulated, [`saves`] saving, resuming, and runs that diverge or collapse.

mod best;
mod clip;
mod cuda;
mod saves;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rand::Rng as _;

use super::dense::Dense;
use super::fit::fit;
use super::learner::Learner as _;
use super::plan::Plan;
use crate::data::dataset::Dataset;
use crate::data::feed::{Feed, Order};
use crate::data::pair::{Batch, HostBatch, PairGenerator};
use crate::data::source::{Paired, Source as _};
use crate::error::Result;
use crate::model::embeddings::ViewSet;
use crate::model::encoder::Encoder;
use crate::model::head::ProjectionHead;
use crate::model::tower::{Places, Siamese, Tower, Towers as _};
use crate::nn::params::{Init, Param, ParamKind, Params};
use crate::nn::pass::{Groups, Pass};
use crate::nn::rows::Rows;
use crate::nn::tape::Tape;
use crate::nn::{BatchNorm, Conv2d, Dropout, Layer, Linear, Sequential};
use crate::objective::testing::{distance, ranks_of_process};
use crate::objective::{Inputs, Objective, Terms, attach, normalise};
use crate::optim::{Optimizer, Schedule};
use crate::process::Process;
use crate::recipe::{HeadRecipe, OptimizerRecipe, Recipe, ScheduleRecipe, SgdRecipe, TrainRecipe};
use crate::rng::{Key, Rng};
use crate::store::checkpoint::{Checkpoint, Manifest};
use crate::store::run::{Place, Run};
use crate::world::{Collective, solo};

/// Gray pictures of one size.
#[derive(Clone, Default)]
struct Pictures {
    size: usize,
    values: Vec<f64>,
}

impl HostBatch for Pictures {
    type Stacked = Tensor;

    fn size(&self) -> usize {
        self.size
    }

    fn stack(views: &[&Self]) -> Result<Tensor> {
        let (size, values) = (views[0].size, views.iter().flat_map(|view| view.values.clone()).collect::<Vec<_>>());
        let rows = values.len() / (size * size);
        Ok(Tensor::from_vec(values, (rows, size, size, 1), &Device::Cpu)?)
    }
}

/// Sine waves; each sample has a direction of its own.
struct Waves(usize);

impl Dataset for Waves {
    type Sample = f64;

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize) -> Result<f64> {
        Ok(std::f64::consts::PI * index as f64 / self.0 as f64)
    }

    fn name(&self, index: usize) -> String {
        format!("wave {index}")
    }
}

/// Crops of a wave, as (count, size).
struct Crops(Vec<(usize, usize)>);

impl PairGenerator for Crops {
    type Sample = f64;
    type Left = Pictures;
    type Right = ();

    fn views(&self) -> [usize; 2] {
        [self.0.iter().map(|(count, _)| count).sum(), 0]
    }

    fn pairs(&self, direction: &f64, rng: &mut Rng, left: &mut [Pictures], _: &mut [()]) -> Result<()> {
        let sizes = self.0.iter().flat_map(|&(count, size)| std::iter::repeat_n(size, count));
        for (view, size) in left.iter_mut().zip(sizes) {
            view.size = size;
            let phase: f64 = rng.random_range(0.0..6.3);
            let at = |i: usize| {
                let (y, x) = ((i / size) as f64, (i % size) as f64);
                (1.7 * (x * direction.cos() + y * direction.sin()) + phase).sin()
            };
            view.values.extend((0..size * size).map(at));
        }
        Ok(())
    }
}

struct Net(Sequential);

impl Encoder for Net {
    type Views = Pictures;

    fn width(&self) -> usize {
        6
    }

    fn encode(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.0.forward(x, rows, pass)
    }

    fn through(&self, head: &Sequential, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.0.through(head, x, rows, pass)
    }
}

/// An extra layer of a test's network.
#[derive(Clone, Copy, PartialEq)]
enum With {
    Nothing,
    Norm,
    Dropout,
}

/// The towers of a small network.
fn towers(with: With) -> (Params, Siamese<Net>) {
    let mut params = Params::new();
    let mut root = params.root();
    let mut scope = root.sub("encoder");
    let init = Init::Normal { std: 0.5 };
    let mut layers = vec![Layer::Conv2d(Conv2d::new([6, 1], 3, 1, 1, init, scope.sub("conv")))];
    match with {
        With::Nothing => {}
        With::Norm => layers.push(Layer::BatchNorm(BatchNorm::new(6, 1.0, scope.sub("norm")))),
        With::Dropout => layers.push(Layer::Dropout(Dropout::new("encoder.dropout", 0.4).unwrap())),
    }
    layers.extend([Layer::Relu, Layer::GlobalAverage]);
    layers.push(Layer::Linear(Linear::new([6, 6], true, ParamKind::Weight, init, scope.sub("linear"))));
    let encoder = Net(Sequential::new(layers, scope.gradient_store()));
    let head = HeadRecipe { layers: 1, width: 4, norms: crate::recipe::Norms::None, ..HeadRecipe::default() };
    let head = ProjectionHead::new(&head, 6, params.root().sub("head"));
    (params, Siamese { tower: Tower { encoder, head, predictor: None } })
}

/// A small network with a loss that has a parameter of its own.
fn learner(with: With, loss: impl Fn(Arc<Param>) -> Box<dyn Objective>) -> Dense<Siamese<Net>> {
    let (mut params, towers) = towers(with);
    let scale = params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
    params.materialise(Key::new(3), DType::F64, &crate::Device::Cpu).unwrap();
    let sgd = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.01, ..SgdRecipe::default() });
    Dense::new(towers, loss(scale), params, Optimizer::new(&sgd))
}

/// InfoNCE from every view to every global view, over all ranks. Its learned scale is e^s, at most e². Views 0 and 1 are global.
struct Learned(Arc<Param>);

impl Objective for Learned {
    fn loss(&self, inputs: &Inputs) -> Result<Terms> {
        let mut views = Vec::new();
        for (_, view) in inputs.online.views() {
            let own = normalise(&view.query)?;
            let all = inputs.world.gather(&own.detach())?;
            // A leaf of its own, so that the loss over all ranks is differentiated with respect to all rows.
            views.push((own, candle_core::Var::from_tensor(&all.rows)?, all.first));
        }
        let scale = candle_core::Var::from_tensor(self.0.var().as_tensor())?;
        let mut losses = Vec::new();
        for (i, (_, of, _)) in views.iter().enumerate() {
            for (_, (_, global, _)) in views.iter().enumerate().take(2).filter(|(j, _)| *j != i) {
                let logits = of.as_tensor().matmul(&global.as_tensor().t()?)?.broadcast_mul(&scale.as_tensor().exp()?)?;
                let truth = Tensor::arange(0u32, logits.dim(0)? as u32, &Device::Cpu)?;
                losses.push(candle_nn::loss::cross_entropy(&logits, &truth)?);
            }
        }
        let value = Tensor::stack(&losses, 0)?.mean_all()?;
        let store = value.backward()?;
        let slope = |of: &candle_core::Var| store.get(of.as_tensor()).cloned().map_or_else(|| of.zeros_like(), Ok);
        let mut gradients = Vec::new();
        for (own, all, first) in &views {
            gradients.push((own, slope(all)?.narrow(0, *first, own.dim(0)?)?));
        }
        gradients.push((self.0.var().as_tensor(), slope(&scale)?));
        inputs.terms(&attach(&value, &gradients)?, &[&self.0], Vec::new())
    }

    fn after_step(&mut self, _: &Inputs) -> Result<()> {
        let var = self.0.var();
        Ok(var.set(&var.as_tensor().minimum(2.0)?)?)
    }
}

fn learned(with: With) -> Dense<Siamese<Net>> {
    learner(with, |scale| Box::new(Learned(scale)))
}

fn multi_crop() -> Paired<Waves, Crops> {
    Paired { data: Waves(12), pairs: Crops(vec![(2, 8), (3, 5)]) }
}

/// One step on samples 0..7 in parts of `part`, at `rate`; returns the loss before it.
fn step(dense: &mut Dense<Siamese<Net>>, part: usize, rate: f64) -> f64 {
    terms(dense, part, rate).loss.to_scalar().unwrap()
}

/// The same; returns all terms.
fn terms(dense: &mut Dense<Siamese<Net>>, part: usize, rate: f64) -> Terms {
    let (source, order) = (multi_crop(), Order::new(7, 7, part, false, false, Key::new(0)));
    let (rank, world) = (dense.world.rank(), dense.world.world());
    let order = order.of_rank(rank, world).with_passes(dense.passes());
    let draw = |unit: usize| order.draw(&source, unit, Key::new(1));
    dense.step(&order.feed(0, Key::new(2), &draw), rate).unwrap()
}

fn values(params: &Params) -> Vec<(String, Tensor)> {
    params.iter().map(|p| (p.name().to_string(), p.var().as_detached_tensor().copy().unwrap())).collect()
}

#[test]
fn views_of_two_sizes_train_through_the_one_loop() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::new("test", "");
    let train = TrainRecipe { epochs: 60, batch: 6, loaders: 1, ..TrainRecipe::default() };
    let schedule = Schedule::new(&ScheduleRecipe { warmup: 0.0, ..ScheduleRecipe::default() }, 20.0);
    let plan = Plan::new("test", &recipe, train, schedule).unwrap();
    let mut dense = learned(With::Norm);
    let mut run = Run::new(Place::New(folder.path().join("run")), "test", recipe).unwrap();
    let before = step(&mut learned(With::Norm), 7, 0.0);
    let fitted = fit(&multi_crop(), &mut dense, &plan, &mut [], &mut run, &mut Process::new(crate::Device::Cpu)).unwrap();
    assert_eq!(fitted.steps, 120);
    assert!(fitted.loss < 0.8 * before, "from {before} to {}", fitted.loss);
    let scale = dense.params.iter().find(|p| p.name() == "loss.scale").unwrap().var().to_scalar::<f64>().unwrap();
    assert!(scale > 0.7 && scale <= 2.0, "the scale was learned, and clamped: {scale}");
}

#[test]
fn a_pass_is_made_a_size_and_views_keep_their_numbers() {
    let (dense, source) = (learned(With::Nothing), multi_crop());
    let batch = source.draw(&[0, 1, 2], Key::new(1)).unwrap();
    assert_eq!(batch.left.iter().map(|view| view.size).collect::<Vec<_>>(), [8, 8, 5, 5, 5]);
    let of = |views: ViewSet| dense.towers.project(&batch, views, &Places::alone(3), &Pass::eval()).unwrap().0;
    let all = of(ViewSet::All);
    assert_eq!((all.len(), all.left(), all.views().count()), (5, 5, 5));
    for view in 0..5 {
        let alone = of(ViewSet::One(view));
        assert_eq!(alone.views().map(|(number, _)| number).collect::<Vec<_>>(), [view]);
        assert_eq!(distance(&alone.view(view).unwrap().query, &all.view(view).unwrap().query), 0.0);
    }
    assert_eq!(of(ViewSet::First(2)).views().count(), 2);
}

#[test]
fn gradients_of_all_parameters_are_differences_whole_and_in_parts() {
    for part in [7, 3, 1] {
        let mut dense = learned(With::Nothing);
        let decayed = |name: &str| name.ends_with("weight");
        let before = values(&dense.params);
        step(&mut dense, part, 1.0);
        for ((name, before), (_, after)) in before.iter().zip(values(&dense.params)) {
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let (start, after) = (flat(before), flat(&after));
            for i in (0..start.len()).step_by(start.len().div_ceil(5)) {
                let at = |h: f64| {
                    let mut moved = start.clone();
                    moved[i] += h;
                    let other = learned(With::Nothing);
                    let param = other.params.iter().find(|p| p.name() == name).unwrap();
                    param.var().set(&Tensor::from_vec(moved, before.shape(), &Device::Cpu).unwrap()).unwrap();
                    let mut other = other;
                    step(&mut other, 7, 0.0)
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5 + if decayed(name) { 0.01 * start[i] } else { 0.0 };
                let found = start[i] - after[i];
                // The scale is clamped at 2, which it does not reach here.
                assert!((found - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{part}: {name}[{i}]: {found}, {expected}");
            }
        }
    }
}

#[test]
fn ranks_of_different_shares_are_one_rank() {
    let one = || {
        let mut dense = learned(With::Nothing);
        let losses: Vec<f64> = (0..3).map(|_| step(&mut dense, 7, 0.3)).collect();
        (losses, values(&dense.params))
    };
    let (losses, whole) = one();
    for (world, part) in [(2, 7), (3, 7), (2, 2)] {
        // Seven samples: shares of three and four, or of two, two and three.
        let found = ranks_of_process(world, |world| {
            let mut dense = Dense { world, ..learned(With::Nothing) };
            let losses: Vec<f64> = (0..3).map(|_| step(&mut dense, part, 0.3)).collect();
            (losses, values(&dense.params))
        });
        for (of_rank, params) in found {
            assert!(of_rank.iter().zip(&losses).all(|(a, b)| (a - b).abs() < 1e-12), "{of_rank:?} {losses:?}");
            for ((name, a), (_, b)) in params.iter().zip(&whole) {
                assert!(distance(a, b) < 1e-12, "{world} ranks: {name} is off by {}", distance(a, b));
            }
        }
    }
}

#[test]
fn dropout_drops_the_same_in_parts_in_groups_and_on_ranks() {
    let of = |part: usize, groups: Groups, world: Arc<dyn Collective>| {
        let mut dense = Dense { groups, world, ..learned(With::Dropout) };
        let losses: Vec<f64> = (0..2).map(|_| step(&mut dense, part, 0.3)).collect();
        (losses, values(&dense.params))
    };
    let near = |what: &str, (losses, params): &(Vec<f64>, Vec<(String, Tensor)>), whole: &(Vec<f64>, Vec<(String, Tensor)>)| {
        assert!(losses.iter().zip(&whole.0).all(|(a, b)| (a - b).abs() < 1e-12), "{what}: {losses:?} {:?}", whole.0);
        for ((name, a), (_, b)) in params.iter().zip(&whole.1) {
            assert!(distance(a, b) < 1e-12, "{what}: {name} is off by {}", distance(a, b));
        }
    };
    let whole = of(7, Groups::Together, solo());
    for part in [4, 2, 1] {
        near(&format!("parts of {part}"), &of(part, Groups::Together, solo()), &whole);
    }
    // No layer normalises, so groups only change the order of the rows.
    near("three groups", &of(7, Groups::Each(3), solo()), &whole);
    for found in ranks_of_process(2, |world| of(7, Groups::Together, world)) {
        near("two ranks", &found, &whole);
    }
    for found in ranks_of_process(2, |world| of(2, Groups::Each(2), world)) {
        near("two ranks, in parts and groups", &found, &whole);
    }
    let mut none = learned(With::Nothing);
    assert!((step(&mut none, 7, 0.0) - whole.0[0]).abs() > 1e-3, "something is dropped");
}

#[test]
fn a_losss_parameters_are_saved_and_a_name_that_nobody_claims_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut dense = learned(With::Norm);
    step(&mut dense, 7, 0.5);
    let write = |dense: &Dense<_>, name: &str| {
        let manifest = Manifest::new("test", 1, 0, &Recipe::new("r", ""));
        Checkpoint::write(&folder.path().join(name), manifest, |w| dense.save(w)).unwrap()
    };
    let saved = write(&dense, "a");
    let sections: Vec<&str> = saved.manifest().files.keys().map(String::as_str).collect();
    assert_eq!(sections, ["head.safetensors", "loss.safetensors", "model.safetensors", "trainer.safetensors"]);
    let mut other = learned(With::Norm);
    other.load(&saved.reader()).unwrap();
    for ((name, a), (_, b)) in values(&dense.params).iter().zip(&values(&other.params)) {
        assert_eq!(distance(a, b), 0.0, "{name}");
    }
    assert_eq!(step(&mut dense, 7, 0.5), step(&mut other, 7, 0.5));
    // A network without the normalisation neither accepts its names nor finds its own.
    let error = learned(With::Nothing).load(&saved.reader()).unwrap_err().to_string();
    assert!(error.contains("norm.") && error.contains("no parameter"), "{error}");
}

#[test]
fn a_losss_parameter_that_the_learner_lacks_is_an_error() {
    let mut other = Params::new();
    let scale = other.root().sub("lost").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
    other.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
    let mut dense = Dense { objective: Box::new(Learned(scale)), ..learned(With::Nothing) };
    let draw = |_: usize| multi_crop().draw(&[0, 1, 2], Key::new(0));
    let error = dense.step(&Feed::new(1, 3, Key::new(0), &draw), 0.1).err().unwrap().to_string();
    assert!(error.contains("lost.scale"), "{error}");
}

#[test]
fn a_feed_that_is_given_by_hand_has_all_places() {
    let draw = |_: usize| -> Result<Batch<Pictures, ()>> { multi_crop().draw(&[0], Key::new(0)) };
    let feed = Feed::new(2, 5, Key::new(0), &draw);
    assert_eq!((feed.places(), feed.count(), feed.parts()), (0..5, 5, 2));
    assert_eq!(feed.again(1).unwrap().samples, [0]);
    assert_eq!(solo().world(), 1);
}
