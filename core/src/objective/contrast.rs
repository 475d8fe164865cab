//! What losses over similarities share: blocks of anchors against all candidates, and the gradient with respect to the rows.
//!
//! With z the rows, C = [z; memory] the candidates and s = z·Cᵀ/T, a loss is a sum over anchors of a function of their row of s. The loss
//! supplies that function and its derivative D = ∂L/∂s. Since s depends on z on both sides,
//!
//! ```text
//! ∂L/∂z = (D·C + D[:, rows]ᵀ·z) / T
//! ```
//!
//! Only one block of anchors is in memory at a time, so memory grows with the batch, not with its square. A CUDA device computes the blocks by
//! a kernel of its own, to which a [`Contrast`] describes the loss.

use candle_core::{DType, Tensor};
use ctk_cuda::{Contrast, Cuda};
use ctk_kernels::Real;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{tensors, whole};
use crate::world::Collective;

/// Anchors in a block: fixed, so that sums do not depend on the machine.
pub(super) const BLOCK: usize = 512;

/// The sum of a loss over all anchors, and its gradient with respect to `rows` (m, d). `memory` (k, d) holds further candidates, which get
/// no gradient. `judge(first, s)` gets the similarities (b, m + k) of the anchors from number `first` on, and returns the sum of their
/// losses (a scalar) and D (b, m + k); `of` describes the same loss to a device.
pub(super) fn contrast(
    device: &Device,
    rows: &Tensor,
    memory: Option<&Tensor>,
    of: &Contrast,
    judge: impl Fn(usize, &Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<(Tensor, Tensor)> {
    match device {
        Device::Cpu => on_host(rows, memory, of.temperature, judge),
        Device::Cuda(cuda) => on_cuda(cuda, of, &rows.detach().contiguous()?, memory),
    }
}

/// The same on the CPU, for any loss, with the temperature T.
pub(super) fn on_host(
    rows: &Tensor,
    memory: Option<&Tensor>,
    temperature: f64,
    judge: impl Fn(usize, &Tensor) -> Result<(Tensor, Tensor)>,
) -> Result<(Tensor, Tensor)> {
    let rows = rows.detach().contiguous()?;
    let m = rows.dim(0)?;
    let candidates = match memory {
        Some(memory) => Tensor::cat(&[&rows, &memory.detach()], 0)?,
        None => rows.clone(),
    };
    let columns = candidates.t()?;
    let mut total = Tensor::zeros((), rows.dtype(), rows.device())?;
    let (mut as_anchor, mut as_candidate) = (Vec::new(), rows.zeros_like()?);
    for first in (0..m).step_by(BLOCK) {
        let anchors = rows.narrow(0, first, BLOCK.min(m - first))?;
        let (loss, d) = judge(first, &(anchors.matmul(&columns)? / temperature)?)?;
        total = (total + loss)?;
        as_anchor.push(d.matmul(&candidates)?);
        as_candidate = (as_candidate + d.narrow(1, 0, m)?.t()?.matmul(&anchors)?)?;
    }
    let gradient = (Tensor::cat(&as_anchor, 0)? + as_candidate)?;
    Ok((total, (gradient / temperature)?))
}

/// The loss that `of` describes and its gradient with respect to `rows` (m, d), computed by a device's kernel. `memory` (k, d) holds further
/// candidates, which get no gradient.
pub(super) fn on_cuda(cuda: &Cuda, of: &Contrast, rows: &Tensor, memory: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    fn run<R: Real>(cuda: &Cuda, of: &Contrast, rows: &Tensor, memory: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let run = |memory: &[R]| whole(|| tensors::read(rows, |rows| cuda.contrast(of, rows, memory)));
        let (loss, gradient) = match memory {
            Some(memory) => tensors::read(memory, run)??,
            None => run(&[])?,
        };
        Ok((tensors::from_vec(vec![R::of(loss)], ())?, tensors::from_vec(gradient, rows.shape())?))
    }
    match rows.dtype() {
        DType::F64 => run::<f64>(cuda, of, rows, memory),
        _ => run::<f32>(cuda, of, rows, memory),
    }
}

/// Log-sum-exp (b, 1) and softmax (b, c) of each row of `logits`, with the row's maximum subtracted first. A row of only −∞ gives −∞ and
/// zeros.
pub(super) fn softmax(logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let top = logits.max_keepdim(1)?.maximum(LOWEST)?;
    let e = logits.broadcast_sub(&top)?.exp()?;
    let sum = e.sum_keepdim(1)?;
    Ok(((sum.log()? + top)?, e.broadcast_div(&sum.maximum(TINY)?)?))
}

// Both are far from any similarity and can be represented in f32.
const LOWEST: f64 = -1e30;
const TINY: f64 = 1e-30;

/// A matrix like `s` (b, c): `equal` where the anchor's id in `rows` (b) is the candidate's in `columns` (c), `other` elsewhere.
pub(super) fn compare(s: &Tensor, rows: &[u32], columns: &[u32], [equal, other]: [f64; 2]) -> Result<Tensor> {
    fn of<R: Real>(rows: &[u32], columns: &[u32], values: [R; 2], dims: (usize, usize)) -> Result<Tensor> {
        let mut matrix = vec![values[1]; dims.0 * dims.1];
        ctk_kernels::compare(rows, columns, values, &mut matrix);
        tensors::from_vec(matrix, dims)
    }
    let dims = s.dims2()?;
    if dims != (rows.len(), columns.len()) {
        return Err(Error::new(format!("{} and {} names for similarities {dims:?}", rows.len(), columns.len())));
    }
    match s.dtype() {
        DType::F64 => of(rows, columns, [equal, other], dims),
        _ => of(rows, columns, [equal as f32, other as f32], dims),
    }
}

/// Minus infinity where anchor and candidate have the same id, which removes the candidate from the anchor's sums; 0 elsewhere.
pub(super) fn without(s: &Tensor, rows: &[u32], columns: &[u32]) -> Result<Tensor> {
    compare(s, rows, columns, [f64::NEG_INFINITY, 0.0])
}

/// The numbers `first..first + count`, as ids of rows.
pub(super) fn numbered(first: usize, count: usize) -> Vec<u32> {
    (first as u32..(first + count) as u32).collect()
}

/// The numbers of the rows of all ranks, in rank order; `own` are this rank's. They travel on the device of `like`.
pub(super) fn numbers_over_ranks(own: &[u32], like: &Tensor, world: &dyn Collective) -> Result<Vec<u32>> {
    let all = world.gather(&Tensor::from_slice(own, (own.len(), 1), like.device())?)?.rows;
    Ok(all.flatten_all()?.to_vec1::<u32>()?)
}

/// Checks that there is more than one pair, so that there are negatives, or statistics.
pub(super) fn several(pairs: usize) -> Result<usize> {
    if pairs < 2 {
        return Err(Error::new("this loss needs two pairs or more in a batch").hint("use a larger batch, or more data"));
    }
    Ok(pairs)
}

/// The number of rows over all ranks, of which this rank has `own`; the sum is made on the device of `like`.
pub(super) fn over_ranks(own: usize, like: &Tensor, world: &dyn Collective) -> Result<f64> {
    Ok(world.sum(&Tensor::new(own as f64, like.device())?)?.to_scalar::<f64>()?)
}

/// Checks that two views `(n, d)` pair row by row.
pub(super) fn paired(left: &Tensor, right: &Tensor) -> Result<(usize, usize)> {
    let (n, d) = left.dims2()?;
    if right.dims() != left.dims() || n == 0 {
        return Err(Error::new(format!("a loss needs pairs of rows, not {:?} and {:?}", left.dims(), right.dims())));
    }
    if !matches!(left.dtype(), DType::F32 | DType::F64) {
        return Err(Error::new(format!("a loss works in f32 or f64, not {:?}", left.dtype())));
    }
    Ok((n, d))
}
