//! The only training loop: draw a batch, step, log, measure, save, keep the best checkpoint; resume; stop on request.
//!
//! A checkpoint holds everything that the next step depends on, and the losses for the next line of metrics, so a resumed run equals an
//! uninterrupted one. Measurements at the end of an epoch are made before its checkpoint is written. If the process is asked to end
//! meanwhile, the checkpoint records that they are missing, and a resumed run begins with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::data::distinct::Arranged;
use crate::data::feed::{Loader, Order};
use crate::data::source::Source;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Event;
use crate::process::Process;
use crate::recipe::Every;
use crate::rng::Key;
use crate::store::best::Best;
use crate::store::checkpoint::Checkpoint;
use crate::store::run::Run;
use crate::train::health::Health;
use crate::train::learner::Learner;
use crate::train::log::Log;
use crate::train::plan::Plan;

/// Measures named figures of a learner, without changing it.
pub type Measure<'a, L> = Box<dyn FnMut(&L) -> Result<Vec<(String, f64)>> + 'a>;

/// A measurement of the learner that is repeated every few epochs.
pub struct Probe<'a, L> {
    /// Epochs between two measurements.
    pub every: usize,
    /// The measurement.
    pub measure: Measure<'a, L>,
}

/// Measures one figure of a learner, without changing it.
pub type Figure<'a, L> = Box<dyn FnMut(&L) -> Result<f64> + 'a>;

/// The measure that decides which checkpoint is the best. More is better; it is taken whenever a checkpoint is saved.
pub struct Judge<'a, L> {
    /// Its JSON name.
    pub measure: &'static str,
    /// The data that it is measured on.
    pub on: &'static str,
    /// The number of samples of that data.
    pub samples: usize,
    /// The measurement.
    pub value: Figure<'a, L>,
}

impl<L> Judge<'_, L> {
    /// The best checkpoint after `step`: this one, if it is better than all `before`.
    fn best(&self, before: Option<Best>, step: usize, value: f64) -> Option<Best> {
        match before {
            Some(before) if before.value >= value => Some(before),
            _ => Some(Best { step, measure: self.measure.to_string(), value, on: self.on.to_string(), samples: self.samples }),
        }
    }
}

/// The result of the training loop.
#[derive(Clone, Debug, Default)]
pub struct Fitted {
    /// Steps since the start of the run, over all processes.
    pub steps: usize,
    /// Epochs since the start of the run.
    pub epochs: f64,
    /// Mean loss over the last epoch that this process ran (or the part of it that it ran).
    pub loss: f64,
    /// Wall-clock seconds that this process spent in steps.
    pub seconds: f64,
    /// Samples that this process used.
    pub samples: usize,
    /// The best checkpoint since the start of the run, if that is measured.
    pub best: Option<Best>,
    /// The spread of the embeddings at the last logged step, if the loss compares embeddings.
    pub health: Option<Health>,
    /// Steps since the start of the run that were skipped because they were not finite.
    pub left_out: usize,
    /// How the source arranged the last epoch that this process ran.
    pub arranged: Arranged,
}

impl Fitted {
    /// The figures besides the loss, under JSON names.
    pub fn figures(&self) -> Vec<(&'static str, serde_json::Value)> {
        let mut figures = Vec::new();
        if let Some(Health { effective_rank, spread, .. }) = self.health {
            figures.extend([("effective_rank", json!(effective_rank)), ("spread", json!(spread))]);
        }
        if self.left_out > 0 {
            figures.push(("left_out", json!(self.left_out)));
        }
        let Arranged { moved, unplaced } = self.arranged;
        figures
            .extend([("moved", moved), ("unplaced", unplaced)].into_iter().filter(|(_, n)| *n > 0).map(|(k, n)| (k, json!(n))));
        figures
    }
}

