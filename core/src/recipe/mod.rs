//! The config as written: TOML text that keeps its positions, and the sections every modality shares.
//!
//! Choices are externally tagged tables (`[loss.nt-xent]`), because serde then reports a misspelt key with its line.
//! Unknown keys are errors. `--set a.b=c` edits the text, so that what ran can be saved and read as one file.

mod checkpoint;
mod head;
pub mod later;
mod paths;
mod precision;
mod ranges;
mod tables;
mod train;
mod words;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, short};
use crate::opened;

pub use checkpoint::{CheckpointRecipe, Every, Saves};
pub use head::{HeadRecipe, Norms, PredictorRecipe};
pub use precision::Precision;
pub use train::{DenseTrainRecipe, OnNonfinite, TrainRecipe};

/// No rate, weight or decay is larger: what is would leave the numbers of f32 at its first step.
pub const MOST: f64 = 1e6;

/// No run has more epochs: steps and samples are counted in whole numbers of 64 bits.
pub const MOST_EPOCHS: usize = 1_000_000;

/// A recipe as text, and where it came from.
#[derive(Clone, Debug)]
pub struct Recipe {
    origin: String,
    text: String,
    folder: Option<PathBuf>,
}

/// Bytes of a recipe's file, at most.
const LONGEST: u64 = 16 << 20;

/// Sections that hold one choice, by its name.
const CHOICES: [&str; 4] = ["encoder", "loss", "optimizer", "task"];

impl Recipe {
    /// Text from somewhere that can be named: a file, `the default recipe`.
    pub fn new(origin: impl Into<String>, text: impl Into<String>) -> Self {
        Recipe { origin: origin.into(), text: text.into(), folder: None }
    }

    /// A recipe file.
    pub fn read(path: &Path) -> Result<Self> {
        let usage = |e: Error| {
            let what = format!("cannot read the config: {}", e.what());
            Error::usage(what).at(path.display()).hint("`ctk config show vision` prints one to start from").caused_by(e)
        };
        let length = opened::open(path).map_err(usage)?.metadata()?.len();
        if length > LONGEST {
            let what = format!("a config of {length} bytes cannot be meant: one has some thousands");
            return Err(Error::usage(what).at(path.display()).hint("is it the file that was meant?"));
        }
        let text = opened::text(path).map_err(usage)?;
        let folder = path.parent().map(Path::to_path_buf);
        Ok(Recipe { folder, ..Recipe::new(path.display().to_string(), text) })
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Sets `path` (`train.batch`) to `value`, a TOML value or else a string, creating tables on the way. Where a section is a
    /// choice of one, as `loss` is, naming another replaces what was chosen: `loss.infonce={}`.
    pub fn set(&mut self, path: &str, value: &str) -> Result<()> {
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        let (tables, key) = match path.rsplit_once('.') {
            Some((tables, key)) => (tables.split('.').collect(), key),
            None => (Vec::new(), path),
        };
        let bad = || {
            Error::usage(format!("`{path}` is not a config key"))
                .hint("write it as section.key=value, as in --set train.batch=256")
        };
        if key.is_empty() {
            return Err(bad());
        }
        let mut table = document.as_table_mut();
        let parts: Vec<&str> = path.split('.').collect();
        if let [section, choice, ..] = parts[..]
            && CHOICES.contains(&section)
            && let Some(chosen) = table.get_mut(section).and_then(|item| item.as_table_mut())
        {
            chosen.retain(|name, _| name == choice);
        }
        for name in tables {
            let entry = table.entry(name).or_insert_with(|| {
                let mut made = toml_edit::Table::new();
                made.set_implicit(true);
                toml_edit::Item::Table(made)
            });
            table = entry.as_table_mut().ok_or_else(bad)?;
        }
        table.set_implicit(false);
        let parsed = value.parse::<toml_edit::Value>().unwrap_or_else(|_| value.into());
        table[key] = toml_edit::value(parsed);
        self.text = document.to_string();
        Ok(())
    }

    /// Sets `path` to `value` unless it is written already.
    ///
    /// # Errors
    /// As of [`set`](Recipe::set).
    pub fn set_absent(&mut self, path: &str, value: &str) -> Result<()> {
        if self.span_of(path).is_some() { Ok(()) } else { self.set(path, value) }
    }

    /// Sets `path` to a file or folder: a string, also where its name reads like a number.
    pub fn set_path(&mut self, path: &str, file: &Path) -> Result<()> {
        self.set(path, &serde_json::Value::String(file.display().to_string()).to_string())
    }

    /// Takes `path` out, a key or a whole section, if it is there.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        let mut parts: Vec<&str> = path.split('.').collect();
        let key = parts.pop().unwrap_or_default();
        let table = parts.into_iter().try_fold(document.as_item_mut(), below);
        if let Some(table) = table.and_then(toml_edit::Item::as_table_like_mut) {
            table.remove(key);
        }
        self.text = document.to_string();
        Ok(())
    }

