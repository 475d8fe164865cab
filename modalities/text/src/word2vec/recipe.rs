//! The recipe of word2vec: what can be written in its TOML, and what each key is without being written.

use ctk_core::nn::pass::Precision;
use ctk_core::recipe::{CheckpointRecipe, MOST, Recipe};
use ctk_core::{Context as _, Result, train_section};
use ctk_texts::recipe::{DataRecipe, VocabularyRecipe};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::subwords::Subwords;

/// Values a word, at most.
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
    /// `[encoder.*]`: what a word becomes.
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
    /// Words to each side at most; each centre's window is shrunk to 1..=window, uniformly.
    pub window: u32,
    /// Threshold t of subsampling, a share of the text: a word of share f is kept with probability (√(f/t) + 1)·t/f. 0 keeps
    /// all. word2vec.c's own default is 1e-3; 1e-4 is better on texts of some million words and faster.
    pub subsample: f64,
    /// What a centre word is paired with: `skip-gram`, each word of its window, or `cbow`, their mean.
    pub architecture: Architecture,
    /// What each word of a mean moves by: `word2vec`, all of the mean's gradient (word2vec.c, gensim), or `exact`, its share of it.
    pub cbow_gradient: CbowGradient,
    /// Which pairs a draw of negatives is for: `shared`, all pairs of a centre word, and of three others some way off; `grouped`,
    /// all of two neighbouring centre words, and of three other twos, which is faster and a little worse, and what `--fast` asks
    /// for; or `per-pair`, one (word2vec.c).
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
    /// Their mean, a continuous bag of words.
    Cbow,
}

/// What each word of a mean moves by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CbowGradient {
    /// All of the mean's gradient, as in word2vec.c and gensim.
    #[default]
    Word2vec,
    /// Its share of it.
    Exact,
}

/// Which pairs share negatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// All pairs of a centre word: several times as fast.
    #[default]
    Shared,
    /// Those of two neighbouring centre words: faster still. Four draws serve both, each counted as negatives/4.
    Grouped,
    /// None: each pair has its own, as in word2vec.c.
    PerPair,
}

/// `[encoder.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum EncoderRecipe {
    /// A row a word.
    Table(TableRecipe),
    /// A row a word and a row each of its n-grams, whose mean it is (fastText).
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
    /// Values a word.
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
    /// Values a word.
    pub width: usize,
    /// Characters of the shortest n-grams, the marks `<` and `>` at a word's ends included.
    pub min: usize,
    /// And of the longest.
    pub max: usize,
    /// Rows that n-grams share by their hash. fastText has two million; each takes memory as a word does.
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
    /// The turns of a Huffman tree's path.
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
    /// Negatives a pair.
    pub negatives: usize,
    /// They are drawn in proportion to count^power.
    pub power: f64,
}

impl Default for NegativeSamplingRecipe {
    fn default() -> Self {
        NegativeSamplingRecipe { negatives: 5, power: 0.75 }
    }
}

/// `[loss.hierarchical-softmax]`, which has nothing to set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HierarchicalSoftmaxRecipe {}

/// `[optimizer.*]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum OptimizerRecipe {
    /// One plain step a pair.
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
    /// The rate at the start; it falls in a straight line to a ten-thousandth of it at the end. word2vec.c starts at .025; on 17
    /// million words of news, five epochs, that was better on SimLex999 (.34 against .32) and worse on analogies (34 against 36 %).
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
    /// Passes over the text.
    epochs = 5;
    /// Blocks of text a step: how often the rate moves and threads meet. Never more than there are.
    batch = 256;
    seed;
    {
        /// What products are of: `bf16` by the instructions that some processors have for it (AVX512-BF16; where these are not there, or
        /// no faster, as Intel's, it is as `f32`), or `f32`. Vectors and sums are f32 with both.
        precision: Precision = Precision::Bf16;
        /// A run (or checkpoint) to begin with: its words stay, with both their vectors; words of the new text that reach
        /// `vocabulary.min_count` are added (`vocabulary.max_size` counts both). Counts are the new text's; the rate starts at its peak.
        init: Option<String> = None;
    }
    max_steps;
    {
        /// Whether a run gives the same bits on any number of threads, at some three fifths of the speed, with memory for
        /// each shard's tables.
        deterministic: bool = false;
        /// Parts that a deterministic step is made in, at once: threads above their number have nothing to do. Changes what is
        /// learned.
        shards: usize = 2;
    }
    /// Threads that draw windows ahead. 0, the default: the training threads draw their own, which is faster. Does not
    /// change what is learned.
    loaders = 0;
    log_every;
    save_every;
    keep;
}

impl Word2VecRecipe {
    /// Reads and checks a recipe's text.
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

    /// Values a word.
    pub fn width(&self) -> usize {
        match &self.encoder {
            EncoderRecipe::Table(table) => table.width,
            EncoderRecipe::Subwords(subwords) => subwords.width,
        }
    }

    /// The n-grams that words are made of beside themselves, if they are.
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
    /// `negatives` draws a pair in proportion to count^`power`, shared as `sharing` says.
    Noise {
        /// Draws a pair.
        negatives: usize,
        /// The power of counts that they follow.
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
