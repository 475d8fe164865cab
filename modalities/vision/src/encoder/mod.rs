//! `[encoder.*]`: the list of encoders, one line for each; everything else about an encoder is in its own file.

mod architecture;
mod file;
mod input;
mod processor;
mod timm;
mod wrapped;

use std::path::Path;

use ctk_core::nn::params::Scope;
use ctk_core::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use architecture::ImageEncoder;
pub(crate) use architecture::{Architecture, ClassifierExport, Exported, Family, Foreign, Meant, SAFETENSORS};
pub(crate) use file::{File, finite};
pub(crate) use input::{mean_and_deviation, told};

/// Generates from the list the modules, the section of a recipe, and the families.
macro_rules! encoders {
    ($($file:ident $name:ident($recipe:ident) $doc:literal;)*) => {
        $(pub mod $file;)*

        /// `[encoder.*]`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub enum EncoderRecipe {
            $(#[doc = $doc] $name($file::$recipe),)*
        }

        impl EncoderRecipe {
            pub(crate) fn architecture(&self) -> &dyn Architecture {
                match self { $(EncoderRecipe::$name(of) => of,)* }
            }

            fn architecture_mut(&mut self) -> &mut dyn Architecture {
                match self { $(EncoderRecipe::$name(of) => of,)* }
            }
        }

        const FAMILIES: &[&Family] = &[$(&$file::FAMILY,)*];

        /// The keys of recipes that name weights of other programs.
        pub(crate) const WEIGHTS: &[&str] = &[$(concat!("encoder.", stringify!($file), ".weights"),)*];
    };
}

encoders! {
    resnet Resnet(ResnetRecipe) "A residual network.";
    vit Vit(VitRecipe) "A vision transformer.";
}

impl Default for EncoderRecipe {
    fn default() -> Self {
        EncoderRecipe::Resnet(resnet::ResnetRecipe::default())
    }
}

impl EncoderRecipe {
    /// Declares the network's parameters in the scope.
    ///
    /// # Errors
    /// Settings that are out of range or contradict each other.
    pub fn build(&self, scope: Scope) -> Result<Box<dyn ImageEncoder>> {
        self.architecture().build(scope)
    }

    /// The full key of `name` in a recipe: `encoder.resnet.name`.
    pub fn key(&self, name: &str) -> String {
        format!("encoder.{}.{name}", self.architecture().family().name)
    }

    /// The same network with fresh weights.
    pub(crate) fn without_weights(mut self) -> EncoderRecipe {
        self.architecture_mut().forget_weights();
        self
    }
}

/// Recognises the network of another program at `path`.
///
/// # Errors
/// There is no such file, it is damaged, or no encoder knows its tensors' names.
pub(crate) fn recognise(path: &Path) -> Result<(File, Box<dyn Foreign>)> {
    let file = File::open(path)?;
    for family in FAMILIES {
        if let Some(foreign) = wrapped::first(&file, family.recognise)? {
            return Ok((file, foreign));
        }
    }
    let titles: Vec<&str> = FAMILIES.iter().map(|family| family.title).collect();
    let reads: Vec<&str> = FAMILIES.iter().map(|family| family.reads).collect();
    Err(architecture::unknown(&file, &titles.join(" or "), &reads.join("; ")))
}

/// The family that a word such as `resnet18` belongs to, and the keys of its section that the word sets.
///
/// # Errors
/// No encoder has this name.
pub(crate) fn named(word: &str) -> Result<(&'static Family, Vec<(&'static str, String)>)> {
    let found = FAMILIES.iter().find_map(|family| Some((*family, (family.named)(word)?)));
    found.ok_or_else(|| {
        let words: Vec<&str> = FAMILIES.iter().map(|family| family.words).collect();
        Error::usage(format!("--encoder {word}: there is no such encoder")).hint(words.join("; "))
    })
}

#[cfg(test)]
mod tests;
