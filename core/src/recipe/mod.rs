//! Recipes: the config as TOML text that keeps its positions, and the sections that every modality shares.
//!
//! Choices are externally tagged tables (`[loss.nt-xent]`), because serde then reports a misspelt key with its line. Unknown keys are
//! errors. `--set a.b=c` edits the text, so that the recipe of a run is saved as one file that can be read again.

mod checkpoint;
mod edit;
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

/// The largest rate, weight or decay; more would overflow f32 at the first step.
pub const MOST: f64 = 1e6;

/// The largest number of epochs; steps and samples are counted in 64-bit integers.
pub const MOST_EPOCHS: usize = 1_000_000;

/// A recipe as text, and where it came from.
///
/// ```
/// use ctk_core::recipe::{Recipe, TrainRecipe};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Mine {
///     train: TrainRecipe,
/// }
///
/// let mut recipe = Recipe::new("mine.toml", "[train]\nepochs = 10\nbatch = 64\n");
/// recipe.set("train.epochs", "20")?;
/// assert_eq!(recipe.parse::<Mine>()?.train.epochs, 20);
///
/// // A value that cannot be is an error with its line and column.
/// recipe.set("train.batch", "0")?;
/// let error = recipe.parse::<Mine>()?.train.check(&recipe).unwrap_err();
/// assert!(error.to_string().contains("mine.toml:3:9: batch = 0"), "{error}");
/// # Ok::<(), ctk_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Recipe {
    origin: String,
    text: String,
    folder: Option<PathBuf>,
    /// The section whose keys are named, for checks of what is the whole of another recipe.
    section: Option<String>,
}

/// The largest size of a recipe's file in bytes.
const LONGEST: u64 = 16 << 20;

const EVERY_KEY: &str = "`ctk config keys vision` (or word2vec, sentences, image-text) prints every key";

impl Recipe {
    /// A recipe from `text`; `origin` names its source in messages: a file, `the default recipe`.
    pub fn new(origin: impl Into<String>, text: impl Into<String>) -> Self {
        Recipe { origin: origin.into(), text: text.into(), folder: None, section: None }
    }

    /// Reads a recipe file.
    ///
    /// # Errors
    /// The file cannot be read, or is too large for a recipe.
    pub fn read(path: &Path) -> Result<Self> {
        let usage = |e: Error| {
            let what = format!("cannot read the config: {}", e.what());
            Error::usage(what).at(path.display()).hint("`ctk config show vision` prints one to start from").caused_by(e)
        };
        let length = opened::open(path).map_err(usage)?.metadata()?.len();
        if length > LONGEST {
            let what = format!("a config of {length} bytes is too large: recipes have a few thousand");
            return Err(Error::usage(what).at(path.display()).hint("is this the right file?"));
        }
        let text = opened::text(path).map_err(usage)?;
        let folder = path.parent().map(Path::to_path_buf);
        Ok(Recipe { folder, ..Recipe::new(path.display().to_string(), text) })
    }

    /// The same recipe for checks of its section `section`, whose keys they name without it: `encoder.vit.width` is then
    /// `image.encoder.vit.width` in messages.
    pub fn below(&self, section: &str) -> Recipe {
        Recipe { section: Some(self.key(section)), ..self.clone() }
    }

    /// The whole name of a key.
    fn key(&self, key: &str) -> String {
        self.section.as_ref().map_or(key.to_string(), |section| format!("{section}.{key}"))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The recipe as `T`.
    ///
    /// # Errors
    /// An unknown key or a wrong type, with line, column and the expected type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| self.syntax(e.message(), e.span()).caused_by(e))
    }

    /// An error for a value that parses but is not allowed: it points at the key's line, or at the file if the value is a default.
    pub fn error(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::usage(format!("{}: {what}", self.key(key))).at(self.place_of(key))
    }

    /// Where `key` is written: line and column, or the recipe's origin if the value is a default. In a key, an element of a list is named by
    /// its number from 0 on.
    pub fn place_of(&self, key: &str) -> String {
        self.span_of(key).map_or(self.origin.clone(), |span| self.place(span.start))
    }

    /// Whether `key` is written, and not left at its default.
    pub fn states(&self, key: &str) -> bool {
        self.span_of(key).is_some()
    }

    /// Checks that `holds` is true.
    ///
    /// # Errors
    /// [`Recipe::error`] if it is not.
    pub fn require(&self, holds: bool, key: &str, what: impl std::fmt::Display) -> Result<()> {
        if holds { Ok(()) } else { Err(self.error(key, what)) }
    }

    fn syntax(&self, message: &str, span: Option<std::ops::Range<usize>>) -> Error {
        let place = span.map_or(self.origin.clone(), |s| self.place(s.start));
        let error = Error::usage(words::plain(message)).at(place);
        match nearest(message) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error.hint(EVERY_KEY),
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
        for name in self.key(key).split('.') {
            item = item.get(name).or_else(|| item.get(name.parse::<usize>().ok()?))?;
        }
        item.span()
    }
}

