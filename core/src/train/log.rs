//! The log of a run: collects losses and times between two lines of metrics, watches for collapse, and is saved with every checkpoint.

use std::time::Instant;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Context, Error, Result};
use crate::objective::Terms;
use crate::observer::{Event, Progress};
use crate::process::Process;
use crate::store::checkpoint::{Checkpoint, Writer};
use crate::store::run::Run;
use crate::train::health::Health;

/// Its file in a checkpoint.
const FILE: &str = "log.json";

/// A run whose mean loss is this many times the first one in size has diverged.
const DIVERGED: f64 = 1000.0;

/// The number of consecutive lines of metrics with collapsed embeddings after which the run warns.
const LINES: usize = 3;

/// The number of consecutive steps that may be skipped.
const LEFT_OUT: usize = 100;

/// The part of the log that is saved with a checkpoint. Floats are saved as their bits, because JSON may round them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Losses since the last line.
    losses: Vec<u64>,
    /// Sum and count of this epoch's losses up to the last line.
    epoch: (u64, usize),
    /// The mean loss of the first line.
    first: Option<u64>,
    /// Steps that were skipped.
    left_out: usize,
    /// Consecutive skipped steps up to now.
    row: usize,
    /// Consecutive lines with collapsed embeddings.
    collapsed: usize,
    /// Effective rank, spread and dimensions of the embeddings at the last line.
    health: Option<(u64, u64, usize)>,
    /// Whether measurements that were due after the checkpoint's step are missing.
    unmeasured: bool,
}

/// Losses and clocks between two lines of metrics. Scalars stay on the device until a line or a checkpoint is due.
pub(super) struct Log {
    state: State,
    fresh: Vec<Tensor>,
    extras: Vec<(&'static str, Tensor)>,
    embeddings: Option<Tensor>,
    rate: f64,
    since: usize,
    clock: Instant,
    lap: f64,     // seconds in steps since the last line
    seconds: f64, // seconds in steps in all
    steps: usize,
    per_epoch: usize,
    batch: usize,
}

impl Log {
    /// A log of a run of `steps`, with `per_epoch` steps of `batch` samples in an epoch.
    pub fn new(steps: usize, per_epoch: usize, batch: usize) -> Self {
        Log {
            state: State::default(),
            fresh: Vec::new(),
            extras: Vec::new(),
            embeddings: None,
            rate: 0.0,
            since: 0,
            clock: Instant::now(),
            lap: 0.0,
            seconds: 0.0,
            steps,
            per_epoch,
            batch,
        }
    }

    /// Restores the log from `checkpoint`. Returns whether the measurements due after its step were made.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<bool> {
        let reader = checkpoint.reader();
        if reader.has(FILE) {
            self.state = serde_json::from_slice(&reader.bytes(FILE)?).at(checkpoint.folder().join(FILE).display())?;
        }
        Ok(!self.state.unmeasured)
    }

    /// Starts the clock, after `step` steps.
    pub fn begin(&mut self, step: usize) {
        (self.since, self.clock) = (step, Instant::now());
    }

    /// Adds the terms of one step, which was made at learning rate `rate`.
    pub fn add(&mut self, terms: Terms, rate: f64) {
        self.rate = rate;
        if terms.left_out {
            self.state.left_out += 1;
            self.state.row += 1;
            return;
        }
        self.state.row = 0;
        self.fresh.push(terms.loss.detach());
        self.extras = terms.extras;
        self.embeddings = terms.embeddings;
    }

    /// Begins an epoch: its mean loss starts anew.
    pub fn epoch(&mut self) {
        self.state.epoch = (0f64.to_bits(), 0);
    }

    /// The mean loss of the epoch up to the last line.
    pub fn epoch_loss(&self) -> f64 {
        f64::from_bits(self.state.epoch.0) / self.state.epoch.1.max(1) as f64
    }

    /// Wall-clock seconds spent in steps.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The spread of the embeddings at the last line.
    pub fn health(&self) -> Option<Health> {
        let (rank, spread, width) = self.state.health?;
        Some(Health { effective_rank: f64::from_bits(rank), spread: f64::from_bits(spread), width })
    }

    /// The number of skipped steps.
    pub fn left_out(&self) -> usize {
        self.state.left_out
    }

    /// Stops the clock, so that measuring and saving are not counted, until [`Log::go_on`].
    pub fn pause(&mut self) {
        let passed = self.clock.elapsed().as_secs_f64();
        self.lap += passed;
        self.seconds += passed;
        self.clock = Instant::now();
    }

