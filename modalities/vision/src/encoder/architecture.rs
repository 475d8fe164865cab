//! The interface of image encoders, in three traits. [`Architecture`] is an encoder as its recipe describes it, [`ImageEncoder`] a built
//! encoder, [`Foreign`] an encoder in another program's file.
//!
//! A new encoder is a file with a recipe struct (`[encoder.NAME]`) that implements [`Architecture`] and has a [`Family`], and a line in the
//! list of [`encoder`](super). Training, evaluation, tasks, import, export and `ctk bench` call encoders only through this interface. Only
//! the default recipes name ResNet.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::model::encoder::Encoder;
use ctk_core::model::plain::Plain;
use ctk_core::nn::params::{Params, Scope};
use ctk_core::recipe::HeadRecipe;
use ctk_core::{Error, Result, Tensor};
use ctk_images::augment::AugmentRecipe;
use ctk_images::pixels::Pixels;
use serde_json::Value;

use super::file::File;
use super::input::Input;

/// A built encoder: `(n, h, w, 3)` pixels to `(n, width)` representations. Towers hold it in a box: one virtual call for each pass.
pub trait ImageEncoder: Encoder<Views = Pixels> + Send + Sync {}

impl<E: Encoder<Views = Pixels> + Send + Sync> ImageEncoder for E {}

/// The format of a checkpoint's own file, in which every encoder can be exported.
pub(crate) const SAFETENSORS: &str = "safetensors";

/// An encoder as a recipe has it, before it is built.
pub(crate) trait Architecture {
    /// Properties of the kind of encoder.
    fn family(&self) -> &'static Family;

    /// Checks what parsing alone cannot. The message names the key.
    ///
    /// # Errors
    /// The first value that is not allowed.
    fn check(&self) -> Result<()>;

    /// Checks that it reads images of `size` × `size` pixels.
    ///
    /// # Errors
    /// It does not; the message says which it reads.
    fn fits(&self, _size: usize) -> Result<()> {
        Ok(())
    }

    /// Keys of its section that a new recipe for images of `size` × `size` pixels states if it does not have them.
    fn stated(&self, _size: usize) -> Keys {
        Keys::new()
    }

    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    fn build(&self, scope: Scope) -> Result<Box<dyn ImageEncoder>>;

    /// The file of another program from which its weights start.
    fn weights(&self) -> Option<&Path> {
        None
    }

    /// Makes it start from fresh weights.
    fn forget_weights(&mut self) {}

    /// Sets the parameters below `encoder.` to the values of `file`.
    ///
    /// # Errors
    /// A file that cannot be read, or that has another network.
    fn load(&self, file: &Path, _params: &Params) -> Result<()> {
        Err(Error::usage("this encoder reads no weights of other programs").at(file.display()))
    }

    /// Multiplications in one image's forward pass at `size` pixels; `params` are declared below `prefix.`.
    fn products(&self, params: &Params, prefix: &str, size: usize) -> usize;

    /// Values that are in memory for each image of `size` pixels; used to predict memory. `params` are declared below `prefix.`.
    fn values(&self, params: &Params, prefix: &str, size: usize) -> Values;

    /// Its settings under their JSON names, as `ctk import` reports them.
    fn figures(&self) -> Vec<(&'static str, Value)>;

    /// The settings that `ctk bench` reports, under JSON names: `encoder` first, then what distinguishes it from others.
    fn timed(&self) -> Vec<(&'static str, Value)>;

    /// Formats in which it can be exported: [`SAFETENSORS`] and those of [`export`](Architecture::export).
    fn formats(&self) -> &'static [&'static str] {
        &[SAFETENSORS]
    }

    /// Why it cannot be exported as `format`, one of its formats; none if it can.
    fn refused(&self, _format: &str) -> Option<String> {
        None
    }

    /// Writes it as the folder `out` for another program. Returns notes on how it is used there.
    ///
    /// # Errors
    /// The format has no such network, or something other than an empty folder exists at `out`.
    fn export(&self, format: &str, _of: Exported, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("this encoder cannot be exported as `{format}`")))
    }
}

/// Numbers of values that are in memory for each image: maps, tapes and gradient buffers together, without parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Values {
    /// In a training step.
    pub step: f64,
    /// In a training step that computes residual blocks once more in the backward pass.
    pub recomputed: f64,
    /// Without a backward pass.
    pub evaluation: f64,
}

