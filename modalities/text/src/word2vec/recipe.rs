//! The recipe of word2vec: its sections and keys, with their defaults and checks.

use ctk_core::nn::pass::Precision;
use ctk_core::recipe::{CheckpointRecipe, MOST, Recipe};
use ctk_core::{Context as _, Result, train_section};
use ctk_texts::recipe::{DataRecipe, VocabularyRecipe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::subwords::Subwords;

/// The largest number of values in a word's vector.
const WIDEST: usize = 65_536;

/// A whole recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Word2VecRecipe {
    /// `[data]`: the text.
    pub data: DataRecipe,
    /// `[vocabulary]`: which of its words are kept.
    pub vocabulary: VocabularyRecipe,
    /// `[pairs]`: which words are trained with which.
    pub pairs: PairsRecipe,
    /// `[encoder.*]`: how a word becomes a vector.
    pub encoder: EncoderRecipe,
    /// `[loss.*]`.
    pub loss: LossRecipe,
    /// `[optimizer.*]`.
    pub optimizer: OptimizerRecipe,
    /// `[train]`.
    pub train: TrainRecipe,
    /// `[checkpoint]`: when checkpoints are saved, and how many are kept.
    pub checkpoint: CheckpointRecipe,
}

/// `[pairs]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PairsRecipe {
    /// The largest number of words to each side; each centre's window is drawn uniformly from 1..=window.
    pub window: u32,
    /// Threshold t of subsampling, a fraction of the text: a word with relative frequency f is kept with probability (√(f/t) + 1)·t/f. 0
    /// keeps all words. word2vec.c's default is 1e-3; 1e-4 is better on texts of some million words, and faster.
    pub subsample: f64,
    /// What a centre word is paired with: `skip-gram`, each word of its window, or `cbow`, the mean of these words.
    pub architecture: Architecture,
    /// The gradient that each word of a mean gets: `word2vec`, all of the mean's (word2vec.c, gensim), or `exact`, divided by the number of
    /// words.
    pub cbow_gradient: CbowGradient,
    /// Which pairs share negatives. `shared`: all pairs of a centre word, and those of three other centre words at some distance.
    /// `grouped`: all pairs of two neighbouring centre words, and those of three other such groups; faster and slightly worse; `--fast`
    /// sets it. `per-pair`: none (word2vec.c).
    pub negatives: Negatives,
}

impl Default for PairsRecipe {
    fn default() -> Self {
        PairsRecipe {
            window: 5,
            subsample: 1e-4,
            architecture: Architecture::SkipGram,
            cbow_gradient: CbowGradient::Word2vec,
            negatives: Negatives::Shared,
        }
    }
}

/// What a centre word is paired with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// Each word of its window.
    #[default]
    SkipGram,
    /// The mean of these words, a continuous bag of words.
    Cbow,
}

/// The gradient that each word of a mean gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CbowGradient {
    /// All of the mean's gradient, as in word2vec.c and gensim.
    #[default]
    Word2vec,
    /// The mean's gradient divided by the number of words.
    Exact,
}

/// Which pairs share negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// All pairs of a centre word: several times as fast as `per-pair`.
    #[default]
    Shared,
    /// Those of two neighbouring centre words: faster still. Four draws serve both, each weighted by negatives/4.
    Grouped,
    /// No pairs: each has negatives of its own, as in word2vec.c.
    PerPair,
}

/// `[encoder.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EncoderRecipe {
    /// A row for each word.
    Table(TableRecipe),
    /// A row for each word and for its n-grams; a word's vector is their mean (fastText).
    Subwords(SubwordsRecipe),
}

impl Default for EncoderRecipe {
    fn default() -> Self {
        EncoderRecipe::Table(TableRecipe::default())
    }
}

/// `[encoder.table]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TableRecipe {
    /// Values in a word's vector.
    pub width: usize,
}

impl Default for TableRecipe {
    fn default() -> Self {
        TableRecipe { width: 100 }
    }
}

/// `[encoder.subwords]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubwordsRecipe {
    /// Values in a word's vector.
    pub width: usize,
    /// Length of the shortest n-grams in characters, including the marks `<` and `>` at a word's ends.
    pub min: usize,
    /// Length of the longest n-grams in characters.
    pub max: usize,
    /// Number of rows that n-grams share by their hash. fastText has two million; each takes as much memory as a word.
    pub buckets: usize,
}

impl Default for SubwordsRecipe {
    fn default() -> Self {
        SubwordsRecipe { width: 100, min: 3, max: 6, buckets: 2_000_000 }
    }
}