    /// Takes over `path`, a key or a whole section, from `other`; where `other` does not have it, it is taken out.
    ///
    /// # Errors
    /// A recipe that is no TOML.
    pub fn take(&mut self, path: &str, other: &Recipe) -> Result<()> {
        self.remove(path)?;
        let document: toml_edit::DocumentMut =
            other.text.parse().map_err(|e: toml_edit::TomlError| other.syntax(e.message(), e.span()))?;
        let item = path.split('.').try_fold(document.as_item(), |item, part| item.get(part));
        match item.cloned().map(toml_edit::Item::into_value) {
            Some(Ok(value)) => self.set(path, value.to_string().trim()),
            _ => Ok(()),
        }
    }

    /// The recipe as `T`; an unknown key or a wrong type is an error with line, column and what was meant.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| self.syntax(e.message(), e.span()).caused_by(e))
    }

    /// A value that parses but cannot be: points at the key's line where it is written, at the file where it is a default.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::usage(format!("{key}: {what}")).at(self.place_of(key))
    }

    /// Where `key` is written: line and column, or the recipe's origin where it is a default.
    pub fn place_of(&self, key: &str) -> String {
        self.span_of(key).map_or(self.origin.clone(), |span| self.place(span.start))
    }

    /// Whether `key` is written, and no default.
    pub fn states(&self, key: &str) -> bool {
        self.span_of(key).is_some()
    }

    /// [`Recipe::error`] unless `holds`.
    pub fn require(&self, holds: bool, key: &str, what: impl std::fmt::Display) -> Result<()> {
        if holds { Ok(()) } else { Err(self.error(key, what)) }
    }

    fn syntax(&self, message: &str, span: Option<std::ops::Range<usize>>) -> Error {
        let place = span.map_or(self.origin.clone(), |s| self.place(s.start));
        let error = Error::usage(words::plain(message)).at(place);
        match nearest(message) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint("`ctk config keys vision` (or word2vec) prints every key"),
        }
    }

    fn place(&self, offset: usize) -> String {
        let before = &self.text[..offset.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
        let source = self.text.lines().nth(line - 1).unwrap_or("").trim();
        format!("{}:{line}:{column}: {}", self.origin, short(source, words::LONGEST))
    }

    fn span_of(&self, key: &str) -> Option<std::ops::Range<usize>> {
        let document = toml_edit::Document::parse(self.text.clone()).ok()?;
        let mut item = document.as_item();
        for name in key.split('.') {
            item = item.get(name)?;
        }
        item.span()
    }
}

/// What is written as `key` in a table; `Item::get_mut` would write an empty table where there is none.
fn below<'a>(item: &'a mut toml_edit::Item, key: &str) -> Option<&'a mut toml_edit::Item> {
    item.as_table_like_mut()?.get_mut(key)
}

/// The expected name nearest to the unknown one in serde's "unknown field `x`, expected one of `a`, `b`".
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown") {
        return None;
    }
    let wrong = quoted.next()?;
    if let Some(ours) = words::ours(wrong).filter(|ours| message.contains(&format!("`{ours}`"))) {
        return Some(ours.to_string());
    }
    let best = quoted.max_by(|a, b| strsim::jaro_winkler(a, wrong).total_cmp(&strsim::jaro_winkler(b, wrong)))?;
    (strsim::jaro_winkler(best, wrong) > 0.75).then(|| best.to_string())
}

/// `[optimizer.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    /// Stochastic gradient descent.
    Sgd(SgdRecipe),
    /// Layer-wise adaptive rates, for large batches.
    Lars(LarsRecipe),
    /// Adam with decoupled weight decay.
    Adamw(AdamwRecipe),
}

