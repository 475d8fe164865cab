//! `[task.finetune]` of a recipe of sentences: its keys and checks, the recipe that `ctk finetune` writes, and its defaults.

use std::path::PathBuf;

use ctk_core::data::labels::Amount;
use ctk_core::error::short;
use ctk_core::objective::LossRecipe;
use ctk_core::recipe::{HeadRecipe, OptimizerRecipe, Recipe};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::task::{Finetune, Task, TaskRequest};
use ctk_core::{Context, Error, Result};
use ctk_texts::pairs::Kind;
use ctk_texts::recipe::Paths;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::origin::Origin;
use super::super::recipe::{EncoderRecipe, SentencesRecipe};

/// The largest number of pairs of each kind for an example.
const MOST_PAIRS: usize = 10_000;

/// `[task.finetune]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneRecipe {
    /// The encoder to start from: a run of sentences, or a folder of sentence-transformers, transformers or model2vec.
    pub from: Option<PathBuf>,
    /// Start from fresh weights instead: the supervised baseline, on the same texts. The network and the tokenizer are those of `from`, or
    /// without it those of `[encoder.*]` and `[tokenizer]`.
    pub scratch: bool,
    /// Texts to test on, one file or a list. Default: those that the data itself names as test texts (a column `split`, or files by their
    /// names), or else a fifth of each class.
    pub test: Option<Paths>,
    /// How many training texts keep their labels: `1%`, `8-per-class`, `100%`.
    pub labels: Amount,
    /// Seed of the choice of these texts, of their pairs, their folds and their order, of dropout and of fresh weights.
    pub seed: u64,
    /// How it is trained. `setfit`: pairs of the labelled texts, whose cosines become 1 (of one class) and 0 (of two), then a logistic
    /// regression on the embeddings. `plain`: a linear classifier on the encoder, both trained by cross entropy. Default: `setfit`, and
    /// `plain` from scratch.
    pub scheme: Option<Scheme>,
    /// The largest number of pairs of one class, and of pairs of two classes, for each labelled text (`setfit`).
    pub pairs: usize,
    /// Folds of the labelled texts that are held out in turn to choose the strength of the logistic regression's L2 penalty (`setfit`).
    pub folds: usize,
}

impl Default for FinetuneRecipe {
    fn default() -> Self {
        FinetuneRecipe {
            from: None,
            scratch: false,
            test: None,
            labels: Amount::default(),
            seed: 0,
            scheme: None,
            pairs: 20,
            folds: 5,
        }
    }
}

/// How an encoder is fine-tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Pairs of labelled texts, then a logistic regression (Tunstall et al. 2022).
    Setfit,
    /// A linear classifier by cross entropy.
    Plain,
}

impl Scheme {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Setfit => "setfit",
            Scheme::Plain => "plain",
        }
    }
}

