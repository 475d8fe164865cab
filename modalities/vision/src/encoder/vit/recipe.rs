//! `[encoder.vit]`: which vision transformer, and the checks of its settings.

use std::path::PathBuf;

use ctk_core::nn::{Gelu, Resampling};
use ctk_core::{Error, Result};
use ctk_images::pixels::CHANNELS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `[encoder.vit]`. The defaults are those of a ViT-Ti for images of 32 pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VitRecipe {
    /// Height and width of a patch, in pixels. Sizes of images (`pairs.size`) are multiples of it.
    pub patch: usize,
    /// Height and width, in pixels, of the images that the learned positions are for. A new run states the size of its images, or what the
    /// run has that it begins with; otherwise the default is eight patches. Positions for images of another size are resampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Values of a token.
    pub width: usize,
    /// Blocks of attention and MLP.
    pub layers: usize,
    /// Heads of attention, which divide the width.
    pub heads: usize,
    /// Values between the two products of an MLP. The default is four times the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner: Option<usize>,
    /// What represents an image.
    pub pooling: Pooling,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Whether the class token has a position.
    pub class_position: bool,
    /// Registers: further tokens that represent nothing and have no position (Darcet et al. 2024).
    pub registers: usize,
    /// LayerScale's factors before training (1e-5 in DINOv2); 0: there is no LayerScale.
    pub layer_scale: f64,
    /// The form of the MLP's activation.
    pub gelu: Activation,
    /// Whether tokens are normalised before the first block, as in CLIP.
    pub normalise_tokens: bool,
    /// Whether the layer that makes tokens of patches has a bias.
    pub patch_bias: bool,
    /// How positions are resampled for images of another size.
    pub resampling: Resampling,
    /// The number that layer normalisations add to the variance.
    pub epsilon: f64,
    /// A safetensors file with initial weights, or a folder with one, with the tensor names of timm, transformers, torchvision, open_clip or
    /// DINOv2. A classifier, a text tower and projections in it are left out.
    pub weights: Option<PathBuf>,
}

impl Default for VitRecipe {
    fn default() -> Self {
        VitRecipe {
            patch: 4,
            size: None,
            width: 192,
            layers: 12,
            heads: 3,
            inner: None,
            pooling: Pooling::Class,
            class_token: true,
            class_position: true,
            registers: 0,
            layer_scale: 0.0,
            gelu: Activation::Erf,
            normalise_tokens: false,
            patch_bias: true,
            resampling: Resampling::Antialias,
            epsilon: 1e-6,
            weights: None,
        }
    }
}

/// What represents an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The class token, normalised.
    #[default]
    Class,
    /// The mean of the patches' normalised tokens.
    Mean,
    /// The mean of the patches' tokens, which is normalised then.
    MeanThenNorm,
    /// Attention of a learned query to the normalised tokens (SigLIP).
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

/// The largest size of a network's parts: far above those in use, and products of them cannot overflow.
const MOST: usize = 1 << 16;

