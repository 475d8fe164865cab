//! Residual networks (He et al. 2016) as SimCLR uses them, with torchvision's tensor names.
//!
//! `variant = "torchvision"` has the structure of `torchvision.models.resnet*` without its classifier, so that PyTorch loads a checkpoint
//! directly. `variant = "google"` is that of google-research/simclr: it has a projection in the first block of EVERY group, pools as
//! TensorFlow does and initialises its weights as Keras does. With selective kernels (`sk_ratio`) every variant is also a ResNet-D, as in
//! SimCLRv2: a stem of three 3 × 3 convolutions, and shortcuts that average before they project. `variant = "simclrv2-pytorch"` pads as the
//! public PyTorch conversion of SimCLRv2's networks does, and `"resnet-d"` is ResNet-D (He et al. 2019) without selective kernels, as in
//! timm. [`Weights`] reads other programs' weights, `export` writes them.
//!
//! Depths 20, 32, 44, 56 and 110 are He et al.'s networks for CIFAR (§4.2): three groups of 16, 32 and 64 channels after the small stem,
//! here with projecting shortcuts.

mod export;
mod infer;
mod names;
mod network;
mod recipe;
mod timm;
mod transformers;
mod weights;

use std::path::Path;

use ctk_core::Result;
use ctk_core::nn::params::{Params, Scope};
use serde_json::{Value, json};

use super::architecture::{Architecture, Exported, Family, Foreign, ImageEncoder, SAFETENSORS, Values};
use super::file::File;

pub use names::Layout;
pub use network::ResNet;
pub use recipe::{ResnetRecipe, Stem, Variant};
pub use weights::Weights;

/// Properties of ResNets that do not depend on a recipe.
pub(super) const FAMILY: Family = Family {
    name: "resnet",
    title: weights::TITLE,
    words: "write resnet and its depth, as in resnet18: 18, 34, 50, 101, 152 or 200, or 20, 32, 44, 56 or 110",
    named,
    reads: weights::READS,
    recognise,
};

/// `resnet18` sets depth 18 and width 1: a name stands for the whole standard network.
fn named(word: &str) -> Option<Vec<(&'static str, String)>> {
    let depth = word.strip_prefix("resnet").filter(|depth| depth.parse::<usize>().is_ok())?;
    Some(vec![("depth", depth.to_string()), ("width", "1.0".to_string())])
}

fn recognise(file: &File) -> Result<Option<Box<dyn Foreign>>> {
    Ok(Weights::recognise(file)?.map(|weights| Box::new(weights) as Box<dyn Foreign>))
}

impl Architecture for ResnetRecipe {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<()> {
        ResnetRecipe::check(self)
    }

    fn build(&self, scope: Scope) -> Result<Box<dyn ImageEncoder>> {
        Ok(Box::new(ResNet::new(self, scope)?))
    }

    fn weights(&self) -> Option<&Path> {
        self.weights.as_deref()
    }

    fn forget_weights(&mut self) {
        self.weights = None;
    }

    fn load(&self, file: &Path, params: &Params) -> Result<()> {
        Weights::open(file)?.load(params, false)
    }

    /// Products of direct convolutions.
    fn products(&self, params: &Params, prefix: &str, size: usize) -> usize {
        self.convolutions(params, prefix, size).map(|(dims, side)| dims.iter().product::<usize>() * side.pow(2)).sum()
    }

    /// Multiples of the convolutions' outputs, measured with `ctk bench vision` on ResNet-18 and ResNet-50.
    fn values(&self, params: &Params, prefix: &str, size: usize) -> Values {
        let outputs = self.convolutions(params, prefix, size).map(|(dims, side)| dims[0] * side.pow(2)).sum::<usize>() as f64;
        Values { step: 2.0 * outputs, recomputed: outputs, evaluation: 0.25 * outputs }
    }

    fn figures(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("depth", json!(self.depth)),
            ("width", json!(self.width)),
            ("stem", json!(self.stem)),
            ("channels", json!(self.channels)),
            ("variant", json!(self.variant)),
            ("sk_ratio", json!(self.sk_ratio)),
        ]
    }

    fn timed(&self) -> Vec<(&'static str, Value)> {
        vec![("encoder", json!(format!("resnet{}", self.depth))), ("width", json!(self.width)), ("stem", json!(self.stem))]
    }

    fn formats(&self) -> &'static [&'static str] {
        &export::FORMATS
    }

    fn refused(&self, format: &str) -> Option<String> {
        if format == SAFETENSORS { None } else { export::refused(format, self) }
    }

    fn export(&self, format: &str, of: Exported, out: &Path) -> Result<Vec<String>> {
        export::write(format, self, of, out)
    }
}

impl ResnetRecipe {
    /// The weight's shape and the output's height of every convolution below `prefix.`, for images of `size` pixels.
    fn convolutions<'a>(
        &'a self,
        params: &'a Params,
        prefix: &'a str,
        size: usize,
    ) -> impl Iterator<Item = (&'a [usize], usize)> {
        let (stem, first) = if self.stem == Stem::Imagenet { (size.div_ceil(2), size.div_ceil(4)) } else { (size, size) };
        let side = move |name: &str| match name.strip_prefix("layer").and_then(|rest| rest.split_once('.')) {
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
        let named = convolutions.filter_map(move |param| Some((param, param.name().strip_prefix(prefix)?.strip_prefix('.')?)));
        named.map(move |(param, name)| (param.dims(), side(name)))
    }
}

#[cfg(test)]
mod interop_tests;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod tests;