/// `[loss.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LossRecipe {
    /// Negative sampling.
    NegativeSampling(NegativeSamplingRecipe),
    /// Hierarchical softmax, by the turns of a path in a Huffman tree.
    HierarchicalSoftmax(HierarchicalSoftmaxRecipe),
}

impl Default for LossRecipe {
    fn default() -> Self {
        LossRecipe::NegativeSampling(NegativeSamplingRecipe::default())
    }
}

/// `[loss.negative-sampling]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NegativeSamplingRecipe {
    /// Negatives for each pair.
    pub negatives: usize,
    /// Negatives are drawn in proportion to count^power.
    pub power: f64,
}

impl Default for NegativeSamplingRecipe {
    fn default() -> Self {
        NegativeSamplingRecipe { negatives: 5, power: 0.75 }
    }
}

/// `[loss.hierarchical-softmax]`, which has no settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HierarchicalSoftmaxRecipe {}

/// `[optimizer.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    /// One plain gradient step for each pair.
    Sgd(SgdRecipe),
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        OptimizerRecipe::Sgd(SgdRecipe::default())
    }
}

/// `[optimizer.sgd]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SgdRecipe {
    /// The learning rate at the start; it falls linearly to a ten-thousandth of it at the end. word2vec.c starts at .025; on 17 million
    /// words of news and five epochs that gave a better correlation on SimLex999 (.34 against .32) and a worse accuracy on analogies (34
    /// against 36 %).
    pub rate: f64,
}

impl Default for SgdRecipe {
    fn default() -> Self {
        SgdRecipe { rate: 0.05 }
    }
}

train_section! {
    /// `[train]`. A sample is a block of up to 1,000 words of the text.
    pub struct TrainRecipe;
    /// Epochs: passes over the text.
    epochs = 5;
    /// Blocks of text in a step: how often the rate changes and threads wait for each other. Never more than there are.
    batch = 256;
    seed;
    {
        /// The type in which products are computed: `bf16`, by the instructions of processors that have AVX512-BF16 and gain from it (on
        /// others, such as Intel's, it is the same as `f32`), or `f32`. Vectors and sums are f32 in both cases.
        precision: Precision = Precision::Bf16;
        /// A run (or checkpoint) to begin with: its words and both of their vectors are kept, and words of the new text that reach
        /// `vocabulary.min_count` are added (`vocabulary.max_size` counts both). Counts are those of the new text; the rate starts at its
        /// peak.
        init: Option<String> = None;
    }
    max_steps;
    {
        /// Whether a run gives the same bits on any number of threads. It runs at some three fifths of the speed, and takes memory for each
        /// shard's tables.
        deterministic: bool = false;
        /// Shards of a deterministic step, which are trained at the same time; more threads than shards do not help. Changes what is
        /// learned.
        shards: usize = 2;
    }
    /// Threads that draw windows ahead. 0, the default: the training threads draw their own windows, which is faster. Does not change what
    /// is learned.
    loaders = 0;
    log_every;
    save_every;
    keep;
}

impl Word2VecRecipe {
    /// Parses and checks a recipe.
    ///
    /// # Errors
    /// The first mistake in it.
    pub fn parse(text: &Recipe) -> Result<Word2VecRecipe> {
        text.tables(&schemars::schema_for!(Word2VecRecipe).to_value())?;
        let recipe: Word2VecRecipe = text.parse()?;
        text.require(
            !recipe.checkpoint.keep_best,
            "checkpoint.keep_best",
            "is for images: words have no labels that tell the best checkpoint",
        )?;
        let skip_gram = recipe.pairs.architecture == Architecture::SkipGram;
        text.require(
            skip_gram || recipe.pairs.negatives == Negatives::Shared,
            "pairs.negatives",
            "must be `shared` with cbow, where a centre word has one pair",
        )?;
        text.within("pairs.window", recipe.pairs.window, 1..=1000)?;
        text.within("pairs.subsample", recipe.pairs.subsample, 0.0..=1.0)
            .hint("it is a share of the text: 1e-4 is usual, 0 keeps every word")?;
        match &recipe.encoder {
            EncoderRecipe::Table(table) => {
                text.within("encoder.table.width", table.width, 1..=WIDEST)?;
            }
            EncoderRecipe::Subwords(SubwordsRecipe { width, min, max, buckets }) => {
                text.within("encoder.subwords.width", *width, 1..=WIDEST)?;
                text.within("encoder.subwords.min", *min, 1..=100)?;
                text.require((*min..=100).contains(max), "encoder.subwords.max", "must be at least `min`, at most 100")?;
                text.within("encoder.subwords.buckets", *buckets, 1..=1 << 30)?;
            }
        }
        match &recipe.loss {
            LossRecipe::NegativeSampling(loss) => {
                text.within("loss.negative-sampling.negatives", loss.negatives, 1..=1000)?;
                text.within("loss.negative-sampling.power", loss.power, -4.0..=4.0)?;
            }
            LossRecipe::HierarchicalSoftmax(_) => text.require(
                recipe.pairs.negatives == Negatives::Shared,
                "pairs.negatives",
                "must be `shared` with hierarchical softmax, which draws none",
            )?,
        }
        text.positive("optimizer.sgd.rate", recipe.rate(), MOST)?;
        text.within("train.shards", recipe.train.shards, 1..=256)?;
        recipe.data.check(text)?;
        recipe.vocabulary.check(text)?;
        Ok(recipe)
    }

