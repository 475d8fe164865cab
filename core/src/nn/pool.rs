//! Pooling layers. Candle's max-pool has a wrong gradient (or none), so the reference has an implementation of its own, too.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Map, Number, Windows};

use super::flow::{Context, Forward, SharedMap};
use super::reference::window;
use crate::error::{Error, Result};
use crate::nn::rows::Rows;

/// The padding of an image that is pooled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many rows and columns on every side (PyTorch); windows that do not fit are left out.
    Both(usize),
    /// So many below and to the right only.
    After(usize),
    /// As many as give ⌈size / stride⌉ outputs, the smaller half before the image (TensorFlow's `SAME`).
    Same,
}

impl Padding {
    /// Rows before the image, and the output's size.
    fn resolve(self, size: usize, kernel: usize, stride: usize) -> Option<(usize, usize)> {
        let (before, total) = match self {
            Padding::Both(p) => (p, 2 * p),
            Padding::After(p) => (0, p),
            Padding::Same => {
                let out = size.div_ceil(stride);
                let total = ((out - 1) * stride + kernel).saturating_sub(size);
                return Some((total / 2, out));
            }
        };
        Some((before, (size + total).checked_sub(kernel)? / stride + 1))
    }

    fn windows(self, [h, w, c]: [usize; 3], kernel: usize, stride: usize, count_outside: bool) -> Result<Windows> {
        let sizes = self.resolve(h, kernel, stride).zip(self.resolve(w, kernel, stride));
        let Some(((before, oh), (left, ow))) = sizes else {
            return Err(Error::new(format!("{kernel} × {kernel} pooling cannot read {h} × {w} maps")));
        };
        Ok(Windows { h, w, c, oh, ow, kernel, stride, top: before, left, count_outside })
    }
}

/// The largest value of each window; of equal values the first one gets the gradient.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    kernel: usize,
    stride: usize,
    padding: Padding,
}

impl MaxPool {
    /// Max-pooling with square windows. Padding never wins.
    ///
    /// # Panics
    /// If `kernel` or `stride` is 0, or if a window could lie wholly in the padding.
    pub fn new(kernel: usize, stride: usize, padding: Padding) -> Self {
        check_window(kernel, stride, padding);
        MaxPool { kernel, stride, padding }
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let device = &context.device;
        let shape @ [n, h, w, c] = x.shape();
        let g = self.padding.windows([h, w, c], self.kernel, self.stride, false)?;
        let mut y = Map::new([n, g.oh, g.ow, c], device);
        let mut winners = device.allocate(n * g.oh * g.ow * c);
        device.max_pool(&g, x.data(), y.data_mut(), device.view_mut(&mut winners));
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let mut dx = Map::new(shape, device);
            device.max_pool_gradient(&g, dy.data(), device.view(&winners), dx.data_mut());
            Ok(Some(Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, c) = x.dims4()?;
        let g = self.padding.windows([h, w, c], self.kernel, self.stride, false)?;
        let taps = taps(&pad(x, &g, f64::NEG_INFINITY)?, &g)?;
        let stacked = Tensor::stack(&taps, 0)?;
        // `max` would give each of several equal values the whole gradient.
        let first = stacked.detach().argmax_keepdim(0)?;
        Ok(stacked.gather(&first, 0)?.squeeze(0)?)
    }
}

/// The mean of each window.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool {
    kernel: usize,
    stride: usize,
    padding: Padding,
    count_outside: bool,
}

impl AvgPool {
    /// Average pooling with square windows. With `count_outside` padding counts as zeros; otherwise the mean is over the pixels inside the
    /// image.
    ///
    /// # Panics
    /// If `kernel` or `stride` is 0, or if a window could lie wholly in the padding.
    pub fn new(kernel: usize, stride: usize, padding: Padding, count_outside: bool) -> Self {
        check_window(kernel, stride, padding);
        AvgPool { kernel, stride, padding, count_outside }
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let device = &context.device;
        let shape @ [n, h, w, c] = x.shape();
        let g = self.padding.windows([h, w, c], self.kernel, self.stride, self.count_outside)?;
        let mut y = Map::new([n, g.oh, g.ow, c], device);
        device.mean_pool(&g, x.data(), y.data_mut());
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let mut dx = Map::new(shape, device);
            device.mean_pool_gradient(&g, dy.data(), dx.data_mut());
            Ok(Some(Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (_, h, w, c) = x.dims4()?;
        let g = self.padding.windows([h, w, c], self.kernel, self.stride, self.count_outside)?;
        let sum = |x: &Tensor| -> Result<Tensor> {
            let taps = taps(x, &g)?;
            Ok(taps[1..].iter().try_fold(taps[0].clone(), |sum, tap| sum + tap)?)
        };
        let total = sum(&pad(x, &g, 0.0)?)?;
        if self.count_outside {
            return Ok((total / (self.kernel * self.kernel) as f64)?);
        }
        let inside = Tensor::ones((1, h, w, 1), x.dtype(), x.device())?;
        Ok(total.broadcast_div(&sum(&pad(&inside, &g, 0.0)?)?)?)
    }
}

fn check_window(kernel: usize, stride: usize, padding: Padding) {
    let fits = match padding {
        Padding::Both(p) | Padding::After(p) => p < kernel,
        Padding::Same => true,
    };
    assert!(kernel > 0 && stride > 0 && fits, "a window of {kernel}, stride {stride} with {padding:?} could be empty");
}

fn check(rows: &Rows, n: usize, pixels: usize) -> Result<()> {
    match rows.covers(n, pixels) {
        true => Ok(()),
        false => Err(Error::new(format!("pooling of {n} rows of {pixels} positions, of which {} are known", rows.len()))),
    }
}

/// The mean of each channel over the image, or over the tokens of each text.
pub(crate) fn global_average<D: Device, T: Number>(x: &Map<D, T>, context: &Context<D>) -> Forward<D, T> {
    let device = &context.device;
    let shape @ [n, h, w, c] = x.shape();
    let rows = &context.behaviour.rows;
    if let Some(offsets) = rows.offsets() {
        check(rows, n, h * w)?;
        let ends = device.vector(offsets);
        let mut y = Map::new([rows.len(), 1, 1, c], device);
        device.means(x.data(), device.read(&ends), c, y.data_mut());
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let mut dx = Map::new(shape, device);
            device.means_gradient(dy.data(), device.read(&ends), c, dx.data_mut());
            Ok(Some(Arc::new(dx)))
        });
        return Ok((Arc::new(y), back));
    }
    let mut y = Map::new([n, 1, 1, c], device);
    device.global_mean(x.data(), h * w, c, y.data_mut());
    let back = context.back(move |dy: SharedMap<D, T>, _| {
        let device = dy.device();
        let mut dx = Map::new(shape, device);
        device.global_mean_gradient(dy.data(), h * w, c, dx.data_mut());
        Ok(Some(Arc::new(dx)))
    });
    Ok((Arc::new(y), back))
}