impl OptimizerRecipe {
    /// The peak rate before batch scaling.
    pub fn rate(&self) -> f64 {
        match self {
            OptimizerRecipe::Sgd(o) => o.rate,
            OptimizerRecipe::Lars(o) => o.rate,
            OptimizerRecipe::Adamw(o) => o.rate,
        }
    }

    /// Checks every figure; errors point at its line in `recipe`.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        let (name, decay, shares) = match self {
            OptimizerRecipe::Sgd(o) => ("sgd", o.decay, vec![("momentum", o.momentum)]),
            OptimizerRecipe::Lars(o) => ("lars", o.decay, vec![("momentum", o.momentum)]),
            OptimizerRecipe::Adamw(o) => ("adamw", o.decay, vec![("beta1", o.beta1), ("beta2", o.beta2)]),
        };
        let key = |k: &str| format!("optimizer.{name}.{k}");
        recipe.positive(&key("rate"), self.rate(), MOST)?;
        recipe.within(&key("decay"), decay, 0.0..=MOST)?;
        shares.into_iter().try_for_each(|(k, v)| recipe.below_one(&key(k), v))?;
        match self {
            OptimizerRecipe::Lars(o) => recipe.positive(&key("trust"), o.trust, MOST),
            OptimizerRecipe::Adamw(o) => recipe.positive(&key("eps"), o.eps, 1.0),
            OptimizerRecipe::Sgd(o) => {
                recipe.require(!o.nesterov || o.momentum > 0.0, &key("nesterov"), "needs a momentum above 0")
            }
        }
    }
}

/// `[optimizer.sgd]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgdRecipe {
    /// Learning rate at batch 256 (see `schedule.scaling`).
    pub rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// L2, added to the gradient of weights alone.
    pub decay: f64,
}

impl Default for SgdRecipe {
    fn default() -> Self {
        SgdRecipe { rate: 0.06, momentum: 0.9, nesterov: false, decay: 5e-4 }
    }
}

/// `[optimizer.lars]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LarsRecipe {
    /// Learning rate at batch 256 (see `schedule.scaling`).
    pub rate: f64,
    /// Momentum.
    pub momentum: f64,
    /// L2, added to the gradient of weights alone, before the trust ratio.
    pub decay: f64,
    /// The trust coefficient.
    pub trust: f64,
    /// `classic` (Google's: the rate is inside the momentum) or `popular` (outside; the ratio is the buffer's).
    pub form: LarsForm,
}

impl Default for LarsRecipe {
    fn default() -> Self {
        LarsRecipe { rate: 1.0, momentum: 0.9, decay: 1e-4, trust: 0.001, form: LarsForm::Classic }
    }
}

/// Where LARS puts the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LarsForm {
    /// v ← m·v + rate·trust·g; w ← w − v (SimCLR's `lars_optimizer.py`, `classic_momentum = True`).
    Classic,
    /// v ← m·v + g; w ← w − rate·trust(v)·v.
    Popular,
}

/// `[optimizer.adamw]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamwRecipe {
    /// Learning rate at batch 256 (see `schedule.scaling`).
    pub rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay, of weights alone.
    pub decay: f64,
}

impl Default for AdamwRecipe {
    fn default() -> Self {
        AdamwRecipe { rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01 }
    }
}

/// `[schedule]`: how the rate runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Epochs of linear warm-up from 0; a fraction is allowed.
    pub warmup: f64,
    /// What follows.
    pub decay: Decay,
    /// How the peak rate grows with the batch.
    pub scaling: Scaling,
    /// What the schedule's length is counted by. New runs count `steps`; a stored recipe without this key counted `samples`.
    pub length: Length,
}

impl Default for ScheduleRecipe {
    fn default() -> Self {
        ScheduleRecipe { warmup: 10.0, decay: Decay::Cosine, scaling: Scaling::Linear, length: Length::Samples }
    }
}

impl ScheduleRecipe {
    /// Checks every figure; errors point at its line in `recipe`.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.within("schedule.warmup", self.warmup, 0.0..=MOST_EPOCHS as f64)
    }
}

