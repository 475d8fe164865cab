//! Candle operations with correct gradients, for the reference implementation of several layers.

use candle_core::{Device, Tensor};

use ctk_kernels::Gelu;

use crate::error::Result;

/// max(x, 0) whose derivative at 0 is 0; candle's own has 1 there.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    let positive = x.detach().gt(0.0)?.to_dtype(x.dtype())?;
    Ok((x * positive)?)
}

/// A GELU. Candle's own has a derivative of six digits.
pub(crate) fn gelu(form: Gelu, x: &Tensor) -> Result<Tensor> {
    let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let gate = match form {
        Gelu::Erf => (((x / std::f64::consts::SQRT_2)?.erf()? + 1.0)? / 2.0)?,
        Gelu::Tanh => sigmoid(((x + (x.powf(3.0)? * 0.044715)?)? * (8.0 / std::f64::consts::PI).sqrt())?)?,
        Gelu::Quick => sigmoid((x * 1.702)?)?,
    };
    Ok((x * gate)?)
}

/// The pixels that tap (ky, kx) of every window reads: `(n, oh, ow, c)` of a padded `(n, h, w, c)`.
pub(crate) fn window(x: &Tensor, [ky, kx]: [usize; 2], [oh, ow]: [usize; 2], stride: usize) -> Result<Tensor> {
    let steps =
        |from: usize, count: usize, device: &Device| Tensor::from_iter((0..count).map(|i| (from + i * stride) as u32), device);
    Ok(x.index_select(&steps(ky, oh, x.device())?, 1)?.index_select(&steps(kx, ow, x.device())?, 2)?)
}
