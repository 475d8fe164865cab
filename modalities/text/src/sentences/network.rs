//! The networks of encoders of sentences, and how a checkpoint describes one.

use ctk_core::nn::params::Scope;
use ctk_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::table;
use super::tokenizing::Rules;
use crate::tokens::TokenEncoder;
use crate::transformer::names::Family;
use crate::transformer::{Pooling, Shape, config};

/// The network of an encoder of sentences.
#[derive(Clone, Debug, PartialEq)]
pub enum Network {
    /// A transformer, and how a text's features are made of its tokens'.
    Transformer {
        /// Whose description and names of tensors it has in other programs.
        family: Family,
        /// Its layers.
        shape: Shape,
        /// From tokens to a text.
        pooling: Pooling,
    },
    /// A table with a row for each token, of which the mean is taken: rows, and values of a row.
    Table([usize; 2]),
}

impl Network {
    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// A rate of dropout that would leave nothing.
    pub fn encoder(&self, scope: Scope) -> Result<TokenEncoder> {
        match self {
            Network::Transformer { shape, pooling, .. } => shape.encoder(*pooling, scope),
            Network::Table(shape) => Ok(table::encoder(*shape, scope)),
        }
    }

    /// Tokens that it knows.
    pub fn vocabulary(&self) -> usize {
        match self {
            Network::Transformer { shape, .. } => shape.vocabulary,
            Network::Table([rows, _]) => *rows,
        }
    }

    /// Values of a text's features.
    pub fn width(&self) -> usize {
        match self {
            Network::Transformer { shape, .. } => shape.features(),
            Network::Table([_, width]) => *width,
        }
    }

    /// Whether it is the text tower of a model of texts and images.
    pub fn is_tower(&self) -> bool {
        matches!(self, Network::Transformer { family, .. } if family.is_tower())
    }

    /// The network in a few words.
    pub fn said(&self) -> String {
        match self {
            Network::Transformer { shape, family, .. } => {
                let what = if family.is_tower() { "a text tower" } else { "a transformer" };
                format!("{what} of {} layers of {} values", shape.layers, shape.width)
            }
            Network::Table([rows, width]) => format!("a static embedding, {rows} tokens of {width} values"),
        }
    }

    /// The largest number of tokens of a text, if there is one.
    pub fn longest(&self) -> Option<usize> {
        match self {
            Network::Transformer { shape, .. } => Some(shape.longest()),
            Network::Table(_) => None,
        }
    }
}

/// An encoder without its weights and its tokenizer, as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The network.
    pub network: Network,
    /// How texts become tokens.
    pub rules: Rules,
    /// Whether features are scaled to length 1.
    pub normalise: bool,
}

/// The form in a file. The network is described as transformers does it, in `config`, or by the size of its table.
#[derive(Serialize, Deserialize)]
struct Stored {
    config: Value,
    pooling: Option<Pooling>,
    rules: Rules,
    normalise: bool,
    /// Whether a text tower has no projection, which its description cannot say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    bare: bool,
}

impl Described {
    /// The bytes of a file.
    ///
    /// # Errors
    /// None for a network that ctk makes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (config, pooling) = match &self.network {
            Network::Transformer { family, shape, pooling } => (config::write(*family, shape), Some(*pooling)),
            Network::Table([rows, width]) => (json!({ "rows": rows, "width": width }), None),
        };
        let bare = match &self.network {
            Network::Transformer { family, shape, .. } => family.is_tower() && shape.projection.is_none(),
            Network::Table(_) => false,
        };
        let stored = Stored { config, pooling, rules: self.rules.clone(), normalise: self.normalise, bare };
        Ok(serde_json::to_vec_pretty(&stored)?)
    }

    /// The encoder that a file describes.
    ///
    /// # Errors
    /// A file of another form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Described> {
        let Stored { config, pooling, rules, normalise, bare } =
            serde_json::from_slice(bytes).map_err(|e| Error::new(format!("this does not describe an encoder: {e}")))?;
        let network = match pooling {
            Some(pooling) => {
                let (family, shape) = config::read(&config.to_string())?;
                let shape = if bare { shape.projected(None) } else { shape };
                Network::Transformer { family, shape, pooling }
            }
            None => {
                let size = |key: &str| {
                    let size = config[key].as_u64().and_then(|size| usize::try_from(size).ok());
                    size.ok_or_else(|| Error::new(format!("this does not describe an encoder: `{key}` is missing")))
                };
                Network::Table([size("rows")?, size("width")?])
            }
        };
        Ok(Described { network, rules, normalise })
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::nn::Gelu;

    use super::*;
    use crate::sentences::tokenizing::{Padding, Punctuation};
    use crate::transformer::{Norms, Projection};

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let shape = Shape {
            vocabulary: 50,
            width: 8,
            layers: 2,
            heads: 2,
            inner: 12,
            positions: 20,
            first_position: 0,
            types: 2,
            gelu: Gelu::Tanh,
            epsilon: 1e-12,
            dropout: 0.1,
            attention_dropout: 0.05,
            norms: Norms::After,
            causal: false,
            projection: None,
        };
        let projection = |bias| Some(Projection { width: 6, bias });
        let siglip = Shape { heads: 2, ..Shape::siglip(50, 8, 2) };
        let transformer = |family, shape, pooling| Network::Transformer { family, shape, pooling };
        let roberta = Shape { first_position: 2, types: 1, gelu: Gelu::Erf, ..shape.clone() };
        for network in [
            transformer(Family::Bert, shape.clone(), Pooling::Mean),
            transformer(Family::Roberta, roberta, Pooling::First),
            transformer(Family::Distilbert, Shape { types: 0, gelu: Gelu::Quick, ..shape }, Pooling::Mean),
            transformer(Family::Clip, Shape::clip(50, 64, 2), Pooling::Last),
            transformer(
                Family::Clip,
                Shape { dropout: 0.1, ..Shape::clip(50, 64, 2) }.projected(projection(false)),
                Pooling::Last,
            ),
            transformer(Family::Siglip, siglip.clone(), Pooling::Last),
            transformer(Family::Siglip, siglip.projected(projection(true)), Pooling::Mean),
            Network::Table([50, 8]),
        ] {
            let rules = Rules {
                longest: Some(16),
                special: true,
                prompt: "query: ".to_string(),
                punctuation: Punctuation::Spaced,
                end: Some(3),
                padding: Some(Padding { to: 20, id: 1 }),
                ..Rules::default()
            };
            let described = Described { network, rules, normalise: true };
            assert_eq!(Described::from_bytes(&described.to_bytes().unwrap()).unwrap(), described);
        }
        for wrong in ["", "{}", r#"{"config": {}, "pooling": null, "rules": {}, "normalise": true}"#] {
            assert!(Described::from_bytes(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
