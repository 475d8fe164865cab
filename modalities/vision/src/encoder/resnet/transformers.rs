//! transformers' folders: `config.json` of a `ResNetModel`, written by `save_pretrained` and read by `AutoModel.from_pretrained`.

use ctk_core::{Error, Result};
use serde_json::{Value, json};

use super::recipe::{ResnetRecipe, blocks};

const PLAIN: &str = "microsoft/resnet-50 and its like are read, whose stride is on the 3 × 3 convolutions";

/// Checks that a model's configuration describes a network that ctk has.
///
/// # Errors
/// Another model, or a ResNet with the same names that computes something else.
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

/// The configuration of an encoder.
pub(super) fn config(of: &ResnetRecipe) -> Value {
    let planes = (0..4).map(|group| of.channels(of.base() << group));
    let sizes: Vec<usize> = planes.map(|planes| if of.bottleneck() { 4 * planes } else { planes }).collect();
    json!({
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
    })
}
