//! The descriptions of text towers: `config.json` of transformers, in which what is absent has the default of transformers' own class, and
//! `open_clip_config.json`. A setting that ctk's towers do not have is refused by its key.

use ctk_core::error::{Error, Result};
use ctk_core::nn::Gelu;
use serde_json::{Value, json};

use crate::transformer::config::{divided, gelu};
use crate::transformer::names::Family;
use crate::transformer::{Norms, Projection, Shape};

/// The description that open_clip writes.
pub const OPEN_CLIP: &str = "open_clip_config.json";

/// The description that transformers writes.
const TRANSFORMERS: &str = "config.json";

/// transformers' kinds of models with a text tower of CLIP or SigLIP.
const KINDS: [(&str, Family); 4] = [
    ("clip", Family::Clip),
    ("clip_text_model", Family::Clip),
    ("siglip", Family::Siglip),
    ("siglip_text_model", Family::Siglip),
];

/// Whether transformers' `config.json` is that of a text tower, by itself or beside an image tower.
pub fn describes(config: &Value) -> bool {
    family(config).is_some()
}

fn family(config: &Value) -> Option<Family> {
    let kind = config["model_type"].as_str()?;
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, family)| *family)
}

/// The part of a `config.json` that describes the text tower. Old files of CLIP say it twice, and transformers reads `text_config_dict`.
fn tower(config: &Value) -> &Value {
    let parts = ["text_config_dict", "text_config"];
    parts.iter().map(|part| &config[*part]).find(|part| part.is_object()).unwrap_or(config)
}

/// transformers' defaults.
struct Defaults {
    vocabulary: usize,
    width: usize,
    inner: usize,
    heads: usize,
    positions: usize,
    gelu: &'static str,
    epsilon: f64,
}

const CLIP: Defaults =
    Defaults { vocabulary: 49408, width: 512, inner: 2048, heads: 8, positions: 77, gelu: "quick_gelu", epsilon: 1e-5 };

const SIGLIP: Defaults =
    Defaults { vocabulary: 32000, width: 768, inner: 3072, heads: 12, positions: 64, gelu: "gelu_pytorch_tanh", epsilon: 1e-6 };

/// transformers' defaults of both, and those of open_clip's layers.
const LAYERS: usize = 12;

/// transformers' and open_clip's default.
const PROJECTED: usize = 512;

/// The kind of tower and its shape, from transformers' `config.json`. A text tower of CLIP by itself has a projection if its architecture
/// says so.
///
/// # Errors
/// Another kind of model; a setting that ctk does not have; a number that makes no sense.
pub fn read(config: &Value) -> Result<(Family, Shape)> {
    let kind = config["model_type"].as_str().unwrap_or_default();
    let family = family(config).ok_or_else(|| Error::usage(format!("config.json describes `{kind}`, which is no text tower")))?;
    let usual = if family == Family::Clip { CLIP } else { SIGLIP };
    let of = Section(TRANSFORMERS, tower(config));
    let width = of.count("hidden_size", usual.width)?;
    let projection = match (family, kind) {
        (Family::Siglip, _) => Some(Projection { width: of.count("projection_size", width)?, bias: true }),
        (_, "clip") => Some(Projection { width: Section(TRANSFORMERS, config).count("projection_dim", PROJECTED)?, bias: false }),
        _ if has_projection(config) => Some(Projection { width: of.count("projection_dim", PROJECTED)?, bias: false }),
        _ => None,
    };
    let activation = match of.said("hidden_act") {
        None => usual.gelu,
        Some(name) => name.as_str().ok_or_else(|| of.senseless("hidden_act"))?,
    };
    let shape = Shape {
        vocabulary: of.count("vocab_size", usual.vocabulary)?,
        width,
        layers: of.count("num_hidden_layers", LAYERS)?,
        heads: of.count("num_attention_heads", usual.heads)?,
        inner: of.count("intermediate_size", usual.inner)?,
        positions: of.count("max_position_embeddings", usual.positions)?,
        first_position: 0,
        types: 0,
        gelu: gelu(activation)?,
        epsilon: of.number("layer_norm_eps", usual.epsilon)?,
        // transformers' towers have no such dropout; ctk's key keeps that of a run.
        dropout: of.rate("dropout")?,
        attention_dropout: of.rate("attention_dropout")?,
        norms: Norms::Before,
        causal: family == Family::Clip,
        projection,
    };
    divided(TRANSFORMERS, &shape)?;
    Ok((family, shape))
}

fn has_projection(config: &Value) -> bool {
    let names = config["architectures"].as_array().into_iter().flatten();
    names.filter_map(Value::as_str).any(|name| name == "CLIPTextModelWithProjection")
}

/// The number of the token that ends a text, at which the features of transformers' CLIP are taken; none if these are of the text's highest
/// number, as old descriptions mean by a 2.
///
/// # Errors
/// It is no number of a token.
pub fn end(config: &Value) -> Result<Option<u32>> {
    let of = Section(TRANSFORMERS, tower(config));
    Ok(Some(of.token("eos_token_id", 49407)?).filter(|id| *id != 2))
}

