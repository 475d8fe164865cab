//! What BYOL and SimSiam share: predictions of one view are pulled to embeddings of the other view, which get no gradient.
//!
//! With q and q' the predictions of both views, k and k' the embeddings that they should match, all of length 1, and N rows,
//!
//! ```text
//! L = a − b·(mean cos(q, k') + mean cos(q', k))
//! ∂L/∂qᵢ = −b·k'ᵢ/N,   ∂L/∂q'ᵢ = −b·kᵢ/N,   ∂L/∂k = ∂L/∂k' = 0
//! ```

use candle_core::Tensor;

use super::contrast::{over_ranks, paired};
use super::{Inputs, Terms, attach, normalise};
use crate::error::Result;

/// The loss of the online predictions against `keys`, (first, second), for a = `offset` and b = `weight`. `extras` has the mean cosine of
/// matching rows, and the keys' spread: √d times the mean standard deviation of their values, 1 if they fill the sphere and 0 if they have
/// collapsed (Chen & He 2021, figure 2).
pub(super) fn predict(inputs: &Inputs, keys: (&Tensor, &Tensor), offset: f64, weight: f64) -> Result<Terms> {
    let (first, second) = inputs.online.pair()?;
    let (left, right) = (normalise(&first.query)?, normalise(&second.query)?);
    let (left_key, right_key) = (normalise(&keys.0.detach())?, normalise(&keys.1.detach())?);
    let (n, d) = paired(&left, &right_key)?;
    paired(&right, &left_key)?;
    let all = over_ranks(n, &left, inputs.world)?;
    let cosines = ((left.detach() * &right_key)?.sum_all()? + (right.detach() * &left_key)?.sum_all()?)?;
    let cosines = (inputs.world.sum(&cosines)? / all)?;
    let value = (offset - (&cosines * weight)?)?;
    let pull = |key: &Tensor| key * (-weight / all);
    let gradients = [(&left, pull(&right_key)?), (&right, pull(&left_key)?)];
    let off = left_key.broadcast_sub(&left_key.mean_keepdim(0)?)?;
    let spread = (off.sqr()?.mean_keepdim(0)?.sqrt()?.mean_all()? * (d as f64).sqrt())?;
    let extras = vec![("positive_similarity", (cosines / 2.0)?), ("spread", spread)];
    inputs.terms(&attach(&value, &gradients)?, &[], extras)
}
