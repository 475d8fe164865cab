//! `[task.*]` of a recipe and its checks.

use std::path::PathBuf;

use ctk_core::data::labels::Amount;
use ctk_core::nn::pass::Statistics;
use ctk_core::recipe::{EvalRecipe, HeadRecipe, MOST, MOST_EPOCHS, Recipe};
use ctk_core::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::EncoderRecipe;

/// The largest number of values to choose from in a list; every combination is trained.
const MOST_CHOICES: usize = 100;

/// `[task.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TaskRecipe {
    /// Fine-tuning: train a classifier together with the network, with labels.
    Finetune(FinetuneRecipe),
    /// Distillation: train a network on a fine-tuned network's predictions, with or without labels.
    Distill(DistillRecipe),
}

impl TaskRecipe {
    /// The run that it begins with: the network to fine-tune, or the teacher.
    pub fn from(&self) -> Option<&PathBuf> {
        match self {
            TaskRecipe::Finetune(task) => task.from.as_ref(),
            TaskRecipe::Distill(task) => Some(&task.teacher),
        }
    }
}

/// `[task.finetune]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneRecipe {
    /// The run to start from; its hold-out is kept.
    pub from: Option<PathBuf>,
    /// Start from fresh weights instead: the supervised baseline, on the same images.
    pub scratch: bool,
    /// How many training images keep their labels: `1%`, `5-per-class`, `100%`.
    pub labels: Amount,
    /// Seed of the choice of these images, their folds, their order and views, and of fresh weights; `train.seed` is that of the hold-out.
    pub seed: u64,
    /// Layers of the projection head that are kept and fine-tuned as a part of the encoder: 0 to `head.layers`. Default: 1, as in SimCLRv2,
    /// or 0 if there is no head.
    pub from_layer: Option<usize>,
    /// The statistics that batch normalisation uses while training.
    pub bn: Normalisation,
    /// Peak learning rates to choose from, in place of the optimizer's; empty: only the optimizer's.
    pub rates: Vec<f64>,
    /// Numbers of epochs to choose from; empty: `train.epochs`.
    pub epochs: Vec<usize>,
    /// Smallest crops to choose from, as fractions of the area; empty: that of `pairs.crop`.
    pub crops: Vec<f64>,
    /// Folds of the cross-validation on the labelled images.
    pub folds: usize,
    /// Whether to run the cross-validation even if there is nothing to choose, so that `ctk eval classify --calibrate` has labels that were
    /// not trained on. Trains the network once more for each fold.
    pub calibrate: bool,
}

impl Default for FinetuneRecipe {
    fn default() -> Self {
        FinetuneRecipe {
            from: None,
            scratch: false,
            labels: Amount::default(),
            seed: 0,
            from_layer: None,
            bn: Normalisation::Train,
            rates: Vec::new(),
            epochs: Vec::new(),
            crops: Vec::new(),
            folds: 5,
            calibrate: false,
        }
    }
}

/// `[task.distill]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DistillRecipe {
    /// The teacher, a fine-tuned run.
    pub teacher: PathBuf,
    /// The run that the student starts from; default: fresh weights.
    pub from: Option<PathBuf>,
    /// Temperature by which both networks' logits are divided: .1 for self-distillation, 1 from a large network to a small one.
    pub temperature: f64,
    /// The weight of the teacher's predictions in the loss, 0 to 1; labels have the rest.
    pub alpha: f64,
    /// How many training images keep their labels, if `alpha` is below 1.
    pub labels: Amount,
    /// Seed of the choice of these images, the order and views of all images, and of fresh weights; `train.seed` is that of the hold-out.
    pub seed: u64,
    /// Layers of the student's projection head that are kept: as for fine-tuning.
    pub from_layer: Option<usize>,
    /// The statistics that batch normalisation uses while training.
    pub bn: Normalisation,
}

