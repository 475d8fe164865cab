//! What the verbs take that learn from few labels: fine-tuning, distillation, and the study of both.

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

/// How a task trains.
#[derive(ClapArgs, Clone)]
pub struct Tuning {
    /// LARS (SimCLRv2) or SGD with momentum
    #[arg(long, value_enum, default_value_t = Optimizer::Lars)]
    pub optimizer: Optimizer,
    /// Images a step, or as many as few labels allow
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..))]
    pub batch: u32,
    /// Layers of the projection head that are kept and trained on, as a part of the encoder; 0 drops it; default: 1 (SimCLRv2), or
    /// 0 where the run has no head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=3))]
    pub from_layer: Option<u8>,
    /// What batch normalisation normalises by while training: its batch (from fresh values always), or pretraining's statistics
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
    /// Layer-wise adaptive rates
    Lars,
    /// Stochastic gradient descent, momentum .9
    Sgd,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bn {
    /// The batch; running statistics move
    Train,
    /// The running statistics, which stay
    Frozen,
}

/// What fine-tuning may choose from; each is chosen by folds of the labelled images alone.
#[derive(ClapArgs, Clone)]
pub struct Choices {
    /// Peak rates to choose from, times √batch; default: .005 (SimCLRv2), .02 and .08 by LARS, half of that by SGD
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub rates: Vec<f64>,
    /// Numbers of epochs to choose from; default: 60 up to 2 % or where labels are counted, else 30 (SimCLRv2)
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub epochs: Vec<usize>,
    /// Smallest crops to choose from, shares of the area; default: the run's own
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',')]
    pub crops: Vec<f64>,
    /// Parts of the labelled images that are held out in turn, until 1,000 were
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub folds: usize,
}

impl Choices {
    /// Fine-tuning with these choices, or training from scratch.
    pub fn task(&self, labels: Amount, seed: u64, scratch: bool) -> Task {
        let Choices { rates, epochs, crops, folds } = self.clone();
        Task::Finetune(task::Finetune { labels, seed, scratch, rates, epochs, crops, folds })
    }
}

#[derive(ClapArgs)]
pub struct Finetune {
    /// The run to start from: its folder, or a checkpoint
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Other data than the run's own
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// How many training images keep their labels: a share of each class, at least one (1%, 10%, 100%), or a number (5-per-class)
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub labels: Amount,
    /// What the choice of these images, their folds, their order and views hang on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Train the same network from fresh values instead: the same rates to choose from, at least as many updates
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
    /// The run that teaches: one of `ctk finetune`
    #[arg(value_name = "TEACHER", value_hint = ValueHint::DirPath)]
    pub teacher: PathBuf,
    /// The student's recipe, whose [pairs], [encoder] and [head] count; default: the teacher's own network (self-distillation)
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub student: Option<PathBuf>,
    /// The run that the student starts from; default: without --student the one that the teacher started from, with it fresh values
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// Other data than the teacher's
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// Both networks' logits are divided by it; default: .1 for self-distillation, 1 with --student
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The teacher's share of the loss; the rest is cross entropy with the labels that the teacher was given
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub alpha: f64,
    /// Passes over all training images, labelled or not (SimCLRv2: 400)
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub epochs: usize,
    /// Peak rate, times √batch; default, by LARS: .02, or .075 from fresh values; half of that by SGD
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    #[command(flatten)]
    pub tuning: Tuning,
    #[command(flatten)]
    pub new: NewRun,
}

/// Which labels count.
#[derive(ClapArgs)]
pub struct Few {
    /// Fit on fewer labels, those that `ctk finetune` is given: 1%, 10%, 5-per-class
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub labels: Option<Amount>,
    /// What the choice of these labels hangs on
    #[arg(long, value_name = "N", default_value_t = 0, requires = "labels")]
    pub label_seed: u64,
}

#[derive(ClapArgs)]
pub struct LabelEfficiency {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Amounts of labels
    #[arg(long, value_name = "AMOUNT,…", value_delimiter = ',', default_value = "1%,10%,100%", value_parser = amount)]
    pub labels: Vec<Amount>,
    /// Label subsets an amount, seeded 0 to N - 1; training is seeded alike
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Methods to compare
    #[arg(long, value_enum, value_name = "METHOD,…", value_delimiter = ',', default_values = ["scratch", "probe", "finetune", "distill"])]
    pub methods: Vec<Method>,
    #[command(flatten)]
    pub choices: Choices,
    /// Passes of distillation over all training images
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub distill_epochs: usize,
    #[command(flatten)]
    pub tuning: Tuning,
    /// The study's folder, where each cell of the table is a run of its own. Finished cells are not run again, and the table is of
    /// all that are there, so that a study can be made in pieces; default: RUN/label-efficiency
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The same network, trained by the labels alone
    Scratch,
    /// Logistic regression on frozen features
    Probe,
    /// Fine-tuning
    Finetune,
    /// Fine-tuning, then self-distillation on all training images
    Distill,
}

impl Method {
    /// What people call it.
    pub fn said(self) -> &'static str {
        match self {
            Method::Scratch => "from scratch",
            Method::Probe => "linear probe",
            Method::Finetune => "fine-tune",
            Method::Distill => "fine-tune + distil",
        }
    }
}

/// As it is written on the command line and in files.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}
