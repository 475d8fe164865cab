//! CLIP and SigLIP models of other programs as both towers of a run, and runs as such models: projections, temperature and bias beside the
//! towers, which the vision and the text plugin read and write themselves.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::modality::Modality as _;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::files;
use ctk_core::{DType, Error, Result, Tensor};
use ctk_text::Sentences;
use ctk_text::sentences::export::{tower as text_tower, write_tower_tokenizer};
use ctk_text::sentences::network::{Described, Network};
use ctk_text::transformer::names::Family;
use ctk_text::transformer::{PROJECTION, Projection, Shape};
use ctk_vision::tower;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::network::{Begin, HEAD, IMAGE, TEXT};
use crate::recipe::{Checked, ImageTextRecipe};

/// The format of export.
pub(crate) const FORMAT: &str = "transformers";

/// The plugin of images.
pub(crate) const VISION: &str = "vision";

/// What belongs to the preparation of images besides vision's own keys.
pub(crate) const SHOWN: &[&str] = &["pairs.eval_size", "data.background"];

/// Names of the projection of images: of transformers, and of open_clip, where it is transposed.
const PROJECTED: &str = "visual_projection.weight";
const TRANSPOSED: &str = "visual.proj";

/// The sharpest similarity that models are limited to: CLIP's.
const SHARPEST: f64 = 100.0;

/// What a file has beside both towers.
struct Beside {
    /// (embedding, width), if features are projected.
    projection: Option<Tensor>,
    /// ln of one over the temperature.
    scale: Option<f64>,
    /// SigLIP's.
    bias: Option<f64>,
}

impl Beside {
    fn read(path: &Path) -> Result<Beside> {
        let mut found = tower::beside(path, &[PROJECTED, TRANSPOSED, "logit_scale", "logit_bias"])?;
        let mut number = |name: &str| -> Result<Option<f64>> {
            let Some(value) = found.remove(name) else { return Ok(None) };
            let values = value.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
            Ok(values.first().copied())
        };
        let (scale, bias) = (number("logit_scale")?, number("logit_bias")?);
        let transposed = found.remove(TRANSPOSED).map(|of| of.t()?.contiguous()).transpose()?;
        Ok(Beside { projection: found.remove(PROJECTED).or(transposed), scale, bias })
    }
}

/// Whether `path` is a model of another program with both towers, which ctk reads.
///
/// # Errors
/// A path that cannot be read.
pub(crate) fn is_pair(path: &Path) -> Result<bool> {
    Ok(!Checkpoint::is_at(path) && ctk_text::sentences::folder::at(path)?.is_some() && tower::described(path).is_ok())
}

/// Makes `recipe` begin with what is at `path`: both towers of a CLIP or SigLIP model, an image tower (a run of vision, another program's
/// network), or a text tower (a run of sentences or word2vec, another program's encoder). With `adopt` the networks of the recipe, and the
/// preparation of images, become those at `path`.
///
/// # Errors
/// There is none of these.
pub(crate) fn set_weights(recipe: &mut Recipe, path: &Path, adopt: bool) -> Result<()> {
    let run = Checkpoint::is_at(path);
    if run && Checkpoint::open(path)?.manifest().modality != VISION {
        return set_text(recipe, path);
    }
    let text = if run { None } else { ctk_text::sentences::folder::at(path)? };
    let described = match (tower::described(path), &text) {
        (Ok((described, _)), Some(_)) => described,
        (Ok(_), None) => {
            if adopt {
                recipe.remove("image.encoder")?;
            }
            return recipe.set_path("image.init", path);
        }
        (Err(_), Some(_)) => return set_text(recipe, path),
        (Err(e), None) => return Err(e),
    };
    let beside = Beside::read(path)?;
    recipe.remove("image.init")?;
    if adopt {
        recipe.take_from("image.encoder", &described, "encoder")?;
        SHOWN.iter().chain(tower::PREPARATION).try_for_each(|key| recipe.take(key, &described))?;
        recipe.set("image.head.layers", if beside.projection.is_some() { "1" } else { "0" })?;
        if let Some(projection) = &beside.projection {
            recipe.set("image.head.width", &projection.dim(0)?.to_string())?;
            recipe.set("text.head.width", &projection.dim(0)?.to_string())?;
        }
        // The text tower's projection is a part of it.
        recipe.set("text.head.layers", "0")?;
        let temperature = (-beside.scale.unwrap_or(SHARPEST.ln())).exp();
        match beside.bias {
            Some(bias) => {
                recipe.set("loss.siglip.temperature", &format!("{temperature:?}"))?;
                recipe.set("loss.siglip.bias", &format!("{bias:?}"))?;
            }
            None => {
                recipe.set("loss.infonce.temperature", &format!("{:?}", temperature.max(1.0 / SHARPEST)))?;
                recipe.set("loss.infonce.learned", "true")?;
            }
        }
    }
    let read: ImageTextRecipe = recipe.parse()?;
    recipe.set_path(&format!("image.{}", read.image.encoder.key("weights")), path)?;
    for key in [
        "tokenizer.file",
        "encoder.static",
        "encoder.transformer.layers",
        "encoder.transformer.width",
        "encoder.transformer.heads",
    ] {
        recipe.remove(&format!("text.{key}"))?;
    }
    recipe.set_path("text.encoder.transformer.weights", path)
}