/// The expected name nearest to the unknown one in serde's message "unknown field `x`, expected one of `a`, `b`".
fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown") {
        return None;
    }
    let wrong = quoted.next()?;
    near(wrong, quoted).map(String::from)
}

/// The one of `known` that `wrong` probably means: what other programs call so, or else the name that is spelled most like it.
fn near<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    if let Some(ours) = words::ours(wrong).and_then(|ours| known.clone().find(|known| *known == ours)) {
        return Some(ours);
    }
    let best = known.max_by(|a, b| strsim::jaro_winkler(a, wrong).total_cmp(&strsim::jaro_winkler(b, wrong)))?;
    (strsim::jaro_winkler(best, wrong) > 0.75).then_some(best)
}

/// `[data]` of a modality whose data is one file or folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PathRecipe {
    /// Where the data is. Absent: what the modality has of its own.
    pub path: Option<PathBuf>,
}

/// `[optimizer.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    /// Stochastic gradient descent.
    Sgd(SgdRecipe),
    /// Layer-wise adaptive rate scaling, for large batches.
    Lars(LarsRecipe),
    /// Adam with decoupled weight decay.
    Adamw(AdamwRecipe),
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        OptimizerRecipe::Sgd(SgdRecipe::default())
    }
}

impl OptimizerRecipe {
    /// The peak learning rate before batch scaling.
    pub fn rate(&self) -> f64 {
        match self {
            OptimizerRecipe::Sgd(o) => o.rate,
            OptimizerRecipe::Lars(o) => o.rate,
            OptimizerRecipe::Adamw(o) => o.rate,
        }
    }

    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
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
            OptimizerRecipe::Adamw(o) => {
                recipe.positive(&key("eps"), o.eps, 1.0)?;
                recipe.positive(&key("layer_decay"), o.layer_decay, 1.0)
            }
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
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
    /// Weight decay (L2), added to the gradient of weights only.
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
    /// Weight decay (L2), added to the gradient of weights only, before the trust ratio is computed.
    pub decay: f64,
    /// The trust coefficient.
    pub trust: f64,
    /// `classic` (Google's: the rate is inside the momentum) or `popular` (the rate is outside, and the trust ratio is that of the momentum
    /// buffer).
    pub form: LarsForm,
}

impl Default for LarsRecipe {
    fn default() -> Self {
        LarsRecipe { rate: 1.0, momentum: 0.9, decay: 1e-4, trust: 0.001, form: LarsForm::Classic }
    }
}

/// Where LARS applies the learning rate.
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
    /// Added to the square root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay, of weights only.
    pub decay: f64,
    /// Whether tables of embeddings (tokens, positions) are decayed, too. As in PyTorch's AdamW, both moments belong to whole tables: rows
    /// that a batch lacks are moved and decayed with the others.
    pub decay_embeddings: bool,
    /// Layer-wise rate decay: the rate of a layer, and its weight decay with it, is multiplied by this number once for each layer behind it.
    /// The final normalisation and the head have the whole rate, the last block `layer_decay` of it, embeddings the least. For models whose
    /// layers declare their depth: transformers of texts.
    pub layer_decay: f64,
}

impl Default for AdamwRecipe {
    fn default() -> Self {
        AdamwRecipe { rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.01, decay_embeddings: false, layer_decay: 1.0 }
    }
}

/// `[schedule]`: the learning rate over the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Epochs of linear warm-up from 0; a fraction is allowed.
    pub warmup: f64,
    /// The decay after the warm-up.
    pub decay: Decay,
    /// How the peak rate grows with the batch.
    pub scaling: Scaling,
    /// What the schedule's length is counted by: `steps` or `samples`. New runs use `steps`; a stored recipe without this key used
    /// `samples`.
    pub length: Length,
}

impl Default for ScheduleRecipe {
    fn default() -> Self {
        ScheduleRecipe { warmup: 10.0, decay: Decay::Cosine, scaling: Scaling::Linear, length: Length::Samples }
    }
}

impl ScheduleRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.within("schedule.warmup", self.warmup, 0.0..=MOST_EPOCHS as f64)
    }
}

/// What the length of a schedule is counted by, in runs whose epochs leave out the last, smaller batch. Both agree if the batch size
/// divides the number of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Length {
    /// The steps that are run: epochs · (samples // batch), with a warm-up of ⌊warmup · (samples // batch)⌋. The schedule ends with the
    /// run.
    Steps,
    /// The samples, as in SimCLR's code, which repeats the data before it makes batches: epochs · samples // batch, with a warm-up of
    /// ⌊warmup · samples / batch⌋. A run that leaves out batches ends before its schedule does.
    Samples,
}

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// By half a cosine, to 0.
    Cosine,
    /// Linearly, to 0.
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

/// `[eval.*]`: what is measured during training and at the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvalRecipe {
    /// Weighted k-nearest-neighbour accuracy during training.
    pub knn: Option<KnnRecipe>,
    /// The linear probe after training, with its baselines.
    pub linear_probe: Option<LinearProbeRecipe>,
}

impl EvalRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
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
    use crate::objective::LossRecipe;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only its errors are looked at")]
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
}
