//! How text is cut into words: normal form, case, tokenization, phrases.

use std::borrow::Cow;
use std::path::Path;

use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};
use unicode_normalization::UnicodeNormalization;

use super::{Reading, tokenizer};

/// What to do about bytes that are not characters of the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Invalid {
    /// Stop with an error that names the file and the byte.
    #[default]
    Refuse,
    /// Replace them by U+FFFD, with a note.
    Replace,
}

/// Unicode normal forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Text stays as it is.
    #[default]
    None,
    /// Canonical composition: é is one character, however it was typed.
    Nfc,
    /// Compatibility composition: also ﬁ → fi, ² → 2.
    Nfkc,
}

/// How text is cut into words.
#[derive(Debug, Default)]
pub enum Tokens {
    /// At white space only.
    #[default]
    Whitespace,
    /// Runs of word characters, and runs of other visible ones (`tokenizers`' `Whitespace`, `\w+|[^\w\s]+`).
    Words,
    /// White space and every punctuation character (`tokenizers`' `BertPreTokenizer`).
    Bert,
    /// By a whole tokenizer from a `tokenizers` JSON file: its tokens are the words.
    File(Box<Tokenizer>),
}

impl Tokens {
    /// Parses `whitespace`, `words`, `bert`, or the path of a `tokenizers` JSON file.
    ///
    /// # Errors
    /// Another name; a file that cannot be read or is not a tokenizer.
    pub fn named(name: &str) -> Result<Tokens> {
        Ok(Tokens::with_notes(name)?.0)
    }

    /// [`named`](Self::named), with notes about settings of the file that are not applied.
    ///
    /// # Errors
    /// As for [`named`](Self::named).
    pub fn with_notes(name: &str) -> Result<(Tokens, Vec<String>)> {
        Ok(match name {
            "whitespace" => (Tokens::Whitespace, Vec::new()),
            "words" => (Tokens::Words, Vec::new()),
            "bert" => (Tokens::Bert, Vec::new()),
            file if file.ends_with(".json") => {
                let (tokenizer, notes) = plain(tokenizer::read(Path::new(file))?, file)?;
                (Tokens::File(Box::new(tokenizer)), notes)
            }
            other => {
                return Err(Error::usage(format!("`{other}` is not a way to cut text"))
                    .hint("data.tokens is \"whitespace\", \"words\", \"bert\", or the path of a tokenizers .json file"));
            }
        })
    }
}

/// A tokenizer that returns all tokens of a text and nothing else, and always the same ones: the file's truncation, padding and dropout are
/// not applied. Also returns a note about that.
fn plain(mut tokenizer: Tokenizer, file: &str) -> Result<(Tokenizer, Vec<String>)> {
    let mut left_out = Vec::new();
    if let Some(truncation) = tokenizer.get_truncation() {
        left_out.push(format!("truncation (after {} pieces)", truncation.max_length));
        tokenizer.with_truncation(None).map_err(|e| Error::new(e).at(file))?;
    }
    if let Some(padding) = tokenizer.get_padding() {
        left_out.push(format!("padding (with `{}`)", padding.pad_token));
        tokenizer.with_padding(None);
    }
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && let Some(dropout) = model.dropout
    {
        left_out.push(format!("dropout (of {dropout} of the merges, by chance)"));
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    let note =
        (!left_out.is_empty()).then(|| format!("{file}: left out, so that every text is read whole: {}", left_out.join(", ")));
    Ok((tokenizer, note.into_iter().collect()))
}

impl Reading {
    /// Calls `take` for each word of `line`, phrases included. No word has white space in it.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn words(&self, line: &str, mut take: impl FnMut(&str)) -> Result<()> {
        if self.phrases.is_empty() {
            return self.cut(line, take);
        }
        let mut words = Vec::new();
        self.cut(line, |word| words.push(word.to_string()))?;
        self.phrases.join(words).iter().for_each(|word| take(word));
        Ok(())
    }

    /// The spelling of `name` in the text's own words, if it is one word.
    pub fn spelling(&self, name: &str) -> Option<String> {
        let mut words = Vec::new();
        self.words(name, |word| words.push(word.to_string())).ok()?;
        words.pop().filter(|_| words.is_empty())
    }

    fn cut(&self, line: &str, mut take: impl FnMut(&str)) -> Result<()> {
        let line = self.prepare(line);
        match &self.tokens {
            Tokens::Whitespace => line.split_whitespace().for_each(take),
            Tokens::Words => pieces(&Whitespace {}, &line, take)?,
            Tokens::Bert => pieces(&BertPreTokenizer, &line, take)?,
            Tokens::File(tokenizer) => {
                let encoding = tokenizer.encode(line.trim_end_matches(['\n', '\r']), false).map_err(Error::new)?;
                encoding.get_tokens().iter().flat_map(|piece| piece.split_whitespace()).for_each(&mut take);
            }
        }
        Ok(())
    }

    fn prepare<'a>(&self, line: &'a str) -> Cow<'a, str> {
        if line.is_ascii() {
            // ASCII is its own normal form.
            let change = self.lowercase && line.bytes().any(|b| b.is_ascii_uppercase());
            return if change { line.to_ascii_lowercase().into() } else { line.into() };
        }
        let normal: Cow<str> = match self.normalise {
            Normalise::None => line.into(),
            Normalise::Nfc => line.nfc().collect::<String>().into(),
            Normalise::Nfkc => line.nfkc().collect::<String>().into(),
        };
        if self.lowercase { normal.to_lowercase().into() } else { normal }
    }
}

fn pieces(pre: &impl PreTokenizer, line: &str, mut take: impl FnMut(&str)) -> Result<()> {
    let mut text = PreTokenizedString::from(line);
    pre.pre_tokenize(&mut text).map_err(Error::new)?;
    for (piece, ..) in text.get_splits(OffsetReferential::Original, OffsetType::None) {
        piece.split_whitespace().for_each(&mut take);
    }
    Ok(())
}
