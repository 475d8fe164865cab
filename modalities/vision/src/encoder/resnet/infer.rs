//! Infers the ResNet from names and shapes: depth from the number of blocks, width from the channels, selective kernels from the gates.
//!
//! What they do not show is taken from the layout's convention: PyTorch's max-pool and, in bottlenecks, the stride on the 3 × 3
//! convolution. Then the network is declared, and every name and shape must agree with the file.

use std::collections::BTreeSet;

use ctk_core::nn::params::Params;
use ctk_core::recipe::{HeadRecipe, Norms};
use ctk_core::{Error, Result};
use ctk_images::pixels::CHANNELS;

use super::names::{Layout, Names};
use super::recipe::{ALL_DEPTHS, ResnetRecipe, Stem, Variant, blocks};
use crate::encoder::file::File;

/// The depths and kinds that are known, as a hint.
const KNOWN: &str = "ctk has ResNet-18, 34, 50, 101, 152 and 200 of any width, and CIFAR's 20, 32, 44, 56 and 110";

/// The ratio of a gate's width to its block's in SimCLRv2.
const PUBLISHED_RATIO: f64 = 0.0625;

/// The encoder in a file.
pub(super) fn encoder(names: &Names, file: &File) -> Result<ResnetRecipe> {
    let dims = |ours: &str| file.dims(&names.encoder(ours)?);
    // The number of output channels of the convolution `ours`.
    let channels = |ours: &str| dims(ours).and_then(|dims| dims.first()).copied();

    let counts: Vec<usize> = (1..)
        .map(|group| (0..).take_while(|block| dims(&format!("layer{group}.{block}.conv1.weight")).is_some()).count())
        .take_while(|&count| count > 0)
        .collect();
    let bottleneck = dims("layer1.0.conv3.weight").is_some();
    let of_depth = |depth: usize| ResnetRecipe { depth, ..ResnetRecipe::default() };
    let fits = |depth: &usize| blocks(*depth).as_ref() == Some(&counts) && of_depth(*depth).bottleneck() == bottleneck;
    let depth = ALL_DEPTHS.into_iter().find(fits).ok_or_else(|| {
        let kind = if bottleneck { "bottlenecks" } else { "blocks of two convolutions" };
        Error::usage(format!("groups of {counts:?} {kind} are not a ResNet that ctk builds")).hint(KNOWN)
    })?;
    // After an average, a shortcut's convolution is its second layer.
    let averages = dims("layer2.0.downsample.1.weight").is_some_and(|dims| dims.len() == 4);
    let deep = dims("conv1.0.weight").is_some();
    let gray = ["conv1.weight", "conv1.0.weight"].iter().find_map(|name| dims(name)).is_some_and(|dims| dims.get(1) == Some(&1));
    let channels_in = if gray { 1 } else { CHANNELS };
    let found = ResnetRecipe {
        channels: channels_in,
        stem: stem(names, dims("conv1.weight"), deep.then_some(averages))?,
        ..of_depth(depth)
    };

    let planes = (0..counts.len()).map(|group| (found.base() << group, channels(&format!("layer{}.0.conv1.weight", group + 1))));
    let stem = (found.base(), channels("bn1.weight"));
    let planes: Vec<(usize, usize)> = planes.chain([stem]).filter_map(|(base, there)| Some((base, there?))).collect();
    let width = width(&found, &planes).ok_or_else(|| {
        Error::usage(format!("a ResNet-{depth} cannot have these channels at any width: {planes:?}")).hint(KNOWN)
    })?;
    let variant = match names.layout {
        Layout::Simclrv2 if names.selects => Variant::Simclrv2Pytorch,
        _ if averages && !names.selects => Variant::ResnetD,
        // Other variants have no projection where no channels are added.
        _ if !bottleneck && dims("layer1.0.downsample.0.weight").is_some() => Variant::Google,
        _ => Variant::Torchvision,
    };
    let found = ResnetRecipe { width, variant, ..found };
    if !names.selects {
        return Ok(found);
    }
    let gates = (1..=counts.len()).map(|group| channels(&format!("layer{group}.0.sk.conv1.weight")));
    let gates: Vec<(usize, usize)> = planes.iter().zip(gates).filter_map(|(&(_, f), there)| Some((f, there?))).collect();
    let sk_ratio = ratio(&found, &gates).ok_or_else(|| {
        Error::usage(format!("these gates of selective kernels have no common ratio to their blocks: {gates:?}"))
    })?;
    Ok(ResnetRecipe { sk_ratio, ..found })
}

/// The projection head in a file; no layers if it has none. A head with more layers than ctk supports is left to the recipe's check.
pub(super) fn head(names: &Names, file: &File) -> HeadRecipe {
    let dims = |ours: &str| file.dims(&names.head(ours)?);
    let layers = (0..).take_while(|layer| dims(&format!("layers.{layer}.weight")).is_some()).count();
    let shape = |layer: usize| dims(&format!("layers.{layer}.weight")).unwrap_or_default();
    let Some(last) = layers.checked_sub(1) else { return HeadRecipe { layers: 0, ..HeadRecipe::default() } };
    let width = shape(last).first().copied().unwrap_or(0);
    let (middle, input) = (shape(0).first().copied(), shape(0).get(1).copied());
    HeadRecipe { layers, width, hidden: middle.filter(|_| layers > 1 && middle != input), norms: Norms::All, bias: true }
}

