//! Attention of a learned query to the tokens of each image, in place of a class token: the pooling of SigLIP (Zhai et al. 2023), from the
//! set transformer (Lee et al. 2019, §3.2).

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Finish, Geometry, Map, Number, Real};

use super::flow::{Context, Forward, SharedMap};
use super::tensors;
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// `(n, h, w, width)` tokens to `(n, h, w, 3·width)` queries, keys and values, where all queries are that of one learned token. Behind it come
/// [`Attention`](super::Attention), whose outputs are the same for all tokens of an image, and [`First`](super::Layer::First), which takes one
/// of them. So attention needs no second form for a single query; a network has one such layer at most.
#[derive(Clone)]
pub struct Probe {
    latent: Arc<Param>,
    query: [Arc<Param>; 2],
    both: [Arc<Param>; 2],
}

impl Probe {
    /// Declares `latent`, `(1, 1, width)`, `q`, and `kv`, keys and values in one, in the scope: timm's names and shapes.
    pub fn new(width: usize, init: Init, mut scope: Scope) -> Self {
        let latent = scope.param("latent", (1, 1, width), ParamKind::Embedding, init);
        let mut linear = |name: &str, output: usize| {
            let mut scope = scope.sub(name);
            let weight = scope.param("weight", (output, width), ParamKind::Weight, init);
            [weight, scope.param("bias", output, ParamKind::Bias, Init::Constant(0.0))]
        };
        let query = linear("q", width);
        Probe { latent, query, both: linear("kv", 2 * width) }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.latent.clone());
        into.extend(self.query.iter().chain(&self.both).cloned());
    }

    fn width(&self, c: usize) -> Result<usize> {
        let width = self.latent.dims()[2];
        if c != width {
            return Err(Error::new(format!("a query of {width} values for tokens of {c}")).at(self.latent.name()));
        }
        Ok(width)
    }

    /// One matrix and one bias for all three; the queries' matrix is 0, their bias the query.
    fn whole(&self, value: impl Fn(&Param) -> Result<Tensor>) -> Result<[Tensor; 2]> {
        let [wq, bq, wkv, bkv] = [&self.query[0], &self.query[1], &self.both[0], &self.both[1]].map(|param| value(param));
        let (wq, bq, latent) = (wq?, bq?, value(&self.latent)?.reshape((1, ()))?);
        let query = (latent.matmul(&wq.t()?)?.squeeze(0)? + bq)?;
        Ok([Tensor::cat(&[wq.zeros_like()?, wkv?], 0)?, Tensor::cat(&[query, bkv?], 0)?])
    }

    /// Leaves the parameters' gradients, of those of the matrix and of the bias.
    fn leave<D: Device, R: Real>(&self, [dw, db]: [Vec<R>; 2], own: &Context<D>) -> Result<()> {
        let (device, width) = (&own.device, self.latent.dims()[2]);
        let (query, rest) = db.split_at(width);
        own.leave(&self.query[1], device.vector(query))?;
        own.leave(&self.both[1], device.vector(rest))?;
        own.leave(&self.both[0], device.vector(&dw[width * width..]))?;
        let query = tensors::from_vec(query.to_vec(), (width, 1))?;
        let latent = self.latent.tensor()?.reshape((1, width))?;
        let of_matrix = query.matmul(&latent)?;
        let of_latent = query.t()?.contiguous()?.matmul(&self.query[0].tensor()?)?;
        tensors::read(&of_matrix, |values: &[R]| own.leave(&self.query[0], device.vector(values)))??;
        tensors::read(&of_latent, |values: &[R]| own.leave(&self.latent, device.vector(values)))?
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let shape @ [n, h, w, c] = x.shape();
        let (width, device) = (self.width(c)?, &context.device);
        let g = Geometry { n: n * h * w, h: 1, w: 1, c, o: 3 * width, oh: 1, ow: 1, kernel: 1, stride: 1, padding: 0 };
        let [weight, bias] = self.whole(Param::tensor)?;
        let there = |tensor: &Tensor| tensors::read(tensor, |values: &[T::Real]| device.vector(values));
        let (weight, bias) = (there(&weight)?, there(&bias)?);
        let mut y = Map::new([n, h, w, g.o], device);
        let finish = Finish { bias: Some(device.read(&bias)), gelu: None };
        device.transform(&g, x.data(), device.read(&weight), finish, None, y.data_mut());
        let (layer, own) = (self.clone(), context.clone());
        let back = context.back(move |dy: SharedMap<D, T>, want| {
            let device = &own.device;
            let dw = device.host(device.weight_gradient(&g, (x.data(), None), dy.data()));
            let db = device.host(device.column_sums(dy.data(), g.o));
            drop(x);
            layer.leave([dw, db], &own)?;
            if !want {
                return Ok(None);
            }
            let mut dx = Map::new(shape, device);
            device.input_gradient(&g, dy.data(), device.read(&weight), dx.data_mut(), None, None);
            Ok(Some(Arc::new(dx)))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let width = self.width(c)?;
        let [weight, bias] = self.whole(|param| Ok(param.var().as_tensor().clone()))?;
        let y = x.reshape((n * h * w, c))?.matmul(&weight.t()?)?.broadcast_add(&bias)?;
        Ok(y.reshape((n, h, w, 3 * width))?)
    }
}
