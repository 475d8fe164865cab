//! `ctk export --format timm|transformers|torchvision`: writes a run's vision transformer as a folder of weights and descriptions, with its
//! classifier if there is one. Networks that the other program would compute differently are refused.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::nn::Resampling;
use ctk_core::{Error, Result, Tensor, store::files};
use ctk_images::augment::{AugmentRecipe, Offset};
use serde_json::{Value, json};

use super::names::Layout;
use super::recipe::{Activation, Pooling, VitRecipe};
use crate::encoder::architecture::{ClassifierExport, Exported, SAFETENSORS};
use crate::encoder::file;
use crate::encoder::input::unlike;
use crate::encoder::{processor, timm};

/// The formats that are written, the checkpoint's own first.
pub(super) const FORMATS: [&str; 4] = [SAFETENSORS, "timm", "transformers", "torchvision"];

/// A model of another program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Timm,
    Torchvision,
    Vit,
    Dinov2,
    Clip,
    Siglip,
}

impl Target {
    fn layout(self) -> Layout {
        match self {
            Target::Timm => Layout::Timm,
            Target::Torchvision => Layout::Torchvision,
            Target::Vit => Layout::Vit,
            Target::Dinov2 => Layout::TransformersDinov2,
            Target::Clip | Target::Siglip => Layout::Clip,
        }
    }

    /// The prefix of all names of the encoder.
    fn prefix(self, classifier: bool) -> &'static str {
        match self {
            Target::Vit if classifier => "vit.",
            Target::Clip | Target::Siglip => "vision_model.",
            _ => "",
        }
    }

    /// How this program resamples positions.
    fn resampling(self, of: &VitRecipe) -> Resampling {
        match self {
            Target::Timm | Target::Torchvision => Resampling::Antialias,
            Target::Dinov2 if of.registers > 0 => Resampling::Antialias,
            _ => Resampling::Bicubic,
        }
    }
}

/// The model that a format has for the network.
///
/// # Errors
/// It has none; the message says why.
fn target(format: &str, of: &VitRecipe) -> Result<Target> {
    let fail = |what: String| {
        Err(Error::usage(format!("this network has {what}, which {format}'s vision transformers do not have"))
            .hint("--format safetensors writes its tensors, for a network of your own"))
    };
    if format == "timm" {
        if ![1e-5, 1e-6].contains(&of.epsilon) {
            return fail(format!("epsilon = {}", of.epsilon));
        }
        if of.patch_bias == of.normalise_tokens {
            return fail(format!("normalise_tokens = {} with patch_bias = {}", of.normalise_tokens, of.patch_bias));
        }
        return Ok(Target::Timm);
    }
    let class = of.pooling == Pooling::Class;
    let plain = class && of.class_position && of.registers == 0 && of.layer_scale == 0.0;
    let found = match format {
        "torchvision" if plain && !of.normalise_tokens && of.patch_bias && of.gelu == Activation::Erf && of.epsilon == 1e-6 => {
            Some(Target::Torchvision)
        }
        "torchvision" => None,
        _ if plain && of.normalise_tokens && !of.patch_bias => Some(Target::Clip),
        _ if plain && !of.normalise_tokens && of.patch_bias => Some(Target::Vit),
        _ if class && of.class_position && of.layer_scale > 0.0 && !of.normalise_tokens && of.patch_bias => Some(Target::Dinov2),
        _ if of.pooling == Pooling::Attention
            && !of.class_token
            && of.registers == 0
            && of.layer_scale == 0.0
            && !of.normalise_tokens
            && of.patch_bias =>
        {
            Some(Target::Siglip)
        }
        _ => None,
    };
    // The settings by which such networks differ, as far as they are not the usual ones.
    let usual = VitRecipe::default();
    let unusual = [
        (of.pooling != usual.pooling, format!("pooling = {}", json!(of.pooling))),
        (!of.class_position, "class_position = false".to_string()),
        (of.registers > 0, format!("registers = {}", of.registers)),
        (of.layer_scale > 0.0, format!("layer_scale = {}", of.layer_scale)),
        (of.normalise_tokens, "normalise_tokens = true".to_string()),
        (!of.patch_bias, "patch_bias = false".to_string()),
        (of.gelu != usual.gelu, format!("gelu = {}", json!(of.gelu))),
        (of.epsilon != usual.epsilon, format!("epsilon = {}", of.epsilon)),
    ];
    match found {
        Some(target) => Ok(target),
        None => fail(unusual.into_iter().filter_map(|(differs, what)| differs.then_some(what)).collect::<Vec<_>>().join(", ")),
    }
}

