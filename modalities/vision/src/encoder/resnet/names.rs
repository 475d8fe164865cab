//! The key map between ctk's tensor names and those of other layouts, used in both directions.
//!
//! In the table `g` counts groups from 1 and `i` a group's blocks from 0; `{bn}` stands for `weight`, `bias`, `running_mean` and
//! `running_var`. Ctk's names are torchvision's, which timm also has for its plain ResNets and ResNet-Ds:
//!
//! | ours | transformers | SimCLRv2's conversion | … with selective kernels |
//! |---|---|---|---|
//! | `conv1.weight` | `embedder.embedder.convolution.weight` | `net.0.0.weight` | |
//! | `bn1.{bn}` | `embedder.embedder.normalization.{bn}` | `net.0.1.0.{bn}` | `net.0.5.0.{bn}` |
//! | `conv1.{0, 3, 6}.weight` | | | `net.0.{0, 2, 4}.weight` |
//! | `conv1.{1, 4}.{bn}` | | | `net.0.{1, 3}.0.{bn}` |
//! | `layer{g}.{i}.` | `encoder.stages.{g - 1}.layers.{i}.` | `net.{g}.blocks.{i}.` | `net.{g}.blocks.{i}.` |
//! | … `conv1.weight` | … `layer.0.convolution.weight` | … `net.0.weight` | … `net.0.weight` |
//! | … `bn1.{bn}` | … `layer.0.normalization.{bn}` | … `net.1.0.{bn}` | … `net.1.0.{bn}` |
//! | … `conv2.weight` | … `layer.1.convolution.weight` | … `net.2.weight` | … `net.2.main_conv.0.weight` |
//! | … `bn2.{bn}` | … `layer.1.normalization.{bn}` | … `net.3.0.{bn}` | … `net.2.main_conv.1.0.{bn}` |
//! | … `sk.conv1.weight` | | | … `net.2.mixing_conv.0.weight` |
//! | … `sk.bn1.{bn}` | | | … `net.2.mixing_conv.1.0.{bn}` |
//! | … `sk.conv2.weight` | | | … `net.2.mixing_conv.2.weight` |
//! | … `conv3.weight` | … `layer.2.convolution.weight` | … `net.4.weight` | … `net.3.weight` |
//! | … `bn3.{bn}` | … `layer.2.normalization.{bn}` | … `net.5.0.{bn}` | … `net.4.0.{bn}` |
//! | … `downsample.0.weight` | … `shortcut.convolution.weight` | … `projection.shortcut.weight` | |
//! | … `downsample.1.{bn}` | … `shortcut.normalization.{bn}` | … `projection.bn.0.{bn}` | |
//! | … `downsample.1.weight` | | | … `projection.shortcut.2.weight` |
//! | … `downsample.2.{bn}` | | | … `projection.bn.0.{bn}` |
//!
//! The children of torchvision's network in a Sequential are numbered: `conv1` is 0, `bn1` is 1, `layer{g}` is `{g + 3}`.
//!
//! All names may follow `resnet.`: in transformers' network with a classifier, and in the conversion's two state dicts in one file. The
//! conversion's head follows `head.`: `layers.{n}.weight` is `layers.{3n}.weight`, `norms.{n}.{bn}` is `layers.{3n + 1}.{bn}`. Its last
//! shift, which ctk's head does not have, must be zeros, as in Google's networks.
//!
//! Left out: classifiers (`fc.*`, `classifier.*`) and PyTorch's batch counters (`*.num_batches_tracked`).

/// The layout of a file's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `torchvision.models.resnet*`, timm's plain ResNets and ResNet-Ds, and ctk.
    Torchvision,
    /// transformers' `ResNetModel`, or `ResNetForImageClassification`.
    Transformers,
    /// The children of torchvision's network in an `nn.Sequential`, by number, as in lightly's examples.
    Sequential,
    /// The public PyTorch conversion of SimCLRv2's networks.
    Simclrv2,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::Torchvision => "torchvision",
            Layout::Transformers => "transformers",
            Layout::Sequential => "torchvision's children in a Sequential",
            Layout::Simclrv2 => "simclrv2-pytorch",
        })
    }
}

/// The names of ctk's tensors in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The layout of the names.
    pub layout: Layout,
    /// The prefix of every name of the encoder.
    prefix: &'static str,
    /// Whether the network has selective kernels, which shift the numbers of the conversion's layers.
    pub selects: bool,
}

impl Names {
    /// The names in a layout, as files of that layout are written.
    pub fn of(layout: Layout, selects: bool) -> Names {
        Names { layout, prefix: "", selects }
    }

    /// Looks for a tensor that a ResNet of every size has: its first block's first convolution, or that of its selective kernel.
    pub(crate) fn recognise(has: impl Fn(&str) -> bool) -> Option<Names> {
        let layouts = [Layout::Torchvision, Layout::Transformers, Layout::Simclrv2, Layout::Sequential];
        let prefixes =
            |layout| if matches!(layout, Layout::Torchvision | Layout::Sequential) { &[""][..] } else { &["", "resnet."] };
        let all = layouts.into_iter().flat_map(|layout| prefixes(layout).iter().map(move |prefix| (layout, *prefix)));
        let (layout, prefix) = all.into_iter().find(|&(layout, prefix)| {
            let names = Names { layout, prefix, selects: false };
            names.encoder("layer1.0.conv1.weight").is_some_and(|name| has(&name))
        })?;
        let selecting = Names { layout, prefix, selects: true };
        let selects = selecting.encoder("layer1.0.sk.conv1.weight").is_some_and(|name| has(&name));
        Some(Names { selects, ..selecting })
    }

