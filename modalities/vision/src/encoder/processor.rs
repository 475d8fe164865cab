//! transformers' `preprocessor_config.json`: translates an image processor to keys of `[pairs]`, and writes the processor that does what a
//! run did.
//!
//! Keys that a file leaves out have the defaults of the processor's class, so classes are known by name. A setting that ctk cannot follow
//! is refused, never ignored.

use ctk_core::{Error, Result};
use ctk_images::augment::{AugmentRecipe, Filter, Fit, NormaliseRecipe, Offset};
use serde_json::{Value, json};

use super::input::{Input, Shown, filter, mean_and_deviation, normalise, refused, size};

/// The defaults of a class of processors.
struct Class {
    /// Its name without `ImageProcessor` or `FeatureExtractor`.
    name: &'static str,
    law: Law,
    size: usize,
    /// The side of the centre that is cut out, if there is one.
    crop: Option<usize>,
    filter: Filter,
    normalise: NormaliseRecipe,
}

/// How a class interprets `size`.
#[derive(Clone, Copy, PartialEq)]
enum Law {
    /// ConvNeXt's: below 384 pixels the shorter side is resized to ⌊size / crop_pct⌋ and the centre is cut out; from 384 on, both sides are
    /// resized.
    Share,
    /// A number is the length of the shorter side.
    Shorter,
    /// A number is the length of both sides.
    Both,
}

const CLASSES: &[Class] = &[
    Class { name: "ConvNext", law: Law::Share, size: 384, crop: None, filter: Filter::Bicubic, normalise: Input::HALF },
    Class { name: "Bit", law: Law::Shorter, size: 224, crop: Some(224), filter: Filter::Bicubic, normalise: Input::CLIP },
    Class { name: "CLIP", law: Law::Shorter, size: 224, crop: Some(224), filter: Filter::Bicubic, normalise: Input::CLIP },
    Class { name: "ViT", law: Law::Both, size: 224, crop: None, filter: Filter::Bilinear, normalise: Input::HALF },
    Class { name: "DeiT", law: Law::Both, size: 256, crop: Some(224), filter: Filter::Bicubic, normalise: Input::HALF },
    Class { name: "Siglip", law: Law::Both, size: 224, crop: None, filter: Filter::Bicubic, normalise: Input::HALF },
    Class { name: "DINOv3ViT", law: Law::Both, size: 224, crop: None, filter: Filter::Bilinear, normalise: Input::IMAGENET },
];

/// The fraction of the shorter side that ConvNeXt's processor keeps by default.
const SHARE: f64 = 224.0 / 256.0;

/// From this size on ConvNeXt's processor cuts nothing off.
const WHOLE: usize = 384;

/// Reads a processor's configuration.
///
/// # Errors
/// Its class is not known, or ctk cannot follow a setting.
pub(super) fn read(of: &Value) -> Result<Input> {
    let class = class(of)?;
    let factor = of["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
    if of["do_rescale"] == false || (factor * 255.0 - 1.0).abs() > 1e-6 || of["rescale_offset"] == true {
        return Err(Error::usage("this network's images are not brought to values in [0, 1] before they are normalised")
            .hint("remove preprocessor_config.json, and say what it means by --set pairs.normalise={mean=[…],deviation=[…]}"));
    }
    for (key, plain) in
        [("do_resize", true), ("do_pad", false), ("do_convert_grayscale", false), ("do_flip_channel_order", false)]
    {
        if let Some(other) = of.get(key).filter(|value| !value.is_null() && **value != json!(plain)) {
            return Err(refused(key, other));
        }
    }
    let filter = match of.get("resample").filter(|value| !value.is_null()) {
        Some(value) => filter("resample", value)?,
        None => class.filter,
    };
    let (size, shown) = shown(of, class, filter)?;
    let normalise = match (of["do_normalize"] == false, of["image_mean"].is_null() && of["image_std"].is_null()) {
        (true, _) => Input::PLAIN,
        (_, true) => class.normalise,
        _ => {
            let mean = of.get("image_mean").filter(|mean| !mean.is_null()).cloned().unwrap_or(json!(class.normalise.mean));
            let deviation = of.get("image_std").filter(|std| !std.is_null()).cloned().unwrap_or(json!(class.normalise.deviation));
            normalise(&mean, &deviation).ok_or_else(|| refused("image_mean and image_std", &json!([mean, deviation])))?
        }
    };
    Ok(Input { size: Some(size), shown: Some(shown), normalise: Some(normalise) })
}

/// The class of a configuration; ConvNeXt's, as for every ResNet, if it names none.
fn class(of: &Value) -> Result<&'static Class> {
    let named = ["image_processor_type", "feature_extractor_type"].iter().find_map(|key| of[*key].as_str());
    let Some(named) = named else { return Ok(&CLASSES[0]) };
    let ends = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];
    let name = ends.iter().find_map(|end| named.strip_suffix(end)).unwrap_or(named);
    CLASSES.iter().find(|class| class.name == name).ok_or_else(|| {
        let known: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
        Error::usage(format!("images of this network are prepared by `{named}`, which ctk does not know")).hint(format!(
            "known are the image processors of {}; remove the file and say by --set pairs.… what it does",
            known.join(", ")
        ))
    })
}

