//! Batch normalisation (Ioffe & Szegedy 2015), with PyTorch's conventions.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::cell::{Cell, Real, zero};
use super::cpu::norm::{Affine, merge, moments};
use super::layer::{Act, Back, Host, Norm};
use super::map::{Map, values};
use super::residual::relu;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Kind, Param, Scope};
use crate::nn::pass::Statistics;

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// γ·(x − mean)/√(variance + 1e-5) + β per channel, over all pixels of all images, then, perhaps, a ReLU.
///
/// Running statistics move by a tenth of the way to each batch's ([`Statistics::Update`]), the variance unbiased, as PyTorch
/// does with its default momentum.
#[derive(Clone)]
pub struct BatchNorm {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    mean: Arc<Param>,
    variance: Arc<Param>,
    relu: bool,
}

impl BatchNorm {
    /// Declares `weight` (γ, at `gamma`), `bias` (β, at 0), `running_mean` and `running_var` in the scope.
    pub fn new(channels: usize, gamma: f64, mut scope: Scope) -> Self {
        let weight = scope.param("weight", channels, Kind::Norm, Init::Constant(gamma));
        let bias = Some(scope.param("bias", channels, Kind::Norm, Init::Constant(0.0)));
        Self::finish(weight, bias, scope)
    }

    /// The same without β: nothing learned moves the output's mean.
    pub fn without_bias(channels: usize, mut scope: Scope) -> Self {
        let weight = scope.param("weight", channels, Kind::Norm, Init::Constant(1.0));
        Self::finish(weight, None, scope)
    }

    fn finish(weight: Arc<Param>, bias: Option<Arc<Param>>, mut scope: Scope) -> Self {
        let channels = weight.dims()[0];
        let mean = scope.param("running_mean", channels, Kind::Buffer, Init::Constant(0.0));
        let variance = scope.param("running_var", channels, Kind::Buffer, Init::Constant(1.0));
        BatchNorm { weight, bias, mean, variance, relu: false }
    }

    /// The same with a ReLU behind it.
    pub fn relu(self) -> Self {
        BatchNorm { relu: true, ..self }
    }

    fn check(&self, rows: usize, c: usize, statistics: Statistics) -> Result<()> {
        if c != self.weight.dims()[0] {
            let what = format!("batch normalisation of {} channels cannot read {c}", self.weight.dims()[0]);
            return Err(Error::new(what).at(self.weight.name()));
        }
        if rows < 2 && statistics != Statistics::Frozen {
            return Err(Error::new("batch normalisation needs more than one value a channel")
                .at(self.weight.name())
                .hint("use a larger batch; a single row has no variance to divide by"));
        }
        Ok(())
    }

    fn update(&self, rows: usize, mean: &[f64], variance: &[f64]) -> Result<()> {
        let unbiased = rows as f64 / (rows as f64 - 1.0);
        let moved = |param: &Param, batch: &mut dyn Iterator<Item = f64>| -> Result<()> {
            let var = param.var();
            let before = var.as_tensor().to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec1::<f64>()?;
            let after: Vec<f64> = before.iter().zip(batch).map(|(b, v)| (1.0 - MOMENTUM) * b + MOMENTUM * v).collect();
            Ok(var.set(&Tensor::from_vec(after, var.dims(), &Device::Cpu)?.to_dtype(var.dtype())?.to_device(var.device())?)?)
        };
        moved(&self.mean, &mut mean.iter().copied())?;
        moved(&self.variance, &mut variance.iter().map(|v| v * unbiased))
    }

    pub(crate) fn forward<T: Cell>(&self, mut x: Act<T>, host: &Host) -> Result<(Act<T>, Option<Back<T>>)> {
        let known = x.moments.take();
        let x = x.plain();
        let (rows, c) = (x.rows(), x.c);
        self.check(rows, c, host.statistics)?;
        let wide = |param: &Param| -> Result<Vec<f64>> { Ok(values::<T::Real>(param)?.into_iter().map(T::Real::wide).collect()) };
        let frozen = host.statistics == Statistics::Frozen;
        let (mean, variance) = match known {
            _ if frozen => (wide(&self.mean)?, wide(&self.variance)?),
            Some(blocks) => merge(blocks, c),
            None => moments(x.data(), c),
        };
        if host.statistics == Statistics::Update {
            self.update(rows, &mean, &variance)?;
        }
        let inverse: Vec<f64> = variance.iter().map(|v| 1.0 / (v + EPSILON).sqrt()).collect();
        let scale = wide(&self.weight)?.iter().zip(&inverse).map(|(g, i)| T::Real::of(g * i)).collect();
        let shift = match &self.bias {
            Some(bias) => values(bias)?,
            None => vec![zero::<T>(); c],
        };
        let affine = Affine { mean: mean.into_iter().map(T::Real::of).collect(), scale, shift, relu: self.relu };
        let lazy = Arc::new(Norm::new(affine));
        let y = Act { norm: Some(lazy.clone()), ..Act::from(x.clone()) };

        let (norm, sink) = (self.clone(), host.sink.clone());
        let back = host.back(move |dy, want| {
            let affine = &lazy.affine;
            let (plain, centred) = lazy.take().unwrap_or_else(|| affine.sums(x.data(), dy.data()));
            let device = norm.weight.var().device();
            let vector = |v: Vec<T::Real>| Tensor::from_vec(v, c, device);
            sink.add(&norm.weight, vector(centred.iter().zip(&inverse).map(|(s, i)| T::Real::of(s * i)).collect())?)?;
            if let Some(bias) = &norm.bias {
                sink.add(bias, vector(plain.iter().map(|&s| T::Real::of(s)).collect())?)?;
            }
            if !want {
                return Ok(None);
            }
            // Batch statistics depend on x: dx loses its mean and its part along x. Frozen ones do not.
            let n = if frozen { f64::INFINITY } else { rows as f64 };
            let offset: Vec<T::Real> = plain.iter().map(|s| T::Real::of(s / n)).collect();
            let slope: Vec<T::Real> = centred.iter().zip(&inverse).map(|(s, i)| T::Real::of(s * i * i / n)).collect();
            // In place, unless somebody else still needs dy.
            let dx = match Arc::try_unwrap(dy) {
                Ok(mut dx) => {
                    affine.backward(x.data(), None, dx.data_mut(), &offset, &slope);
                    dx
                }
                Err(dy) => {
                    let mut dx = Map::new(x.shape(), x.pool());
                    affine.backward(x.data(), Some(dy.data()), dx.data_mut(), &offset, &slope);
                    dx
                }
            };
            Ok(Some(Arc::new(dx)))
        });
        Ok((y, back))
    }

    pub(crate) fn graph(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let c = x.dim(D::Minus1)?;
        let rows = x.elem_count() / c;
        self.check(rows, c, statistics)?;
        let flat = x.reshape((rows, c))?;
        let (mean, variance) = match statistics {
            Statistics::Frozen => (self.mean.var().as_detached_tensor(), self.variance.var().as_detached_tensor()),
            Statistics::Update | Statistics::Hold => {
                let mean = flat.mean(0)?;
                let variance = flat.broadcast_sub(&mean)?.sqr()?.mean(0)?;
                (mean, variance)
            }
        };
        if statistics == Statistics::Update {
            let host = |t: &Tensor| t.to_dtype(DType::F64)?.to_device(&Device::Cpu)?.to_vec1::<f64>();
            self.update(rows, &host(&mean)?, &host(&variance)?)?;
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
