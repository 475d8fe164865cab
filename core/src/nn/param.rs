//! One parameter: its name, its shape, what it is, where its values come from, and its values.

use std::sync::OnceLock;

use candle_core::{DType, Device, Shape, Tensor, Var};
use ctk_kernels::{self as kernels, Real};
use rand_distr::{Distribution, Normal, Uniform};

use super::array::Array;
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

/// One declared parameter. It has values once [`Params::materialise`] has run.
pub struct Param {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) kind: ParamKind,
    pub(super) init: Init,
    pub(super) values: OnceLock<Values>,
}

/// A parameter's values, where the layers run that use it.
pub(super) enum Values {
    /// On the CPU: a variable of candle, so that a loss or an encoder in candle's operations can be differentiated by it.
    Cpu(Var),
    /// On another device.
    Device(Array),
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

    /// The type of its values.
    ///
    /// # Panics
    /// As [`var`](Param::var), where it lies on whatever device.
    pub fn dtype(&self) -> DType {
        self.array().dtype()
    }

    /// The variable.
    ///
    /// # Panics
    /// Before [`Params::materialise`]: a model is never run before it has values. And where the values lie on a device that is not
    /// the CPU, which candle cannot see.
    pub fn var(&self) -> &Var {
        match self.values() {
            Values::Cpu(var) => var,
            Values::Device(array) => panic!("parameter {} is {array:?}, which candle cannot see", self.name),
        }
    }

    /// Its values, where they lie.
    ///
    /// # Panics
    /// Before [`Params::materialise`].
    pub fn array(&self) -> Array {
        match self.values() {
            Values::Cpu(var) => Array::from(var.as_tensor().clone()),
            Values::Device(array) => array.clone(),
        }
    }

    fn values(&self) -> &Values {
        self.values.get().unwrap_or_else(|| panic!("parameter {} used before materialise", self.name))
    }

    /// Its values as a tensor that no gradient flows to: on the CPU the same memory, from another device a copy.
    ///
    /// # Errors
    /// Of candle.
    pub fn tensor(&self) -> Result<Tensor> {
        match self.values() {
            Values::Cpu(var) => Ok(var.as_detached_tensor()),
            Values::Device(array) => array.tensor(),
        }
    }

    /// Takes the values of `from`, rounded to its own type.
    ///
    /// # Errors
    /// Where the shape differs.
    pub fn set(&self, from: &Tensor) -> Result<()> {
        match self.values() {
            Values::Cpu(var) => Ok(var.set(&from.to_dtype(var.dtype())?.to_device(var.device())?)?),
            Values::Device(array) => array.set(&from.to_dtype(array.dtype())?),
        }
        .map_err(|e: Error| e.at(&self.name))
    }

    /// Shows a device the values.
    pub(crate) fn view<D: kernels::Device, R: Real, Out>(
        &self,
        device: &D,
        use_it: impl FnOnce(D::View<'_, R>) -> Out,
    ) -> Result<Out> {
        self.array().view(device, use_it).map_err(|e| e.at(&self.name))
    }

    /// Shows a device the values, to be changed in place.
    pub(crate) fn change<D: kernels::Device, R: Real>(&self, device: &D, change: impl FnOnce(D::ViewMut<'_, R>)) -> Result<()> {
        self.array().change(device, change).map_err(|e| e.at(&self.name))
    }

    /// Its name without `prefix.`; none where it is not below it.
    pub(super) fn below(&self, prefix: &str) -> Option<&str> {
        if prefix.is_empty() { Some(&self.name) } else { self.name.strip_prefix(prefix)?.strip_prefix('.') }
    }

    /// Its initial values, as they are drawn on the host.
    pub(super) fn draw(&self, key: Key, dtype: DType) -> Result<Tensor> {
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
        Ok(Tensor::from_vec(values, self.shape.clone(), &Device::Cpu)?.to_dtype(dtype)?)
    }
}

fn normal(std: f64) -> Result<Normal<f64>> {
    Normal::new(0.0, std).map_err(Error::new)
}
