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
    let mut log = Log::new(last, per_epoch, batch);
    let mut best = None;
    let (mut start, mut measured) = (0, true);
    if let Some(checkpoint) = origin(run, process)? {
        learner.load(&checkpoint.reader())?;
        if judge.is_some() {
            best = Best::of(&checkpoint)?;
        }
        start = checkpoint.manifest().step;
        measured = log.restore(&checkpoint)?;
    }
    if let Some(best) = best.as_ref().filter(|_| process.writes()) {
        run.name_best(best)?;
    }
    rates.oddities(last).iter().for_each(|odd| process.tell(&Event::Note(odd)));
    process.tell(&Event::Started { step: start, steps: last });
    if start >= last && start > 0 {
        process.tell(&Event::Note("this run is finished already: nothing left to train"));
    }
    log.begin(start);
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
    let mut measure = |done: usize, learner: &L, saving: bool, best: &mut Option<Best>, run: &mut Run, process: &mut Process| {
        let epoch = done / per_epoch;
        let mut found = Vec::new();
        if done.is_multiple_of(per_epoch) {
            for probe in probes.iter_mut().filter(|p| epoch.is_multiple_of(p.every)) {
                found.push((probe.measure)(learner)?);
            }
        }
        if let (Some(judge), true) = (&mut judge, saving) {
            let value = (judge.value)(learner)?;
            *best = judge.best(best.take(), done, value);
            found.push(vec![(format!("checkpoint_{}", judge.measure), value)]);
        }
        for figures in found {
            let mut line = json!({ "step": done, "epoch": epoch });
            figures.iter().for_each(|(name, value)| line[name] = json!(value));
            if process.writes() {
                run.metric(&line)?;
            }
            process.tell(&Event::Measured { epoch, figures: &figures });
        }
        Ok::<_, Error>(())
    };
    if !measured {
        let made_up = measure(start, learner, due(start) || start == last, &mut best, run, process);
        made_up.map_err(|e| if e.kind() == ErrorKind::Interrupted { stopped(start, last, plan, run) } else { e })?;
        if let Some(best) = best.as_ref().filter(|_| process.writes()) {
            run.name_best(best)?;
        }
    }

    let draw = |unit: usize| order.draw(source, unit, key.of("views"));
    Loader::run(train.loaders, 2 * train.loaders.max(1), start * units..last * units, &draw, |loader| {
        for step in start..last {
            let asked = process.shall_save();
            if process.stopping() || asked {
                save(learner, step, &mut log, true, plan, best.as_ref(), run, process)?;
            }
            if process.stopping() {
                return Err(stopped(step, last, plan, run));
            }
            if step % per_epoch == 0 {
                log.epoch();
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
                Err(e) => return Err(saved(e, learner, step, &mut log, true, plan, best.as_ref(), run, process)),
            };
            log.add(terms, rate);

            let done = step + 1;
            let epoch_ends = done % per_epoch == 0;
            if done % train.log_every == 0 || epoch_ends || done == last {
                log.flush(done, run, process)?;
            } else {
                process.tell(&Event::Tick { step: done });
            }
            log.pause();
            let saving = due(done) || done == last;
            if (epoch_ends || saving)
                && let Err(e) = measure(done, learner, saving, &mut best, run, process)
            {
                if e.kind() == ErrorKind::Interrupted {
                    save(learner, done, &mut log, false, plan, best.as_ref(), run, process)?;
                    return Err(stopped(done, last, plan, run));
                }
                return Err(saved(e, learner, done, &mut log, false, plan, best.as_ref(), run, process));
            }
            if saving {
                save(learner, done, &mut log, true, plan, best.as_ref(), run, process)?;
            }
            log.go_on();
        }
        Ok(())
    })?;
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

/// The checkpoint to go on from. The rank that writes makes the folder, or cuts what its checkpoint does not cover.
fn origin(run: &mut Run, process: &mut Process) -> Result<Option<Checkpoint>> {
    if !process.writes() {
        return run.latest();
    }
    let origin = run.resume()?;
    run.folder()?;
    origin.notes.iter().for_each(|note| process.tell(&Event::Note(note)));
    Ok(origin.checkpoint)
}

/// Saves `learner` after `step`, where this rank writes; `measured` says whether what is due after this step was measured.
#[expect(clippy::too_many_arguments, reason = "the loop's whole state, in one place")]
fn save<L: Learner>(
    learner: &L,
    step: usize,
    log: &mut Log,
    measured: bool,
    plan: &Plan,
    best: Option<&Best>,
    run: &mut Run,
    process: &mut Process,
) -> Result<()> {
    if process.writes() {
        log.read(step)?;
        run.save_beside(best, step, plan.saves.keep, |writer| {
            learner.save(writer)?;
            log.save(measured, writer)
        })?;
        process.tell(&Event::Saved { step });
    }
    Ok(())
}

/// `error`, after saving what was trained before it, where that can be saved.
#[expect(clippy::too_many_arguments, reason = "as of save")]
fn saved<L: Learner>(
    error: Error,
    learner: &L,
    step: usize,
    log: &mut Log,
    measured: bool,
    plan: &Plan,
    best: Option<&Best>,
    run: &mut Run,
    process: &mut Process,
) -> Error {
    // A run without a step is not worth a checkpoint: it leaves no trace.
    if step == 0 {
        return error;
    }
    match save(learner, step, log, measured, plan, best, run, process) {
        Ok(()) => match run.existing() {
            Some(folder) => {
                let folder = folder.display();
                error.at(format!("after {step} steps, which are saved: ctk train {} --resume {folder} goes on", plan.modality))
            }
            None => error,
        },
        Err(e) => error.at(format!("after {step} steps, which could not be saved either: {}", e.what())),
    }
}

/// What a run that was asked to stop ends with.
fn stopped(step: usize, last: usize, plan: &Plan, run: &Run) -> Error {
    let stopped = Error::interrupted(format!("stopped after {step} of {last} steps; they are saved"));
    match run.existing() {
        Some(folder) => stopped.hint(format!("go on with: ctk train {} --resume {}", plan.modality, folder.display())),
        None => stopped,
    }
}
