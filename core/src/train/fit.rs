//! The only training loop: pull, step, log, measure, save, keep the best; resume; stop when asked.

use std::time::Instant;

use candle_core::{DType, Tensor};
use serde_json::json;

use crate::data::feed::{Loader, Order};
use crate::data::source::Source;
use crate::error::{Error, Result};
use crate::observer::{Event, Progress};
use crate::process::Process;
use crate::rng::Key;
use crate::store::best::Best;
use crate::store::checkpoint::Checkpoint;
use crate::store::run::{Origin, Run};
use crate::train::learner::Learner;
use crate::train::plan::Plan;

/// Measures named figures of a learner, without changing it.
pub type Measure<'a, L> = Box<dyn FnMut(&L) -> Result<Vec<(String, f64)>> + 'a>;

/// Something measured on the learner every few epochs.
pub struct Probe<'a, L> {
    /// Epochs between two measurements.
    pub every: usize,
    /// What is measured.
    pub measure: Measure<'a, L>,
}

/// Measures one figure of a learner, without changing it.
pub type Figure<'a, L> = Box<dyn FnMut(&L) -> Result<f64> + 'a>;

/// What tells the best checkpoint: a figure of which more is better, measured whenever one is due to be saved.
pub struct Judge<'a, L> {
    /// Its JSON name.
    pub measure: &'static str,
    /// What it is measured on.
    pub on: &'static str,
    /// How many samples these are.
    pub samples: usize,
    /// Measures it.
    pub value: Figure<'a, L>,
}

impl<L> Judge<'_, L> {
    /// Which is the best after `step`: this one, where it is better than all `before`.
    fn best(&self, before: Option<Best>, step: usize, value: f64) -> Option<Best> {
        match before {
            Some(before) if before.value >= value => Some(before),
            _ => Some(Best { step, measure: self.measure.to_string(), value, on: self.on.to_string(), samples: self.samples }),
        }
    }
}

/// What the loop has to report.
#[derive(Clone, Debug, Default)]
pub struct Fitted {
    /// Steps done since the very start.
    pub steps: usize,
    /// Epochs done since the very start.
    pub epochs: f64,
    /// Mean loss over the last epoch that this process ran (or what it ran of it).
    pub loss: f64,
    /// Wall seconds this process spent in steps.
    pub seconds: f64,
    /// Samples that this process consumed.
    pub samples: usize,
    /// The best checkpoint since the very start, where that was measured.
    pub best: Option<Best>,
}

/// Trains `learner` on `source` as `plan` says, from where `run` is to go on, to the end or until `process` is told to stop.
///
/// Step s of epoch e sees samples, views and rate that are functions of (seed, e, s) alone, so a resumed run is the same run.
///
/// # Errors
/// Whatever drawing, stepping or writing met; a loss that is no longer finite; [`ErrorKind::Interrupted`](crate::error::ErrorKind)
/// after saving, when the run was asked to stop.
pub fn fit<S: Source, L: Learner<Batch = S::Batch>>(
    source: &S,
    learner: &mut L,
    plan: &Plan,
    probes: &mut [Probe<L>],
    run: &mut Run,
    process: &mut Process,
) -> Result<Fitted> {
    fit_judged(source, learner, plan, probes, None, run, process)
}

