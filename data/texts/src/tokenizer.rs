//! Trains tokenizers: WordPiece as BERT's (Wu et al. 2016), and byte-level BPE as RoBERTa's (Sennrich et al. 2016).
//!
//! The pieces are found by the `tokenizers` library. As it comes, its trainer for WordPiece numbers pieces in the order of a hash map, which
//! differs from process to process, and ties between merges follow these numbers. Here all single characters are numbered before it
//! begins, so the same texts give the same tokenizer on every machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use ahash::AHashMap;
use compact_str::CompactString;
use ctk_core::recipe::Recipe;
use ctk_core::{Error, Result};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::tokenizer::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};
use tokenizers::{Tokenizer, decoders};

/// What stands before every piece of a word but the first.
const CONTINUED: &str = "##";

/// A kind of tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// BERT's: words are cut into the longest pieces of the vocabulary. A word with a character that is not in it is unknown.
    #[default]
    Wordpiece,
    /// RoBERTa's: bytes that are merged. No text is unknown.
    Bpe,
}

/// How a tokenizer is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingRecipe {
    /// `wordpiece` (BERT's) or `bpe` (RoBERTa's, on bytes).
    pub kind: Kind,
    /// Pieces of the vocabulary, special tokens included.
    pub size: usize,
    /// Whether texts are lower-cased, and accents removed. Only for `wordpiece`.
    pub lowercase: bool,
    /// A pair of pieces that is rarer is not merged.
    pub min_frequency: u64,
    /// Only so many characters are in the vocabulary, the most frequent ones. Only for `wordpiece`.
    pub alphabet: usize,
}

impl Default for TrainingRecipe {
    fn default() -> Self {
        TrainingRecipe { kind: Kind::Wordpiece, size: 30_000, lowercase: true, min_frequency: 2, alphabet: 1000 }
    }
}

/// A trained tokenizer.
pub struct Trained {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// What to know about it.
    pub notes: Vec<String>,
}

