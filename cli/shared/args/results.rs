//! Flags of the verbs that use a trained model: `predict`, `embed`, `neighbors`, `eval classify`.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, ValueEnum, ValueHint};
use ctk_core::error::{Error, Result};

use super::{ModelArgs, Prompted};

/// Samples given by their paths, beside or in place of `--data`.
#[derive(ClapArgs)]
pub struct Paths {
    /// Images, folders of images, or files of texts
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// The part of the data to use
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub split: Part,
}

/// What to do about files that exist already.
#[derive(ClapArgs)]
pub struct Over {
    /// Overwrite a file that exists already
    #[arg(long)]
    pub force: bool,
}

impl Over {
    /// Checks, before anything is computed, that `out` may be written. Pipes and devices are refused later, when the file is written.
    ///
    /// # Errors
    /// The file exists, and `--force` was not given.
    pub fn allows(&self, out: &Path) -> Result<()> {
        if self.force || !out.is_file() {
            return Ok(());
        }
        Err(Error::usage("there is a file here already").at(out.display()).hint("give another name, or --force to write over it"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The training part
    Train,
    /// The test part, or the hold-out
    Test,
    /// All parts
    All,
}

#[derive(ClapArgs)]
pub struct Predict {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub samples: Paths,
    /// A text to classify, with a run of texts; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub text: Vec<String>,
    /// The file to write: .csv, .parquet or .jsonl; default: CSV on stdout. Columns: name, label (empty where unknown), predicted,
    /// probability
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub over: Over,
    /// Print the K most probable classes: columns predicted_2, probability_2 and so on follow the first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top: u32,
}

#[derive(ClapArgs)]
pub struct Classify {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also fit a temperature, and report the calibration with it. It is fitted on the part `val` of the run's data. Without that part it
    /// is fitted on training images whose labels were not used. Without these it is fitted on the predictions for held-out images that
    /// fine-tuning's cross-validation stored. It is never fitted on test labels
    #[arg(long)]
    pub calibrate: bool,
    /// Write the confusion matrix as CSV: a row for each true class, a column for each predicted class
    #[arg(long, value_name = "FILE.csv", value_hint = ValueHint::FilePath)]
    pub csv: Option<PathBuf>,
    /// Draw the confusion matrix as SVG
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
    /// The file to write: .npy or .safetensors, with the names beside it in a .names.tsv; or .csv or .parquet, with names, labels and parts
    /// in the file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Write only the first N values of each row, as rows of Matryoshka models can be cut. They are not scaled again
    #[arg(long, value_name = "N")]
    pub truncate_dim: Option<usize>,
    /// Scale each row to length 1, after it was cut
    #[arg(long)]
    pub normalize: bool,
    /// The precision of the values in the file, .npy or .safetensors; others than float32 are codes, as those of quantize_embeddings in
    /// sentence-transformers
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    pub precision: Precision,
    /// Take the columns' ranges for int8 and uint8 from this data, or from a file of features, in place of the rows that are written
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub calibration: Option<PathBuf>,
    #[command(flatten)]
    pub prompt: Prompted,
    #[command(flatten)]
    pub over: Over,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// The values as they are
    Float32,
    /// A byte for each value, -128 to 127, by the range of its column in 255 steps
    Int8,
    /// The same from 0 to 255
    Uint8,
    /// A bit for each value, whether it is above 0; eight in a byte of -128 to 127
    Binary,
    /// The same in bytes of 0 to 255, as numpy's packbits
    Ubinary,
}

impl From<Precision> for ctk_core::eval::precision::Precision {
    fn from(named: Precision) -> Self {
        match named {
            Precision::Float32 => Self::Float32,
            Precision::Int8 => Self::Int8,
            Precision::Uint8 => Self::Uint8,
            Precision::Binary => Self::Binary,
            Precision::Ubinary => Self::Ubinary,
        }
    }
}

#[derive(ClapArgs)]
pub struct Neighbors {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Words, each looked up alone; for a run of vision, names of images in its data, or image files. RUN and --data may also be files of
    /// features that `ctk embed` wrote
    #[arg(required = true, value_name = "WORD")]
    pub words: Vec<String>,
    /// Words to subtract from the sum of the others; all vectors are scaled to length 1 first
    #[arg(long, value_name = "WORD", num_args = 1..)]
    pub negative: Vec<String>,
    /// Find the neighbours of the sum of all words, not of each word; --negative implies it
    #[arg(long)]
    pub together: bool,
    /// Say which word does not belong with the others: the one farthest from their mean
    #[arg(long, conflicts_with_all = ["negative", "together"])]
    pub doesnt_match: bool,
    #[command(flatten)]
    pub prompt: Prompted,
    /// Put the prompt of this name before each text of --data, in place of that of --prompt
    #[arg(long, value_name = "NAME")]
    pub document_prompt: Option<String>,
    /// Put this text before each text of --data, in place of that of --prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "document_prompt")]
    pub document_prompt_text: Option<String>,
    /// Neighbours to print for each word
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub count: usize,
}
