//! The text towers of CLIP and SigLIP, by themselves or in files with an image tower. [`config`] reads and writes their descriptions, [`names`]
//! their tensors, in the layouts of transformers and open_clip.
//!
//! Names and shapes do not show heads, the form of the GELU and the normalisations' ε. A description says them, or the defaults of the
//! program that wrote it:
//!
//! | | transformers | open_clip |
//! |---|---|---|
//! | description | `config.json`, in it `text_config` | `open_clip_config.json`, in it `model_cfg.text_cfg` |
//! | heads | 8 in CLIP, 12 in SigLIP | 8 |
//! | GELU | CLIP's QuickGELU, SigLIP's by tanh | erf, `quick_gelu`, `act_kwargs` |
//! | ε | 1e-5 in CLIP, 1e-6 in SigLIP | 1e-5 |
//!
//! A text's features are those behind the projection, if there is one; [`write()`] puts it beside the tower.

pub mod config;
pub mod names;
#[cfg(test)]
mod tests;

use candle_core::Tensor;
use ctk_core::error::{Error, Result};
use ctk_core::nn::Gelu;
use serde_json::Value;

use super::names::Family;
use super::{Norms, Projection, Shape};

impl Shape {
    /// CLIP's text tower with fresh weights, as open_clip makes it: heads of 64 values, an MLP of four times the width, 77 positions, and a
    /// GELU by erf. It has no projection.
    pub fn clip(vocabulary: usize, width: usize, layers: usize) -> Shape {
        Shape {
            positions: 77,
            types: 0,
            epsilon: 1e-5,
            dropout: 0.0,
            attention_dropout: 0.0,
            norms: Norms::Before,
            causal: true,
            ..Shape::bert(vocabulary, width, layers)
        }
    }

    /// SigLIP's text tower with fresh weights: as CLIP's, with attention to all of 64 places, and a GELU by tanh.
    pub fn siglip(vocabulary: usize, width: usize, layers: usize) -> Shape {
        Shape { positions: 64, gelu: Gelu::Tanh, epsilon: 1e-6, causal: false, ..Shape::clip(vocabulary, width, layers) }
    }

    /// The tower that has a linear layer behind its features; none takes it away.
    pub fn projected(self, projection: Option<Projection>) -> Shape {
        Shape { projection, ..self }
    }
}

/// A text tower as transformers writes it.
pub struct Written {
    /// `text_config`, or the whole `config.json` of a text tower by itself.
    pub config: Value,
    /// The tensors, as in a `CLIPModel` or `SiglipModel`: `text_model.…`, `text_projection.weight`.
    pub tensors: Vec<(String, Tensor)>,
}

/// The description and the tensors that transformers has for a tower, from tensors under ctk's names; those of a projection of its own are
/// `projection.weight` and `projection.bias`.
///
/// # Errors
/// A network that transformers does not have, by what it has; tensors that are not the network's.
pub fn write(family: Family, shape: &Shape, tensors: &[(String, Tensor)]) -> Result<Written> {
    fits(family, shape)?;
    Ok(Written { config: config::write(family, shape), tensors: names::give(family, tensors)? })
}

/// Refuses a network that transformers does not have under the name of `family`.
fn fits(family: Family, shape: &Shape) -> Result<()> {
    let (name, causal, bias) = match family {
        Family::Clip => ("CLIP", true, false),
        Family::Siglip => ("SigLIP", false, true),
        _ => return Err(Error::new("this network is no text tower of CLIP or SigLIP")),
    };
    let unlike = [
        (shape.norms != Norms::Before, "normalises behind its sublayers".to_string()),
        (shape.causal != causal, format!("has {} attention", if shape.causal { "causal" } else { "two-way" })),
        (shape.types > 0 || shape.first_position > 0, "has token types or positions of its own".to_string()),
        (
            shape.projection.is_some_and(|projection| projection.bias != bias),
            format!("has a projection {} bias", if bias { "without a" } else { "with a" }),
        ),
    ];
    match unlike.into_iter().find(|(unlike, _)| *unlike) {
        Some((_, what)) => {
            Err(Error::usage(format!("this network {what}, which the text tower of transformers' {name} does not")))
        }
        None => Ok(()),
    }
}