/// The number of the token that fills up SigLIP's texts, if the tokenizer's files do not say it.
///
/// # Errors
/// It is no number of a token.
pub fn padding(config: &Value) -> Result<u32> {
    Section(TRANSFORMERS, tower(config)).token("pad_token_id", 1)
}

/// The description of a tower that transformers reads, by itself or as `text_config`: [`read`] gives the same network again.
pub fn write(family: Family, shape: &Shape) -> Value {
    let gelu = match shape.gelu {
        Gelu::Erf => "gelu",
        Gelu::Tanh => "gelu_pytorch_tanh",
        Gelu::Quick => "quick_gelu",
    };
    let mut config = json!({
        "vocab_size": shape.vocabulary, "hidden_size": shape.width, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "intermediate_size": shape.inner, "max_position_embeddings": shape.positions,
        "hidden_act": gelu, "layer_norm_eps": shape.epsilon, "attention_dropout": shape.attention_dropout,
    });
    if shape.dropout > 0.0 {
        config["dropout"] = json!(shape.dropout);
    }
    let (kind, architecture) = match (family, shape.projection) {
        (Family::Siglip, _) => ("siglip_text_model", "SiglipTextModel"),
        (_, Some(_)) => ("clip_text_model", "CLIPTextModelWithProjection"),
        (_, None) => ("clip_text_model", "CLIPTextModel"),
    };
    config["model_type"] = json!(kind);
    config["architectures"] = json!([architecture]);
    if let Some(Projection { width, .. }) = shape.projection {
        config[if family == Family::Siglip { "projection_size" } else { "projection_dim" }] = json!(width);
    }
    config
}

/// The kind of tower and its shape, from `open_clip_config.json`.
///
/// # Errors
/// No text tower; a setting that ctk does not have; a number that makes no sense.
pub fn read_open_clip(config: &Value) -> Result<(Family, Shape)> {
    let model = Section(OPEN_CLIP, &config["model_cfg"]);
    let of = Section(OPEN_CLIP, &model.1["text_cfg"]);
    if !of.1.is_object() {
        return Err(Error::usage(format!("{OPEN_CLIP} has no `model_cfg.text_cfg`, by which open_clip describes a text tower")));
    }
    let siglip = of.said("no_causal_mask") == Some(&json!(true));
    let family = if siglip { Family::Siglip } else { Family::Clip };
    let pools: &[&str] = if siglip { &["last"] } else { &["argmax", "eos"] };
    let pool = of.said("pool_type").unwrap_or(&Value::Null);
    if !pools.iter().any(|name| pool == name || (pool.is_null() && *name == "argmax")) {
        let pool = if pool.is_null() { &json!("argmax") } else { pool };
        return Err(of.unlike("pool_type", pool, if siglip { "beside `no_causal_mask`" } else { "of a causal tower" }));
    }
    of.known(model.1)?;
    let width = of.count("width", 512)?;
    let projection = match of.said("proj_type").map(|kind| kind.as_str()) {
        None | Some(Some("linear")) => {
            let bias = of.said("proj_bias") == Some(&json!(true));
            if bias != siglip {
                return Err(of.unlike("proj_bias", &json!(bias), "of such a tower"));
            }
            let embedded = model.said("embed_dim").ok_or_else(|| model.senseless("embed_dim"))?;
            Some(Projection { width: model.whole("embed_dim", embedded)?, bias })
        }
        Some(Some("none")) => None,
        Some(_) => return Err(of.unlike("proj_type", &of.1["proj_type"], "of any tower")),
    };
    let quick = model.said("quick_gelu") == Some(&json!(true));
    let tanh = of.said("act_kwargs").is_some_and(|settings| *settings == json!({ "approximate": "tanh" }));
    let ratio = of.number("mlp_ratio", 4.0)?;
    let epsilon = of.said("norm_kwargs").map(|settings| Section(OPEN_CLIP, settings).number("eps", 1e-5)).transpose()?;
    let shape = Shape {
        vocabulary: of.count("vocab_size", 49408)?,
        width,
        layers: of.count("layers", LAYERS)?,
        heads: of.count("heads", 8)?,
        inner: (width as f64 * ratio) as usize,
        positions: of.count("context_length", 77)?,
        first_position: 0,
        types: 0,
        gelu: match (quick, tanh) {
            (true, _) => Gelu::Quick,
            (_, true) => Gelu::Tanh,
            _ => Gelu::Erf,
        },
        epsilon: epsilon.unwrap_or(1e-5),
        dropout: 0.0,
        attention_dropout: 0.0,
        norms: Norms::Before,
        causal: !siglip,
        projection,
    };
    divided(OPEN_CLIP, &shape)?;
    Ok((family, shape))
}

