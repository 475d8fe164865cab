//! The descriptions beside another program's vision transformer: what names and shapes do not show. What a description says that ctk does
//! not have is refused by its key.

use std::path::Path;

use ctk_core::nn::Resampling;
use ctk_core::{Context, Error, Result};
use ctk_images::augment::{Fit, NormaliseRecipe};
use serde_json::{Value, json};

use super::names::Layout;
use super::recipe::{Activation, Pooling};
use crate::encoder::file::{self, CONFIG, OPEN_CLIP, PREPROCESSOR};
use crate::encoder::input::{Input, Shown, filter, normalise, refused, size};
use crate::encoder::{processor, timm};

/// What a description says; what it leaves out is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Said {
    /// Whether there is a description.
    pub known: bool,
    pub heads: Option<usize>,
    pub gelu: Option<Activation>,
    pub epsilon: Option<f64>,
    pub pooling: Option<Pooling>,
    pub resampling: Option<Resampling>,
    pub layer_scale: Option<f64>,
    /// How images are prepared.
    pub input: Input,
    /// Mean and deviation of such networks, where no file says them.
    pub usual: Option<NormaliseRecipe>,
}

/// Reads the description of a network of this layout in a folder.
///
/// # Errors
/// It is of a network that ctk does not have.
pub(super) fn read(layout: Layout, folder: &Path) -> Result<Said> {
    let of = |name: &str| -> Result<(Option<Value>, String)> {
        Ok((file::json(folder, name)?, folder.join(name).display().to_string()))
    };
    let (open_clip_config, place) = of(OPEN_CLIP)?;
    if let Some(config) = open_clip_config.filter(|_| matches!(layout, Layout::OpenClip | Layout::Timm)) {
        return open_clip(&config).at(place);
    }
    let (config, place) = of(CONFIG)?;
    let Some(config) = config else { return Ok(Said::default()) };
    if config.get("architecture").is_some() {
        return of_timm(&config).at(place);
    }
    if config.get("model_type").is_none() {
        return Err(Error::usage("this names neither timm's `architecture` nor transformers' `model_type`")
            .at(place)
            .hint("move the weights elsewhere, to go by their tensors' names alone"));
    }
    let said = transformers(layout, &config).at(place)?;
    let (preprocessor, place) = of(PREPROCESSOR)?;
    let input = preprocessor.as_ref().map_or(Ok(Input::default()), processor::read).at(place)?;
    Ok(Said { input: Input { size: input.size.or(said.input.size), ..input }, ..said })
}

/// A whole number of a description, or its default.
fn number(of: &Value, key: &str, default: usize) -> Result<usize> {
    match of.get(key).filter(|value| !value.is_null()) {
        None => Ok(default),
        Some(value) => size(value).ok_or_else(|| other(key, value)),
    }
}

/// The error for a setting of a network that ctk does not have.
fn other(key: &str, value: &Value) -> Error {
    Error::usage(format!("this network has {key} = {value}, which ctk's vision transformers do not have"))
        .hint(super::weights::READS)
}

/// Refuses each of these keys whose value is not the one that it is paired with.
fn plain(of: &Value, keys: &[(&str, Value)]) -> Result<()> {
    let said = |key: &str| of.get(key).filter(|value| !value.is_null());
    let unlike = keys.iter().find_map(|(key, value)| Some((*key, said(key).filter(|other| *other != value)?)));
    unlike.map_or(Ok(()), |(key, value)| Err(other(key, value)))
}

/// A form of the GELU by its name in transformers and timm.
fn activation(key: &str, value: &Value) -> Result<Activation> {
    match value.as_str() {
        Some("gelu") => Ok(Activation::Erf),
        Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_tanh") => Ok(Activation::Tanh),
        Some("quick_gelu") => Ok(Activation::Quick),
        _ => Err(other(key, value)),
    }
}

/// The defaults of a model of transformers.
struct Model {
    layout: Layout,
    gelu: &'static str,
    epsilon: f64,
    size: usize,
    usual: NormaliseRecipe,
}

