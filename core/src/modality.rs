//! The interface that a plugin implements, and all that the command line knows of one.
//!
//! Recipes are passed as text, so that errors keep their line and column.

use std::path::{Path, PathBuf};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::eval::crossmodal::Captioned;
use crate::eval::{Features, Predictions, Table};
use crate::observer::Observer;
use crate::process::Process;
use crate::recipe::{Precision, Recipe};
use crate::store::best::Best;
use crate::store::checkpoint::Checkpoint;
use crate::store::run::Run;
use crate::task::TaskRequest;
use crate::train::bench::{Report, Request};
use crate::train::fit::Fitted;
use crate::train::plan::Plan;

/// One kind of data, and how to learn from it.
pub trait Modality: Sync {
    /// The name after `ctk train`.
    fn name(&self) -> &'static str;

    /// The recipe for `data` if the user gave none: without data the embedded default, which must do a complete training run offline; with
    /// data a general recipe for its kind.
    ///
    /// # Errors
    /// Data of an unknown kind.
    fn recipe(&self, data: Option<&Path>) -> Result<String>;

    /// The JSON schema of a recipe.
    fn schema(&self) -> serde_json::Value;

    /// Checks everything that can be checked before a folder is made.
    ///
    /// # Errors
    /// A mistake in the recipe, with line and column.
    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>>;

    /// Opens a trained model from its checkpoint.
    ///
    /// # Errors
    /// A checkpoint that is damaged or of another modality.
    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>>;

    /// Whether its models run on the device that they are given. Otherwise they run on the CPU alone.
    fn on_devices(&self) -> bool {
        true
    }

    /// Opens a model from a file or folder that another program wrote; its kind is recognised by its content. None if this modality reads
    /// nothing of the kind. `device` opens the device that the model is to run on.
    ///
    /// # Errors
    /// A file or folder of a known kind that is damaged.
    fn open_file(&self, _path: &Path, _device: &dyn Fn() -> Result<Device>) -> Result<Option<Box<dyn Model>>> {
        Ok(None)
    }

    /// A job that turns another program's weights into a run without a training step, and the run's recipe: the one that describes the
    /// weights, changed by `set`. The file or folder `weights` is recognised by its content. None if this modality cannot read it.
    ///
    /// # Errors
    /// Weights that are damaged, or of a network that this modality does not have; mistakes in the recipe have line and column.
    fn import(&self, _weights: &Path, _set: &dyn Fn(&mut Recipe) -> Result<()>) -> Result<Option<(Recipe, Box<dyn Job>)>> {
        Ok(None)
    }

