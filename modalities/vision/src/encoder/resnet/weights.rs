//! Reads other programs' ResNets, for `ctk import` and `encoder.resnet.weights`.
//!
//! - [`names`] is the key map between ctk's tensor names and those of each layout, in both directions.
//! - [`infer`] infers the network from names and shapes.
//! - [`timm`] and [`transformers`] read the descriptions beside weights.
//!
//! What a file does not say is taken from its layout's convention, and can be changed with `--set`:
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
//! SimCLRv2's weights were trained with Google's network, whose max-pool pads only below and to the right, and whose average in the first
//! group leaves out pixels outside the image. The conversion computes something slightly different; `--set encoder.resnet.variant=google`
//! restores the original.
//!
//! How images are cropped and resized is read from these descriptions, too, to the pixel; settings that ctk cannot follow are refused.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::nn::params::Params;
use ctk_core::recipe::HeadRecipe;
use ctk_core::{Context, Error, Result, Tensor};

use super::names::{Layout, Names};
use super::recipe::{ResnetRecipe, Stem};
use super::{infer, timm, transformers};
use crate::encoder::architecture::{Foreign, Meant, unknown};
use crate::encoder::file::{self, File};
use crate::encoder::input::{Input, Shown};
use crate::encoder::{processor, wrapped};

/// The usual name of such networks.
pub(super) const TITLE: &str = "ResNet";

/// The programs whose files are read.
pub(super) const READS: &str =
    "ctk reads torchvision's and timm's resnets, transformers' ResNetModel, and SimCLRv2's PyTorch conversion";

/// Another program's network: a file with a known layout. Its tensors are read when they are loaded.
pub struct Weights {
    file: File,
    names: Names,
    pub(super) said: Input,
}

impl Weights {
    /// Opens a safetensors file, or the `model.safetensors` of a folder, with a `config.json` of timm or transformers beside it.
    ///
    /// # Errors
    /// There is no such file, it is damaged, or has no known layout; or its description is of a network that computes something else.
    pub fn open(path: &Path) -> Result<Weights> {
        let file = File::open(path)?;
        wrapped::first(&file, Weights::recognise)?.ok_or_else(|| unknown(&file, TITLE, READS))
    }

    /// The network in `file`, if its tensors have a ResNet's names.
    pub(super) fn recognise(file: &File) -> Result<Option<Weights>> {
        let Some(names) = Names::recognise(|name| file.dims(name).is_some()) else { return Ok(None) };
        let said = file.folder().map_or(Ok(Input::default()), described)?;
        Ok(Some(Weights { file: file.clone(), names, said }))
    }

    /// The layout of the tensors' names.
    pub fn layout(&self) -> Layout {
        self.names.layout
    }

    /// The encoder that the tensors belong to.
    ///
    /// # Errors
    /// It is not one that ctk has.
    pub fn encoder(&self) -> Result<ResnetRecipe> {
        infer::encoder(&self.names, &self.file).at(self.file.path().display())
    }

    /// The projection head in the same file; without layers if there is none.
    pub fn head(&self) -> HeadRecipe {
        infer::head(&self.names, &self.file)
    }

    /// How images are prepared: by the description, or by the layout's convention. SimCLRv2 has values in [0, 1], and so have networks with
    /// the small stem, which torchvision does not have.
    fn input(&self, of: &ResnetRecipe) -> Input {
        let (said, large) = (self.said, of.stem == Stem::Imagenet);
        let normalise = if large && self.names.layout != Layout::Simclrv2 { Input::IMAGENET } else { Input::PLAIN };
        Input {
            size: said.size.or(Some(if large { Input::IMAGENET_SIZE } else { 32 })),
            shown: said.shown.or(Some(Shown::middle(if large { 0.875 } else { 1.0 }))),
            normalise: said.normalise.or(Some(normalise)),
        }
    }

    /// Sets the encoder declared below `encoder.`, and with `head` the projection head below `head.`.
    ///
    /// # Errors
    /// A name or shape differs, or a tensor has values that are not finite.
    pub fn load(&self, params: &Params, head: bool) -> Result<()> {
        let place = self.file.path().display();
        let pairs = infer::agree(&self.names, &self.file, params, head).at(&place)?;
        let theirs = self.file.tensors()?;
        let of = |name: &str| theirs.get(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing"))).at(&place);
        if let Some(name) = infer::last_shift(&self.names, params).filter(|name| head && theirs.contains_key(name)) {
            let shift = file::finite(&name, of(&name)?).at(&place)?.flatten_all()?.to_vec1::<f32>()?;
            if shift.iter().any(|value| *value != 0.0) {
                return Err(Error::usage(format!(
                    "the head's last normalisation has a shift, `{name}`, which ctk's does not have"
                ))
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

impl Foreign for Weights {
    fn layout(&self) -> String {
        self.names.layout.to_string()
    }

    fn encoder(&self) -> Result<Meant> {
        let of = Weights::encoder(self)?;
        Ok(Meant { title: format!("ResNet-{}", of.depth), section: of.section(), input: self.input(&of) })
    }

    fn head(&self) -> HeadRecipe {
        Weights::head(self)
    }

    fn said(&self) -> Input {
        self.said
    }

    fn notes(&self) -> Vec<String> {
        wrapped::note(&self.file).into_iter().collect()
    }

    fn load(&self, params: &Params, head: bool) -> Result<()> {
        Weights::load(self, params, head)
    }
}

/// How images are prepared, according to the descriptions in a folder.
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
    preprocessor.map_or(Ok(Input::default()), |of| processor::read(&of)).at(folder.join(file::PREPROCESSOR).display())
}