    /// The name of the encoder's tensor `ours`; none if the layout has no such tensor.
    pub fn encoder(&self, ours: &str) -> Option<String> {
        let name = match self.layout {
            Layout::Torchvision => Some(ours.to_string()),
            Layout::Transformers => transformers(ours),
            Layout::Sequential => sequential(ours),
            Layout::Simclrv2 => simclrv2(ours, self.selects),
        };
        Some(format!("{}{}", self.prefix, name?))
    }

    /// The name of the projection head's tensor `ours`.
    pub fn head(&self, ours: &str) -> Option<String> {
        let ("resnet.", Layout::Simclrv2) = (self.prefix, self.layout) else { return None };
        let mut parts = ours.splitn(3, '.');
        let (kind, number, value) = (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?);
        match kind {
            "layers" => Some(format!("head.layers.{}.{value}", 3 * number)),
            "norms" => Some(format!("head.layers.{}.{value}", 3 * number + 1)),
            _ => None,
        }
    }

    /// Whether a tensor of the file belongs neither to an encoder nor to its head.
    pub fn ignored(&self, theirs: &str) -> bool {
        let classifier = match self.layout {
            Layout::Torchvision => theirs.starts_with("fc."),
            // After the average, which has no tensors.
            Layout::Sequential => theirs.starts_with("9."),
            Layout::Transformers => theirs.starts_with("classifier."),
            Layout::Simclrv2 => theirs.strip_prefix(self.prefix).is_some_and(|name| name.starts_with("fc.")),
        };
        classifier || theirs.ends_with(".num_batches_tracked")
    }
}

/// One of ctk's names, divided into its parts.
struct Cut<'a> {
    /// Group and number of its block, if it is in one.
    block: Option<(usize, usize)>,
    module: &'a str,
    /// The tensor of the module.
    value: &'a str,
}

fn cut(ours: &str) -> Option<Cut<'_>> {
    let (module, value) = ours.rsplit_once('.')?;
    let Some(rest) = module.strip_prefix("layer") else { return Some(Cut { block: None, module, value }) };
    let mut parts = rest.splitn(3, '.');
    let block = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(Cut { block: Some(block), module: parts.next()?, value })
}

fn sequential(ours: &str) -> Option<String> {
    // Convolution, normalisation, ReLU and pool come before the groups.
    let (place, rest) = ours.split_once('.')?;
    let number = match place {
        "conv1" => 0,
        "bn1" => 1,
        _ => place.strip_prefix("layer")?.parse::<usize>().ok()? + 3,
    };
    Some(format!("{number}.{rest}"))
}

fn transformers(ours: &str) -> Option<String> {
    let Cut { block, module, value } = cut(ours)?;
    let place = match block {
        Some((group, block)) => format!("encoder.stages.{}.layers.{block}", group.checked_sub(1)?),
        None => "embedder".to_string(),
    };
    let module = match (block, module) {
        (None, "conv1") => "embedder.convolution",
        (None, "bn1") => "embedder.normalization",
        (Some(_), "conv1") => "layer.0.convolution",
        (Some(_), "bn1") => "layer.0.normalization",
        (Some(_), "conv2") => "layer.1.convolution",
        (Some(_), "bn2") => "layer.1.normalization",
        (Some(_), "conv3") => "layer.2.convolution",
        (Some(_), "bn3") => "layer.2.normalization",
        (Some(_), "downsample.0") => "shortcut.convolution",
        (Some(_), "downsample.1") => "shortcut.normalization",
        _ => return None,
    };
    Some(format!("{place}.{module}.{value}"))
}

fn simclrv2(ours: &str, selects: bool) -> Option<String> {
    let Cut { block, module, value } = cut(ours)?;
    let place = match block {
        Some((group, block)) => format!("net.{group}.blocks.{block}"),
        None => "net.0".to_string(),
    };
    let module = match (block, module, selects) {
        (None, "conv1", false) => "0",
        (None, "bn1", false) => "1.0",
        (None, "conv1.0", true) => "0",
        (None, "conv1.1", true) => "1.0",
        (None, "conv1.3", true) => "2",
        (None, "conv1.4", true) => "3.0",
        (None, "conv1.6", true) => "4",
        (None, "bn1", true) => "5.0",
        (Some(_), "conv1", _) => "net.0",
        (Some(_), "bn1", _) => "net.1.0",
        (Some(_), "conv2", false) => "net.2",
        (Some(_), "bn2", false) => "net.3.0",
        (Some(_), "conv2", true) => "net.2.main_conv.0",
        (Some(_), "bn2", true) => "net.2.main_conv.1.0",
        (Some(_), "sk.conv1", true) => "net.2.mixing_conv.0",
        (Some(_), "sk.bn1", true) => "net.2.mixing_conv.1.0",
        (Some(_), "sk.conv2", true) => "net.2.mixing_conv.2",
        (Some(_), "conv3", false) => "net.4",
        (Some(_), "bn3", false) => "net.5.0",
        (Some(_), "conv3", true) => "net.3",
        (Some(_), "bn3", true) => "net.4.0",
        // After padding and average, if there are any.
        (Some(_), "downsample.0", false) => "projection.shortcut",
        (Some(_), "downsample.1", false) => "projection.bn.0",
        (Some(_), "downsample.1", true) => "projection.shortcut.2",
        (Some(_), "downsample.2", true) => "projection.bn.0",
        _ => return None,
    };
    Some(format!("{place}.{module}.{value}"))
}
