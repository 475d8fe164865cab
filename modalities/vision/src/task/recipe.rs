//! Writes the recipe of a task: the run's own recipe, with the task's sections in place of those for pretraining.

use std::path::{Path, PathBuf};

use ctk_core::data::labels::Amount;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::{Distill, Finetune, Task, TaskOptimizer, TaskRequest};
use ctk_core::{Error, Result};
use serde_json::json;

use crate::encoder;

/// The recipe for `request`; `from` is the checkpoint of the run that it names.
///
/// # Errors
/// A run without a classifier, which cannot be a teacher.
pub(crate) fn recipe(from: &Checkpoint, request: &TaskRequest) -> Result<Recipe> {
    match &request.task {
        Task::Finetune(task) => finetune(from, task, request),
        Task::Distill(task) => distill(from, task, request),
    }
}

/// The optimizer, the batch, and the epochs of distillation, if the request has none.
const OPTIMIZER: TaskOptimizer = TaskOptimizer::Lars;
const BATCH: usize = 64;
const EPOCHS: usize = 100;

/// Learning rates to choose from: SimCLRv2's first, then larger ones, which training from scratch needs. Multiplied by √batch.
const RATES: [f64; 3] = [0.005, 0.02, 0.08];

/// The recipe for fine-tuning a run, or for training its network from scratch.
fn finetune(from: &Checkpoint, task: &Finetune, request: &TaskRequest) -> Result<Recipe> {
    let Finetune { labels, seed, scratch, .. } = *task;
    if let Some(test) = &task.test {
        return Err(Error::usage("images to test on belong to the data: a folder `test` beside `train`")
            .at(test.display())
            .hint("leave out --test"));
    }
    if let Some(scheme) = &task.scheme {
        return Err(Error::usage(format!("--scheme {scheme}: images are fine-tuned in one way")).hint("leave out --scheme"));
    }
    let what = if scratch { "The same network trained from scratch" } else { "Fine-tuning" };
    let mut recipe =
        base(&format!("{what} with {labels} of the labels."), from.recipe(), request.batch, request.data.as_deref())?;
    let by = request.optimizer.unwrap_or(OPTIMIZER);
    let rates = if task.rates.is_empty() { RATES.map(|rate| rate * scale(by)).to_vec() } else { task.rates.clone() };
    optimizer(&mut recipe, by, rates[0], scratch)?;
    schedule(&mut recipe, 0.0)?;
    let epochs = epochs(labels, &task.epochs, scratch);
    let key = |name: &str| format!("task.finetune.{name}");
    recipe.set_path(&key("from"), &request.run)?;
    recipe.set(&key("scratch"), &scratch.to_string())?;
    recipe.set(&key("labels"), &json!(labels).to_string())?;
    recipe.set(&key("seed"), &seed.to_string())?;
    network(&mut recipe, "finetune", request, scratch)?;
    recipe.set(&key("rates"), &json!(rates).to_string())?;
    recipe.set(&key("epochs"), &json!(epochs).to_string())?;
    recipe.set(&key("crops"), &json!(task.crops).to_string())?;
    recipe.set(&key("folds"), &task.folds.to_string())?;
    Ok(recipe)
}

/// Numbers of epochs to choose from. For training from scratch none is below the largest for fine-tuning, so that it never has fewer
/// updates.
fn epochs(labels: Amount, given: &[usize], scratch: bool) -> Vec<usize> {
    let published = match labels {
        Amount::Percent(percent) if percent > 2.0 => 30,
        _ => 60,
    };
    let epochs = if given.is_empty() { vec![published] } else { given.to_vec() };
    let (low, high) = (epochs.iter().min().copied().unwrap_or(1).max(1), epochs.iter().max().copied().unwrap_or(1));
    let factor = if scratch { high.div_ceil(low) } else { 1 };
    epochs.into_iter().map(|epochs| epochs * factor).collect()
}

