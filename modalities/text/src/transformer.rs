//! Transformer encoders of texts, post-norm as BERT's (Devlin et al. 2019): what describes one, and its layers.
//!
//! [`config`] reads the description that transformers writes, [`names`] its tensors.

pub mod config;
pub mod names;
#[cfg(test)]
mod tests;

use ctk_core::error::Result;
use ctk_core::nn::params::{Init, ParamKind, Scope};
use ctk_core::nn::{AddedRow, Attention, Dropout, Embedding, Gelu, Layer, LayerNorm, Linear, Nonlinearity, Residual};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tokens::TokenEncoder;

/// What a transformer encoder is.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Values of a token.
    pub width: usize,
    /// Blocks of attention and MLP.
    pub layers: usize,
    /// Heads, which divide the width.
    pub heads: usize,
    /// Values between the two products of the MLP.
    pub inner: usize,
    /// Rows of the table of positions.
    pub positions: usize,
    /// The row of a text's first token: 0, and 2 in RoBERTa.
    pub first_position: usize,
    /// Rows of the table of token types (BERT's segments); every token is of type 0. 0 if there is no such table, as in DistilBERT.
    pub types: usize,
    /// The form of the MLP's GELU.
    pub gelu: Gelu,
    /// What is added to the variance of layer normalisations.
    pub epsilon: f64,
    /// How many of the values behind embeddings, attention and MLP are dropped in training.
    pub dropout: f64,
    /// How many of the probabilities of attention are dropped in training.
    pub attention_dropout: f64,
}

impl Shape {
    /// Tokens of the longest text, special tokens included.
    pub fn longest(&self) -> usize {
        self.positions - self.first_position
    }

    /// Products of numbers in a forward pass over a text of `tokens` tokens: those of the linear layers and of attention.
    pub fn products(&self, tokens: usize) -> usize {
        let (n, w) = (tokens, self.width);
        self.layers * (4 * n * w * w + 2 * n * w * self.inner + 2 * n * n * w)
    }

    /// The layers up to the last token's features. Dropout's layers are named after the scope, in which all parameters are declared.
    /// Embeddings and their normalisation have depth 0, block k has depth k + 1.
    ///
    /// # Errors
    /// A rate of dropout that would leave nothing.
    pub fn network(&self, mut scope: Scope) -> Result<Vec<Layer>> {
        let normal = Init::Normal { std: 0.02 };
        let linear = |shape, scope: Scope| Layer::Linear(Linear::new(shape, true, ParamKind::Weight, normal, scope));
        let norm = |scope: Scope| Layer::LayerNorm(LayerNorm::new(self.width, self.epsilon, scope));
        let dropped = |layers: &mut Vec<Layer>, name: String| -> Result<()> {
            if self.dropout > 0.0 {
                layers.push(Layer::Dropout(Dropout::new(name, self.dropout)?));
            }
            Ok(())
        };
        let w = self.width;
        let mut layers = vec![
            Layer::Embedding(Embedding::new([self.vocabulary, w], normal, scope.sub("words").depth(0))),
            Layer::AddedRow(AddedRow::by_position(
                [self.positions, w],
                self.first_position,
                normal,
                scope.sub("positions").depth(0),
            )),
        ];
        if self.types > 0 {
            layers.push(Layer::AddedRow(AddedRow::always([self.types, w], 0, normal, scope.sub("types").depth(0))));
        }
        layers.push(norm(scope.sub("norm").depth(0)));
        dropped(&mut layers, "words".to_string())?;
        for number in 0..self.layers {
            let mut block = scope.sub(number).depth(number + 1);
            let mut attention = Attention::new(self.heads);
            if self.attention_dropout > 0.0 {
                attention = attention.dropout(Dropout::new(format!("{number}.attention"), self.attention_dropout)?);
            }
            let mut body =
                vec![linear([3 * w, w], block.sub("qkv")), Layer::Attention(attention), linear([w, w], block.sub("mix"))];
            dropped(&mut body, format!("{number}.mixed"))?;
            layers.push(after(body, norm(block.sub("mixed"))));
            let mut body =
                vec![linear([self.inner, w], block.sub("in")), Layer::Gelu(self.gelu), linear([w, self.inner], block.sub("out"))];
            dropped(&mut body, format!("{number}.done"))?;
            layers.push(after(body, norm(block.sub("done"))));
        }
        Ok(layers)
    }

    /// An encoder of texts with this network, whose parameters are declared in the scope.
    ///
    /// # Errors
    /// As [`network`](Shape::network).
    pub fn encoder(&self, pooling: Pooling, scope: Scope) -> Result<TokenEncoder> {
        let store = scope.gradient_store();
        let mut layers = self.network(scope)?;
        layers.push(match pooling {
            Pooling::Mean => Layer::GlobalAverage,
            Pooling::First => Layer::First,
        });
        Ok(TokenEncoder::new(layers, self.width, store))
    }
}

/// norm(x + body(x)).
fn after(body: Vec<Layer>, norm: Layer) -> Layer {
    Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_after(vec![norm]))
}

/// How a text's features are made of its tokens'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Their mean, special tokens included.
    #[default]
    Mean,
    /// The first token's, `[CLS]`.
    #[serde(rename = "cls")]
    First,
}