    /// Writes settings into the recipe of a new run whose defaults have changed since earlier versions. A stored recipe without these keys
    /// keeps the meaning that it had when it ran.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    fn complete(&self, _recipe: &mut Recipe) -> Result<()> {
        Ok(())
    }

    /// The recipe keys that hold paths. Relative paths are relative to the recipe's file; runs store absolute paths.
    fn paths(&self) -> Vec<&'static str> {
        vec!["data.path"]
    }

    /// Makes `recipe` learn from `data`.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    fn set_data(&self, recipe: &mut Recipe, data: &Path) -> Result<()> {
        recipe.set_path("data.path", data)
    }

    /// Makes `recipe` train by the method called `name`: its loss, and what the method needs besides.
    ///
    /// # Errors
    /// There is no method of this name; or the recipe is not TOML.
    fn set_method(&self, _recipe: &mut Recipe, name: &str) -> Result<()> {
        Err(Error::usage(format!("--method {name}: {} has no methods by name", self.name()))
            .hint(format!("--set chooses the loss; `ctk config keys {} loss` prints its keys", self.name())))
    }

    /// Makes `recipe` begin with the weights of `run`, a run of this modality.
    ///
    /// # Errors
    /// A modality that cannot begin with another run's weights.
    fn set_init(&self, _recipe: &mut Recipe, run: &Path) -> Result<()> {
        Err(Error::usage(format!("{} cannot begin with another run's weights", self.name()))
            .at(run.display())
            .hint("leave out --init"))
    }

    /// Whether runs of the modality `other` are weights for [`set_weights`](Modality::set_weights).
    fn reads_weights_of(&self, _other: &str) -> bool {
        false
    }

    /// Makes `recipe` begin with the weights that another program wrote into `file`. With `adopt` the recipe's network becomes that of the
    /// file.
    ///
    /// # Errors
    /// A modality that reads no weights, or weights that it does not know.
    fn set_weights(&self, _recipe: &mut Recipe, file: &Path, _adopt: bool) -> Result<()> {
        Err(Error::usage(format!("{} cannot begin with another program's weights", self.name()))
            .at(file.display())
            .hint("leave out --init"))
    }

    /// The recipe for the task in `request`; `from` is the checkpoint of the run that it names.
    ///
    /// # Errors
    /// A modality without tasks, or a run that cannot be used for this task.
    fn task(&self, from: &Checkpoint, _request: &TaskRequest) -> Result<Recipe> {
        Err(Error::usage(format!("a run of {} cannot be fine-tuned or distilled", self.name()))
            .at(from.folder().display())
            .hint("give a run of vision or of sentences"))
    }

    /// The same for a model that another program wrote; `request` names it. None if this modality reads no such model.
    ///
    /// # Errors
    /// As [`task`](Self::task).
    fn foreign_task(&self, _request: &TaskRequest) -> Result<Option<Recipe>> {
        Ok(None)
    }

    /// Whether a fine-tuned run of it can be distilled into a student by its classes.
    fn distills_classes(&self) -> bool {
        true
    }

    /// What its samples are called: `images`, `texts`.
    fn samples(&self) -> &'static str {
        "samples"
    }

    /// The recipe that [`bench`](Modality::bench) times if the user gave none: the same on every machine.
    ///
    /// # Errors
    /// A modality without a bench.
    fn yardstick(&self) -> Result<&'static str> {
        Err(untimed(self.name()))
    }

    /// Keys and values that `--fast` sets in a recipe: training becomes faster, and the result slightly worse.
    fn fast(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Times the recipe's step, changed as `request` says, on this machine. `observer` is told what is being timed.
    ///
    /// # Errors
    /// A modality without a bench, a recipe with mistakes, or data that cannot be read.
    fn bench(&self, _recipe: &Recipe, _request: &Request, _observer: &mut dyn Observer) -> Result<Report> {
        Err(untimed(self.name()))
    }

    /// Checks all of the recipe's data: what it holds, and what is wrong with it.
    ///
    /// # Errors
    /// A modality without such a check, or data that cannot be opened.
    fn check_data(&self, _recipe: &Recipe) -> Result<DataCheck> {
        Err(Error::usage(format!("{} cannot check its data", self.name())).hint("only vision checks its images"))
    }

    /// Describes a run by `recipe`, one sentence on each line: its data, its model, its length, and what will be measured.
    ///
    /// # Errors
    /// Data that cannot be opened.
    fn about(&self, _recipe: &Recipe) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Writes `views` random views of each image of the recipe's data into the new folder `out`, with a table that says whose they are.
    ///
    /// # Errors
    /// A modality without images, data that cannot be read, or a folder that cannot be written.
    fn export_views(&self, _recipe: &Recipe, _views: usize, _out: &Path) -> Result<()> {
        Err(Error::usage(format!("{} has no views to write", self.name())).hint("only vision and image-text have images"))
    }

    /// Draws view pairs of the recipe's data into an image file, and returns warnings about them.
    ///
    /// # Errors
    /// A modality without a preview, data that cannot be read, or a file that cannot be written.
    fn preview(&self, _recipe: &Recipe, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("{} has nothing to preview", self.name())).hint("only vision draws its view pairs"))
    }
}

fn untimed(modality: &str) -> Error {
    Error::usage(format!("{modality} has no step to time"))
        .hint("`ctk bench vision`, `ctk bench word2vec` and `ctk bench sentences` time theirs")
}

/// The result of a check of data.
#[derive(Clone, Debug)]
pub struct DataCheck {
    /// All figures under their JSON names.
    pub figures: serde_json::Value,
    /// Sentences to print.
    pub lines: Vec<String>,
}

/// A checked recipe, ready to run.
pub trait Job {
    /// The plan that was checked.
    fn plan(&self) -> &Plan;

    /// Trains from the start, or from the checkpoint that `run` resumes.
    ///
    /// # Errors
    /// A failure of training, a file that cannot be written, or a request to stop.
    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary>;
}

