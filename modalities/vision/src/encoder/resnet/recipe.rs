//! `[encoder.resnet]`: which residual network, the checks of its settings, and its numbers of channels.

use std::path::PathBuf;

use ctk_core::{Error, Result};
use ctk_images::pixels::CHANNELS;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

/// `[encoder.resnet]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResnetRecipe {
    /// Layers: 18, 34, 50, 101, 152 or 200; or CIFAR's narrow family of 20, 32, 44, 56 or 110.
    #[serde(deserialize_with = "depth")]
    pub depth: usize,
    /// Multiplies every number of channels, including stem and output; each is rounded to the nearest multiple of 8. At least .25.
    #[serde(deserialize_with = "width")]
    pub width: f64,
    /// The stem, the layers before the blocks.
    pub stem: Stem,
    /// Channels that the first convolution reads: 3, or 1 for gray images such as radiographs (colour images are converted by .299 red +
    /// .587 green + .114 blue).
    pub channels: usize,
    /// The variant of the network's structure.
    pub variant: Variant,
    /// SimCLRv2's selective kernels: the gate's width as a fraction of the block's (.0625 there). 0 turns them off; they need depth 50 or
    /// more.
    #[serde(deserialize_with = "sk_ratio")]
    pub sk_ratio: f64,
    /// A safetensors file with initial weights, or a folder with one, with the tensor names of torchvision, timm, transformers or
    /// SimCLRv2's PyTorch conversion. A classifier or a head in it is left out.
    pub weights: Option<PathBuf>,
}

impl Default for ResnetRecipe {
    fn default() -> Self {
        ResnetRecipe {
            depth: 18,
            width: 1.0,
            stem: Stem::Small,
            channels: CHANNELS,
            variant: Variant::Torchvision,
            sk_ratio: 0.0,
            weights: None,
        }
    }
}

/// The stem, the layers before the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 3 × 3 convolution with stride 1, for images of about 32 pixels.
    Small,
    /// A 7 × 7 convolution with stride 2 and a max-pool, which reduce the size to a quarter.
    Imagenet,
}

/// The variant of a network's structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// PyTorch's: loads into `torchvision.models`.
    Torchvision,
    /// That of google-research/simclr.
    Google,
    /// SimCLRv2's as computed by its public PyTorch conversion (Separius/SimCLRv2-Pytorch): PyTorch's max-pool, and shortcuts whose average
    /// counts zeros below and to the right in every group. Without `sk_ratio` it is the same as `torchvision`.
    Simclrv2Pytorch,
    /// timm's `resnet*d`: the stem and the shortcuts that selective kernels have, without selective kernels. Averages are over pixels
    /// inside the image, and there is none where the stride is 1.
    ResnetD,
}

fn depth<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let depth = usize::deserialize(from)?;
    blocks(depth).map(|_| depth).ok_or_else(|| D::Error::custom(DEPTHS))
}

fn width<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let width = f64::deserialize(from)?;
    if (0.25..=64.0).contains(&width) { Ok(width) } else { Err(D::Error::custom(WIDTHS)) }
}

fn sk_ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(from)?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(D::Error::custom(RATIOS)) }
}

const DEPTHS: &str = "depth must be 18, 34, 50, 101, 152 or 200, or 20, 32, 44, 56 or 110";
const WIDTHS: &str = "width must be between 0.25 and 64";
const RATIOS: &str = "sk_ratio must be between 0 and 1";

/// All depths.
pub(super) const ALL_DEPTHS: [usize; 11] = [18, 34, 50, 101, 152, 200, 20, 32, 44, 56, 110];

/// Blocks in each group: four groups, or the three of CIFAR's networks, which have 6n + 2 layers.
pub(super) fn blocks(depth: usize) -> Option<Vec<usize>> {
    Some(match depth {
        18 => vec![2, 2, 2, 2],
        34 | 50 => vec![3, 4, 6, 3],
        101 => vec![3, 4, 23, 3],
        152 => vec![3, 8, 36, 3],
        200 => vec![3, 24, 36, 3],
        20 | 32 | 44 | 56 | 110 => vec![(depth - 2) / 6; 3],
        _ => return None,
    })
}

impl ResnetRecipe {
    /// Checks what parsing alone cannot. The message names the key.
    ///
    /// # Errors
    /// Values out of range, or selective kernels in a network without bottlenecks.
    pub fn check(&self) -> Result<()> {
        let fail = |what: &str| Err(Error::usage(what));
        if blocks(self.depth).is_none() {
            return fail(DEPTHS);
        }
        if !(0.25..=64.0).contains(&self.width) {
            return fail(WIDTHS);
        }
        if !(0.0..=1.0).contains(&self.sk_ratio) {
            return fail(RATIOS);
        }
        if ![1, CHANNELS].contains(&self.channels) {
            return fail("channels must be 3, or 1 for gray images");
        }
        if self.narrow() && self.stem != Stem::Small {
            return Err(Error::usage(format!(
                "ResNet-{} is made for small images, and this stem divides them by four",
                self.depth
            ))
            .hint("use stem = \"small\", or depth 18 or 34"));
        }
        if self.selects() && !self.bottleneck() {
            return Err(Error::usage(format!("sk_ratio needs bottleneck blocks, which a ResNet-{} does not have", self.depth))
                .hint("use depth 50, 101, 152 or 200, or sk_ratio = 0"));
        }
        Ok(())
    }

    /// Its section of a recipe, as text.
    pub(super) fn section(&self) -> String {
        let ResnetRecipe { depth, width, sk_ratio, .. } = self;
        let name = |value: Value| value.as_str().unwrap_or_default().to_string();
        let (stem, variant) = (name(json!(self.stem)), name(json!(self.variant)));
        let gray = if self.channels == 1 { "channels = 1\n" } else { "" };
        format!(
            "[encoder.resnet]\ndepth = {depth}\nwidth = {width:?}\nstem = \"{stem}\"\nvariant = \"{variant}\"\n\
             {gray}sk_ratio = {sk_ratio:?}\n"
        )
    }

    /// Whether a block has three convolutions, the last four times as wide.
    pub(super) fn bottleneck(&self) -> bool {
        self.depth >= 50 && !self.narrow()
    }

    /// Whether it is one of CIFAR's networks.
    fn narrow(&self) -> bool {
        blocks(self.depth).is_some_and(|groups| groups.len() == 3)
    }

    /// Channels of the first group before the width multiplier.
    pub(super) fn base(&self) -> usize {
        if self.narrow() { 16 } else { 64 }
    }

    /// Whether it has selective kernels.
    pub(super) fn selects(&self) -> bool {
        self.sk_ratio > 0.0
    }

    /// Whether it is a ResNet-D: a stem of three convolutions, shortcuts that average.
    pub(super) fn averages(&self) -> bool {
        self.selects() || self.variant == Variant::ResnetD
    }

    /// `base` channels times the width multiplier, to the nearest multiple of 8, which suits vector registers and is exact for the usual
    /// widths (¼, ½, 1, 2, 3).
    pub(super) fn channels(&self, base: usize) -> usize {
        ((base as f64 * self.width / 8.0).round() as usize).max(1) * 8
    }

    /// The width of the gate of selective kernels with `f` channels.
    pub(super) fn gate(&self, f: usize) -> usize {
        ((self.sk_ratio * f as f64) as usize).max(32)
    }
}
