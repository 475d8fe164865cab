//! What a run begins with: the network, the tokenizer and the weights, from the recipe or from the checkpoint that the run is resumed from.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::modality::{Modality as _, Model, Query};
use ctk_core::nn::params::MODEL;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result};
use ctk_texts::corpus::{Reading, read_tokenizer};
use ctk_texts::pairs::recipe::PromptsRecipe;
use tokenizers::Tokenizer;

use super::distill::recipe::Frequencies;
use super::distill::rows::{by_frequency, frequencies};
use super::finetune::recipe::FinetuneRecipe;
use super::folder::Folder;
use super::learner::{DESCRIPTION, TOKENIZER};
use super::network::{Described, Network};
use super::origin::Origin;
use super::prompts;
use super::recipe::{EncoderRecipe, Form, SentencesRecipe, StaticRecipe, TransformerRecipe};
use super::table;
use super::tokenizing::{Rules, Tokenizing};
use super::towers;
use crate::static_embedding;
use crate::transformer::names::Family;
use crate::word2vec::Word2Vec;
use crate::word2vec::model::Vectors;

/// Tokens of a text that a new transformer reads.
const LONGEST: usize = 128;

/// An encoder before training.
pub struct Start {
    /// Everything but weights and tokenizer.
    pub described: Described,
    /// The tokenizer as in a file.
    pub tokenizer: Tokenizer,
    /// Weights to begin with under ctk's names; none: fresh ones.
    pub tensors: Option<HashMap<String, Tensor>>,
    /// What was chosen or guessed, to be said.
    pub notes: Vec<String>,
}

impl Start {
    /// The encoder of a run that is resumed from `checkpoint`, which also has the weights.
    ///
    /// # Errors
    /// A damaged file.
    pub fn again(checkpoint: &Checkpoint) -> Result<Start> {
        let reader = checkpoint.reader();
        let described = Described::from_bytes(&reader.bytes(DESCRIPTION)?).at(DESCRIPTION)?;
        let tokenizer = Tokenizer::from_bytes(reader.bytes(TOKENIZER)?);
        let tokenizer = tokenizer.map_err(|e| Error::new(format!("not a tokenizers file: {e}")).at(TOKENIZER))?;
        Ok(Start { described, tokenizer, tensors: None, notes: Vec::new() })
    }

    /// The encoder at `path`, with its weights: another program's folder, on this machine or on the hub, a run of sentences, or word
    /// vectors (a run or a file).
    ///
    /// # Errors
    /// There is none of these; a damaged file.
    pub fn of(path: &Path) -> Result<Start> {
        match Origin::of(path)? {
            Origin::Folder(folder) => {
                let Folder { described, tensors, tokenizer, notes } = Folder::read(&folder)?;
                Ok(Start { described, tokenizer, tensors: Some(tensors), notes })
            }
            Origin::Run(checkpoint) => {
                let tensors = Some(checkpoint.reader().tensors(MODEL)?);
                Ok(Start { tensors, ..Start::again(&checkpoint).at(path.display())? })
            }
            Origin::Vectors(file) => {
                let model = Word2Vec.open_file(&file, &|| Ok(Device::Cpu))?;
                let model = model.ok_or_else(|| Error::usage("this is no file of word vectors").at(path.display()))?;
                Start::of_words(&*model, Reading::default()).at(path.display())
            }
            Origin::Words(checkpoint) => {
                let model = Vectors::open(&checkpoint)?;
                Start::of_words(&model, model.reading()?).at(path.display())
            }
        }
    }

    /// A static embedding of word vectors; `reading` is how their texts were cut into words.
    fn of_words(model: &dyn Model, reading: Reading) -> Result<Start> {
        let words = model.table(&Query::default())?;
        let (tokenizer, rows, mut notes) = static_embedding::table(&*words, reading)?;
        notes.extend_from_slice(model.notes());
        let network = Network::Table([rows.dim(0)?, rows.dim(1)?]);
        let described = Described { network, rules: Rules::default(), normalise: true };
        let tensors = Some(HashMap::from([(table::ROWS.to_string(), rows)]));
        Ok(Start { described, tokenizer, tensors, notes })
    }

