//! timm's folders: `config.json` beside `model.safetensors`, written by `timm.models.save_for_hf` and read by
//! `timm.create_model("local-dir:…")`: which ResNet it is.

use ctk_core::{Error, Result};
use ctk_images::augment::AugmentRecipe;
use serde_json::{Value, json};

use super::recipe::{ResnetRecipe, Variant};
use crate::encoder::input::Input;
use crate::encoder::timm;

/// How images are prepared. Networks that have the tensor names of a plain ResNet but compute something else are refused here by their
/// architecture's name.
///
/// # Errors
/// An architecture that is neither a plain ResNet nor a ResNet-D, or that was modified.
pub(super) fn read(config: &Value) -> Result<Input> {
    let name = config["architecture"].as_str().unwrap_or_default();
    if !plain(name) {
        return Err(Error::usage(format!("timm's `{name}` computes something else than a plain ResNet"))
            .hint("resnet18, 34, 50, 101, 152 and 200 are read, and the same with d"));
    }
    // Settings that change no feature of a colour image.
    let known = ["num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate", "zero_init_last", "img_size"];
    let changes = config["model_args"].as_object().into_iter().flatten().find(|(key, _)| !known.contains(&key.as_str()));
    if let Some((key, value)) = changes {
        return Err(Error::usage(format!("this {name} was made with {key} = {value}, which ctk's is not"))
            .hint("a plain one is read: leave model_args out"));
    }
    // Older folders have all settings in one object.
    let of = config.get("pretrained_cfg").unwrap_or(config);
    timm::input(of)
}

/// Whether timm's architecture is torchvision's of the same depth, or its ResNet-D.
fn plain(name: &str) -> bool {
    let name = ["tv_", "gluon_", "ssl_", "swsl_"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let name = ["_v1b", "d"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"].contains(&name)
}

/// Refuses widths that timm does not have.
pub(super) fn one_width(of: &ResnetRecipe) -> Result<()> {
    match (0..4).any(|group| of.channels(of.base() << group) != of.base() << group) {
        true => Err(Error::usage(format!("timm's resnets have only one width, and this network has width = {}", of.width))
            .hint("--format transformers can store it")),
        false => Ok(()),
    }
}

/// The configuration of an encoder.
///
/// # Errors
/// A network that has no name in timm.
pub(super) fn config(of: &ResnetRecipe, features: usize, pairs: &AugmentRecipe) -> Result<Value> {
    one_width(of)?;
    let (letter, first) = if of.variant == Variant::ResnetD { ("d", "conv1.0") } else { ("", "conv1") };
    Ok(json!({
        "architecture": format!("resnet{}{letter}", of.depth),
        "num_classes": 0,
        "num_features": features,
        "global_pool": "avg",
        "pretrained_cfg": timm::pretrained(pairs, first, "fc"),
    }))
}
