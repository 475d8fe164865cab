//! One parameter: its name, its shape, its kind, its initial values and its values.

use std::sync::{Mutex, OnceLock, PoisonError};

use candle_core::{DType, Shape, Tensor, Var};
use ctk_kernels::{self as kernels, Adam, Real};
use rand_distr::{Distribution, Normal, Uniform};

use super::array::Array;
use super::gradient::RowGradient;
use super::late::Late;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rng::Key;

/// The kind of a parameter, which decides how optimizers treat it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A weight: decayed, and scaled by LARS.
    Weight,
    /// A table of embeddings, whose rows are looked up: as a weight, but AdamW decays it only if the recipe says so.
    Embedding,
    /// Scale or shift of a normalisation: neither decayed nor scaled by LARS.
    Norm,
    /// A bias: neither decayed nor scaled by LARS.
    Bias,
    /// A weight of the supervised classifier: not scaled by LARS, and decayed only through the loss (SimCLR, `lars_optimizer.py`).
    Head,
    /// A learned scalar of a loss (a temperature): neither decayed nor scaled by LARS.
    Scalar,
    /// State that is saved and not trained (running statistics).
    Buffer,
}

impl ParamKind {
    /// Whether it is trained.
    pub fn trained(self) -> bool {
        self != ParamKind::Buffer
    }

    /// Whether weight decay and LARS's layer-wise scaling apply.
    pub fn decayed(self) -> bool {
        matches!(self, ParamKind::Weight | ParamKind::Embedding)
    }
}

/// Initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// The same number everywhere.
    Constant(f64),
    /// N(0, std²).
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// N(0, std²) cut at two standard deviations (`std` is that of the uncut distribution).
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

/// One declared parameter. It has values after [`Params::materialise`].
pub struct Param {
    pub(super) name: String,
    pub(super) shape: Shape,
    pub(super) kind: ParamKind,
    pub(super) init: Init,
    pub(super) depth: Option<usize>,
    pub(super) rate: f64,
    pub(super) values: OnceLock<Values>,
    /// The steps that rows of a table have yet to take. Whoever reads the values of all rows lets them be taken first.
    pub(super) late: Mutex<Option<Late>>,
}

/// A parameter's values, on the device of the layers that use it.
pub(super) enum Values {
    /// On the CPU: a variable of candle, so that a loss or an encoder in candle's operations can be differentiated with respect to it.
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

    /// The kind.
    pub fn kind(&self) -> ParamKind {
        self.kind
    }

    /// The depth of its layer, if it was declared: see [`Scope::depth`](super::params::Scope::depth).
    pub fn depth(&self) -> Option<usize> {
        self.depth
    }

    /// The factor of its rate; 0 if it is frozen.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Whether it is trained: neither a buffer nor frozen.
    pub fn trained(&self) -> bool {
        self.kind.trained() && self.rate > 0.0
    }

    /// The type of the values.
    ///
    /// # Panics
    /// Before [`Params::materialise`].
    pub fn dtype(&self) -> DType {
        match self.values() {
            Values::Cpu(var) => var.dtype(),
            Values::Device(array) => array.dtype(),
        }
    }

    /// The variable.
    ///
    /// # Panics
    /// Before [`Params::materialise`] (no model runs before it has values), and if the values are on another device than the CPU, which
    /// candle cannot access.
    pub fn var(&self) -> &Var {
        self.catch_up();
        match self.values() {
            Values::Cpu(var) => var,
            Values::Device(array) => panic!("parameter {} is {array:?}, which candle cannot see", self.name),
        }
    }

    /// The values, on their device.
    ///
    /// # Panics
    /// Before [`Params::materialise`].
    pub fn array(&self) -> Array {
        self.catch_up();
        self.raw()
    }

    /// The values, of which some rows may be late.
    fn raw(&self) -> Array {
        match self.values() {
            Values::Cpu(var) => Array::from(var.as_tensor().clone()),
            Values::Device(array) => array.clone(),
        }
    }

