//! Exports a run as a fastText model: translates its recipe into fastText's training arguments.

use std::path::Path;

use ctk_core::Result;
use ctk_texts::vocabulary::Vocabulary;

use super::recipe::{Architecture, LossRecipe, Word2VecRecipe};
use crate::fasttext::{self, Args, Loss, ModelKind, Parts};

/// Writes a run's tables as a fastText model: `input` has a row for each word and bucket, `output` a row for each word or inner node.
///
/// # Errors
/// The errors of [`fasttext::write`].
pub fn fasttext(recipe: &Word2VecRecipe, vocabulary: &Vocabulary, input: &[f32], mut output: Vec<f32>, out: &Path) -> Result<()> {
    let (loss, negatives) = match &recipe.loss {
        LossRecipe::NegativeSampling(loss) => (Loss::NegativeSampling, number(loss.negatives)),
        LossRecipe::HierarchicalSoftmax(_) => {
            // fastText numbers the tree's nodes as they are made, the root last. There the label of a right turn is 1; here it is 0, as in
            // word2vec.c. And fastText's table has one row more than the tree has nodes.
            output = output.chunks_exact(recipe.width()).rev().flatten().map(|value| -value).collect();
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
            Architecture::SkipGram => ModelKind::SkipGram,
            Architecture::Cbow => ModelKind::Cbow,
        },
        buckets: number(subwords.map_or(0, |subwords| subwords.buckets)),
        min: number(subwords.map_or(0, |subwords| subwords.min)),
        max: number(subwords.map_or(0, |subwords| subwords.max)),
        // fastText's default; ctk has no such setting.
        rate_every: 100,
        subsample: recipe.pairs.subsample,
    };
    fasttext::write(&Parts { args, vocabulary, input, output: &output }, out)
}

/// A number of a recipe, whose bounds are smaller than an i32's.
fn number(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use ctk_core::recipe::Recipe;

    use super::*;

    #[test]
    fn a_recipe_and_its_tables_in_fasttexts_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.bin");
        let vocabulary = Vocabulary::new(["a", "b", "c"].map(str::to_string).to_vec(), vec![4, 2, 1]);
        let written = |text: &str, input: &[f32], output: &[f32]| {
            let recipe = Word2VecRecipe::parse(&Recipe::new("a.toml", text)).unwrap();
            fasttext(&recipe, &vocabulary, input, output.to_vec(), &path).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let last = bytes[bytes.len() - 4 * 3..].as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value));
            (fasttext::open(&path).unwrap().args, last.collect::<Vec<_>>())
        };
        // The root, and the node of the two rarer words below it.
        let tree = "[pairs]\narchitecture = \"cbow\"\nwindow = 3\n[encoder.table]\nwidth = 1\n[loss.hierarchical-softmax]\n";
        let (args, output) = written(tree, &[0.1, 0.2, 0.3], &[1.0, 2.0]);
        assert_eq!(output, [-2.0, -1.0, 0.0]);
        assert_eq!((args.kind, args.loss, args.negatives, args.window), (ModelKind::Cbow, Loss::HierarchicalSoftmax, 0, 3));
        assert_eq!((args.buckets, args.min, args.max), (0, 0, 0));
        let grams =
            "[encoder.subwords]\nwidth = 1\nbuckets = 2\nmin = 2\n[loss.negative-sampling]\nnegatives = 7\n[train]\nepochs = 9\n";
        let (args, output) = written(grams, &[0.1, 0.2, 0.3, 0.4, 0.5], &[1.0, 2.0, 3.0]);
        assert_eq!(output, [1.0, 2.0, 3.0]);
        assert_eq!((args.kind, args.loss, args.negatives, args.epochs), (ModelKind::SkipGram, Loss::NegativeSampling, 7, 9));
        assert_eq!((args.buckets, args.min, args.max, args.min_count, args.subsample), (2, 2, 6, 5, 1e-4));
    }
}
