//! Other programs' ResNets: their weights as encoders of ctk, and ctk's encoders as folders that they load.
//!
//! - [`names`] is the key map: whose names a file has, and what each of our tensors is called there. It is read both ways.
//! - [`file`] reads a safetensors file, its header first; [`infer`] says which network names and shapes mean.
//! - [`timm`] and [`transformers`] know the descriptions that lie beside weights, [`input`] what both say of pictures.
//! - [`import`] makes a run of weights (`ctk import`), [`export`] a folder of a run (`ctk export --format timm|transformers`).
//!
//! `encoder.resnet.weights` reads the same files for a recipe of the user's own, by the same [`Weights`].
//!
//! What a file cannot say is taken from its layout's convention, and `--set` overrides it:
//!
//! | | torchvision, timm | transformers | SimCLRv2's conversion |
//! |---|---|---|---|
//! | stem of one 7 × 7 convolution | max-pool that pads 1 | the same | the same |
//! | stem of one 3 × 3 convolution | stride 1, no pool (ctk's own) | refused | refused |
//! | stride of a bottleneck | on its 3 × 3 convolution | the same, as `config.json` says | the same |
//! | average of a shortcut | over what lies inside, with stride 1 none; with selective kernels (ctk's own) Google's | | zeros below and right count |
//! | `variant` | `torchvision`; `google` where group 1 projects without need; `resnet-d` | `torchvision` | `torchvision`; with selective kernels `simclrv2-pytorch` |
//! | pixels | `config.json`, else 224 (small stem: 32) | the same | 224 |
//! | mean, deviation | `config.json`, else ImageNet's (small stem: [0, 1]) | `preprocessor_config.json`, else ImageNet's | [0, 1] |
//!
//! SimCLRv2's weights were trained by Google's network, whose max-pool pads below and to the right alone and whose first group's
//! average leaves out what lies outside. The conversion computes something near; `--set encoder.resnet.variant=google` goes back.
//!
//! Pictures are cut and resized as elsewhere in ctk: the centre first, so that its edge may lie a pixel from where others have it, and
//! up to 32 pixels whole. transformers' processor cuts nothing at 384 pixels and above.

pub(crate) mod export;
mod file;
pub(crate) mod import;
mod infer;
mod input;
mod names;
#[cfg(test)]
mod tests;
mod timm;
mod transformers;

use std::collections::HashMap;
use std::path::Path;

use ctk_core::nn::params::Params;
use ctk_core::recipe::HeadRecipe;
use ctk_core::{Context, Error, Result, Tensor};

use crate::resnet::ResnetRecipe;
use file::File;
use input::Input;
pub use names::Layout;
use names::Names;

/// Another program's network: a file whose layout is known. Its tensors are read when they are loaded.
pub struct Weights {
    file: File,
    names: Names,
    said: Input,
}

impl Weights {
    /// Looks into a safetensors file, or into the `model.safetensors` of a folder, and beside it for a `config.json` of timm's or
    /// transformers'.
    ///
    /// # Errors
    /// There is no such file, it is damaged, or of no layout that is known; its description says that it computes something else
    /// than its names do.
    pub fn open(path: &Path) -> Result<Weights> {
        let file = File::open(path)?;
        let names = Names::recognise(|name| file.dims(name).is_some()).ok_or_else(|| unknown(&file))?;
        let said = file.folder().map_or(Ok(Input::default()), described)?;
        Ok(Weights { file, names, said })
    }

    /// Whose names the tensors have.
    pub fn layout(&self) -> Layout {
        self.names.layout
    }

    /// The encoder that they are of.
    ///
    /// # Errors
    /// It is none of ctk's.
    pub fn encoder(&self) -> Result<ResnetRecipe> {
        infer::encoder(&self.names, &self.file).at(self.file.path().display())
    }

    /// The projection head that lies beside it; without layers where there is none.
    pub fn head(&self) -> HeadRecipe {
        infer::head(&self.names, &self.file)
    }

    /// Sets the encoder that is declared below `encoder.`, and with `head` the projection head below `head.`.
    ///
    /// # Errors
    /// The network is another, in any name or shape; a tensor holds what is no number.
    pub fn load(&self, params: &Params, head: bool) -> Result<()> {
        let place = self.file.path().display();
        let pairs = infer::agree(&self.names, &self.file, params, head).at(&place)?;
        let theirs = self.file.tensors()?;
        let of = |name: &str| theirs.get(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing"))).at(&place);
        if let Some(name) = infer::last_shift(&self.names, params).filter(|name| head && theirs.contains_key(name)) {
            let shift = file::finite(&name, of(&name)?).at(&place)?.flatten_all()?.to_vec1::<f32>()?;
            if shift.iter().any(|value| *value != 0.0) {
                return Err(Error::usage(format!("the head's last normalisation has a shift, `{name}`, which ctk's has not"))
                    .at(&place)
                    .hint("--set head.layers=0 leaves the head out"));
            }
        }
        let mut ours: HashMap<String, Tensor> = HashMap::new();
        for (name, theirs) in pairs {
            ours.insert(name, file::finite(&theirs, of(&theirs)?).at(&place)?);
        }
        for section in if head { &["encoder", "head"][..] } else { &["encoder"] } {
            let below = |name: &str| name.strip_prefix(section).and_then(|name| name.strip_prefix('.')).map(String::from);
            let tensors = ours.iter().filter_map(|(name, tensor)| Some((below(name)?, tensor.clone()))).collect();
            params.load_section(section, &tensors).at(&place)?;
        }
        Ok(())
    }
}

/// What the descriptions in a folder say.
fn described(folder: &Path) -> Result<Input> {
    let Some(config) = file::json(folder, file::CONFIG)? else { return Ok(Input::default()) };
    let place = folder.join(file::CONFIG);
    if config.get("architecture").is_some() {
        return timm::read(&config).at(place.display());
    }
    if config.get("model_type").is_none() {
        return Err(Error::usage("this names neither timm's `architecture` nor transformers' `model_type`")
            .at(place.display())
            .hint("move the model.safetensors elsewhere, to go by its tensors' names alone"));
    }
    transformers::check(&config).at(place.display())?;
    let preprocessor = file::json(folder, file::PREPROCESSOR)?;
    preprocessor.map_or(Ok(Input::default()), |of| transformers::read(&of)).at(folder.join(file::PREPROCESSOR).display())
}

fn unknown(file: &File) -> Error {
    let names: Vec<String> = file.names().take(3).map(|name| format!("`{name}`")).collect();
    Error::usage(format!("the tensors of this file are named as in no ResNet that ctk knows: {} …", names.join(", ")))
        .at(file.path().display())
        .hint("ctk reads torchvision's and timm's resnets, transformers' ResNetModel, and SimCLRv2's PyTorch conversion")
}
