//! Selective kernels (SK-Nets), as SimCLRv2 uses them.

use std::sync::Arc;

use candle_core::D::Minus1;
use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::flow::{Activation, Behaviour, Chain, Context, Forward, SharedMap, backward};
use crate::error::{Error, Result};
use crate::nn::params::Param;

/// The mixing half of a selective kernel (Li et al. 2019; SimCLRv2's `sk_conv2d`). The input's channels are two streams side by side. The
/// streams' sum is averaged over the image and passed through `gate`, which gives two logits for each channel; the output is the sum of the
/// streams weighted by the softmax of these logits.
#[derive(Clone)]
pub struct Select<C> {
    /// From `(n, f)` to `(n, 2f)`.
    pub gate: C,
}

#[expect(private_bounds, reason = "how a chain runs is core's own")]
impl<C: Chain> Select<C> {
    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        self.gate.params(into);
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let device = &context.device;
        let [n, h, w, c] = x.shape();
        let (pixels, f) = (h * w, c / 2);
        if !c.is_multiple_of(2) {
            return Err(misfit(c, &[]));
        }
        let mut mean = Map::new([n, 1, 1, f], device);
        device.stream_mean(x.data(), pixels, f, mean.data_mut());
        let (logits, tape) = self.gate.forward(Activation::from(Arc::new(mean)), context)?;
        let logits = logits.plain();
        check(c, &logits.shape(), n)?;
        let (mut y, mut weight) = (Map::new([n, h, w, f], device), Map::new([n, 1, 1, f], device));
        device.select(x.data(), logits.data(), pixels, f, y.data_mut(), weight.data_mut());
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let (mut dx, mut dgate) = (Map::new(x.shape(), device), Map::new([n, 1, 1, c], device));
            device.select_gradient([x.data(), weight.data(), dy.data()], pixels, f, dx.data_mut(), dgate.data_mut());
            if let Some(dmean) = backward(tape.unwrap_or_default(), Arc::new(dgate), true)? {
                device.stream_mean_gradient(dmean.data(), pixels, f, dx.data_mut());
            }
            Ok(Some(Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        let (n, _, _, c) = x.dims4()?;
        let f = c / 2;
        let (first, second) = (x.narrow(Minus1, 0, f)?, x.narrow(Minus1, f, f)?);
        let logits = self.gate.reference(&(&first + &second)?.mean_keepdim((1, 2))?, behaviour)?;
        check(c, logits.dims(), n)?;
        let share = candle_nn::ops::softmax(&logits.reshape((n, 1, 1, 2, f))?, 3)?;
        let share = |i| share.narrow(3, i, 1)?.squeeze(3);
        Ok((first.broadcast_mul(&share(0)?)? + second.broadcast_mul(&share(1)?)?)?)
    }
}

fn check(c: usize, logits: &[usize], n: usize) -> Result<()> {
    if c % 2 == 1 || logits != [n, 1, 1, c] {
        return Err(misfit(c, logits));
    }
    Ok(())
}

fn misfit(c: usize, logits: &[usize]) -> Error {
    Error::new(format!("a selective kernel of {c} channels got a gate of shape {logits:?}"))
}
