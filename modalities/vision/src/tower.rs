//! What another plugin needs of image encoders to use one as a tower: its checks, the weights that it begins with, its size in memory.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::nn::params::{MODEL, Params};
use ctk_core::recipe::Recipe;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, DType, Device, Error, Result, Tensor};
use ctk_images::augment::AugmentRecipe;

use crate::encoder::{self, EncoderRecipe};
use crate::import::Found;
use crate::recipe;

pub use crate::encoder::vit::Part;
pub use crate::features::{batches, named};

/// The recipe keys of an encoder's section that hold paths: `encoder.NAME.weights`.
pub const WEIGHTS: &[&str] = encoder::WEIGHTS;

/// The recipe keys that say how images are prepared for an encoder that was trained before.
pub const PREPARATION: &[&str] = &[
    "pairs.size",
    "pairs.eval_fit",
    "pairs.eval_resize",
    "pairs.eval_filter",
    "pairs.eval_offset",
    "pairs.centre",
    "pairs.normalise",
];

/// Checks an encoder for images of the sizes in `pairs`; errors point at its line in `text`, and those of a size at its line in `sizes`.
///
/// # Errors
/// The first value that is not allowed.
pub fn check(of: &EncoderRecipe, text: &Recipe, pairs: &AugmentRecipe, sizes: &Recipe) -> Result<()> {
    recipe::encoder_fits(of, text, pairs, sizes)
}

/// The keys, below the encoder's section, that a new recipe for images of `size` × `size` pixels states if it does not have them.
pub fn stated(of: &EncoderRecipe, size: usize) -> Vec<(String, String)> {
    let stated = of.architecture().stated(size);
    stated.into_iter().map(|(key, value)| (of.key(key), value)).collect()
}

/// The encoder in a few words.
pub fn title(of: &EncoderRecipe) -> String {
    let said = of.architecture().timed();
    said.first().and_then(|(_, value)| value.as_str()).unwrap_or("encoder").to_string()
}

/// The file of another program from which its weights start.
pub fn weights(of: &EncoderRecipe) -> Option<&Path> {
    of.architecture().weights()
}

/// Weights that an encoder begins with, and what to know about them.
pub struct Begun {
    /// The tensors under ctk's names.
    pub tensors: HashMap<String, Tensor>,
    /// Sentences to print.
    pub notes: Vec<String>,
}

/// The weights of the other program that the recipe names; none if it names none.
///
/// # Errors
/// Weights that are damaged, or of another network.
pub fn begun(of: &EncoderRecipe) -> Result<Option<Begun>> {
    let Some(file) = weights(of) else { return Ok(None) };
    let notes = encoder::recognise(file)?.1.notes();
    // Read into a network of their own, whose section has the name that files are read into.
    let mut params = Params::new();
    of.build(params.root().sub("encoder"))?;
    params.materialise(Key::new(0), DType::F32, &Device::Cpu)?;
    of.architecture().load(file, &params)?;
    Ok(Some(Begun { tensors: params.section("encoder")?.into_iter().collect(), notes }))
}

/// The tensors of another program's file that have one of these names, in f32.
///
/// # Errors
/// There is no such file, or it is damaged.
pub fn beside(path: &Path, names: &[&str]) -> Result<HashMap<String, Tensor>> {
    let file = encoder::File::open(path)?;
    let mut found = HashMap::new();
    for (name, tensor) in file.tensors()?.into_iter().filter(|(name, _)| names.contains(&name.as_str())) {
        let tensor = encoder::finite(&name, &tensor).at(file.path().display())?;
        found.insert(name, tensor);
    }
    Ok(found)
}

/// The encoder as the image tower of a `CLIPModel` or `SiglipModel` of transformers; `tensors` are the encoder's, under ctk's names.
///
/// # Errors
/// A network that is neither's.
pub fn part(of: &EncoderRecipe, pairs: &AugmentRecipe, tensors: HashMap<String, Tensor>) -> Result<Part> {
    match of {
        EncoderRecipe::Vit(of) => encoder::vit::part(of, pairs, tensors),
        _ => Err(Error::usage("a ResNet is no image tower of transformers' CLIP or SigLIP")
            .hint("[image.encoder.vit] with normalise_tokens = true and patch_bias = false is CLIP's")),
    }
}

/// The recipe that describes what is at `path`, a run of vision or another program's network, with its sections `encoder` and `pairs`; of a
/// run also its weights, since they are not in a file that the recipe could name.
///
/// # Errors
/// There is none of these, or it is damaged.
pub fn described(path: &Path) -> Result<(Recipe, Option<HashMap<String, Tensor>>)> {
    if !Checkpoint::is_at(path) {
        return Ok((Found::open(path)?.recipe()?, None));
    }
    let checkpoint = Checkpoint::open(path)?;
    let of = &checkpoint.manifest().modality;
    if of != "vision" {
        return Err(Error::usage(format!("this is a run of {of}, not of vision")).at(path.display()));
    }
    let tensors = checkpoint.reader().tensors(MODEL).at(path.display())?;
    Ok((checkpoint.recipe(), Some(tensors)))
}

/// Values that are in memory for each image of `size` × `size` pixels in a training step, and without a backward pass; `params` are declared
/// below `prefix.`.
pub fn values(of: &EncoderRecipe, params: &Params, prefix: &str, size: usize, recompute: bool) -> [f64; 2] {
    let values = of.architecture().values(params, prefix, size);
    [if recompute { values.recomputed } else { values.step }, values.evaluation]
}