/// An encoder that is exported.
pub(crate) struct Exported<'a> {
    /// Width of a representation.
    pub features: usize,
    /// The settings by which images are prepared for the network.
    pub pairs: &'a AugmentRecipe,
    /// Its tensors, named as below `encoder.`.
    pub tensors: HashMap<String, Tensor>,
    /// The classifier on top of it, if that is exported too.
    pub classifier: Option<ClassifierExport>,
}

/// A classifier that is exported.
#[derive(Clone)]
pub(crate) struct ClassifierExport {
    /// Linear layers with a ReLU between every two.
    pub layers: Vec<Plain>,
    /// The names of its classes, by number.
    pub classes: Vec<String>,
}

impl ClassifierExport {
    /// Refuses a classifier of several layers, which `holder`, a network of another program, cannot hold.
    pub fn single(&self, holder: &str) -> Result<()> {
        if self.layers.len() <= 1 {
            return Ok(());
        }
        Err(Error::usage(format!("this run's classifier follows a layer of its projection head, which {holder} cannot hold")).hint(
            "--encoder-only leaves the classifier out, --format safetensors writes all of it; `ctk finetune --from-layer 0` trains one \
             that fits",
        ))
    }

    /// Its tensors with torchvision's names: `fc`, or for several layers `fc.0`, `fc.2`, … of a `Sequential` with ReLUs between.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Tensor)> {
        let name = |at: usize| if self.layers.len() == 1 { "fc".to_string() } else { format!("fc.{}", 2 * at) };
        self.layers.iter().enumerate().flat_map(move |(at, layer)| {
            let name = name(at);
            [(format!("{name}.weight"), layer.weight.clone()), (format!("{name}.bias"), layer.bias.clone())]
        })
    }
}

/// Keys of an encoder's section with their values.
pub(crate) type Keys = Vec<(&'static str, String)>;

/// A recognised network, or none.
pub(crate) type Found = Option<Box<dyn Foreign>>;

/// Properties of a kind of encoder that do not depend on a recipe.
pub(crate) struct Family {
    /// Its section: `[encoder.NAME]`.
    pub name: &'static str,
    /// Its usual name.
    pub title: &'static str,
    /// The words that [`named`](Family::named) accepts, as a hint.
    pub words: &'static str,
    /// The keys of its section that `--encoder WORD` sets; none if the word is no encoder of this kind.
    pub named: fn(word: &str) -> Option<Keys>,
    /// The programs whose files [`recognise`](Family::recognise) reads, as a hint.
    pub reads: &'static str,
    /// The network in another program's file, if its tensors have the names of this kind.
    pub recognise: fn(&File) -> Result<Found>,
}

/// A network of another program, recognised by the names of its tensors, which are read when they are loaded.
pub(crate) trait Foreign {
    /// The program or layout that its names belong to.
    fn layout(&self) -> String;

    /// The encoder that names and shapes describe.
    ///
    /// # Errors
    /// This kind of encoder cannot build it.
    fn encoder(&self) -> Result<Meant>;

    /// The projection head in the same file; without layers if there is none.
    fn head(&self) -> HeadRecipe;

    /// How images are prepared, according to the files beside it.
    fn said(&self) -> Input;

    /// Notes about the file: its prefix, and tensors that are not read.
    fn notes(&self) -> Vec<String>;

    /// Sets the encoder declared below `encoder.`, and with `head` the projection head below `head.`.
    ///
    /// # Errors
    /// A name or shape differs, or a tensor has values that are not finite.
    fn load(&self, params: &Params, head: bool) -> Result<()>;
}

/// An encoder that names and shapes describe.
pub(crate) struct Meant {
    /// Its usual name, such as `ResNet-50`.
    pub title: String,
    /// Its section of a recipe, as text.
    pub section: String,
    /// How its images are prepared: by the files beside it or, if they do not say, by convention.
    pub input: Input,
}

/// The error for a file whose tensors have the names of none of the networks called `titles`; `reads` is the hint.
pub(crate) fn unknown(file: &File, titles: &str, reads: &str) -> Error {
    let names: Vec<String> = file.names().take(3).map(|name| format!("`{name}`")).collect();
    Error::usage(format!("the tensors of this file are named as in no {titles} that ctk knows: {} …", names.join(", ")))
        .at(file.path().display())
        .hint(reads)
}
