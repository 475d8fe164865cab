//! Convolution layers.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Geometry, Map, Number, Read};

use super::flow::{Activation, Context, Forward, Normalisation, SharedMap};
use super::reference::window;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};
use crate::nn::pass::Statistics;

/// A convolution with a square kernel, with or without a bias. Before batch normalisation no bias is needed.
#[derive(Clone)]
pub struct Conv2d {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Declares `weight`, `(output, input, kernel, kernel)`, in the scope. `padding` zeros are added on all four sides; with
    /// h rows of input the output has ⌊(h + 2·padding − kernel) / stride⌋ + 1 rows.
    pub fn new([output, input]: [usize; 2], kernel: usize, stride: usize, padding: usize, init: Init, mut scope: Scope) -> Self {
        let weight = scope.param("weight", (output, input, kernel, kernel), ParamKind::Weight, init);
        Conv2d { weight, bias: None, stride: stride.max(1), padding }
    }

    /// The same with a `bias`, `(output,)`, which starts at zero.
    pub fn with_bias(
        [output, input]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        init: Init,
        mut scope: Scope,
    ) -> Self {
        let weight = scope.param("weight", (output, input, kernel, kernel), ParamKind::Weight, init);
        let bias = Some(scope.param("bias", output, ParamKind::Bias, Init::Constant(0.0)));
        Conv2d { weight, bias, stride: stride.max(1), padding }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.weight.clone());
        into.extend(self.bias.clone());
    }

    fn geometry(&self, [n, h, w, c]: [usize; 4]) -> Result<Geometry> {
        let [o, input, kernel] = [0, 1, 2].map(|i| self.weight.dims()[i]);
        let (stride, padding) = (self.stride, self.padding);
        if c != input || h + 2 * padding < kernel || w + 2 * padding < kernel {
            let what =
                format!("a {kernel} × {kernel} convolution of {input} channels cannot read {h} × {w} maps of {c} channels");
            return Err(Error::new(what).at(self.weight.name()));
        }
        let size = |x: usize| (x + 2 * padding - kernel) / stride + 1;
        Ok(Geometry { n, h, w, c, o, oh: size(h), ow: size(w), kernel, stride, padding })
    }

    pub(crate) fn forward<D: Device, T: Number>(
        &self,
        x: Activation<D, T>,
        context: &Context<D>,
    ) -> Forward<D, T, Activation<D, T>> {
        let g = self.geometry(x.map.shape())?;
        let before = x.normalisation.clone().map(|normalisation| (x.map.clone(), normalisation));
        let beside = x.beside.clone();
        let x = if context.device.normalises::<T>(&g) { x } else { x.plain().into() };
        // The bias changes the output after the kernel has taken its moments.
        let watch = context.behaviour.statistics != Statistics::Frozen && self.bias.is_none();
        let (mut y, moments) = apply(&g, &self.weight, x.read(), watch, &context.device)?;
        add_bias(&mut y, self.bias.as_deref())?;
        let (Conv2d { weight, bias, .. }, own) = (self.clone(), context.clone());
        let back = context.back(move |dy, want| {
            own.leave(&weight, own.device.weight_gradient(&g, x.read(), dy.data()))?;
            if let Some(bias) = &bias {
                own.leave(bias, own.device.column_sums(dy.data(), g.o))?;
            }
            // The input is no longer needed, so its memory may be used for its own gradient.
            drop(x);
            let beside = beside.and_then(|beside| beside.take());
            if want { Ok(Some(input_gradient(&g, &weight, beside, before, &dy)?)) } else { Ok(None) }
        });
        Ok((Activation { moments, ..Arc::new(y).into() }, back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let g = self.geometry([n, h, w, c])?;
        let padded = x.pad_with_zeros(1, g.padding, g.padding)?.pad_with_zeros(2, g.padding, g.padding)?;
        let mut taps = Vec::new();
        for (ky, kx) in (0..g.kernel).flat_map(|ky| (0..g.kernel).map(move |kx| (ky, kx))) {
            taps.push(window(&padded, [ky, kx], [g.oh, g.ow], g.stride)?.reshape((n * g.oh * g.ow, c))?);
        }
        let patches = Tensor::cat(&taps, 1)?;
        let weight = self.weight.var().permute((2, 3, 1, 0))?.reshape((g.kernel * g.kernel * c, g.o))?;
        let y = patches.matmul(&weight)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias.var())?,
            None => y,
        };
        Ok(y.reshape((n, g.oh, g.ow, g.o))?)
    }
}

/// A convolution's output, and its moments if the kernel computed them.
type Convolved<D, T> = (Map<D, T>, Option<<D as Device>::Moments>);

/// A map, and the normalisation that has not been applied to it yet.
type Normalised<D, T> = (SharedMap<D, T>, Arc<Normalisation<D, T>>);

/// The output, without a bias.
pub(super) fn apply<D: Device, T: Number>(
    g: &Geometry,
    weight: &Param,
    x: Read<D, T>,
    watch: bool,
    device: &D,
) -> Result<Convolved<D, T>> {
    let mut y = Map::new([g.n, g.oh, g.ow, g.o], device);
    let moments = weight.view(device, |weight| device.convolve(g, x, weight, y.data_mut(), watch))?;
    Ok((y, moments))
}

/// Y += bias, if there is one.
pub(super) fn add_bias<D: Device, T: Number>(y: &mut Map<D, T>, bias: Option<&Param>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    let device = y.device().clone();
    bias.view(&device, |bias| device.add_bias(y.data_mut(), bias))
}

/// The gradient of the input plus `beside`. `before` is the normalisation that the input came from, if there is one.
pub(super) fn input_gradient<D: Device, T: Number>(
    g: &Geometry,
    weight: &Param,
    beside: Option<SharedMap<D, T>>,
    before: Option<Normalised<D, T>>,
    dy: &Map<D, T>,
) -> Result<SharedMap<D, T>> {
    let device = dy.device();
    let mut dx = Map::new([g.n, g.h, g.w, g.c], device);
    let read = before.as_ref().map(|(x, normalisation)| (x.data(), Some(&normalisation.affine)));
    let sums = weight.view(device, |weight| {
        device.input_gradient(g, dy.data(), weight, dx.data_mut(), beside.as_ref().map(|beside| beside.data()), read)
    })?;
    if let (Some(sums), Some((_, normalisation))) = (sums, &before) {
        normalisation.leave(sums);
    }
    Ok(Arc::new(dx))
}
