//! Multi-head attention (Vaswani et al. 2017, §3.2) within each text, or among the pixels of each image.

use std::sync::Arc;

use candle_core::D::Minus1;
use candle_core::Tensor;
use ctk_kernels::{self as kernels, Device, Map, Number};

use super::dropout::Dropout;
use super::flow::{Behaviour, Context, Forward, SharedMap};
use super::tensors;
use crate::error::{Error, Result};
use crate::nn::rows::Rows;

/// From the queries, keys and values of every token, (tokens, 3·width), to (tokens, width): softmax(q·kᵀ/√d)·v in each of the heads, whose
/// width is d. The [`Linear`](super::Linear) layers before and behind it make queries, keys and values, and mix the heads.
#[derive(Clone, Debug)]
pub struct Attention {
    heads: usize,
    causal: bool,
    dropout: Option<Dropout>,
}

impl Attention {
    /// Every token attends to all tokens of its text, or of its image.
    ///
    /// # Panics
    /// If `heads` is 0.
    pub fn new(heads: usize) -> Self {
        assert!(heads > 0, "attention has one head at least");
        Attention { heads, causal: false, dropout: None }
    }

    /// A token attends to itself and to those before it.
    pub fn causal(self) -> Self {
        Attention { causal: true, ..self }
    }

    /// Probabilities are dropped before they meet the values.
    pub fn dropout(self, dropout: Dropout) -> Self {
        Attention { dropout: Some(dropout), ..self }
    }

    /// The width of all heads.
    fn width(&self, rows: &Rows, n: usize, pixels: usize, c: usize) -> Result<usize> {
        if !c.is_multiple_of(3 * self.heads) || c == 0 {
            let what = format!("{c} channels are no queries, keys and values of {} heads", self.heads);
            return Err(Error::new(what).hint("the width must be divisible by the number of heads"));
        }
        if !rows.covers(n, pixels) {
            let what = format!("attention among {n} rows of {pixels} positions, of which {} are known", rows.len());
            return Err(Error::new(what));
        }
        Ok(c / 3)
    }

    fn scale(&self, width: usize) -> f64 {
        1.0 / ((width / self.heads) as f64).sqrt()
    }

    pub(crate) fn forward<D: Device, T: Number>(&self, x: SharedMap<D, T>, context: &Context<D>) -> Forward<D, T> {
        let [n, h, w, c] = x.shape();
        let Behaviour { rows, key, .. } = &context.behaviour;
        let width = self.width(rows, n, h * w, c)?;
        let device = &context.device;
        let dropout = self.dropout.as_ref().zip(key.as_ref()).map(|(dropout, key)| dropout.drawn(key));
        let of = Described { attention: self.clone(), rows: rows.clone(), each: h * w, width, dropout };
        let mut y = Map::new([n, h, w, width], device);
        let mut sums = device.allocate(y.rows() * self.heads);
        device.attention(&of.kernel(), x.data(), y.data_mut(), device.view_mut(&mut sums));
        let y = Arc::new(y);
        let kept = y.clone();
        let back = context.back(move |dy: SharedMap<D, T>, _| {
            let device = dy.device();
            let mut dx = Map::new(x.shape(), device);
            let from = [x.data(), kept.data(), dy.data()];
            device.attention_gradient(&of.kernel(), from, device.view(&sums), dx.data_mut());
            Ok(Some(Arc::new(dx)))
        });
        Ok((y, back))
    }

    pub(crate) fn reference(&self, x: &Tensor, behaviour: &Behaviour) -> Result<Tensor> {
        let (n, h, w, c) = x.dims4()?;
        let rows = &behaviour.rows;
        let width = self.width(rows, n, h * w, c)?;
        let head = width / self.heads;
        let tokens = x.reshape((n * h * w, c))?;
        let mut all = Vec::new();
        for row in 0..rows.len() {
            let own = rows.tokens(row, h * w);
            let count = own.len();
            if count == 0 {
                continue;
            }
            let own = tokens.narrow(0, own.start, count)?;
            // (heads, count, head) each.
            let part = |which: usize| -> Result<Tensor> {
                Ok(own.narrow(1, which * width, width)?.reshape((count, self.heads, head))?.transpose(0, 1)?.contiguous()?)
            };
            let scores = (part(0)?.matmul(&part(1)?.t()?.contiguous()?)? * self.scale(width))?;
            let scores = if self.causal { scores.broadcast_add(&later(count, x)?)? } else { scores };
            let e = scores.broadcast_sub(&scores.detach().max_keepdim(Minus1)?)?.exp()?;
            let mut p = e.broadcast_div(&e.sum_keepdim(Minus1)?)?;
            if let Some((dropout, key)) = self.dropout.as_ref().zip(behaviour.key.as_ref()) {
                let drawn = dropout.drawn(key);
                let (place, view) = (rows.places()[row], rows.views()[row]);
                let keep = |at: usize| {
                    let (head, query, key) = (at / count / count, at / count % count, at % count);
                    let channel = kernels::Attention::channel(head, key) as u32;
                    if drawn.keep(place, view, query as u32, channel) { drawn.scale } else { 0.0 }
                };
                let factors: Vec<f64> = (0..self.heads * count * count).map(keep).collect();
                p = (p * tensors::from_vec(factors, (self.heads, count, count))?.to_dtype(x.dtype())?)?;
            }
            all.push(p.matmul(&part(2)?)?.transpose(0, 1)?.reshape((count, width))?);
        }
        Ok(Tensor::cat(&all, 0)?.reshape((n, h, w, width))?)
    }
}

/// The attention of one pass.
struct Described {
    attention: Attention,
    rows: Rows,
    each: usize,
    width: usize,
    dropout: Option<kernels::Dropout>,
}

impl Described {
    /// As kernels take it.
    fn kernel(&self) -> kernels::Attention<'_> {
        let Attention { heads, causal, .. } = self.attention;
        let (scale, rows) = (self.attention.scale(self.width), self.rows.identity());
        kernels::Attention { rows, each: self.each, heads, width: self.width, scale, causal, dropout: self.dropout }
    }
}

/// −∞ where a key is later than the query, (count, count).
fn later(count: usize, like: &Tensor) -> Result<Tensor> {
    let values = (0..count * count).map(|at| if at % count > at / count { f64::NEG_INFINITY } else { 0.0 }).collect();
    Ok(tensors::from_vec::<f64>(values, (count, count))?.to_dtype(like.dtype())?)
}
