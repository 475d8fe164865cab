//! The command line as types: what every verb takes. Each help text ends with an example.

mod groups;
mod labels;
mod results;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueHint};

use ctk_core::store::run::Place;

pub use groups::grouped;
pub use labels::{Distill, Few, Finetune, LabelEfficiency, Method};
pub use results::{Classify, Embed, Neighbors, Over, Part, Paths, Predict};

/// The contrastive toolkit: learn representations from images and text without labels.
#[derive(Parser)]
#[command(name = "ctk", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:\n  ctk train vision                       # the whole job on generated images, offline\n  \
    ctk train vision --data my-images/     # a folder of your own\n  ctk eval linear-probe runs/vision-1\n  ctk train word2vec --data corpus.txt")]
pub struct Args {
    /// Threads that compute; default: one a core. Results do not depend on it (lock-free word2vec excepted)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
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
    /// Train a run's network on with few labels, and a classifier with it
    ///
    /// Rate, epochs and crop are chosen by cross-validation on the labelled images; then all of them are trained on, to the end. The
    /// test images are looked at once, when all is over. It is a training run with a [task.finetune]: go on with one that was stopped
    /// by `ctk train vision --resume`.
    #[command(after_help = "Examples:\n  ctk finetune runs/vision-1 --labels 1%\n  \
        ctk finetune runs/vision-1 --labels 10% --from-scratch       # what pretraining is worth\n  \
        ctk finetune runs/vision-1 --labels 5-per-class --optimizer sgd --epochs 30,60 --crops 0.08,0.35")]
    Finetune(Finetune),
    /// Train a network on what a fine-tuned one says of all training images, labelled or not
    #[command(after_help = "Examples:\n  ctk distill runs/vision-2                                   # self-distillation\n  \
        ctk distill runs/vision-2 --student small.toml --epochs 400   # from big to small")]
    Distill(Distill),
    /// Make a run of another program's weights, for every verb that takes one: ResNets of torchvision, timm, transformers, and of
    /// SimCLRv2's PyTorch conversion
    ///
    /// What the network is follows from its tensors' names and shapes, what it is shown from config.json and preprocessor_config.json
    /// where they lie beside it. Else torchvision's, timm's and transformers' expect ImageNet's mean and deviation, SimCLRv2's values
    /// in [0, 1]. Pickles (.pth, .bin) are not read. A head that comes with the weights is kept, for `ctk finetune --from-layer`.
    #[command(after_help = "Examples:\n  ctk import resnet50.safetensors --out runs/resnet50\n  \
        ctk import timm-folder/ --out runs/timm --set pairs.size=160\n  \
        ctk eval linear-probe runs/resnet50 --data photos/")]
    Import(Import),
    /// Name the classes of images by a run's classifier, with probabilities
    #[command(after_help = "Examples:\n  ctk predict runs/vision-2 --data photos/ --out photos.csv\n  \
        ctk predict runs/vision-2 photo.jpg --top 3\n  ctk predict runs/vision-2 photos/*.jpg --out photos.jsonl")]
    Predict(Predict),
    /// Judge a trained model; the model is never changed
    #[command(subcommand, after_help = "Example:\n  ctk eval linear-probe runs/vision-1 --baseline")]
    Eval(Eval),
    /// Write the features of images or words to a file, with names, labels and parts
    #[command(after_help = "Examples:\n  ctk embed runs/vision-1 --data photos/ --out photos.npy\n  \
        ctk embed runs/vision-1 photo.jpg other.jpg --out two.csv")]
    Embed(Embed),
    /// The rows nearest to words (or to images), by cosine; of words alone, together, or with others taken away
    #[command(after_help = "Examples:\n  ctk neighbors runs/word2vec-1 king queen --count 5\n  \
        ctk neighbors runs/vision-1 photo.jpg --data photos.npy\n  \
        ctk neighbors GoogleNews-vectors-negative300.bin king woman --negative man\n  \
        ctk neighbors glove.txt breakfast cereal dinner lunch --doesnt-match")]
    Neighbors(Neighbors),
    /// What is to C as B is to A: the words nearest to B - A + C (3CosAdd), the three left out
    #[command(after_help = "Example:\n  ctk analogy runs/word2vec-1 man king woman")]
    Analogy(Analogy),
    /// Write a representation for other programs
    #[command(after_help = "Examples:\n  ctk export runs/word2vec-1 --format word2vec-binary --out vectors.bin\n  \
        ctk export glove.6B.300d.txt --format safetensors --out glove.safetensors\n  \
        ctk export runs/resnet50 --format timm --out timm-folder/")]
    Export(Export),
    /// Draw the view pairs a recipe makes
    #[command(after_help = "Example:\n  ctk preview --data photos/ --out views.png")]
    Preview(Preview),
    /// Time a recipe's step on this machine
    ///
    /// vision, without --config and --data: ResNet-18, 32 px, a batch of 128, 50,000 images an epoch, on random input. Other flags
    /// change the recipe.
    ///
    /// The step is an encoder's forward and backward pass with a linear classifier and SGD. The SimCLR step is the whole of
    /// training's: its parts are timed one after the other, its total as training runs it, views being made beside the
    /// network's work. Views are made of the recipe's pictures where they are there, else of random ones. Memory is by how much
    /// the process grew. Speed counts direct convolutions: faster algorithms can exceed a matrix product's.
    ///
    /// word2vec, without --config and --data: the generated language. Steps are training's own. Shares are of all threads' time;
    /// negatives are drawn within training and timed apart. Speed counts three products of two operations a value for each pair of
    /// a context (of a bag's mean, with cbow) and its centre or a negative. Bytes are those of the rows that steps name, read and
    /// written once each, wherever they lie.
    #[command(after_help = "Examples:\n  ctk bench vision --encoder resnet50 --size 64 --batch 32\n  \
        ctk bench vision --config configs/vision/cifar10.toml --data cifar10/ --threads 2 --json\n  \
        ctk bench word2vec --data news.txt --set encoder.table.width=300")]
    Bench(Bench),
    /// Run a file of cases (configs and properties that must hold) and of studies (variants of a recipe, by several seeds)
    #[command(after_help = "Examples:\n  ctk matrix tests/matrix/vision.toml --only tiny\n  \
        ctk matrix configs/ablations/simclrv2.toml --data cifar10/   # goes on where it was stopped")]
    Matrix(Matrix),
    /// Check, show or describe configs
    #[command(subcommand, after_help = "Example:\n  ctk config show vision > mine.toml && ctk config check vision mine.toml")]
    Config(Config),
    /// Look at data before training on it
    #[command(subcommand, after_help = "Example:\n  ctk data check photos/")]
    Data(Data),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  ctk completions bash > ~/.local/share/bash-completion/completions/ctk")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages, one a verb, into a folder
    #[command(after_help = "Example:\n  ctk man ~/.local/share/man/man1 && man ctk-train")]
    Man {
        /// The folder, which is made where it is missing
        #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
        folder: PathBuf,
        #[command(flatten)]
        over: Over,
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
    /// The data: a folder, file or glob, its kind is found by looking, or - for text from standard input; may be repeated: all
    /// paths together are one dataset; default: what the recipe names, or generated data
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Vec<PathBuf>,
    /// Set one key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Train faster, to something a little worse: word2vec's neighbouring words share negatives
    #[arg(long)]
    pub fast: bool,
}

#[derive(ClapArgs)]
pub struct Device {
    /// Where to compute: auto, cpu
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

/// A run that is made: where it goes, what computes it, how it is shown.
#[derive(ClapArgs)]
pub struct NewRun {
    /// A new folder for the run; default: the next free runs/<modality>-<n>
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

impl NewRun {
    /// The folder that was asked for, or the next free one.
    pub fn place(&self) -> Place {
        self.out.clone().map_or(Place::Numbered, Place::New)
    }
}

#[derive(ClapArgs)]
pub struct Train {
    /// What to learn from
    #[arg(id = "modality")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Go on with the run in DIR from its latest whole checkpoint, by its own recipe; --set train.epochs=N makes it longer
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["out", "config", "data", "fast", "init"])]
    pub resume: Option<PathBuf>,
    /// With --resume: go on though the data or the recipe are no longer those of the run's checkpoint
    #[arg(long, requires = "resume")]
    pub accept_changes: bool,
    /// Begin a new run with what RUN has learned, by RUN's recipe where there is no --config; the rate starts anew. Of vision: its
    /// encoder, and its projection head if that is the same; or the encoder in another program's weights FILE. Of word2vec: its
    /// words and vectors, to which new words are added
    #[arg(long, value_name = "RUN|FILE", value_hint = ValueHint::AnyPath)]
    pub init: Option<PathBuf>,
    #[command(flatten)]
    pub new: NewRun,
}

/// A trained model and what to run it on.
#[derive(ClapArgs)]
pub struct ModelArgs {
    /// A run folder, a checkpoint, or a file of word vectors: word2vec's text or binary form, fastText's
    /// .vec or .bin, GloVe, safetensors; or features that `ctk embed` wrote
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
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
        #[command(flatten)]
        few: Few,
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
    /// A run's own classifier, as `ctk finetune` and `ctk distill` train one: accuracy, figures by class, confusion, calibration
    ///
    /// Judged is the test part of the run's data, or what was held out of it. Of --data it is the test part where there is one, else all
    /// of it. Classes are matched by name; images of a class that the run does not know count as wrong, and are told.
    #[command(after_help = "Examples:\n  ctk eval classify runs/vision-2\n  \
        ctk eval classify runs/vision-2 --data photos/ --csv confusion.csv --svg confusion.svg\n  \
        ctk eval classify runs/vision-2 --calibrate --json")]
    Classify(Classify),
    /// Spearman correlation of cosine similarity with people's judgements of word pairs
    #[command(after_help = "Examples:\n  ctk eval similarity runs/word2vec-1 --pairs wordsim353.tsv\n  \
        ctk eval similarity vectors.bin --pairs word-benchmarks/      # every set below the folder, a line each")]
    Similarity {
        #[command(flatten)]
        model: ModelArgs,
        /// Lines of `word word score`, separated by tabs, commas or spaces, or a table with columns word1, word2, similarity; or a
        /// folder of such files
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        pairs: PathBuf,
    },
    /// Analogies `a is to b as c is to ?` by 3CosAdd; accuracies are shares, 0 to 1
    #[command(after_help = "Examples:\n  ctk eval analogy runs/word2vec-1 --questions questions-words.txt\n  \
        ctk eval analogy vectors.bin --questions word-benchmarks/      # every set below the folder, a line each")]
    Analogy {
        #[command(flatten)]
        model: ModelArgs,
        /// Google's format: `: section` lines, then four words a line; or a table with columns word1, word2, word3, target; or a
        /// folder of such files
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        questions: PathBuf,
        /// Look for answers among the N most frequent words
        #[arg(long, value_name = "N", default_value_t = 30_000)]
        restrict: usize,
    },
    /// Clusters the words of categories (k-means of unit vectors) and compares: purity and normalised mutual information, 0 to 1
    #[command(after_help = "Example:\n  ctk eval categorize runs/word2vec-1 word-categorization/ --json")]
    Categorize {
        #[command(flatten)]
        model: ModelArgs,
        /// Lines of `category,word`, or with tabs; a folder stands for all sets in it
        #[arg(required = true, value_name = "SET", value_hint = ValueHint::AnyPath)]
        sets: Vec<PathBuf>,
        /// Where clustering begins hangs on it
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
    },
    /// Classify texts by the mean of their words' vectors: logistic regression, its L2 strength picked by cross-validation on the
    /// training texts
    ///
    /// Texts are cut as the run's recipe says; words are looked up as they are then, or else lower-cased. `missing` is the share of
    /// the test texts' words that have no vector. Without TEST, the column `split` of TRAIN says what is tested on, or else a
    /// seeded fifth of each class is.
    #[command(after_help = "Examples:\n  ctk eval text-classification runs/word2vec-1 train.tsv test.tsv --baseline random\n  \
        ctk eval text-classification runs/word2vec-1 20news.tsv --json")]
    TextClassification {
        #[command(flatten)]
        model: ModelArgs,
        /// Lines of label, tab, text, or a .csv file; the first line may name the columns (`label`, `text`, `split`)
        #[arg(value_name = "TRAIN", value_hint = ValueHint::FilePath)]
        train: PathBuf,
        /// The same, to test on
        #[arg(value_name = "TEST", value_hint = ValueHint::FilePath)]
        test: Option<PathBuf>,
        /// Also classify by what was not learned: `random`, random vectors of the learned ones' lengths
        #[arg(long, value_name = "NAME")]
        baseline: Option<String>,
        /// Draws of the baseline, seeded 0 to N - 1
        #[arg(long, value_name = "N", default_value_t = 5, requires = "baseline", value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
    },
    /// What labels are worth: supervised training, linear probe, fine-tuning and distillation by 1 %, 10 % and all labels
    ///
    /// Trains and keeps a run a cell of the table. A study that was stopped goes on with the same command. Prints mean and standard
    /// deviation over label subsets and the methods' paired differences; writes results.json, results.csv and plot.svg.
    #[command(after_help = "Examples:\n  ctk eval label-efficiency runs/vision-1\n  \
        ctk eval label-efficiency runs/vision-1 --labels 1% --methods probe,finetune --seeds 5 --epochs 20")]
    LabelEfficiency(LabelEfficiency),
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
pub struct Import {
    /// A safetensors file, or a folder with a model.safetensors; a file of the hub, hf://owner/name/model.safetensors
    #[arg(value_name = "WEIGHTS", value_hint = ValueHint::AnyPath)]
    pub weights: PathBuf,
    /// Set one key of the recipe that was found; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub new: NewRun,
}

#[derive(ClapArgs)]
pub struct Analogy {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A is
    #[arg(value_name = "A")]
    pub a: String,
    /// to B
    #[arg(value_name = "B")]
    pub b: String,
    /// as C is to what is looked for
    #[arg(value_name = "C")]
    pub c: String,
    /// Answers
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub count: usize,
}

#[derive(ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub model: ModelArgs,
    /// vision: safetensors (torchvision's names), timm, transformers; words: word2vec-text, word2vec-binary, glove,
    /// static-embedding, safetensors; runs also fasttext
    #[arg(long)]
    pub format: String,
    /// Leave out the classifier of a fine-tuned or distilled run
    #[arg(long)]
    pub encoder_only: bool,
    /// The file to write; for timm, transformers and static-embedding, a new folder
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub over: Over,
}

#[derive(Subcommand)]
pub enum Data {
    /// Say what is there and what is wrong with it: every image is decoded and compared with all others
    ///
    /// Images, classes and parts, and why; what is not read; images that cannot be read; copies, also across classes and parts; sizes;
    /// how even classes are; views that show almost nothing. Bad images are listed and are no error.
    #[command(after_help = "Examples:\n  ctk data check photos/\n  ctk data check photos/ --json")]
    Check {
        /// The data, as for --data of `ctk train`; several are one collection
        #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// What to look at
        #[arg(long, id = "modality", value_name = "MODALITY", default_value = "vision")]
        modality: String,
        /// The recipe whose views are looked at, a TOML file; default: one that fits the data
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
        /// Set one key of the recipe; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
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
    #[command(flatten)]
    pub over: Over,
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
    /// Steps by the clock, after two that are not; default: 5, of word2vec as many as two seconds hold
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: Option<u16>,
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
    /// The cases and studies, a TOML file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Only the cases and studies whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// What studies learn from, in place of their recipe's data
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// Where studies keep a run a cell; finished cells are not run again; default: runs/<FILE's name>
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
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
        /// Also open this data, and say what a run by each recipe would be
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        data: Option<PathBuf>,
        /// Print one JSON object as the last line of stdout
        #[arg(long)]
        json: bool,
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
    /// Print every key of a recipe: what it holds, its default, what it means
    #[command(after_help = "Examples:\n  ctk config keys vision\n  ctk config keys vision train")]
    Keys {
        /// Whose keys
        #[arg(id = "modality", index = 1)]
        modality: String,
        /// Only keys that begin with this, such as `train` or `loss.moco`
        #[arg(index = 2, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Print one JSON object as the last line of stdout
        #[arg(long)]
        json: bool,
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