/// The report of a finished training run. `figures` become JSON keys; `text` is printed below them.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Steps since the start of the run, over all processes.
    pub steps: usize,
    /// Epochs since the start of the run (a fraction if `max_steps` ended it).
    pub epochs: f64,
    /// The loss, averaged over the last epoch that was run.
    pub loss: f64,
    /// Wall-clock seconds of training in this process.
    pub seconds: f64,
    /// Further figures under their JSON names.
    pub figures: Vec<(&'static str, serde_json::Value)>,
    /// A small table or samples, printed as it is.
    pub text: String,
    /// Commands to suggest; `RUN` in them stands for the run's folder.
    pub next: Vec<&'static str>,
}

impl Summary {
    /// Adds the best checkpoint, if there is one, and the command `next` for it. `shown` writes a value of its measure for people; `what` is
    /// what it was measured on: `images`, `samples`.
    pub fn best(&mut self, best: Option<&Best>, what: &str, shown: impl Fn(f64) -> String, next: &'static str) {
        let Some(Best { step, measure, value, on, samples }) = best else { return };
        self.figures.extend([
            ("best_step", (*step).into()),
            ("best_value", (*value).into()),
            ("best_measure", measure.as_str().into()),
            ("best_on", on.as_str().into()),
        ]);
        self.text.push_str(&format!(
            "best checkpoint: step {step}, {} {} on {samples} {what} ({on}); the folder checkpoints/best stands for it\n",
            measure.replace('_', " "),
            shown(*value)
        ));
        self.next.push(next);
    }
}

impl From<Fitted> for Summary {
    /// The training loop's report, without a modality's own figures and words.
    fn from(fitted: Fitted) -> Summary {
        let figures = fitted.figures();
        let Fitted { steps, epochs, loss, seconds, .. } = fitted;
        Summary { steps, epochs, loss, seconds, figures, ..Summary::default() }
    }
}

/// Which rows a model is asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The data; none: the data that the model was trained on.
    pub data: Option<PathBuf>,
    /// Single samples, one file each, in place of data: see [`Model::is_sample`].
    pub files: Vec<PathBuf>,
    /// Which part of the data.
    pub split: Split,
    /// One of [`Model::baselines`] in place of the learned features.
    pub baseline: Option<String>,
    /// The draw of a random baseline; other baselines ignore it.
    pub seed: u64,
    /// One view of the positive pairs of training, in place of the evaluation view: see [`Model::views`].
    pub view: Option<View>,
    /// What is put before each text, as [`Model::prompt`] says it; none: what the model usually puts there.
    pub prompt: Option<String>,
    /// Texts in place of data, for models that read texts: see [`Model::embeds_names`].
    pub texts: Vec<String>,
}

/// What is put before texts: some encoders were trained with other words before queries than before documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// What the model puts before all texts, perhaps nothing.
    #[default]
    Usual,
    /// What it puts before queries; if it has nothing of its own for them, what is usual.
    Query,
    /// The same for documents.
    Document,
    /// The prompt that has this name in the model.
    Named(String),
    /// This text.
    Text(String),
}

/// A side of a positive pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The first view.
    Left,
    /// The second view.
    Right,
}

/// A part of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// The training part.
    Train,
    /// The test part, or the hold-out.
    Test,
    /// All parts.
    #[default]
    All,
}

/// A trained model.
pub trait Model {
    /// The features that `query` asks for.
    ///
    /// # Errors
    /// Data or a baseline that the model does not have, or samples that cannot be read.
    fn features(&self, query: &Query) -> Result<Features>;

    /// From now on features, and what a classifier makes of them, are computed in `precision`; without this call, in f32.
    ///
    /// # Errors
    /// The model has no layers that could compute in another type than f32.
    fn compute_in(&mut self, precision: Precision) -> Result<()> {
        match precision {
            Precision::F32 => Ok(()),
            Precision::Bf16 => {
                Err(Error::usage("the features of this model are stored, and not computed by layers, so there is no bf16"))
            }
        }
    }

