//! What an encoder of images is to the rest of the plugin: before it is built, once it is built, and in other programs' files.
//!
//! A new encoder is a file that implements [`Architecture`] for its section of the recipe and says its [`Family`], and a line in the
//! list of [`encoder`](super). Training, evaluation, tasks, import, export and `ctk bench` ask these and know no encoder by name.

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

/// An encoder that is built: `(n, h, w, 3)` pixels to `(n, width)` representations. Towers hold it in a box: one virtual call a pass.
pub trait ImageEncoder: Encoder<Views = Pixels> + Send + Sync {}

impl<E: Encoder<Views = Pixels> + Send + Sync> ImageEncoder for E {}

/// The format of a checkpoint's own file, which every encoder can be exported as.
pub(crate) const SAFETENSORS: &str = "safetensors";

/// An encoder as a recipe has it, before it is built.
pub(crate) trait Architecture {
    /// What can be said of all of its kind.
    fn family(&self) -> &'static Family;

    /// What parsing alone cannot see. The message names the key.
    fn check(&self) -> Result<()>;

    /// Declares the network's parameters in the scope.
    fn build(&self, scope: Scope) -> Result<Box<dyn ImageEncoder>>;

    /// The file of another program that its values start from.
    fn weights(&self) -> Option<&Path> {
        None
    }

    /// Makes it start from fresh values.
    fn forget_weights(&mut self) {}

    /// Sets what is declared below `encoder.` to the values of `file`.
    fn load(&self, file: &Path, _params: &Params) -> Result<()> {
        Err(Error::usage("this encoder reads no weights of other programs").at(file.display()))
    }

    /// Products of two numbers in one image's forward pass at `size` pixels; `params` are declared below `prefix.`.
    fn products(&self, params: &Params, prefix: &str, size: usize) -> usize;

    /// Numbers that the convolutions put out in one image's forward pass at `size` pixels: what memory is forecast from.
    fn numbers(&self, params: &Params, prefix: &str, size: usize) -> usize;

    /// Its figures under their JSON names, as `ctk import` reports them.
    fn figures(&self) -> Vec<(&'static str, Value)>;

    /// What `ctk bench` says that it timed, under JSON names: `encoder`, then what else tells it from others.
    fn timed(&self) -> Vec<(&'static str, Value)>;

    /// Formats that it can be exported as: [`SAFETENSORS`] and those of [`export`](Architecture::export).
    fn formats(&self) -> &'static [&'static str] {
        &[SAFETENSORS]
    }

    /// Why it cannot be exported as `format`, one of its formats; nothing where it can.
    fn refused(&self, _format: &str) -> Option<String> {
        None
    }

    /// Writes it as the folder `out`, for another program; what to say of how it is used there.
    ///
    /// # Errors
    /// The format has no such network; there is something at `out`, other than an empty folder.
    fn export(&self, format: &str, _of: Exported, _out: &Path) -> Result<Vec<String>> {
        Err(Error::usage(format!("this encoder cannot be exported as `{format}`")))
    }
}

/// What is exported.
pub(crate) struct Exported<'a> {
    /// Width of a representation.
    pub features: usize,
    /// What the network is shown.
    pub pairs: &'a AugmentRecipe,
    /// Its tensors, named as below `encoder.`.
    pub tensors: HashMap<String, Tensor>,
    /// The classifier on top of it, which is exported too.
    pub classifier: Option<ClassifierExport>,
}

/// A classifier to be exported.
#[derive(Clone)]
pub(crate) struct ClassifierExport {
    /// Linear layers with a ReLU between every two.
    pub layers: Vec<Plain>,
    /// What its classes are called, by number.
    pub classes: Vec<String>,
}

impl ClassifierExport {
    /// Its tensors by torchvision's names: `fc`, or of several layers `fc.0`, `fc.2`, … of a `Sequential` with a ReLU between.
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

/// A network that was recognised, if one was.
pub(crate) type Found = Option<Box<dyn Foreign>>;

/// What can be said of a kind of encoder without a recipe of one.
pub(crate) struct Family {
    /// Its section: `[encoder.NAME]`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Which words [`named`](Family::named) knows, as a hint.
    pub words: &'static str,
    /// The keys of its section that `--encoder WORD` means; none where the word is no encoder of this kind.
    pub named: fn(word: &str) -> Option<Keys>,
    /// Whose files [`recognise`](Family::recognise) knows, as a hint.
    pub reads: &'static str,
    /// The network in another program's file, if its tensors are named as one of this kind.
    pub recognise: fn(&File) -> Result<Found>,
}

/// A network of another program, recognised by the names of its tensors; they are read when they are loaded.
pub(crate) trait Foreign {
    /// Whose names they are.
    fn layout(&self) -> String;

    /// The encoder that they mean.
    ///
    /// # Errors
    /// It is none that this kind builds.
    fn encoder(&self) -> Result<Meant>;

    /// The projection head that lies beside it; without layers where there is none.
    fn head(&self) -> HeadRecipe;

    /// What the descriptions beside it say of pictures.
    fn said(&self) -> Input;

    /// What to say of the file: what stands before its names, what is not read.
    fn notes(&self) -> Vec<String>;

    /// Sets the encoder that is declared below `encoder.`, and with `head` the projection head below `head.`.
    ///
    /// # Errors
    /// The network is another, in any name or shape; a tensor holds what is no number.
    fn load(&self, params: &Params, head: bool) -> Result<()>;
}

/// An encoder that names and shapes mean.
pub(crate) struct Meant {
    /// What people call it, as `ResNet-50`.
    pub title: String,
    /// Its section of a recipe, as text.
    pub section: String,
    /// What it is shown: as its descriptions say, and where they do not, by convention.
    pub input: Input,
}

/// What to say of a file whose tensors are named as in none of the networks called `titles`; `reads` is the hint.
pub(crate) fn unknown(file: &File, titles: &str, reads: &str) -> Error {
    let names: Vec<String> = file.names().take(3).map(|name| format!("`{name}`")).collect();
    Error::usage(format!("the tensors of this file are named as in no {titles} that ctk knows: {} …", names.join(", ")))
        .at(file.path().display())
        .hint(reads)
}
