//! Flags of the verbs that learn from few labels: fine-tuning, distillation, and the study that compares them.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use ctk_core::data::labels::Amount;
use ctk_core::task::{self, Task, TaskOptimizer, TaskRequest};
use serde::{Deserialize, Serialize};

use super::{ModelArgs, NewRun};

fn amount(text: &str) -> Result<Amount, String> {
    text.parse().map_err(|e: ctk_core::Error| e.to_string())
}

/// How a task trains: flags that fine-tuning and distillation share.
#[derive(ClapArgs, Clone)]
pub struct Tuning {
    /// The optimizer: LARS (SimCLRv2) or SGD with momentum
    #[arg(long, value_enum, default_value_t = Optimizer::Lars)]
    pub optimizer: Optimizer,
    /// Images in a batch; fewer where there are fewer labelled images
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub batch: u32,
    /// Layers of the projection head that are kept and fine-tuned as a part of the encoder; 0 drops the head; default: 1 (SimCLRv2), or 0
    /// where the run has no head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub from_layer: Option<u8>,
    /// The statistics that batch normalisation uses while training: those of the batch (always so for a network trained from scratch), or
    /// the running statistics of pretraining
    #[arg(long, value_enum, default_value_t = Bn::Train)]
    pub bn: Bn,
    /// Set one key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Tuning {
    /// The request for `task` with the network of `run`.
    pub fn request(&self, run: &Path, data: Option<&Path>, task: Task) -> TaskRequest {
        TaskRequest {
            run: run.to_path_buf(),
            data: data.map(Path::to_path_buf),
            optimizer: match self.optimizer {
                Optimizer::Lars => TaskOptimizer::Lars,
                Optimizer::Sgd => TaskOptimizer::Sgd,
            },
            batch: self.batch as usize,
            from_layer: self.from_layer.map(usize::from),
            frozen_statistics: self.bn == Bn::Frozen,
            task,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Optimizer {
    /// LARS, layer-wise adaptive rate scaling
    Lars,
    /// Stochastic gradient descent with momentum .9
    Sgd,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bn {
    /// Statistics of the batch; the running statistics are updated
    Train,
    /// The running statistics of pretraining, which are not updated
    Frozen,
}

/// The values that fine-tuning chooses from, by cross-validation on the labelled images alone.
#[derive(ClapArgs, Clone)]
pub struct Choices {
    /// Learning rates to choose from; the peak rate is this value times √batch; default: .005 (SimCLRv2), .02 and .08 with LARS, half of
    /// these with SGD
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub rates: Vec<f64>,
    /// Numbers of epochs to choose from; default: 60 for up to 2 % of the labels or a number of labels a class, else 30 (SimCLRv2)
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub epochs: Vec<usize>,
    /// Smallest crops to choose from, as fractions of the image's area; default: the run's own
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',')]
    pub crops: Vec<f64>,
    /// Folds of the cross-validation; they are held out in turn until 1,000 images have been evaluated
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub folds: usize,
}

impl Choices {
    /// The task that fine-tunes with these choices, or that trains from scratch with `scratch`.
    pub fn task(&self, labels: Amount, seed: u64, scratch: bool) -> Task {
        let Choices { rates, epochs, crops, folds } = self.clone();
        Task::Finetune(task::Finetune { labels, seed, scratch, rates, epochs, crops, folds })
    }
}

#[derive(ClapArgs)]
pub struct Finetune {
    /// The run to start from: a run folder or a checkpoint
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Use this data instead of the run's own
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// How many training images keep their labels: a percentage of each class, at least one image (1%, 10%, 100%), or a number
    /// (5-per-class)
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub labels: Amount,
    /// Seed of the choice of labelled images, the folds, the order of the images and the views
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Train the same network from scratch instead, with the same rates to choose from and at least as many updates
    #[arg(long)]
    pub from_scratch: bool,
    #[command(flatten)]
    pub choices: Choices,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub new: NewRun,
}

#[derive(ClapArgs)]
pub struct Distill {
    /// The teacher: a run of `ctk finetune`
    #[arg(value_name = "TEACHER", value_hint = ValueHint::DirPath)]
    pub teacher: PathBuf,
    /// The student's recipe, of which [pairs], [encoder] and [head] are used; default: the teacher's own network (self-distillation)
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub student: Option<PathBuf>,
    /// The run that the student starts from; default: the run that the teacher started from, or with --student fresh weights
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// Use this data instead of the teacher's
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// The temperature by which both networks' logits are divided; default: .1 for self-distillation, 1 with --student
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The weight of the teacher's predictions in the loss, 0 to 1; the rest is cross entropy with the teacher's labels
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub alpha: f64,
    /// Epochs over all training images, labelled or not (SimCLRv2: 400)
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub epochs: usize,
    /// The learning rate; the peak rate is this value times √batch; default: .02 with LARS, .075 with LARS from fresh weights; half of
    /// these with SGD
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub new: NewRun,
}

/// The labels that a classifier is fitted on.
#[derive(ClapArgs)]
pub struct Few {
    /// Fit on fewer labels, the same that `ctk finetune` would be given: 1%, 10%, 5-per-class
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub labels: Option<Amount>,
    /// Seed of the choice of these labels
    #[arg(long, value_name = "N", default_value_t = 0, requires = "labels")]
    pub label_seed: u64,
}

#[derive(ClapArgs)]
pub struct LabelEfficiency {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Amounts of labels to compare
    #[arg(long, value_name = "AMOUNT,…", value_delimiter = ',', default_value = "1%,10%,100%", value_parser = amount)]
    pub labels: Vec<Amount>,
    /// Label subsets for each amount, with seeds 0 to N - 1; training has the same seed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Methods to compare
    #[arg(long, value_enum, value_name = "METHOD,…", value_delimiter = ',', default_values = ["scratch", "probe", "finetune", "distill"])]
    pub methods: Vec<Method>,
    #[command(flatten)]
    pub choices: Choices,
    /// Epochs of distillation over all training images
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub distill_epochs: usize,
    #[command(flatten)]
    pub tuning: Tuning,
    /// The study's folder; each cell of the table is a run in it. Finished cells are not run again, and the table covers all cells that are
    /// there, so that a study can be made in pieces; default: RUN/label-efficiency
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The same network trained from scratch on the labels alone
    Scratch,
    /// Linear probe: logistic regression on frozen features
    Probe,
    /// Fine-tuning
    Finetune,
    /// Fine-tuning, then self-distillation on all training images
    Distill,
}

impl Method {
    /// The method's name in tables and plots.
    pub fn said(self) -> &'static str {
        match self {
            Method::Scratch => "from scratch",
            Method::Probe => "linear probe",
            Method::Finetune => "fine-tune",
            Method::Distill => "fine-tune + distil",
        }
    }
}

/// The method's name on the command line and in files.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}
