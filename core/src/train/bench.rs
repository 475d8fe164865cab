//! Measures a training step on this machine: times, memory, and the machine's peak speed of matrix products.
//!
//! [`Classifier`] is the step by which frameworks are compared: an encoder with a linear classifier on input that is already in memory.
//! [`learner`] times a learner's own step, stage by stage and as training runs it.

use std::borrow::Cow;
use std::time::Instant;

use candle_core::{D, DType, Tensor, Var};

use crate::data::feed::{Loader, Order};
use crate::data::pair::{Batch, HostBatch};
use crate::data::source::Source;
use crate::device::{Device, Times};
use crate::error::{Error, Result};
use crate::model::encoder::Encoder;
use crate::model::tower::Towers;
use crate::nn::params::{Init, ParamKind, Params, Scope};
use crate::nn::pass::{Pass, Precision};
use crate::nn::rows::Rows;
use crate::nn::{Layer, Linear, Sequential};
use crate::observer::{Event, Observer};
use crate::optim::Optimizer;
use crate::recipe::{OptimizerRecipe, SgdRecipe};
use crate::rng::Key;
use crate::train::dense::{Dense, Stage};
use crate::train::learner::Learner as _;
use crate::train::plan::Plan;
use crate::world::solo;

/// Steps before timing starts, in which buffers are allocated and caches filled.
pub const WARM: usize = 2;

/// A request to time a step.
#[derive(Clone, Debug)]
pub struct Request {
    /// Changes to the recipe: the command line's name of each flag, and its value.
    pub changes: Vec<(&'static str, String)>,
    /// Steps to time; none: the modality's default.
    pub steps: Option<usize>,
    /// The device of the model.
    pub device: Device,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was timed (model, data, batch) under JSON names.
    pub what: Vec<(&'static str, serde_json::Value)>,
    /// The figures in the order in which they are printed.
    pub figures: Vec<Figure>,
    /// The type in which feature maps were stored and multiplied.
    pub precision: Precision,
    /// Computing threads, without loaders.
    pub threads: usize,
    /// The CPU's vector instructions.
    pub isa: &'static str,
    /// The device of the model.
    pub device: String,
}

/// One figure, for JSON and for the printed table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The JSON name; `step_ms.best` is `best` in the object `step_ms`.
    pub key: Cow<'static, str>,
    /// The JSON value.
    pub value: serde_json::Value,
    /// The line to print, if any.
    pub line: Option<Line>,
}

/// A figure's line in the printed table.
#[derive(Clone, Debug)]
pub struct Line {
    /// The label; two leading spaces indent it below the line above.
    pub label: String,
    /// The number.
    pub value: f64,
    /// The unit, and remarks.
    pub unit: String,
}

impl Figure {
    /// A figure that is in JSON only.
    pub fn new(key: impl Into<Cow<'static, str>>, value: impl Into<serde_json::Value>) -> Figure {
        Figure { key: key.into(), value: value.into(), line: None }
    }

    /// Also prints the figure, possibly in another unit.
    pub fn line(self, label: impl Into<String>, value: f64, unit: impl Into<String>) -> Figure {
        Figure { line: Some(Line { label: label.into(), value, unit: unit.into() }), ..self }
    }
}

/// Times of repeated work, in milliseconds.
#[derive(Clone, Debug)]
pub struct Laps(Vec<f64>);

impl Laps {
    /// Runs `work` [`WARM`] times, then `count` times with timing; `work` gets the number of the call.
    ///
    /// # Errors
    /// The errors of `work`.
    pub fn run(count: usize, mut work: impl FnMut(usize) -> Result<()>) -> Result<Laps> {
        let mut laps = Vec::new();
        for i in 0..WARM + count.max(1) {
            let start = Instant::now();
            work(i)?;
            laps.push(milliseconds(start));
        }
        Ok(Laps::of(laps.split_off(WARM)))
    }

    fn of(mut laps: Vec<f64>) -> Laps {
        laps.sort_by(f64::total_cmp);
        Laps(laps)
    }

    /// The shortest time.
    pub fn best(&self) -> f64 {
        self.0[0]
    }

