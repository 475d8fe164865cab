//! The recipe of `ctk train image-text`: its sections in the order of the data flow, its checks, and defaults that depend on the towers.

use std::path::{Path, PathBuf};

use ctk_core::Result;
use ctk_core::nn::params::Learning;
use ctk_core::objective::{InfonceRecipe, LossRecipe};
use ctk_core::optim::Schedule;
use ctk_core::recipe::{
    AdamwRecipe, CheckpointRecipe, DenseTrainRecipe, HeadRecipe, MOST, Norms, OptimizerRecipe, Recipe, ScheduleRecipe,
};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::method::Method;
use ctk_core::train::plan::Plan;
use ctk_images::augment::{Augment, AugmentRecipe};
use ctk_images::dataset;
use ctk_images::recipe::DataRecipe;
use ctk_text::sentences::recipe as texts;
use ctk_text::sentences::recipe::{SentencesRecipe, TokenizerRecipe};
use ctk_vision::encoder::EncoderRecipe;
use ctk_vision::tower;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{NAME, clip};

/// The recipe without data or config.
pub(crate) const DEFAULT: &str = include_str!("../../../configs/image-text/generated.toml");

/// Where the class's name goes in a prompt.
pub(crate) const PLACE: &str = "{class}";

/// Losses that compare each side with the other alone.
pub(crate) const TWO_SIDED: [&str; 3] = ["infonce", "siglip", "ranking"];

/// A recipe of `ctk train image-text`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageTextRecipe {
    /// `[data]`: the images, and where their captions are (`data.columns.captions`).
    pub data: DataRecipe,
    /// `[captions]`: captions of class names, equal captions, and what is held out.
    pub captions: CaptionsRecipe,
    /// `[pairs]`: how an image becomes a view. A caption is drawn from those of the image.
    pub pairs: AugmentRecipe,
    /// `[image]`: the tower of images.
    pub image: ImageRecipe,
    /// `[text]`: the tower of captions.
    pub text: TextRecipe,
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
    /// `[eval]`: what is measured on the held-out images.
    pub eval: EvalRecipe,
}

impl Default for ImageTextRecipe {
    fn default() -> Self {
        ImageTextRecipe {
            data: DataRecipe::default(),
            captions: CaptionsRecipe::default(),
            pairs: AugmentRecipe::default(),
            image: ImageRecipe::default(),
            text: TextRecipe::default(),
            loss: LossRecipe::Infonce(InfonceRecipe { temperature: 0.07, learned: true, ..InfonceRecipe::default() }),
            optimizer: OptimizerRecipe::Adamw(AdamwRecipe::default()),
            schedule: ScheduleRecipe::default(),
            train: DenseTrainRecipe::default(),
            checkpoint: CheckpointRecipe::default(),
            eval: EvalRecipe::default(),
        }
    }
}

/// `[captions]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaptionsRecipe {
    /// Captions of images that have a class and no caption: `{class}` stands for the class's name.
    pub prompts: Vec<String>,
    /// Which pairs of a batch are no negatives of each other: those of images that look the same or have a caption in common
    /// (`captions-and-pixels`), that have a caption in common (`captions`), or none (`none`).
    pub same: Same,
    /// Share of the images that is held out and measured on, if the data has no test part. 0: nothing is.
    pub holdout: f64,
}

impl Default for CaptionsRecipe {
    fn default() -> Self {
        CaptionsRecipe { prompts: vec![format!("a photo of a {PLACE}.")], same: Same::CaptionsAndPixels, holdout: 0.1 }
    }
}

/// Which pairs are no negatives of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Same {
    /// Of images with equal pixels, or with a caption in common.
    CaptionsAndPixels,
    /// Of images with a caption in common.
    Captions,
    /// All pairs of a batch are negatives of each other, as in CLIP.
    None,
}

/// `[image]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageRecipe {
    /// A run of vision, or another program's network, that the tower begins with. A new run takes its encoder and how it prepares images.
    pub init: Option<PathBuf>,
    /// Features of the images in a file (.npy, .safetensors, .parquet, .csv) with their names, in place of an encoder. An image may have
    /// several rows, of which one is drawn.
    pub features: Option<PathBuf>,
    /// Whether the encoder stays as it is; only the projection learns.
    pub frozen: bool,
    /// Train only the last so many blocks of the encoder, and what is behind them.
    pub unlock_last: Option<usize>,
    /// The encoder's rate, as a factor of the optimizer's.
    pub rate: f64,
    /// `[image.encoder.*]`.
    pub encoder: EncoderRecipe,
    /// `[image.head]`: the projection into the common space.
    pub head: ProjectionRecipe,
}