/// The stem by the shape of its first convolution; with three convolutions, by whether the shortcuts average.
fn stem(names: &Names, conv1: Option<&[usize]>, deep: Option<bool>) -> Result<Stem> {
    match conv1 {
        None if deep == Some(true) => Ok(Stem::Imagenet),
        None if deep == Some(false) => {
            Err(Error::usage("this is a ResNet-C: ctk's stem of three convolutions comes with shortcuts that average")
                .hint("use a plain resnet, or a ResNet-D: torchvision's, timm's without a letter behind its depth or with d"))
        }
        Some([_, input, _, _]) if ![1, CHANNELS].contains(input) => {
            Err(Error::usage(format!("this network reads images of {input} channels, and ctk's are of {CHANNELS}, or gray"))
                .hint("every image is decoded to red, green and blue"))
        }
        Some([_, _, 7, 7]) => Ok(Stem::Imagenet),
        // transformers' network has a stem of its own, whatever its kernel.
        Some([_, _, 3, 3]) if matches!(names.layout, Layout::Torchvision | Layout::Sequential) => Ok(Stem::Small),
        Some([_, _, height, width]) => {
            Err(Error::usage(format!("a stem of one {height} × {width} convolution is not one that ctk has"))
                .hint("it has 7 × 7 before a max-pool, and under torchvision's names 3 × 3 without one"))
        }
        _ => Err(Error::usage("the file has no first convolution").hint(KNOWN)),
    }
}

/// The width multiplier of `of` that gives these channels; each is paired with its number without the multiplier.
fn width(of: &ResnetRecipe, planes: &[(usize, usize)]) -> Option<f64> {
    let fits = |&width: &f64| planes.iter().all(|&(base, there)| ResnetRecipe { width, ..of.clone() }.channels(base) == there);
    let shares = planes.iter().map(|&(base, there)| there as f64 / base as f64);
    // Channels are rounded to multiples of eight, so several multipliers give the same channels; the middle one is used.
    let low = planes.iter().map(|&(base, there)| (there as f64 - 4.0) / base as f64).fold(0.0, f64::max);
    let high = planes.iter().map(|&(base, there)| (there as f64 + 4.0) / base as f64).fold(f64::INFINITY, f64::min);
    shares.chain([(low + high) / 2.0]).find(fits)
}

/// The ratio of these gates to their blocks' widths.
fn ratio(of: &ResnetRecipe, gates: &[(usize, usize)]) -> Option<f64> {
    let fits = |&sk_ratio: &f64| gates.iter().all(|&(f, there)| ResnetRecipe { sk_ratio, ..of.clone() }.gate(f) == there);
    // Widths are rounded down to whole channels, and at least 32; so half a channel is added.
    let shares = gates.iter().map(|&(f, there)| (there as f64 + 0.5) / f as f64);
    [PUBLISHED_RATIO].into_iter().chain(gates.iter().map(|&(f, there)| there as f64 / f as f64)).chain(shares).find(fits)
}

/// Checks that the file holds exactly the declared network. Returns the file's name of each tensor, in order. With `head`, also for the
/// projection head.
pub(super) fn agree(names: &Names, file: &File, params: &Params, head: bool) -> Result<Vec<(String, String)>> {
    const HINT: &str = "depth, width, stem, variant and sk_ratio must be the file's; other kinds of ResNet are not read";
    let fail = |what: String| Err(Error::usage(what).hint(HINT));
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for param in params.iter() {
        let theirs = match param.name().split_once('.') {
            Some(("encoder", ours)) => names.encoder(ours).ok_or(ours),
            Some(("head", ours)) if head => names.head(ours).ok_or(ours),
            _ => continue,
        };
        let Ok(theirs) = theirs else {
            return fail(format!("the network has `{}`, and the layout {} no name for it", param.name(), names.layout));
        };
        match file.dims(&theirs) {
            None => return fail(format!("the tensor `{theirs}` is missing")),
            Some(dims) if dims != param.dims() => {
                return fail(format!("the tensor `{theirs}` has shape {dims:?}, the network wants {:?}", param.dims()));
            }
            Some(_) => {}
        }
        known.insert(theirs.clone());
        found.push((param.name().to_string(), theirs));
    }
    let in_head = |name: &str| names.layout == Layout::Simclrv2 && name.starts_with("head.");
    known.extend(last_shift(names, params).filter(|_| head));
    let foreign = |name: &&str| !known.contains(*name) && !names.ignored(name) && (head || !in_head(name));
    let foreign: Vec<&str> = file.names().filter(foreign).collect();
    match foreign[..] {
        [] => Ok(found),
        [name, ..] => fail(format!("the file holds `{name}` ({} more), which this network has not", foreign.len() - 1)),
    }
}

/// The name, in a file, of the shift of the head's last normalisation, which ctk's head does not have.
pub(super) fn last_shift(names: &Names, params: &Params) -> Option<String> {
    let matrix = |name: &str| name.starts_with("head.layers.") && name.ends_with(".weight");
    let layers = params.iter().filter(|param| matrix(param.name())).count();
    names.head(&format!("norms.{}.bias", layers.checked_sub(1)?))
}