/// The same, and the checkpoint that `judge` finds the best, the first of equals, is kept beside the newest ones.
///
/// # Errors
/// As of [`fit`]; whatever the judge met.
pub fn fit_judged<S: Source, L: Learner<Batch = S::Batch>>(
    source: &S,
    learner: &mut L,
    plan: &Plan,
    probes: &mut [Probe<L>],
    mut judge: Option<Judge<L>>,
    run: &mut Run,
    process: &mut Process,
) -> Result<Fitted> {
    let train = &plan.train;
    let key = Key::new(train.seed);
    if source.is_empty() {
        return Err(Error::new("there is nothing to train on: the data is empty"));
    }
    let batch = train.batch.min(source.len());
    learner.join(process.world());
    let order = Order::new(source.len(), batch, plan.part, plan.shuffle, plan.drop_last, key)
        .of_rank(process.world().rank(), process.world().world())
        .with_passes(learner.passes());
    let (per_epoch, units) = (order.steps(), order.units());
    let last = (train.epochs * per_epoch).min(train.max_steps.unwrap_or(usize::MAX));
    let rates = plan.schedule.over(source.len(), batch, train.epochs, per_epoch);

    let mut best = None;
    let start = match origin(run, process)? {
        Some(checkpoint) => {
            learner.load(&checkpoint.reader())?;
            if judge.is_some() {
                best = Best::of(&checkpoint)?;
            }
            checkpoint.manifest().step
        }
        None => 0,
    };
    if let Some(best) = best.as_ref().filter(|_| process.writes()) {
        run.name_best(best)?;
    }
    rates.oddities(last).iter().for_each(|odd| process.tell(&Event::Note(odd)));
    process.tell(&Event::Started { step: start, steps: last });
    if start >= last && start > 0 {
        process.tell(&Event::Note("this run is finished already: nothing left to train"));
    }

    let draw = |unit: usize| order.draw(source, unit, key.of("views"));
    let mut log = Log::new(start, last, per_epoch, batch);
    Loader::run(train.loaders, 2 * train.loaders.max(1), start * units..last * units, &draw, |loader| {
        for step in start..last {
            if process.stopping() {
                log.flush(step, run, process)?;
                save(learner, step, train.keep, best.as_ref(), run, process)?;
                let stopped = Error::interrupted(format!("stopped after {step} of {last} steps; they are saved"));
                return Err(match run.existing() {
                    Some(folder) => {
                        stopped.hint(format!("go on with: ctk train {} --resume {}", plan.modality, folder.display()))
                    }
                    None => stopped,
                });
            }
            if step % per_epoch == 0 {
                log.epoch();
            }
            let pull = |unit: usize| loader.take(step * units + unit);
            let rate = rates.at(step);
            let feed = order.feed(step, key.of("step").at(step as u64), &pull).after(step as f64 / last as f64);
            let terms = learner.step(&feed, rate)?;
            log.add(terms.loss, terms.extras, rate);

            let done = step + 1;
            let epoch_ends = done % per_epoch == 0;
            if done % train.log_every == 0 || epoch_ends || done == last {
                log.flush(done, run, process)?;
            } else {
                process.tell(&Event::Tick { step: done });
            }
            let epoch = done / per_epoch;
            log.pause();
            if epoch_ends {
                for probe in probes.iter_mut().filter(|p| epoch % p.every == 0) {
                    let figures = (probe.measure)(learner)?;
                    let mut line = json!({ "step": done, "epoch": epoch });
                    figures.iter().for_each(|(name, value)| line[name] = json!(value));
                    if process.writes() {
                        run.metric(&line)?;
                    }
                    process.tell(&Event::Measured { epoch, figures: &figures });
                }
            }
            if done == last || (epoch_ends && epoch % train.save_every == 0) {
                if let Some(judge) = &mut judge {
                    let value = (judge.value)(learner)?;
                    let name = format!("checkpoint_{}", judge.measure);
                    if process.writes() {
                        run.metric(&json!({ "step": done, "epoch": epoch, name.as_str(): value }))?;
                    }
                    process.tell(&Event::Measured { epoch, figures: &[(name, value)] });
                    best = judge.best(best.take(), done, value);
                }
                save(learner, done, train.keep, best.as_ref(), run, process)?;
            }
            log.go_on();
        }
        Ok(())
    })?;
    process.tell(&Event::Finished);
    let steps = last.max(start);
    Ok(Fitted {
        steps,
        epochs: steps as f64 / per_epoch as f64,
        loss: log.epoch_loss(),
        seconds: log.seconds,
        samples: (steps - start) * batch,
        best,
    })
}