/// Why a format cannot describe the network; none if it can.
pub(super) fn refused(format: &str, of: &VitRecipe) -> Option<String> {
    target(format, of).err().map(|e| e.what().to_string())
}

/// Writes the encoder as the folder `out`. Returns notes on how it is used there.
///
/// # Errors
/// The format has no such network, or something other than an empty folder exists at `out`.
pub(super) fn write(format: &str, of: &VitRecipe, exported: Exported, out: &Path) -> Result<Vec<String>> {
    let target = target(format, of)?;
    let Exported { pairs, tensors, classifier, .. } = exported;
    let within = |classifier: &ClassifierExport| {
        classifier.single(format)?;
        match target {
            Target::Timm | Target::Torchvision | Target::Vit => Ok(()),
            _ => Err(Error::usage(
                "transformers' classifiers of such networks read the mean of all patches, and this run's do not",
            )
            .hint("--encoder-only leaves the classifier out; --format timm has such classifiers")),
        }
    };
    classifier.as_ref().map_or(Ok(()), within)?;
    let classes = classifier.as_ref().map(|classifier| classifier.classes.as_slice());
    let descriptions: Vec<(&str, Value)> = match target {
        Target::Timm => vec![(file::CONFIG, of_timm(of, pairs, classes))],
        Target::Torchvision => Vec::new(),
        _ => vec![(file::CONFIG, of_transformers(target, of, classes)), (file::PREPROCESSOR, processor::config(pairs))],
    };
    let weights = weights(target, of, tensors, classifier.as_ref())?;
    files::folder_with(out, |folder| {
        for (name, description) in &descriptions {
            files::write(&folder.join(name), &serde_json::to_vec_pretty(description)?)?;
        }
        files::write(&folder.join(file::WEIGHTS), &weights)
    })?;
    let offset = if matches!(target, Target::Timm | Target::Torchvision) { Offset::Even } else { Offset::Floor };
    let mut notes: Vec<String> = unlike(&pairs.evaluation(), offset, format).into_iter().collect();
    let theirs = target.resampling(of);
    if theirs != of.resampling {
        notes.push(format!(
            "{format} resamples positions for images of another size than {} pixels by {}, and this run by {}",
            of.size(),
            json!(theirs),
            json!(of.resampling)
        ));
    }
    if target == Target::Vit && classes.is_none() {
        notes.push(
            "in transformers the features are last_hidden_state[:, 0]; the pooler of a ViTModel is no part of this network"
                .to_string(),
        );
    }
    if target == Target::Torchvision {
        notes.push(format!(
            "in PyTorch: model = torchvision.models.VisionTransformer(image_size={}, patch_size={}, num_layers={}, num_heads={}, \
             hidden_dim={}, mlp_dim={}{}); model.load_state_dict(safetensors.torch.load_file(\"model.safetensors\"){})",
            of.size(),
            of.patch,
            of.layers,
            of.heads,
            of.width,
            of.inner(),
            classes.map_or(String::new(), |classes| format!(", num_classes={}", classes.len())),
            if classes.is_none() { ", strict=False); model.heads = torch.nn.Identity(" } else { "" },
        ));
    }
    Ok(notes)
}

/// The image tower of a `CLIPModel` or `SiglipModel` of transformers.
pub struct Part {
    /// Whether it is SigLIP's, whose features need no projection.
    pub siglip: bool,
    /// `vision_config`.
    pub config: Value,
    /// `preprocessor_config.json`.
    pub preprocessor: Value,
    /// The tensors, `vision_model.…`.
    pub tensors: HashMap<String, Tensor>,
    /// How it is used there, and what differs.
    pub notes: Vec<String>,
}