impl FinetuneRecipe {
    /// How it is trained.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(if self.scratch { Scheme::Plain } else { Scheme::Setfit })
    }

    /// Checks every value, and that no section is written that a task does not read; errors point at its line in `text`.
    pub(in super::super) fn check(&self, recipe: &SentencesRecipe, text: &Recipe) -> Result<()> {
        let key = |name: &str| format!("task.finetune.{name}");
        let begun = self.from.is_some() || self.scratch;
        text.require(begun, &key("from"), "names the run or folder to start from; or set `scratch`, which is false")?;
        text.require(
            self.from.as_ref().is_none_or(|from| !from.as_os_str().is_empty()),
            &key("from"),
            "names no run and no folder",
        )?;
        text.require(self.test.as_ref().is_none_or(|test| !test.list().is_empty()), &key("test"), "names no file")?;
        text.within(&key("pairs"), self.pairs, 1..=MOST_PAIRS)?;
        text.within(&key("folds"), self.folds, 2..=100)?;
        // A section that has only a choice below it is not itself written.
        let chosen = |section: &str, key: &str| text.states(section) || text.states(key);
        let loss = format!("loss.{}", recipe.loss.name());
        text.require(!chosen("loss", &loss), &loss, "a task has a loss of its own: leave this out")?;
        let encoder = format!("encoder.{}", recipe.encoder.name());
        for (section, what) in [
            ("predictor", "a task has no predictor: leave this out"),
            ("pairs", "a task makes pairs by classes: leave this out"),
            ("eval", "a task is measured on the test texts once, at its end: leave this out"),
            ("data.source", "a task reads data.path: leave this out"),
            ("data.dev", "a task is tested on task.finetune.test: leave this out"),
            ("data.format", "a task recognises the format: leave this out"),
            ("data.no_duplicates", "a task makes pairs by classes: leave this out"),
            ("train.seed", "the seed of a task is task.finetune.seed: leave this out"),
            ("data.prompts", "a task puts nothing before texts besides what the encoder's folder says: leave this out"),
            ("data.columns.positive", "a task reads single texts (data.columns.anchor) with classes: leave this out"),
            ("data.columns.negative", "a task reads single texts (data.columns.anchor) with classes: leave this out"),
            ("data.columns.score", "a task reads single texts (data.columns.anchor) with classes: leave this out"),
        ] {
            text.require(!text.states(section), section, what)?;
        }
        text.require(recipe.head.layers == 0 || !text.states("head"), "head", "a task has no projection head: leave this out")?;
        text.require(recipe.data.dev_share == 0.0, "data.dev_share", "a task is tested on task.finetune.test: leave this out")?;
        let kind = recipe.data.kind.is_none_or(|kind| kind == Kind::Labelled);
        text.require(kind, "data.kind", "has to be `labelled`: a task needs texts with classes")?;
        let best = "cannot be with a task: few labels leave none to judge by";
        text.require(!recipe.checkpoint.keep_best, "checkpoint.keep_best", best)?;
        if let Some(from) = &self.from {
            let from = from.display().to_string();
            let own = format!("is that of the encoder that task.finetune.from names ({}): leave this out", short(&from, 80));
            text.require(!chosen("encoder", &encoder), &encoder, &own)?;
            text.require(recipe.tokenizer.file.is_none(), "tokenizer.file", &own)?;
            text.require(!text.states("tokenizer.train"), "tokenizer.train", &own)?;
        } else {
            let fresh = recipe.encoder.weights().is_none();
            text.require(fresh, &encoder, "has `weights`, and the task starts from scratch: name them in task.finetune.from")?;
        }
        Ok(())
    }
}

/// The sections of `recipe` as the task trains by them.
pub(super) fn trained(recipe: &SentencesRecipe, task: &FinetuneRecipe) -> SentencesRecipe {
    let mut trained = recipe.clone();
    trained.head = HeadRecipe { layers: 0, ..trained.head };
    trained.predictor = None;
    trained.loss = LossRecipe::CosineSimilarity(Default::default());
    trained.train.seed = task.seed;
    trained
}

/// The recipe of `request`, whose network is that of a run (`from`) or of a folder.
///
/// # Errors
/// A task that sentences do not have, or flags that are for images.
pub(in super::super) fn written(from: Option<&Checkpoint>, request: &TaskRequest) -> Result<Recipe> {
    let Task::Finetune(task) = &request.task else {
        return Err(Error::usage("classes of texts cannot be distilled")
            .at(request.run.display())
            .hint("`ctk finetune RUN --data TEXTS --labels 8-per-class` makes a classifier of texts"));
    };
    for_images(task, request)?;
    let Finetune { labels, seed, scratch, .. } = *task;
    let what = if scratch { "The same network trained from scratch" } else { "Fine-tuning" };
    let mut recipe = Recipe::new("the recipe of this task", format!("# {what} with {labels} of the labels.\n"));
    match (&request.data, from.map(|from| from.recipe().parse::<SentencesRecipe>()).transpose()?) {
        (Some(data), _) => recipe.set_path("data.path", data)?,
        (None, Some(own)) if own.data.generated() => recipe.set("data.pairs", &own.data.pairs.to_string())?,
        (None, Some(own)) => {
            // Pairs are no texts with classes, whatever their columns look like.
            let classes = own.task.is_some() || own.data.kind == Some(Kind::Labelled) || own.loss.needs().labels;
            let path = own.data.path.as_ref().filter(|_| classes).ok_or_else(|| no_data().at(request.run.display()))?;
            recipe.set("data.path", &serde_json::json!(path.list()).to_string())?;
        }
        (None, None) => return Err(no_data().at(request.run.display())),
    }
    let key = |name: &str| format!("task.finetune.{name}");
    recipe.set_path(&key("from"), &request.run)?;
    recipe.set(&key("scratch"), &scratch.to_string())?;
    if let Some(test) = &task.test {
        recipe.set_path(&key("test"), test)?;
    }
    recipe.set(&key("labels"), &serde_json::json!(labels).to_string())?;
    recipe.set(&key("seed"), &seed.to_string())?;
    if let Some(scheme) = &task.scheme {
        recipe.set(&key("scheme"), &serde_json::json!(scheme).to_string())?;
    }
    recipe.set(&key("folds"), &task.folds.to_string())?;
    if let Some(rate) = task.rates.first() {
        recipe.set("optimizer.adamw.rate", &format!("{rate:?}"))?;
    }
    if let Some(epochs) = task.epochs.first() {
        recipe.set("train.epochs", &epochs.to_string())?;
    }
    if let Some(batch) = request.batch {
        recipe.set("train.batch", &batch.to_string())?;
    }
    Ok(recipe)
}