/// The checkpoint to go on from. The rank that writes makes the folder, or cuts what its checkpoint does not cover.
fn origin(run: &mut Run, process: &mut Process) -> Result<Option<Checkpoint>> {
    if !process.writes() {
        return run.latest();
    }
    let origin = run.resume()?;
    run.folder()?;
    Ok(match origin {
        Origin::New => None,
        Origin::NoCheckpoint => {
            process.tell(&Event::Note("this run has no whole checkpoint yet: starting from its beginning"));
            None
        }
        Origin::Checkpoint(checkpoint) => Some(checkpoint),
    })
}

/// Saves `learner` after `step`, where this rank writes.
fn save<L: Learner>(
    learner: &L,
    step: usize,
    keep: usize,
    best: Option<&Best>,
    run: &mut Run,
    process: &mut Process,
) -> Result<()> {
    if process.writes() {
        run.save_beside(best, step, keep, |w| learner.save(w))?;
        process.tell(&Event::Saved { step });
    }
    Ok(())
}

/// Losses and clocks between two lines of metrics. Scalars stay on the device until a line is due.
struct Log {
    losses: Vec<Tensor>,
    extras: Vec<(&'static str, Tensor)>,
    rate: f64,
    since: usize,
    clock: Instant,
    lap: f64,     // seconds in steps since the last line
    seconds: f64, // seconds in steps in all
    epoch: (f64, usize),
    steps: usize,
    per_epoch: usize,
    batch: usize,
}

impl Log {
    /// A log of steps after `since`, of `steps`, with `per_epoch` steps of `batch` samples in an epoch.
    fn new(since: usize, steps: usize, per_epoch: usize, batch: usize) -> Self {
        Log {
            losses: Vec::new(),
            extras: Vec::new(),
            rate: 0.0,
            since,
            clock: Instant::now(),
            lap: 0.0,
            seconds: 0.0,
            epoch: (0.0, 0),
            steps,
            per_epoch,
            batch,
        }
    }

    fn add(&mut self, loss: Tensor, extras: Vec<(&'static str, Tensor)>, rate: f64) {
        self.losses.push(loss.detach());
        self.extras = extras;
        self.rate = rate;
    }

    fn epoch(&mut self) {
        self.epoch = (0.0, 0);
    }

    fn epoch_loss(&self) -> f64 {
        self.epoch.0 / self.epoch.1.max(1) as f64
    }

    fn pause(&mut self) {
        let passed = self.clock.elapsed().as_secs_f64();
        self.lap += passed;
        self.seconds += passed;
        self.clock = Instant::now();
    }

    // What passed since `pause` (measuring, saving) was not training.
    fn go_on(&mut self) {
        self.clock = Instant::now();
    }

    fn flush(&mut self, step: usize, run: &mut Run, process: &mut Process) -> Result<()> {
        if self.losses.is_empty() {
            return Ok(());
        }
        self.pause();
        let losses = self.losses.iter().map(scalar).collect::<Result<Vec<f64>>>()?;
        let sum: f64 = losses.iter().sum();
        if !sum.is_finite() {
            return Err(Error::diverged(format!("the loss is no longer a finite number (around step {step})"))
                .hint("lower optimizer.*.rate; where the recipe has them, lengthen schedule.warmup or raise the temperature"));
        }
        self.epoch.0 += sum;
        self.epoch.1 += losses.len();
        let extras = self.extras.iter().map(|(name, t)| Ok((*name, scalar(t)?))).collect::<Result<Vec<_>>>()?;
        let progress = Progress {
            step,
            steps: self.steps,
            epoch: step as f64 / self.per_epoch as f64,
            loss: sum / losses.len() as f64,
            rate: self.rate,
            samples_per_second: ((step - self.since) * self.batch) as f64 / self.lap.max(1e-9),
            extras,
        };
        let mut line = json!({
            "step": step, "epoch": progress.epoch, "loss": progress.loss, "rate": progress.rate,
            "samples_per_second": progress.samples_per_second,
        });
        progress.extras.iter().for_each(|(name, value)| line[*name] = json!(value));
        if process.writes() {
            run.metric(&line)?;
        }
        process.tell(&Event::Step(&progress));
        self.losses.clear();
        self.since = step;
        self.lap = 0.0;
        Ok(())
    }
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?.into_iter().sum())
}
