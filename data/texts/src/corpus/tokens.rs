//! What a word is: normal form, case, and where text is cut.

use std::borrow::Cow;
use std::path::Path;

use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer};
use unicode_normalization::UnicodeNormalization;

use super::Reading;

/// What is done about bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Invalid {
    /// Stop, naming the file and the byte.
    #[default]
    Refuse,
    /// Put U+FFFD in their place, and say so.
    Replace,
}

/// Unicode normal forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// Text stays as it is.
    #[default]
    None,
    /// Canonical composition: é is one character however it was typed.
    Nfc,
    /// Compatibility composition: also ﬁ → fi, ² → 2.
    Nfkc,
}

/// What cuts text into words.
#[derive(Debug, Default)]
pub enum Tokens {
    /// White space alone.
    #[default]
    Whitespace,
    /// Runs of word characters, and runs of other visible ones (`tokenizers`' `Whitespace`, `\w+|[^\w\s]+`).
    Words,
    /// White space and every punctuation character (`tokenizers`' `BertPreTokenizer`).
    Bert,
    /// A whole tokenizer from a `tokenizers` JSON file: its pieces are the words.
    File(Box<Tokenizer>),
}

impl Tokens {
    /// `whitespace`, `words`, `bert`, or the path of a `tokenizers` JSON file.
    pub fn named(name: &str) -> Result<Tokens> {
        Ok(match name {
            "whitespace" => Tokens::Whitespace,
            "words" => Tokens::Words,
            "bert" => Tokens::Bert,
            file if file.ends_with(".json") => {
                let tokenizer = Tokenizer::from_file(Path::new(file))
                    .map_err(|e| Error::usage(format!("not a tokenizers file: {e}")).at(file))?;
                Tokens::File(Box::new(tokenizer))
            }
            other => {
                return Err(Error::usage(format!("`{other}` is not a way to cut text"))
                    .hint("data.tokens is \"whitespace\", \"words\", \"bert\", or the path of a tokenizers .json file"));
            }
        })
    }
}

impl Reading {
    /// Calls `take` for each word of `line`. No word holds white space.
    pub fn words(&self, line: &str, mut take: impl FnMut(&str)) -> Result<()> {
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
