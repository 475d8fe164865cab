//! Batch normalisation (Ioffe & Szegedy 2015), with PyTorch's conventions.

use std::sync::Arc;

use candle_core::D::Minus1;
use candle_core::{DType, Tensor};
use ctk_kernels::{Device, Map, Number, Real};

use super::flow::{Activation, Context, Forward, Normalisation};
use super::reference::relu;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};
use crate::nn::pass::Statistics;

/// Added to a variance before its square root.
pub(crate) const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// γ·(x − mean)/√(variance + 1e-5) + β for each channel, over all pixels of all images, optionally followed by a ReLU.
///
/// With [`Statistics::Update`] the running statistics move a tenth of the way to each batch's, with the unbiased variance, as with
/// PyTorch's default momentum.
#[derive(Clone)]
pub struct BatchNorm {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    mean: Arc<Param>,
    variance: Arc<Param>,
    relu: bool,
}

impl BatchNorm {
    /// Declares `weight` (γ, starting at `gamma`), `bias` (β, starting at 0), `running_mean` and `running_var` in the scope.
    pub fn new(channels: usize, gamma: f64, mut scope: Scope) -> Self {
        let weight = scope.param("weight", channels, ParamKind::Norm, Init::Constant(gamma));
        let bias = Some(scope.param("bias", channels, ParamKind::Norm, Init::Constant(0.0)));
        Self::finish(weight, bias, scope)
    }

    /// The same without β.
    pub fn without_bias(channels: usize, mut scope: Scope) -> Self {
        let weight = scope.param("weight", channels, ParamKind::Norm, Init::Constant(1.0));
        Self::finish(weight, None, scope)
    }

    fn finish(weight: Arc<Param>, bias: Option<Arc<Param>>, mut scope: Scope) -> Self {
        let channels = weight.dims()[0];
        let mean = scope.param("running_mean", channels, ParamKind::Buffer, Init::Constant(0.0));
        let variance = scope.param("running_var", channels, ParamKind::Buffer, Init::Constant(1.0));
        BatchNorm { weight, bias, mean, variance, relu: false }
    }

    /// The same followed by a ReLU.
    pub fn relu(self) -> Self {
        BatchNorm { relu: true, ..self }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.weight.clone());
        into.extend(self.bias.clone());
    }

    fn check(&self, rows: usize, c: usize, statistics: Statistics) -> Result<()> {
        if c != self.weight.dims()[0] {
            let what = format!("batch normalisation of {} channels cannot read {c}", self.weight.dims()[0]);
            return Err(Error::new(what).at(self.weight.name()));
        }
        if rows < 2 && statistics != Statistics::Frozen {
            return Err(Error::new("batch normalisation needs more than one value for each channel")
                .at(self.weight.name())
                .hint("use a larger batch; a single row has no variance to divide by"));
        }
        Ok(())
    }

    /// Moves the running statistics towards those of a batch of `rows` rows.
    fn update<D: Device, R: Real>(&self, rows: usize, [mean, variance]: [&D::Vector<f64>; 2], device: &D) -> Result<()> {
        let unbiased = rows as f64 / (rows as f64 - 1.0);
        self.mean.change::<D, R>(device, |running| device.follow(running, mean, 1.0, MOMENTUM))?;
        self.variance.change::<D, R>(device, |running| device.follow(running, variance, unbiased, MOMENTUM))
    }

    pub(crate) fn forward<D: Device, T: Number>(
        &self,
        mut x: Activation<D, T>,
        context: &Context<D>,
    ) -> Forward<D, T, Activation<D, T>> {
        let device = &context.device;
        let known = x.moments.take();
        let x = x.plain();
        let (rows, c) = (x.rows(), x.c);
        self.check(rows, c, context.behaviour.statistics)?;
        let frozen = context.behaviour.statistics == Statistics::Frozen;
        let [mean, variance] = if frozen {
            let wide = |param: &Param| param.view(device, |numbers: D::View<'_, T::Real>| device.widen(numbers));
            [wide(&self.mean)?, wide(&self.variance)?]
        } else {
            device.merge(known.unwrap_or_else(|| device.moments(x.data(), c)), c)
        };
        let statistics = [&mean, &variance];
        if context.behaviour.statistics == Statistics::Update {
            self.update::<D, T::Real>(rows, statistics, device)?;
        }
        let affine = self.weight.view(device, |gamma| match &self.bias {
            Some(bias) => bias.view(device, |beta| device.affine(statistics, gamma, Some(beta), EPSILON, self.relu)),
            None => Ok(device.affine(statistics, gamma, None, EPSILON, self.relu)),
        })??;
        let lazy = Arc::new(Normalisation::new(affine));
        let y = Activation { normalisation: Some(lazy.clone()), ..Activation::from(x.clone()) };

        let (BatchNorm { weight, bias, .. }, own) = (self.clone(), context.clone());
        let back = context.back(move |dy, want| {
            let (device, affine) = (&own.device, &lazy.affine);
            let sums = lazy.take().unwrap_or_else(|| device.gradient_sums(affine, x.data(), dy.data()));
            let [dgamma, dbeta] = device.affine_gradients(affine, &sums);
            own.leave(&weight, dgamma)?;
            if let Some(bias) = &bias {
                own.leave(bias, dbeta)?;
            }
            if !want {
                return Ok(None);
            }
            let rows = (!frozen).then_some(rows);
            // In place, unless dy is still needed elsewhere.
            let dx = match Arc::try_unwrap(dy) {
                Ok(mut dx) => {
                    device.normalise_gradient(affine, &sums, rows, x.data(), None, dx.data_mut());
                    dx
                }
                Err(dy) => {
                    let mut dx = Map::new(x.shape(), device);
                    device.normalise_gradient(affine, &sums, rows, x.data(), Some(dy.data()), dx.data_mut());
                    dx
                }
            };
            Ok(Some(Arc::new(dx)))
        });
        Ok((y, back))
    }

    pub(crate) fn reference(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let c = x.dim(Minus1)?;
        let rows = x.elem_count() / c;
        self.check(rows, c, statistics)?;
        let flat = x.reshape((rows, c))?;
        let (mean, variance) = match statistics {
            Statistics::Frozen => (self.mean.tensor()?, self.variance.tensor()?),
            Statistics::Update | Statistics::Hold => {
                let mean = flat.mean(0)?;
                let variance = flat.broadcast_sub(&mean)?.sqr()?.mean(0)?;
                (mean, variance)
            }
        };
        if statistics == Statistics::Update {
            let unbiased = rows as f64 / (rows as f64 - 1.0);
            moved(&self.mean, &mean)?;
            moved(&self.variance, &(variance.to_dtype(DType::F64)? * unbiased)?)?;
        }
        let inverse = (variance + EPSILON)?.sqrt()?.recip()?;
        let y = flat.broadcast_sub(&mean)?.broadcast_mul(&(self.weight.var().as_tensor() * inverse)?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias.var())?,
            None => y,
        };
        let y = y.reshape(x.shape())?;
        if self.relu { relu(&y) } else { Ok(y) }
    }
}

/// Moves a running statistic towards a batch's, in f64.
fn moved(param: &Param, batch: &Tensor) -> Result<()> {
    let var = param.var();
    let before = var.as_detached_tensor().to_dtype(DType::F64)?;
    let after = ((before * (1.0 - MOMENTUM))? + (batch.detach().to_dtype(DType::F64)? * MOMENTUM)?)?;
    Ok(var.set(&after.to_dtype(var.dtype())?)?)
}