/// What the length of a schedule is counted by, where an epoch leaves its last, smaller batch out. Both agree where batches divide the
/// data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// The steps that are run: epochs · (samples // batch), and warm-up ⌊warmup · (samples // batch)⌋. The rate ends with the run.
    Steps,
    /// The samples, as SimCLR's code has it, which repeats data before it cuts batches: epochs · samples // batch, and warm-up
    /// ⌊warmup · samples / batch⌋. A run that leaves out batches ends before its rate does.
    Samples,
}

/// How the rate falls after warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Half a cosine, to 0.
    Cosine,
    /// A straight line, to 0.
    Linear,
    /// Not at all.
    Constant,
}

/// How the peak rate grows with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// rate.
    None,
    /// rate · batch / 256.
    Linear,
    /// rate · √batch.
    SquareRoot,
}

/// `[eval.*]`: what is measured on the way and at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvalRecipe {
    /// Weighted kNN during training.
    pub knn: Option<KnnRecipe>,
    /// The linear probe after training, with its baselines.
    pub linear_probe: Option<LinearProbeRecipe>,
}

impl EvalRecipe {
    /// Checks every figure; errors point at its line in `recipe`.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.require(self.knn.as_ref().is_none_or(|k| k.every > 0), "eval.knn.every", "must be at least 1 epoch")
    }
}

/// `[eval.knn]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KnnRecipe {
    /// Epochs between two measurements.
    pub every: usize,
}

impl Default for KnnRecipe {
    fn default() -> Self {
        KnnRecipe { every: 10 }
    }
}

/// `[eval.linear-probe]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LinearProbeRecipe {
    /// Also probe the untrained network, raw pixels and a colour histogram.
    pub baselines: bool,
}

impl Default for LinearProbeRecipe {
    fn default() -> Self {
        LinearProbeRecipe { baselines: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::{LossRecipe, NtXentRecipe};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(default)]
        train: TrainRecipe,
        #[serde(default)]
        loss: LossRecipe,
    }

    #[test]
    fn a_typo_is_found_with_line_and_meaning() {
        let recipe = Recipe::new("a.toml", "[train]\nepochs = 3\nbtach = 2\n");
        let error = recipe.parse::<Small>().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a.toml:3:1") && text.contains("did you mean `batch`?"), "{text}");
        assert_eq!(error.exit_code(), 2);
        let wrong = Recipe::new("a.toml", "[train]\nepochs = \"many\"\n").parse::<Small>().unwrap_err().to_string();
        assert!(wrong.contains("a.toml:2:10"), "{wrong}");
        let choice = Recipe::new("a.toml", "[loss.nt-xnet]\n").parse::<Small>().unwrap_err().to_string();
        assert!(choice.contains("nt-xent"), "{choice}");
    }

    #[test]
    fn set_edits_the_text_and_keeps_the_rest() {
        let mut recipe = Recipe::new("a.toml", "# mine\n[train]\nepochs = 3 # few\n");
        recipe.set("train.epochs", "5").unwrap();
        recipe.set("loss.nt-xent.temperature", "0.1").unwrap();
        let small: Small = recipe.parse().unwrap();
        assert_eq!(small.train.epochs, 5);
        assert_eq!(small.loss, LossRecipe::NtXent(NtXentRecipe { temperature: 0.1, ..NtXentRecipe::default() }));
        assert!(recipe.text().contains("# mine"));
        recipe.set("loss.negative-sampling", "{}").unwrap();
        assert!(!recipe.text().contains("nt-xent"), "another choice takes its place");
        recipe.set("loss.nt-xent.temperature", "0.2").unwrap();
        assert!(recipe.text().contains("# mine") && recipe.parse::<Small>().is_ok(), "{}", recipe.text());
        assert!(recipe.error("train.epochs", "no").to_string().contains("a.toml:3:10"), "{}", recipe.error("train.epochs", "no"));
        recipe.remove("loss.nt-xent.temperature").unwrap();
        recipe.remove("eval").unwrap();
        assert!(recipe.text().contains("nt-xent") && !recipe.text().contains("temperature"), "{}", recipe.text());
        recipe.remove("loss").unwrap();
        assert!(!recipe.text().contains("nt-xent") && recipe.text().contains("# mine"), "{}", recipe.text());
        assert!(recipe.set("train", "1").is_ok() && recipe.set("train.x", "1").is_err());
    }
}
