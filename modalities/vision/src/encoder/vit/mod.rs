//! Vision transformers (Dosovitskiy et al. 2021) with timm's tensor names: ViT and DeiT, and the image towers of CLIP (a normalisation before
//! the first block, QuickGELU), SigLIP (pooling by attention) and DINOv2 (LayerScale, registers), which differ in the settings of one recipe.
//! [`Weights`] reads other programs' weights, `export` writes them.

mod config;
mod export;
mod names;
mod network;
mod recipe;
mod weights;

use std::path::Path;

use ctk_core::Result;
use ctk_core::nn::params::{Params, Scope};
use serde_json::{Value, json};

use super::architecture::{Architecture, Exported, Family, Foreign, ImageEncoder, Keys, SAFETENSORS, Values};
use super::file::File;

pub use export::Part;
pub(crate) use export::part;
pub use names::Layout;
pub use network::Vit;
pub use recipe::{Activation, Pooling, VitRecipe};
pub use weights::Weights;

/// Properties of vision transformers that do not depend on a recipe.
pub(super) const FAMILY: Family = Family {
    name: "vit",
    title: weights::TITLE,
    words: "write vit-, ti, s, b or l, and the pixels of a patch, as in vit-s16",
    named: recipe::named,
    reads: weights::READS,
    recognise,
};

fn recognise(file: &File) -> Result<Option<Box<dyn Foreign>>> {
    Ok(Weights::recognise(file)?.map(|weights| Box::new(weights) as Box<dyn Foreign>))
}

impl Architecture for VitRecipe {
    fn family(&self) -> &'static Family {
        &FAMILY
    }

    fn check(&self) -> Result<()> {
        VitRecipe::check(self)
    }

    fn fits(&self, size: usize) -> Result<()> {
        VitRecipe::fits(self, size)
    }

    /// Positions are learned for the images of the new run, unless another program's weights have some.
    fn stated(&self, size: usize) -> Keys {
        match (self.size, &self.weights) {
            (None, Some(_)) => Keys::new(),
            (own, _) => vec![("size", own.unwrap_or(size).to_string())],
        }
    }

    fn build(&self, scope: Scope) -> Result<Box<dyn ImageEncoder>> {
        Ok(Box::new(Vit::new(self, scope)?))
    }

    fn weights(&self) -> Option<&Path> {
        self.weights.as_deref()
    }

    fn forget_weights(&mut self) {
        self.weights = None;
    }

    fn load(&self, file: &Path, params: &Params) -> Result<()> {
        Weights::open(file)?.load(params)
    }

    /// Those of the patches, of the linear layers of each block, of queries with keys, and of probabilities with values.
    fn products(&self, _: &Params, _: &str, size: usize) -> usize {
        let (w, tokens) = (self.width, self.tokens(size));
        let block = tokens * w * (4 * w + 2 * self.inner()) + 2 * tokens * tokens * w;
        let pool = if self.pooling == Pooling::Attention { tokens * w * 3 * w } else { 0 };
        (size / self.patch).pow(2) * self.pixels() * w + self.layers * block + pool
    }

    /// Of each token a block keeps its two inputs, their normalisations, queries, keys and values, the outputs of attention and of the two
    /// sublayers: 10 widths; of the MLP the values before the GELU and behind it. The backward pass holds the gradients of one block besides.
    fn values(&self, _: &Params, _: &str, size: usize) -> Values {
        let (w, inner, tokens) = (self.width as f64, self.inner() as f64, self.tokens(size) as f64);
        let block = 10.0 * w + 2.0 * inner + self.heads as f64;
        let gradients = (2.0 * inner + 3.0 * w).max(5.0 * w);
        let layers = self.layers as f64;
        Values {
            step: tokens * (2.0 * w + layers * block + gradients) * SPARE,
            recomputed: tokens * (2.0 * w + layers * 2.0 * w + block + gradients) * SPARE,
            evaluation: tokens * (6.0 * w + 2.0 * inner),
        }
    }

    fn figures(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("patch", json!(self.patch)),
            ("size", json!(self.size())),
            ("width", json!(self.width)),
            ("layers", json!(self.layers)),
            ("heads", json!(self.heads)),
            ("inner", json!(self.inner())),
            ("pooling", json!(self.pooling)),
            ("class_token", json!(self.class_token)),
            ("class_position", json!(self.class_position)),
            ("registers", json!(self.registers)),
            ("layer_scale", json!(self.layer_scale)),
            ("gelu", json!(self.gelu)),
            ("normalise_tokens", json!(self.normalise_tokens)),
            ("patch_bias", json!(self.patch_bias)),
            ("resampling", json!(self.resampling)),
            ("epsilon", json!(self.epsilon)),
        ]
    }

    fn timed(&self) -> Vec<(&'static str, Value)> {
        vec![("encoder", json!(self.title())), ("width", json!(self.width)), ("layers", json!(self.layers))]
    }

    fn formats(&self) -> &'static [&'static str] {
        &export::FORMATS
    }

    fn refused(&self, format: &str) -> Option<String> {
        if format == SAFETENSORS { None } else { export::refused(format, self) }
    }

    fn export(&self, format: &str, of: Exported, out: &Path) -> Result<Vec<String>> {
        export::write(format, self, of, out)
    }
}

/// How much memory a step takes for each value that [`VitRecipe::values`] counts: buffers that products pack their factors into, too.
const SPARE: f64 = 1.15;

#[cfg(test)]
mod tests;
