//! Layers made of layers: residual blocks and selective kernels.

use std::sync::Arc;

use candle_core::{D, Tensor};

use super::Layer;
use super::cell::Cell;
use super::cpu::norm::{join, masked_sums};
use super::cpu::{elementwise, pool};
use super::layer::{self, Act, Back, Beside, Flow, Host};
use super::map::Map;
use crate::error::{Error, Result};
use crate::nn::pass::Statistics;

/// relu(body(x) + shortcut(x)) (He et al. 2016); an empty shortcut is the identity.
#[derive(Clone)]
pub struct Residual {
    /// What is learned besides the input.
    pub body: Vec<Layer>,
    /// What makes the input fit the body's output.
    pub shortcut: Vec<Layer>,
}

impl Residual {
    pub(crate) fn forward<T: Cell>(&self, x: Flow<T>, host: &Host) -> Result<(Flow<T>, Option<Back<T>>)> {
        if !(host.keep && host.recompute) {
            return self.run(x, host);
        }
        let (y, _) = self.run(x.clone(), &Host { keep: false, ..host.clone() })?;
        // The running statistics have moved; the batch's are what they were.
        let (block, again) = (self.clone(), Host { statistics: host.statistics.held(), ..host.clone() });
        let back = host.back(move |dy, want| match block.run(x, &again)?.1 {
            Some(back) => back(dy, want),
            None => Ok(None),
        });
        Ok((y, back))
    }

    fn run<T: Cell>(&self, x: Flow<T>, host: &Host) -> Result<(Flow<T>, Option<Back<T>>)> {
        let beside = Beside::new();
        let input = Act { beside: Some(beside.clone()), ..x.clone().into() };
        let (body, body_tape) = layer::forward(&self.body, input, host)?;
        let (shortcut, shortcut_tape) = layer::forward(&self.shortcut, x.into(), host)?;
        if body.map.shape() != shortcut.map.shape() {
            return Err(misfit(&body.map.shape(), &shortcut.map.shape()));
        }
        let mut y = Map::new(body.map.shape(), body.map.pool());
        join(body.read(), shortcut.read(), body.map.c, y.data_mut());
        let y = Arc::new(y);
        let kept = y.clone();
        let back = host.back(move |dy, want| {
            let mut dy = Map::own(dy);
            // What both normalisations will ask for, while dy is in cache.
            let sums = masked_sums(dy.data_mut(), kept.data(), body.map.c, [body.read(), shortcut.read()]);
            for (act, sums) in [body, shortcut].into_iter().zip(sums) {
                if let (Some(norm), Some(sums)) = (act.norm, sums) {
                    norm.leave(sums);
                }
            }
            drop(kept);
            let dy = Arc::new(dy);
            if let Some(dx) = layer::backward(shortcut_tape.unwrap_or_default(), dy.clone(), want)? {
                beside.leave(dx);
            }
            let through = layer::backward(body_tape.unwrap_or_default(), dy, want)?;
            // The body's first layer has added it, if it could.
            match (through, beside.take()) {
                (Some(through), Some(rest)) => {
                    let mut dx = Map::own(through);
                    elementwise::add(dx.data_mut(), rest.data());
                    Ok(Some(Arc::new(dx)))
                }
                (through, _) => Ok(through.filter(|_| want)),
            }
        });
        Ok((y, back))
    }

    pub(crate) fn graph(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let (body, shortcut) = (layer::graph(&self.body, x, statistics)?, layer::graph(&self.shortcut, x, statistics)?);
        if body.dims() != shortcut.dims() {
            return Err(misfit(body.dims(), shortcut.dims()));
        }
        relu(&(body + shortcut)?)
    }
}

fn misfit(body: &[usize], shortcut: &[usize]) -> Error {
    Error::new(format!("a residual block's body gives {body:?} and its shortcut {shortcut:?}"))
}

/// The mixing half of a selective kernel (Li et al. 2019, as SimCLRv2's `sk_conv2d` has it): of an input whose channels are
/// two streams side by side, the streams' sum is averaged over the image and passed through `gate`, which gives two logits a
/// channel; the output is the streams weighted by their softmax.
#[derive(Clone)]
pub struct Select {
    /// From `(n, f)` to `(n, 2f)`.
    pub gate: Vec<Layer>,
}

impl Select {
    pub(crate) fn forward<T: Cell>(&self, x: Flow<T>, host: &Host) -> Result<(Flow<T>, Option<Back<T>>)> {
        let [n, h, w, c] = x.shape();
        let (pixels, f) = (h * w, c / 2);
        let mut mean = Map::new([n, 1, 1, c], x.pool());
        pool::global_mean(x.data(), pixels, c, mean.data_mut());
        let mut sum = Map::new([n, 1, 1, f], x.pool());
        for (sum, mean) in sum.data_mut().chunks_exact_mut(f.max(1)).zip(mean.data().chunks_exact(c)) {
            (0..f).for_each(|i| sum[i] = T::down(mean[i].up() + mean[f + i].up()));
        }
        let (logits, tape) = layer::forward(&self.gate, Act::from(Arc::new(sum)), host)?;
        let logits = logits.plain();
        check(c, &logits.shape(), n)?;
        let (mut y, mut weight) = (Map::new([n, h, w, f], x.pool()), Map::new([n, 1, 1, f], x.pool()));
        pool::select(x.data(), logits.data(), pixels, f, y.data_mut(), weight.data_mut());
        let back = host.back(move |dy, _| {
            let (mut dx, mut dgate) = (Map::new(x.shape(), x.pool()), Map::new([n, 1, 1, c], x.pool()));
            pool::select_gradient(x.data(), weight.data(), dy.data(), pixels, f, dx.data_mut(), dgate.data_mut());
            if let Some(dsum) = layer::backward(tape.unwrap_or_default(), Arc::new(dgate), true)? {
                pool::add_stream_gradient(dsum.data(), pixels, f, dx.data_mut());
            }
            Ok(Some(Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn graph(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let (n, _, _, c) = x.dims4()?;
        let f = c / 2;
        let (first, second) = (x.narrow(D::Minus1, 0, f)?, x.narrow(D::Minus1, f, f)?);
        let logits = layer::graph(&self.gate, &(&first + &second)?.mean_keepdim((1, 2))?, statistics)?;
        check(c, logits.dims(), n)?;
        let share = candle_nn::ops::softmax(&logits.reshape((n, 1, 1, 2, f))?, 3)?;
        let share = |i| share.narrow(3, i, 1)?.squeeze(3);
        Ok((first.broadcast_mul(&share(0)?)? + second.broadcast_mul(&share(1)?)?)?)
    }
}

fn check(c: usize, logits: &[usize], n: usize) -> Result<()> {
    if c % 2 == 1 || logits != [n, 1, 1, c] {
        return Err(Error::new(format!("a selective kernel of {c} channels got a gate of shape {logits:?}")));
    }
    Ok(())
}

/// max(x, 0) whose derivative at 0 is 0; candle's own has 1 there.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let positive = x.detach().gt(0.0)?.to_dtype(x.dtype())?;
    Ok((x * positive)?)
}