/// The size of the view, and how an image becomes that.
fn shown(of: &Value, class: &Class, filter: Filter) -> Result<(usize, Shown)> {
    let said = of.get("size").filter(|value| !value.is_null());
    let other = |value: &Value| refused("size", value);
    // The shorter side, or both sides.
    let (law, side) = match said {
        None => (class.law, class.size),
        Some(value) => match (size(value), size(&value["shortest_edge"]), size(&value["height"]), size(&value["width"])) {
            (Some(number), ..) => (class.law, number),
            (_, Some(shorter), None, None) if value["longest_edge"].is_null() => {
                (if class.law == Law::Share { Law::Share } else { Law::Shorter }, shorter)
            }
            (_, None, Some(height), Some(width)) if height == width && class.law != Law::Share => (Law::Both, height),
            _ => return Err(other(value)),
        },
    };
    let squash = |resize: Option<usize>| Shown { fit: Fit::Squash, resize, centre: 1.0, filter, offset: Offset::Floor };
    if law == Law::Share {
        let share = of["crop_pct"].as_f64().unwrap_or(SHARE);
        let middle = Shown { filter, offset: Offset::Floor, ..Shown::middle(share) };
        return Ok((side, if side < WHOLE { middle } else { squash(None) }));
    }
    if let Some(share) = of.get("crop_pct").filter(|value| !value.is_null()) {
        return Err(refused("crop_pct", share));
    }
    let cuts = of["do_center_crop"].as_bool().unwrap_or(class.crop.is_some());
    let crop = match of.get("crop_size").filter(|value| cuts && !value.is_null()) {
        None => class.crop.filter(|_| cuts),
        Some(value) => match (size(value), size(&value["height"]), size(&value["width"])) {
            (Some(number), ..) => Some(number),
            (_, Some(height), Some(width)) if height == width => Some(height),
            _ => return Err(refused("crop_size", value)),
        },
    };
    match (law, crop) {
        (_, Some(crop)) if crop > side => {
            let what = format!("{crop} pixels are cut out of images of {side}, which are padded");
            Err(Error::usage(what).hint("ctk does not pad images: set what comes nearest by --set pairs.size, pairs.eval_resize"))
        }
        (Law::Both, None) => Ok((side, squash(None))),
        (Law::Both, Some(crop)) => Ok((crop, squash(Some(side)))),
        (_, Some(crop)) => Ok((crop, Shown { resize: Some(side), filter, offset: Offset::Floor, ..Shown::middle(1.0) })),
        (_, None) => Err(Error::usage("this network's images are resized by their shorter side only, so they are not squares")
            .hint("ctk's are: say which part of them is taken by --set pairs.eval_fit=resize and pairs.size")),
    }
}

/// The configuration of the processor that does what a run did.
pub(super) fn config(pairs: &AugmentRecipe) -> Value {
    let of = pairs.evaluation();
    let (mean, std) = mean_and_deviation(pairs);
    let side = match of.fit {
        Fit::Crop => (of.size as f64 / of.centre).floor() as usize,
        Fit::Resize | Fit::Squash => of.resize,
    };
    let (class, resized) = match of.fit {
        Fit::Squash if side == of.size => ("ViTImageProcessor", json!({ "height": side, "width": side })),
        Fit::Squash => ("DeiTImageProcessor", json!({ "height": side, "width": side })),
        Fit::Crop | Fit::Resize => ("BitImageProcessor", json!({ "shortest_edge": side })),
    };
    let mut processor = json!({
        "image_processor_type": class,
        "do_resize": true,
        "size": resized,
        "resample": match of.filter { Filter::Bilinear => 2, Filter::Bicubic => 3 },
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": mean,
        "image_std": std,
    });
    if class != "ViTImageProcessor" {
        processor["do_center_crop"] = json!(true);
        processor["crop_size"] = json!({ "height": of.size, "width": of.size });
    }
    processor
}

