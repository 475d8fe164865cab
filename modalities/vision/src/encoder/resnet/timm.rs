//! timm's folders: `config.json` beside `model.safetensors`, as `timm.models.save_for_hf` writes them and
//! `timm.create_model("local-dir:…")` reads them.

use ctk_core::{Error, Result};
use serde_json::{Value, json};

use super::recipe::{ResnetRecipe, Variant};
use crate::encoder::input::{Input, normalise, size};

/// What was said of input. Networks whose tensors have a plain ResNet's names and that compute something else are told apart here,
/// by their architecture.
///
/// # Errors
/// Of an architecture that is no plain ResNet and no ResNet-D, or of one that was changed.
pub(super) fn read(config: &Value) -> Result<Input> {
    let name = config["architecture"].as_str().unwrap_or_default();
    if !plain(name) {
        return Err(Error::usage(format!("timm's `{name}` computes something else than a plain ResNet"))
            .hint("resnet18, 34, 50, 101, 152 and 200 are read, and the same with d"));
    }
    // What changes no feature of a picture of three colours.
    let known = ["num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate", "zero_init_last", "img_size"];
    let changes = config["model_args"].as_object().into_iter().flatten().find(|(key, _)| !known.contains(&key.as_str()));
    if let Some((key, value)) = changes {
        return Err(Error::usage(format!("this {name} was made with {key} = {value}, which ctk's is not"))
            .hint("a plain one is read: leave model_args out"));
    }
    // Older folders have it all in one object.
    let of = config.get("pretrained_cfg").unwrap_or(config);
    Ok(Input {
        size: of["input_size"].get(2).and_then(size),
        centre: of["crop_pct"].as_f64(),
        normalise: normalise(&of["mean"], &of["std"]),
    })
}

/// Whether timm's architecture is torchvision's of the same depth, or its ResNet-D.
fn plain(name: &str) -> bool {
    let name = ["tv_", "gluon_", "ssl_", "swsl_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let name = ["_v1b", "d"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"].contains(&name)
}

/// The configuration of an encoder.
///
/// # Errors
/// Of a network that timm has no name for.
pub(super) fn config(of: &ResnetRecipe, features: usize, input: &Input) -> Result<Value> {
    if (0..4).any(|group| of.channels(of.base() << group) != of.base() << group) {
        return Err(Error::usage(format!("timm's resnets have one width, and this network has width = {}", of.width))
            .hint("--format transformers can say it"));
    }
    let (letter, first) = if of.variant == Variant::ResnetD { ("d", "conv1.0") } else { ("", "conv1") };
    let (mean, std) = input.mean_and_deviation();
    let size = input.size.unwrap_or(Input::IMAGENET_SIZE);
    Ok(json!({
        "architecture": format!("resnet{}{letter}", of.depth),
        "num_classes": 0,
        "num_features": features,
        "global_pool": "avg",
        "pretrained_cfg": {
            "tag": "ctk",
            "custom_load": false,
            "input_size": [3, size, size],
            "fixed_input_size": false,
            "interpolation": "bicubic",
            "crop_pct": input.centre,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": 0,
            "pool_size": null,
            "first_conv": first,
            "classifier": "fc",
        },
    }))
}