/// Makes the text tower of `recipe` begin with what is at `path`.
fn set_text(recipe: &mut Recipe, path: &Path) -> Result<()> {
    let mut own = Recipe::new("the text tower", "");
    Sentences.set_weights(&mut own, path, false)?;
    recipe.remove("text.tokenizer.file")?;
    recipe.take_from("text.encoder", &own, "encoder")
}

/// Adds what the file at `path`, with which both towers begin, has beside them.
///
/// # Errors
/// A damaged file.
pub(crate) fn begin(of: &Checked, path: &Path, begin: &mut Begin) -> Result<()> {
    let Beside { projection, scale, bias } = Beside::read(path)?;
    let head = &of.recipe.image.head;
    if let Some(projection) = projection {
        let (width, _) = projection.dims2()?;
        if head.layers == 1 && head.width == width && !head.bias {
            let tensors = HashMap::from([("layers.0.weight".to_string(), projection)]);
            begin.sections.insert(format!("{HEAD}.{IMAGE}"), tensors);
            begin.notes.push("the projection of images begins as the model's".to_string());
        } else {
            begin.notes.push(format!(
                "the model's projection of images, to {width} values without bias, is not used: image.head has another shape"
            ));
        }
    }
    if let Some(scale) = scale {
        begin.loss.push(("logit_scale", scale));
    }
    if let Some(bias) = bias {
        begin.loss.push(("logit_bias", bias));
    }
    Ok(())
}

/// The tensors of a run, by section, and what describes its text tower.
pub(crate) struct Run<'a> {
    /// The recipe.
    pub of: &'a Checked,
    /// The sections of the checkpoint.
    pub sections: HashMap<&'static str, HashMap<String, Tensor>>,
    /// The loss's own values.
    pub loss: HashMap<String, Tensor>,
    /// The text tower.
    pub text: &'a Described,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