pub(crate) fn global_average_reference(x: &Tensor, rows: &Rows) -> Result<Tensor> {
    if rows.offsets().is_none() {
        return Ok(x.mean_keepdim((1, 2))?);
    }
    let (n, h, w, c) = x.dims4()?;
    check(rows, n, h * w)?;
    let mean = |row: usize| -> Result<Tensor> {
        let own = rows.tokens(row, 1);
        if own.is_empty() {
            return Ok(Tensor::zeros((1, 1, 1, c), x.dtype(), x.device())?);
        }
        Ok(x.narrow(0, own.start, own.len())?.mean_keepdim(0)?)
    };
    Ok(Tensor::cat(&(0..rows.len()).map(mean).collect::<Result<Vec<_>>>()?, 0)?)
}

/// The end of a text or an image whose token is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    First,
    Last,
}

/// The number of the first or last token of each row in a map of `n` images of `pixels` pixels.
fn ends(end: End, rows: &Rows, n: usize, pixels: usize) -> Result<Vec<u32>> {
    check(rows, n, pixels)?;
    let of = |row: usize| {
        let tokens = rows.tokens(row, pixels);
        match end {
            _ if tokens.is_empty() => Err(Error::new(format!("text {row} has no token, so none that is the first or the last"))),
            End::First => Ok(tokens.start as u32),
            End::Last => Ok(tokens.end as u32 - 1),
        }
    };
    (0..rows.len()).map(of).collect()
}

/// The first or last token of each text, or pixel of each image.
pub(crate) fn at_end<D: Device, T: Number>(end: End, x: &Map<D, T>, context: &Context<D>) -> Forward<D, T> {
    let [n, h, w, c] = x.shape();
    let at = ends(end, &context.behaviour.rows, n, h * w)?;
    picked(x, &at, [at.len(), 1, 1, c], context)
}

/// The tokens of numbers `at`, which are different, as a map of this shape.
pub(crate) fn picked<D: Device, T: Number>(x: &Map<D, T>, at: &[u32], to: [usize; 4], context: &Context<D>) -> Forward<D, T> {
    let device = &context.device;
    let (shape, c, at) = (x.shape(), x.c, device.vector(at));
    let mut y = Map::new(to, device);
    device.pick(x.data(), device.read(&at), c, y.data_mut());
    let back = context.back(move |dy: SharedMap<D, T>, _| {
        let device = dy.device();
        let mut dx = Map::new(shape, device);
        device.pick_gradient(dy.data(), device.read(&at), c, dx.data_mut());
        Ok(Some(Arc::new(dx)))
    });
    Ok((Arc::new(y), back))
}

pub(crate) fn at_end_reference(end: End, x: &Tensor, rows: &Rows) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let at = ends(end, rows, n, h * w)?;
    let count = at.len();
    let at = Tensor::from_vec(at, count, x.device())?;
    Ok(x.reshape((n * h * w, c))?.index_select(&at, 0)?.reshape((count, 1, 1, c))?)
}

/// The tensor surrounded by `value`, as far as the windows reach.
fn pad(x: &Tensor, g: &Windows, value: f64) -> Result<Tensor> {
    let mut x = x.clone();
    for (dim, before, size, out) in [(1, g.top, g.h, g.oh), (2, g.left, g.w, g.ow)] {
        let after = ((out - 1) * g.stride + g.kernel).saturating_sub(before + size);
        let edge = |count: usize| -> Result<Tensor> {
            let mut dims = x.dims().to_vec();
            dims[dim] = count;
            Ok(Tensor::full(value, dims, x.device())?.to_dtype(x.dtype())?)
        };
        let edges = [edge(before)?, edge(after)?];
        let parts: Vec<&Tensor> = [&edges[0], &x, &edges[1]].into_iter().filter(|t| t.dims()[dim] > 0).collect();
        x = Tensor::cat(&parts, dim)?;
    }
    Ok(x)
}

fn taps(padded: &Tensor, g: &Windows) -> Result<Vec<Tensor>> {
    let all = (0..g.kernel).flat_map(|ky| (0..g.kernel).map(move |kx| [ky, kx]));
    all.map(|tap| window(padded, tap, [g.oh, g.ow], g.stride)).collect()
}
