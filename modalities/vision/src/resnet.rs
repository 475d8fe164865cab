//! Residual networks (He et al. 2016) as SimCLR uses them, under torchvision's names.
//!
//! `variant = "torchvision"` is laid out like `torchvision.models.resnet*` without its classifier, so that a checkpoint loads
//! straight into PyTorch. `variant = "google"` is google-research/simclr's: it projects the first block of EVERY group, pools as
//! TensorFlow does and draws its weights as Keras does. Selective kernels (`sk_ratio`) bring ResNet-D with them in every
//! variant, as in SimCLRv2: a stem of three 3 × 3 convolutions and shortcuts that average before they project.
//! `variant = "simclrv2-pytorch"` pads as the public PyTorch conversion of SimCLRv2's networks does, `"resnet-d"` is ResNet-D (He et
//! al. 2019) without selective kernels, as timm builds it. Other programs' weights are read and written in
//! [`interop`](crate::interop).
//!
//! Depths 20, 32, 44, 56 and 110 are He et al.'s networks for CIFAR (§4.2): three groups of 16, 32 and 64 channels behind the
//! small stem, here with projecting shortcuts.

use std::path::PathBuf;

use candle_core::Tensor;
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::{Init, Params, Scope};
use ctk_core::nn::pass::Pass;
use ctk_core::nn::{AvgPool, BatchNorm, Conv2d, Layer, MaxPool, Padding, Residual, Select, Sequential};
use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::pixels::{CHANNELS, Pixels};

/// `[encoder.resnet]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResnetRecipe {
    /// Layers: 18, 34, 50, 101, 152 or 200; or CIFAR's narrow family of 20, 32, 44, 56 or 110.
    #[serde(deserialize_with = "depth")]
    pub depth: usize,
    /// Multiplies every channel count, stem and output included; each is rounded to the nearest multiple of 8. At least .25.
    #[serde(deserialize_with = "width")]
    pub width: f64,
    /// What comes before the blocks.
    pub stem: Stem,
    /// Whose layout it has.
    pub variant: Variant,
    /// SimCLRv2's selective kernels: the gate's width as a share of the block's (.0625 there). 0 is off; needs depth 50 or more.
    #[serde(deserialize_with = "sk_ratio")]
    pub sk_ratio: f64,
    /// A safetensors file to start from, or a folder that holds one, as torchvision, timm, transformers or SimCLRv2's PyTorch
    /// conversion name the tensors; a classifier or a head in it is left out.
    pub weights: Option<PathBuf>,
}

impl Default for ResnetRecipe {
    fn default() -> Self {
        ResnetRecipe { depth: 18, width: 1.0, stem: Stem::Small, variant: Variant::Torchvision, sk_ratio: 0.0, weights: None }
    }
}

/// What comes before the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 3 × 3 convolution with stride 1, for images of about 32 pixels.
    Small,
    /// A 7 × 7 convolution with stride 2 and a max-pool: a quarter of the size.
    Imagenet,
}

/// Whose layout a network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// PyTorch's: loads into `torchvision.models`.
    Torchvision,
    /// google-research/simclr's.
    Google,
    /// SimCLRv2's as its public PyTorch conversion (Separius/SimCLRv2-Pytorch) computes them: the max-pool of PyTorch, and
    /// shortcuts whose average counts zeros below and to the right in every group. Without `sk_ratio` it is `torchvision`.
    Simclrv2Pytorch,
    /// timm's `resnet*d`: the stem and the shortcuts that selective kernels bring, without these; an average is over what lies
    /// inside, and there is none where the stride is 1.
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

/// Every depth there is.
pub(crate) const ALL_DEPTHS: [usize; 11] = [18, 34, 50, 101, 152, 200, 20, 32, 44, 56, 110];

