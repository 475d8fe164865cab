//! The recipe of `ctk train sentences`: its sections in the order of the data flow, its checks, and the defaults that depend on the encoder.

use std::path::{Path, PathBuf};

use ctk_core::Result;
use ctk_core::objective::{LossRecipe, RankingRecipe};
use ctk_core::optim::Schedule;
use ctk_core::recipe::{
    AdamwRecipe, CheckpointRecipe, DenseTrainRecipe, HeadRecipe, OptimizerRecipe, PredictorRecipe, Recipe, ScheduleRecipe,
};
use ctk_core::train::method::Method;
use ctk_core::train::plan::Plan;
use ctk_texts::pairs::cut::Cut;
use ctk_texts::pairs::recipe::SentencesDataRecipe;
use ctk_texts::tokenizer::TrainingRecipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NAME;
use super::distill::recipe::DistillRecipe;
use super::finetune;
use super::finetune::recipe::FinetuneRecipe;
use crate::transformer::{Pooling, Shape};

/// The largest width of a layer.
const WIDEST: usize = 65_536;

/// The recipe without data or config.
pub(super) const DEFAULT: &str = include_str!("../../../../configs/sentences/generated.toml");

/// A recipe of `ctk train sentences`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SentencesRecipe {
    /// `[data]`: the texts.
    pub data: SentencesDataRecipe,
    /// `[pairs]`: how a text without a pair becomes two views.
    pub pairs: PairsRecipe,
    /// `[tokenizer]`: how texts become tokens.
    pub tokenizer: TokenizerRecipe,
    /// `[encoder.*]`: the network that is trained.
    pub encoder: EncoderRecipe,
    /// `[head]`: the projection head.
    pub head: HeadRecipe,
    /// `[predictor]`: the layers after the projection head in BYOL and SimSiam, and in no other method.
    pub predictor: Option<PredictorRecipe>,
    /// `[loss.*]`.
    pub loss: LossRecipe,
    /// `[optimizer.*]`.
    pub optimizer: OptimizerRecipe,
    /// `[schedule]`.
    pub schedule: ScheduleRecipe,
    /// `[train]`.
    pub train: DenseTrainRecipe,
    /// `[checkpoint]`: when checkpoints are saved, and which are kept.
    pub checkpoint: CheckpointRecipe,
    /// `[eval]`: what is measured on the held-out pairs.
    pub eval: EvalRecipe,
    /// `[task.*]`: fine-tuning, or learning from another encoder, in place of learning from pairs.
    pub task: Option<TaskRecipe>,
}

/// `[task.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum TaskRecipe {
    /// Fine-tuning: train the encoder and a classifier on texts with classes.
    Finetune(FinetuneRecipe),
    /// Distillation: make a transformer into a static embedding, or teach it to another transformer.
    Distill(DistillRecipe),
}

impl Default for SentencesRecipe {
    fn default() -> Self {
        SentencesRecipe {
            data: SentencesDataRecipe::default(),
            pairs: PairsRecipe::default(),
            tokenizer: TokenizerRecipe::default(),
            encoder: EncoderRecipe::default(),
            head: HeadRecipe { layers: 0, ..HeadRecipe::default() },
            predictor: None,
            loss: LossRecipe::Ranking(RankingRecipe::default()),
            optimizer: OptimizerRecipe::Adamw(AdamwRecipe::default()),
            schedule: ScheduleRecipe::default(),
            train: DenseTrainRecipe::default(),
            checkpoint: CheckpointRecipe::default(),
            eval: EvalRecipe::default(),
            task: None,
        }
    }
}

/// `[pairs]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PairsRecipe {
    /// The views of a text that has no pair: `same` (the text twice, which differ by dropout alone), `{ crops = { least = 0.1, most = 0.5 } }`
    /// (two spans of it) or `{ windows = { words = 32 } }` (two neighbouring windows). Pairs are their own views.
    pub cut: Cut,
}

/// `[tokenizer]`. An encoder that begins with another program's weights has that program's tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// A `tokenizer.json`. Default: a tokenizer is trained on the texts.
    pub file: Option<PathBuf>,
    /// The largest number of tokens of a text, special tokens included; longer texts are cut. Default: what the encoder reads, 128 for a
    /// new transformer, and no limit for a static embedding.
    pub longest: Option<usize>,
    /// `[tokenizer.train]`: how a tokenizer is trained.
    pub train: TrainingRecipe,
}

