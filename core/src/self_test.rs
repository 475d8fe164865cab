//! Compares a device with the CPU: every kind of layer forward and backward, every loss and every optimizer for ten steps. This is what
//! `ctk devices --self-test` runs.
//!
//! The CPU's results are checked by the tests of this crate; in f64 they are what a device is measured by. Each check gives a verdict. A
//! device that is right differs by rounding alone, so bounds are a small multiple of the CPU's own rounding in the same type.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use rand::Rng as _;

use crate::data::feed::Feed;
use crate::data::known::Known;
use crate::data::pair::{Batch, Maps};
use crate::device::{Device, Rules};
use crate::error::{Error, Result};
use crate::model::encoder::Chain;
use crate::model::tower::Siamese;
use crate::nn::cases::{Case, NORMAL, cases, conv, large};
use crate::nn::params::{ParamKind, Params, Scope};
use crate::nn::pass::{Pass, Precision, Statistics};
use crate::nn::rows::Rows;
use crate::nn::{AddedRow, Attention, BatchNorm, Dropout, Embedding, Layer, Linear, MaxPool, Padding, Residual, Sequential};
use crate::recipe::Recipe;
use crate::rng::Key;
use crate::train::dense::Dense;
use crate::train::learner::Learner as _;
use crate::train::two_views::TwoViews;
use crate::world::solo;

/// The result of one check.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was compared.
    pub name: String,
    /// The type in which it was computed: `f32`, `tf32` or `bf16`.
    pub numbers: &'static str,
    /// The largest distance from the CPU's result, relative to its size.
    pub off: f64,
    /// The largest distance that is allowed.
    pub bound: f64,
    /// The value that is furthest off, or why there is none.
    pub about: String,
}

impl Verdict {
    /// Whether the device is right in this check. Values that are not numbers are not.
    pub fn right(&self) -> bool {
        self.off <= self.bound
    }
}

/// Which shapes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// Those at the edges of the kernels: seconds on an emulated device.
    Small,
    /// Those of real networks too, also as TF32: seconds on a real device.
    All,
}

/// One check, which can be run.
pub struct Check {
    /// What it compares.
    pub name: String,
    /// The type in which it computes.
    pub numbers: &'static str,
    run: Run,
}

type Run = Box<dyn Fn(&Device) -> Result<Found>>;

/// The distance that was found, the distance that is allowed, and the value that is furthest off.
type Found = (f64, f64, String);

impl Check {
    /// Runs the check on `device`. A failure of the device is a verdict, too.
    pub fn verdict(&self, device: &Device) -> Verdict {
        let (off, bound, about) = (self.run)(device).unwrap_or_else(|error| (f64::NAN, 0.0, error.to_string()));
        Verdict { name: self.name.clone(), numbers: self.numbers, off, bound, about }
    }
}

/// The number types of a check: how a pass computes, and by which rules.
const NUMBERS: [(&str, Precision, bool); 3] =
    [("f32", Precision::F32, true), ("bf16", Precision::Bf16, true), ("tf32", Precision::F32, false)];

/// All checks, in order.
pub fn checks(sizes: Sizes) -> Vec<Check> {
    let mut all = Vec::new();
    let more = if sizes == Sizes::All { large() } else { Vec::new() };
    for case in cases().into_iter().chain([dropout(), frozen()]).chain(more).map(Arc::new) {
        for (numbers, precision, exact) in NUMBERS.into_iter().filter(|(_, _, exact)| *exact || sizes == Sizes::All) {
            let case = case.clone();
            let name = case.name.to_string();
            all.push(Check { name, numbers, run: Box::new(move |device| layers(&case, precision, &ruled(device, exact))) });
        }
    }
    for (numbers, precision, _) in &NUMBERS[..2] {
        let run = move |device: &Device| texts(*precision, &ruled(device, true));
        all.push(Check { name: "texts".into(), numbers, run: Box::new(run) });
    }
    for recipe in recipes() {
        for (numbers, precision, _) in &NUMBERS[..2] {
            let (recipe, precision) = (recipe.clone(), *precision);
            let name = format!("ten steps of {}", recipe.0);
            all.push(Check { name, numbers, run: Box::new(move |device| steps(&recipe.1, precision, &ruled(device, true))) });
        }
    }
    all
}

fn ruled(device: &Device, exact: bool) -> Device {
    device.by(Rules { exact, deterministic: true })
}

fn noise(dims: &[usize], key: Key) -> Result<Tensor> {
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Ok(Tensor::from_vec(values, dims, &candle_core::Device::Cpu)?)
}

