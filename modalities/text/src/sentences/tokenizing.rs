//! How texts become the numbers of tokens that an encoder reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ctk_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
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
    /// What becomes of ASCII punctuation before the tokenizer reads a text.
    #[serde(skip_serializing_if = "is_default")]
    pub punctuation: Punctuation,
    /// The token that ends a text, behind which nothing is read: CLIP's.
    #[serde(skip_serializing_if = "is_default")]
    pub end: Option<u32>,
    /// What fills up shorter texts: SigLIP's, which read padding as they read words.
    #[serde(skip_serializing_if = "is_default")]
    pub padding: Option<Padding>,
}

/// What becomes of ASCII punctuation. Where it is removed, white space becomes single spaces, none at the ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Punctuation {
    /// It stays.
    #[default]
    Kept,
    /// It is removed, as by SigLIP's tokenizer in transformers.
    Removed,
    /// The same, but `_` becomes a space: open_clip's.
    Spaced,
}

/// Texts are filled up to a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Padding {
    /// Tokens of every text.
    pub to: usize,
    /// The token that fills it up.
    pub id: u32,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Puts steps before the normalisation of a tokenizer's file.
pub(super) fn before(file: &mut Value, mut steps: Vec<Value>) {
    match file["normalizer"].take() {
        Value::Null => {}
        other => steps.push(other),
    }
    file["normalizer"] = if steps.is_empty() { Value::Null } else { json!({ "type": "Sequence", "normalizers": steps }) };
}

impl Rules {
    /// A text as the tokenizer gets it, the prompt included.
    fn prepared<'a>(&self, prompt: &str, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        if !prompt.is_empty() {
            text.to_mut().insert_str(0, prompt);
        }
        if self.lower {
            text = text.to_lowercase().into();
        }
        if self.punctuation != Punctuation::Kept {
            let spaced = self.punctuation == Punctuation::Spaced;
            let kept = text.chars().map(|c| if spaced && c == '_' { ' ' } else { c });
            let kept: String = kept.filter(|c| !c.is_ascii_punctuation()).collect();
            text = kept.split_whitespace().collect::<Vec<_>>().join(" ").into();
        }
        text
    }

    /// The steps of a tokenizer's file that do what is done here before the tokenizer reads a text, prompts apart.
    pub(super) fn steps(&self) -> Vec<Value> {
        let replace = |pattern: &str, by: &str| json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": by });
        let mut steps = Vec::new();
        if self.lower {
            steps.push(json!({ "type": "Lowercase" }));
        }
        if self.punctuation == Punctuation::Spaced {
            steps.push(replace("_", " "));
        }
        if self.punctuation != Punctuation::Kept {
            steps.push(replace(r"[!-/:-@\[-`{-~]", ""));
            steps.push(replace(r"\s+", " "));
            steps.push(json!({ "type": "Strip", "strip_left": true, "strip_right": true }));
        }
        steps
    }

    /// The tokenizer with these steps in its file.
    ///
    /// # Errors
    /// A tokenizer that cannot be written.
    pub(super) fn baked(&self, tokenizer: &Tokenizer) -> Result<Tokenizer> {
        let steps = self.steps();
        if steps.is_empty() {
            return Ok(tokenizer.clone());
        }
        let mut file: Value = serde_json::from_str(&tokenizer.to_string(false).map_err(Error::new)?)?;
        before(&mut file, steps);
        Tokenizer::from_bytes(file.to_string()).map_err(|e| Error::new(format!("the tokenizer's file cannot be changed: {e}")))
    }

    /// The tokens as the network gets them.
    pub(super) fn finished(&self, mut ids: Vec<u32>) -> Vec<u32> {
        if let Some(at) = self.end.and_then(|end| ids.iter().position(|id| *id == end)) {
            ids.truncate(at + 1);
        }
        if let Some(Padding { to, id }) = self.padding {
            ids.resize(ids.len().max(to), id);
        }
        ids
    }
}

/// A tokenizer with an encoder's own rules: texts are cut to a length, and nothing is padded but by [`Rules::padding`], whatever the tokenizer's
/// file says.
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
        if let Some(Padding { id, .. }) = rules.padding.filter(|padding| padding.id as usize >= vocabulary) {
            return Err(Error::usage(format!("texts are filled up with the token {id}, and the encoder knows {vocabulary}")));
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
        let Rules { special, ignored, .. } = &self.rules;
        let text = self.rules.prepared(prompt, text);
        let found = self.tokenizer.encode_fast(&*text, *special).map_err(|e| Error::new(format!("the tokenizer fails: {e}")))?;
        let ids = found.get_ids().iter().copied().filter(|id| Some(*id) != *ignored).collect();
        let ids = self.rules.finished(ids);
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
