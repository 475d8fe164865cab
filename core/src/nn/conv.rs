//! Convolution and linear layers.

use std::sync::Arc;

use candle_core::Tensor;

use super::cell::{Cell, Read, Real};
use super::cpu::conv::Geometry;
use super::cpu::norm::{BlockMoments, column_sums};
use super::layer::{Act, Back, Flow, Host, Norm};
use super::map::{Map, Pool, read, values};
use super::pool::window;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Kind, Param, Scope};
use crate::nn::pass::Statistics;

/// A convolution with a square kernel and no bias: batch normalisation follows it.
#[derive(Clone)]
pub struct Conv2d {
    weight: Arc<Param>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Declares `weight`, `(output, input, kernel, kernel)`, in the scope. Zeros are padded on all four sides; the output has
    /// ⌊(h + 2·padding − kernel) / stride⌋ + 1 rows.
    pub fn new([output, input]: [usize; 2], kernel: usize, stride: usize, padding: usize, init: Init, mut scope: Scope) -> Self {
        let weight = scope.param("weight", (output, input, kernel, kernel), Kind::Weight, init);
        Conv2d { weight, stride: stride.max(1), padding }
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

    pub(crate) fn forward<T: Cell>(&self, x: Act<T>, host: &Host) -> Result<(Act<T>, Option<Back<T>>)> {
        let g = self.geometry(x.map.shape())?;
        let before = x.norm.clone().map(|norm| (x.map.clone(), norm));
        let beside = x.beside.clone();
        let x = if T::normalises(&g) { x } else { x.plain().into() };
        let watch = host.statistics != Statistics::Frozen;
        let (y, moments) = apply(&g, &self.weight, x.read(), watch, x.map.pool())?;
        let (weight, sink) = (self.weight.clone(), host.sink.clone());
        let back = host.back(move |dy, want| {
            let dw = T::weight_gradient(&g, x.read(), dy.data(), dy.pool());
            sink.add(&weight, Tensor::from_vec(dw, weight.dims(), weight.var().device())?)?;
            // The input has served: its memory may hold its own gradient.
            drop(x);
            let beside = beside.and_then(|beside| beside.take());
            if want { Ok(Some(input_gradient(&g, &weight, beside, before, &dy)?)) } else { Ok(None) }
        });
        Ok((Act { moments, ..Arc::new(y).into() }, back))
    }

    pub(crate) fn graph(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let g = self.geometry([n, h, w, c])?;
        let padded = x.pad_with_zeros(1, g.padding, g.padding)?.pad_with_zeros(2, g.padding, g.padding)?;
        let mut taps = Vec::new();
        for (ky, kx) in (0..g.kernel).flat_map(|ky| (0..g.kernel).map(move |kx| (ky, kx))) {
            taps.push(window(&padded, [ky, kx], [g.oh, g.ow], g.stride)?.reshape((n * g.oh * g.ow, c))?);
        }
        let patches = Tensor::cat(&taps, 1)?;
        let weight = self.weight.var().permute((2, 3, 1, 0))?.reshape((g.kernel * g.kernel * c, g.o))?;
        Ok(patches.matmul(&weight)?.reshape((n, g.oh, g.ow, g.o))?)
    }
}

/// y = W·x + b over `(n, c)` features.
#[derive(Clone)]
pub struct Linear {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
}

impl Linear {
    /// Declares `weight`, `(output, input)`, of the given kind and, if asked for, a zero `bias` in the scope.
    pub fn new([output, input]: [usize; 2], bias: bool, kind: Kind, init: Init, mut scope: Scope) -> Self {
        let weight = scope.param("weight", (output, input), kind, init);
        let bias =
            bias.then(|| scope.param("bias", output, if kind == Kind::Head { kind } else { Kind::Bias }, Init::Constant(0.0)));
        Linear { weight, bias }
    }

    fn geometry(&self, [n, h, w, c]: [usize; 4]) -> Result<Geometry> {
        let [o, input] = [self.weight.dims()[0], self.weight.dims()[1]];
        if c != input || h != 1 || w != 1 {
            let what = format!("a linear layer of {input} inputs cannot read {h} × {w} maps of {c} channels");
            return Err(Error::new(what).at(self.weight.name()));
        }
        Ok(Geometry { n, h, w, c, o, oh: 1, ow: 1, kernel: 1, stride: 1, padding: 0 })
    }

    pub(crate) fn forward<T: Cell>(&self, x: Flow<T>, host: &Host) -> Result<(Flow<T>, Option<Back<T>>)> {
        let g = self.geometry(x.shape())?;
        let (mut y, _) = apply(&g, &self.weight, (x.data(), None), false, x.pool())?;
        if let Some(bias) = &self.bias {
            let bias = values::<T::Real>(bias)?;
            let rows = y.data_mut().chunks_exact_mut(g.o);
            rows.for_each(|row| row.iter_mut().zip(&bias).for_each(|(y, &b)| *y = T::down(y.up() + b)));
        }
        let (Linear { weight, bias }, sink) = (self.clone(), host.sink.clone());
        let back = host.back(move |dy, want| {
            let device = weight.var().device();
            let dw = T::weight_gradient(&g, (x.data(), None), dy.data(), dy.pool());
            drop(x);
            sink.add(&weight, Tensor::from_vec(dw, weight.dims(), device)?)?;
            if let Some(bias) = bias {
                let db: Vec<T::Real> = column_sums(dy.data(), g.o).into_iter().map(T::Real::of).collect();
                sink.add(&bias, Tensor::from_vec(db, g.o, device)?)?;
            }
            if want { Ok(Some(input_gradient(&g, &weight, None, None, &dy)?)) } else { Ok(None) }
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn graph(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let g = self.geometry([n, h, w, c])?;
        let y = x.reshape((n, c))?.matmul(&self.weight.var().t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias.var())?,
            None => y,
        };
        Ok(y.reshape((n, 1, 1, g.o))?)
    }
}

fn apply<T: Cell>(
    g: &Geometry,
    weight: &Param,
    x: Read<T>,
    watch: bool,
    pool: &Arc<Pool>,
) -> Result<(Map<T>, Option<Vec<BlockMoments>>)> {
    let mut y = Map::new([g.n, g.oh, g.ow, g.o], pool);
    let moments = read(weight.var().as_tensor(), |weight| T::convolve(g, x, weight, y.data_mut(), watch, pool));
    Ok((y, moments.map_err(|e| e.at(weight.name()))?))
}

/// The gradient of the input with what is `beside` it; the input came from the normalisation of `before` if there is one.
fn input_gradient<T: Cell>(
    g: &Geometry,
    weight: &Param,
    beside: Option<Flow<T>>,
    before: Option<(Flow<T>, Arc<Norm<T>>)>,
    dy: &Map<T>,
) -> Result<Flow<T>> {
    let pool = dy.pool();
    let mut dx = Map::new([g.n, g.h, g.w, g.c], pool);
    let normal = before.as_ref().map(|(x, norm)| (x.data(), &norm.affine));
    let sums = read(weight.var().as_tensor(), |weight| {
        T::input_gradient(g, dy.data(), weight, dx.data_mut(), beside.as_ref().map(|beside| beside.data()), normal, pool)
    });
    if let (Some(sums), Some((_, norm))) = (sums.map_err(|e| e.at(weight.name()))?, &before) {
        norm.leave(sums);
    }
    Ok(Arc::new(dx))
}