/// How open_clip prepares texts for a tower of its own tokenizer kind: the name of its function, `lower`, `whitespace` or `canonicalize`.
///
/// # Errors
/// A setting that ctk does not have.
pub fn cleaning(config: &Value) -> Result<Option<String>> {
    let of = Section(OPEN_CLIP, &config["model_cfg"]["text_cfg"]);
    let Some(settings) = of.said("tokenizer_kwargs") else { return Ok(None) };
    let unknown = settings.as_object().into_iter().flatten().find(|(key, _)| *key != "clean");
    if let Some((key, value)) = unknown {
        return Err(of.unlike(&format!("tokenizer_kwargs.{key}"), value, "of any tower"));
    }
    match settings["clean"].as_str() {
        None => Ok(None),
        Some(name @ ("lower" | "whitespace" | "canonicalize")) => Ok(Some(name.to_string())),
        Some(_) => Err(of.unlike("tokenizer_kwargs.clean", &settings["clean"], "of any tower")),
    }
}

/// The number of the token at which open_clip takes features; none if they are those of the text's highest number.
///
/// # Errors
/// It is no number of a token.
pub fn open_clip_end(config: &Value) -> Result<Option<u32>> {
    let of = Section(OPEN_CLIP, &config["model_cfg"]["text_cfg"]);
    if of.said("pool_type") == Some(&json!("eos")) { of.token("eos_id", 2).map(Some) } else { Ok(None) }
}

/// A part of a description, with the name of its file.
struct Section<'a>(&'static str, &'a Value);

impl<'a> Section<'a> {
    /// What it says of `key`; null is nothing.
    fn said(&self, key: &str) -> Option<&'a Value> {
        self.1.get(key).filter(|value| !value.is_null())
    }

    fn senseless(&self, key: &str) -> Error {
        Error::usage(format!("{} does not say `{key}`, or says something that it cannot be", self.0))
    }

    fn unlike(&self, key: &str, value: &Value, of: &str) -> Error {
        Error::usage(format!("{} says {key} = {value}, which ctk does not have {of}", self.0))
            .hint("ctk has causal towers with the features of the end token (CLIP), and two-way ones with those of the last place (SigLIP)")
    }

    fn whole(&self, key: &str, value: &Value) -> Result<usize> {
        let count = value.as_u64().filter(|count| (1..1 << 31).contains(count));
        count.map(|count| count as usize).ok_or_else(|| self.senseless(key))
    }

    fn count(&self, key: &str, usual: usize) -> Result<usize> {
        self.said(key).map_or(Ok(usual), |value| self.whole(key, value))
    }

    fn number(&self, key: &str, usual: f64) -> Result<f64> {
        let Some(value) = self.said(key) else { return Ok(usual) };
        value.as_f64().filter(|value| *value > 0.0).ok_or_else(|| self.senseless(key))
    }

    fn rate(&self, key: &str) -> Result<f64> {
        let Some(value) = self.said(key) else { return Ok(0.0) };
        value.as_f64().filter(|rate| (0.0..1.0).contains(rate)).ok_or_else(|| self.senseless(key))
    }

    fn token(&self, key: &str, usual: u32) -> Result<u32> {
        let Some(value) = self.said(key) else { return Ok(usual) };
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| self.senseless(key))
    }

    /// Refuses what open_clip's text towers may have and ctk's do not.
    fn known(&self, model: &Value) -> Result<()> {
        // Those that are read, or that change nothing in a network of this kind.
        let read = [
            "context_length",
            "vocab_size",
            "hf_tokenizer_name",
            "tokenizer_kwargs",
            "width",
            "heads",
            "layers",
            "mlp_ratio",
            "pad_id",
            "eos_id",
            "no_causal_mask",
            "pool_type",
            "proj_bias",
            "proj_type",
            "norm_kwargs",
            "act_kwargs",
            "output_tokens",
            // Each token is normalised by itself.
            "final_ln_after_pool",
            // Of towers of other programs alone.
            "hf_model_pretrained",
            "hf_proj_type",
            "hf_pooler_type",
        ];
        let plain = |value: &Value| value.is_null() || *value == json!(false);
        let mut unknown =
            self.1.as_object().into_iter().flatten().filter(|(key, value)| !read.contains(&key.as_str()) && !plain(value));
        if let Some((key, value)) = unknown.next() {
            return Err(self.unlike(key, value, "in any tower"));
        }
        for (key, usual) in
            [("act_kwargs", json!({ "approximate": "tanh" })), ("norm_kwargs", json!({ "eps": self.1["norm_kwargs"]["eps"] }))]
        {
            if let Some(value) = self.said(key).filter(|value| **value != usual && **value != json!({})) {
                return Err(self.unlike(key, value, "in any tower"));
            }
        }
        let quick = model["quick_gelu"] == json!(true);
        match self.said("act_kwargs").filter(|settings| quick && **settings != json!({})) {
            Some(value) => Err(self.unlike("act_kwargs", value, "beside `quick_gelu`")),
            None => Ok(()),
        }
    }
}
