//! `ctk train`: recipe, plan, run, summary. And how every verb gets its recipe.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ctk_core::error::{Error, Kind, Result};
use ctk_core::modality::{Job, Modality, Summary};
use ctk_core::observer::Watch;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::{Place, Run};
use serde_json::{Value, json};

use crate::args::{NewRun, RecipeArgs, Train};
use crate::{Modalities, output, progress};

pub fn run(args: Train, modalities: Modalities) -> Result<()> {
    let modality = crate::modality(modalities, &args.modality)?;
    let (recipe, place) = match &args.resume {
        Some(folder) => (Run::recipe_of(folder)?, Place::Resume(folder.clone())),
        None => (begun(&args, modality)?, args.new.place()),
    };
    told(modality, &recipe, place, &args.new)
}

/// Trains `recipe` at `place` and tells what came of it.
pub fn told(modality: &dyn Modality, recipe: &Recipe, place: Place, new: &NewRun) -> Result<()> {
    let watch = progress::watch(new.show.quiet);
    let trained = train(modality, recipe, place, &new.device.device, watch, stop_on_interrupt()?)?;
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

/// The one way a recipe is trained, for people and for the matrix.
pub fn train(
    modality: &dyn Modality,
    recipe: &Recipe,
    place: Place,
    device: &str,
    watch: Box<dyn Watch>,
    stop: Arc<AtomicBool>,
) -> Result<Trained> {
    carry_out(modality.plan(recipe)?, modality, recipe, place, device, watch, stop)
}

/// Runs a job in a folder of its own.
pub fn carry_out(
    job: Box<dyn Job>,
    modality: &dyn Modality,
    recipe: &Recipe,
    place: Place,
    device: &str,
    watch: Box<dyn Watch>,
    stop: Arc<AtomicBool>,
) -> Result<Trained> {
    let device = ctk_core::device::device(device)?;
    let mut run = Run::new(place, modality.name(), recipe.clone(), device, watch, stop)?;
    // What was interrupted is saved, though it may be no checkpoint yet.
    let summary = job.run(&mut run).inspect_err(|e| {
        if e.kind() != Kind::Interrupted {
            run.abandon()
        }
    })?;
    let folder = run.folder()?.to_path_buf();
    let checkpoint = Checkpoint::open(&folder)?.folder().to_path_buf();
    Ok(Trained { run: folder, checkpoint, modality: modality.name(), summary })
}

/// The recipe of a new run: `--init` is a key of it, and names one where `--config` does not.
fn begun(args: &Train, modality: &dyn Modality) -> Result<Recipe> {
    let Some(init) = &args.init else { return recipe(&args.recipe, modality) };
    let from = Checkpoint::open(init)?;
    let of = &from.manifest().modality;
    if of != modality.name() {
        return Err(Error::usage(format!("this is a run of {of}, not of {}", modality.name())).at(init.display()));
    }
    let mut recipe = match &args.recipe.config {
        Some(_) => recipe(&args.recipe, modality)?,
        None => changed(from.recipe(), &args.recipe, modality)?,
    };
    recipe.set("train.init", &quoted(init))?;
    Ok(recipe)
}

/// The recipe that the arguments mean.
pub fn recipe(args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    let recipe = match &args.config {
        Some(file) => Recipe::read(file)?,
        None => Recipe::new(format!("the default {} recipe", modality.name()), modality.recipe(args.data.as_deref())?),
    };
    changed(recipe, args, modality)
}

/// `recipe` with the changes that the arguments ask for.
pub fn changed(mut recipe: Recipe, args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    if let Some(data) = &args.data {
        recipe.set("data.path", &quoted(data))?;
    }
    if args.fast {
        if modality.fast().is_empty() {
            return Err(Error::usage(format!("{} has no faster way to train", modality.name())).hint("leave out --fast"));
        }
        modality.fast().iter().try_for_each(|(key, value)| recipe.set(key, value))?;
    }
    set(&mut recipe, &args.set)?;
    Ok(recipe)
}

/// A path as a TOML string, or a folder named `3` would become a number.
pub fn quoted(path: &Path) -> String {
    Value::String(path.display().to_string()).to_string()
}

/// Carries out `--set`s.
pub fn set(recipe: &mut Recipe, assignments: &[String]) -> Result<()> {
    for assignment in assignments {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            Error::usage(format!("--set {assignment}: there is no `=`"))
                .hint("write it as section.key=value, as in --set train.batch=256")
        })?;
        recipe.set(key.trim(), value.trim())?;
    }
    Ok(())
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