    /// The median time.
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Median times of a learner's stages in milliseconds, each measured alone, and of the whole step as training runs it.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Making a batch on one thread, as a loader does.
    pub batch: f64,
    /// From the batch to embeddings.
    pub forward: f64,
    /// The backward pass, from the embeddings' gradients.
    pub backward: f64,
    /// The loss and its gradient.
    pub loss: f64,
    /// The optimizer's update of the parameters.
    pub optimizer: f64,
    /// The whole step while loaders make the next batches at the same time; less than the sum of the stages.
    pub total: f64,
    /// The device's calls in one step; none on the CPU.
    pub calls: Times,
}

/// The memory that this process has allocated, without the program's own pages and mapped files, which the system can drop. 0 if the system
/// does not say.
#[derive(Clone, Copy, Debug)]
pub struct Memory(f64);

impl Memory {
    /// The memory at this moment.
    pub fn now() -> Self {
        Memory(status("RssAnon:"))
    }

    /// By how many MB the largest memory so far exceeds it.
    pub fn grown(self) -> f64 {
        // The system reports the largest size of all pages together; pages of files only grow.
        (status("VmHWM:") - status("RssFile:") - status("RssShmem:") - self.0).max(0.0)
    }
}

/// A figure of the kernel in MB.
fn status(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The calls of a device in one step, each with its time and how often it was made; those that took longest are printed.
pub fn of_calls(calls: &Times) -> Vec<Figure> {
    const PRINTED: usize = 12;
    let mut calls: Vec<(f64, &String, u64)> =
        calls.iter().map(|(name, (count, took))| (took.as_secs_f64() * 1e3, name, *count)).collect();
    calls.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let all: f64 = calls.iter().map(|(took, ..)| took).sum();
    let of_call = |(at, (took, name, count)): (usize, (f64, &String, u64))| {
        let figure = Figure::new(format!("device_calls_ms.{name}"), took);
        let share = format!("ms, {:.1} % of all calls, {count} of them", 100.0 * took / all);
        if at < PRINTED { figure.line(format!("  {name}"), took, share) } else { figure }
    };
    calls.into_iter().enumerate().map(of_call).collect()
}

/// The number of computing threads.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The share that `gflops` is of the most that this machine's CPU reaches, and that most. `observer` is told that it is being timed.
///
/// # Errors
/// An error of candle.
pub fn of_peak(gflops: f64, observer: &mut dyn Observer) -> Result<[Figure; 2]> {
    observer.event(&Event::Note("timing a matrix product"));
    let peak = product_peak()?;
    let share = Figure::new("peak_share", gflops / peak);
    let share = share.line("  of a matrix product", 100.0 * gflops / peak, format!("% of {peak:.0} GFLOP/s"));
    Ok([share, Figure::new("gemm_peak_gflops", peak)])
}

/// The speed in GFLOP/s of a product of square f32 matrices on all threads, the best of several: the most that the machine reaches.
///
/// # Errors
/// An error of candle.
fn product_peak() -> Result<f64> {
    const SIDE: usize = 1024;
    let factor = Tensor::full(0.5f32, (SIDE, SIDE), &candle_core::Device::Cpu)?;
    let laps = Laps::run(6, |_| factor.matmul(&factor).map(drop).map_err(Error::from))?;
    Ok(2.0 * (SIDE as f64).powi(3) / laps.best() / 1e6)
}

/// An encoder with a linear classifier, trained by SGD with momentum.
pub struct Classifier<E> {
    encoder: E,
    head: Sequential,
    params: Params,
    optimizer: Optimizer,
    labels: Tensor,
    precision: Precision,
}

impl<E: Encoder> Classifier<E> {
    /// A classifier into ten classes; `rows` is the batch size, `build` declares the encoder, which runs in `precision` on `device`.
    ///
    /// # Errors
    /// Those of `build` and of the device.
    pub fn new(
        rows: usize,
        key: Key,
        precision: Precision,
        device: &Device,
        build: impl FnOnce(Scope) -> Result<E>,
    ) -> Result<Self> {
        const CLASSES: usize = 10;
        let mut params = Params::new();
        let encoder = build(params.root().sub("encoder"))?;
        let init = Init::Normal { std: 0.03 };
        let linear = Linear::new([CLASSES, encoder.width()], true, ParamKind::Head, init, params.root().sub("head"));
        let head = Sequential::new(vec![Layer::Linear(linear)], params.gradient_store());
        params.materialise(key, DType::F32, device)?;
        let sgd = SgdRecipe { momentum: 0.9, decay: 1e-4, ..SgdRecipe::default() };
        let labels = Tensor::from_iter((0..rows).map(|i| (i % CLASSES) as u32), &candle_core::Device::Cpu)?.unsqueeze(1)?;
        let optimizer = Optimizer::new(&OptimizerRecipe::Sgd(sgd));
        Ok(Classifier { encoder, head, params, optimizer, labels, precision })
    }

    /// Runs one step: forward pass, backward pass, update. Returns the loss.
    ///
    /// # Errors
    /// The loss is no longer finite.
    pub fn step(&mut self, x: &<E::Views as HostBatch>::Stacked, key: Key) -> Result<f32> {
        let pass = Pass::train(key, &solo()).at(self.precision);
        let rows = Rows::alone(self.labels.dim(0)?);
        let (h, encoder) = self.encoder.encode(x, &rows, &pass)?;
        let (logits, head) = self.head.forward(&h, &rows, &pass)?;
        let leaf = Var::from_tensor(&logits)?;
        let logits = leaf.as_tensor();
        let picked = logits.gather(&self.labels, D::Minus1)?;
        let loss = (logits.exp()?.sum_keepdim(D::Minus1)?.log()? - picked)?.mean_all()?;
        let store = loss.backward()?;
        let gradient = store.get(logits).ok_or_else(|| Error::new("the loss does not depend on the logits"))?;
        encoder.then(head).play(gradient, false)?;
        let gradients = self.params.gradients()?;
        self.optimizer.step(&self.params, &gradients, 0.01)?;
        let loss = loss.to_scalar::<f32>()?;
        if loss.is_finite() { Ok(loss) } else { Err(Error::new("the loss is no longer a finite number: nothing was timed")) }
    }

    /// The parameters; those of the encoder begin with `encoder.`.
    pub fn params(&self) -> &Params {
        &self.params
    }
}

/// Times a learner's step on `device`: its stages one after the other, then the whole step while loaders work ahead.
///
/// # Errors
/// The errors of the source and of the learner.
pub fn learner<T, S>(learner: &mut Dense<T>, source: &S, plan: &Plan, steps: usize, device: &Device) -> Result<Stages>
where
    T: Towers<Left: Send, Right: Send>,
    S: Source<Batch = Batch<T::Left, T::Right>>,
{
    let train = &plan.train;
    let key = Key::new(train.seed);
    let order =
        Order::new(source.per_epoch(), train.batch, plan.part, true, true, key).arranged_by(source).with_passes(learner.passes());
    let draw = |unit: usize| order.draw(source, unit, key.of("views"));
    let (steps, units) = (WARM + steps.max(1), order.units());

    let mut spent: [Vec<f64>; 5] = Default::default();
    for step in 0..steps {
        let mut laps = [0.0; 5];
        let mut last = Instant::now();
        let mut failed = Ok(());
        let pull = |unit: usize| draw(step * units + unit);
        learner.stages(&order.feed(step, key.of("step").at(step as u64), &pull), RATE, &mut |stage: Stage| {
            if let Err(error) = device.wait() {
                failed = Err(error);
            }
            laps[stage as usize] += milliseconds(last);
            last = Instant::now();
        })?;
        failed?;
        if step >= WARM {
            laps.into_iter().zip(&mut spent).for_each(|(lap, spent)| spent.push(lap));
        }
    }
    let [batch, forward, loss, backward, optimizer] = spent.map(|laps| Laps::of(laps).median());

    // More units than steps, so that loaders work beside the last steps, too.
    let (depth, first) = (2 * train.loaders.max(1), steps * units);
    let all = first..first + (steps + depth) * units;
    let total = Loader::run(train.loaders, depth, all, &draw, |loader| {
        Laps::run(steps - WARM, |step| {
            let pull = |unit: usize| loader.take(first + step * units + unit);
            let feed = order.feed(step, key.of("step").at((steps + step) as u64), &pull);
            learner.stages(&feed, RATE, &mut |_| ())?;
            device.wait()
        })
    })?;
    let pull = |unit: usize| draw(first + unit);
    let (done, calls) = device.timed(|| learner.stages(&order.feed(0, key.of("step"), &pull), RATE, &mut |_| ()))?;
    done?;
    Ok(Stages { batch, forward, backward, loss, optimizer, total: total.median(), calls })
}

/// Any rate takes the same time; with a small one the loss stays finite.
const RATE: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_leave_out_the_first_and_are_in_order() {
        let mut seen = Vec::new();
        let laps = Laps::run(3, |i| {
            seen.push(i);
            Ok(())
        });
        assert_eq!((seen, laps.unwrap().0.len()), (vec![0, 1, 2, 3, 4], 3));
        let laps = Laps::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((laps.best(), laps.median()), (1.0, 2.0));
        assert!(Laps::run(1, |_| Err(Error::new("no"))).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_grows_by_what_is_touched() {
        let before = Memory::now();
        let touched = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(before.grown() > 60.0, "{} MB", before.grown());
        drop(touched);
        assert!(before.grown() > 60.0, "the largest size stays");
    }
}