    /// Starts the clock again.
    pub fn go_on(&mut self) {
        self.clock = Instant::now();
    }

    /// Reads the losses of the steps up to `step` back to the host.
    ///
    /// # Errors
    /// A loss is not finite, or too many consecutive steps were skipped.
    pub fn read(&mut self, step: usize) -> Result<()> {
        for loss in std::mem::take(&mut self.fresh) {
            let loss = scalar(&loss)?;
            if !loss.is_finite() {
                return Err(diverged(format!("the loss is no longer a finite number (around step {step})")));
            }
            self.state.losses.push(loss.to_bits());
        }
        if self.state.row >= LEFT_OUT {
            return Err(diverged(format!(
                "{} steps in a row had a loss or a gradient that is not finite (around step {step})",
                self.state.row
            )));
        }
        Ok(())
    }

    /// Writes the log into a checkpoint; `measured` says whether the measurements due after this step were made.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, measured: bool, writer: &mut Writer) -> Result<()> {
        let state = State { unmeasured: !measured, ..self.state.clone() };
        writer.bytes(FILE, &serde_json::to_vec(&state)?)
    }

    /// Writes the line of metrics after `step`.
    ///
    /// # Errors
    /// As for [`Log::read`]; a loss a thousand times the first one; a file that cannot be written.
    pub fn flush(&mut self, step: usize, run: &mut Run, process: &mut Process) -> Result<()> {
        self.read(step)?;
        if self.state.losses.is_empty() {
            return Ok(());
        }
        self.pause();
        let losses = std::mem::take(&mut self.state.losses);
        let sum: f64 = losses.iter().map(|bits| f64::from_bits(*bits)).sum();
        let loss = sum / losses.len() as f64;
        let first = f64::from_bits(*self.state.first.get_or_insert(loss.to_bits()));
        if loss.abs() > DIVERGED * (first.abs() + 1.0) {
            return Err(diverged(format!(
                "the loss is {loss:.3e} around step {step}, and was {first:.3} at the start: training has diverged"
            )));
        }
        let (before, count) = self.state.epoch;
        self.state.epoch = ((f64::from_bits(before) + sum).to_bits(), count + losses.len());
        let mut extras = self.extras.iter().map(|(name, t)| Ok((*name, scalar(t)?))).collect::<Result<Vec<_>>>()?;
        self.look(step, &mut extras, process)?;
        if self.state.left_out > 0 {
            extras.push(("left_out", self.state.left_out as f64));
        }
        let progress = Progress {
            step,
            steps: self.steps,
            epoch: step as f64 / self.per_epoch as f64,
            loss,
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
        self.since = step;
        self.lap = 0.0;
        Ok(())
    }

    /// Measures the embeddings, and warns once if they have collapsed.
    fn look(&mut self, step: usize, extras: &mut Vec<(&'static str, f64)>, process: &mut Process) -> Result<()> {
        let health = self.embeddings.take().map(|rows| Health::of(&rows)).transpose()?.flatten();
        self.state.health = health.map(|h| (h.effective_rank.to_bits(), h.spread.to_bits(), h.width));
        let Some(health) = health else { return Ok(()) };
        extras.extend([("effective_rank", health.effective_rank), ("spread", health.spread)]);
        self.state.collapsed = if health.collapsed() { self.state.collapsed + 1 } else { 0 };
        if self.state.collapsed == LINES {
            process.tell(&Event::Note(&format!("warning: the embeddings have collapsed (step {step}): {health}. {ADVICE}")));
        }
        Ok(())
    }

    /// Repeats the warnings at the end of the run.
    pub fn last_words(&self, process: &mut Process) {
        if let Some(health) = self.health().filter(|_| self.state.collapsed >= LINES) {
            process.tell(&Event::Note(&format!("warning: the embeddings had collapsed at the end: {health}. {ADVICE}")));
        }
        if self.state.left_out > 0 {
            let count = self.state.left_out;
            process.tell(&Event::Note(&format!(
                "warning: {count} of {} steps were left out, because their loss or a gradient was not finite",
                self.steps
            )));
        }
    }
}

/// The advice after a collapse.
const ADVICE: &str =
    "The features hardly distinguish images: first try a lower learning rate, a longer warm-up or a larger batch";

/// The error of a run that has diverged.
pub(super) fn diverged(what: String) -> Error {
    Error::diverged(what)
        .hint("lower optimizer.*.rate; where the recipe has them, lengthen schedule.warmup or raise the temperature")
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?.into_iter().sum())
}