/// The encoder as the image tower of a CLIP or SigLIP model.
///
/// # Errors
/// A network that neither of these has, by what it has.
pub(crate) fn part(of: &VitRecipe, pairs: &AugmentRecipe, tensors: HashMap<String, Tensor>) -> Result<Part> {
    let target = target("transformers", of)?;
    if !matches!(target, Target::Clip | Target::Siglip) {
        return Err(Error::usage("this is neither the image tower of CLIP nor that of SigLIP").hint(
            "CLIP's has normalise_tokens = true and patch_bias = false; SigLIP's has pooling = \"attention\" and no class token",
        ));
    }
    Ok(Part {
        siglip: target == Target::Siglip,
        config: of_transformers(target, of, None),
        preprocessor: processor::config(pairs),
        tensors: named(target, of, tensors, false)?,
        notes: unlike(&pairs.evaluation(), Offset::Floor, "transformers").into_iter().collect(),
    })
}

/// timm's `config.json`. All settings are arguments of the model, whose name says the normalisations' ε alone.
fn of_timm(of: &VitRecipe, pairs: &AugmentRecipe, classes: Option<&[String]>) -> Value {
    let pool = match of.pooling {
        Pooling::Class => "token",
        Pooling::Mean | Pooling::MeanThenNorm => "avg",
        Pooling::Attention => "map",
    };
    let mut config = json!({
        "architecture": if of.epsilon == 1e-5 { "vit_base_patch16_clip_224" } else { "vit_base_patch16_224" },
        "num_classes": 0,
        "num_features": of.width,
        "global_pool": pool,
        "model_args": {
            "img_size": of.size(),
            "patch_size": of.patch,
            "embed_dim": of.width,
            "depth": of.layers,
            "num_heads": of.heads,
            "mlp_ratio": ratio(of),
            "init_values": Some(of.layer_scale).filter(|scale| *scale > 0.0),
            "class_token": of.class_token,
            "no_embed_class": !of.class_position || of.registers > 0,
            "reg_tokens": of.registers,
            "pre_norm": of.normalise_tokens,
            "global_pool": pool,
            "fc_norm": of.pooling == Pooling::MeanThenNorm,
            "act_layer": match of.gelu {
                Activation::Erf => "gelu",
                Activation::Tanh => "gelu_tanh",
                Activation::Quick => "quick_gelu",
            },
        },
        "pretrained_cfg": timm::pretrained(pairs, "patch_embed.proj", "head"),
    });
    if let Some(classes) = classes {
        timm::label(&mut config, classes);
    }
    // Positions are for one size; timm resamples them when the model is made for another.
    config["pretrained_cfg"]["fixed_input_size"] = json!(true);
    config
}

/// A ratio that other programs, which round down, multiply the width by to get the MLP's.
fn ratio(of: &VitRecipe) -> f64 {
    let (inner, width) = (of.inner() as f64, of.width as f64);
    let exact = inner / width;
    if (width * exact).floor() == inner { exact } else { (inner + 0.5) / width }
}

/// transformers' `config.json`.
fn of_transformers(target: Target, of: &VitRecipe, classes: Option<&[String]>) -> Value {
    let (architecture, model_type) = match target {
        Target::Dinov2 if of.registers > 0 => ("Dinov2WithRegistersModel", "dinov2_with_registers"),
        Target::Dinov2 => ("Dinov2Model", "dinov2"),
        Target::Clip => ("CLIPVisionModel", "clip_vision_model"),
        Target::Siglip => ("SiglipVisionModel", "siglip_vision_model"),
        _ if classes.is_some() => ("ViTForImageClassification", "vit"),
        _ => ("ViTModel", "vit"),
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "image_size": of.size(),
        "patch_size": of.patch,
        "num_channels": 3,
        "hidden_size": of.width,
        "num_hidden_layers": of.layers,
        "num_attention_heads": of.heads,
        "hidden_act": match of.gelu {
            Activation::Erf => "gelu",
            Activation::Tanh => "gelu_pytorch_tanh",
            Activation::Quick => "quick_gelu",
        },
        "layer_norm_eps": of.epsilon,
        "attention_dropout": 0.0,
        "dtype": "float32",
    });
    match target {
        Target::Dinov2 => {
            config["mlp_ratio"] = json!(ratio(of));
            config["layerscale_value"] = json!(of.layer_scale);
            config["use_swiglu_ffn"] = json!(false);
            if of.registers > 0 {
                config["num_register_tokens"] = json!(of.registers);
            }
        }
        _ => config["intermediate_size"] = json!(of.inner()),
    }
    if matches!(target, Target::Vit | Target::Dinov2) {
        config["qkv_bias"] = json!(true);
        config["hidden_dropout_prob"] = json!(0.0);
        config["attention_probs_dropout_prob"] = json!(0.0);
    }
    if let Some(classes) = classes {
        processor::label(&mut config, classes);
    }
    config
}

