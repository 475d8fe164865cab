//! The vision recipe: its sections in the order of the data flow, its checks, and the general recipe for a user's own data.

use std::path::Path;

use ctk_core::Result;
use ctk_core::data::dataset::Dataset as _;
use ctk_core::objective::LossRecipe;
use ctk_core::optim::Schedule;
use ctk_core::recipe::{
    CheckpointRecipe, DenseTrainRecipe, EvalRecipe, HeadRecipe, OptimizerRecipe, PredictorRecipe, Recipe, ScheduleRecipe,
    SgdRecipe,
};
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::train::plan::Plan;
use ctk_images::augment::{Augment, AugmentRecipe, Fit};
use ctk_images::dataset;
use ctk_images::decode::Background;
use ctk_images::recipe::DataRecipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::encoder::EncoderRecipe;
use crate::task::sections::TaskRecipe;

/// The recipe of `ctk train vision` without data or config.
pub(crate) const DEFAULT: &str = include_str!("../../../configs/vision/generated.toml");

/// A recipe of `ctk train vision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VisionRecipe {
    /// `[data]`: the images.
    pub data: DataRecipe,
    /// `[pairs]`: how one image becomes two views.
    pub pairs: AugmentRecipe,
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
    /// `[eval.*]`.
    pub eval: EvalRecipe,
    /// `[task.*]`: fine-tuning or distillation of a trained network, in place of training without labels.
    pub task: Option<TaskRecipe>,
}

impl Default for VisionRecipe {
    fn default() -> Self {
        VisionRecipe {
            data: DataRecipe::default(),
            pairs: AugmentRecipe::default(),
            encoder: EncoderRecipe::default(),
            head: HeadRecipe::default(),
            predictor: None,
            loss: LossRecipe::default(),
            optimizer: OptimizerRecipe::Sgd(SgdRecipe::default()),
            schedule: ScheduleRecipe::default(),
            train: DenseTrainRecipe::default(),
            checkpoint: CheckpointRecipe::default(),
            eval: EvalRecipe::default(),
            task: None,
        }
    }
}

/// A recipe that has been checked.
#[derive(Clone)]
pub(crate) struct Checked {
    pub recipe: VisionRecipe,
    pub augment: Augment,
}

impl Checked {
    /// The plan of a run; `text` is the recipe as written.
    ///
    /// # Errors
    /// A value that is not allowed.
    pub fn plan(&self, text: &Recipe) -> Result<Plan> {
        let schedule = Schedule::new(&self.recipe.schedule, self.recipe.optimizer.rate());
        let train = &self.recipe.train;
        train.check(text)?;
        let saves = self.recipe.checkpoint.saves(&train.shared(), text)?;
        Ok(Plan { part: train.part(), saves, ..Plan::new("vision", text, train.shared(), schedule)? })
    }
}

/// Parses and checks `text`; errors have line and column.
pub(crate) fn check(text: &Recipe) -> Result<Checked> {
    text.tables(&schemars::schema_for!(VisionRecipe).to_value())?;
    let recipe: VisionRecipe = text.parse()?;
    let augment = recipe.pairs.check(text)?;
    encoder_fits(&recipe.encoder, text, &recipe.pairs, text)?;
    recipe.data.check(text)?;
    crate::network::method(&recipe).check(text)?;
    recipe.loss.without_scores(text)?;
    recipe.loss.without_teacher(text)?;
    recipe.schedule.check(text)?;
    recipe.eval.check(text)?;
    if recipe.task.is_none() {
        text.require(recipe.train.batch > 1, "train.batch", "must be at least 2: a loss compares the images of a batch")?;
    }
    if let Some(task) = &recipe.task {
        task.check(text, &recipe.encoder, &recipe.head, &recipe.eval)?;
    }
    Ok(Checked { recipe, augment })
}

