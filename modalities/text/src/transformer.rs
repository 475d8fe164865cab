//! Transformer encoders of texts: what describes one, and its layers. They are post-norm as BERT's (Devlin et al. 2019), or pre-norm as the
//! text towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023).
//!
//! [`config`] reads the description that transformers writes, [`names`] its tensors; [`towers`] does the same for CLIP and SigLIP, whose files
//! have an image tower besides.

pub mod config;
pub mod names;
#[cfg(test)]
mod tests;
pub mod towers;

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
    /// Where layers are normalised.
    pub norms: Norms,
    /// Whether a token attends to itself and to those before it alone, as in CLIP.
    pub causal: bool,
    /// The linear layer behind a text's features, if there is one.
    pub projection: Option<Projection>,
}

/// Where layers are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Embeddings, and the sum behind each sublayer: BERT's.
    After,
    /// The input of each sublayer, and the output of the last block: CLIP's and SigLIP's.
    Before,
}

/// A linear layer from a text's features to those that are compared with images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection {
    /// Values of its output.
    pub width: usize,
    /// Whether it has a bias: SigLIP's has, CLIP's has none.
    pub bias: bool,
}

impl Shape {
    /// BERT with fresh weights: heads of 64 values, an MLP of four times the width, and 512 positions.
    pub fn bert(vocabulary: usize, width: usize, layers: usize) -> Shape {
        Shape {
            vocabulary,
            width,
            layers,
            heads: (width / 64).max(1),
            inner: 4 * width,
            positions: 512,
            first_position: 0,
            types: 2,
            gelu: Gelu::Erf,
            epsilon: 1e-12,
            dropout: 0.1,
            attention_dropout: 0.1,
            norms: Norms::After,
            causal: false,
            projection: None,
        }
    }

    /// Tokens of the longest text, special tokens included.
    pub fn longest(&self) -> usize {
        self.positions - self.first_position
    }

    /// Products of numbers in a forward pass over a text of `tokens` tokens: those of the linear layers and of attention.
    pub fn products(&self, tokens: usize) -> usize {
        let (n, w) = (tokens, self.width);
        self.layers * (4 * n * w * w + 2 * n * w * self.inner + 2 * n * n * w)
    }

    /// Values of a text's features: the projection's, if there is one.
    pub fn features(&self) -> usize {
        self.projection.map_or(self.width, |projection| projection.width)
    }

    /// The layers from tokens to a row of [`features`](Shape::features) for each of them. Dropout's layers are named after the scope, in which
    /// all parameters are declared. Embeddings and their normalisation have depth 0, block k has depth k + 1.
    ///
    /// # Errors
    /// A rate of dropout that would leave nothing.
    pub fn network(&self, scope: Scope) -> Result<Vec<Layer>> {
        self.pooled(None, scope)
    }

    /// An encoder of texts with this network, whose parameters are declared in the scope.
    ///
    /// # Errors
    /// As [`network`](Shape::network).
    pub fn encoder(&self, pooling: Pooling, scope: Scope) -> Result<TokenEncoder> {
        let store = scope.gradient_store();
        Ok(TokenEncoder::new(self.pooled(Some(pooling), scope)?, self.features(), store))
    }

    /// All layers, with those of a pooling.
    fn pooled(&self, pooling: Option<Pooling>, mut scope: Scope) -> Result<Vec<Layer>> {
        let initial = Initial::of(self);
        let mut layers = self.embeddings(&initial, &mut scope)?;
        for number in 0..self.layers {
            let mut block = scope.sub(number).depth(number + 1);
            self.block(number, &initial, &mut block, &mut layers)?;
        }
        let one = match pooling {
            None => None,
            Some(Pooling::Mean) => Some(Layer::GlobalAverage),
            Some(Pooling::First) => Some(Layer::First),
            Some(Pooling::Last) => Some(Layer::Last),
        };
        let norm = (self.norms == Norms::Before).then(|| self.norm(scope.sub("final")));
        match pooling {
            Some(Pooling::Mean) => layers.extend(norm.into_iter().chain(one)),
            // Each token is normalised by itself, so the others need not be.
            _ => layers.extend(one.into_iter().chain(norm)),
        }
        if let Some(Projection { width, bias }) = self.projection {
            let (shape, init) = ([width, self.width], initial.projection);
            layers.push(Layer::Linear(Linear::new(shape, bias, ParamKind::Weight, init, scope.sub(PROJECTION))));
        }
        Ok(layers)
    }