    /// The same rows as a table, for callers that need some rows only, or each row once; the rows need not be copied.
    ///
    /// # Errors
    /// As [`features`](Self::features).
    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        Ok(Box::new(self.features(query)?))
    }

    /// Features of these texts, a row for each, in order.
    ///
    /// # Errors
    /// The model does not read texts.
    fn texts(&self, _texts: &[String]) -> Result<Features> {
        Err(Error::usage("this model does not read texts").hint("give a run of sentences or of word2vec, or an encoder's folder"))
    }

    /// What `wanted` puts before texts; none: what the model usually puts there.
    ///
    /// # Errors
    /// A name that the model does not know, or a model that puts nothing before texts.
    fn prompt(&self, wanted: &Prompt) -> Result<Option<String>> {
        match wanted {
            Prompt::Usual | Prompt::Query | Prompt::Document => Ok(None),
            Prompt::Named(_) | Prompt::Text(_) => Err(Error::usage("this model puts nothing before texts")
                .hint("leave out the prompt: encoders of sentences have some")),
        }
    }

    /// Features of these texts behind `prompt`, which [`prompt`](Model::prompt) gave.
    ///
    /// # Errors
    /// As [`texts`](Model::texts).
    fn prompted(&self, prompt: Option<&str>, texts: &[String]) -> Result<Features> {
        match prompt {
            None => self.texts(texts),
            Some(_) => Err(Error::usage("this model puts nothing before texts")),
        }
    }

    /// Images with their captions, as rows of one space, and notes about them: the part of the data that `query` names which the model may
    /// be measured on.
    ///
    /// # Errors
    /// The model has no captions, or data that cannot be read.
    fn captioned(&self, _query: &Query) -> Result<(Captioned, Vec<String>)> {
        Err(Error::usage("this model does not read images with captions").hint("give a run of image-text"))
    }

    /// Whether a name without a row is itself a text, whose features [`texts`](Model::texts) computes.
    fn embeds_names(&self) -> bool {
        false
    }

    /// Whether the file at `path` holds one sample, by its name, so that [`Query::files`] may name it.
    fn is_sample(&self, _path: &Path) -> bool {
        false
    }

    /// The classifier, in a model that was trained with labels.
    ///
    /// # Errors
    /// There is none; the hint says what to do.
    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(Error::usage("this model has no classifier, so it cannot predict classes"))
    }

    /// Notes from opening the model, to print.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Whether samples have random views, so that [`Query::view`] can be used.
    fn views(&self) -> bool {
        false
    }

    /// Names of features that were not learned, for comparison (`untrained`, `pixels`).
    fn baselines(&self) -> &'static [&'static str] {
        &[]
    }

    /// Formats that [`export`](Model::export) writes; none unless said otherwise.
    fn formats(&self) -> &'static [&'static str] {
        &[]
    }

    /// The files that [`export`](Model::export) writes: `out`, and files beside it.
    fn exported(&self, _format: &str, out: &Path) -> Vec<PathBuf> {
        vec![out.to_path_buf()]
    }

    /// Writes the encoder for other programs, and the classifier if there is one. Returns lines to print.
    ///
    /// # Errors
    /// An unknown format, or a file that cannot be written.
    fn export(&self, format: &str, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("this model cannot be exported as `{format}`")))
    }

    /// The same without the classifier.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    fn export_encoder(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        self.export(format, out)
    }
}

/// Predicts the classes of samples.
pub trait Classifier {
    /// What its samples are called: `images`, `texts`.
    fn samples(&self) -> &'static str;

    /// The predictions for the samples that `query` asks for.
    ///
    /// # Errors
    /// Samples that cannot be read.
    fn predictions(&self, query: &Query) -> Result<Predictions>;

    /// The predictions for samples that the classifier may be evaluated on, because it was not trained on them: for its own data the test
    /// part or the hold-out; for other data the test part if there is one, else all of it. The figure `part` says which.
    ///
    /// # Errors
    /// The names of its classes are unknown.
    fn judged(&self, query: &Query) -> Result<Predictions>;

    /// The predictions for samples on which a temperature may be fitted: their labels were not used for training, and the classifier is not
    /// [`judged`](Self::judged) on them for this query. The figure `part` says which they are, and `calibration_set` says it in one word.
    ///
    /// # Errors
    /// There are no such samples.
    fn held_back(&self, query: &Query) -> Result<Predictions>;
}
