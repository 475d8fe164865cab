//! Layer normalisation (Ba, Kiros & Hinton 2016).

use std::sync::Arc;

use candle_core::D::Minus1;
use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::flow::{Context, Forward, SharedMap};
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// γ·(x − mean)/√(variance + ε) + β for each row, with the mean and the biased variance of its channels.
#[derive(Clone)]
pub struct LayerNorm {
    weight: Arc<Param>,
    bias: Arc<Param>,
    epsilon: f64,
}

impl LayerNorm {
    /// Declares `weight` (γ, starting at 1) and `bias` (β, starting at 0) in the scope. Networks differ in ε: 1e-12 in BERT, 1e-6 in most
    /// ViTs, 1e-5 in CLIP.
    pub fn new(channels: usize, epsilon: f64, mut scope: Scope) -> Self {
        let weight = scope.param("weight", channels, ParamKind::Norm, Init::Constant(1.0));
        let bias = scope.param("bias", channels, ParamKind::Norm, Init::Constant(0.0));
        LayerNorm { weight, bias, epsilon }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.extend([self.weight.clone(), self.bias.clone()]);
    }

    fn check(&self, c: usize) -> Result<()> {
        let channels = self.weight.dims()[0];
        if c != channels {
            let what = format!("layer normalisation of {channels} channels cannot read {c}");
            return Err(Error::new(what).at(self.weight.name()));
        }
        Ok(())
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        self.check(x.c)?;
        let device = &context.device;
        let mut y = Map::new(x.shape(), device);
        let mut statistics = device.allocate(2 * x.rows());
        self.weight.view(device, |gamma| {
            self.bias.view(device, |beta| {
                device.layer_norm(x.data(), gamma, beta, self.epsilon, y.data_mut(), device.view_mut(&mut statistics));
            })
        })??;
        let (LayerNorm { weight, bias, .. }, own) = (self.clone(), context.clone());
        let back = context.back(move |dy, want| {
            let device = &own.device;
            let mut dx = Map::new(x.shape(), device);
            let statistics = device.view(&statistics);
            let gradients =
                weight.view(device, |gamma| device.layer_norm_gradient(x.data(), statistics, gamma, dy.data(), dx.data_mut()));
            let [dgamma, dbeta] = gradients?;
            own.leave(&weight, dgamma)?;
            own.leave(&bias, dbeta)?;
            Ok(want.then(|| Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        self.check(x.dim(Minus1)?)?;
        let centred = x.broadcast_sub(&x.mean_keepdim(Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(Minus1)?;
        let normal = centred.broadcast_div(&(variance + self.epsilon)?.sqrt()?)?;
        Ok(normal.broadcast_mul(self.weight.var())?.broadcast_add(self.bias.var())?)
    }
}
