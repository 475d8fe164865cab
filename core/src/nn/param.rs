//! One parameter: its name, its shape, what it is, where its values come from, and its values.

use std::sync::OnceLock;

use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_distr::{Distribution, Normal, Uniform};

use crate::error::{Error, Result};
use crate::rng::Key;

/// What a parameter is, which decides how optimizers treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A weight: decayed, adapted by LARS.
    Weight,
    /// A normalisation's scale or shift: neither decayed nor adapted.
    Norm,
    /// A bias: neither decayed nor adapted.
    Bias,
    /// The supervised classifier: not adapted, decayed through the loss alone (SimCLR, `lars_optimizer.py`).
    Head,
    /// A learned scalar of a loss (a temperature): neither decayed nor adapted.
    Scalar,
    /// State that is saved but never optimised (running statistics).
    Buffer,
}

impl ParamKind {
    /// Whether gradients change it.
    pub fn trained(self) -> bool {
        self != ParamKind::Buffer
    }

    /// Whether weight decay and layer-wise adaptation apply.
    pub fn decayed(self) -> bool {
        self == ParamKind::Weight
    }
}

/// Initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// One number everywhere.
    Constant(f64),
    /// N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// N(0, std²) cut at two standard deviations (`std` is the uncut one's).
    TruncatedNormal {
        /// Standard deviation before cutting.
        std: f64,
    },
    /// U(low, high).
    Uniform {
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
}

/// One declared parameter. Its variable exists once [`Params::materialise`] has run.
pub struct Param {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) kind: ParamKind,
    pub(super) init: Init,
    pub(super) var: OnceLock<Var>,
}

impl Param {
    /// Full dotted name, `encoder.layer1.0.conv1.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions, slowest first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// What it is.
    pub fn kind(&self) -> ParamKind {
        self.kind
    }

    /// The variable.
    ///
    /// # Panics
    /// Before [`Params::materialise`]: a model is never run before it has values.
    pub fn var(&self) -> &Var {
        self.var.get().unwrap_or_else(|| panic!("parameter {} used before materialise", self.name))
    }

    /// Its name without `prefix.`; none where it is not below it.
    pub(super) fn below(&self, prefix: &str) -> Option<&str> {
        if prefix.is_empty() { Some(&self.name) } else { self.name.strip_prefix(prefix)?.strip_prefix('.') }
    }

    pub(super) fn draw(&self, key: Key, dtype: DType, device: &Device) -> Result<Var> {
        let count = self.shape.elem_count();
        let mut rng = key.of("init").of(&self.name).rng();
        let values: Vec<f64> = match self.init {
            Init::Constant(c) => vec![c; count],
            Init::Normal { std } => normal(std)?.sample_iter(&mut rng).take(count).collect(),
            Init::TruncatedNormal { std } => {
                normal(std)?.sample_iter(&mut rng).filter(|v: &f64| v.abs() <= 2.0 * std).take(count).collect()
            }
            Init::Uniform { low, high } => {
                Uniform::new(low, high).map_err(Error::new)?.sample_iter(&mut rng).take(count).collect()
            }
        };
        let tensor = Tensor::from_vec(values, self.shape.clone(), &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?;
        Ok(Var::from_tensor(&tensor)?)
    }
}

fn normal(std: f64) -> Result<Normal<f64>> {
    Normal::new(0.0, std).map_err(Error::new)
}