    /// The encoder that a task begins with, or the recipe's own. `texts` are all training texts.
    ///
    /// # Errors
    /// As for [`new`](Start::new).
    pub(super) fn tuned<'a>(
        recipe: &SentencesRecipe,
        text: &Recipe,
        task: &FinetuneRecipe,
        texts: impl FnOnce() -> Vec<&'a str>,
    ) -> Result<Start> {
        let Some(from) = &task.from else { return Start::new(recipe, text, texts) };
        let start = Start::of(from).at(from.display())?;
        let tensors = start.tensors.filter(|_| !task.scratch);
        Start { tensors, ..start }.with_length(recipe, text)
    }

    /// The encoder of a new run by `recipe` (as written: `text`). A tokenizer is trained on `texts`, if one has to be.
    ///
    /// # Errors
    /// A folder or a tokenizer that cannot be read, or is of another kind than the recipe says; texts without a word; a length that the
    /// network cannot read.
    pub fn new<'a>(recipe: &SentencesRecipe, text: &Recipe, texts: impl FnOnce() -> Vec<&'a str>) -> Result<Start> {
        let start = match (recipe.encoder.weights(), &recipe.tokenizer.file) {
            (Some(path), _) => {
                let start = Start::begun(recipe, Start::of(path)?).at(path.display())?;
                match recipe.encoder {
                    EncoderRecipe::Static(StaticRecipe { sif: Some(a), .. }) => start.weighted(a, &texts()).at(path.display())?,
                    _ => start,
                }
            }
            (None, Some(file)) => Start::fresh(recipe, read_tokenizer(file)?).at(file.display())?,
            (None, None) => {
                let trained = recipe.tokenizer.train.train(&texts())?;
                let mut start = Start::fresh(recipe, trained.tokenizer)?;
                let pieces = start.described.network.vocabulary();
                start.notes = trained.notes;
                start.notes.push(format!("a tokenizer was trained on the texts: {pieces} pieces"));
                start
            }
        };
        start.with_length(recipe, text)
    }

    /// A new encoder by `recipe` with this tokenizer.
    ///
    /// # Errors
    /// A length that the network cannot read.
    pub fn with(recipe: &SentencesRecipe, text: &Recipe, tokenizer: Tokenizer) -> Result<Start> {
        Start::fresh(recipe, tokenizer)?.with_length(recipe, text)
    }

    /// The same, which cuts texts to the length that the recipe says.
    ///
    /// # Errors
    /// A length that the network cannot read, with the recipe's line.
    pub(super) fn with_length(self, recipe: &SentencesRecipe, text: &Recipe) -> Result<Start> {
        let mut start = self;
        let most = start.described.network.longest();
        let longest = &mut start.described.rules.longest;
        *longest = recipe.tokenizer.longest.or(*longest);
        if let (Some(longest), Some(most)) = (*longest, most) {
            let what = format!("is more than the {most} tokens that the network reads");
            text.require(longest <= most, "tokenizer.longest", what)?;
        }
        Ok(start)
    }

    /// An encoder with weights, changed as the recipe says.
    fn begun(recipe: &SentencesRecipe, mut start: Start) -> Result<Start> {
        match (&recipe.encoder, &mut start.described.network) {
            (EncoderRecipe::Transformer(of), Network::Transformer { shape, pooling, .. }) => {
                let TransformerRecipe { dropout, attention_dropout, .. } = *of;
                shape.dropout = dropout.unwrap_or(shape.dropout);
                shape.attention_dropout = attention_dropout.unwrap_or(shape.attention_dropout);
                *pooling = of.pooling.unwrap_or(*pooling);
            }
            (EncoderRecipe::Static(_), Network::Table(_)) => {}
            (EncoderRecipe::Transformer(_), _) => {
                return Err(Error::usage("this is a static embedding, and the recipe asks for a transformer")
                    .hint("write the weights into [encoder.static]"));
            }
            (EncoderRecipe::Static(_), _) => {
                return Err(Error::usage("this is a transformer, and the recipe asks for a static embedding")
                    .hint("write the weights into [encoder.transformer]"));
            }
        }
        Ok(start)
    }

    /// A static embedding with rows that are weighted by their tokens' frequencies in `texts`: [`StaticRecipe::sif`].
    fn weighted(mut self, a: f64, texts: &[&str]) -> Result<Start> {
        let Described { network, rules, .. } = &self.described;
        let tokenizing = Tokenizing::new(self.tokenizer.clone(), rules.clone(), network.vocabulary())?;
        let tokens = tokenizing.cut_all(texts)?;
        let tokens = tokens.iter().map(|text| &text.ids[..]);
        let table = self.tensors.as_mut().and_then(|tensors| tensors.get_mut(table::ROWS));
        if let (Some(rows), Some(of)) = (table, frequencies(Frequencies::Counts, network.vocabulary(), tokens)) {
            *rows = by_frequency(rows, &of, a)?;
        }
        Ok(self)
    }

    fn fresh(recipe: &SentencesRecipe, tokenizer: Tokenizer) -> Result<Start> {
        let vocabulary = tokenizer.get_vocab(true).values().max().map_or(0, |last| *last as usize + 1);
        let (network, rules) = match &recipe.encoder {
            EncoderRecipe::Static(of) => (Network::Table([vocabulary, of.width]), Rules::default()),
            EncoderRecipe::Transformer(of) => {
                let shape = of.shape(vocabulary);
                let (family, end) = match of.form {
                    Form::Bert => (Family::Bert, None),
                    Form::Clip => (Family::Clip, Some(towers::last(&tokenizer)?)),
                };
                let longest = Some(LONGEST.min(shape.longest()));
                let rules = Rules { longest, special: true, end, ..Rules::default() };
                (Network::Transformer { family, shape, pooling: of.pooling() }, rules)
            }
        };
        Ok(Start { described: Described { network, rules, normalise: true }, tokenizer, tensors: None, notes: Vec::new() })
    }

    /// The same encoder, trained with these prompts.
    pub(super) fn prompted(mut self, by: &PromptsRecipe) -> Start {
        if let Some(replaced) = prompts::trained(&mut self.described.rules, by) {
            self.notes.push(format!("the encoder's default prompt, `{replaced}`, is replaced by data.prompts"));
        }
        self
    }

    /// The files of a checkpoint that describe the encoder.
    ///
    /// # Errors
    /// A tokenizer that cannot be written.
    pub fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let tokenizer = self.tokenizer.to_string(false).map_err(Error::new)?;
        Ok(vec![(TOKENIZER, tokenizer.into_bytes()), (DESCRIPTION, self.described.to_bytes()?)])
    }
}