impl Default for DistillRecipe {
    fn default() -> Self {
        DistillRecipe {
            teacher: PathBuf::new(),
            from: None,
            temperature: 1.0,
            alpha: 1.0,
            labels: Amount::default(),
            seed: 0,
            from_layer: None,
            bn: Normalisation::Train,
        }
    }
}

/// The statistics that batch normalisation uses while a task trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// Those of the batch; running statistics are updated (SimCLRv2).
    Train,
    /// The running statistics, which are not updated.
    Frozen,
}

impl Normalisation {
    pub(super) fn statistics(self) -> Statistics {
        match self {
            Normalisation::Train => Statistics::Update,
            Normalisation::Frozen => Statistics::Frozen,
        }
    }
}

impl TaskRecipe {
    /// Checks every value; errors point at its line in `text`.
    pub(crate) fn check(&self, text: &Recipe, encoder: &EncoderRecipe, head: &HeadRecipe, eval: &EvalRecipe) -> Result<()> {
        let fresh = encoder.architecture().weights().is_none();
        text.require(fresh, &encoder.key("weights"), "a task starts from a run, or from fresh values")?;
        let own = "a task is measured on the test images once, at its end: leave this out";
        text.require(eval.knn.is_none(), "eval.knn", own)?;
        text.require(eval.linear_probe.is_none(), "eval.linear-probe", own)?;
        let layers = |at: Option<usize>, key: &str| {
            let there = head.layers;
            let what =
                if there == 0 { "there is no projection head".into() } else { format!("the projection head has {there} layers") };
            text.require(at.unwrap_or(0) <= there, key, what).hint("--from-layer 0 starts from the encoder alone")
        };
        match self {
            TaskRecipe::Finetune(task) => {
                let key = |name: &str| format!("task.finetune.{name}");
                layers(task.from_layer, &key("from_layer"))?;
                text.require(task.scratch || task.from.is_some(), &key("from"), "names the run to start from; or set `scratch`")?;
                for (name, length) in [("rates", task.rates.len()), ("epochs", task.epochs.len()), ("crops", task.crops.len())] {
                    let what = format!("must be 0 to {MOST_CHOICES} values to choose from, and has {length}");
                    text.require(length <= MOST_CHOICES, &key(name), what)?;
                }
                task.rates.iter().try_for_each(|rate| text.positive(&key("rates"), *rate, MOST))?;
                task.epochs.iter().try_for_each(|epochs| text.within(&key("epochs"), *epochs, 1..=MOST_EPOCHS))?;
                task.crops.iter().try_for_each(|share| text.positive(&key("crops"), *share, 1.0))?;
                text.within(&key("folds"), task.folds, 2..=100)
            }
            TaskRecipe::Distill(task) => {
                let key = |name: &str| format!("task.distill.{name}");
                layers(task.from_layer, &key("from_layer"))?;
                text.require(!task.teacher.as_os_str().is_empty(), &key("teacher"), "names the fine-tuned run that teaches")?;
                text.factor(&key("temperature"), task.temperature, "; SimCLRv2 uses .1 and 1")?;
                text.positive(&key("alpha"), task.alpha, 1.0)
            }
        }
    }

    /// How many training images keep their labels, and the seed of the choice; for a distilled network, those of its teacher.
    pub(crate) fn labels(&self) -> (Amount, u64) {
        match self {
            TaskRecipe::Finetune(task) => (task.labels, task.seed),
            TaskRecipe::Distill(task) => (task.labels, task.seed),
        }
    }

    /// Layers of the projection head that are kept.
    pub(crate) fn kept(&self, head: &HeadRecipe) -> usize {
        let given = match self {
            TaskRecipe::Finetune(task) => task.from_layer,
            TaskRecipe::Distill(task) => task.from_layer,
        };
        kept(given, head)
    }
}

/// Layers of the projection head that are kept, if so many are asked for, or by default.
pub(super) fn kept(from_layer: Option<usize>, head: &HeadRecipe) -> usize {
    from_layer.unwrap_or(head.layers.min(1))
}