/// transformers' `config.json`, also that of a model with a text tower.
fn transformers(layout: Layout, config: &Value) -> Result<Said> {
    let name = config["model_type"].as_str().unwrap_or_default();
    let model = |layout, gelu, epsilon, usual| Model { layout, gelu, epsilon, size: 224, usual };
    let model = match name {
        "vit" => model(Layout::Vit, "gelu", 1e-12, Input::HALF),
        "dinov2" | "dinov2_with_registers" => model(Layout::TransformersDinov2, "gelu", 1e-6, Input::IMAGENET),
        "clip" | "clip_vision_model" => model(Layout::Clip, "quick_gelu", 1e-5, Input::CLIP),
        "siglip" | "siglip_vision_model" => model(Layout::Clip, "gelu_pytorch_tanh", 1e-6, Input::HALF),
        _ => {
            return Err(
                Error::usage(format!("this is transformers' `{name}`, which ctk does not have")).hint(super::weights::READS)
            );
        }
    };
    if model.layout != layout {
        return Err(Error::usage(format!("this describes transformers' `{name}`, and the tensors beside it have other names")));
    }
    let of = config.get("vision_config").unwrap_or(config);
    plain(of, &[("use_swiglu_ffn", json!(false)), ("num_channels", json!(3)), ("vision_use_head", json!(true))])?;
    let gelu = json!(model.gelu);
    let epsilon = of.get("layer_norm_eps").map_or(Some(model.epsilon), Value::as_f64);
    Ok(Said {
        known: true,
        heads: Some(number(of, "num_attention_heads", 12)?),
        gelu: Some(activation("hidden_act", of.get("hidden_act").unwrap_or(&gelu))?),
        epsilon: Some(epsilon.ok_or_else(|| other("layer_norm_eps", &of["layer_norm_eps"]))?),
        layer_scale: of["layerscale_value"].as_f64().filter(|scale| *scale > 0.0),
        input: Input { size: Some(number(of, "image_size", model.size)?), ..Input::default() },
        usual: Some(model.usual),
        ..Said::default()
    })
}

/// open_clip's `open_clip_config.json`.
fn open_clip(config: &Value) -> Result<Said> {
    let model = &config["model_cfg"];
    let of = &model["vision_cfg"];
    if !of.is_object() {
        return Err(Error::usage("this has no `model_cfg.vision_cfg`, by which open_clip describes an image tower"));
    }
    let preprocess = &config["preprocess_cfg"];
    let side = number(of, "image_size", Input::IMAGENET_SIZE)?;
    let input = Input { size: Some(side), ..prepared(preprocess)? };
    let usual = Some(Input::CLIP);
    if let Some(name) = of.get("timm_model_name").and_then(Value::as_str) {
        return Ok(Said { input, usual, ..named(name)? });
    }
    // Those that shapes show, or that change nothing but training.
    let known = ["layers", "width", "mlp_ratio", "patch_size", "image_size", "head_width", "ls_init_value", "patch_dropout"];
    let plain_ones = [
        ("attentional_pool", json!(false)),
        ("no_ln_pre", json!(false)),
        ("pos_embed_type", json!("learnable")),
        // The same for a class token: each token is normalised by itself.
        ("final_ln_after_pool", of["final_ln_after_pool"].clone()),
        ("pool_type", json!("tok")),
        ("output_tokens", of["output_tokens"].clone()),
    ];
    plain(of, &plain_ones)?;
    let is_known = |key: &str| known.contains(&key) || plain_ones.iter().any(|(plain, _)| *plain == key);
    let eps = of["norm_kwargs"]["eps"].as_f64();
    let unknown = of.as_object().into_iter().flatten().find(|(key, value)| {
        !(is_known(key)
            || value.is_null()
            || (*key == "norm_kwargs" && eps.is_some() && value.as_object().is_some_and(|of| of.len() == 1)))
    });
    if let Some((key, value)) = unknown {
        return Err(other(key, value));
    }
    let (width, head) = (number(of, "width", 768)?, number(of, "head_width", 64)?);
    Ok(Said {
        known: true,
        heads: Some((width / head.max(1)).max(1)),
        gelu: Some(if model["quick_gelu"] == true { Activation::Quick } else { Activation::Erf }),
        epsilon: Some(eps.unwrap_or(1e-5)),
        pooling: Some(Pooling::Class),
        resampling: Some(Resampling::Antialias),
        layer_scale: of["ls_init_value"].as_f64(),
        input,
        usual,
    })
}

