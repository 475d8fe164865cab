//! The flags of `ctk eval`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueHint};

use super::{Classify, Few, LabelEfficiency, ModelArgs, Over, Precision, Prompted, Roles};

/// Fewer values of each row, or fewer bits of each value; the figures of whole rows in float32 are printed beside.
#[derive(ClapArgs)]
pub struct Fewer {
    /// Use only the first N values of each row, as rows of Matryoshka models can be cut; the figures of whole rows are printed beside
    #[arg(long, value_name = "N")]
    pub truncate_dim: Option<usize>,
    /// Judge rows that are kept with this precision, and print the figures in float32 beside. Codes of int8 and uint8 are compared by the
    /// values that they stand for, codes of bits by their Hamming distance
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    pub precision: Precision,
}

#[derive(Subcommand)]
pub enum Eval {
    /// Linear probe: multinomial logistic regression on frozen features
    #[command(after_help = "Example:\n  ctk eval linear-probe runs/vision-1 --data cifar10/ --baseline --json")]
    LinearProbe {
        #[command(flatten)]
        model: ModelArgs,
        /// Also probe baselines that learned nothing: the untrained network, raw pixels, a colour histogram
        #[arg(long)]
        baseline: bool,
        /// How the classifier is fitted
        #[arg(long, value_enum, default_value_t = Fit::Lbfgs)]
        method: Fit,
        #[command(flatten)]
        few: Few,
    },
    /// k-nearest-neighbour classification, weighted, on frozen features
    #[command(after_help = "Example:\n  ctk eval knn runs/vision-1 --json")]
    Knn {
        #[command(flatten)]
        model: ModelArgs,
        /// Also classify by baselines that learned nothing: the untrained network, raw pixels, a colour histogram
        #[arg(long)]
        baseline: bool,
    },
    /// Judge the classifier of a fine-tuned or distilled run: accuracy, figures for each class, confusion matrix, calibration
    ///
    /// The images or texts are the test part of the run's data, or its hold-out. With --data they are the test part of that data if it has
    /// one, else all of it. Classes are matched by name. Samples of a class that the run does not know count as wrong, and a note says how
    /// many classes these are.
    #[command(after_help = "Examples:\n  ctk eval classify runs/vision-2\n  \
        ctk eval classify runs/vision-2 --data photos/ --csv confusion.csv --svg confusion.svg\n  \
        ctk eval classify runs/vision-2 --calibrate --json")]
    Classify(Classify),
    /// Word similarity: Spearman correlation of cosine similarity with human judgements of word pairs
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
    /// Word analogies `a is to b as c is to ?`, answered by 3CosAdd
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
    /// Cluster the words of categories (k-means on unit vectors) and compare clusters with categories: purity (the share of words in a
    /// cluster whose most frequent category is theirs) and normalised mutual information, 0 to 1
    #[command(after_help = "Example:\n  ctk eval categorize runs/word2vec-1 word-categorization/ --json")]
    Categorize {
        #[command(flatten)]
        model: ModelArgs,
        /// Files with lines `category,word` (comma or tab); a folder stands for all sets in it
        #[arg(required = true, value_name = "SET", value_hint = ValueHint::AnyPath)]
        sets: Vec<PathBuf>,
        /// Seed of the starting points of k-means
        #[arg(long, value_name = "N", default_value_t = 0)]
        seed: u64,
    },
    /// Classify texts by the mean of their words' vectors: logistic regression, its L2 strength chosen by cross-validation on the training
    /// texts
    ///
    /// Texts are cut into words as the run's recipe says. Each word is looked up as it is, and then lower-cased. `missing` is the fraction
    /// of the test texts' words that have no vector. Without TEST, the column `split` of TRAIN says which texts are the test texts; without
    /// that column, a seeded fifth of each class is held out.
    #[command(after_help = "Examples:\n  ctk eval text-classification runs/word2vec-1 train.tsv test.tsv --baseline random\n  \
        ctk eval text-classification runs/word2vec-1 20news.tsv --json")]
    TextClassification {
        #[command(flatten)]
        model: ModelArgs,
        /// Lines of label, tab, text; or a .csv file. The first line may name the columns (`label`, `text`, `split`)
        #[arg(value_name = "TRAIN", value_hint = ValueHint::FilePath)]
        train: PathBuf,
        /// The test texts, in the same format
        #[arg(value_name = "TEST", value_hint = ValueHint::FilePath)]
        test: Option<PathBuf>,
        /// Also classify by a baseline that learned nothing: `random`, random vectors of the learned vectors' lengths
        #[arg(long, value_name = "NAME")]
        baseline: Option<String>,
        /// Draws of the random baseline, with seeds 0 to N - 1
        #[arg(long, value_name = "N", default_value_t = 5, requires = "baseline", value_parser = clap::value_parser!(u64).range(1..=1000))]
        seeds: u64,
    },
    /// Sentence similarity: Spearman and Pearson correlation of cosines with human judgements of pairs of sentences, for each set and for
    /// all pairs in one list
    #[command(after_help = "Examples:\n  ctk eval sts runs/sentences-1 --pairs sts.tsv\n  \
        ctk eval sts all-MiniLM-L6-v2/ --pairs sts/ --json\n  \
        ctk eval sts runs/sentences-1 --pairs sts.tsv --truncate-dim 64 --precision int8")]
    Sts {
        #[command(flatten)]
        model: ModelArgs,
        /// Tables of sentence, sentence and score (.tsv, .csv), with names in the first line or STS's usual columns; or a folder of them
        #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
        pairs: PathBuf,
        /// Leave out this set; may be given several times
        #[arg(long, value_name = "SET")]
        without: Vec<String>,
        #[command(flatten)]
        prompt: Prompted,
        #[command(flatten)]
        fewer: Fewer,
    },
    /// Retrieval: search the documents that are relevant for each query, by cosine and exactly; nDCG@10, recall, MRR@10
    ///
    /// `first` is the share of queries whose nearest document is relevant. `recall@k` is the share of a query's relevant documents among the
    /// nearest k. All are means over the queries that have a relevant document.
    ///
    /// Without FOLDER, for a run of image-text: images look for one of their captions, and captions for their image. R@1, 5 and 10 and the
    /// median rank both ways, beside chance; a caption that several images have is right for all of them.
    #[command(after_help = "Examples:\n  ctk eval retrieval runs/sentences-1 scifact/\n  \
        ctk eval retrieval all-MiniLM-L6-v2/ squad-dev/ --json\n  \
        ctk eval retrieval runs/image-text-1 --data flickr8k/")]
    Retrieval {
        #[command(flatten)]
        model: ModelArgs,
        /// A folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/), or with passages.tsv and questions.tsv
        #[arg(value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        folder: Option<PathBuf>,
        /// The judgements of this part, a file in BEIR's qrels/. Default: test, or the only one there is
        #[arg(long, value_name = "NAME")]
        split: Option<String>,
        /// A query does not find a document of its own name, for sets whose queries are documents, too
        #[arg(long)]
        exclude_same: bool,
        #[command(flatten)]
        roles: Roles,
        #[command(flatten)]
        fewer: Fewer,
        /// For a run of image-text: also write the rank of each image and each caption into this CSV file, for comparisons of your own
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        ranks: Option<PathBuf>,
        #[command(flatten)]
        over: Over,
    },
    /// Zero-shot classification: an image belongs to the class whose description is most similar; for a run of image-text
    ///
    /// A class is described by each prompt with its name; the rows of its prompts are averaged. The images need classes (`--data` with a
    /// folder for each class), to judge by.
    #[command(after_help = "Examples:\n  ctk eval zero-shot runs/image-text-1 --data cifar10/test/\n  \
        ctk eval zero-shot runs/image-text-1 --data birds/ --classes names.tsv --prompts prompts.txt --json")]
    ZeroShot {
        #[command(flatten)]
        model: ModelArgs,
        /// A class on each line: its name, or the class in the data, a tab and its name. Default: the data's own names
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        classes: Option<PathBuf>,
        /// A prompt on each line, with {} where the name goes. Default: `a photo of a {}.`
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        prompts: Option<PathBuf>,
    },
    /// Compare supervised training, linear probe, fine-tuning and distillation with 1 %, 10 % and all labels
    ///
    /// Each cell of the table is a run that is trained and kept. The same command continues a study that was stopped. Prints mean and
    /// standard deviation over label subsets, and the methods' paired differences; writes results.json, results.csv and plot.svg.
    #[command(after_help = "Examples:\n  ctk eval label-efficiency runs/vision-1\n  \
        ctk eval label-efficiency runs/vision-1 --labels 1% --methods probe,finetune --seeds 5 --epochs 20\n  \
        ctk eval label-efficiency runs/sentences-1 --data reviews.tsv --labels 8-per-class,64-per-class")]
    LabelEfficiency(LabelEfficiency),
    /// Alignment, uniformity and signs of collapse of the embeddings; needs no labels
    #[command(after_help = "Example:\n  ctk eval geometry runs/vision-1")]
    Geometry {
        #[command(flatten)]
        model: ModelArgs,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Fit {
    /// L-BFGS, to the optimum; the L2 strength is chosen on held-out training rows
    Lbfgs,
    /// SimCLR's protocol: 100 epochs of SGD with Nesterov momentum, no weight decay
    Sgd,
}
