//! timm's description of how images are prepared: the `pretrained_cfg` of a `config.json`, read and written.

use ctk_core::Result;
use ctk_images::augment::{AugmentRecipe, Filter, Fit};
use serde_json::{Value, json};

use super::input::{Input, Shown, filter, mean_and_deviation, normalise, refused, share, size};

/// How images are prepared, by a configuration; missing keys have timm's defaults.
pub(super) fn input(of: &Value) -> Result<Input> {
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

/// The configuration that does what a run did. `first` is the name of the network's first layer, `classifier` that of its classifier.
pub(super) fn pretrained(pairs: &AugmentRecipe, first: &str, classifier: &str) -> Value {
    let (mean, std) = mean_and_deviation(pairs);
    let shown = pairs.evaluation();
    let size = shown.size;
    json!({
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
        "classifier": classifier,
    })
}

/// Writes the class names into a model's configuration.
pub(super) fn label(config: &mut Value, classes: &[String]) {
    config["num_classes"] = json!(classes.len());
    config["pretrained_cfg"]["num_classes"] = json!(classes.len());
    config["label_names"] = json!(classes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_timm_says_of_pictures_is_honoured_or_refused() {
        let of = |text: &str| input(&serde_json::from_str(&format!("{{{text}}}")).unwrap());
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