    /// Values in a word's vector.
    pub fn width(&self) -> usize {
        match &self.encoder {
            EncoderRecipe::Table(table) => table.width,
            EncoderRecipe::Subwords(subwords) => subwords.width,
        }
    }

    /// The n-grams that words are composed of, with subwords.
    pub fn subwords(&self) -> Option<Subwords> {
        match self.encoder {
            EncoderRecipe::Table(_) => None,
            EncoderRecipe::Subwords(SubwordsRecipe { min, max, buckets, .. }) => Some(Subwords { min, max, buckets }),
        }
    }

    /// What words are contrasted with.
    pub fn contrast(&self) -> Contrast {
        match self.loss {
            LossRecipe::NegativeSampling(NegativeSamplingRecipe { negatives, power }) => {
                Contrast::Noise { negatives, power, sharing: self.pairs.negatives }
            }
            LossRecipe::HierarchicalSoftmax(_) => Contrast::Tree,
        }
    }

    /// The peak rate.
    pub fn rate(&self) -> f64 {
        let OptimizerRecipe::Sgd(sgd) = &self.optimizer;
        sgd.rate
    }
}

/// What words are contrasted with.
#[derive(Clone, Copy, Debug)]
pub enum Contrast {
    /// `negatives` draws for each pair in proportion to count^`power`, shared as `sharing` says.
    Noise {
        /// Draws for each pair.
        negatives: usize,
        /// The power of the counts.
        power: f64,
        /// Which pairs share them.
        sharing: Negatives,
    },
    /// The turns of a Huffman tree.
    Tree,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for (text, key) in [
            ("[pairs]\nwindow = 0\n", "a.toml:2:"),
            ("[pairs]\narchitecture = \"cbow\"\nnegatives = \"per-pair\"\n", "a.toml:3:"),
            ("[pairs]\nsubsample = -1.0\n", "pairs.subsample"),
            ("[encoder.table]\nwidth = 0\n", "encoder.table.width"),
            ("[encoder.subwords]\nmin = 4\nmax = 3\n", "a.toml:3:"),
            ("[encoder.subwords]\nbuckets = 0\n", "encoder.subwords.buckets"),
            ("[pairs]\nnegatives = \"grouped\"\n[loss.hierarchical-softmax]\n", "a.toml:2:"),
            ("[pairs]\narchitecture = \"cbow\"\nnegatives = \"grouped\"\n", "a.toml:3:"),
            ("[loss.negative-sampling]\nnegatives = 0\n", "negatives"),
            ("[optimizer.sgd]\nrate = 0.0\n", "optimizer.sgd.rate"),
            ("[train]\nshards = 0\n", "train.shards"),
            ("[vocabulary]\nmin_count = 0\n", "vocabulary.min_count"),
            ("[vocabulary]\nmax_size = 1\n", "vocabulary.max_size"),
            ("[vocabulary]\nin_memory = 0\n", "vocabulary.in_memory"),
            ("[vocabulary.phrases]\npasses = 17\n", "vocabulary.phrases.passes"),
            ("[vocabulary.phrases]\nthreshold = nan\n", "vocabulary.phrases.threshold"),
            ("[vocabulary.phrases]\njoiner = \" \"\n", "vocabulary.phrases.joiner"),
            ("[data]\npath = []\n", "data.path"),
            ("[pairs]\nwindwo = 3\n", "did you mean `window`?"),
        ] {
            let error = Word2VecRecipe::parse(&Recipe::new("a.toml", text)).unwrap_err();
            assert!(error.to_string().contains(key) && error.exit_code() == 2, "{error}");
        }
        let recipe = Word2VecRecipe::parse(&Recipe::new("a.toml", "[data]\npath = [\"a\", \"b\"]\n")).unwrap();
        assert_eq!(recipe.data.path.unwrap().list(), ["a", "b"]);
    }
}