impl TokenizerRecipe {
    /// Checks every value, beside those of the encoder; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe, encoder: &EncoderRecipe) -> Result<()> {
        text.within("tokenizer.longest", self.longest.unwrap_or(3), 3..=1 << 20)?;
        let own = self.file.is_none() || encoder.weights().is_none();
        text.require(own, "tokenizer.file", "cannot be beside the encoder's `weights`, which have their own tokenizer")?;
        self.train.check(text, "tokenizer.train")
    }
}

/// `[encoder.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EncoderRecipe {
    /// A transformer, as BERT's.
    Transformer(TransformerRecipe),
    /// A static embedding: the mean of the vectors of a text's tokens. A thousand times faster, and without word order.
    Static(StaticRecipe),
}

impl Default for EncoderRecipe {
    fn default() -> Self {
        EncoderRecipe::Static(StaticRecipe::default())
    }
}

/// `[encoder.transformer]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransformerRecipe {
    /// The network to begin with: a folder of sentence-transformers or transformers with BERT (MiniLM is one), RoBERTa, DistilBERT, or the
    /// text tower of CLIP or SigLIP (open_clip's folder, too), or a run of sentences. The sizes below are then its own. Default: fresh weights.
    pub weights: Option<PathBuf>,
    /// The form of a new network: `bert`, or `clip`, CLIP's text tower, in which a token sees those before it alone, and a text's features are
    /// its last token's.
    pub form: Form,
    /// Blocks of attention and MLP.
    pub layers: usize,
    /// Values of a token.
    pub width: usize,
    /// Heads of attention, which divide the width.
    pub heads: usize,
    /// Values between the two products of the MLP. Default: four times the width.
    pub inner: Option<usize>,
    /// Tokens of the longest text that the network can read.
    pub positions: usize,
    /// The share of values that is dropped in training, behind embeddings, attention and MLP. Default: .1 in BERT, 0 in CLIP, or as the folder
    /// says.
    pub dropout: Option<f64>,
    /// The share of attention's probabilities that is dropped in training. Default: .1 in BERT, 0 in CLIP, or as the folder says.
    pub attention_dropout: Option<f64>,
    /// How a text's features are made of its tokens': `mean`, `cls` (the first token's) or `last` (the last token's). Default: `mean`, in CLIP
    /// `last`, or as the folder says.
    pub pooling: Option<Pooling>,
}

impl Default for TransformerRecipe {
    fn default() -> Self {
        TransformerRecipe {
            weights: None,
            form: Form::Bert,
            layers: 4,
            width: 256,
            heads: 4,
            inner: None,
            positions: 512,
            dropout: None,
            attention_dropout: None,
            pooling: None,
        }
    }
}

impl TransformerRecipe {
    /// The network with fresh weights for `vocabulary` tokens.
    pub(super) fn shape(&self, vocabulary: usize) -> Shape {
        let usual = match self.form {
            Form::Bert => Shape::bert(vocabulary, self.width, self.layers),
            Form::Clip => Shape::clip(vocabulary, self.width, self.layers),
        };
        Shape {
            heads: self.heads,
            inner: self.inner.unwrap_or(usual.inner),
            positions: self.positions,
            dropout: self.dropout.unwrap_or(usual.dropout),
            attention_dropout: self.attention_dropout.unwrap_or(usual.attention_dropout),
            ..usual
        }
    }

    /// How a text's features are made of its tokens' in a new network.
    pub(super) fn pooling(&self) -> Pooling {
        self.pooling.unwrap_or(match self.form {
            Form::Bert => Pooling::Mean,
            Form::Clip => Pooling::Last,
        })
    }
}

/// The form of a new transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// BERT's: each token sees all others.
    Bert,
    /// That of CLIP's text tower.
    Clip,
}

/// `[encoder.static]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StaticRecipe {
    /// The table to begin with: a folder of sentence-transformers or model2vec, a run of sentences, or word vectors (a run of word2vec or a
    /// file of vectors). The tokenizer is theirs, too. Default: random vectors.
    pub weights: Option<PathBuf>,
    /// Values of a vector.
    pub width: usize,
    /// Multiply each row of `weights` by a / (a + p) before training, where p is its token's share of the texts' tokens and a is this number,
    /// such as 1e-3: a text is then a weighted mean, in which frequent words count less (SIF; Arora et al. 2017). Default: rows stay as they
    /// are.
    pub sif: Option<f64>,
}

