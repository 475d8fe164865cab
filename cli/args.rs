//! The command line as types: what every verb takes. Each help text ends with an example.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint};

/// The contrastive toolkit: learn representations from images and text without labels.
#[derive(Parser)]
#[command(name = "ctk", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:\n  ctk train vision                       # the whole job on generated images, offline\n  \
    ctk train vision --data my-images/     # a folder of your own\n  ctk eval linear-probe runs/vision-1\n  ctk train word2vec --data corpus.txt")]
pub struct Args {
    /// Threads that compute; default: one a core. Results do not depend on it (lock-free word2vec excepted)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Train a model: on the embedded generated data, or on --data
    #[command(after_help = "Examples:\n  ctk train vision --data photos/ --out runs/photos\n  \
        ctk train vision --config configs/vision/cifar10.toml --data cifar10/ --set train.epochs=20\n  \
        ctk train word2vec --data news.txt --set encoder.table.width=300\n  ctk train vision --resume runs/photos\n  \
        ctk train word2vec --init runs/words --data more.txt")]
    Train(Train),
    /// Judge a trained model; the model is never changed
    #[command(subcommand, after_help = "Example:\n  ctk eval linear-probe runs/vision-1 --baseline")]
    Eval(Eval),
    /// Write the features of images or words to a .safetensors or .npy file, with names and labels
    #[command(after_help = "Example:\n  ctk embed runs/vision-1 --data photos/ --out photos.npy")]
    Embed(Embed),
    /// The rows nearest to a word (or to an image's name), by cosine
    #[command(after_help = "Example:\n  ctk neighbors runs/word2vec-1 king queen --count 5")]
    Neighbors(Neighbors),
    /// Write a representation for other programs
    #[command(after_help = "Example:\n  ctk export runs/word2vec-1 --format word2vec-binary --out vectors.bin")]
    Export(Export),
    /// Draw the view pairs a recipe makes: everybody's first look
    #[command(after_help = "Example:\n  ctk preview --data photos/ --out views.png")]
    Preview(Preview),
    /// Time a recipe's step on this machine, on random input
    ///
    /// Without --config and --data: ResNet-18, 32 px, a batch of 128, 50,000 images an epoch. Other flags change the recipe.
    ///
    /// The step is an encoder's forward and backward pass with a linear classifier and SGD. The SimCLR step is the whole of
    /// training's: its parts are timed one after the other, its total as training runs it, views being made beside the
    /// network's work. Views are made of the recipe's pictures where they are there, else of random ones. Memory is by how much
    /// the process grew. Speed counts direct convolutions: faster algorithms can exceed a matrix product's.
    #[command(after_help = "Examples:\n  ctk bench vision --encoder resnet50 --size 64 --batch 32\n  \
        ctk bench vision --config configs/vision/cifar10.toml --data cifar10/ --threads 2 --json")]
    Bench(Bench),
    /// Run a file of the config-driven test matrix by hand
    #[command(after_help = "Example:\n  ctk matrix tests/matrix/smoke.toml")]
    Matrix(Matrix),
    /// Check, show or describe configs
    #[command(subcommand, after_help = "Example:\n  ctk config show vision > mine.toml && ctk config check vision mine.toml")]
    Config(Config),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  ctk completions bash > ~/.local/share/bash-completion/completions/ctk")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How progress and results are shown.
#[derive(ClapArgs, Clone, Copy)]
pub struct Show {
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
    /// No progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which recipe, and what is changed in it.
#[derive(ClapArgs, Default)]
pub struct RecipeArgs {
    /// The recipe, a TOML file; default: one that fits --data, or the embedded default
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The data: a folder or file, its kind is found by looking, or - for text from standard input; default: what the recipe
    /// names, or generated data
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// Set one key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(ClapArgs)]
pub struct Device {
    /// Where to compute: auto, cpu, cuda, cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

#[derive(ClapArgs)]
pub struct Train {
    /// What to learn from
    #[arg(id = "modality")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// A new folder for the run; default: the next free runs/<modality>-<n>
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Go on with the run in DIR from its latest whole checkpoint, by its own recipe
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["out", "config", "data", "set", "init"])]
    pub resume: Option<PathBuf>,
    /// Begin a new run with the words and vectors of RUN (word2vec alone), as on new text: its words stay, new ones are added, the
    /// rate starts at its peak again. Without --config, by RUN's recipe
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub init: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

/// A trained model and what to run it on.
#[derive(ClapArgs)]
pub struct ModelArgs {
    /// A run folder or a checkpoint
    #[arg(value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// Other data than the run's own
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Subcommand)]
pub enum Eval {
    /// Multinomial logistic regression on frozen features
    #[command(after_help = "Example:\n  ctk eval linear-probe runs/vision-1 --data cifar10/ --baseline --json")]
    LinearProbe {
        #[command(flatten)]
        model: ModelArgs,
        /// Also probe what was not learned: the untrained network, raw pixels, a colour histogram
        #[arg(long)]
        baseline: bool,
        /// How the classifier is fitted
        #[arg(long, value_enum, default_value_t = Fit::Lbfgs)]
        method: Fit,
    },
    /// Weighted k-nearest-neighbour classification on frozen features
    #[command(after_help = "Example:\n  ctk eval knn runs/vision-1 --json")]
    Knn {
        #[command(flatten)]
        model: ModelArgs,
        /// Also classify by what was not learned: the untrained network, raw pixels, a colour histogram
        #[arg(long)]
        baseline: bool,
    },
    /// Spearman correlation of cosine similarity with people's judgements of word pairs
    #[command(after_help = "Example:\n  ctk eval similarity runs/word2vec-1 --pairs wordsim353.tsv")]
    Similarity {
        #[command(flatten)]
        model: ModelArgs,
        /// Lines of `word word score`, separated by tabs, commas or spaces
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        pairs: PathBuf,
    },
    /// Analogies `a is to b as c is to ?` by 3CosAdd; accuracies are shares, 0 to 1
    #[command(after_help = "Example:\n  ctk eval analogy runs/word2vec-1 --questions questions-words.txt")]
    Analogy {
        #[command(flatten)]
        model: ModelArgs,
        /// Google's format: `: section` lines, then four words a line
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        questions: PathBuf,
        /// Look for answers among the N most frequent words
        #[arg(long, value_name = "N", default_value_t = 30_000)]
        restrict: usize,
    },
    /// Alignment, uniformity and signs of collapse of the representation; needs no labels
    #[command(after_help = "Example:\n  ctk eval geometry runs/vision-1")]
    Geometry {
        #[command(flatten)]
        model: ModelArgs,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Fit {
    /// To its optimum by L-BFGS; the L2 strength is picked on held-out training rows
    Lbfgs,
    /// SimCLR's protocol: 100 epochs of SGD with Nesterov momentum, no decay
    Sgd,
}

#[derive(ClapArgs)]
pub struct Embed {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The file to write: .safetensors or .npy
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Which part of the data
    #[arg(long, value_enum, default_value_t = Part::All)]
    pub split: Part,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Part {
    /// What is trained on
    Train,
    /// What is held out
    Test,
    /// Everything
    All,
}

#[derive(ClapArgs)]
pub struct Neighbors {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The words, each looked up alone
    #[arg(required = true, value_name = "WORD")]
    pub words: Vec<String>,
    /// Neighbours a word
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub count: usize,
}

#[derive(ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub model: ModelArgs,
    /// vision: safetensors; word2vec: word2vec-text, word2vec-binary, safetensors
    #[arg(long)]
    pub format: String,
    /// The file to write
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

#[derive(ClapArgs)]
pub struct Preview {
    /// What to look at
    #[arg(id = "modality", default_value = "vision")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The picture to write
    #[arg(long, value_name = "FILE.png", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
}

#[derive(ClapArgs)]
pub struct Bench {
    /// Whose step
    #[arg(id = "modality")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The encoder: resnet18, 20, 32, 34, 44, 50, 56, 101, 110, 152, 200
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<String>,
    /// Multiplies the encoder's channels; default: 1 with --encoder, or else what the recipe says
    #[arg(long, value_name = "FACTOR")]
    pub width: Option<f64>,
    /// What comes before the encoder's blocks
    #[arg(long, value_parser = ["small", "imagenet"])]
    pub stem: Option<String>,
    /// Height and width of an image, in pixels
    #[arg(long, value_name = "N")]
    pub size: Option<usize>,
    /// Images a step; the SimCLR step works on two views of each
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Steps by the clock, after two that are not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// What feature maps are kept and multiplied in
    #[arg(long, value_parser = ["f32", "bf16"])]
    pub precision: Option<String>,
    /// Of weights, input and views
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub show: Show,
}

#[derive(ClapArgs)]
pub struct Matrix {
    /// The cases, a TOML file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Only the cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
}

#[derive(Subcommand)]
pub enum Config {
    /// Check recipes without running anything
    #[command(after_help = "Example:\n  ctk config check vision configs/vision/*.toml")]
    Check {
        /// Whose recipes
        #[arg(id = "modality", index = 1)]
        modality: String,
        /// The recipes
        #[arg(required = true, index = 2, value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
    },
    /// Print the recipe that `ctk train` would use, to start from
    #[command(after_help = "Example:\n  ctk config show vision --data photos/ > photos.toml")]
    Show {
        /// Whose recipe
        #[arg(id = "modality")]
        modality: String,
        #[command(flatten)]
        recipe: RecipeArgs,
    },
    /// Print the JSON schema of a recipe: every key, its type, default and meaning
    #[command(after_help = "Example:\n  ctk config schema word2vec")]
    Schema {
        /// Whose recipe
        #[arg(id = "modality")]
        modality: String,
    },
}

impl Args {
    /// Threads asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }
}
