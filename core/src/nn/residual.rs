//! Residual blocks.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number};

use super::flow::{Activation, Behaviour, Chain, Context, Forward, SharedMap, SideGradient, backward};
use super::reference::relu;
use crate::error::{Error, Result};
use crate::nn::params::Param;

/// The nonlinearity after a residual block's sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nonlinearity {
    /// Nothing: transformers.
    None,
    /// max(x, 0): ResNets.
    #[default]
    Relu,
}

/// after(f(body(before(x)) + shortcut(x))), where f is a [`Nonlinearity`], a ReLU by default (He et al. 2016). An empty shortcut is the
/// identity; an empty `before` or `after` does nothing.
#[derive(Clone)]
pub struct Residual<C> {
    body: C,
    shortcut: C,
    before: C,
    after: C,
    nonlinearity: Nonlinearity,
}

impl<C: Default> Residual<C> {
    /// relu(body(x) + shortcut(x)).
    pub fn new(body: C, shortcut: C) -> Self {
        Residual { body, shortcut, before: C::default(), after: C::default(), nonlinearity: Nonlinearity::Relu }
    }
}

impl<C> Residual<C> {
    /// The same with this nonlinearity after the sum.
    pub fn with(self, nonlinearity: Nonlinearity) -> Self {
        Residual { nonlinearity, ..self }
    }

    /// The same with a normalisation before the body, which the shortcut bypasses.
    pub fn normalise_before(self, before: C) -> Self {
        Residual { before, ..self }
    }

    /// The same with a normalisation after the sum.
    pub fn normalise_after(self, after: C) -> Self {
        Residual { after, ..self }
    }
}

#[expect(private_bounds, reason = "how a chain runs is core's own")]
impl<C: Chain> Residual<C> {
    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        [&self.before, &self.body, &self.shortcut, &self.after].into_iter().for_each(|chain| chain.params(into));
    }

    pub(crate) fn forward<D: Device, T: Number>(
        &self,
        x: SharedMap<D, T>,
        context: &Context<D>,
    ) -> Forward<D, T, Activation<D, T>> {
        if !(context.keep && context.recompute) {
            return self.run(x, context);
        }
        let (y, _) = self.run(x.clone(), &Context { keep: false, ..context.clone() })?;
        // The running statistics were updated in the forward pass; recomputing must not update them again.
        let behaviour = Behaviour { statistics: context.behaviour.statistics.held(), ..context.behaviour.clone() };
        let (block, again) = (self.clone(), Context { behaviour, ..context.clone() });
        let back = context.back(move |dy, want| match block.run(x, &again)?.1 {
            Some(back) => back(dy, want),
            None => Ok(None),
        });
        Ok((y, back))
    }

    fn run<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T, Activation<D, T>> {
        let beside = SideGradient::new();
        let input = Activation { beside: Some(beside.clone()), ..x.clone().into() };
        let (input, before_tape) = self.before.forward(input, context)?;
        let (body, body_tape) = self.body.forward(input, context)?;
        let (shortcut, shortcut_tape) = self.shortcut.forward(x.into(), context)?;
        if body.map.shape() != shortcut.map.shape() {
            return Err(misfit(&body.map.shape(), &shortcut.map.shape()));
        }
        let relu = self.nonlinearity == Nonlinearity::Relu;
        let mut y = Map::new(body.map.shape(), &context.device);
        context.device.join(body.read(), shortcut.read(), body.map.c, relu, y.data_mut());
        let y = Arc::new(y);
        let kept = relu.then(|| y.clone());
        let (y, after_tape) = self.after.forward(y.into(), context)?;
        let device = context.device.clone();
        let back = context.back(move |dy, want| {
            let Some(dy) = backward(after_tape.unwrap_or_default(), dy, true)? else { return Ok(None) };
            let mut dy = Map::own(dy);
            // Gradient sums for both normalisations, while dy is in cache.
            let output = kept.as_ref().map(|y| y.data());
            let sums = device.masked_sums(dy.data_mut(), output, body.map.c, [body.read(), shortcut.read()]);
            for (side, sums) in [body, shortcut].into_iter().zip(sums) {
                if let (Some(normalisation), Some(sums)) = (side.normalisation, sums) {
                    normalisation.leave(sums);
                }
            }
            drop(kept);
            let dy = Arc::new(dy);
            if let Some(dx) = backward(shortcut_tape.unwrap_or_default(), dy.clone(), want)? {
                beside.leave(dx);
            }
            let body_tape = before_tape.into_iter().chain(body_tape).flatten().collect();
            let through = backward(body_tape, dy, want)?;
            // The body's first layer has added the shortcut's gradient if it could.
            match (through, beside.take()) {
                (Some(through), Some(rest)) => {
                    let mut dx = Map::own(through);
                    device.add(dx.data_mut(), rest.data());
                    Ok(Some(Arc::new(dx)))
                }
                (through, _) => Ok(through.filter(|_| want)),
            }
        });
        Ok((y, back))
    }

    pub(crate) fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        let body = self.body.reference(&self.before.reference(x, behaviour)?, behaviour)?;
        let shortcut = self.shortcut.reference(x, behaviour)?;
        if body.dims() != shortcut.dims() {
            return Err(misfit(body.dims(), shortcut.dims()));
        }
        let sum = (body + shortcut)?;
        let y = if self.nonlinearity == Nonlinearity::Relu { relu(&sum)? } else { sum };
        self.after.reference(&y, behaviour)
    }
}

fn misfit(body: &[usize], shortcut: &[usize]) -> Error {
    Error::new(format!("a residual block's body gives {body:?} and its shortcut {shortcut:?}"))
}