impl Default for ImageRecipe {
    fn default() -> Self {
        ImageRecipe {
            init: None,
            features: None,
            frozen: false,
            unlock_last: None,
            rate: 1.0,
            encoder: EncoderRecipe::default(),
            head: ProjectionRecipe::default(),
        }
    }
}

/// `[text]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextRecipe {
    /// Features of the captions in a file, whose names are the captions, in place of an encoder.
    pub features: Option<PathBuf>,
    /// Whether the encoder stays as it is; only the projection learns.
    pub frozen: bool,
    /// Train only the last so many blocks of the encoder, and what is behind them.
    pub unlock_last: Option<usize>,
    /// The encoder's rate, as a factor of the optimizer's.
    pub rate: f64,
    /// `[text.tokenizer]`: how captions become tokens.
    pub tokenizer: TokenizerRecipe,
    /// `[text.encoder.*]`: also a run of sentences, or word vectors, whose mean is taken (`[text.encoder.static] weights`).
    pub encoder: texts::EncoderRecipe,
    /// `[text.head]`: the projection into the common space.
    pub head: ProjectionRecipe,
}

impl Default for TextRecipe {
    fn default() -> Self {
        TextRecipe {
            features: None,
            frozen: false,
            unlock_last: None,
            rate: 1.0,
            tokenizer: TokenizerRecipe::default(),
            encoder: texts::EncoderRecipe::Transformer(texts::TransformerRecipe::default()),
            head: ProjectionRecipe::default(),
        }
    }
}

/// `[image.head]` and `[text.head]`: by default CLIP's projection, one linear layer without bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProjectionRecipe {
    /// Layers, 0 (the encoder's features are the embedding) to 3.
    pub layers: usize,
    /// Width of the embedding, the same for images and texts.
    pub width: usize,
    /// Width of the hidden layers; default: as wide as the features.
    pub hidden: Option<usize>,
    /// Which layers have batch normalisation.
    pub norms: Norms,
    /// Whether layers without batch normalisation have a bias.
    pub bias: bool,
}

impl Default for ProjectionRecipe {
    fn default() -> Self {
        ProjectionRecipe { layers: 1, width: 256, hidden: None, norms: Norms::None, bias: false }
    }
}

impl ProjectionRecipe {
    /// The same as the head of a tower.
    pub fn head(&self) -> HeadRecipe {
        let ProjectionRecipe { layers, width, hidden, norms, bias } = *self;
        HeadRecipe { layers, width, hidden, norms, bias }
    }
}

/// `[eval]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalRecipe {
    /// Epochs between two measurements of retrieval on the held-out images, if there are any.
    pub every: usize,
}

impl Default for EvalRecipe {
    fn default() -> Self {
        EvalRecipe { every: 1 }
    }
}

/// How a tower learns, as its section says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Learns {
    pub frozen: bool,
    pub unlock_last: Option<usize>,
    pub rate: f64,
}

impl Learns {
    fn check(self, text: &Recipe, stored: bool) -> Result<()> {
        text.within("rate", self.rate, 0.0..=MOST)?;
        text.require(self.rate > 0.0 || self.frozen, "rate", "must be above 0; frozen = true keeps the encoder as it is")?;
        let both = !self.frozen || self.unlock_last.is_none();
        text.require(both, "unlock_last", "cannot be beside frozen = true: one trains the last blocks, the other none")?;
        text.within("unlock_last", self.unlock_last.unwrap_or(1), 1..=256)?;
        let plain = !self.frozen && self.unlock_last.is_none();
        text.require(
            !stored || plain,
            if self.frozen { "frozen" } else { "unlock_last" },
            "is of no use: stored features do not learn",
        )
    }

    /// How the encoder's parameters learn, whose deepest block has the depth `deepest`.
    ///
    /// # Errors
    /// The encoder has no blocks, or not as many.
    pub fn learning(self, deepest: Option<usize>, text: &Recipe) -> Result<Learning> {
        if self.frozen {
            return Ok(Learning::FROZEN);
        }
        let from = match (self.unlock_last, deepest) {
            (None, _) => 0,
            (Some(_), None) => {
                let what = "needs an encoder of blocks: a transformer of images or texts";
                return Err(text
                    .error("unlock_last", what)
                    .hint("use frozen = true, or train the whole encoder at a lower rate"));
            }
            (Some(last), Some(deepest)) if last > deepest => {
                return Err(text.error("unlock_last", format!("is {last}, and the encoder has {deepest} blocks")));
            }
            (Some(last), Some(deepest)) => deepest + 1 - last,
        };
        Ok(Learning { rate: self.rate, from })
    }
}

impl ImageRecipe {
    pub(crate) fn learns(&self) -> Learns {
        Learns { frozen: self.frozen, unlock_last: self.unlock_last, rate: self.rate }
    }
}