/// ‖a − b‖ / ‖b‖, where b is not nearly 0.
fn apart(a: &Tensor, b: &Tensor) -> Result<f64> {
    if a.dims() != b.dims() {
        return Err(Error::new(format!("a result of shape {:?} for one of {:?}", a.dims(), b.dims())));
    }
    let wide = |t: &Tensor| t.to_dtype(DType::F64);
    let norm = |t: Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    Ok(norm((wide(a)? - wide(b)?)?)? / (norm(wide(b)?)? + 1e-3))
}

/// Results under their names.
type Results = Vec<(String, Tensor)>;

/// The largest distance of a result from `exact`, and its name. NaN is the largest.
fn furthest(found: &Results, exact: &Results) -> Result<(f64, String)> {
    let mut worst = (0.0, String::new());
    for ((name, found), (_, exact)) in found.iter().zip(exact) {
        let off = apart(found, exact)?;
        if off.is_nan() || off > worst.0 || worst.1.is_empty() {
            worst = (off, name.clone());
        }
        if off.is_nan() {
            break;
        }
    }
    Ok(worst)
}

/// The largest distance that is allowed where the CPU's own in the same type is `own`. It stays below 1, the distance of a result that is 0.
fn bound(own: f64, least: f64) -> f64 {
    (2.0 * own + least).min(0.8)
}

fn dropout() -> Case {
    Case {
        name: "dropout",
        input: &[4, 3, 3, 8],
        build: |mut s| {
            let dropped = Layer::Dropout(Dropout::new("a", 0.4).expect("a rate below 1"));
            vec![dropped, conv([8, 8], 1, 1, 0, s.sub("b"))]
        },
    }
}

/// The name of the case whose statistics are frozen.
const FROZEN: &str = "norm with frozen statistics";

fn frozen() -> Case {
    Case {
        name: FROZEN,
        input: &[3, 4, 5, 9],
        build: |mut s| {
            let norm = Layer::BatchNorm(BatchNorm::new(9, 1.0, s.sub("a")).relu());
            vec![norm, conv([5, 9], 3, 1, 1, s.sub("b")), Layer::BatchNorm(BatchNorm::new(5, 1.0, s.sub("c")))]
        },
    }
}

/// The output of a network, the gradients of its input and of its parameters, and its statistics after the pass.
fn outcome(case: &Case, dtype: DType, precision: Precision, device: &Device) -> Result<Results> {
    let mut params = Params::new();
    let layers = case.carried(&mut params);
    let net = Sequential::new(layers, params.gradient_store());
    params.materialise(Key::new(1), dtype, device)?;
    for p in params.iter() {
        // Scales, shifts and statistics begin as constants, which would hide mistakes.
        p.set(&(p.tensor()?.to_dtype(DType::F64)? + (noise(p.dims(), Key::new(3).of(p.name()))? * 0.3)?)?)?;
    }
    let x = noise(case.input, Key::new(4))?.to_dtype(dtype)?;
    let statistics = if case.name == FROZEN { Statistics::Frozen } else { Statistics::Update };
    let pass = Pass { recompute: true, ..Pass::train(Key::new(0), &solo()).with(statistics).at(precision) };
    let (y, tape) = net.forward(&x, &Rows::alone(case.input[0]), &pass)?;
    let dy = noise(y.dims(), Key::new(2))?.to_dtype(dtype)?;
    let dx = tape.play(&dy, true)?.ok_or_else(|| Error::new("no gradient came back"))?;
    let mut all = vec![("the output".to_string(), y), ("the input's gradient".to_string(), dx)];
    for (p, gradient) in params.iter().zip(params.gradients()?) {
        match gradient {
            Some(gradient) => all.push((format!("the gradient of {}", p.name()), gradient.dense(p.dims())?)),
            None => all.push((p.name().to_string(), p.tensor()?)),
        }
    }
    Ok(all)
}

fn layers(case: &Case, precision: Precision, device: &Device) -> Result<Found> {
    let exact = outcome(case, DType::F64, Precision::F32, &Device::Cpu)?;
    let (own, _) = furthest(&outcome(case, DType::F32, precision, &Device::Cpu)?, &exact)?;
    let (off, name) = furthest(&outcome(case, DType::F32, precision, device)?, &exact)?;
    let tf32 = matches!(device, Device::Cuda(cuda) if !cuda.rules().exact);
    let least = match precision {
        // Ten bits after the point.
        Precision::F32 if tf32 => 1e-2,
        Precision::F32 => 1e-4,
        Precision::Bf16 => 2e-2,
    };
    Ok((off, bound(own, least), name))
}

