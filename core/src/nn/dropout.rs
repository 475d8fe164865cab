//! Dropout (Srivastava et al. 2014) whose draws are keyed by the row of the step, so that they do not depend on how the step is divided.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{self as kernels, Device, Map, Number};
use rand::RngCore as _;

use super::flow::{Behaviour, Context, Forward, SharedMap};
use super::tensors;
use crate::error::{Error, Result};
use crate::nn::rows::Rows;
use crate::rng::Key;

/// Each value becomes 0 with probability p, and is divided by 1 − p otherwise. In evaluation it does nothing.
///
/// A draw depends only on (step's key, layer's name, row's place in the step, its view, position in the row, channel). So it is the same
/// however the step is divided into parts, groups and ranks, and when a block is recomputed.
#[derive(Clone, Debug)]
pub struct Dropout {
    name: String,
    rate: f64,
}

impl Dropout {
    /// Drops with probability `rate`. Layers of one network need different names, or they drop the same values.
    ///
    /// # Errors
    /// Unless 0 ≤ rate < 1.
    pub fn new(name: impl Into<String>, rate: f64) -> Result<Self> {
        let name = name.into();
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::usage(format!("dropout of {rate} would leave nothing")).at(name).hint("0 ≤ rate < 1"));
        }
        Ok(Dropout { name, rate })
    }

    /// The draws of a step.
    pub(crate) fn drawn(&self, key: &Key) -> kernels::Dropout {
        kernels::Dropout::new(key.of("dropout").of(&self.name).stream().next_u64(), self.rate)
    }

    /// Checks that the map's rows are those of `rows`.
    fn check(&self, rows: &Rows, n: usize, pixels: usize) -> Result<()> {
        if !rows.covers(n, pixels) {
            let what = format!("dropout of {n} rows of {pixels} positions, of which {} are known", rows.len());
            return Err(Error::new(what).at(&self.name));
        }
        Ok(())
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let Some(key) = &context.behaviour.key else { return Ok((x, None)) };
        let (pixels, c, rows) = (x.h * x.w, x.c, context.behaviour.rows.clone());
        self.check(&rows, x.n, pixels)?;
        let dropout = self.drawn(key);
        let drop = move |x: SharedMap<D, T>| {
            let mut y = Map::own(x);
            let device = y.device().clone();
            device.dropout(&dropout, rows.identity(), pixels, c, y.data_mut());
            Arc::new(y)
        };
        let y = drop(x);
        let back = context.back(move |dy, _| Ok(Some(drop(dy))));
        Ok((y, back))
    }

    pub(crate) fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        let Some(key) = &behaviour.key else { return Ok(x.clone()) };
        let (n, h, w, c) = x.dims4()?;
        let rows = &behaviour.rows;
        self.check(rows, n, h * w)?;
        let dropout = self.drawn(key);
        let mut factors = Vec::with_capacity(x.elem_count());
        for (i, (&place, &view)) in rows.places().iter().zip(rows.views()).enumerate() {
            let positions = rows.offsets().map_or(h * w, |offsets| (offsets[i + 1] - offsets[i]) as usize);
            for (position, channel) in (0..positions).flat_map(|position| (0..c).map(move |channel| (position, channel))) {
                let kept = dropout.keep(place, view, position as u32, channel as u32);
                factors.push(if kept { 1.0 / (1.0 - self.rate) } else { 0.0 });
            }
        }
        Ok((x * tensors::from_vec(factors, x.dims())?.to_dtype(x.dtype())?.to_device(x.device())?)?)
    }
}
