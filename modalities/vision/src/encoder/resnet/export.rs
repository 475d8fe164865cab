//! `ctk export --format timm|transformers`: writes a run's encoder as a folder of weights and descriptions, with its classifier if there is
//! one: timm's `fc`, transformers' `ResNetForImageClassification`.
//!
//! Both formats describe PyTorch's ResNet with the ImageNet stem; timm's may be a ResNet-D. Other networks of ctk are refused, because the
//! other program would load them and compute something different.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::{Error, Result, Tensor, store::files};
use ctk_images::augment::Offset;
use serde_json::{Value, json};

use super::names::{Layout, Names};
use super::recipe::{ResnetRecipe, Stem, Variant};
use super::{timm, transformers};
use crate::encoder::architecture::{ClassifierExport, Exported, SAFETENSORS};
use crate::encoder::file;
use crate::encoder::input::unlike;
use crate::encoder::processor;

/// The formats that are written, the checkpoint's own first.
pub(super) const FORMATS: [&str; 3] = [SAFETENSORS, "timm", "transformers"];

/// Writes the encoder `of` as the folder `out`. Returns notes on how it is used there.
///
/// # Errors
/// The format has no such network, or something other than an empty folder exists at `out`.
pub(super) fn write(format: &str, of: &ResnetRecipe, exported: Exported, out: &Path) -> Result<Vec<String>> {
    plain(format, of)?;
    let Exported { features, pairs, tensors, classifier } = exported;
    classifier.as_ref().map_or(Ok(()), |classifier| classifier.single(&format!("{format}'s resnet")))?;
    let (layout, mut descriptions): (_, Vec<(&str, Value)>) = match format {
        "timm" => (Layout::Torchvision, vec![(file::CONFIG, timm::config(of, features, pairs)?)]),
        _ => {
            let descriptions = vec![(file::CONFIG, transformers::config(of)), (file::PREPROCESSOR, processor::config(pairs))];
            (Layout::Transformers, descriptions)
        }
    };
    if let (Some(classifier), Some((_, config))) = (&classifier, descriptions.first_mut()) {
        tells(config, layout, &classifier.classes);
    }
    let weights = weights(&Names::of(layout, of.selects()), tensors, classifier.as_ref())?;
    files::folder_with(out, |folder| {
        for (name, description) in &descriptions {
            files::write(&folder.join(name), &serde_json::to_vec_pretty(description)?)?;
        }
        files::write(&folder.join(file::WEIGHTS), &weights)
    })?;
    let offset = if layout == Layout::Transformers { Offset::Floor } else { Offset::Even };
    Ok(unlike(&pairs.evaluation(), offset, format).into_iter().collect())
}

/// Why a format cannot describe the network `of`; none if it can.
pub(super) fn refused(format: &str, of: &ResnetRecipe) -> Option<String> {
    let width = || if format == "timm" { timm::one_width(of) } else { Ok(()) };
    plain(format, of).and_then(|()| width()).err().map(|e| e.what().to_string())
}

/// Writes the class names into a model's configuration.
fn tells(config: &mut Value, layout: Layout, classes: &[String]) {
    if layout == Layout::Transformers {
        config["architectures"] = json!(["ResNetForImageClassification"]);
        processor::label(config, classes);
    } else {
        crate::encoder::timm::label(config, classes);
    }
}

/// Refuses networks that PyTorch's ResNet cannot compute.
fn plain(format: &str, of: &ResnetRecipe) -> Result<()> {
    let other = if of.channels == 1 {
        "one channel (channels = 1)".to_string()
    } else if of.stem != Stem::Imagenet {
        "a stem for small images (stem = \"small\")".to_string()
    } else if of.selects() {
        format!("selective kernels (sk_ratio = {})", of.sk_ratio)
    } else if of.variant == Variant::Google {
        "Google's padding and projections (variant = \"google\")".to_string()
    } else if of.variant == Variant::ResnetD && format != "timm" {
        "the stem and the shortcuts of ResNet-D (variant = \"resnet-d\")".to_string()
    } else {
        return Ok(());
    };
    Err(Error::usage(format!("this network has {other}, which {format}'s resnet does not have"))
        .hint("--format safetensors writes its tensors, for a network of your own"))
}

/// A safetensors file of the encoder with a layout's names, and of the classifier. It includes PyTorch's batch counters, whose absence
/// would be reported.
pub(super) fn weights(names: &Names, tensors: HashMap<String, Tensor>, classifier: Option<&ClassifierExport>) -> Result<Vec<u8>> {
    let within = names.layout == Layout::Transformers && classifier.is_some();
    let mut theirs = Vec::with_capacity(tensors.len() * 6 / 5);
    for (ours, tensor) in tensors {
        let name = names.encoder(&ours).ok_or_else(|| Error::new(format!("`{ours}` has no name in {}", names.layout)))?;
        let name = if within { format!("resnet.{name}") } else { name };
        if let Some(norm) = name.strip_suffix(".running_mean") {
            theirs.push((
                format!("{norm}.num_batches_tracked"),
                Tensor::zeros((), ctk_core::DType::I64, &candle_core::Device::Cpu)?,
            ));
        }
        theirs.push((name, tensor));
    }
    for (name, tensor) in classifier.into_iter().flat_map(ClassifierExport::tensors) {
        let name = if within { name.replacen("fc", "classifier.1", 1) } else { name };
        theirs.push((name, tensor));
    }
    // The programs that load these files ask for it.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    Ok(safetensors::serialize(theirs.iter().map(|(name, tensor)| (name, tensor)), Some(metadata))?)
}