impl Default for StaticRecipe {
    fn default() -> Self {
        StaticRecipe { weights: None, width: 256, sif: None }
    }
}

/// `[eval]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalRecipe {
    /// Epochs between two measurements on the held-out pairs, if there are any.
    pub every: usize,
}

impl Default for EvalRecipe {
    fn default() -> Self {
        EvalRecipe { every: 1 }
    }
}

impl EncoderRecipe {
    /// The name of the section.
    pub fn name(&self) -> &'static str {
        match self {
            EncoderRecipe::Transformer(_) => "transformer",
            EncoderRecipe::Static(_) => "static",
        }
    }

    /// The folder that it begins with.
    pub fn weights(&self) -> Option<&Path> {
        match self {
            EncoderRecipe::Transformer(of) => of.weights.as_deref(),
            EncoderRecipe::Static(of) => of.weights.as_deref(),
        }
    }

    /// Checks every value; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        let key = |name: &str| format!("encoder.{}.{name}", self.name());
        match self {
            EncoderRecipe::Static(of) => {
                if let Some(a) = of.sif {
                    text.positive(&key("sif"), a, 1.0)?;
                    let what = "needs `weights`: random rows have no lengths that mean something";
                    text.require(of.weights.is_some(), &key("sif"), what)?;
                }
                if let Some(weights) = &of.weights {
                    text.require(!text.states(&key("width")), &key("width"), beside(weights, "rows have a width of their"))?;
                }
                text.within(&key("width"), of.width, 1..=WIDEST)
            }
            EncoderRecipe::Transformer(of) => {
                for (name, value) in [("dropout", of.dropout), ("attention_dropout", of.attention_dropout)] {
                    text.below_one(&key(name), value.unwrap_or_default())?;
                }
                if let Some(weights) = &of.weights {
                    return ["form", "layers", "width", "heads", "inner", "positions"].iter().try_for_each(|name| {
                        text.require(!text.states(&key(name)), &key(name), beside(weights, "network has sizes of its"))
                    });
                }
                text.within(&key("layers"), of.layers, 1..=256)?;
                text.within(&key("width"), of.width, 1..=WIDEST)?;
                text.within(&key("inner"), of.inner.unwrap_or(1), 1..=WIDEST)?;
                text.within(&key("positions"), of.positions, 3..=1 << 20)?;
                let divides = of.heads > 0 && of.width.is_multiple_of(of.heads);
                text.require(divides, &key("heads"), format!("must divide the width, which is {}", of.width))
            }
        }
    }
}

/// Why a size cannot be stated.
fn beside(weights: &Path, what: &str) -> String {
    let shown: String = weights.display().to_string().chars().take(100).collect();
    format!("has to be left out beside `weights` ({shown}), whose {what} own")
}

impl SentencesRecipe {
    /// Parses and checks `text`, and makes the plan of a run by it; errors have line and column.
    ///
    /// # Errors
    /// A key that there is not, or a value that is not allowed.
    pub fn check(text: &Recipe) -> Result<(SentencesRecipe, Plan)> {
        text.tables(&schemars::schema_for!(SentencesRecipe).to_value())?;
        let recipe: SentencesRecipe = text.parse()?;
        recipe.data.check(text)?;
        match recipe.pairs.cut {
            Cut::Crops { least, most } => {
                let sound = least > 0.0 && least <= most && most <= 1.0;
                text.require(sound, "pairs.cut", "needs crops with 0 < least ≤ most ≤ 1, shares of a text's words")?;
            }
            Cut::Windows { words } => text.require(words > 0, "pairs.cut", "needs windows of at least 1 word")?,
            Cut::Same => {}
        }
        recipe.tokenizer.check(text, &recipe.encoder)?;
        recipe.encoder.check(text)?;
        recipe.method().check(text)?;
        match &recipe.task {
            Some(TaskRecipe::Finetune(task)) => task.check(&recipe, text)?,
            Some(TaskRecipe::Distill(task)) => task.check(text, &recipe)?,
            None => recipe.loss.without_teacher(text)?,
        }
        recipe.schedule.check(text)?;
        let train = &recipe.train;
        train.check(text)?;
        text.require(train.batch > 1, "train.batch", "must be at least 2: a loss compares the samples of a batch")?;
        text.require(train.init.is_none(), "train.init", "has to be left out: the encoder's `weights` say what to begin with")?;
        text.require(recipe.eval.every > 0, "eval.every", "must be at least 1 epoch")?;
        let schedule = Schedule::new(&recipe.schedule, recipe.optimizer.rate());
        let saves = recipe.checkpoint.saves(&train.shared(), text)?;
        let plan = Plan { part: train.part(), saves, ..Plan::new(NAME, text, train.shared(), schedule)? };
        Ok((recipe, plan))
    }

