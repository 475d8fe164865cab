//! Transformer encoders of texts, post-norm as BERT's (Devlin et al. 2019): what describes one, its layers, and texts as its input.
//!
//! A batch of texts is one sequence of tokens with an offset for each text; nothing is padded. [`config`] reads the description that
//! transformers writes, [`names`] its tensors.

pub mod config;
pub mod names;
#[cfg(test)]
mod tests;

use candle_core::Tensor;
use ctk_core::data::pair::HostBatch;
use ctk_core::error::Result;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::{Init, ParamKind, Scope};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::nn::tape::Tape;
use ctk_core::nn::{AddedRow, Attention, Dropout, Embedding, Gelu, Layer, LayerNorm, Linear, Nonlinearity, Residual, Sequential};

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

    /// The layers up to the last token's features. Dropout's layers are named after the scope, in which all parameters are declared.
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
            Layer::Embedding(Embedding::new([self.vocabulary, w], normal, scope.sub("words"))),
            Layer::AddedRow(AddedRow::by_position([self.positions, w], self.first_position, normal, scope.sub("positions"))),
        ];
        if self.types > 0 {
            layers.push(Layer::AddedRow(AddedRow::always([self.types, w], 0, normal, scope.sub("types"))));
        }
        layers.push(norm(scope.sub("norm")));
        dropped(&mut layers, "words".to_string())?;
        for number in 0..self.layers {
            let mut block = scope.sub(number);
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
}

/// norm(x + body(x)).
fn after(body: Vec<Layer>, norm: Layer) -> Layer {
    Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_after(vec![norm]))
}

/// How a text's features are made of its tokens'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, special tokens included.
    Mean,
    /// The first token's, `[CLS]`.
    First,
}

/// Texts as tokens of a vocabulary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    ids: Vec<u32>,
    ends: Vec<u32>,
}

impl Tokens {
    /// Appends a text.
    pub fn push(&mut self, ids: &[u32]) {
        self.ids.extend_from_slice(ids);
        self.ends.push(self.ids.len() as u32);
    }
}

/// Texts one after the other: the ids of all tokens, and the number of the first token of each text, at the end that of all.
pub struct Stacked {
    ids: Tensor,
    offsets: Vec<u32>,
}

impl HostBatch for Tokens {
    type Stacked = Stacked;

    fn stack(views: &[&Self]) -> Result<Stacked> {
        let mut offsets = vec![0];
        for view in views {
            let before = offsets[offsets.len() - 1];
            offsets.extend(view.ends.iter().map(|end| before + end));
        }
        let ids: Vec<u32> = views.iter().flat_map(|view| view.ids.iter().copied()).collect();
        let count = ids.len();
        Ok(Stacked { ids: Tensor::from_vec(ids, count, &candle_core::Device::Cpu)?, offsets })
    }
}

/// A transformer encoder of texts.
pub struct Transformer {
    network: Sequential,
    width: usize,
}

impl Transformer {
    /// Declares its parameters in the scope.
    ///
    /// # Errors
    /// As [`Shape::network`].
    pub fn new(shape: &Shape, pooling: Pooling, scope: Scope) -> Result<Transformer> {
        let store = scope.gradient_store();
        let mut layers = shape.network(scope)?;
        layers.push(match pooling {
            Pooling::Mean => Layer::GlobalAverage,
            Pooling::First => Layer::First,
        });
        Ok(Transformer { network: Sequential::new(layers, store), width: shape.width })
    }
}

impl Encoder for Transformer {
    type Views = Tokens;

    fn width(&self) -> usize {
        self.width
    }

    fn encode(&self, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.network.forward(&x.ids, &rows.clone().with_offsets(x.offsets.clone()), pass)
    }

    fn through(&self, head: &Sequential, x: &Stacked, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.network.through(head, &x.ids, &rows.clone().with_offsets(x.offsets.clone()), pass)
    }
}
