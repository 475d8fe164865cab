//! transformers' folders: `config.json` of a `ResNetModel` and `preprocessor_config.json`, as `save_pretrained` writes them and
//! `AutoModel.from_pretrained` reads them.

use ctk_core::{Error, Result};
use serde_json::{Value, json};

use super::recipe::{ResnetRecipe, blocks};
use crate::encoder::input::{Input, normalise, size};

const PLAIN: &str = "microsoft/resnet-50 and its like are read, whose stride is on the 3 × 3 convolutions";

/// Looks whether a model's configuration is of a network that ctk has.
///
/// # Errors
/// It is of another model, or of a ResNet that computes something else under the same names.
pub(super) fn check(config: &Value) -> Result<()> {
    let model = config["model_type"].as_str().unwrap_or_default();
    if model != "resnet" {
        return Err(Error::usage(format!("this is transformers' `{model}`, and ctk reads its `resnet`")).hint(PLAIN));
    }
    let plain =
        [("hidden_act", json!("relu")), ("downsample_in_first_stage", json!(false)), ("downsample_in_bottleneck", json!(false))];
    for (key, value) in plain {
        if let Some(other) = config.get(key).filter(|other| **other != value) {
            return Err(Error::usage(format!("this network has {key} = {other}, and ctk's have {value}")).hint(PLAIN));
        }
    }
    Ok(())
}

/// What a preprocessor's configuration says of input.
///
/// # Errors
/// Values are not brought to [0, 1] before they are normalised.
pub(super) fn read(of: &Value) -> Result<Input> {
    let factor = of["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
    if of["do_rescale"] == false || (factor * 255.0 - 1.0).abs() > 1e-6 {
        return Err(Error::usage("this network's pictures are not brought to values in [0, 1] before they are normalised")
            .hint("remove preprocessor_config.json, and say what it means by --set pairs.normalise={mean=[…],deviation=[…]}"));
    }
    let normalise = normalise(&of["image_mean"], &of["image_std"]);
    let side = ["shortest_edge", "height"].iter().find_map(|key| of["size"].get(key)).unwrap_or(&of["size"]);
    Ok(Input {
        size: size(side),
        centre: of["crop_pct"].as_f64(),
        normalise: if of["do_normalize"] == false { Some(Input::PLAIN) } else { normalise },
    })
}

/// The configuration of an encoder, and of what prepares its pictures.
pub(super) fn configs(of: &ResnetRecipe, input: &Input) -> (Value, Value) {
    let planes = (0..4).map(|group| of.channels(of.base() << group));
    let sizes: Vec<usize> = planes.map(|planes| if of.bottleneck() { 4 * planes } else { planes }).collect();
    let model = json!({
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": 3,
        "embedding_size": of.channels(of.base()),
        "hidden_sizes": sizes,
        "depths": blocks(of.depth),
        "layer_type": if of.bottleneck() { "bottleneck" } else { "basic" },
        "hidden_act": "relu",
        "downsample_in_first_stage": false,
        "downsample_in_bottleneck": false,
        "dtype": "float32",
    });
    let (mean, std) = input.mean_and_deviation();
    let preprocessor = json!({
        "image_processor_type": "ConvNextImageProcessor",
        "do_resize": true,
        "size": {"shortest_edge": input.size.unwrap_or(Input::IMAGENET_SIZE)},
        "crop_pct": input.centre,
        "resample": 3,
        "do_rescale": true,
        "rescale_factor": 1.0 / 255.0,
        "do_normalize": true,
        "image_mean": mean,
        "image_std": std,
    });
    (model, preprocessor)
}