/// Trains `learner` on `source` by `plan`, from the checkpoint of `run` or from the start, until the end or until `process` is asked to
/// stop.
///
/// The samples, views and rate of step s of epoch e are functions of (seed, e, s) alone, so a resumed run equals an uninterrupted one.
///
/// A learner of one number, which follows the mean of its batches:
///
/// ```
/// use ctk_core::data::{feed::Feed, source::Source};
/// use ctk_core::optim::Schedule;
/// use ctk_core::recipe::{Decay, Recipe, Scaling, ScheduleRecipe, TrainRecipe};
/// use ctk_core::store::checkpoint::{Reader, Writer};
/// use ctk_core::store::run::{Place, Run};
/// use ctk_core::train::{fit::fit, learner::Learner, plan::Plan};
/// use ctk_core::{Device, Result, Tensor, objective::Terms, process::Process, rng::Key};
///
/// struct Numbers(Vec<f64>);
///
/// impl Source for Numbers {
///     type Batch = Vec<f64>;
///
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn draw(&self, samples: &[u32], _: Key) -> Result<Vec<f64>> {
///         Ok(samples.iter().map(|&sample| self.0[sample as usize]).collect())
///     }
/// }
///
/// struct Mean(f64);
///
/// impl Learner for Mean {
///     type Batch = Vec<f64>;
///
///     fn step(&mut self, feed: &Feed<Vec<f64>>, rate: f64) -> Result<Terms> {
///         let batch = feed.part(0)?;
///         let error = self.0 - batch.iter().sum::<f64>() / batch.len() as f64;
///         self.0 -= rate * error;
///         Ok(Terms::of(Tensor::new(error * error, &candle_core::Device::Cpu)?))
///     }
///
///     fn save(&self, writer: &mut Writer) -> Result<()> {
///         writer.tensors("mean.safetensors", &[("mean".to_string(), Tensor::new(self.0, &candle_core::Device::Cpu)?)])
///     }
///
///     fn load(&mut self, reader: &Reader) -> Result<()> {
///         self.0 = reader.tensors("mean.safetensors")?["mean"].to_scalar()?;
///         Ok(())
///     }
/// }
///
/// let constant = ScheduleRecipe { warmup: 0.0, decay: Decay::Constant, scaling: Scaling::None, ..Default::default() };
/// let train = TrainRecipe { epochs: 20, batch: 2, ..Default::default() };
/// let recipe = Recipe::new("mean.toml", "");
/// let plan = Plan::new("mean", &recipe, train, Schedule::new(&constant, 0.1))?;
/// let source = Numbers(vec![1.0, 2.0, 3.0, 4.0]);
///
/// let folder = tempfile::tempdir()?;
/// let mut run = Run::new(Place::New(folder.path().join("run")), "mean", recipe.clone())?;
/// let mut mean = Mean(0.0);
/// let fitted = fit(&source, &mut mean, &plan, &mut [], &mut run, &mut Process::new(Device::Cpu))?;
/// assert_eq!(fitted.steps, 40); // 20 epochs of two batches.
/// assert!((mean.0 - 2.5).abs() < 0.5, "{}", mean.0);
///
/// // The run goes on from its checkpoint: all steps are done, and the learner is what it was.
/// drop(run);
/// let mut run = Run::new(Place::Resume(folder.path().join("run")), "mean", recipe)?;
/// let mut again = Mean(0.0);
/// fit(&source, &mut again, &plan, &mut [], &mut run, &mut Process::new(Device::Cpu))?;
/// assert_eq!(again.0, mean.0);
/// # Ok::<(), ctk_core::Error>(())
/// ```
///
/// # Errors
/// A batch cannot be drawn, a step fails, or a file cannot be written; the state is saved first if it is whole. The loss is not finite, or
/// a thousand times the first one. [`ErrorKind::Interrupted`] if the run was asked to stop; it has been saved.
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

/// As [`fit`], and the best checkpoint according to `judge` (of equal ones the first) is kept beside the newest ones.
///
/// # Errors
/// As for [`fit`]; the errors of the judge.
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
    let samples = source.per_epoch();
    let batch = train.batch.min(samples);
    learner.join(process.world());
    let order = Order::new(samples, batch, plan.part, plan.shuffle, plan.drop_last, key)
        .arranged_by(source)
        .of_rank(process.world().rank(), process.world().world())
        .with_passes(learner.passes());
    let (per_epoch, units) = (order.steps(), order.units());
    let last = (train.epochs * per_epoch).min(train.max_steps.unwrap_or(usize::MAX));
    let rates = plan.schedule.over(samples, batch, train.epochs, per_epoch);

    let _listening = process.listen();
    let mut kept = Kept { plan, last, log: Log::new(last, per_epoch, batch), best: None, run, process };
    let (mut start, mut measured) = (0, true);
    if let Some(checkpoint) = kept.origin()? {
        learner.load(&checkpoint.reader())?;
        if judge.is_some() {
            kept.best = Best::of(&checkpoint)?;
        }
        start = checkpoint.manifest().step;
        measured = kept.log.restore(&checkpoint)?;
    }
    rates.oddities(last).iter().for_each(|odd| kept.process.tell(&Event::Note(odd)));
    kept.process.tell(&Event::Started { step: start, steps: last.max(start) });
    if start > last {
        let note = format!("this run has {start} steps, and its recipe now ends after {last}: nothing left to train");
        kept.process.tell(&Event::Note(&note));
    } else if start == last && start > 0 {
        kept.process.tell(&Event::Note("this run is finished already: nothing left to train"));
    }
    kept.log.begin(start);
    let mut saved_at = Instant::now();
    let mut due = |done: usize| match plan.saves.every {
        Every::Time(time) => {
            let due = saved_at.elapsed() >= time;
            if due {
                saved_at = Instant::now();
            }
            due
        }
        Every::Steps(steps) => done.is_multiple_of(steps),
        Every::Epochs(epochs) => done.is_multiple_of(epochs.saturating_mul(per_epoch)),
    };
    // The measurements that are due at the end of an epoch, and the best checkpoint after them. They are reported when all are made.
    let mut measure = |done: usize, learner: &L, saving: bool, kept: &mut Kept| {
        let epoch = done / per_epoch;
        let mut found = Vec::new();
        if done.is_multiple_of(per_epoch) {
            for probe in probes.iter_mut().filter(|p| epoch.is_multiple_of(p.every)) {
                found.push((probe.measure)(learner)?);
            }
        }
        if let (Some(judge), true) = (&mut judge, saving) {
            let value = (judge.value)(learner)?;
            kept.best = judge.best(kept.best.take(), done, value);
            found.push(vec![(format!("checkpoint_{}", judge.measure), value)]);
        }
        for figures in found {
            let mut line = json!({ "step": done, "epoch": epoch });
            figures.iter().for_each(|(name, value)| line[name] = json!(value));
            if kept.process.writes() {
                kept.run.metric(&line)?;
            }
            kept.process.tell(&Event::Measured { epoch, figures: &figures });
        }
        Ok::<_, Error>(())
    };
    if !measured {
        let made_up = measure(start, learner, due(start) || start == last, &mut kept);
        made_up.map_err(|e| if e.kind() == ErrorKind::Interrupted { kept.stopped(start) } else { e })?;
    }
    kept.name_best()?;

    let draw = |unit: usize| order.draw(source, unit, key.of("views"));
    Loader::run(train.loaders, 2 * train.loaders.max(1), start * units..last * units, &draw, |loader| {
        for step in start..last {
            let asked = kept.process.shall_save();
            if kept.process.stopping() || asked {
                kept.save(learner, step, true)?;
            }
            if kept.process.stopping() {
                return Err(kept.stopped(step));
            }
            if step % per_epoch == 0 {
                kept.log.epoch();
            }
            // If a step fails half-way, the state is not whole, and is not saved.
            let begun = AtomicBool::new(false);
            let pull = |unit: usize| {
                let part = loader.take(step * units + unit)?;
                begun.store(true, Ordering::Relaxed);
                Ok(part)
            };
            let rate = rates.at(step);
            let feed = order.feed(step, key.of("step").at(step as u64), &pull).after(step as f64 / last as f64);
            let terms = match learner.step(&feed, rate) {
                Ok(terms) => terms,
                Err(e) if begun.load(Ordering::Relaxed) => return Err(e),
                Err(e) => return Err(kept.saved(e, learner, step, true)),
            };
            kept.log.add(terms, rate);

            let done = step + 1;
            let epoch_ends = done % per_epoch == 0;
            if done % train.log_every == 0 || epoch_ends || done == last {
                kept.log.flush(done, kept.run, kept.process)?;
            } else {
                kept.process.tell(&Event::Tick { step: done });
            }
            kept.log.pause();
            let saving = due(done) || done == last;
            if (epoch_ends || saving)
                && let Err(e) = measure(done, learner, saving, &mut kept)
            {
                if e.kind() == ErrorKind::Interrupted {
                    kept.save(learner, done, false)?;
                    return Err(kept.stopped(done));
                }
                return Err(kept.saved(e, learner, done, false));
            }
            if saving {
                kept.save(learner, done, true)?;
            }
            kept.log.go_on();
        }
        Ok(())
    })?;
    let Kept { log, best, process, .. } = kept;
    log.last_words(process);
    let arranged = order.arranged();
    if arranged.unplaced > 0 {
        process.tell(&Event::Note(&format!(
            "in the last epoch {} of {samples} samples stood in a batch with an equal one, or with another positive of their anchor: there \
             was no batch without one; smaller batches (train.batch) leave fewer of them",
            arranged.unplaced
        )));
    }
    process.tell(&Event::Finished);
    let steps = last.max(start);
    Ok(Fitted {
        steps,
        epochs: steps as f64 / per_epoch as f64,
        loss: log.epoch_loss(),
        seconds: log.seconds(),
        samples: (steps - start) * batch,
        best,
        health: log.health(),
        left_out: log.left_out(),
        arranged,
    })
}

