//! Reads `config.json`, in which transformers describes a network. What it does not say, or says of another kind of network, is refused by
//! name: neither shows in the names or shapes of tensors.

use ctk_core::error::{Error, Result};
use ctk_core::nn::Gelu;
use serde_json::{Value, json};

use super::names::Family;
use super::{Norms, Shape, towers};

/// The kind of network and its shape.
///
/// # Errors
/// Not JSON; a kind of network, of positions or of activation that is not read; a figure that is missing or makes no sense.
pub fn read(text: &str) -> Result<(Family, Shape)> {
    let config: Value = serde_json::from_str(text).map_err(|e| Error::usage(format!("config.json is no JSON: {e}")))?;
    let of = Config(&config);
    let kind = of.text("model_type")?;
    if towers::config::describes(&config) {
        return towers::config::read(&config);
    }
    let family = match kind {
        "bert" => Family::Bert,
        "roberta" | "xlm-roberta" | "camembert" => Family::Roberta,
        "distilbert" => Family::Distilbert,
        other => {
            return Err(Error::usage(format!("config.json describes a network of the kind `{other}`, which ctk does not read"))
                .hint("ctk reads bert (MiniLM is one), roberta, xlm-roberta, camembert, distilbert, clip and siglip"));
        }
    };
    of.absolute()?;
    let distil = family == Family::Distilbert;
    let name = |common: &'static str, distilbert: &'static str| if distil { distilbert } else { common };
    let shape = Shape {
        vocabulary: of.count("vocab_size")?,
        width: of.count(name("hidden_size", "dim"))?,
        layers: of.count(name("num_hidden_layers", "n_layers"))?,
        heads: of.count(name("num_attention_heads", "n_heads"))?,
        inner: of.count(name("intermediate_size", "hidden_dim"))?,
        positions: of.count("max_position_embeddings")?,
        // After the row of the padding token.
        first_position: if family == Family::Roberta { of.number("pad_token_id")? as usize + 1 } else { 0 },
        types: if distil { 0 } else { of.count("type_vocab_size")? },
        gelu: of.gelu(name("hidden_act", "activation"))?,
        // DistilBERT's is fixed.
        epsilon: if distil { 1e-12 } else { of.number("layer_norm_eps")? },
        dropout: of.rate(name("hidden_dropout_prob", "dropout"))?,
        attention_dropout: of.rate(name("attention_probs_dropout_prob", "attention_dropout"))?,
        norms: Norms::After,
        causal: false,
        projection: None,
    };
    divided("config.json", &shape)?;
    if shape.positions <= shape.first_position {
        return Err(Error::usage(format!("config.json has {} positions, of which the first are not used", shape.positions)));
    }
    Ok((family, shape))
}

/// The description of a network as transformers writes it: [`read`] gives the same network again.
pub fn write(family: Family, shape: &Shape) -> Value {
    let Shape { vocabulary, width, layers, heads, inner, positions, first_position, types, gelu, epsilon, .. } = shape;
    let (dropout, attention_dropout) = (shape.dropout, shape.attention_dropout);
    let gelu = match gelu {
        Gelu::Erf => "gelu",
        Gelu::Tanh => "gelu_new",
        Gelu::Quick => "quick_gelu",
    };
    match family {
        Family::Clip | Family::Siglip => towers::config::write(family, shape),
        Family::Distilbert => json!({
            "model_type": "distilbert", "architectures": ["DistilBertModel"], "vocab_size": vocabulary, "dim": width,
            "n_layers": layers, "n_heads": heads, "hidden_dim": inner, "max_position_embeddings": positions, "activation": gelu,
            "dropout": dropout, "attention_dropout": attention_dropout, "pad_token_id": 0,
        }),
        Family::Bert | Family::Roberta => {
            let (kind, architecture) = match family {
                Family::Roberta => ("roberta", "RobertaModel"),
                _ => ("bert", "BertModel"),
            };
            json!({
                "model_type": kind, "architectures": [architecture], "vocab_size": vocabulary, "hidden_size": width,
                "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": inner,
                "max_position_embeddings": positions, "type_vocab_size": types, "hidden_act": gelu, "layer_norm_eps": epsilon,
                "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": attention_dropout,
                "pad_token_id": first_position.saturating_sub(1),
            })
        }
    }
}

/// Refuses heads that do not divide the width; `file` describes them.
pub(super) fn divided(file: &str, shape: &Shape) -> Result<()> {
    match shape.width.is_multiple_of(shape.heads) {
        true => Ok(()),
        false => Err(Error::usage(format!("{file} divides a width of {} into {} heads", shape.width, shape.heads))),
    }
}

/// A form of the GELU by its name in transformers.
pub(super) fn gelu(name: &str) -> Result<Gelu> {
    match name {
        "gelu" => Ok(Gelu::Erf),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Gelu::Tanh),
        "quick_gelu" => Ok(Gelu::Quick),
        other => Err(Error::usage(format!("config.json asks for the activation `{other}`, which ctk does not have"))
            .hint("ctk has gelu, gelu_new, gelu_fast, gelu_pytorch_tanh and quick_gelu")),
    }
}

struct Config<'a>(&'a Value);

impl Config<'_> {
    fn text(&self, key: &str) -> Result<&str> {
        self.0[key].as_str().ok_or_else(|| missing(key))
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.0[key].as_f64().filter(|v| *v >= 0.0).ok_or_else(|| missing(key))
    }

    fn count(&self, key: &str) -> Result<usize> {
        let count = self.0[key].as_u64().filter(|v| *v > 0).ok_or_else(|| missing(key))?;
        usize::try_from(count).ok().filter(|count| *count < 1 << 31).ok_or_else(|| missing(key))
    }

    fn rate(&self, key: &str) -> Result<f64> {
        self.number(key).and_then(|rate| if rate < 1.0 { Ok(rate) } else { Err(missing(key)) })
    }

    fn gelu(&self, key: &str) -> Result<Gelu> {
        gelu(self.text(key)?)
    }

    /// Refuses positions that are no table, and networks that read one way.
    fn absolute(&self) -> Result<()> {
        let kind = self.0["position_embedding_type"].as_str().unwrap_or("absolute");
        if kind != "absolute" {
            return Err(Error::usage(format!("config.json asks for positions of the kind `{kind}`, and ctk has absolute ones")));
        }
        for key in ["is_decoder", "add_cross_attention"] {
            if self.0[key].as_bool() == Some(true) {
                return Err(Error::usage(format!("config.json has {key}: a decoder is no encoder of texts")));
            }
        }
        Ok(())
    }
}

fn missing(key: &str) -> Error {
    Error::usage(format!("config.json does not say `{key}`, or says something that it cannot be"))
}