/// Blocks in each group: four, or the three of CIFAR's family, which has 6n + 2 layers.
pub(crate) fn blocks(depth: usize) -> Option<Vec<usize>> {
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
    /// What parsing alone cannot see. The message names the key.
    ///
    /// # Errors
    /// For values out of range and for selective kernels in a network without bottlenecks.
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
        if self.narrow() && self.stem != Stem::Small {
            return Err(Error::usage(format!(
                "ResNet-{} is made for small images, and this stem divides them by four",
                self.depth
            ))
            .hint("use stem = \"small\", or depth 18 or 34"));
        }
        if self.selects() && !self.bottleneck() {
            return Err(Error::usage(format!("sk_ratio needs bottleneck blocks, which a ResNet-{} has not", self.depth))
                .hint("use depth 50, 101, 152 or 200, or sk_ratio = 0"));
        }
        Ok(())
    }

    /// Products of two numbers in one image's forward pass, its convolutions computed directly; `params` are the network's,
    /// declared below `prefix.`.
    pub fn products(&self, params: &Params, prefix: &str, size: usize) -> usize {
        let (stem, first) = if self.stem == Stem::Imagenet { (size.div_ceil(2), size.div_ceil(4)) } else { (size, size) };
        let side = |name: &str| match name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
            None => stem,
            Some((_, rest)) if rest.contains(".sk.") => 1,
            Some((group, rest)) => {
                let group: u32 = group.parse().unwrap_or(1);
                // A bottleneck's first convolution comes before its stride.
                let before = group > 1 && self.bottleneck() && rest.starts_with("0.conv1.");
                first.div_ceil(1 << (group - 1 - u32::from(before)))
            }
        };
        let convolutions = params.iter().filter(|param| param.dims().len() == 4);
        let named = convolutions.filter_map(|param| Some((param, param.name().strip_prefix(prefix)?.strip_prefix('.')?)));
        named.map(|(param, name)| param.dims().iter().product::<usize>() * side(name).pow(2)).sum()
    }

    /// Whether a block is three convolutions, the last four times as wide.
    pub(crate) fn bottleneck(&self) -> bool {
        self.depth >= 50 && !self.narrow()
    }

    /// Whether it is one of CIFAR's family.
    fn narrow(&self) -> bool {
        blocks(self.depth).is_some_and(|groups| groups.len() == 3)
    }

    /// Channels of the first group before the width.
    pub(crate) fn base(&self) -> usize {
        if self.narrow() { 16 } else { 64 }
    }

    /// Whether it has selective kernels.
    pub(crate) fn selects(&self) -> bool {
        self.sk_ratio > 0.0
    }

    /// Whether it is a ResNet-D: a stem of three convolutions, shortcuts that average.
    fn averages(&self) -> bool {
        self.selects() || self.variant == Variant::ResnetD
    }

    /// `base` channels times the width, to the nearest multiple of 8: what vector registers and matrix kernels like, and
    /// exact for the widths in use (¼, ½, 1, 2, 3).
    pub(crate) fn channels(&self, base: usize) -> usize {
        ((base as f64 * self.width / 8.0).round() as usize).max(1) * 8
    }

    fn conv(&self, [output, input]: [usize; 2], kernel: usize, stride: usize, scope: Scope) -> Layer {
        let taps = (kernel * kernel) as f64;
        let init = match self.variant {
            // He et al. 2015, fan-out, as torchvision's `resnet.py`.
            Variant::Torchvision | Variant::Simclrv2Pytorch | Variant::ResnetD => {
                Init::Normal { std: (2.0 / (taps * output as f64)).sqrt() }
            }
            // Keras' `VarianceScaling()`: the standard deviation is meant after cutting at two, which takes 12 % off.
            Variant::Google => Init::TruncatedNormal { std: (1.0 / (taps * input as f64)).sqrt() / 0.879_625_661_034_239_8 },
        };
        Layer::Conv2d(Conv2d::new([output, input], kernel, stride, (kernel - 1) / 2, init, scope))
    }

    fn stem(&self, layers: &mut Vec<Layer>, scope: &mut Scope) -> usize {
        let width = self.channels(self.base());
        match (self.stem, self.averages()) {
            (Stem::Small, _) => layers.push(self.conv([width, CHANNELS], 3, 1, scope.sub("conv1"))),
            (Stem::Imagenet, false) => layers.push(self.conv([width, CHANNELS], 7, 2, scope.sub("conv1"))),
            (Stem::Imagenet, true) => {
                // ResNet-D's, numbered as in timm: convolution, norm and ReLU each count.
                let half = self.channels(32);
                let mut scope = scope.sub("conv1");
                layers.push(self.conv([half, CHANNELS], 3, 2, scope.sub(0)));
                layers.push(normalise_relu(half, scope.sub(1)));
                layers.push(self.conv([half, half], 3, 1, scope.sub(3)));
                layers.push(normalise_relu(half, scope.sub(4)));
                layers.push(self.conv([width, half], 3, 1, scope.sub(6)));
            }
        }
        layers.push(normalise_relu(width, scope.sub("bn1")));
        if self.stem == Stem::Imagenet {
            let padding = match self.variant {
                Variant::Torchvision | Variant::Simclrv2Pytorch | Variant::ResnetD => Padding::Both(1),
                Variant::Google => Padding::Same,
            };
            layers.push(Layer::MaxPool(MaxPool::new(3, 2, padding)));
        }
        width
    }

    fn block(&self, [output, input]: [usize; 2], stride: usize, first: bool, mut scope: Scope) -> Layer {
        let body = match (self.bottleneck(), self.selects()) {
            (false, _) => vec![
                self.conv([output, input], 3, stride, scope.sub("conv1")),
                normalise_relu(output, scope.sub("bn1")),
                self.conv([output, output], 3, 1, scope.sub("conv2")),
                normalise_last(output, scope.sub("bn2")),
            ],
            (true, selects) => {
                let middle = output / 4;
                let mut body =
                    vec![self.conv([middle, input], 1, 1, scope.sub("conv1")), normalise_relu(middle, scope.sub("bn1"))];
                let streams = if selects { 2 * middle } else { middle };
                body.push(self.conv([streams, middle], 3, stride, scope.sub("conv2")));
                body.push(normalise_relu(streams, scope.sub("bn2")));
                if selects {
                    body.push(self.select(middle, scope.sub("sk")));
                }
                body.push(self.conv([output, middle], 1, 1, scope.sub("conv3")));
                body.push(normalise_last(output, scope.sub("bn3")));
                body
            }
        };
        let projects = first && (stride > 1 || input != output || self.variant == Variant::Google);
        let shortcut = if projects { self.shortcut([output, input], stride, scope.sub("downsample")) } else { Vec::new() };
        Layer::Residual(Residual { body, shortcut })
    }

    fn shortcut(&self, channels: [usize; 2], stride: usize, mut scope: Scope) -> Vec<Layer> {
        let mut layers = Vec::new();
        let mut number = 0..;
        let mut next = || number.next().unwrap_or(0);
        let stride = if self.averages() {
            layers.extend(self.average(stride).map(Layer::AvgPool));
            next();
            1
        } else {
            stride
        };
        layers.push(self.conv(channels, 1, stride, scope.sub(next())));
        layers.push(Layer::BatchNorm(BatchNorm::new(channels[0], 1.0, scope.sub(next()))));
        layers
    }

    /// What a ResNet-D's shortcut averages by.
    fn average(&self, stride: usize) -> Option<AvgPool> {
        let (padding, zeros) = match (self.variant, stride) {
            (Variant::ResnetD, 1) => return None,
            (Variant::ResnetD, _) => (Padding::After(1), false),
            (Variant::Simclrv2Pytorch, _) => (Padding::After(1), true),
            // SimCLR's `resnet.py` pads zeros below and to the right, and counts them, except with stride 1.
            (Variant::Torchvision | Variant::Google, 1) => (Padding::Same, false),
            (Variant::Torchvision | Variant::Google, _) => (Padding::After(1), true),
        };
        Some(AvgPool::new(2, stride, padding, zeros))
    }

    /// How wide the gate of selective kernels of `f` channels is.
    pub(crate) fn gate(&self, f: usize) -> usize {
        ((self.sk_ratio * f as f64) as usize).max(32)
    }

    /// Selective kernels of `f` channels, mixed by their gate.
    fn select(&self, f: usize, mut scope: Scope) -> Layer {
        let middle = self.gate(f);
        let gate = vec![
            self.conv([middle, f], 1, 1, scope.sub("conv1")),
            normalise_relu(middle, scope.sub("bn1")),
            self.conv([2 * f, middle], 1, 1, scope.sub("conv2")),
        ];
        Layer::Select(Select { gate })
    }
}