fn no_data() -> Error {
    Error::usage("there are no texts with classes to fine-tune on")
        .hint("give some: --data TABLE, with columns `text` and `label`, or a folder with train.tsv and test.tsv")
}

/// Refuses flags that say nothing about texts.
fn for_images(task: &Finetune, request: &TaskRequest) -> Result<()> {
    let refused = |flag: &str, what: &str, hint: &str| Err(Error::usage(format!("{flag}: {what}")).hint(hint.to_string()));
    if request.optimizer.is_some() {
        return refused(
            "--optimizer",
            "texts are fine-tuned by AdamW",
            "leave it out; --set optimizer.adamw.… changes its settings",
        );
    }
    if request.from_layer.is_some() {
        return refused("--from-layer", "encoders of texts keep no layer of a projection head", "leave it out");
    }
    if request.frozen_statistics {
        return refused("--bn", "encoders of texts have no batch normalisation", "leave it out");
    }
    if !task.crops.is_empty() {
        return refused("--crops", "texts are not cropped", "leave it out");
    }
    if task.rates.len() > 1 || task.epochs.len() > 1 {
        return refused("--rates, --epochs", "texts are fine-tuned by one rate and one number of epochs", "give one of each");
    }
    Ok(())
}

/// Writes the task's defaults into a new recipe where it says nothing.
///
/// # Errors
/// A recipe that is not TOML; an encoder that cannot be opened.
pub(in super::super) fn complete(recipe: &mut Recipe, read: &SentencesRecipe, task: &FinetuneRecipe) -> Result<()> {
    let table = match &task.from {
        Some(from) => Origin::of(from)?.is_table().at(from.display())?,
        None => matches!(read.encoder, EncoderRecipe::Static(_)),
    };
    recipe.set_absent("task.finetune.scheme", &serde_json::json!(task.scheme().name()).to_string())?;
    let rate = match (table, task.scratch) {
        (true, true) => "0.05",
        (true, false) => "0.01",
        (false, true) => "5e-4",
        (false, false) => "2e-5",
    };
    if matches!(read.optimizer, OptimizerRecipe::Adamw(_)) {
        recipe.set_absent("optimizer.adamw.rate", rate)?;
        recipe.set_absent("optimizer.adamw.decay", "0.0")?;
    }
    let epochs = match (task.scheme(), task.labels) {
        (Scheme::Setfit, _) => 1,
        (Scheme::Plain, Amount::PerClass(_)) => 30,
        (Scheme::Plain, Amount::Percent(share)) if share <= 10.0 => 10,
        (Scheme::Plain, Amount::Percent(_)) => 3,
    };
    // From scratch there is more to learn.
    let epochs = if task.scratch && task.scheme() == Scheme::Plain { 3 * epochs } else { epochs };
    recipe.set_absent("train.epochs", &epochs.to_string())?;
    let epochs = recipe.parse::<SentencesRecipe>()?.train.epochs;
    for (key, value) in [
        ("schedule.warmup", format!("{}", epochs as f64 / 10.0)),
        ("schedule.decay", "linear".to_string()),
        ("schedule.scaling", "none".to_string()),
        ("schedule.length", "steps".to_string()),
        ("train.batch", "16".to_string()),
    ] {
        recipe.set_absent(key, &value)?;
    }
    if !table {
        recipe.set_absent("train.clip", "1.0")?;
    }
    Ok(())
}