impl TextRecipe {
    pub(crate) fn learns(&self) -> Learns {
        Learns { frozen: self.frozen, unlock_last: self.unlock_last, rate: self.rate }
    }

    /// The same encoder and tokenizer as a recipe of sentences.
    pub(crate) fn of_sentences(&self) -> SentencesRecipe {
        SentencesRecipe { encoder: self.encoder.clone(), tokenizer: self.tokenizer.clone(), ..SentencesRecipe::default() }
    }
}

/// A recipe that has been checked.
#[derive(Clone)]
pub struct Checked {
    /// The recipe.
    pub recipe: ImageTextRecipe,
    /// How an image becomes a view.
    pub augment: Augment,
    /// The recipe as written.
    pub text: Recipe,
    head: HeadRecipe,
}

impl Checked {
    /// Parses and checks `text`; errors have line and column.
    ///
    /// # Errors
    /// A key that there is not, or a value that is not allowed.
    pub fn new(text: &Recipe) -> Result<Checked> {
        text.tables(&schemars::schema_for!(ImageTextRecipe).to_value())?;
        let recipe: ImageTextRecipe = text.parse()?;
        recipe.data.check(text)?;
        let ImageTextRecipe { captions, image, text: of_text, loss, .. } = &recipe;
        text.within("captions.holdout", captions.holdout, 0.0..=0.9)?;
        let class = captions.prompts.iter().all(|prompt| prompt.contains(PLACE));
        text.require(class, "captions.prompts", format!("must each contain {PLACE}, where the class's name goes"))?;
        let augment = recipe.pairs.check(text)?;
        let (of_image, of_captions) = (&text.below("image"), &text.below("text"));
        image.learns().check(of_image, image.features.is_some())?;
        of_text.learns().check(of_captions, of_text.features.is_some())?;
        for (side, stored, key) in [
            (of_image, image.features.is_some(), "encoder"),
            (of_image, image.features.is_some(), "init"),
            (of_captions, of_text.features.is_some(), "encoder"),
            (of_captions, of_text.features.is_some(), "tokenizer"),
        ] {
            side.require(!stored || !side.states(key), key, "cannot be beside `features`, which take its place")?;
        }
        tower::check(&image.encoder, of_image, &recipe.pairs, text)?;
        of_text.encoder.check(of_captions)?;
        of_text.tokenizer.check(of_captions, &of_text.encoder)?;
        image.head.head().check(of_image)?;
        of_text.head.head().check(of_captions)?;
        loss.check(false, text)?;
        loss.without_teacher(text)?;
        loss.without_scores(text)?;
        let what =
            "is for two views of one kind, and images and captions are two: use [loss.infonce], [loss.siglip] or [loss.ranking]";
        text.require(TWO_SIDED.contains(&loss.name()), &format!("loss.{}", loss.name()), what)?;
        recipe.optimizer.check(text)?;
        recipe.schedule.check(text)?;
        let train = &recipe.train;
        train.check(text)?;
        text.require(train.batch > 1, "train.batch", "must be at least 2: a loss compares the pairs of a batch")?;
        text.require(recipe.eval.every > 0, "eval.every", "must be at least 1 epoch")?;
        Ok(Checked { head: recipe.image.head.head(), recipe, augment, text: text.clone() })
    }

    /// The plan of a run.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn plan(&self) -> Result<Plan> {
        let ImageTextRecipe { schedule, optimizer, train, checkpoint, .. } = &self.recipe;
        let schedule = Schedule::new(schedule, optimizer.rate());
        let saves = checkpoint.saves(&train.shared(), &self.text)?;
        Ok(Plan { part: train.part(), saves, ..Plan::new(NAME, &self.text, train.shared(), schedule)? })
    }

    /// The sections that describe the method.
    pub fn method(&self) -> Method<'_> {
        let ImageTextRecipe { loss, optimizer, train, .. } = &self.recipe;
        // Each tower has a head of its own; the method is told of the one of images.
        Method { head: &self.head, predictor: None, loss, optimizer, train }
    }
}