impl VitRecipe {
    /// Checks what parsing alone cannot. The message begins with the key.
    ///
    /// # Errors
    /// Values out of range, or that contradict each other.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::usage(what));
        let sizes = [
            ("patch", self.patch, 1, 1024),
            ("size", self.size(), 1, 1024 * MOST),
            ("width", self.width, 1, MOST),
            ("layers", self.layers, 1, 1024),
            ("heads", self.heads, 1, MOST),
            ("inner", self.inner(), 1, 4 * MOST),
            ("registers", self.registers, 0, 1024),
        ];
        for (key, value, least, most) in sizes {
            if !(least..=most).contains(&value) {
                return fail(format!("{key} must be between {least} and {most}"));
            }
        }
        if !self.size().is_multiple_of(self.patch) {
            let (size, patch) = (self.size(), self.patch);
            return Err(Error::usage(format!("size = {size} is not a whole number of patches of {patch} pixels"))
                .hint("size is for which images positions are learned: a multiple of patch"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return fail(format!("heads must divide the width: {} heads do not divide {} values", self.heads, self.width));
        }
        if self.pooling == Pooling::Class && !self.class_token {
            return fail("pooling = \"class\" needs class_token = true".to_string());
        }
        if !(0.0..=10.0).contains(&self.layer_scale) {
            return fail("layer_scale must be between 0 and 10".to_string());
        }
        if !(0.0..=1.0).contains(&self.epsilon) {
            return fail("epsilon must be between 0 and 1".to_string());
        }
        Ok(())
    }

    /// Checks that images of `size` pixels are whole patches.
    ///
    /// # Errors
    /// They are not; the message says which sizes are.
    pub(super) fn fits(&self, size: usize) -> Result<()> {
        let patch = self.patch.max(1);
        if size.is_multiple_of(patch) && size > 0 {
            return Ok(());
        }
        let below = (size / patch).max(1) * patch;
        Err(Error::usage(format!(
            "images of {size} pixels are not a whole number of patches of {patch} pixels (encoder.vit.patch)"
        ))
        .hint(format!("{below} or {} pixels are", below + patch)))
    }

    /// Height and width, in pixels, of the images that the learned positions are for.
    pub(super) fn size(&self) -> usize {
        self.size.unwrap_or(self.patch.saturating_mul(8))
    }

    /// Values between the two products of an MLP.
    pub(super) fn inner(&self) -> usize {
        self.inner.unwrap_or(self.width.saturating_mul(4))
    }

    /// Tokens of an image of `size` pixels.
    pub(super) fn tokens(&self, size: usize) -> usize {
        (size / self.patch).pow(2) + usize::from(self.class_token) + self.registers
    }

    /// Its usual name, such as `ViT-S/16`.
    pub(super) fn title(&self) -> String {
        let usual =
            NAMES.iter().find(|(_, [width, layers, heads])| [self.width, self.layers, self.heads] == [*width, *layers, *heads]);
        let name = match usual {
            Some((name, _)) => name[..1].to_uppercase() + &name[1..],
            None => format!("{}x{}", self.layers, self.width),
        };
        format!("ViT-{name}/{}", self.patch)
    }

    /// Its section of a recipe, as text.
    pub(super) fn section(&self) -> String {
        let VitRecipe { patch, width, layers, heads, registers, layer_scale, epsilon, .. } = self;
        let size = self.size();
        let word = |value: Value| value.to_string();
        let mut text = format!(
            "[encoder.vit]\npatch = {patch}\nsize = {size}\nwidth = {width}\nlayers = {layers}\nheads = {heads}\n\
             pooling = {}\nclass_token = {}\nclass_position = {}\nregisters = {registers}\nlayer_scale = {layer_scale:?}\n\
             gelu = {}\nnormalise_tokens = {}\npatch_bias = {}\nresampling = {}\nepsilon = {epsilon:?}\n",
            word(json!(self.pooling)),
            self.class_token,
            self.class_position,
            word(json!(self.gelu)),
            self.normalise_tokens,
            self.patch_bias,
            word(json!(self.resampling)),
        );
        if let Some(inner) = self.inner.filter(|inner| *inner != 4 * width) {
            text.push_str(&format!("inner = {inner}\n"));
        }
        text
    }

    /// Values that a patch has in the image.
    pub(super) fn pixels(&self) -> usize {
        CHANNELS * self.patch * self.patch
    }
}

/// The usual networks: width, layers, heads (Dosovitskiy et al. 2021, table 1; Touvron et al. 2021a for the two small ones).
pub(super) const NAMES: [(&str, [usize; 3]); 4] =
    [("ti", [192, 12, 3]), ("s", [384, 12, 6]), ("b", [768, 12, 12]), ("l", [1024, 24, 16])];

/// `vit-s16` sets the sizes of ViT-S with patches of 16 pixels.
pub(super) fn named(word: &str) -> Option<Vec<(&'static str, String)>> {
    let rest = word.strip_prefix("vit-")?;
    let digits = rest.find(|c: char| c.is_ascii_digit())?;
    let (name, patch) = rest.split_at(digits);
    let (_, sizes) = NAMES.iter().find(|(known, _)| *known == name)?;
    patch.parse::<usize>().ok().filter(|patch| (1..=1024).contains(patch))?;
    let keys = ["width", "layers", "heads"].into_iter().zip(sizes.map(|size| size.to_string()));
    Some(keys.chain([("patch", patch.to_string())]).collect())
}