/// The recipe for distilling the run `of`, the teacher.
fn distill(of: &Checkpoint, task: &Distill, request: &TaskRequest) -> Result<Recipe> {
    for (flag, given) in [("--width", task.width.is_some()), ("--vocabulary", task.vocabulary.is_some())] {
        if given {
            let what = format!("{flag} is for students of sentences, and this teacher reads images");
            return Err(Error::usage(what).hint("--student names a recipe, whose [encoder] is the student's"));
        }
    }
    let taught: toml::Table = of.recipe().parse()?;
    let its = taught.get("task").and_then(|task| task.as_table()?.values().next()?.as_table()).ok_or_else(|| {
        Error::usage("this run has no classifier, so it cannot teach")
            .at(request.run.display())
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
    let mut recipe = base(title, task.student.clone().unwrap_or_else(|| of.recipe()), request.batch, None)?;
    // The student trains on the teacher's data, whatever data its own recipe names.
    recipe.remove("data")?;
    for (key, value) in taught.get("data").and_then(toml::Value::as_table).into_iter().flatten() {
        recipe.set(&format!("data.{key}"), &value.to_string())?;
    }
    if let Some(data) = &request.data {
        recipe.set_path("data.path", data)?;
    }
    // The hold-out, if one is drawn, depends on it.
    if let Some(seed) = taught.get("train").and_then(|train| train.get("seed")) {
        recipe.set("train.seed", &seed.to_string())?;
    }
    let (by, epochs) = (request.optimizer.unwrap_or(OPTIMIZER), task.epochs.unwrap_or(EPOCHS));
    let rate = task.rate.unwrap_or(scale(by) * if scratch { 0.075 } else { 0.02 });
    optimizer(&mut recipe, by, rate, scratch)?;
    let warmup = if scratch { epochs as f64 / 20.0 } else { 0.0 };
    schedule(&mut recipe, warmup)?;
    recipe.set("train.epochs", &epochs.to_string())?;

    let key = |name: &str| format!("task.distill.{name}");
    recipe.set_path(&key("teacher"), &request.run)?;
    if let Some(from) = &from {
        recipe.set_path(&key("from"), from)?;
    }
    let temperature = task.temperature.unwrap_or(if task.student.is_some() { 1.0 } else { 0.1 });
    recipe.set(&key("temperature"), &format!("{temperature:?}"))?;
    recipe.set(&key("alpha"), &format!("{:?}", task.alpha.unwrap_or(1.0)))?;
    // The same labels that the teacher was given.
    for name in ["labels", "seed"] {
        if let Some(value) = its.get(name) {
            recipe.set(&key(name), &value.to_string())?;
        }
    }
    network(&mut recipe, "distill", request, scratch)?;
    Ok(recipe)
}

/// The recipe of a trained run without what a task replaces: loss, optimizer, schedule, measurements, and comments about them.
fn base(title: &str, of: Recipe, batch: Option<usize>, data: Option<&Path>) -> Result<Recipe> {
    let lines = of.text().lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut recipe = Recipe::new("the recipe of this task", format!("# {title}\n{}\n", lines.trim()));
    let own = ["task", "predictor", "loss", "optimizer", "schedule", "checkpoint", "eval"];
    for own in own.iter().chain(encoder::WEIGHTS) {
        recipe.remove(own)?;
    }
    for own in ["max_steps", "part", "bn_groups", "clip"] {
        recipe.remove(&format!("train.{own}"))?;
    }
    if let Some(data) = data {
        recipe.set_path("data.path", data)?;
    }
    recipe.set("train.batch", &batch.unwrap_or(BATCH).to_string())?;
    recipe.set("train.save_every", "10")?;
    Ok(recipe)
}

/// Sets the optimizer. Weight decay is used only from scratch: fine-tuning is short, and should stay near its start.
fn optimizer(recipe: &mut Recipe, optimizer: TaskOptimizer, rate: f64, scratch: bool) -> Result<()> {
    let (name, decay) = match optimizer {
        TaskOptimizer::Lars => ("lars", 1e-4),
        TaskOptimizer::Sgd => ("sgd", 5e-4),
    };
    let decay = if scratch { decay } else { 0.0 };
    recipe.set(&format!("optimizer.{name}.rate"), &format!("{rate:?}"))?;
    recipe.set(&format!("optimizer.{name}.decay"), &format!("{decay:?}"))?;
    if optimizer == TaskOptimizer::Sgd { recipe.set("optimizer.sgd.nesterov", "true") } else { Ok(()) }
}

/// Sets a cosine schedule after `warmup` epochs; rates grow with the square root of the batch.
fn schedule(recipe: &mut Recipe, warmup: f64) -> Result<()> {
    recipe.set("schedule.warmup", &format!("{warmup:?}"))?;
    recipe.set("schedule.decay", "cosine")?;
    recipe.set("schedule.scaling", "square-root")
}

/// The factor of default rates.
fn scale(optimizer: TaskOptimizer) -> f64 {
    if optimizer == TaskOptimizer::Sgd { 0.5 } else { 1.0 }
}

/// The keys of a task that say which network it trains. A network from scratch has no statistics to keep.
fn network(recipe: &mut Recipe, task: &str, request: &TaskRequest, scratch: bool) -> Result<()> {
    let bn = if request.frozen_statistics && !scratch { "frozen" } else { "train" };
    if let Some(layers) = request.from_layer {
        recipe.set(&format!("task.{task}.from_layer"), &layers.to_string())?;
    }
    recipe.set(&format!("task.{task}.bn"), bn)
}

#[cfg(test)]
mod tests {
    use ctk_core::store::checkpoint::Manifest;

    use super::*;

    #[test]
    fn scratch_has_at_least_as_many_updates() {
        for given in [vec![], vec![10], vec![30, 60], vec![7, 20, 50]] {
            for labels in [Amount::Percent(1.0), Amount::Percent(10.0), Amount::PerClass(5)] {
                let (tuned, scratch) = (epochs(labels, &given, false), epochs(labels, &given, true));
                assert!(scratch.iter().min() >= tuned.iter().max(), "{tuned:?} {scratch:?}");
            }
        }
        assert_eq!((epochs(Amount::Percent(1.0), &[], false), epochs(Amount::Percent(10.0), &[], false)), (vec![60], vec![30]));
    }

    const NETWORK: &str = "[data]\ntrain = 24\ntest = 9\n\n[pairs]\nsize = 8\neval_size = 8\n\n\
        [encoder.resnet]\ndepth = 20 # small\nwidth = 0.25\n\n[head]\nlayers = 2\nwidth = 4\n\n";

    fn pretraining() -> Recipe {
        let text = format!(
            "# A comment of pretraining.\n{NETWORK}[predictor]\nhidden = 8\n\n[loss.byol]\nmomentum = 0.9\n\n\
             [optimizer.sgd]\nrate = 0.1\n\n[schedule]\nwarmup = 0\n\n\
             [train]\nseed = 7\nepochs = 5\nbatch = 8\nmax_steps = 2\npart = 8\nbn_groups = 2\n\n[eval]\n"
        );
        Recipe::new("pretraining", text)
    }

    fn saved(folder: &Path, recipe: &Recipe) -> Checkpoint {
        std::fs::create_dir_all(folder).unwrap();
        Checkpoint::write(folder, Manifest::new("vision", 1, 0, recipe), |_| Ok(())).unwrap()
    }

    /// Stored cells of studies are compared with these recipes, so no character may change.
    #[test]
    fn recipes_of_fine_tuning_are_written_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let run = saved(folder.path(), &pretraining());
        let task = Finetune {
            labels: Amount::PerClass(4),
            test: None,
            scheme: None,
            seed: 0,
            scratch: false,
            rates: vec![0.02],
            epochs: vec![1],
            crops: vec![0.5],
            folds: 2,
        };
        let request = TaskRequest {
            run: PathBuf::from("run"),
            data: None,
            optimizer: Some(TaskOptimizer::Lars),
            batch: Some(12),
            from_layer: None,
            frozen_statistics: true,
            task: Task::Finetune(task.clone()),
        };
        let schedule = "[schedule]\nwarmup = 0.0\ndecay = \"cosine\"\nscaling = \"square-root\"\n\n";
        let tuned = format!(
            "# Fine-tuning with 4-per-class of the labels.\n{NETWORK}\
             [train]\nseed = 7\nepochs = 5\nbatch = 12\nsave_every = 10\n\n\
             [optimizer.lars]\nrate = 0.02\ndecay = 0.0\n\n{schedule}\
             [task.finetune]\nfrom = \"run\"\nscratch = false\nlabels = \"4-per-class\"\nseed = 0\nbn = \"frozen\"\nrates = [0.02]\n\
             epochs = [1]\ncrops = [0.5]\nfolds = 2\n"
        );
        assert_eq!(recipe(&run, &request).unwrap().text(), tuned);

        let from_scratch = Finetune {
            labels: Amount::Percent(10.0),
            seed: 3,
            scratch: true,
            rates: vec![0.1, 1e-5],
            epochs: vec![1, 3],
            crops: Vec::new(),
            ..task
        };
        let request = TaskRequest {
            optimizer: Some(TaskOptimizer::Sgd),
            batch: Some(64),
            from_layer: Some(0),
            task: Task::Finetune(from_scratch),
            ..request
        };
        let scratch = format!(
            "# The same network trained from scratch with 10% of the labels.\n{NETWORK}\
             [train]\nseed = 7\nepochs = 5\nbatch = 64\nsave_every = 10\n\n\
             [optimizer.sgd]\nrate = 0.1\ndecay = 0.0005\nnesterov = true\n\n{schedule}\
             [task.finetune]\nfrom = \"run\"\nscratch = true\nlabels = \"10%\"\nseed = 3\nfrom_layer = 0\nbn = \"train\"\n\
             rates = [0.1,0.00001]\nepochs = [3,9]\ncrops = []\nfolds = 2\n"
        );
        assert_eq!(recipe(&run, &request).unwrap().text(), scratch);
    }

    #[test]
    fn recipes_of_distillation_are_written_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let pretrained = saved(&folder.path().join("run"), &pretraining());
        let tuned = "[task.finetune]\nfrom = \"run\"\nlabels = \"4-per-class\"\nseed = 0\n";
        let tuned = Recipe::new("tuned", format!("# Tuned.\n{NETWORK}[train]\nseed = 7\nepochs = 5\nbatch = 12\n\n{tuned}"));
        let teacher = saved(&folder.path().join("tuned"), &tuned);
        let task = Distill {
            student: None,
            from: None,
            temperature: None,
            alpha: Some(1.0),
            epochs: Some(1),
            rate: None,
            width: None,
            vocabulary: None,
        };
        let request = TaskRequest {
            run: PathBuf::from("tuned"),
            data: None,
            optimizer: Some(TaskOptimizer::Lars),
            batch: Some(12),
            from_layer: None,
            frozen_statistics: true,
            task: Task::Distill(task.clone()),
        };
        // A comment above the first section is removed with that section.
        let network = NETWORK.strip_prefix("[data]\ntrain = 24\ntest = 9\n").unwrap();
        let own = format!(
            "{network}[train]\nseed = 7\nepochs = 1\nbatch = 12\nsave_every = 10\n\n[data]\ntest = 9\ntrain = 24\n\n\
             [optimizer.lars]\nrate = 0.02\ndecay = 0.0\n\n\
             [schedule]\nwarmup = 0.0\ndecay = \"cosine\"\nscaling = \"square-root\"\n\n\
             [task.distill]\nteacher = \"tuned\"\nfrom = \"run\"\ntemperature = 0.1\nalpha = 1.0\nlabels = \"4-per-class\"\nseed = 0\n\
             bn = \"frozen\"\n"
        );
        assert_eq!(recipe(&teacher, &request).unwrap().text(), own);

        let student = "# A small student.\n[encoder.resnet]\ndepth = 32\n\n[train]\nseed = 1\n";
        let student = Distill { student: Some(Recipe::new("small", student)), alpha: Some(0.5), epochs: Some(3), ..task };
        let other = TaskRequest {
            optimizer: Some(TaskOptimizer::Sgd),
            batch: Some(64),
            from_layer: Some(0),
            task: Task::Distill(student),
            ..request.clone()
        };
        let expected = "# Distillation into a student.\n[encoder.resnet]\ndepth = 32\n\n\
            [train]\nseed = 7\nbatch = 64\nsave_every = 10\nepochs = 3\n\n[data]\ntest = 9\ntrain = 24\n\n\
            [optimizer.sgd]\nrate = 0.0375\ndecay = 0.0005\nnesterov = true\n\n\
            [schedule]\nwarmup = 0.15\ndecay = \"cosine\"\nscaling = \"square-root\"\n\n\
            [task.distill]\nteacher = \"tuned\"\ntemperature = 1.0\nalpha = 0.5\nlabels = \"4-per-class\"\nseed = 0\nfrom_layer = 0\n\
            bn = \"train\"\n";
        assert_eq!(recipe(&teacher, &other).unwrap().text(), expected);

        let error = recipe(&pretrained, &request).unwrap_err().to_string();
        assert!(error.contains("no classifier") && error.contains("tuned") && error.contains("hint: "), "{error}");
    }
}
