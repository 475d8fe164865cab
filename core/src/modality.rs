//! The front door: what a plugin implements, and all that the command line knows of one.
//!
//! Everything behind it is generic; these traits are the only `dyn`. Recipes cross as text, so that an error keeps its line
//! and column.

use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::error::{Error, Result};
use crate::eval::{Features, Predictions, Table};
use crate::observer::Observer;
use crate::process::Process;
use crate::recipe::Recipe;
use crate::store::checkpoint::Checkpoint;
use crate::store::run::Run;
use crate::task::TaskRequest;
use crate::train::bench::{Report, Request};
use crate::train::plan::Plan;

/// One kind of data and how to learn from it.
pub trait Modality: Sync {
    /// The word after `ctk train`.
    fn name(&self) -> &'static str;

    /// The recipe for `data` where the user gave none: the embedded default without data (it must do a whole job offline),
    /// else a general recipe for what is found there.
    fn recipe(&self, data: Option<&Path>) -> Result<String>;

    /// The JSON schema of a recipe.
    fn schema(&self) -> serde_json::Value;

    /// Checks everything that can be checked before a folder is made. Errors carry line and column.
    fn plan(&self, recipe: &Recipe) -> Result<Box<dyn Job>>;

    /// A trained model from its checkpoint.
    fn open(&self, from: &Checkpoint, device: &Device) -> Result<Box<dyn Model>>;

    /// A model from a file that another program wrote, known by looking at what is in it; none where this modality reads no such
    /// file.
    ///
    /// # Errors
    /// A file of a known kind that is damaged.
    fn open_file(&self, _path: &Path) -> Result<Option<Box<dyn Model>>> {
        Ok(None)
    }

    /// A job that makes a run, without a step, of what another program trained, known by looking into the file or folder `weights`;
    /// and the recipe that the run is by: what the weights mean, changed by `set`. None where this modality reads no such thing.
    ///
    /// # Errors
    /// Weights that are damaged, or that this modality has no network for; those of the recipe carry line and column.
    fn import(&self, _weights: &Path, _set: &dyn Fn(&mut Recipe) -> Result<()>) -> Result<Option<(Recipe, Box<dyn Job>)>> {
        Ok(None)
    }

    /// Writes into the recipe of a new run what new runs do by default and earlier ones did not, so that a stored recipe without
    /// these keys means what it meant when it ran.
    ///
    /// # Errors
    /// A recipe that is no TOML.
    fn complete(&self, _recipe: &mut Recipe) -> Result<()> {
        Ok(())
    }

    /// The keys of a recipe that hold paths: relative ones are beside the recipe's file, and runs store them whole.
    fn paths(&self) -> &'static [&'static str] {
        &["data.path"]
    }

    /// Makes `recipe` learn from `data`.
    fn set_data(&self, recipe: &mut Recipe, data: &Path) -> Result<()> {
        recipe.set_path("data.path", data)
    }

    /// Makes `recipe` begin with what `run`, a run of this modality, has learned.
    ///
    /// # Errors
    /// A modality that always begins anew.
    fn set_init(&self, _recipe: &mut Recipe, run: &Path) -> Result<()> {
        Err(Error::usage(format!("{} does not begin with another run", self.name())).at(run.display()).hint("leave out --init"))
    }

    /// Makes `recipe` begin with the weights that another program wrote into `file`. With `adopt` the recipe's network becomes theirs.
    ///
    /// # Errors
    /// A modality that reads no weights; weights that it does not know.
    fn set_weights(&self, _recipe: &mut Recipe, file: &Path, _adopt: bool) -> Result<()> {
        Err(Error::usage(format!("{} does not begin with another program's file", self.name()))
            .at(file.display())
            .hint("leave out --init"))
    }

    /// The recipe that `request` means; `from` is the checkpoint of the run that it names.
    ///
    /// # Errors
    /// A modality without tasks; a run that is not fit for this one.
    fn task(&self, from: &Checkpoint, _request: &TaskRequest) -> Result<Recipe> {
        Err(Error::usage(format!("a run of {} cannot be fine-tuned or distilled", self.name()))
            .at(from.folder().display())
            .hint("give a run of vision"))
    }

    /// The recipe that [`bench`](Modality::bench) times where the user gave none: the same on every machine.
    fn yardstick(&self) -> Result<&'static str> {
        Err(untimed(self.name()))
    }

    /// Keys and values of a recipe that make training faster, and what is learned a little worse: what `--fast` sets.
    fn fast(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// Times the recipe's step on this machine, changed as `request` says. `observer` is told what is being timed.
    fn bench(&self, _recipe: &Recipe, _request: &Request, _observer: &mut dyn Observer) -> Result<Report> {
        Err(untimed(self.name()))
    }

    /// Looks at all of the recipe's data: what is there, and what is wrong with it.
    ///
    /// # Errors
    /// A modality that does not look; data that cannot be opened.
    fn check_data(&self, _recipe: &Recipe) -> Result<DataCheck> {
        Err(Error::usage(format!("{} has no check of its data", self.name())).hint("only vision checks its images"))
    }

    /// What a run by `recipe` will be, a sentence a line: its data, its model, its length, and what will be measured.
    ///
    /// # Errors
    /// Data that cannot be opened.
    fn about(&self, _recipe: &Recipe) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Draws view pairs of the recipe's data into a picture; what is to be said of them.
    ///
    /// # Errors
    /// A modality without pictures; data that cannot be opened; a file that cannot be written.
    fn preview(&self, _recipe: &Recipe, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("{} has nothing to preview", self.name())).hint("only vision draws its view pairs"))
    }
}

