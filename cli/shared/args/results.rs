//! What the verbs take that use a trained model: classes of samples, features in a file, what lies near.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use ctk_core::error::{Error, Result};

use super::ModelArgs;

/// Samples by their paths, beside or in place of `--data`.
#[derive(ClapArgs)]
pub struct Paths {
    /// Images, or further folders of them
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub split: Part,
}

/// What is done about files that are there already.
#[derive(ClapArgs)]
pub struct Over {
    /// Write over a file that is there already
    #[arg(long)]
    pub force: bool,
}

impl Over {
    /// Whether `out` may be written; asked before anything is computed. Pipes and devices are refused where the file is
    /// written.
    ///
    /// # Errors
    /// A file that is there, without `--force`.
    pub fn allows(&self, out: &Path) -> Result<()> {
        if self.force || !out.is_file() {
            return Ok(());
        }
        Err(Error::usage("there is a file here already").at(out.display()).hint("give another name, or --force to write over it"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What is trained on
    Train,
    /// What is held out
    Test,
    /// Everything
    All,
}

#[derive(ClapArgs)]
pub struct Predict {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub samples: Paths,
    /// The file to write: .csv, .parquet or .jsonl; default: CSV on stdout. Its columns are name, label (empty where unknown), predicted,
    /// probability
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub over: Over,
    /// The likeliest K classes: columns predicted_2, probability_2 and so on behind the first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
}

#[derive(ClapArgs)]
pub struct Classify {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also fit a temperature, and say what it makes of calibration. It is fitted on the part `val` of the run's data; else on training
    /// images whose labels were not given; else on what the networks that fine-tuning tried on folds of its labels said of the images
    /// held out. Test labels are never fitted on
    #[arg(long)]
    pub calibrate: bool,
    /// Write the confusion matrix as a table: a row a class, a column for what it was taken for
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    pub csv: Option<PathBuf>,
    /// Draw the confusion matrix
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub over: Over,
}

#[derive(ClapArgs)]
pub struct Embed {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub samples: Paths,
    /// The file to write: .npy or .safetensors, with names beside it in a .names.tsv; or .csv or .parquet, with names, labels and parts
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub over: Over,
}

#[derive(ClapArgs)]
pub struct Neighbors {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The words, each looked up alone; of a run of vision, names of images in its data, or images elsewhere. --data may be a file of
    /// features, as `ctk embed` writes them, and so may RUN
    #[arg(required = true, value_name = "WORD")]
    pub words: Vec<String>,
    /// Words to take away from the sum of the others, each scaled to length 1
    #[arg(long, value_name = "WORD", num_args = 1..)]
    pub negative: Vec<String>,
    /// Look for what is near to the words' sum, not to each alone; so does --negative
    #[arg(long)]
    pub together: bool,
    /// Say which of the words does not belong with the others: the one farthest from their mean
    #[arg(long, conflicts_with_all = ["negative", "together"])]
    pub doesnt_match: bool,
    /// Neighbours a word
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub count: usize,
}
