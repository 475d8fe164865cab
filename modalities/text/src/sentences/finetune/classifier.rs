//! The classifier of a fine-tuned run: a linear layer on the features of texts. A checkpoint stores it with the names of its classes.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use ctk_core::eval::Features;
use ctk_core::eval::linear_probe::{self, Linear, Options};
use ctk_core::nn::params::HEAD;
use ctk_core::store::checkpoint::{Checkpoint, Writer};
use ctk_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::recipe::Scheme;

/// The description of the classifier in a checkpoint.
const DESCRIPTION: &str = "classifier.json";
/// The weights of a logistic regression in a checkpoint. Those of a classifier that was trained with the network are in its head's file.
const WEIGHTS: &str = "classifier.safetensors";

const WEIGHT: &str = "classifier.weight";
const BIAS: &str = "classifier.bias";

/// What a checkpoint says about its classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// How it was trained.
    pub scheme: Scheme,
    /// Names of the classes by number.
    pub classes: Vec<String>,
}

impl About {
    /// Its file in a checkpoint.
    ///
    /// # Errors
    /// None for classes with names.
    pub fn file(&self) -> Result<(&'static str, Vec<u8>)> {
        Ok((DESCRIPTION, serde_json::to_vec_pretty(self)?))
    }
}

/// A linear layer of logits.
#[derive(Clone, Debug)]
pub struct Logits {
    /// What it is.
    pub about: About,
    /// (width, classes).
    weight: Tensor,
    bias: Tensor,
}

impl Logits {
    /// A logistic regression on labelled features, its L2 strength chosen by cross-validation on them; and this strength.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn fit(features: &Features, folds: usize, seed: u64, about: About) -> Result<(Logits, Option<f64>)> {
        let fitted = linear_probe::Classifier::fit(features, &Options { folds, seed, ..Options::default() })?;
        let Linear { classes, weight, bias } = fitted.linear();
        if classes.len() != about.classes.len() {
            return Err(Error::new(format!("{} classes have names, and {} have labels", about.classes.len(), classes.len())));
        }
        let weight = Tensor::from_vec(weight, (classes.len(), features.width), &Device::Cpu)?;
        let bias = Tensor::from_vec(bias, classes.len(), &Device::Cpu)?;
        Ok((Logits { about, weight: weight.t()?.contiguous()?, bias }, fitted.strength()))
    }

    /// The layer that has these tensors.
    ///
    /// # Errors
    /// They are missing, or of other shapes.
    pub fn named(about: About, tensors: &HashMap<String, Tensor>) -> Result<Logits> {
        let of = |name: &str| tensors.get(name).ok_or_else(|| Error::new(format!("the tensor `{name}` is missing")));
        let (weight, bias) = (of(WEIGHT)?, of(BIAS)?);
        let (classes, named) = (weight.dims2()?.0, about.classes.len());
        if classes != named || bias.elem_count() != named {
            return Err(Error::new(format!("{named} classes have names, and the classifier has {classes}")));
        }
        Ok(Logits {
            about,
            weight: weight.to_dtype(DType::F32)?.t()?.contiguous()?,
            bias: bias.to_dtype(DType::F32)?.flatten_all()?,
        })
    }

    /// Writes a logistic regression into a checkpoint.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, writer: &mut Writer) -> Result<()> {
        let (name, bytes) = self.about.file()?;
        writer.bytes(name, &bytes)?;
        let weight = self.weight.t()?.contiguous()?;
        writer.tensors(WEIGHTS, &[(WEIGHT.to_string(), weight), (BIAS.to_string(), self.bias.clone())])
    }

    /// The classifier of a checkpoint; none if it has none.
    ///
    /// # Errors
    /// A damaged file.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Logits>> {
        let reader = checkpoint.reader();
        if !reader.has(DESCRIPTION) {
            return Ok(None);
        }
        let about: About = serde_json::from_slice(&reader.bytes(DESCRIPTION)?)?;
        let tensors = reader.tensors(if reader.has(WEIGHTS) { WEIGHTS } else { HEAD })?;
        Logits::named(about, &tensors).map(Some)
    }

    /// The logits of rows of features, row by row.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn of_rows(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let width = self.weight.dims2()?.0;
        let count = rows.len() / width.max(1);
        let x = Tensor::from_slice(rows, (count, width), &Device::Cpu)?;
        Ok(x.matmul(&self.weight)?.broadcast_add(&self.bias)?.flatten_all()?.to_vec1()?)
    }
}
