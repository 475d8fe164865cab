//! How texts become the numbers of tokens that an encoder reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ctk_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokenizers::{Tokenizer, TruncationParams};

/// What an encoder asks of a tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// The largest number of tokens of a text, special tokens included; none: texts of any length.
    pub longest: Option<usize>,
    /// Whether texts are lower-cased before the tokenizer reads them.
    pub lower: bool,
    /// Whether special tokens are added, as `[CLS]` and `[SEP]`.
    pub special: bool,
    /// A token that is left out: what stands for unknown pieces.
    pub ignored: Option<u32>,
    /// What is put before every text.
    pub prompt: String,
    /// Its name, if it has one.
    pub usual: Option<String>,
    /// All prompts by name. One of them can be chosen to replace `prompt`.
    pub prompts: BTreeMap<String, String>,
}

/// A tokenizer with an encoder's own rules: texts are cut to a length, and nothing is padded, whatever the tokenizer's file says.
pub struct Tokenizing {
    tokenizer: Tokenizer,
    rules: Rules,
}

/// The tokens of one text.
pub struct Tokenised {
    /// Their numbers.
    pub ids: Vec<u32>,
    /// Whether the text was longer than the encoder reads, so that its end is missing.
    pub short: bool,
}

impl Tokenizing {
    /// `vocabulary` is the number of tokens that the encoder knows.
    ///
    /// # Errors
    /// A length that leaves no room for a text; a tokenizer with more tokens than the encoder knows.
    pub fn new(mut tokenizer: Tokenizer, rules: Rules, vocabulary: usize) -> Result<Tokenizing> {
        let truncation = rules.longest.map(|max_length| TruncationParams { max_length, ..TruncationParams::default() });
        tokenizer
            .with_padding(None)
            .with_truncation(truncation)
            .map_err(|e| Error::usage(format!("texts cannot be cut to {} tokens: {e}", rules.longest.unwrap_or_default())))?;
        let most = tokenizer.get_vocab_size(true);
        if most > vocabulary {
            let what = format!("the tokenizer has {most} tokens, and the encoder knows {vocabulary}");
            return Err(Error::usage(what).hint("the tokenizer's file and the encoder's belong to different models"));
        }
        Ok(Tokenizing { tokenizer, rules })
    }

    /// The tokens of `text`, with the encoder's usual prompt before it.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn cut(&self, text: &str) -> Result<Tokenised> {
        self.cut_behind(&self.rules.prompt, text)
    }

    /// The tokens of `text` behind `prompt`.
    fn cut_behind(&self, prompt: &str, text: &str) -> Result<Tokenised> {
        let Rules { lower, special, ignored, .. } = &self.rules;
        let mut text = Cow::Borrowed(text);
        if !prompt.is_empty() {
            text.to_mut().insert_str(0, prompt);
        }
        if *lower {
            text = text.to_lowercase().into();
        }
        let found = self.tokenizer.encode_fast(&*text, *special).map_err(|e| Error::new(format!("the tokenizer fails: {e}")))?;
        let ids = found.get_ids().iter().copied().filter(|id| Some(*id) != *ignored).collect();
        Ok(Tokenised { ids, short: !found.get_overflowing().is_empty() })
    }

    /// The tokens of many texts, in order, cut on all threads.
    ///
    /// # Errors
    /// As [`cut`](Tokenizing::cut).
    pub fn cut_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Tokenised>> {
        self.cut_all_behind(None, texts)
    }

    /// The same behind `prompt`, or the usual one.
    ///
    /// # Errors
    /// As [`cut`](Tokenizing::cut).
    pub fn cut_all_behind<T: AsRef<str> + Sync>(&self, prompt: Option<&str>, texts: &[T]) -> Result<Vec<Tokenised>> {
        let prompt = prompt.unwrap_or(&self.rules.prompt);
        texts.par_iter().map(|text| self.cut_behind(prompt, text.as_ref())).collect()
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}
