//! An encoder of sentences as it is used: texts in, a row for each out.

use std::collections::HashMap;

use candle_core::{DType, Tensor};
use ctk_core::data::pair::HostBatch;
use ctk_core::eval::normalise;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::{Pass, Precision};
use ctk_core::nn::rows::Rows;
use ctk_core::observer::advanced;
use ctk_core::process::Stop;
use ctk_core::{Device, Result};
use tokenizers::Tokenizer;

use super::network::{Described, Network};
use super::tokenizing::Tokenizing;
use crate::tokens::{TokenEncoder, Tokens};

/// Tokens that are encoded at once: enough for products of full speed.
const AT_ONCE: usize = 8192;

/// An encoder with its tokenizer.
pub struct SentenceEncoder {
    /// From tokens to features.
    pub network: TokenEncoder,
    /// From texts to tokens.
    pub tokenizing: Tokenizing,
    /// Whether features are scaled to length 1.
    pub normalise: bool,
    /// The type in which the network computes.
    pub precision: Precision,
    /// Whether it is a static embedding.
    pub table: bool,
}

/// Features of texts.
pub struct Embedded {
    /// The features, one row after the other.
    pub rows: Vec<f32>,
    /// Texts that were longer than the encoder reads, so that their ends are missing.
    pub cut: usize,
    /// Texts that have no token.
    pub empty: usize,
}

impl Embedded {
    /// What a user should know of the rows of so many texts.
    pub fn notes(&self, texts: usize) -> Vec<String> {
        let of = |count: usize, what: &str| (count > 0).then(|| format!("{what}: {count} of {texts}"));
        let cut = of(self.cut, "texts longer than the encoder reads, so that their ends are left out");
        let empty = of(self.empty, "texts without a token, so that their rows are zeros");
        cut.into_iter().chain(empty).collect()
    }
}

impl SentenceEncoder {
    /// The encoder that `described` and its `tensors` (under ctk's names) are, on `device`.
    ///
    /// # Errors
    /// Tensors or a tokenizer that do not fit the network.
    pub fn new(
        described: &Described,
        tensors: &HashMap<String, Tensor>,
        tokenizer: Tokenizer,
        device: &Device,
    ) -> Result<SentenceEncoder> {
        let Described { network, rules, normalise } = described;
        let mut params = Params::new();
        let chain = network.encoder(params.root().sub("encoder"))?;
        params.blank(DType::F32, device)?;
        params.load_section("encoder", tensors)?;
        let tokenizing = Tokenizing::new(tokenizer, rules.clone(), network.vocabulary())?;
        Ok(SentenceEncoder {
            network: chain,
            tokenizing,
            normalise: *normalise,
            precision: Precision::F32,
            table: matches!(network, Network::Table(_)),
        })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.network.width()
    }

    /// A row for each text, in order. A text's row does not depend on the texts beside it.
    ///
    /// # Errors
    /// The tokenizer or the device fails; the process was asked to end.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Embedded> {
        self.embed_behind(None, texts)
    }

    /// The same with `prompt` before each text, in place of the usual one.
    ///
    /// # Errors
    /// As [`embed`](SentenceEncoder::embed).
    pub fn embed_behind<T: AsRef<str> + Sync>(&self, prompt: Option<&str>, texts: &[T]) -> Result<Embedded> {
        let mut all = self.unscaled(prompt, texts)?;
        if self.normalise {
            normalise(&mut all.rows, self.width());
        }
        Ok(all)
    }

    /// The same rows as the network makes them, whether or not features are scaled.
    ///
    /// # Errors
    /// As for [`embed`](SentenceEncoder::embed).
    pub fn unscaled<T: AsRef<str> + Sync>(&self, prompt: Option<&str>, texts: &[T]) -> Result<Embedded> {
        let count = texts.len();
        let mut all = Embedded { rows: Vec::with_capacity(texts.len() * self.width()), cut: 0, empty: 0 };
        // So many texts that their tokens are not in memory all at once.
        for texts in texts.chunks(AT_ONCE) {
            let tokens = self.tokenizing.cut_all_behind(prompt, texts)?;
            all.cut += tokens.iter().filter(|text| text.short).count();
            all.empty += tokens.iter().filter(|text| text.ids.is_empty()).count();
            let ids: Vec<&[u32]> = tokens.iter().map(|text| text.ids.as_slice()).collect();
            encode(&self.network, self.precision, &ids, &mut all.rows)?;
            advanced(all.rows.len() / self.width().max(1), count);
        }
        Ok(all)
    }
}

/// Appends the features that `network` computes for texts of these tokens in `precision`; they are not normalised.
///
/// # Errors
/// The device fails; the process was asked to end.
pub fn encode(network: &TokenEncoder, precision: Precision, texts: &[&[u32]], rows: &mut Vec<f32>) -> Result<()> {
    let stop = Stop::here();
    encoded(network, precision, texts, rows, || stop.check())
}

/// The same in f32, also if the process was asked to end meanwhile: for what a checkpoint needs.
///
/// # Errors
/// The device fails.
pub fn encode_all(network: &TokenEncoder, texts: &[&[u32]], rows: &mut Vec<f32>) -> Result<()> {
    encoded(network, Precision::F32, texts, rows, || Ok(()))
}

fn encoded(
    network: &TokenEncoder,
    precision: Precision,
    texts: &[&[u32]],
    rows: &mut Vec<f32>,
    check: impl Fn() -> Result<()>,
) -> Result<()> {
    let mut from = 0;
    while from < texts.len() {
        check()?;
        let (mut batch, mut count, mut to) = (Tokens::default(), 0, from);
        while to < texts.len() && (to == from || count + texts[to].len() <= AT_ONCE) {
            batch.push(texts[to]);
            count += texts[to].len();
            to += 1;
        }
        let (y, _) = network.encode(&Tokens::stack(&[&batch])?, &Rows::alone(to - from), &Pass::eval().at(precision))?;
        rows.extend(y.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
        from = to;
    }
    Ok(())
}