/// The loop's state besides the learner, its run folder and its process.
struct Kept<'a> {
    plan: &'a Plan,
    /// The number of steps.
    last: usize,
    log: Log,
    /// The best checkpoint so far, if that is measured.
    best: Option<Best>,
    run: &'a mut Run,
    process: &'a mut Process,
}

impl Kept<'_> {
    /// The checkpoint to resume from. The rank that writes makes the folder, or removes what the checkpoint does not cover.
    fn origin(&mut self) -> Result<Option<Checkpoint>> {
        if !self.process.writes() {
            return self.run.latest();
        }
        let origin = self.run.resume()?;
        self.run.folder()?;
        origin.notes.iter().for_each(|note| self.process.tell(&Event::Note(note)));
        Ok(origin.checkpoint)
    }

    /// Makes `checkpoints/best` stand for the best checkpoint, if this rank writes.
    fn name_best(&mut self) -> Result<()> {
        match self.best.as_ref().filter(|_| self.process.writes()) {
            Some(best) => self.run.name_best(best),
            None => Ok(()),
        }
    }

    /// Saves `learner` after `step`, if this rank writes; `measured` says whether the measurements due after this step were made.
    fn save<L: Learner>(&mut self, learner: &L, step: usize, measured: bool) -> Result<()> {
        if self.process.writes() {
            self.log.read(step)?;
            self.run.save_beside(self.best.as_ref(), step, self.plan.saves.keep, |writer| {
                learner.save(writer)?;
                self.log.save(measured, writer)
            })?;
            self.process.tell(&Event::Saved { step });
        }
        Ok(())
    }

    /// Returns `error` after saving the training before it, if that is possible.
    fn saved<L: Learner>(&mut self, error: Error, learner: &L, step: usize, measured: bool) -> Error {
        // A run without a step needs no checkpoint; it leaves no trace.
        if step == 0 {
            return error;
        }
        match self.save(learner, step, measured) {
            Ok(()) => match self.resume_command() {
                Some(command) => error.at(format!("after {step} steps, which are saved: {command} goes on")),
                None => error,
            },
            Err(e) => error.at(format!("after {step} steps, which could not be saved either: {}", e.what())),
        }
    }

    /// The error of a run that was asked to stop.
    fn stopped(&self, step: usize) -> Error {
        let stopped = Error::interrupted(format!("stopped after {step} of {} steps; they are saved", self.last));
        match self.resume_command() {
            Some(command) => stopped.hint(format!("go on with: {command}")),
            None => stopped,
        }
    }

    /// The command that resumes the run, once it has a folder.
    fn resume_command(&self) -> Option<String> {
        let folder = self.run.existing()?;
        Some(format!("ctk train {} --resume {}", self.plan.modality, folder.display()))
    }
}