    /// Lets all rows take the steps that they have yet to take.
    pub(crate) fn catch_up(&self) {
        // Locked until all steps are taken, so that no other thread reads values in between.
        let mut waiting = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut late) = waiting.take() {
            // Types and shapes were checked when the first of these steps was taken.
            late.catch_up(&self.raw(), None).unwrap_or_else(|e| panic!("rows of {} cannot take their steps: {e}", self.name));
        }
    }

    /// Takes a step of Adam with the gradient of some rows, times `scale`. The other rows of the table take theirs when they are read.
    /// `states` are the table's, and are complete after [`catch_up`](Param::catch_up).
    ///
    /// # Errors
    /// The gradient has other rows, or another type, than the table.
    pub(crate) fn step_rows(&self, step: Adam, states: &[Array; 2], gradient: &RowGradient, scale: f64) -> Result<()> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let late_rows = late.get_or_insert_with(|| Late::new(self.dims()[0], states));
        late_rows.step(&self.raw(), step, gradient, scale).map_err(|e| e.at(&self.name))?;
        let long = late_rows.is_long();
        drop(late);
        if long {
            self.catch_up();
        }
        Ok(())
    }

    /// The device of its values, on which the layers run that it belongs to.
    ///
    /// # Panics
    /// Before [`Params::materialise`].
    pub fn device(&self) -> Device {
        match self.values() {
            Values::Cpu(_) => Device::Cpu,
            Values::Device(array) => array.device(),
        }
    }

    fn values(&self) -> &Values {
        self.values.get().unwrap_or_else(|| panic!("parameter {} used before materialise", self.name))
    }

    /// The values as a tensor that no gradient flows to: on the CPU it shares their memory, from another device it is a copy.
    ///
    /// # Errors
    /// An error of candle.
    pub fn tensor(&self) -> Result<Tensor> {
        self.catch_up();
        match self.values() {
            Values::Cpu(var) => Ok(var.as_detached_tensor()),
            Values::Device(array) => array.tensor(),
        }
    }

    /// Copies the values of `from`, converted to the parameter's type.
    ///
    /// # Errors
    /// The shape differs.
    pub fn set(&self, from: &Tensor) -> Result<()> {
        self.catch_up();
        match self.values() {
            Values::Cpu(var) => Ok(var.set(&from.to_dtype(var.dtype())?)?),
            Values::Device(array) => array.set(&from.to_dtype(array.dtype())?),
        }
        .map_err(|e: Error| e.at(&self.name))
    }

    /// Gives a device read access to the values.
    pub(crate) fn view<D: kernels::Device, R: Real, Out>(
        &self,
        device: &D,
        use_it: impl FnOnce(D::View<'_, R>) -> Out,
    ) -> Result<Out> {
        self.array().view(device, use_it).map_err(|e| e.at(&self.name))
    }

    /// Gives a device read access to the values of the rows `ids` of a table; other rows may be late.
    pub(crate) fn view_rows<D: kernels::Device, R: Real, Out>(
        &self,
        ids: &[u32],
        device: &D,
        use_it: impl FnOnce(D::View<'_, R>) -> Out,
    ) -> Result<Out> {
        if let Some(late) = &mut *self.late.lock().unwrap_or_else(PoisonError::into_inner) {
            late.catch_up(&self.raw(), Some(ids)).map_err(|e| e.at(&self.name))?;
        }
        self.raw().view(device, use_it).map_err(|e| e.at(&self.name))
    }

    /// Gives a device write access to the values.
    pub(crate) fn change<D: kernels::Device, R: Real>(&self, device: &D, change: impl FnOnce(D::ViewMut<'_, R>)) -> Result<()> {
        self.array().change(device, change).map_err(|e| e.at(&self.name))
    }

    /// The name without `prefix.`; none if it does not begin with it.
    pub(super) fn below(&self, prefix: &str) -> Option<&str> {
        if prefix.is_empty() { Some(&self.name) } else { self.name.strip_prefix(prefix)?.strip_prefix('.') }
    }

    /// The initial values, drawn on the host.
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
        Ok(Tensor::from_vec(values, self.shape.clone(), &candle_core::Device::Cpu)?.to_dtype(dtype)?)
    }
}

fn normal(std: f64) -> Result<Normal<f64>> {
    Normal::new(0.0, std).map_err(Error::new)
}