    fn embeddings(&self, initial: &Initial, scope: &mut Scope) -> Result<Vec<Layer>> {
        let w = self.width;
        let mut layers = vec![
            Layer::Embedding(Embedding::new([self.vocabulary, w], initial.words, scope.sub("words").depth(0))),
            Layer::AddedRow(AddedRow::by_position(
                [self.positions, w],
                self.first_position,
                initial.positions,
                scope.sub("positions").depth(0),
            )),
        ];
        if self.types > 0 {
            layers.push(Layer::AddedRow(AddedRow::always([self.types, w], 0, initial.words, scope.sub("types").depth(0))));
        }
        if self.norms == Norms::After {
            layers.push(self.norm(scope.sub("norm").depth(0)));
        }
        self.dropped(&mut layers, "words".to_string())?;
        Ok(layers)
    }

    /// Attention and MLP, each with its residual connection.
    fn block(&self, number: usize, initial: &Initial, block: &mut Scope, layers: &mut Vec<Layer>) -> Result<()> {
        let linear = |shape, init, scope: Scope| Layer::Linear(Linear::new(shape, true, ParamKind::Weight, init, scope));
        let (w, inner) = (self.width, self.inner);
        let mut attention = Attention::new(self.heads);
        if self.causal {
            attention = attention.causal();
        }
        if self.attention_dropout > 0.0 {
            attention = attention.dropout(Dropout::new(format!("{number}.attention"), self.attention_dropout)?);
        }
        let mut body = vec![
            linear([3 * w, w], initial.qkv, block.sub("qkv")),
            Layer::Attention(attention),
            linear([w, w], initial.mix, block.sub("mix")),
        ];
        self.dropped(&mut body, format!("{number}.mixed"))?;
        layers.push(self.sublayer(body, ["before_attention", "mixed"], block));
        let mut body = vec![
            linear([inner, w], initial.into, block.sub("in")),
            Layer::Gelu(self.gelu),
            linear([w, inner], initial.out, block.sub("out")),
        ];
        self.dropped(&mut body, format!("{number}.done"))?;
        layers.push(self.sublayer(body, ["before_mlp", "done"], block));
        Ok(())
    }

    /// x + body(norm(x)), or norm(x + body(x)); the normalisation's name in either.
    fn sublayer(&self, body: Vec<Layer>, [before, after]: [&str; 2], block: &mut Scope) -> Layer {
        let plain = Residual::new(body, vec![]).with(Nonlinearity::None);
        Layer::Residual(match self.norms {
            Norms::Before => plain.normalise_before(vec![self.norm(block.sub(before))]),
            Norms::After => plain.normalise_after(vec![self.norm(block.sub(after))]),
        })
    }

    fn norm(&self, scope: Scope) -> Layer {
        Layer::LayerNorm(LayerNorm::new(self.width, self.epsilon, scope))
    }

    fn dropped(&self, layers: &mut Vec<Layer>, name: String) -> Result<()> {
        if self.dropout > 0.0 {
            layers.push(Layer::Dropout(Dropout::new(name, self.dropout)?));
        }
        Ok(())
    }
}

/// The name of the projection below the encoder's.
pub const PROJECTION: &str = "projection";

/// How parameters begin; biases are 0.
struct Initial {
    words: Init,
    positions: Init,
    qkv: Init,
    mix: Init,
    into: Init,
    out: Init,
    projection: Init,
}

impl Initial {
    /// BERT's, where layers are normalised after. Otherwise CLIP's (as open_clip has it) if attention is causal, and SigLIP's if not (as
    /// big_vision has it, whose biases of the MLP begin at N(0, 1e-6) instead of 0).
    fn of(shape: &Shape) -> Initial {
        let normal = |std| Init::Normal { std };
        let width = shape.width as f64;
        let by_width = normal(width.powf(-0.5));
        if shape.norms == Norms::After {
            let all = normal(0.02);
            return Initial { words: all, positions: all, qkv: all, mix: all, into: all, out: all, projection: all };
        }
        if shape.causal {
            let out = normal(width.powf(-0.5) * (2.0 * shape.layers as f64).powf(-0.5));
            return Initial {
                words: normal(0.02),
                positions: normal(0.01),
                qkv: by_width,
                mix: out,
                into: normal((2.0 * width).powf(-0.5)),
                out,
                projection: by_width,
            };
        }
        let xavier = |inputs: f64, outputs: f64| {
            let bound = (6.0 / (inputs + outputs)).sqrt();
            Init::Uniform { low: -bound, high: bound }
        };
        let (square, mlp) = (xavier(width, width), xavier(width, shape.inner as f64));
        Initial { words: by_width, positions: by_width, qkv: square, mix: square, into: mlp, out: mlp, projection: by_width }
    }
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
    /// The last token's: CLIP's end token, and the last place of SigLIP's padded texts.
    Last,
}