fn normalise_relu(channels: usize, scope: Scope) -> Layer {
    Layer::BatchNorm(BatchNorm::new(channels, 1.0, scope).relu())
}

/// The last normalisation of a block starts at 0, so that the block starts as its shortcut (Goyal et al. 2017, §5.1).
fn normalise_last(channels: usize, scope: Scope) -> Layer {
    Layer::BatchNorm(BatchNorm::new(channels, 0.0, scope))
}

/// A residual network up to its global average: images to representations h.
pub struct ResNet {
    layers: Sequential,
    width: usize,
}

impl ResNet {
    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// Those of [`ResnetRecipe::check`].
    pub fn new(recipe: &ResnetRecipe, mut scope: Scope) -> Result<ResNet> {
        recipe.check()?;
        let mut layers = Vec::new();
        let mut input = recipe.stem(&mut layers, &mut scope);
        for (group, count) in blocks(recipe.depth).unwrap_or_default().into_iter().enumerate() {
            let planes = recipe.channels(recipe.base() << group);
            let output = if recipe.bottleneck() { 4 * planes } else { planes };
            let mut scope = scope.sub(format!("layer{}", group + 1));
            for i in 0..count {
                let stride = if i == 0 && group > 0 { 2 } else { 1 };
                layers.push(recipe.block([output, input], stride, i == 0, scope.sub(i)));
                input = output;
            }
        }
        layers.push(Layer::GlobalAverage);
        Ok(ResNet { layers: Sequential::new(layers, scope.sink()), width: input })
    }

    /// Whether to run in plain tensor operations, the reference of the kernels: see [`Sequential::exact`].
    pub fn exact(self, exact: bool) -> ResNet {
        ResNet { layers: self.layers.exact(exact), ..self }
    }
}

impl Encoder for ResNet {
    type Views = Pixels;

    fn width(&self) -> usize {
        self.width
    }

    /// `(n, h, w, 3)` images of any size to `(n, width)`.
    fn encode(&self, x: &Tensor, pass: &Pass) -> Result<Tensor> {
        self.layers.forward(x, pass)
    }
}

#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;
