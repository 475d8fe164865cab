//! Trains a recipe in a run folder, and prints the result.

use std::path::{Path, PathBuf};

use ctk_core::error::{Error, ErrorKind, Result};
use ctk_core::modality::{Job, Modality, Summary};
use ctk_core::process::Process;
use ctk_core::recipe::{Recipe, later};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::{Place, Run};
use serde_json::{Value, json};

use super::args::NewRun;
use super::{device, output, progress, recipe, signals};

/// Trains `recipe` in a new run and prints the result.
pub fn told(modality: &dyn Modality, recipe: &Recipe, new: &NewRun) -> Result<()> {
    report(&train(modality, recipe, new.place(), process(new, modality)?)?, new.show.json)
}

/// Continues the run in `folder`, by its recipe with the changes of `set`, and prints the result. With `accept`, also if data or recipe
/// differ from those of its checkpoint.
pub fn gone_on(modality: &dyn Modality, folder: &Path, set: &[String], accept: bool, new: &NewRun) -> Result<()> {
    let mut recipe = Run::recipe_of(folder)?;
    if let Ok(checkpoint) = Checkpoint::open(folder)
        && checkpoint.manifest().modality != modality.name()
    {
        let of = &checkpoint.manifest().modality;
        return Err(Error::usage(format!("this is a run of {of}, not of {}", modality.name()))
            .at(folder.display())
            .hint(format!("ctk train {of} --resume {}", folder.display())));
    }
    for assignment in set {
        let key = assignment.split('=').next().unwrap_or_default().trim();
        if !later::may_change(key) {
            return Err(Error::usage(format!(
                "{key} cannot change in a run that goes on: it would no longer be the same training"
            ))
            .at(folder.display())
            .hint(format!(
                "these can: {}; for others begin a new run with --init {}",
                later::MAY_CHANGE.join(", "),
                folder.display()
            )));
        }
    }
    let before = epochs(&recipe);
    recipe::set(&mut recipe, set)?;
    if let (Some(before), Some(after), false) = (before, epochs(&recipe), new.show.quiet)
        && before != after
    {
        output::say(format!(
            "note: the run now lasts {after} epochs, not {before}. From here on the schedule is that of {after} epochs, so the learning \
             rate jumps to its value at this step of that schedule"
        ));
    }
    let job = modality.plan(&recipe)?;
    let run = Run::new(Place::Resume(folder.to_path_buf()), modality.name(), recipe)?.accepting_changes(accept);
    report(&carry_out(job, run, process(new, modality)?)?, new.show.json)
}

/// The number of epochs that a recipe sets, if it sets one.
fn epochs(recipe: &Recipe) -> Option<i64> {
    recipe.text().parse::<toml::Table>().ok()?.get("train")?.get("epochs")?.as_integer()
}

/// A finished run and its figures.
pub struct Trained {
    pub run: PathBuf,
    pub checkpoint: PathBuf,
    pub modality: &'static str,
    pub summary: Summary,
}

impl Trained {
    /// All figures under their JSON names.
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

/// The process settings that the arguments of a new run ask for: device, progress, signals.
pub fn process(new: &NewRun, modality: &dyn Modality) -> Result<Process> {
    let device = device::open(&new.device.device, modality, new.show.quiet)?;
    Ok(Process::new(device).observed_by(progress::observer(new.show.quiet)).stopped_by(signals::stop()))
}

/// Trains a recipe. All verbs and the matrix train through this function.
pub fn train(modality: &dyn Modality, recipe: &Recipe, place: Place, process: Process) -> Result<Trained> {
    let recipe = match &place {
        // A resumed run uses the recipe that it began with.
        Place::Resume(folder) => Run::recipe_of(folder)?,
        Place::New(_) | Place::Numbered => completed(modality, recipe)?,
    };
    let run = Run::new(place, modality.name(), recipe.clone())?;
    carry_out(modality.plan(&recipe)?, run, process)
}

/// The recipe of a new run with every default written out. It is checked first, so that errors name lines that the user wrote.
pub fn completed(modality: &dyn Modality, recipe: &Recipe) -> Result<Recipe> {
    modality.plan(recipe)?;
    let mut recipe = recipe.clone();
    recipe.absolute(&modality.paths())?;
    modality.complete(&mut recipe)?;
    Ok(recipe)
}

/// Runs a job in its run folder.
pub fn carry_out(job: Box<dyn Job>, mut run: Run, mut process: Process) -> Result<Trained> {
    // An interrupted run's folder is kept, even if it holds no checkpoint yet.
    let summary = job.run(&mut run, &mut process).inspect_err(|e| {
        if e.kind() != ErrorKind::Interrupted {
            run.abandon()
        }
    })?;
    let folder = run.folder()?.to_path_buf();
    let checkpoint = Checkpoint::open(&folder)?.folder().to_path_buf();
    Ok(Trained { run: folder, checkpoint, modality: run.modality(), summary })
}

/// Prints the run's figures and the commands that come next.
fn report(trained: &Trained, json: bool) -> Result<()> {
    let mut figures = trained.figures();
    if json {
        figures["report"] = json!(trained.summary.text);
    }
    output::figures(json, &figures)?;
    if !json && !trained.summary.text.is_empty() {
        output::bytes(format!("\n{}", trained.summary.text).as_bytes())?;
    }
    if !json && !trained.summary.next.is_empty() {
        // A path with a space is quoted as one argument.
        let run = trained.run.display().to_string();
        let run = if run.contains(char::is_whitespace) { format!("'{run}'") } else { run };
        output::line("\nnext:")?;
        trained.summary.next.iter().try_for_each(|command| output::line(format!("  {}", command.replace("RUN", &run))))?;
    }
    Ok(())
}