/// Texts of tokens that are looked up, attend to each other and are averaged, and the gradients of all parameters.
fn texts(precision: Precision, device: &Device) -> Result<Found> {
    let run = |dtype, precision, device: &Device| -> Result<Results> {
        let mut params = Params::new();
        let table = Layer::Embedding(Embedding::new([6, 4], NORMAL, params.root().sub("table")));
        let positions = Layer::AddedRow(AddedRow::by_position([5, 4], 1, NORMAL, params.root().sub("positions")));
        let mut linear =
            |shape, name: &str| Layer::Linear(Linear::new(shape, true, ParamKind::Weight, NORMAL, params.root().sub(name)));
        let (wide, narrow) = (linear([12, 4], "qkv"), linear([2, 4], "linear"));
        let layers = vec![table, positions, wide, Layer::Attention(Attention::new(2)), Layer::GlobalAverage, narrow];
        let net = Sequential::new(layers, params.gradient_store());
        params.materialise(Key::new(1), dtype, device)?;
        let ids = Tensor::new(&[4u32, 1, 4, 0, 1, 4, 2], &candle_core::Device::Cpu)?;
        let rows = Rows::alone(3).with_offsets(vec![0, 2, 3, 7]);
        let (y, tape) = net.forward(&ids, &rows, &Pass::train(Key::new(0), &solo()).at(precision))?;
        tape.play(&noise(&[3, 2], Key::new(2))?.to_dtype(dtype)?, true)?;
        let mut all = vec![("the output".to_string(), y)];
        for (p, gradient) in params.iter().zip(params.gradients()?) {
            let gradient = gradient.ok_or_else(|| Error::new("no gradient came back").at(p.name()))?;
            all.push((format!("the gradient of {}", p.name()), gradient.dense(p.dims())?));
        }
        Ok(all)
    };
    let exact = run(DType::F64, Precision::F32, &Device::Cpu)?;
    let (off, name) = furthest(&run(DType::F32, precision, device)?, &exact)?;
    Ok((off, if precision == Precision::F32 { 1e-5 } else { 3e-2 }, name))
}

/// Recipes that together have every loss of two views and every optimizer, with what they show.
fn recipes() -> Vec<(String, String)> {
    const SGD: &str = "[optimizer.sgd]\nrate = 0.01\nmomentum = 0.9\ndecay = 1e-3\n";
    let predictor = "[predictor]\nhidden = 12\n";
    let losses =
        ["nt-xent", "dcl", "infonce", "ranking", "supcon", "moco", "barlow-twins", "vicreg", "byol", "simsiam"].map(|loss| {
            let queue = if loss == "moco" { "queue = 48\ntemperature = 0.5\n" } else { "" };
            let more = if ["byol", "simsiam"].contains(&loss) { predictor } else { "" };
            (loss.to_string(), format!("[loss.{loss}]\n{queue}{more}{SGD}"))
        });
    let optimizers = [
        ("sgd without momentum", "[optimizer.sgd]\nrate = 0.01\nmomentum = 0.0\ndecay = 1e-3\n"),
        ("sgd with Nesterov's momentum", "[optimizer.sgd]\nrate = 0.01\nmomentum = 0.9\nnesterov = true\n"),
        ("lars", "[optimizer.lars]\nrate = 1.0\ndecay = 1e-3\nform = \"classic\"\n"),
        ("lars, the popular form", "[optimizer.lars]\nrate = 1.0\ndecay = 1e-3\nform = \"popular\"\n"),
        ("adamw", "[optimizer.adamw]\nrate = 1e-3\n"),
    ];
    let optimizers = optimizers.map(|(name, text)| (name.to_string(), format!("[loss.nt-xent]\n{text}")));
    let more = [
        ("nt-xent with a memory", format!("[loss.nt-xent]\nmemory = 48\n{SGD}")),
        ("supcon by pairs", format!("[loss.supcon]\npositives = \"pairs\"\n{SGD}")),
        ("a batch in parts", format!("[loss.nt-xent]\n{SGD}[train]\npart = 8\n")),
    ];
    losses.into_iter().chain(optimizers).chain(more.map(|(name, text)| (name.to_string(), text))).collect()
}

