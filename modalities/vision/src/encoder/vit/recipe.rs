//! `[encoder.vit]`: which vision transformer, and the checks of its settings.

use std::path::PathBuf;

use ctk_core::nn::{Gelu, Resampling};
use ctk_core::{Error, Result};
use ctk_images::pixels::CHANNELS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[encoder.vit]`. The defaults are those of a ViT-Ti for images of 32 pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VitRecipe {
    /// Height and width of a patch, in pixels. Sizes of images (`pairs.size`) are multiples of it.
    pub patch: usize,
    /// Height and width of the images for which positions are learned, in pixels. Those of other sizes are resampled.
    pub size: usize,
    /// Values of a token.
    pub width: usize,
    /// Blocks of attention and MLP.
    pub layers: usize,
    /// Heads of attention, which divide the width.
    pub heads: usize,
    /// Values between the two products of an MLP; 0: four times the width.
    pub inner: usize,
    /// Which token, or what of all tokens, represents an image.
    pub pooling: Pooling,
    /// Registers: further tokens without meaning of their own (Darcet et al. 2024).
    pub registers: usize,
    /// What LayerScale's factors begin with (1e-5 in DINOv2); 0: there are none.
    pub layer_scale: f64,
    /// The form of the MLP's activation.
    pub gelu: Activation,
    /// Whether tokens are normalised before the first block, as in CLIP.
    pub normalise_tokens: bool,
    /// Whether patches have a bias.
    pub patch_bias: bool,
    /// Whether the class token has a position.
    pub class_position: bool,
    /// How positions are resampled for other sizes.
    pub resampling: Resampling,
    /// What layer normalisations add to the variance.
    pub epsilon: f64,
    /// A safetensors file with initial weights, or a folder with one.
    pub weights: Option<PathBuf>,
}

/// What represents an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The class token.
    #[default]
    Class,
    /// The mean of the patches; there is no class token.
    Mean,
    /// Attention of a learned query to the patches (SigLIP); there is no class token.
    Attention,
}

/// The form of the MLP's activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU by the error function.
    #[default]
    Erf,
    /// GELU by tanh.
    Tanh,
    /// x·σ(1.702·x), that of OpenAI's CLIP.
    Quick,
}

impl From<Activation> for Gelu {
    fn from(of: Activation) -> Gelu {
        match of {
            Activation::Erf => Gelu::Erf,
            Activation::Tanh => Gelu::Tanh,
            Activation::Quick => Gelu::Quick,
        }
    }
}
