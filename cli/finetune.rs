//! `ctk finetune`: a recipe with a `[task.finetune]`, made of a run's own, and trained as every recipe is.

use std::path::Path;

use ctk_core::data::labels::Amount;
use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use serde_json::json;

use crate::args::{Bn, Choices, Finetune, Optimizer, Tuning};
use crate::{Modalities, train};

pub fn run(args: Finetune, modalities: Modalities) -> Result<()> {
    let from = Checkpoint::open(&args.run)?;
    let modality = modality(&from, modalities)?;
    let of = Task { labels: args.labels, seed: args.seed, scratch: args.from_scratch };
    let mut recipe = recipe(&args.run, &from, args.data.as_deref(), of, &args.choices, &args.tuning)?;
    train::set(&mut recipe, &args.tuning.set)?;
    train::told(modality, &recipe, args.new.place(), &args.new)
}

/// The modality of a run, which must have tasks.
pub fn modality<'a>(of: &Checkpoint, modalities: Modalities<'a>) -> Result<&'a dyn Modality> {
    let modality = crate::modality(modalities, &of.manifest().modality)?;
    match modality.schema()["properties"].get("task") {
        Some(_) => Ok(modality),
        None => Err(Error::usage(format!("a run of {} cannot be fine-tuned or distilled", modality.name()))
            .at(of.folder().display())
            .hint("give a run of vision")),
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Task {
    pub labels: Amount,
    pub seed: u64,
    pub scratch: bool,
}

/// Rates to choose from: SimCLRv2's first, then larger ones, which training from scratch wants. Times √batch.
const RATES: [f64; 3] = [0.005, 0.02, 0.08];

/// The recipe of fine-tuning `run`, or of its network from scratch.
pub fn recipe(
    run: &Path,
    from: &Checkpoint,
    data: Option<&Path>,
    task: Task,
    choices: &Choices,
    tuning: &Tuning,
) -> Result<Recipe> {
    let Task { labels, seed, scratch } = task;
    let what = if scratch { "The same network trained from scratch" } else { "Fine-tuning" };
    let mut recipe = base(&format!("{what} with {labels} of the labels."), from.recipe(), tuning, data)?;
    let rates = if choices.rates.is_empty() { RATES.map(|rate| rate * scale(tuning)).to_vec() } else { choices.rates.clone() };
    optimizer(&mut recipe, tuning, rates[0], scratch)?;
    schedule(&mut recipe, 0.0)?;
    let epochs = epochs(labels, &choices.epochs, scratch);
    let key = |name: &str| format!("task.finetune.{name}");
    recipe.set(&key("from"), &train::quoted(run))?;
    recipe.set(&key("scratch"), &scratch.to_string())?;
    recipe.set(&key("labels"), &json!(labels).to_string())?;
    recipe.set(&key("seed"), &seed.to_string())?;
    network(&mut recipe, "finetune", tuning, scratch)?;
    recipe.set(&key("rates"), &json!(rates).to_string())?;
    recipe.set(&key("epochs"), &json!(epochs).to_string())?;
    recipe.set(&key("crops"), &json!(choices.crops).to_string())?;
    recipe.set(&key("folds"), &choices.folds.to_string())?;
    Ok(recipe)
}

/// Numbers of epochs to choose from. From scratch none is below the largest for fine-tuning, so updates are never fewer.
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

/// A trained recipe without what a task has of its own: loss, optimizer, schedule, measurements, and what was said of it.
pub fn base(title: &str, of: Recipe, tuning: &Tuning, data: Option<&Path>) -> Result<Recipe> {
    let lines = of.text().lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let mut recipe = Recipe::new("the recipe of this task", format!("# {title}\n{}\n", lines.trim()));
    for own in ["task", "predictor", "loss", "optimizer", "schedule", "eval", "encoder.resnet.weights"] {
        recipe.remove(own)?;
    }
    for own in ["max_steps", "part", "bn_groups"] {
        recipe.remove(&format!("train.{own}"))?;
    }
    if let Some(data) = data {
        recipe.set("data.path", &train::quoted(data))?;
    }
    recipe.set("train.batch", &tuning.batch.to_string())?;
    recipe.set("train.save_every", "10")?;
    Ok(recipe)
}

/// The optimizer by name. Weights are decayed from scratch alone: fine-tuning is short, and its start worth keeping.
pub fn optimizer(recipe: &mut Recipe, tuning: &Tuning, rate: f64, scratch: bool) -> Result<()> {
    let (name, decay) = match tuning.optimizer {
        Optimizer::Lars => ("lars", 1e-4),
        Optimizer::Sgd => ("sgd", 5e-4),
    };
    let decay = if scratch { decay } else { 0.0 };
    recipe.set(&format!("optimizer.{name}.rate"), &format!("{rate:?}"))?;
    recipe.set(&format!("optimizer.{name}.decay"), &format!("{decay:?}"))?;
    if tuning.optimizer == Optimizer::Sgd { recipe.set("optimizer.sgd.nesterov", "true") } else { Ok(()) }
}

/// A cosine after `warmup` epochs; rates grow with the batch's root.
pub fn schedule(recipe: &mut Recipe, warmup: f64) -> Result<()> {
    recipe.set("schedule.warmup", &format!("{warmup:?}"))?;
    recipe.set("schedule.decay", "cosine")?;
    recipe.set("schedule.scaling", "square-root")
}

/// What default rates are multiplied by.
pub fn scale(tuning: &Tuning) -> f64 {
    if tuning.optimizer == Optimizer::Sgd { 0.5 } else { 1.0 }
}

/// The part of a task that says which network it trains. Fresh values have no statistics that could be kept.
pub fn network(recipe: &mut Recipe, task: &str, tuning: &Tuning, scratch: bool) -> Result<()> {
    let bn = if tuning.bn == Bn::Frozen && !scratch { "frozen" } else { "train" };
    if let Some(layers) = tuning.from_layer {
        recipe.set(&format!("task.{task}.from_layer"), &layers.to_string())?;
    }
    recipe.set(&format!("task.{task}.bn"), bn)
}

#[cfg(test)]
mod tests {
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
}