impl TrainingRecipe {
    /// Checks every value of the section `section`; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe, section: &str) -> Result<()> {
        let key = |name: &str| if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        text.within(&key("size"), self.size, 300..=1_000_000)?;
        text.within(&key("alphabet"), self.alphabet, 1..=100_000)?;
        text.require(self.min_frequency > 0, &key("min_frequency"), "must be at least 1")
    }

    /// Trains a tokenizer on `texts`. The result depends on the texts alone.
    ///
    /// # Errors
    /// There is no word in the texts; the library fails.
    pub fn train<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Trained> {
        match self.kind {
            Kind::Wordpiece => self.wordpiece(texts),
            Kind::Bpe => self.bpe(texts),
        }
    }

    fn wordpiece<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Trained> {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let normalizer = BertNormalizer::new(true, true, None, self.lowercase);
        let mut words = counted(texts, |text| {
            let mut normal = NormalizedString::from(text);
            normalizer.normalize(&mut normal).map_err(Error::new)?;
            cut(normal, &BertPreTokenizer)
        })?;
        let dropped = self.limit(&mut words);
        // Characters that stand inside of words, as pieces of their own.
        let inner: HashSet<char> = words.keys().flat_map(|word| word.chars().skip(1)).collect();
        let mut inner: Vec<char> = inner.into_iter().collect();
        inner.sort_unstable();
        let first = special.iter().map(ToString::to_string).chain(inner.iter().map(|c| format!("{CONTINUED}{c}")));
        let trainer = BpeTrainer::builder().continuing_subword_prefix(CONTINUED.to_string());
        let bpe = self.merged(trainer, first.collect(), &words)?;
        let vocabulary: AHashMap<String, u32> = bpe.get_vocab().into_iter().collect();
        let model = WordPiece::builder().vocab(vocabulary).unk_token("[UNK]".to_string()).build().map_err(Error::new)?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_normalizer(Some(normalizer)).map_err(Error::new)?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
        let [cls, sep] = ["[CLS]", "[SEP]"].map(|name| (name.to_string(), tokenizer.token_to_id(name).unwrap_or_default()));
        tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
        marked(&mut tokenizer, &special)?;
        let note = (dropped > 0).then(|| {
            format!(
                "different words with characters that are not among the {} most frequent, so that they are unknown: {dropped}",
                self.alphabet
            )
        });
        Ok(Trained { tokenizer, notes: note.into_iter().collect() })
    }

    fn bpe<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Trained> {
        let special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
        let bytes = ByteLevel::new(false, true, true);
        let words = counted(texts, |text| cut(NormalizedString::from(text), &bytes))?;
        // All bytes, whether they occur or not.
        let trainer = BpeTrainer::builder().initial_alphabet(ByteLevel::alphabet().into_iter().collect());
        let bpe = self.merged(trainer, special.map(String::from).to_vec(), &words)?;
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        let [start, end] = ["<s>", "</s>"].map(|name| (name.to_string(), tokenizer.token_to_id(name).unwrap_or_default()));
        tokenizer.with_post_processor(Some(RobertaProcessing::new(end, start).add_prefix_space(false)));
        marked(&mut tokenizer, &special)?;
        Ok(Trained { tokenizer, notes: Vec::new() })
    }

    /// Removes words that have a rare character, and returns how many these were.
    fn limit(&self, words: &mut BTreeMap<String, u64>) -> usize {
        let mut counts: HashMap<char, u64> = HashMap::new();
        words.iter().for_each(|(word, count)| word.chars().for_each(|c| *counts.entry(c).or_default() += count));
        let mut all: Vec<(char, u64)> = counts.into_iter().collect();
        all.sort_unstable_by_key(|(c, count)| (std::cmp::Reverse(*count), *c));
        let kept: HashSet<char> = all.iter().take(self.alphabet).map(|(c, _)| *c).collect();
        let before = words.len();
        words.retain(|word, _| word.chars().all(|c| kept.contains(&c)));
        before - words.len()
    }

    /// The pieces of words: `first`, in this order, then single characters, then merges.
    fn merged(
        &self,
        trainer: tokenizers::models::bpe::BpeTrainerBuilder,
        first: Vec<String>,
        words: &BTreeMap<String, u64>,
    ) -> Result<BPE> {
        if words.is_empty() {
            return Err(Error::usage("a tokenizer cannot be trained: there is no word in the texts"));
        }
        let trainer = trainer
            .show_progress(false)
            .vocab_size(self.size)
            .min_frequency(self.min_frequency)
            .special_tokens(first.into_iter().map(|name| AddedToken::from(name, true)).collect())
            .build();
        let words: AHashMap<CompactString, u64> = words.iter().map(|(word, count)| (word.as_str().into(), *count)).collect();
        let mut bpe = BPE::default();
        trainer.do_train(&words, &mut bpe).map_err(Error::new)?;
        Ok(bpe)
    }
}

/// The words that `cut` finds in the texts, with their counts.
fn counted<T: AsRef<str> + Sync>(texts: &[T], cut: impl Fn(&str) -> Result<Vec<String>> + Sync) -> Result<BTreeMap<String, u64>> {
    let add = |mut all: HashMap<String, u64>, words: Vec<String>| {
        words.into_iter().for_each(|word| *all.entry(word).or_default() += 1);
        all
    };
    let parts: Vec<HashMap<String, u64>> = texts
        .par_chunks(1024)
        .map(|texts| texts.iter().try_fold(HashMap::new(), |all, text| Ok(add(all, cut(text.as_ref())?))))
        .collect::<Result<_>>()?;
    let mut all = BTreeMap::new();
    parts.into_iter().flatten().for_each(|(word, count)| *all.entry(word).or_default() += count);
    Ok(all)
}

