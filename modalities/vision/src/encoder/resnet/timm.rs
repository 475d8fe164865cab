//! timm's folders: `config.json` beside `model.safetensors`, written by `timm.models.save_for_hf` and read by
//! `timm.create_model("local-dir:…")`.

use ctk_core::{Error, Result};
use ctk_images::augment::{AugmentRecipe, Filter, Fit};
use serde_json::{Value, json};

use super::recipe::{ResnetRecipe, Variant};
use crate::encoder::input::{Input, Shown, filter, mean_and_deviation, normalise, refused, share, size};

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
    input(of)
}

/// How images are prepared, by a configuration; missing keys have timm's defaults.
fn input(of: &Value) -> Result<Input> {
    let said = |key: &str| of.get(key).filter(|value| !value.is_null());
    if let Some(border) = said("crop_border_pixels").filter(|value| **value != 0) {
        return Err(refused("crop_border_pixels", border));
    }
    let side = match said("input_size") {
        None => Input::IMAGENET_SIZE,
        Some(value) => match (size(&value[0]), size(&value[1]), size(&value[2])) {
            (Some(3), Some(height), Some(width)) if height == width => width,
            _ => return Err(refused("input_size", value)),
        },
    };
    let filter = said("interpolation").map_or(Ok(Filter::Bicubic), |value| filter("interpolation", value))?;
    let fit = match said("crop_mode") {
        None => Fit::Resize,
        Some(mode) if mode == "center" => Fit::Resize,
        Some(mode) if mode == "squash" => Fit::Squash,
        Some(other) => return Err(refused("crop_mode", other)),
    };
    let centre = match said("crop_pct") {
        None => 0.875,
        Some(value) => value.as_f64().filter(|share| *share > 0.0 && *share <= 1.0).ok_or_else(|| refused("crop_pct", value))?,
    };
    let numbers = |key: &str, default: [f32; 3]| said(key).cloned().unwrap_or(json!(default));
    let (mean, std) = (numbers("mean", Input::IMAGENET.mean), numbers("std", Input::IMAGENET.deviation));
    let normalise = normalise(&mean, &std).ok_or_else(|| refused("mean and std", &json!([mean, std])))?;
    Ok(Input { size: Some(side), shown: Some(Shown { fit, filter, ..Shown::middle(centre) }), normalise: Some(normalise) })
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
    let (mean, std) = mean_and_deviation(pairs);
    let shown = pairs.evaluation();
    let size = shown.size;
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
            "interpolation": shown.filter,
            "crop_pct": share(&shown),
            "crop_mode": if shown.fit == Fit::Squash { "squash" } else { "center" },
            "mean": mean,
            "std": std,
            "num_classes": 0,
            "pool_size": null,
            "first_conv": first,
            "classifier": "fc",
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_timm_says_of_pictures_is_honoured_or_refused() {
        let of = |text: &str| {
            read(&serde_json::from_str(&format!(r#"{{"architecture": "resnet18", "pretrained_cfg": {{{text}}}}}"#)).unwrap())
        };
        let shown = |text: &str| {
            let input = of(text).unwrap();
            (input.size, input.shown, input.normalise)
        };
        let middle = Shown::middle(0.875);
        assert_eq!(shown(""), (Some(224), Some(middle), Some(Input::IMAGENET)));
        assert_eq!(
            shown(
                r#""input_size": [3, 288, 288], "crop_mode": "squash", "crop_pct": 0.95, "interpolation": "bilinear", "test_crop_pct": 1.0"#
            ),
            (Some(288), Some(Shown { fit: Fit::Squash, filter: Filter::Bilinear, ..Shown::middle(0.95) }), Some(Input::IMAGENET))
        );
        for (text, said) in [
            (r#""crop_mode": "border""#, "crop_mode = \"border\""),
            (r#""interpolation": "lanczos""#, "interpolation = \"lanczos\""),
            (r#""input_size": [1, 28, 28]"#, "input_size"),
            (r#""input_size": [3, 224, 192]"#, "input_size"),
            (r#""crop_border_pixels": 4"#, "crop_border_pixels"),
            (r#""crop_pct": 1.5"#, "crop_pct = 1.5"),
            (r#""mean": [0.5]"#, "mean and std"),
        ] {
            let error = of(text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(error.to_string().contains(said) && error.exit_code() == 2, "{error}");
        }
    }
}