fn untimed(modality: &str) -> Error {
    Error::usage(format!("{modality} has no step to time")).hint("`ctk bench vision` and `ctk bench word2vec` time theirs")
}

/// What a look at data found.
#[derive(Clone, Debug)]
pub struct DataCheck {
    /// Every figure under its JSON name.
    pub figures: serde_json::Value,
    /// Sentences for people.
    pub lines: Vec<String>,
}

/// A checked recipe, ready to run.
pub trait Job {
    /// What was checked.
    fn plan(&self) -> &Plan;

    /// Trains from the start, or from where `run` is to be resumed, with what `process` has at hand.
    fn run(self: Box<Self>, run: &mut Run, process: &mut Process) -> Result<Summary>;
}

/// What a finished training run has to report. `figures` become JSON keys, `text` goes below them.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Steps done since the very start.
    pub steps: usize,
    /// Epochs done since the very start (a fraction where `max_steps` ended the run).
    pub epochs: f64,
    /// The loss, averaged over the last epoch that was run.
    pub loss: f64,
    /// Wall seconds of the training phase of this process.
    pub seconds: f64,
    /// Further figures under their JSON names.
    pub figures: Vec<(&'static str, serde_json::Value)>,
    /// A small table or samples for people, printed as it is.
    pub text: String,
    /// Commands that come next, in which `RUN` stands for the run's folder.
    pub next: Vec<&'static str>,
}

/// Which rows are asked for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// The data; absent: what the model was trained on.
    pub data: Option<PathBuf>,
    /// Single samples, a file each, in place of data: see [`Model::is_sample`].
    pub files: Vec<PathBuf>,
    /// Which part of it.
    pub split: Split,
    /// One of [`Model::baselines`] instead of the learned representation.
    pub baseline: Option<String>,
    /// Which draw of a baseline that is random; others are what they are.
    pub seed: u64,
    /// One side of the positive pairs that training draws, instead of the view of evaluation: see [`Model::views`].
    pub view: Option<View>,
}

/// A side of a positive pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The one.
    Left,
    /// The other.
    Right,
}

/// A part of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// What may be trained on.
    Train,
    /// What was held out.
    Test,
    /// Everything there.
    #[default]
    All,
}

/// A trained model.
pub trait Model {
    /// Representations of what `query` asks for.
    fn features(&self, query: &Query) -> Result<Features>;

    /// The same rows, for who only looks at some of them or at each once: they need not be copied.
    fn table(&self, query: &Query) -> Result<Box<dyn Table + '_>> {
        Ok(Box::new(self.features(query)?))
    }

    /// Whether the file at `path`, by its name, holds one sample, so that [`Query::files`] may name it.
    fn is_sample(&self, _path: &Path) -> bool {
        false
    }

    /// What tells the classes of samples, in a model that was trained to.
    ///
    /// # Errors
    /// It was not: says what to do.
    fn classifier(&self) -> Result<Box<dyn Classifier + '_>> {
        Err(Error::usage("this model has no classifier, so it cannot tell classes"))
    }

    /// What was found while opening it and should be known.
    fn notes(&self) -> &[String] {
        &[]
    }

    /// Whether a sample has random views, so that [`Query::view`] has an answer.
    fn views(&self) -> bool {
        false
    }

    /// Names of representations that were not learned, to compare with (`untrained`, `pixels`).
    fn baselines(&self) -> &'static [&'static str] {
        &[]
    }

    /// Formats that [`export`](Model::export) writes.
    fn formats(&self) -> &'static [&'static str];

    /// The files that [`export`](Model::export) writes: `out`, and what lies beside it.
    fn exported(&self, _format: &str, out: &Path) -> Vec<PathBuf> {
        vec![out.to_path_buf()]
    }

    /// Writes the representation for other programs, and the classifier with it, where there is one.
    fn export(&self, format: &str, out: &Path) -> Result<Vec<String>>;

    /// The same without a classifier.
    fn export_encoder(&self, format: &str, out: &Path) -> Result<Vec<String>> {
        self.export(format, out)
    }
}

/// What tells the classes of samples.
pub trait Classifier {
    /// What it says of the samples that `query` asks for.
    fn predictions(&self, query: &Query) -> Result<Predictions>;

    /// What it says of samples that it may be judged by, since it was not trained on them: of its own data the test part, or what was
    /// held out; of other data a test part where there is one, else all of it. Which of these is told as `part`.
    ///
    /// # Errors
    /// It does not know what its classes are called.
    fn judged(&self, query: &Query) -> Result<Predictions>;

    /// What it says of samples whose labels it was neither trained on nor is [`judged`](Self::judged) by for this query: what a
    /// temperature may be fitted on. What they are is told as `part`, and in one word as `calibration_set`.
    ///
    /// # Errors
    /// There are none.
    fn held_back(&self, query: &Query) -> Result<Predictions>;
}