/// The tensors under the names of `target`.
fn named(
    target: Target,
    of: &VitRecipe,
    mut tensors: HashMap<String, Tensor>,
    classifier: bool,
) -> Result<HashMap<String, Tensor>> {
    if target == Target::Timm && of.registers > 0 && of.class_token && of.class_position {
        folded(&mut tensors)?;
    }
    let (layout, prefix) = (target.layout(), target.prefix(classifier));
    let mut theirs: HashMap<String, Tensor> = HashMap::new();
    for (ours, tensor) in &tensors {
        let parts = layout.parts(ours).ok_or_else(|| Error::new(format!("`{ours}` has no name in {layout}")))?;
        let tensor = tensor.reshape(layout.shape(ours, tensor.dims()))?;
        if let [only] = &parts[..] {
            let name = format!("{prefix}{}", only.name);
            // SigLIP has queries, keys and values of its pooling in one tensor: those of `q` come first.
            let joined = match (only.thirds, theirs.remove(&name)) {
                (Some([0, _]), Some(rest)) => Tensor::cat(&[&tensor, &rest], 0)?,
                (Some(_), Some(first)) => Tensor::cat(&[&first, &tensor], 0)?,
                _ => tensor,
            };
            theirs.insert(name, joined);
            continue;
        }
        let rows = tensor.dims()[0] / parts.len();
        for (at, part) in parts.iter().enumerate() {
            theirs.insert(format!("{prefix}{}", part.name), tensor.narrow(0, at * rows, rows)?.contiguous()?);
        }
    }
    if target == Target::Dinov2 {
        // Used in DINOv2's own training alone; its absence would be reported.
        let mask = Tensor::zeros((1, of.width), ctk_core::DType::F32, &candle_core::Device::Cpu)?;
        theirs.insert("embeddings.mask_token".to_string(), mask);
    }
    Ok(theirs)
}

/// A safetensors file with the names of `target`.
fn weights(
    target: Target,
    of: &VitRecipe,
    tensors: HashMap<String, Tensor>,
    classifier: Option<&ClassifierExport>,
) -> Result<Vec<u8>> {
    let mut theirs = named(target, of, tensors, classifier.is_some())?;
    let name = match target {
        Target::Torchvision => "heads.head",
        Target::Vit => "classifier",
        _ => "head",
    };
    for (theirs_name, tensor) in classifier.into_iter().flat_map(ClassifierExport::tensors) {
        theirs.insert(theirs_name.replacen("fc", name, 1), tensor);
    }
    // The programs that load these files ask for it.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    Ok(safetensors::serialize(&theirs, Some(metadata))?)
}

/// Adds the class token's position to the class token: in timm a network with registers has positions for all of class token, registers and
/// patches, or for patches alone.
fn folded(tensors: &mut HashMap<String, Tensor>) -> Result<()> {
    let missing = || Error::new("the class token or its position is missing");
    let (class, positions) = (tensors.get("cls_token").ok_or_else(missing)?, tensors.get("pos_embed").ok_or_else(missing)?);
    let class = (class + positions.narrow(1, 0, 1)?)?;
    let rest = positions.narrow(1, 1, positions.dims()[1] - 1)?.contiguous()?;
    tensors.insert("cls_token".to_string(), class);
    tensors.insert("pos_embed".to_string(), rest);
    Ok(())
}