/// Checks an encoder for images of the sizes in `pairs`; errors point at its line in `text`, and those of a size at its line in `sizes`.
pub(crate) fn encoder_fits(of: &EncoderRecipe, text: &Recipe, pairs: &AugmentRecipe, sizes: &Recipe) -> Result<()> {
    let encoder = of.architecture();
    // A message begins with the key that it is about.
    encoder.check().map_err(|e| {
        let key = of.key(e.what().split(' ').next().unwrap_or_default());
        let place = if text.states(&key) { key } else { format!("encoder.{}", encoder.family().name) };
        e.at(text.place_of(&place))
    })?;
    for (key, size) in [("pairs.size", Some(pairs.size)), ("pairs.eval_size", pairs.eval_size)] {
        size.map_or(Ok(()), |size| encoder.fits(size)).map_err(|e| e.at(sizes.place_of(key)))?;
    }
    Ok(())
}

/// Settings that a new run states if its recipe does not, as keys and values: the background of transparent pixels, how an image becomes the
/// evaluation view, and what an encoder depends on (a ViT's size). A run that begins with another run takes that run's settings. Otherwise images are resized and their centre
/// is cut out; alpha is dropped if the network is another program's, as that program does, and the background is white if not.
///
/// # Errors
/// The run to begin with cannot be opened.
pub(crate) fn stated(recipe: &VisionRecipe) -> Result<Vec<(String, String)>> {
    let from = recipe.train.init.as_ref().or_else(|| recipe.task.as_ref().and_then(TaskRecipe::from));
    let encoder = recipe.encoder.architecture();
    let mut own = encoder.stated(recipe.pairs.size);
    let (background, fit) = match from {
        Some(run) => {
            let run = check(&Checkpoint::open(run)?.recipe())?.recipe;
            if run.encoder.architecture().family().name == encoder.family().name {
                own = run.encoder.architecture().stated(run.pairs.size);
            }
            (run.data.law().background, run.pairs.evaluation().fit)
        }
        None if encoder.weights().is_some() => (Background::Drop, Fit::Resize),
        None => (Background::WHITE, Fit::Resize),
    };
    let mut all = vec![
        ("data.background".to_string(), background.word()),
        ("pairs.eval_fit".to_string(), serde_json::json!(fit).as_str().unwrap_or_default().to_string()),
    ];
    all.extend(own.into_iter().map(|(key, value)| (recipe.encoder.key(key), value)));
    Ok(all)
}

/// A recipe for the images at `path`, sized for about half an hour on two cores: a narrow ResNet-18 that sees half a million images, at 32
/// or 64 pixels for small images and at 96 for others.
pub(crate) fn general(path: &Path) -> Result<String> {
    let images = dataset::first_look(&[path.to_path_buf()])?.pretraining();
    // If no header can be read, training reports which.
    let (count, side) = (images.len(), images.median_side(64).unwrap_or(96));
    let (size, stem, width) = match side {
        0..=40 => (32, "small", 0.25),
        41..=80 => (64, "imagenet", 0.5),
        _ => (96, "imagenet", 0.5),
    };
    let programs = match stem {
        "small" => "# Other programs: a stem for small images is none of theirs; `ctk export` writes the tensors.\n",
        _ => "# Other programs: transformers loads this width; torchvision and timm have only width = 1.0.\n",
    };
    let batch = (count / 8).clamp(8, 256).next_power_of_two().min(256);
    let epochs = (500_000 / count.max(1)).clamp(10, 200);
    let warmup = epochs as f64 / 10.0;
    Ok(format!(
        "# A general recipe for {count} images of about {side} pixels, sized for about half an hour on two cores.\n\
         # Run: ctk train vision --data {path}\n\
         # Measured: not measured. A wider encoder, more epochs and a larger batch learn more and take longer.\n\
         {programs}\
         [data]\npath = {path:?}\n\n\
         [pairs]\nsize = {size}\n\n\
         [encoder.resnet]\ndepth = 18\nwidth = {width}\nstem = \"{stem}\"\n\n\
         [head]\nlayers = 3\nwidth = 128\n\n\
         [loss.nt-xent]\ntemperature = 0.2\n\n\
         [optimizer.sgd]\nrate = 0.12\nmomentum = 0.9\ndecay = 5e-4\n\n\
         [schedule]\nwarmup = {warmup}\ndecay = \"cosine\"\nscaling = \"linear\"\n\n\
         [train]\nepochs = {epochs}\nbatch = {batch}\nseed = 0\n\n\
         [eval.knn]\nevery = {every}\n",
        path = path.display().to_string(),
        every = (epochs / 5).max(1),
    ))
}