/// The words of a text.
fn cut(text: NormalizedString, by: &impl PreTokenizer) -> Result<Vec<String>> {
    let mut text = PreTokenizedString::from(text);
    by.pre_tokenize(&mut text).map_err(Error::new)?;
    let words = text.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(words.into_iter().map(|(word, ..)| word.to_string()).collect())
}

/// Says which tokens are special: they are recognised in texts as they are.
fn marked(tokenizer: &mut Tokenizer, special: &[&str]) -> Result<()> {
    let tokens: Vec<AddedToken> = special.iter().map(|name| AddedToken::from(*name, true)).collect();
    tokenizer.add_special_tokens(tokens).map(drop).map_err(Error::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "the lower the newer the wider",
        "lower and newer, lowest and newest",
        "Wide, wider, widest: the Café is the newest",
        "a low café, a new café",
        "日本 is wide",
    ];

    fn trained(recipe: TrainingRecipe) -> Trained {
        recipe.train(&TEXTS).unwrap()
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        tokenizer.encode(text, true).unwrap().get_tokens().to_vec()
    }

    #[test]
    fn the_same_texts_give_the_same_file_on_any_number_of_threads() {
        for kind in [Kind::Wordpiece, Kind::Bpe] {
            let recipe = TrainingRecipe { kind, size: 330, ..TrainingRecipe::default() };
            let files: Vec<String> = [1, 2, 5]
                .map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| trained(recipe.clone()).tokenizer.to_string(false).unwrap())
                })
                .to_vec();
            assert!(files[0] == files[1] && files[0] == files[2], "{kind:?}");
            // The digest is the same in every process and on every machine.
            let digest = blake3::hash(files[0].as_bytes()).to_hex()[..16].to_string();
            let expected = if kind == Kind::Wordpiece { "f1ea78073fed0791" } else { "57603c9ac3c5079d" };
            assert_eq!(digest, expected, "{kind:?}");
        }
    }

    #[test]
    fn frequent_words_are_pieces_and_others_are_cut() {
        let Trained { tokenizer, notes } = trained(TrainingRecipe::default());
        assert!(notes.is_empty());
        assert_eq!(pieces(&tokenizer, "The newest"), ["[CLS]", "the", "newest", "[SEP]"]);
        assert_eq!(pieces(&tokenizer, "lowed"), ["[CLS]", "lo", "##we", "##d", "[SEP]"]);
        assert_eq!(pieces(&tokenizer, "x"), ["[CLS]", "[UNK]", "[SEP]"]);
        assert_eq!(pieces(&tokenizer, "cafe"), pieces(&tokenizer, "CAFÉ"));
        for (name, id) in [("[PAD]", 0), ("[UNK]", 1), ("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)] {
            assert_eq!(tokenizer.token_to_id(name), Some(id));
        }
        let bpe = trained(TrainingRecipe { kind: Kind::Bpe, ..TrainingRecipe::default() }).tokenizer;
        let ids = bpe.encode_fast("the 北京 x", true).unwrap();
        assert!(ids.get_ids()[0] == 0 && *ids.get_ids().last().unwrap() == 2);
        assert_eq!(bpe.decode(ids.get_ids(), true).unwrap(), "the 北京 x", "no byte is unknown");
    }

    #[test]
    fn rare_characters_are_left_out_and_counted() {
        let Trained { tokenizer, notes } = trained(TrainingRecipe { alphabet: 12, ..TrainingRecipe::default() });
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(pieces(&tokenizer, "日").contains(&"[UNK]".to_string()));
        let none: [&str; 1] = [" "];
        let error = TrainingRecipe::default().train(&none).err().unwrap().to_string();
        assert!(error.contains("no word"), "{error}");
        let text = Recipe::new("a.toml", "[tokenizer]\nsize = 3\n");
        let error = TrainingRecipe { size: 3, ..TrainingRecipe::default() }.check(&text, "tokenizer").unwrap_err().to_string();
        assert!(error.contains("tokenizer.size: ") && error.contains("a.toml:2:"), "{error}");
    }
}