    /// The sections that describe the method.
    pub(super) fn method(&self) -> Method<'_> {
        let SentencesRecipe { head, loss, optimizer, train, .. } = self;
        Method { head, predictor: self.predictor.as_ref(), loss, optimizer, train }
    }
}

/// Writes the settings of sentences into a new recipe where it has none: core's defaults are those of images.
///
/// # Errors
/// A recipe that is not TOML.
pub(super) fn complete(recipe: &mut Recipe) -> Result<()> {
    let read: SentencesRecipe = recipe.parse()?;
    if let Some(TaskRecipe::Finetune(task)) = &read.task {
        return finetune::recipe::complete(recipe, &read, task);
    }
    let taught = read.task.is_some();
    // A linear layer maps a static student's rows to its teacher's. Without it the most frequent tokens learn the teacher's mean and scale
    // first, and the student becomes worse.
    let fresh = match &read.encoder {
        EncoderRecipe::Static(of) if of.weights.is_none() && taught && !read.data.generated() => Some(of.width),
        _ => None,
    };
    let layered = fresh.filter(|_| !recipe.states("loss") && !recipe.states("head"));
    if let Some(width) = layered {
        recipe.set("head.layers", "1")?;
        recipe.set("head.width", &width.to_string())?;
        recipe.set("head.norms", "none")?;
        recipe.set("loss.mse.normalise", "false")?;
    }
    if taught && !recipe.states("loss") {
        recipe.set("loss.mse.normalise", "true")?;
    }
    let (rate, epochs) = match &read.encoder {
        // Tokenlearn's rate: rows that begin as the teacher's are short, and a larger rate moves them away from it first.
        EncoderRecipe::Static(_) if layered.is_some() => ("0.002", 6),
        EncoderRecipe::Static(_) if taught => ("0.001", 5),
        EncoderRecipe::Static(of) if of.weights.is_some() => ("0.05", 1),
        EncoderRecipe::Static(_) => ("0.2", 1),
        EncoderRecipe::Transformer(of) if of.weights.is_some() => ("2e-5", 1),
        EncoderRecipe::Transformer(_) => ("5e-4", 1),
    };
    let batch = match read.encoder.name() {
        "static" if taught => "256",
        "static" => "1024",
        _ => "64",
    };
    if matches!(read.optimizer, OptimizerRecipe::Adamw(_)) {
        recipe.set_absent("optimizer.adamw.rate", rate)?;
        recipe.set_absent("optimizer.adamw.decay", "0.0")?;
    }
    if !recipe.states("train.epochs") {
        recipe.set_absent("train.epochs", &epochs.to_string())?;
    }
    let epochs = recipe.parse::<SentencesRecipe>()?.train.epochs;
    for (key, value) in [
        ("head.layers", "0"),
        ("schedule.warmup", &format!("{}", epochs as f64 / 10.0)),
        ("schedule.decay", "linear"),
        ("schedule.scaling", "none"),
        ("schedule.length", "steps"),
        ("train.batch", batch),
    ] {
        recipe.set_absent(key, value)?;
    }
    if read.encoder.name() == "transformer" {
        recipe.set_absent("train.clip", "1.0")?;
    }
    Ok(())
}

/// A recipe for the texts at `path`: a static embedding, which trains in minutes on any processor.
pub(super) fn general(path: &Path) -> String {
    let path = toml::Value::String(path.display().to_string());
    format!("# Sentence embeddings of texts or pairs of texts.\n[data]\npath = {path}\n\n{GENERAL}")
}

const GENERAL: &str =
    "# A static embedding trains in minutes. A transformer understands more, and takes hours: in place of this section
#   [encoder.transformer]
#   layers = 4
#   width = 256
# or, to go on with another program's encoder, weights = \"its folder\".
[encoder.static]
width = 256

[loss.ranking]
scale = 20.0

[optimizer.adamw]
rate = 0.2
decay = 0.0

[schedule]
warmup = 0.1
decay = \"linear\"
scaling = \"none\"
length = \"steps\"

[train]
epochs = 1
batch = 1024
seed = 0
";
