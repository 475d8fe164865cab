//! The only training loop: pull, step, log, measure, save, keep the best; resume; stop when asked.
//!
//! A checkpoint holds all that the next step depends on, also what the next line of metrics is made of, so a run that goes on is the run
//! that was not stopped. What is measured at the end of an epoch is measured before its checkpoint is written, unless the process was
//! asked to end meanwhile: then the checkpoint says so, and measuring is what the run goes on with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

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
    /// How embeddings lay at the last logged step, where a loss compares them.
    pub health: Option<Health>,
    /// Steps that were left out because they were not finite, since the very start.
    pub left_out: usize,
}

impl Fitted {
    /// What there is to say of the training beside its loss, under JSON names.
    pub fn figures(&self) -> Vec<(&'static str, serde_json::Value)> {
        let mut figures = Vec::new();
        if let Some(Health { effective_rank, spread, .. }) = self.health {
            figures.extend([("effective_rank", json!(effective_rank)), ("spread", json!(spread))]);
        }
        if self.left_out > 0 {
            figures.push(("left_out", json!(self.left_out)));
        }
        figures
    }
}

/// Trains `learner` on `source` as `plan` says, from where `run` is to go on, to the end or until `process` is told to stop.
///
/// Step s of epoch e sees samples, views and rate that are functions of (seed, e, s) alone, so a resumed run is the same run.
///
/// # Errors
/// Whatever drawing, stepping or writing met, after saving where the state is whole; a loss that is no longer finite, or a thousand times
/// what it was; [`ErrorKind::Interrupted`] after saving, when the run was asked to stop.
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
    kept.process.tell(&Event::Started { step: start, steps: last });
    if start >= last && start > 0 {
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
    // What is measured as an epoch ends, and which checkpoint is then the best. It is told when all of it was measured.
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
            // What a step has begun to change is no state to go on from.
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
    })
}

/// What the loop keeps of a run beside the learner, and where it writes it and tells of it.
struct Kept<'a> {
    plan: &'a Plan,
    /// Steps in all.
    last: usize,
    log: Log,
    /// The best checkpoint so far, where that is measured.
    best: Option<Best>,
    run: &'a mut Run,
    process: &'a mut Process,
}

impl Kept<'_> {
    /// The checkpoint to go on from. The rank that writes makes the folder, or cuts what its checkpoint does not cover.
    fn origin(&mut self) -> Result<Option<Checkpoint>> {
        if !self.process.writes() {
            return self.run.latest();
        }
        let origin = self.run.resume()?;
        self.run.folder()?;
        origin.notes.iter().for_each(|note| self.process.tell(&Event::Note(note)));
        Ok(origin.checkpoint)
    }

    /// Makes `checkpoints/best` stand for the best one, where this rank writes.
    fn name_best(&mut self) -> Result<()> {
        match self.best.as_ref().filter(|_| self.process.writes()) {
            Some(best) => self.run.name_best(best),
            None => Ok(()),
        }
    }

    /// Saves `learner` after `step`, where this rank writes; `measured` says whether what is due after this step was measured.
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

    /// `error`, after saving what was trained before it, where that can be saved.
    fn saved<L: Learner>(&mut self, error: Error, learner: &L, step: usize, measured: bool) -> Error {
        // A run without a step is not worth a checkpoint: it leaves no trace.
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

    /// What a run that was asked to stop ends with.
    fn stopped(&self, step: usize) -> Error {
        let stopped = Error::interrupted(format!("stopped after {step} of {} steps; they are saved", self.last));
        match self.resume_command() {
            Some(command) => stopped.hint(format!("go on with: {command}")),
            None => stopped,
        }
    }

    /// The command that goes on with the run, once it has a folder.
    fn resume_command(&self) -> Option<String> {
        let folder = self.run.existing()?;
        Some(format!("ctk train {} --resume {}", self.plan.modality, folder.display()))
    }
}