/// Writes the class names into a model's `config.json`.
pub(super) fn label(config: &mut Value, classes: &[String]) {
    config["id2label"] = classes.iter().enumerate().map(|(id, class)| (id.to_string(), json!(class))).collect();
    config["label2id"] = classes.iter().enumerate().map(|(id, class)| (class.clone(), json!(id))).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Input> {
        read(&serde_json::from_str(text).unwrap())
    }

    /// Size, fit, resized side, filter, mean of red.
    fn shown(text: &str) -> (usize, Fit, usize, Filter, f32) {
        let input = of(text).unwrap();
        let (size, shown) = (input.size.unwrap(), input.shown.unwrap());
        assert_eq!(shown.offset, Offset::Floor);
        let resize = shown.resize.unwrap_or((size as f64 / shown.centre).floor() as usize);
        (size, shown.fit, resize, shown.filter, input.normalise.unwrap().mean[0])
    }

    #[test]
    fn classes_mean_what_they_do_by_default() {
        use Filter::{Bicubic, Bilinear};
        use Fit::{Resize, Squash};
        for (text, expected) in [
            (r#"{"image_processor_type": "ConvNextImageProcessor"}"#, (384, Squash, 384, Bicubic, 0.5)),
            (r#"{"feature_extractor_type": "ConvNextFeatureExtractor", "size": 224}"#, (224, Resize, 256, Bicubic, 0.5)),
            (r#"{"size": {"shortest_edge": 224}, "crop_pct": 0.95, "resample": 2}"#, (224, Resize, 235, Bilinear, 0.5)),
            (r#"{"image_processor_type": "BitImageProcessorFast"}"#, (224, Resize, 224, Bicubic, 0.481_454_66)),
            (
                r#"{"image_processor_type": "CLIPImageProcessor", "size": 256, "crop_size": 224, "image_mean": [0.1, 0.2, 0.3]}"#,
                (224, Resize, 256, Bicubic, 0.1),
            ),
            (r#"{"image_processor_type": "ViTImageProcessor"}"#, (224, Squash, 224, Bilinear, 0.5)),
            (
                r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 96, "resample": "bicubic"}"#,
                (96, Squash, 96, Bicubic, 0.5),
            ),
            (r#"{"image_processor_type": "DeiTImageProcessor"}"#, (224, Squash, 256, Bicubic, 0.5)),
            (r#"{"image_processor_type": "DeiTImageProcessor", "do_center_crop": false}"#, (256, Squash, 256, Bicubic, 0.5)),
            (r#"{"image_processor_type": "DINOv3ViTImageProcessorFast"}"#, (224, Squash, 224, Bilinear, 0.485)),
            (r#"{"image_processor_type": "ViTImageProcessor", "do_normalize": false}"#, (224, Squash, 224, Bilinear, 0.0)),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let bit = |more: &str| format!(r#"{{"image_processor_type": "BitImageProcessor", {more}}}"#);
        for (text, said) in [
            (r#"{"image_processor_type": "EfficientNetImageProcessor"}"#.to_string(), "`EfficientNetImageProcessor`"),
            (bit(r#""resample": 0"#), "resample = 0"),
            (bit(r#""resample": "lanczos""#), "resample = \"lanczos\""),
            (bit(r#""do_resize": false"#), "do_resize = false"),
            (bit(r#""do_pad": true"#), "do_pad = true"),
            (bit(r#""do_center_crop": false"#), "not squares"),
            (bit(r#""size": 200"#), "padded"),
            (bit(r#""crop_size": {"height": 224, "width": 192}"#), "crop_size"),
            (bit(r#""size": {"height": 224, "width": 192}"#), "size = "),
            (bit(r#""size": {"longest_edge": 224}"#), "size = "),
            (bit(r#""size": {"shortest_edge": 224, "longest_edge": 1333}"#), "size = "),
            (bit(r#""crop_pct": 0.9"#), "crop_pct = 0.9"),
            (bit(r#""rescale_factor": 1.0"#), "[0, 1]"),
            (bit(r#""image_mean": [0.5]"#), "image_mean"),
        ] {
            let error = of(&text).err().unwrap_or_else(|| panic!("{text}"));
            assert!(error.to_string().contains(said) && error.to_string().contains("hint: "), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
