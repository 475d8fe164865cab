//! A recipe carried out in a folder of its own, and what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ctk_core::error::{Error, ErrorKind, Result};
use ctk_core::modality::{Job, Modality, Summary};
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::{Place, Run};
use serde_json::{Value, json};

use super::args::NewRun;
use super::{output, progress};

/// Trains `recipe` at `place` and tells what came of it.
pub fn told(modality: &dyn Modality, recipe: &Recipe, place: Place, new: &NewRun) -> Result<()> {
    let trained = train(modality, recipe, place, process(new)?)?;
    report(&trained, new.show.json)
}

/// A finished run.
pub struct Trained {
    pub run: PathBuf,
    pub checkpoint: PathBuf,
    pub modality: &'static str,
    pub summary: Summary,
}

impl Trained {
    /// Every figure under its JSON name.
    pub fn figures(&self) -> Value {
        let s = &self.summary;
        let mut figures = json!({
            "run": self.run.display().to_string(), "checkpoint": self.checkpoint.display().to_string(),
            "modality": self.modality, "steps": s.steps, "epochs": s.epochs, "loss": s.loss, "seconds": s.seconds,
        });
        s.figures.iter().for_each(|(name, value)| figures[*name] = value.clone());
        figures
    }
}

/// This process, as the arguments of a new run say.
pub fn process(new: &NewRun) -> Result<Process> {
    let device = ctk_core::device::device(&new.device.device)?;
    Ok(Process::new(device).observed_by(progress::observer(new.show.quiet)).stopped_by(stop_on_interrupt()?))
}

/// The one way a recipe is trained, for people and for the matrix.
pub fn train(modality: &dyn Modality, recipe: &Recipe, place: Place, process: Process) -> Result<Trained> {
    carry_out(modality.plan(recipe)?, modality, recipe, place, process)
}

/// Runs a job in a folder of its own.
pub fn carry_out(
    job: Box<dyn Job>,
    modality: &dyn Modality,
    recipe: &Recipe,
    place: Place,
    mut process: Process,
) -> Result<Trained> {
    let mut run = Run::new(place, modality.name(), recipe.clone())?;
    // What was interrupted is saved, though it may be no checkpoint yet.
    let summary = job.run(&mut run, &mut process).inspect_err(|e| {
        if e.kind() != ErrorKind::Interrupted {
            run.abandon()
        }
    })?;
    let folder = run.folder()?.to_path_buf();
    let checkpoint = Checkpoint::open(&folder)?.folder().to_path_buf();
    Ok(Trained { run: folder, checkpoint, modality: modality.name(), summary })
}

/// Prints what a run has to report.
fn report(trained: &Trained, json: bool) -> Result<()> {
    let mut figures = trained.figures();
    if json {
        figures["report"] = json!(trained.summary.text);
    }
    output::figures(json, &figures)?;
    if !json && !trained.summary.text.is_empty() {
        output::bytes(format!("\n{}", trained.summary.text).as_bytes())?;
    }
    Ok(())
}

/// A flag that Ctrl-C raises; a second Ctrl-C ends the program at once.
pub fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        output::say("stopping after this step, then saving; once more to stop at once");
    })
    .map_err(Error::new)?;
    Ok(stop)
}
