//! `ctk distill`: a recipe with a `[task.distill]`, made of the student's and the teacher's, and trained as every recipe is.

use std::path::{Path, PathBuf};

use ctk_core::error::{Error, Result};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;

use crate::args::{Distill, Tuning};
use crate::{Modalities, finetune, train};

pub fn run(args: Distill, modalities: Modalities) -> Result<()> {
    let teacher = Checkpoint::open(&args.teacher)?;
    let modality = finetune::modality(&teacher, modalities)?;
    let task = Task {
        student: args.student.as_deref().map(Recipe::read).transpose()?,
        from: args.from,
        temperature: args.temperature,
        alpha: args.alpha,
        epochs: args.epochs,
        rate: args.rate,
    };
    let mut recipe = recipe(&args.teacher, &teacher, args.data.as_deref(), &task, &args.tuning)?;
    train::set(&mut recipe, &args.tuning.set)?;
    train::told(modality, &recipe, args.new.place(), &args.new)
}

/// What is asked for; what is left out is as for self-distillation, or as from big to small where there is a student.
#[derive(Default)]
pub struct Task {
    pub student: Option<Recipe>,
    pub from: Option<PathBuf>,
    pub temperature: Option<f64>,
    pub alpha: f64,
    pub epochs: usize,
    pub rate: Option<f64>,
}

/// The recipe of distilling `teacher`.
pub fn recipe(teacher: &Path, of: &Checkpoint, data: Option<&Path>, task: &Task, tuning: &Tuning) -> Result<Recipe> {
    let taught: toml::Table = of.recipe().parse()?;
    let its = taught.get("task").and_then(|task| task.as_table()?.values().next()?.as_table()).ok_or_else(|| {
        Error::usage("this run has no classifier, so it cannot teach")
            .at(teacher.display())
            .hint("fine-tune it first: ctk finetune RUN --labels 1%")
    })?;
    let scratch_teacher = its.get("scratch").and_then(toml::Value::as_bool).unwrap_or(false);
    let its_start = its.get("from").and_then(toml::Value::as_str).filter(|_| !scratch_teacher).map(PathBuf::from);
    let from = task.from.clone().or(its_start.filter(|_| task.student.is_none()));
    let scratch = from.is_none();

    let title = match task.student {
        Some(_) => "Distillation into a student.",
        None => "Self-distillation.",
    };
    let mut recipe = finetune::base(title, task.student.clone().unwrap_or_else(|| of.recipe()), tuning, None)?;
    // The student learns on the teacher's data, whatever its recipe was written for.
    recipe.remove("data")?;
    for (key, value) in taught.get("data").and_then(toml::Value::as_table).into_iter().flatten() {
        recipe.set(&format!("data.{key}"), &value.to_string())?;
    }
    if let Some(data) = data {
        recipe.set("data.path", &train::quoted(data))?;
    }
    // The hold-out, where there is one to draw, hangs on it.
    if let Some(seed) = taught.get("train").and_then(|train| train.get("seed")) {
        recipe.set("train.seed", &seed.to_string())?;
    }
    let rate = task.rate.unwrap_or(finetune::scale(tuning) * if scratch { 0.075 } else { 0.02 });
    finetune::optimizer(&mut recipe, tuning, rate, scratch)?;
    let warmup = if scratch { task.epochs as f64 / 20.0 } else { 0.0 };
    finetune::schedule(&mut recipe, warmup)?;
    recipe.set("train.epochs", &task.epochs.to_string())?;

    let key = |name: &str| format!("task.distill.{name}");
    recipe.set(&key("teacher"), &train::quoted(teacher))?;
    if let Some(from) = &from {
        recipe.set(&key("from"), &train::quoted(from))?;
    }
    let temperature = task.temperature.unwrap_or(if task.student.is_some() { 1.0 } else { 0.1 });
    recipe.set(&key("temperature"), &format!("{temperature:?}"))?;
    recipe.set(&key("alpha"), &format!("{:?}", task.alpha))?;
    // The very labels that the teacher was given.
    for name in ["labels", "seed"] {
        if let Some(value) = its.get(name) {
            recipe.set(&key(name), &value.to_string())?;
        }
    }
    finetune::network(&mut recipe, "distill", tuning, scratch)?;
    Ok(recipe)
}
