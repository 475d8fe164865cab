//! The command line as types: the flags of every verb. Each verb's help ends with an example.

mod eval;
mod groups;
mod labels;
mod mine;
mod prompts;
mod results;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, ValueHint};

use ctk_core::store::run::Place;

pub use eval::{Eval, Fewer, Fit};
pub use groups::grouped;
pub use labels::{Distill, Few, Finetune, LabelEfficiency, Method, Texts};
pub use mine::{Layout, Mine, Sampling};
pub use prompts::{Prompted, Roles};
pub use results::{Classify, Embed, Neighbors, Over, Part, Paths, Precision, Predict};

/// The contrastive toolkit: learn representations from images and text without labels.
#[derive(Parser)]
#[command(name = "ctk", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:\n  ctk train vision                       # the whole job on generated images, offline\n  \
    ctk train vision --data my-images/     # a folder of your own\n  ctk eval linear-probe runs/vision-1\n  ctk train word2vec --data corpus.txt")]
pub struct Args {
    /// Threads that compute; default: one for each core. Results do not depend on their number, except those of lock-free word2vec
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Train a model, on your data (--data) or on generated data that comes with the program
    #[command(after_help = "Examples:\n  ctk train vision --data photos/ --out runs/photos\n  \
        ctk train vision --config configs/vision/cifar10.toml --data cifar10/ --set train.epochs=20\n  \
        ctk train vision --data photos/ --method moco\n  ctk train word2vec --data news.txt --set encoder.table.width=300\n  ctk train vision --resume runs/photos\n  \
        ctk train word2vec --init runs/words --data more.txt")]
    Train(Train),
    /// Fine-tune a trained network with few labels: the network and a new classifier are trained
    ///
    /// Images: the learning rate, the number of epochs and the crop size are chosen by cross-validation on the labelled images. Then a final
    /// training run uses all labelled images. Texts: pairs of the labelled texts train the encoder, and a logistic regression on its
    /// embeddings is the classifier (SetFit); --scheme plain trains a linear classifier with the encoder. Test samples are looked at once,
    /// at the very end. The result is a training run with a [task.finetune] section: `ctk train vision --resume` (or sentences) goes on with
    /// one that was stopped.
    #[command(after_help = "Examples:\n  ctk finetune runs/vision-1 --labels 1%\n  \
        ctk finetune runs/vision-1 --labels 10% --from-scratch       # what pretraining is worth\n  \
        ctk finetune runs/vision-1 --labels 5-per-class --optimizer sgd --epochs 30,60 --crops 0.08,0.35\n  \
        ctk finetune all-MiniLM-L6-v2/ --data reviews.tsv --labels 8-per-class")]
    Finetune(Finetune),
    /// Distil a trained network (the teacher) into a student
    ///
    /// Images: the student learns the predictions of a fine-tuned network for all training images, labelled or not.
    ///
    /// Sentences: any encoder of sentences becomes a static embedding, a table with a vector for each token, which is hundreds of times
    /// faster. The teacher reads each piece of its vocabulary, which takes half a minute for MiniLM; principal components and weights by
    /// frequency make vectors of that (model2vec's way). With --data, the student then learns the teacher's embeddings of texts
    /// (tokenlearn's way); a student that is a transformer learns these alone. The teacher reads the texts once: its embeddings are kept in
    /// the run, or in the file that task.distill.rows names.
    #[command(after_help = "Examples:\n  ctk distill runs/vision-2                                   # self-distillation\n  \
        ctk distill runs/vision-2 --student small.toml --epochs 400   # from big to small\n  \
        ctk distill all-MiniLM-L6-v2/ --width 128                     # a static embedding\n  \
        ctk distill hf://sentence-transformers/all-MiniLM-L6-v2 --data texts.txt")]
    Distill(Distill),
    /// Turn another program's weights into a run, which every verb takes: ResNets and vision transformers of torchvision, timm and
    /// transformers, ResNets of SimCLRv2's PyTorch conversion, the image towers of CLIP, SigLIP and DINOv2
    ///
    /// The network is recognised by the names and shapes of its tensors. How images are prepared is read from config.json,
    /// preprocessor_config.json or open_clip_config.json beside the weights. Without these files, networks of torchvision, timm and transformers get ImageNet's mean
    /// and standard deviation, and those of SimCLRv2 values in [0, 1]. Pickles (.pth, .bin) are not read. A projection head that comes with
    /// the weights is kept, for `ctk finetune --from-layer`.
    #[command(after_help = "Examples:\n  ctk import resnet50.safetensors --out runs/resnet50\n  \
        ctk import timm-folder/ --out runs/timm --set pairs.size=160\n  \
        ctk eval linear-probe runs/resnet50 --data photos/")]
    Import(Import),
    /// Predict the classes of images or texts with a fine-tuned or distilled run, with probabilities
    #[command(after_help = "Examples:\n  ctk predict runs/vision-2 --data photos/ --out photos.csv\n  \
        ctk predict runs/vision-2 photo.jpg --top 3\n  ctk predict runs/vision-2 photos/*.jpg --out photos.jsonl\n  \
        ctk predict runs/sentences-2 --text \"a fine film\"\n  ctk predict runs/sentences-2 --data reviews.txt --out reviews.csv")]
    Predict(Predict),
    /// Train a tokenizer on texts: WordPiece as BERT's, or byte-level BPE as RoBERTa's; the same texts give the same file
    #[command(subcommand, after_help = "Example:\n  ctk tokenizer train --data corpus.txt --size 8000 --out tokenizer.json")]
    Tokenizer(Tokenizer),
    /// Mine hard negatives for pairs: texts that a model finds near an anchor, and that are not known to belong to it
    ///
    /// The candidates are all different positives, or the texts of --corpus. They are ranked by their cosines with the anchor, by exact
    /// search. The anchor's own text and every text that stands beside it in a pair, on either side, are left out before ranks are counted;
    /// the nearest other text has rank 0. Of the ranks up to the end of --rank those are dropped that --margin, --relative-margin, --most or
    /// --least forbid. Of those that are left the first ones are skipped, as many as the start of --rank says, and --negatives of the others
    /// are taken. This is what mine_hard_negatives of sentence-transformers does.
    #[command(after_help = "Examples:\n  ctk mine runs/sentences-1 --data pairs.tsv --out triplets.tsv\n  \
        ctk mine all-MiniLM-L6-v2/ --data pairs.tsv --rank 10..60 --relative-margin 0.05 --negatives 5 --sampling random \\\n    \
        --format n-tuple --out mined.jsonl\n  ctk train sentences --data triplets.tsv")]
    Mine(Mine),
    /// Evaluate a trained model; the model is never changed
    #[command(subcommand, after_help = "Example:\n  ctk eval linear-probe runs/vision-1 --baseline")]
    Eval(Eval),
    /// Write the features of images or words to a file, with names, labels and parts
    #[command(after_help = "Examples:\n  ctk embed runs/vision-1 --data photos/ --out photos.npy\n  \
        ctk embed runs/vision-1 photo.jpg other.jpg --out two.csv\n  \
        ctk embed runs/sentences-1 --data texts.txt --truncate-dim 128 --precision int8 --out codes.npy")]
    Embed(Embed),
    /// Find the nearest neighbours of words or images by cosine similarity: of each word alone, of several together, or with words
    /// subtracted
    #[command(after_help = "Examples:\n  ctk neighbors runs/word2vec-1 king queen --count 5\n  \
        ctk neighbors runs/vision-1 photo.jpg --data photos.npy\n  \
        ctk neighbors GoogleNews-vectors-negative300.bin king woman --negative man\n  \
        ctk neighbors glove.txt breakfast cereal dinner lunch --doesnt-match")]
    Neighbors(Neighbors),
    /// Solve an analogy: A is to B as C is to what? Prints the words nearest to B - A + C (3CosAdd), without A, B and C
    #[command(after_help = "Example:\n  ctk analogy runs/word2vec-1 man king woman")]
    Analogy(Analogy),
    /// Write a trained model in a format that other programs read
    #[command(after_help = "Examples:\n  ctk export runs/word2vec-1 --format word2vec-binary --out vectors.bin\n  \
        ctk export glove.6B.300d.txt --format safetensors --out glove.safetensors\n  \
        ctk export runs/resnet50 --format timm --out timm-folder/")]
    Export(Export),
    /// Draw the pairs of views that a recipe makes: look at them before you train
    #[command(after_help = "Example:\n  ctk preview --data photos/ --out views.png")]
    Preview(Preview),
    /// Time a recipe's step on this machine
    ///
    /// vision, without --config and --data: ResNet-18, images of 32 px, a batch of 128, an epoch of 50,000 images, random input. The other
    /// flags change this recipe.
    ///
    /// "Step" is an encoder's forward and backward pass with a linear classifier and SGD. "SimCLR step" is a whole training step. Its parts
    /// are timed one after the other; its total is timed as training runs it, where loader threads make the views while the network works.
    /// Views are made of the recipe's images where it has some, and of random images otherwise. Memory is how much the process grew.
    /// GFLOP/s count the operations of direct convolutions, so that a faster algorithm (Winograd) can exceed the GFLOP/s of a matrix
    /// product.
    ///
    /// word2vec, without --config and --data: the generated language. The steps timed are those of training. Shares are of all threads'
    /// time; negatives are drawn inside training, and timed separately as well. GFLOP/s count three products of two operations a value, for
    /// each pair of a context (with cbow, of a bag's mean) and its centre or a negative. Bytes are those of the rows that the steps name,
    /// each read and written once, in cache or not.
    ///
    /// sentences, without --config and --data: a transformer of MiniLM's size (6 layers of 384 values), a batch of 64 generated pairs. Texts
    /// are tokenised once, before training; this is timed apart. GFLOP/s count the products of a transformer, three times for a step.
    /// "Forecast" is the memory that training says it needs.
    #[command(after_help = "Examples:\n  ctk bench vision --encoder resnet50 --size 64 --batch 32\n  \
        ctk bench vision --config configs/vision/cifar10.toml --data cifar10/ --threads 2 --json\n  \
        ctk bench word2vec --data news.txt --set encoder.table.width=300\n  ctk bench sentences --data pairs.tsv --precision bf16")]
    Bench(Bench),
    /// Run a matrix file: cases (configs and properties that must hold) and studies (variants of a recipe, each with several seeds)
    #[command(after_help = "Examples:\n  ctk matrix tests/matrix/vision.toml --only tiny\n  \
        ctk matrix configs/ablations/simclrv2.toml --data cifar10/   # goes on where it was stopped")]
    Matrix(Matrix),
    /// Check, show or describe recipes
    #[command(subcommand, after_help = "Example:\n  ctk config show vision > mine.toml && ctk config check vision mine.toml")]
    Config(Config),
    /// Check data before training on it
    #[command(subcommand, after_help = "Example:\n  ctk data check photos/")]
    Data(Data),
    /// List the devices that --device can name: the CPU and CUDA devices, with what is missing to use them
    ///
    /// A CUDA device needs NVIDIA's driver and the libraries NVRTC, cuBLAS and cuDNN, which are opened when a device is. --self-test
    /// compares a device with the CPU: every kind of layer, every loss, every optimizer, in f32 and bf16. It takes seconds, and is the first
    /// thing to run on a new machine.
    #[command(after_help = "Examples:\n  ctk devices\n  ctk devices --self-test --device cuda:0")]
    Devices(Devices),
    /// Print the completion script for a shell
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

/// How progress and results are printed.
#[derive(ClapArgs, Clone, Copy)]
pub struct Show {
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
    /// Print no progress on stderr
    #[arg(long, short)]
    pub quiet: bool,
}

/// The recipe, and changes to it.
#[derive(ClapArgs, Default)]
pub struct RecipeArgs {
    /// The recipe, a TOML file; default: one that fits --data, or the embedded default
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The data: a folder, file or glob, whose kind is recognised by its content, or - for text from standard input. May be repeated: all
    /// paths together are one dataset. Default: the data that the recipe names, or generated data
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Vec<PathBuf>,
    /// Train by this method: its loss, head, predictor and optimizer replace those of the recipe. For vision: simclr, simclrv2, moco, byol,
    /// simsiam, barlow-twins, vicreg, dcl, infonce, supcon
    #[arg(long, value_name = "NAME")]
    pub method: Option<String>,
    /// Set one key of the recipe; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Train faster, for slightly worse vectors: neighbouring words of word2vec share their negatives
    #[arg(long)]
    pub fast: bool,
}

#[derive(ClapArgs)]
pub struct Device {
    /// The device to compute on: cpu; cuda or cuda:N, a CUDA device; auto, the first CUDA device that can be used, otherwise the CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
}

/// A new run: its folder, its device, and how its progress is printed.
#[derive(ClapArgs)]
pub struct NewRun {
    /// The run's folder, which must be new or empty; default: the next free runs/<modality>-<n>
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

impl NewRun {
    /// The folder given by `--out`, or the next free one.
    pub fn place(&self) -> Place {
        self.out.clone().map_or(Place::Numbered, Place::New)
    }
}

#[derive(ClapArgs)]
pub struct Train {
    /// The modality to train
    #[arg(id = "modality")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Continue the run in DIR from its latest whole checkpoint, by its own recipe; --set train.epochs=N makes it longer
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["out", "config", "data", "method", "fast", "init"])]
    pub resume: Option<PathBuf>,
    /// With --resume: continue although the data or the recipe have changed since the run's checkpoint
    #[arg(long, requires = "resume")]
    pub accept_changes: bool,
    /// Begin a new run with the weights of RUN, by RUN's recipe unless --config is given; the learning rate starts anew. For vision: RUN's
    /// encoder, and its projection head if the new one has the same shape; or the encoder in a FILE of another program's weights. For
    /// word2vec: RUN's words and vectors, to which new words are added. For sentences: RUN's encoder and tokenizer, or those of another
    /// program's folder
    #[arg(long, value_name = "RUN|FILE", value_hint = ValueHint::AnyPath)]
    pub init: Option<PathBuf>,
    #[command(flatten)]
    pub new: NewRun,
}

/// A trained model, and the data to run it on.
#[derive(ClapArgs)]
pub struct ModelArgs {
    /// A run folder; a checkpoint; a file of word vectors (word2vec text or binary, fastText .vec or .bin, GloVe, safetensors); the folder
    /// of an encoder of sentences, of CLIP or of SigLIP (sentence-transformers, transformers, open_clip, model2vec); or a file of features
    /// that `ctk embed` wrote
    #[arg(value_name = "RUN", value_hint = ValueHint::AnyPath)]
    pub run: PathBuf,
    /// Use this data instead of the run's own
    #[arg(long, alias = "in", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// The type in which layers compute features and classes. bf16 is faster on processors with AVX512-BF16, and on GPUs; features change
    /// in about the third digit
    #[arg(long, value_enum, default_value_t = Compute::F32)]
    pub compute: Compute,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compute {
    /// All in f32
    F32,
    /// Maps and the factors of products in bf16, sums in f32
    Bf16,
}

impl Compute {
    /// The type's name; none for f32, which output does not mention.
    pub fn stated(self) -> Option<String> {
        (self != Compute::F32).then(|| ctk_core::recipe::Precision::from(self).to_string())
    }
}

impl From<Compute> for ctk_core::recipe::Precision {
    fn from(named: Compute) -> Self {
        match named {
            Compute::F32 => Self::F32,
            Compute::Bf16 => Self::Bf16,
        }
    }
}

#[derive(Subcommand)]
pub enum Tokenizer {
    /// Train a tokenizer, and write it as tokenizer.json, which transformers and `tokenizer.file` of `ctk train sentences` read
    #[command(after_help = "Examples:\n  ctk tokenizer train --data corpus.txt --size 8000 --out tokenizer.json\n  \
        ctk tokenizer train --data pairs.tsv --kind bpe --out tokenizer.json")]
    Train {
        /// The texts: a file with one text a line or with columns of texts (.tsv, .csv, .jsonl, .parquet), a folder of them, or a glob
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        data: PathBuf,
        /// wordpiece (BERT's) or bpe (RoBERTa's, on bytes)
        #[arg(long, value_name = "KIND", default_value = "wordpiece", value_parser = ["wordpiece", "bpe"])]
        kind: String,
        /// Pieces of the vocabulary, special tokens included
        #[arg(long, value_name = "N", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(300..=1_000_000))]
        size: u32,
        /// Keep capitals and accents (wordpiece; bpe always does)
        #[arg(long)]
        cased: bool,
        /// Do not merge pairs of pieces that are rarer
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
        min_frequency: u64,
        /// The file to write
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        out: PathBuf,
        #[command(flatten)]
        over: Over,
        #[command(flatten)]
        show: Show,
    },
}

#[derive(ClapArgs)]
pub struct Import {
    /// The weights: a safetensors file, a folder with a model.safetensors, or a file on the Hugging Face hub
    /// (hf://owner/name/model.safetensors)
    #[arg(value_name = "WEIGHTS", value_hint = ValueHint::AnyPath)]
    pub weights: PathBuf,
    /// Set one key of the recipe that was recognised; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    #[command(flatten)]
    pub new: NewRun,
}

#[derive(ClapArgs)]
pub struct Analogy {
    #[command(flatten)]
    pub model: ModelArgs,
    /// A is to B ...
    #[arg(value_name = "A")]
    pub a: String,
    /// ... as the first argument is to this word, the second ...
    #[arg(value_name = "B")]
    pub b: String,
    /// ... so is this third word to the answer
    #[arg(value_name = "C")]
    pub c: String,
    /// Answers to print
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub count: usize,
}

#[derive(ClapArgs)]
pub struct Export {
    #[command(flatten)]
    pub model: ModelArgs,
    /// The format. vision: safetensors (torchvision's names), timm, transformers. Words: word2vec-text, word2vec-binary, glove,
    /// static-embedding, safetensors; for word2vec runs also fasttext. Sentences: sentence-transformers; transformers for text towers of
    /// CLIP and SigLIP
    #[arg(long)]
    pub format: String,
    /// Leave out the classifier of a fine-tuned or distilled run
    #[arg(long)]
    pub encoder_only: bool,
    /// The file to write; for timm, transformers, static-embedding and sentence-transformers, a new folder
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub out: PathBuf,
    #[command(flatten)]
    pub over: Over,
}

#[derive(Subcommand)]
pub enum Data {
    /// Report what the data holds and what is wrong with it; every image is decoded and compared with all others
    ///
    /// Prints images, classes and parts, and why they are so; files that are not read; images that cannot be decoded; copies, also across
    /// classes and parts; image sizes; how even the classes are; views that are nearly uniform. Bad images are listed; they do not make the
    /// command fail.
    #[command(after_help = "Examples:\n  ctk data check photos/\n  ctk data check photos/ --json")]
    Check {
        /// The data, as for --data of `ctk train`; several paths are one dataset
        #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        paths: Vec<PathBuf>,
        /// The modality
        #[arg(long, id = "modality", value_name = "MODALITY", default_value = "vision")]
        modality: String,
        /// The recipe whose views are checked, a TOML file; default: one that fits the data
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
pub struct Devices {
    /// Compare the device with the CPU; the exit code is 1 if it is wrong somewhere
    #[arg(long)]
    pub self_test: bool,
    /// The device to compare: cuda or cuda:N; cpu compares the CPU with itself; auto, the first CUDA device that can be used, otherwise the
    /// CPU
    #[arg(long, value_name = "DEVICE", default_value = "auto", requires = "self_test")]
    pub device: String,
    #[command(flatten)]
    pub show: Show,
}

#[derive(ClapArgs)]
pub struct Preview {
    /// The modality
    #[arg(id = "modality", default_value = "vision")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The image file to write
    #[arg(long, value_name = "FILE.png", value_hint = ValueHint::FilePath, required_unless_present = "export")]
    pub out: Option<PathBuf>,
    /// Write views of every image as PNG files into this new folder, for a program that computes features of them; views.csv says whose
    /// they are
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "out")]
    pub export: Option<PathBuf>,
    /// Views of each image, with --export
    #[arg(long, value_name = "N", default_value_t = 2, requires = "export", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub views: u16,
    #[command(flatten)]
    pub over: Over,
}

#[derive(ClapArgs)]
pub struct Bench {
    /// The modality whose step is timed
    #[arg(id = "modality")]
    pub modality: String,
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The encoder: resnet18, 20, 32, 34, 44, 50, 56, 101, 110, 152, 200; vit-ti16, vit-s16, vit-b16, vit-l16, with any patch
    #[arg(long, value_name = "NAME")]
    pub encoder: Option<String>,
    /// Width multiplier of the encoder's channels; default: 1 with --encoder, else the recipe's
    #[arg(long, value_name = "FACTOR")]
    pub width: Option<f64>,
    /// The stem, the layers before the encoder's blocks
    #[arg(long, value_parser = ["small", "imagenet"])]
    pub stem: Option<String>,
    /// Height and width of an image, in pixels
    #[arg(long, value_name = "N")]
    pub size: Option<usize>,
    /// Images in a batch; the SimCLR step makes two views of each
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Steps to time, after two steps of warm-up; default: 5; for word2vec as many as fit in two seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: Option<u16>,
    /// The type in which feature maps are stored and multiplied
    #[arg(long, value_parser = ["f32", "bf16"])]
    pub precision: Option<String>,
    /// Seed of the weights, the input and the views
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub device: Device,
    #[command(flatten)]
    pub show: Show,
}

#[derive(ClapArgs)]
pub struct Matrix {
    /// The cases and studies, a TOML file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Run only cases and studies whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The data that studies train on, in place of their recipe's
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub data: Option<PathBuf>,
    /// The folder for the studies' runs, one for each cell; finished cells are not run again; default: runs/<FILE's name>
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
        /// The modality of the recipes
        #[arg(id = "modality", index = 1)]
        modality: String,
        /// The recipes, TOML files
        #[arg(required = true, index = 2, value_name = "FILE", value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// Also open this data, and say what a run by each recipe would be: network, steps, memory
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        data: Option<PathBuf>,
        /// Print one JSON object as the last line of stdout
        #[arg(long)]
        json: bool,
    },
    /// Print the recipe that `ctk train` would use, as a start for your own
    #[command(after_help = "Example:\n  ctk config show vision --data photos/ > photos.toml")]
    Show {
        /// The modality
        #[arg(id = "modality")]
        modality: String,
        #[command(flatten)]
        recipe: RecipeArgs,
    },
    /// Print every key of a recipe: its type, its default, its meaning
    #[command(after_help = "Examples:\n  ctk config keys vision\n  ctk config keys vision train")]
    Keys {
        /// The modality
        #[arg(id = "modality", index = 1)]
        modality: String,
        /// Only keys that begin with this prefix, such as `train` or `loss.moco`
        #[arg(index = 2, value_name = "PREFIX")]
        prefix: Option<String>,
        /// Print one JSON object as the last line of stdout
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of a recipe: every key, its type, default and meaning
    #[command(after_help = "Example:\n  ctk config schema word2vec")]
    Schema {
        /// The modality
        #[arg(id = "modality")]
        modality: String,
    },
}

impl Args {
    /// The number of threads given by `--threads`.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }
}
