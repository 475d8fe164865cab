//! A factor for each channel: LayerScale (Touvron et al. 2021, "Going deeper with image transformers", §2).

use std::sync::Arc;

use candle_core::D::Minus1;
use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::flow::{Activation, Context, Forward, Normalisation};
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// γ·x for each channel.
#[derive(Clone)]
pub struct Scale {
    gamma: Arc<Param>,
}

impl Scale {
    /// Declares `gamma` (γ), which starts at `first`, in the scope.
    pub fn new(channels: usize, first: f64, mut scope: Scope) -> Self {
        Scale { gamma: scope.param("gamma", channels, ParamKind::Norm, Init::Constant(first)) }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.gamma.clone());
    }

    fn check(&self, c: usize) -> Result<()> {
        let channels = self.gamma.dims()[0];
        if c != channels {
            return Err(Error::new(format!("{channels} factors cannot scale {c} channels")).at(self.gamma.name()));
        }
        Ok(())
    }

    /// A normalisation by the mean 0 and the variance 1, which the next layer applies.
    pub(crate) fn forward<D: Device, T: Number>(
        &self,
        x: Activation<D, T>,
        context: &Context<D>,
    ) -> Forward<D, T, Activation<D, T>> {
        let x = x.plain();
        self.check(x.c)?;
        let device = &context.device;
        let [mean, variance] = [0.0, 1.0].map(|value: f64| device.vector(&vec![value; x.c]));
        let affine = self.gamma.view(device, |gamma| device.affine([&mean, &variance], gamma, None, 0.0, false))?;
        let lazy = Arc::new(Normalisation::new(affine));
        let y = Activation { normalisation: Some(lazy.clone()), ..Activation::from(x.clone()) };
        let (gamma, own) = (self.gamma.clone(), context.clone());
        let back = context.back(move |dy, want| {
            let (device, affine) = (&own.device, &lazy.affine);
            let sums = lazy.take().unwrap_or_else(|| device.gradient_sums(affine, x.data(), dy.data()));
            let [dgamma, _] = device.affine_gradients(affine, &sums);
            own.leave(&gamma, dgamma)?;
            if !want {
                return Ok(None);
            }
            let mut dx = Map::new(x.shape(), device);
            device.normalise_gradient(affine, &sums, None, x.data(), Some(dy.data()), dx.data_mut());
            Ok(Some(Arc::new(dx)))
        });
        Ok((y, back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x.dim(Minus1)?)?;
        Ok(x.broadcast_mul(self.gamma.var())?)
    }
}
