//! A run as models of other programs: what its recipe says, in their words.

use std::path::Path;

use ctk_core::Result;

use super::recipe::{Architecture, LossRecipe, Word2VecRecipe};
use crate::fasttext::{self, Args, Kind, Loss, Parts};
use crate::vocabulary::Vocabulary;

/// Writes a run's tables as a fastText model: `input`, a row a word and a bucket, and `output`, a row a word or an inner node.
///
/// # Errors
/// What [`fasttext::write`] cannot hold.
pub fn fasttext(recipe: &Word2VecRecipe, vocabulary: &Vocabulary, input: &[f32], mut output: Vec<f32>, out: &Path) -> Result<()> {
    let (loss, negatives) = match &recipe.loss {
        LossRecipe::NegativeSampling(loss) => (Loss::NegativeSampling, number(loss.negatives)),
        LossRecipe::HierarchicalSoftmax(_) => {
            // A right turn is label 0 here, as in word2vec.c, and 1 there; and there the table has a row more than the tree nodes.
            output.iter_mut().for_each(|value| *value = -*value);
            output.resize(vocabulary.len() * recipe.width(), 0.0);
            (Loss::HierarchicalSoftmax, 0)
        }
    };
    let subwords = recipe.subwords();
    let args = Args {
        width: number(recipe.width()),
        window: number(recipe.pairs.window as usize),
        epochs: number(recipe.train.epochs),
        min_count: i32::try_from(recipe.vocabulary.min_count).unwrap_or(i32::MAX),
        negatives,
        word_ngrams: 1,
        loss,
        kind: match recipe.pairs.architecture {
            Architecture::SkipGram => Kind::SkipGram,
            Architecture::Cbow => Kind::Cbow,
        },
        buckets: number(subwords.map_or(0, |subwords| subwords.buckets)),
        min: number(subwords.map_or(0, |subwords| subwords.min)),
        max: number(subwords.map_or(0, |subwords| subwords.max)),
        // fastText's default: ctk has no such number.
        rate_every: 100,
        subsample: recipe.pairs.subsample,
    };
    fasttext::write(&Parts { args, vocabulary, input, output: &output }, out)
}

/// A number of a recipe, which has smaller bounds.
fn number(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