/// A small network with every kind of step on the way back.
fn encoder(mut scope: Scope) -> Chain<Maps> {
    let norm = |scope: Scope, c| Layer::BatchNorm(BatchNorm::new(c, 1.0, scope).relu());
    let body = vec![conv([8, 8], 3, 1, 1, scope.sub("body"))];
    let layers = vec![
        conv([8, 3], 3, 1, 1, scope.sub("stem")),
        norm(scope.sub("norm"), 8),
        Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1))),
        Layer::Residual(Residual::new(body, vec![])),
        Layer::GlobalAverage,
    ];
    Chain::new(layers, 8, scope)
}

/// Images in a step.
const IMAGES: usize = 16;
/// Height and width of an image.
const SIDE: usize = 6;

/// Some images of a step: two noisy views of random images of four classes.
fn batch(step: usize, images: Range<usize>) -> Result<Batch<Maps, ()>> {
    let mut left = vec![Maps::default(), Maps::default()];
    for at in images.clone() {
        let mut rng = Key::new(7).at((step * IMAGES + at) as u64).rng();
        // Each has a colour of its own, so that the differences between images are far above the rounding of bf16.
        let colour = [(); 3].map(|()| rng.random_range(-2.0..2.0f32));
        let image: Vec<f32> = (0..SIDE * SIDE * 3).map(|at| colour[at % 3] + rng.random_range(-0.5..0.5f32)).collect();
        for view in &mut left {
            let noisy: Vec<f32> = image.iter().map(|value| value + rng.random_range(-0.1..0.1f32)).collect();
            view.push([SIDE, SIDE, 3], &noisy)?;
        }
    }
    let samples: Vec<u32> = images.map(|at| at as u32).collect();
    let labels = samples.iter().map(|at| at % 4).collect();
    Ok(Batch { left, right: vec![], samples, known: Known::labels(labels) })
}

/// The losses of ten steps, and how far parameters, statistics and a momentum copy have moved from where they began.
fn ten(text: &str, precision: Precision, device: &Device) -> Result<Results> {
    let head = "[head]\nlayers = 2\nwidth = 6\nhidden = 10\n";
    let (mut recipe, _) = TwoViews::<()>::check("self-test", &Recipe::new("self-test", format!("{head}{text}")))?;
    let train = &mut recipe.train;
    (train.precision, train.exact, train.deterministic, train.bn_groups) = (precision, true, true, Some(1));
    let part = train.part.unwrap_or(IMAGES);
    let mut learner: Dense<Siamese<Chain<Maps>>> = recipe.learner(encoder, device)?;
    let copy = |learner: &Dense<_>| learner.target.as_ref().map_or(Ok(Vec::new()), |target| values(target.params(), true));
    let begun = [values(&learner.params, true)?, values(&learner.params, false)?, copy(&learner)?];
    let mut losses = Vec::new();
    for step in 0..10 {
        let draw = |at: usize| batch(step, at * part..(at + 1) * part);
        let feed = Feed::new(IMAGES / part, IMAGES, Key::new(5).at(step as u64), &draw).after(step as f64 / 10.0);
        let terms = learner.step(&feed, recipe.optimizer.rate())?;
        losses.push(terms.loss.to_dtype(DType::F64)?.to_scalar::<f64>()?);
    }
    let ended = [values(&learner.params, true)?, values(&learner.params, false)?, copy(&learner)?];
    let names = ["the change of the parameters", "the change of the running statistics", "the change of the momentum copy"];
    let moved = begun.into_iter().zip(ended).map(|(from, to)| to.iter().zip(&from).map(|(to, from)| to - from).collect());
    let all = [losses].into_iter().chain(moved).zip(["the losses"].into_iter().chain(names));
    all.map(|(numbers, name)| Ok((name.to_string(), Tensor::new(numbers, &candle_core::Device::Cpu)?))).collect()
}

/// All values of the parameters that are trained, or of those that are not.
fn values(params: &Params, trained: bool) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for param in params.iter().filter(|param| param.kind().trained() == trained) {
        all.extend(param.tensor()?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
    }
    Ok(all)
}

fn steps(text: &str, precision: Precision, device: &Device) -> Result<Found> {
    let exact = ten(text, Precision::F32, &Device::Cpu)?;
    let (own, _) = furthest(&ten(text, precision, &Device::Cpu)?, &exact)?;
    let (off, name) = furthest(&ten(text, precision, device)?, &exact)?;
    let least = if precision == Precision::F32 { 5e-3 } else { 0.05 };
    Ok((off, bound(own, least), name))
}

#[cfg(test)]
mod tests;