/// How open_clip prepares images.
fn prepared(of: &Value) -> Result<Input> {
    let said = |key: &str| of.get(key).filter(|value| !value.is_null());
    let filter = said("interpolation").map_or(Ok(Default::default()), |value| filter("interpolation", value))?;
    let fit = match said("resize_mode").map(|mode| (mode, mode.as_str())) {
        None | Some((_, Some("shortest"))) => Fit::Resize,
        Some((_, Some("squash"))) => Fit::Squash,
        Some((mode, _)) => return Err(refused("resize_mode", mode)),
    };
    let normalise = match (said("mean"), said("std")) {
        (Some(mean), Some(std)) => Some(normalise(mean, std).ok_or_else(|| refused("mean and std", &json!([mean, std])))?),
        _ => None,
    };
    Ok(Input { size: None, shown: Some(Shown { fit, filter, ..Shown::middle(1.0) }), normalise })
}

/// timm's `config.json`.
fn of_timm(config: &Value) -> Result<Said> {
    let name = config["architecture"].as_str().unwrap_or_default();
    let mut said = named(name)?;
    let args = config["model_args"].as_object().into_iter().flatten();
    for (key, value) in args.filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "num_heads" => said.heads = Some(size(value).ok_or_else(|| other(key, value))?),
            "act_layer" => said.gelu = Some(activation(key, value)?),
            "init_values" => said.layer_scale = value.as_f64(),
            "global_pool" => {}
            // Shapes show these, or they change nothing but training.
            "patch_size" | "img_size" | "embed_dim" | "depth" | "mlp_ratio" | "class_token" | "reg_tokens" | "pre_norm"
            | "no_embed_class" | "num_classes" | "in_chans" | "fc_norm" | "qkv_bias" | "dynamic_img_size" | "drop_rate"
            | "pos_drop_rate" | "patch_drop_rate" | "proj_drop_rate" | "attn_drop_rate" | "drop_path_rate" | "weight_init"
            | "fix_init" => {}
            _ => return Err(other(key, value)),
        }
    }
    let pool = [&config["model_args"]["global_pool"], &config["global_pool"]].into_iter().find(|value| !value.is_null());
    if let Some(value) = pool {
        said.pooling = match value.as_str() {
            Some("token") => Some(Pooling::Class),
            Some("avg") => Some(Pooling::Mean),
            // The pooling has tensors of its own.
            Some("map") => None,
            _ => return Err(other("global_pool", value)),
        };
    }
    // Older folders have all settings in one object.
    said.input = timm::input(config.get("pretrained_cfg").unwrap_or(config))?;
    Ok(said)
}

/// What the name of timm's architecture says. Names of other networks that have the same tensors are refused.
fn named(name: &str) -> Result<Said> {
    let mut words = name.split('_');
    let family = words.next().unwrap_or_default();
    let size = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let has = |word: &str| rest.contains(&word);
    let known = |word: &&str| {
        let digits = word.strip_prefix("patch").unwrap_or(word);
        ["clip", "quickgelu", "siglip", "gap", "map", "reg1", "reg4", "dinov2", "plus", "36x1"].contains(word)
            || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let sizes = [
        "tiny", "xsmall", "small", "medium", "mediumd", "betwixt", "base", "large", "huge", "giant", "gigantic", "so400m",
        "giantopt", "little", "wee", "so150m",
    ];
    if !["vit", "deit", "deit3", "flexivit"].contains(&family) || !sizes.contains(&size) || !rest.iter().all(known) {
        return Err(Error::usage(format!("timm's `{name}` is not a vision transformer that ctk has")).hint(
            "vit_*_patch* are read, also with clip, quickgelu, siglip, dinov2, reg and gap, and deit, deit3 and flexivit; not those with \
             rotary or relative positions",
        ));
    }
    let tanh = has("siglip")
        && (has("patch32") || (size == "large" && has("512")) || (size == "so400m" && has("patch16")) || size == "giantopt");
    let sixteen = ["huge", "giant", "gigantic", "so400m", "giantopt"].contains(&size)
        || (size == "base" && rest == ["patch16", "gap", "224"]);
    Ok(Said {
        known: true,
        heads: sixteen.then_some(16),
        gelu: Some(match (has("quickgelu"), tanh) {
            (true, _) => Activation::Quick,
            (_, true) => Activation::Tanh,
            _ => Activation::Erf,
        }),
        epsilon: Some(if has("clip") { 1e-5 } else { 1e-6 }),
        pooling: has("gap").then_some(Pooling::Mean),
        resampling: Some(Resampling::Antialias),
        ..Said::default()
    })
}
