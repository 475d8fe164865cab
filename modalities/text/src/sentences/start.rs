//! What a run begins with: the network, the tokenizer and the weights, from the recipe or from the checkpoint that the run is resumed from.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use ctk_core::nn::params::MODEL;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::read_tokenizer;
use tokenizers::Tokenizer;

use super::NAME;
use super::folder::{self, Folder};
use super::learner::{DESCRIPTION, TOKENIZER};
use super::network::{Described, Network};
use super::recipe::{EncoderRecipe, SentencesRecipe, TransformerRecipe};
use super::tokenizing::Rules;
use crate::transformer::names::Family;

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

    /// The encoder at `path`, with its weights: another program's folder, on this machine or on the hub, or a run of sentences.
    ///
    /// # Errors
    /// There is neither; a damaged file.
    pub fn of(path: &Path) -> Result<Start> {
        let place = folder::local(path)?;
        let run = place.join("checkpoints").exists() || !place.is_dir() || place.join("manifest.json").is_file();
        if folder::is_folder(&place) || !run {
            let Folder { described, tensors, tokenizer, notes } = Folder::read(&place)?;
            return Ok(Start { described, tokenizer, tensors: Some(tensors), notes });
        }
        let checkpoint = Checkpoint::open(&place)?;
        let of = &checkpoint.manifest().modality;
        if of != NAME {
            return Err(Error::usage(format!("this is a run of {of}, not of {NAME}")).at(path.display()));
        }
        let tensors = Some(checkpoint.reader().tensors(MODEL)?);
        Ok(Start { tensors, ..Start::again(&checkpoint).at(path.display())? })
    }

    /// The encoder of a new run by `recipe` (as written: `text`). A tokenizer is trained on `texts`, if one has to be.
    ///
    /// # Errors
    /// A folder or a tokenizer that cannot be read, or is of another kind than the recipe says; texts without a word; a length that the
    /// network cannot read.
    pub fn new<'a>(recipe: &SentencesRecipe, text: &Recipe, texts: impl FnOnce() -> Vec<&'a str>) -> Result<Start> {
        let start = match (recipe.encoder.weights(), &recipe.tokenizer.file) {
            (Some(path), _) => Start::begun(recipe, Start::of(path)?).at(path.display())?,
            (None, Some(file)) => Start::fresh(recipe, read_tokenizer(file)?),
            (None, None) => {
                let trained = recipe.tokenizer.train.train(&texts())?;
                let mut start = Start::fresh(recipe, trained.tokenizer);
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
        Start::fresh(recipe, tokenizer).with_length(recipe, text)
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

    fn fresh(recipe: &SentencesRecipe, tokenizer: Tokenizer) -> Start {
        let vocabulary = tokenizer.get_vocab(true).values().max().map_or(0, |last| *last as usize + 1);
        let (network, rules) = match &recipe.encoder {
            EncoderRecipe::Static(of) => (Network::Table([vocabulary, of.width]), Rules::default()),
            EncoderRecipe::Transformer(of) => {
                let shape = of.shape(vocabulary);
                let rules = Rules { longest: Some(LONGEST.min(shape.longest())), special: true, ..Rules::default() };
                (Network::Transformer { family: Family::Bert, shape, pooling: of.pooling.unwrap_or_default() }, rules)
            }
        };
        Start { described: Described { network, rules, normalise: true }, tokenizer, tensors: None, notes: Vec::new() }
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
