//! Linear layers.

use std::sync::Arc;

use candle_core::Tensor;
use ctk_kernels::{Device, Finish, Gelu, Geometry, Map, Number};

use super::conv::input_gradient;
use super::flow::{Context, Forward, SharedMap};
use crate::error::{Error, Result};
use crate::nn::params::{Init, Param, ParamKind, Scope};

/// y = W·x + b for every row: features `(n, c)`, tokens `(tokens, c)`, or the pixels of maps.
#[derive(Clone)]
pub struct Linear {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
}

impl Linear {
    /// Declares `weight`, `(output, input)`, of the given kind and, if `bias` is true, a `bias`, `(output,)`, which starts at zero.
    pub fn new([output, input]: [usize; 2], bias: bool, kind: ParamKind, init: Init, mut scope: Scope) -> Self {
        let weight = scope.param("weight", (output, input), kind, init);
        let bias = bias.then(|| {
            scope.param("bias", output, if kind == ParamKind::Head { kind } else { ParamKind::Bias }, Init::Constant(0.0))
        });
        Linear { weight, bias }
    }

    pub(crate) fn params(&self, into: &mut Vec<Arc<Param>>) {
        into.push(self.weight.clone());
        into.extend(self.bias.clone());
    }

    /// The matrix product as a 1 × 1 convolution: a row is an image of one pixel.
    fn geometry(&self, [n, h, w, c]: [usize; 4]) -> Result<Geometry> {
        let [o, input] = [self.weight.dims()[0], self.weight.dims()[1]];
        if c != input {
            let what = format!("a linear layer of {input} inputs cannot read rows of {c} channels");
            return Err(Error::new(what).at(self.weight.name()));
        }
        Ok(Geometry { n: n * h * w, h: 1, w: 1, c, o, oh: 1, ow: 1, kernel: 1, stride: 1, padding: 0 })
    }

    /// The rows, and then their GELU if there is one.
    pub(crate) fn forward<D: Device, T: Number>(
        &self,
        gelu: Option<Gelu>,
        x: SharedMap<D, T>,
        context: &Context<D>,
    ) -> Forward<D, T> {
        let shape @ [n, h, w, _] = x.shape();
        let (g, device) = (self.geometry(shape)?, &context.device);
        let mut y = Map::new([n, h, w, g.o], device);
        // The gradient of the GELU needs what it is taken of.
        let mut before = (gelu.is_some() && context.keep).then(|| Map::new(y.shape(), device));
        self.weight.view(device, |weight| {
            let before = before.as_mut().map(|before| before.data_mut());
            let run = |bias: Option<D::View<'_, T::Real>>| {
                device.transform(&g, x.data(), weight, Finish { bias, gelu }, before, y.data_mut())
            };
            match &self.bias {
                Some(bias) => bias.view(device, |bias| run(Some(bias))),
                None => {
                    run(None);
                    Ok(())
                }
            }
        })??;
        let (Linear { weight, bias }, own) = (self.clone(), context.clone());
        let back = context.back(move |mut dy: SharedMap<D, T>, want| {
            if let (Some(form), Some(before)) = (gelu, before) {
                let mut through = Map::own(dy);
                own.device.gelu_gradient(form, before.data(), through.data_mut());
                dy = Arc::new(through);
            }
            let dw = own.device.weight_gradient(&g, (x.data(), None), dy.data());
            drop(x);
            own.leave(&weight, dw)?;
            if let Some(bias) = bias {
                own.leave(&bias, own.device.column_sums(dy.data(), g.o))?;
            }
            if !want {
                return Ok(None);
            }
            let dx = input_gradient(&g, &weight, None, None, &dy)?;
            Ok(Some(Arc::new(Map::shaped(Map::own(dx), shape))))
        });
        Ok((Arc::new(y), back))
    }

    pub(crate) fn reference(&self, x: &Tensor) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let g = self.geometry([n, h, w, c])?;
        let y = x.reshape((g.n, c))?.matmul(&self.weight.var().t()?)?;
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias.var())?,
            None => y,
        };
        Ok(y.reshape((n, h, w, g.o))?)
    }
}
