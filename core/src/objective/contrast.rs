//! What losses over similarities share: blocks of anchors against all candidates, and the gradient's way back to the rows.
//!
//! With z the rows, C = [z; memory] the candidates and s = z·Cᵀ/T, a loss is a sum over anchors of a function of their row of s. A
//! loss hands over that function and its derivative D = ∂L/∂s; as s depends on z on both sides,
//!
//! ```text
//! ∂L/∂z = (D·C + D[:, rows]ᵀ·z) / T
//! ```
//!
//! Only one block of anchors is alive at a time, so memory grows with the batch, not with its square.

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};

/// Anchors a block: fixed, so that sums do not depend on the machine.
pub(super) const BLOCK: usize = 512;

/// Sum of a loss over all anchors, and its gradient with respect to `rows` (m, d). `memory` (k, d) holds further candidates
/// that get no gradient. `judge(first, s)` gets the similarities (b, m + k) of the anchors from `first` on and gives the sum of
/// their losses (a scalar) and D (b, m + k).
pub(super) fn contrast(
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

/// Log-sum-exp (b, 1) and softmax (b, c) of each row of `logits`, by subtracting the row's maximum. A row of −∞ alone gives
/// −∞ and zeros.
pub(super) fn softmax(logits: &Tensor) -> Result<(Tensor, Tensor)> {
    let top = logits.max_keepdim(1)?.maximum(LOWEST)?;
    let e = logits.broadcast_sub(&top)?.exp()?;
    let sum = e.sum_keepdim(1)?;
    Ok(((sum.log()? + top)?, e.broadcast_div(&sum.maximum(TINY)?)?))
}

// Both are far from any similarity and representable in f32.
const LOWEST: f64 = -1e30;
const TINY: f64 = 1e-30;

/// `f(i, j)` for anchors `first..first + b` and m + k candidates, as a tensor like `s` (b, m + k).
pub(super) fn mask(first: usize, s: &Tensor, f: impl Fn(usize, usize) -> f64) -> Result<Tensor> {
    let (b, c) = s.dims2()?;
    let values = (0..b * c).map(|at| f(first + at / c, at % c));
    let mask = match s.dtype() {
        DType::F64 => Tensor::from_vec(values.collect::<Vec<f64>>(), (b, c), s.device())?,
        _ => Tensor::from_vec(values.map(|v| v as f32).collect::<Vec<f32>>(), (b, c), s.device())?,
    };
    Ok(mask)
}

/// Checks that there are negatives, or statistics, at all: more than one pair.
pub(super) fn several(pairs: usize) -> Result<usize> {
    if pairs < 2 {
        return Err(Error::new("this loss needs two pairs or more in a batch").hint("use a larger batch, or more data"));
    }
    Ok(pairs)
}

/// Checks that two sides pair row by row, `(n, d)`.
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