/// Writes a `CLIPModel` or `SiglipModel` folder. Returns notes.
///
/// # Errors
/// Towers or projections that neither has; a folder that cannot be written.
pub(crate) fn export(run: Run, out: &Path) -> Result<Vec<String>> {
    let ImageTextRecipe { image, text, pairs, .. } = &run.of.recipe;
    let Network::Transformer { family, shape, pooling } = &run.text.network else {
        return Err(unlike("the text tower is a static embedding"));
    };
    let siglip = match family {
        Family::Clip => false,
        Family::Siglip => true,
        _ => return Err(unlike("the text tower is not CLIP's or SigLIP's")),
    };
    let mut sections = run.sections;
    let mut section = |name: &str| sections.remove(name).ok_or_else(|| Error::new(format!("the run has no section `{name}`")));
    let (of_image, mut of_text, mut heads) = (section(IMAGE)?, section(TEXT)?, section(HEAD)?);
    let part = tower::part(&image.encoder, pairs, of_image)?;
    if part.siglip != siglip {
        return Err(unlike("one tower is CLIP's and the other SigLIP's"));
    }
    let shape = projected(shape, &mut of_text, &mut heads, text.head.layers, siglip)?;
    let tensors: Vec<(String, Tensor)> = of_text.into_iter().collect();
    let network = Network::Transformer { family: *family, shape, pooling: *pooling };
    let written = text_tower(&Described { network, ..run.text.clone() }, &tensors)?;
    let mut all: HashMap<String, Tensor> = part.tensors.into_iter().chain(written.tensors).collect();
    match (siglip, image.head.layers) {
        (true, 0) => {}
        (false, 1) if !image.head.bias => {
            let weight = heads.remove(&format!("{IMAGE}.layers.0.weight"));
            all.insert(PROJECTED.to_string(), weight.ok_or_else(|| Error::new("the projection of images is missing"))?);
        }
        (true, _) => return Err(unlike("SigLIP has no projection of images (image.head.layers = 0)")),
        (false, _) => return Err(unlike("CLIP has one layer without bias behind the image tower (image.head)")),
    }
    let number = |name: &str, otherwise: f32| -> Result<Tensor> {
        let value = run.loss.get(name).map(|of| of.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()).transpose()?;
        let value = value.and_then(|of| of.first().copied()).unwrap_or(otherwise);
        // SigLIP's are vectors of one value in transformers, CLIP's is a number.
        let shape: &[usize] = if siglip { &[1] } else { &[] };
        Ok(Tensor::from_vec(vec![value], shape, &candle_core::Device::Cpu)?)
    };
    all.insert("logit_scale".to_string(), number("logit_scale", SHARPEST.ln() as f32)?);
    if siglip {
        all.insert("logit_bias".to_string(), number("logit_bias", 0.0)?);
    }
    let (architecture, kind) = if siglip { ("SiglipModel", "siglip") } else { ("CLIPModel", "clip") };
    let mut config = json!({
        "architectures": [architecture], "model_type": kind, "text_config": inner(written.config), "vision_config": inner(part.config),
        "dtype": "float32",
    });
    if !siglip {
        config["projection_dim"] = json!(image.head.width);
        config["logit_scale_init_value"] = json!(SHARPEST.ln());
        for side in ["text_config", "vision_config"] {
            config[side]["projection_dim"] = json!(image.head.width);
        }
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let weights = safetensors::serialize(&all, Some(metadata))?;
    files::folder_with(out, |folder| {
        let json = |name: &str, value: &Value| files::write(&folder.join(name), &serde_json::to_vec_pretty(value)?);
        json("config.json", &config)?;
        json("preprocessor_config.json", &part.preprocessor)?;
        write_tower_tokenizer(run.text, run.tokenizer, folder)?;
        files::write(&folder.join("model.safetensors"), &weights)
    })?;
    let mut notes = part.notes;
    notes.push(format!("in Python: model = transformers.{architecture}.from_pretrained(FOLDER)"));
    Ok(notes)
}

/// A tower's description inside that of both.
fn inner(mut config: Value) -> Value {
    if let Some(of) = config.as_object_mut() {
        of.remove("architectures");
        of.remove("dtype");
    }
    config
}

/// The text network with its projection: its own, or the run's, which is put beside its tensors.
fn projected(
    shape: &Shape,
    tensors: &mut HashMap<String, Tensor>,
    heads: &mut HashMap<String, Tensor>,
    layers: usize,
    siglip: bool,
) -> Result<Shape> {
    match (shape.projection, layers) {
        (Some(_), 0) => Ok(shape.clone()),
        (None, 1) => {
            let mut take = |kind: &str| heads.remove(&format!("{TEXT}.layers.0.{kind}"));
            let weight = take("weight").ok_or_else(|| Error::new("the projection of captions is missing"))?;
            let bias = take("bias");
            let projection = Projection { width: weight.dim(0)?, bias: siglip };
            if let (Some(_), false) = (&bias, siglip) {
                return Err(unlike("CLIP's projections have no bias (text.head.bias)"));
            }
            let zeros = || Tensor::zeros(projection.width, weight.dtype(), &candle_core::Device::Cpu);
            if siglip {
                let bias = match bias {
                    Some(bias) => bias,
                    None => zeros()?,
                };
                tensors.insert(format!("{PROJECTION}.bias"), bias);
            }
            tensors.insert(format!("{PROJECTION}.weight"), weight);
            Ok(shape.clone().projected(Some(projection)))
        }
        (Some(_), _) => Err(unlike("there is a projection of the run behind the tower's own (text.head.layers)")),
        (None, 0) if siglip => Err(unlike("SigLIP's text tower has a projection (text.head.layers = 1)")),
        (None, _) => Err(unlike("the captions' projection has several layers, or none (text.head.layers)")),
    }
}

fn unlike(what: &str) -> Error {
    Error::usage(format!("transformers has no such model: {what}"))
        .hint("a run that began with a CLIP or SigLIP model can be written; `ctk embed` writes features of every run")
}
