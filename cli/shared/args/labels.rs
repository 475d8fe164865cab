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
    /// The optimizer for images: LARS (SimCLRv2) or SGD with momentum; default: lars. Texts have AdamW
    #[arg(long, value_enum)]
    pub optimizer: Option<Optimizer>,
    /// Samples in a batch; fewer where there are fewer labelled ones; default: 64 images; 16 texts, and 256 to distil
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub batch: Option<u32>,
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
            optimizer: self.optimizer.map(|optimizer| match optimizer {
                Optimizer::Lars => TaskOptimizer::Lars,
                Optimizer::Sgd => TaskOptimizer::Sgd,
            }),
            batch: self.batch.map(|batch| batch as usize),
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

/// The values that fine-tuning of images chooses from, by cross-validation on the labelled images alone; of texts each list has one.
#[derive(ClapArgs, Clone)]
pub struct Choices {
    /// Learning rates to choose from; the peak rate is this value times √batch; default: .005 (SimCLRv2), .02 and .08 with LARS, half of
    /// these with SGD. For texts the peak rate itself; default: 2e-5, of static embeddings .01
    #[arg(long, value_name = "RATE,…", value_delimiter = ',')]
    pub rates: Vec<f64>,
    /// Numbers of epochs to choose from; default: 60 for up to 2 % of the labels or a number of labels a class, else 30 (SimCLRv2). For
    /// texts 1 with setfit
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub epochs: Vec<usize>,
    /// Smallest crops to choose from, as fractions of the image's area; default: the run's own
    #[arg(long, value_name = "SHARE,…", value_delimiter = ',')]
    pub crops: Vec<f64>,
    /// Folds of the cross-validation; they are held out in turn until 1,000 images have been evaluated. For texts it chooses the L2 strength
    /// of the logistic regression
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub folds: usize,
}

impl Choices {
    /// The task that fine-tunes with these choices as `texts` says, or that trains from scratch with `scratch`.
    pub fn task(&self, labels: Amount, seed: u64, scratch: bool, texts: &Texts) -> Task {
        let Choices { rates, epochs, crops, folds } = self.clone();
        let Texts { test, scheme } = texts.clone();
        Task::Finetune(task::Finetune { labels, test, scheme, seed, scratch, rates, epochs, crops, folds })
    }
}

/// How texts are fine-tuned.
#[derive(ClapArgs, Clone)]
pub struct Texts {
    /// For texts: the texts to test on. Default: those that the data itself names, by a column `split` or by files called train and test,
    /// or else a fifth of each class
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub test: Option<PathBuf>,
    /// For texts: setfit (pairs of the labelled texts, then a logistic regression on the embeddings), or plain (a linear classifier with the
    /// encoder, by cross entropy); default: setfit, and from scratch plain
    #[arg(long, value_name = "NAME", value_parser = ["setfit", "plain"])]
    pub scheme: Option<String>,
}

#[derive(ClapArgs)]
pub struct Finetune {
    /// What to start from: a run folder or a checkpoint; for texts also the folder of an encoder (sentence-transformers, transformers,
    /// model2vec), or hf://owner/name
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Use this data instead of the run's own. For texts: a table with columns `text` and `label` (.tsv, .csv, .jsonl, .parquet), a folder
    /// of such files called train and test, or a glob
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub texts: Texts,
    /// How many training samples keep their labels: a percentage of each class, at least one sample (1%, 10%, 100%), or a number
    /// (5-per-class)
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub labels: Amount,
    /// Seed of the choice of labelled samples, the folds, the order of the samples, and the views or pairs
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
    /// The teacher: for images a run of `ctk finetune`; for sentences a run of `ctk train sentences`, a folder of sentence-transformers or
    /// transformers, or hf://owner/name
    #[arg(value_name = "TEACHER", value_hint = ValueHint::AnyPath)]
    pub teacher: PathBuf,
    /// The student's recipe. For images its [pairs], [encoder] and [head] are used; default: the teacher's own network
    /// (self-distillation). For sentences default: a static embedding
    #[arg(long, value_name = "CONFIG", value_hint = ValueHint::FilePath)]
    pub student: Option<PathBuf>,
    /// The run that the student starts from; default: for images the run that the teacher started from, or with --student fresh weights;
    /// for sentences the teacher's vocabulary, or for a transformer fresh weights
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub from: Option<PathBuf>,
    /// For images: use this data instead of the teacher's. For sentences: texts, whose embeddings by the teacher are learned after the
    /// vocabulary
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// For sentences: values of the student's vectors, at most the teacher's; default: 256, or the teacher's if these are fewer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub width: Option<u32>,
    /// For sentences: a file with words, one a line, that get vectors of their own beside the teacher's pieces
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vocabulary: Option<PathBuf>,
    /// The temperature by which both networks' logits are divided; default: .1 for self-distillation, 1 with --student (images)
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// The weight of the teacher's predictions in the loss, 0 to 1; the rest is cross entropy with the teacher's labels; default: 1 (images)
    #[arg(long, value_name = "SHARE")]
    pub alpha: Option<f64>,
    /// Epochs over all images, labelled or not (default: 100; SimCLRv2: 400), or over all texts (default: 5)
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// The learning rate. For images the peak rate is this value times √batch; default: .02 with LARS, .075 with LARS from fresh weights;
    /// half of these with SGD. For sentences: that of AdamW
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
    /// Methods to compare; default: all that there are for the data: texts have no distill
    #[arg(long, value_enum, value_name = "METHOD,…", value_delimiter = ',')]
    pub methods: Vec<Method>,
    #[command(flatten)]
    pub choices: Choices,
    /// For texts: how they are fine-tuned, as for `ctk finetune`
    #[arg(long, value_name = "NAME", value_parser = ["setfit", "plain"])]
    pub scheme: Option<String>,
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

/// All methods, in the order of a table.
const METHODS: [Method; 4] = [Method::Scratch, Method::Probe, Method::Finetune, Method::Distill];

impl Method {
    /// The methods of a modality, whose classifiers may be distilled or not.
    pub fn all(distilled: bool) -> Vec<Method> {
        METHODS.into_iter().filter(|method| distilled || *method != Method::Distill).collect()
    }

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