/// Writes the settings of image-text into a new recipe where it has none: core's defaults are those of images alone.
///
/// # Errors
/// A recipe that is not TOML; a network to begin with that cannot be opened.
pub(crate) fn complete(recipe: &mut Recipe) -> Result<()> {
    let read: ImageTextRecipe = recipe.parse()?;
    if let Some(init) = read.image.init.as_ref().filter(|_| !recipe.states("image.encoder")) {
        adopt(recipe, init)?;
    }
    // CLIP's views: a crop of nearly all of the image, and no change of its colours, which captions name.
    for (key, value) in [
        ("pairs.crop", "[0.9, 1.0]"),
        ("pairs.flip", "0.0"),
        ("pairs.jitter", "0.0"),
        ("pairs.gray", "0.0"),
        ("pairs.blur", "0.0"),
        ("pairs.eval_fit", "resize"),
        ("data.background", "white"),
        ("schedule.length", "steps"),
        ("schedule.scaling", "none"),
    ] {
        recipe.set_absent(key, value)?;
    }
    if !recipe.states("loss") {
        for (key, value) in [("temperature", "0.07"), ("learned", "true")] {
            recipe.set(&format!("loss.infonce.{key}"), value)?;
        }
    }
    let read: ImageTextRecipe = recipe.parse()?;
    if matches!(read.optimizer, OptimizerRecipe::Adamw(_)) {
        for (key, value) in [("beta2", "0.98"), ("eps", "1e-6"), ("decay", "0.2")] {
            recipe.set_absent(&format!("optimizer.adamw.{key}"), value)?;
        }
    }
    if !recipe.states("schedule.warmup") {
        recipe.set("schedule.warmup", &format!("{:?}", read.train.epochs as f64 / 10.0))?;
    }
    if read.image.features.is_none() {
        for (key, value) in tower::stated(&read.image.encoder, read.pairs.size) {
            recipe.set_absent(&format!("image.{key}"), &value)?;
        }
    }
    Ok(())
}

/// Makes `recipe` begin with `path`: both towers of a run of image-text, or the image tower of a run of vision. What the recipe says of the
/// towers stays; it takes from the run what it does not say.
///
/// # Errors
/// There is no run, or it is of another modality.
pub(crate) fn begun(recipe: &mut Recipe, path: &Path) -> Result<()> {
    let checkpoint = Checkpoint::open(path)?;
    if checkpoint.manifest().modality != NAME {
        return recipe.set_path("image.init", path);
    }
    let of = checkpoint.recipe();
    let towers = ["image.encoder", "image.head", "text.encoder", "text.tokenizer", "text.head"];
    take_absent(recipe, &of, towers.iter().chain(clip::SHOWN).chain(tower::PREPARATION))?;
    // The run has all of these values.
    for key in ["image.init", "text.encoder.transformer.weights", "text.encoder.static.weights", "text.tokenizer.file"] {
        recipe.remove(key)?;
    }
    for name in tower::WEIGHTS {
        recipe.remove(&format!("image.{name}"))?;
    }
    recipe.set_path("train.init", path)
}

/// Copies those of `keys` that `of` states and `recipe` does not.
fn take_absent<'a>(recipe: &mut Recipe, of: &Recipe, keys: impl Iterator<Item = &'a &'a str>) -> Result<()> {
    for key in keys {
        if !recipe.states(key) && of.states(key) {
            recipe.take(key, of)?;
        }
    }
    Ok(())
}

/// Writes the encoder at `path`, and how it prepares images, into the recipe.
fn adopt(recipe: &mut Recipe, path: &Path) -> Result<()> {
    let (of, tensors) = tower::described(path)?;
    recipe.take_from("image.encoder", &of, "encoder")?;
    take_absent(recipe, &of, clip::SHOWN.iter().chain(tower::PREPARATION))?;
    let read: ImageTextRecipe = recipe.parse()?;
    let weights = format!("image.{}", read.image.encoder.key("weights"));
    match tensors {
        // What a run began with does not matter: its own weights are read.
        Some(_) => recipe.remove(&weights),
        None => recipe.set_path(&weights, path),
    }
}

/// A recipe for the images and captions at `path`, sized for about half an hour on two cores.
pub(crate) fn general(path: &Path) -> Result<String> {
    let images = dataset::first_look_captioned(&[path.to_path_buf()])?.pretraining();
    let side = images.median_side(64).unwrap_or(96);
    let (size, stem, width) = match side {
        0..=40 => (32, "small", 0.5),
        41..=80 => (64, "imagenet", 0.5),
        _ => (96, "imagenet", 0.5),
    };
    let path = serde_json::Value::String(path.display().to_string());
    Ok(format!(
        "# Images and their captions in one space.\n\
         # Measured: not measured. Towers that were trained before learn more from few pairs: image.init = a run of vision, and\n\
         # [text.encoder.transformer] weights = the folder of an encoder of sentences, with text.frozen = true.\n\
         [data]\npath = {path}\n\n\
         [pairs]\nsize = {size}\n\n\
         [image.encoder.resnet]\ndepth = 18\nwidth = {width}\nstem = \"{stem}\"\n\n\
         [text.encoder.transformer]\nlayers = 4\nwidth = 256\n\n\
         [loss.infonce]\ntemperature = 0.07\nlearned = true\n\n\
         [optimizer.adamw]\nrate = 1e-3\ndecay = 0.2\n\n\
         [schedule]\ndecay = \"cosine\"\nscaling = \"none\"\n\n\
         [train]\nepochs = 20\nbatch = 128\nseed = 0\n"
    ))
}
