//! `[task.*]` of a recipe and its checks.

use std::path::PathBuf;

use ctk_core::data::labels::Amount;
use ctk_core::nn::pass::Statistics;
use ctk_core::recipe::{EvalRecipe, HeadRecipe, MOST, MOST_EPOCHS, Recipe};
use ctk_core::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::EncoderRecipe;

/// Values of a list to choose from, at most: each with each is trained.
const MOST_CHOICES: usize = 100;

/// `[task.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TaskRecipe {
    /// Train a classifier together with the network, with labels.
    Finetune(FinetuneRecipe),
    /// Train a network on what a fine-tuned one says of images, with or without labels.
    Distill(DistillRecipe),
}

impl TaskRecipe {
    /// The run that it begins from: the network to fine-tune, or the teacher.
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
    /// The run whose network it starts from, and whose hold-out it keeps.
    pub from: Option<PathBuf>,
    /// Start from fresh values instead: the supervised baseline, on the same images.
    pub scratch: bool,
    /// How many training images keep their labels: `1%`, `5-per-class`, `100%`.
    pub labels: Amount,
    /// What the choice of these images, their folds, their order and views, and fresh values hang on; `train.seed` stays that of the
    /// hold-out.
    pub seed: u64,
    /// Layers of the projection head that stay, and are fine-tuned as a part of the encoder: 0 to `head.layers`. Absent: 1, as
    /// SimCLRv2's, or 0 where there is no head.
    pub from_layer: Option<usize>,
    /// What batch normalisation normalises by while training.
    pub bn: Normalisation,
    /// Peak rates to choose from, in place of the optimizer's; empty: that one.
    pub rates: Vec<f64>,
    /// Numbers of epochs to choose from; empty: `train.epochs`.
    pub epochs: Vec<usize>,
    /// Smallest crops to choose from, shares of the area; empty: that of `pairs.crop`.
    pub crops: Vec<f64>,
    /// Parts of the labelled images that are held out in turn to choose by.
    pub folds: usize,
    /// Hold these parts out in turn also where there is nothing to choose, so that `ctk eval classify --calibrate` has labels that were
    /// not trained on. Trains the network once more a part.
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
    /// The fine-tuned run that teaches.
    pub teacher: PathBuf,
    /// The run whose network the student starts from; absent: fresh values.
    pub from: Option<PathBuf>,
    /// Both sides' logits are divided by it: .1 for self-distillation, 1 from big to small.
    pub temperature: f64,
    /// The teacher's share of the loss; labels have the rest.
    pub alpha: f64,
    /// How many training images keep their labels, where `alpha` is below 1.
    pub labels: Amount,
    /// What the choice of these images, the order and views of all, and fresh values hang on; `train.seed` stays that of the hold-out.
    pub seed: u64,
    /// Layers of the student's projection head that stay: as for fine-tuning.
    pub from_layer: Option<usize>,
    /// What batch normalisation normalises by while training.
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

/// What batch normalisation normalises by while a task trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// Its batch; running statistics move (SimCLRv2).
    Train,
    /// The running statistics, which stay as they are.
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
    /// Checks every figure; errors point at its line in `text`.
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

    /// How many training images kept their labels, and the seed by which they were chosen; of a distilled
    /// network, those of its teacher.
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

/// Layers of the projection head that are kept where so many are asked for, or where nothing is said.
pub(super) fn kept(from_layer: Option<usize>, head: &HeadRecipe) -> usize {
    from_layer.unwrap_or(head.layers.min(1))
}
