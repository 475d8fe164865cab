//! The tower of supervised tasks, with one view of each sample; a teacher's logits or embeddings may be the second view.
//!
//! | task | left | right | head |
//! |---|---|---|---|
//! | fine-tuning | a view | nothing | the projection head's first layers, then a classifier |
//! | distillation | a view | the teacher's logits of it | the same |
//! | distillation of embeddings | a view | the teacher's embeddings of it | the projection head |

use candle_core::{Device, Tensor};

use super::embeddings::{Embedded, Embeddings, ViewSet};
use super::encoder::Encoder;
use super::tower::{EmbeddingsTape, Places, Tower, Towers, chosen, collected};
use crate::data::pair::{Batch, HostBatch};
use crate::error::{Error, Result};
use crate::nn::pass::Pass;

/// Rows of logits, or of a teacher's embeddings, on the host; no rows without a teacher.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// Row-major values, a whole number of rows.
    pub rows: Vec<f32>,
    /// Number of classes, or values of an embedding; 0 if there are no rows.
    pub classes: usize,
}

impl HostBatch for Logits {
    /// `(n, classes)`, f32; none without a teacher.
    type Stacked = Option<Tensor>;

    fn stack(parts: &[&Self]) -> Result<Option<Tensor>> {
        let rows = parts.iter().map(|part| part.rows.as_slice()).collect::<Vec<_>>().concat();
        let classes = parts.iter().map(|part| part.classes).max().unwrap_or(0);
        if rows.is_empty() {
            return Ok(None);
        }
        if parts.iter().any(|part| part.classes != classes) || !rows.len().is_multiple_of(classes) {
            return Err(Error::new("logits of different numbers of classes cannot be one batch"));
        }
        Ok(Some(Tensor::from_vec(rows.clone(), (rows.len() / classes, classes), &Device::Cpu)?))
    }
}

/// A tower for the left side's views. The right side, if there is one, holds the teacher's logits or embeddings of the same views.
pub struct Supervised<E> {
    /// Encoder and head; for logits the head ends in a classifier.
    pub tower: Tower<E>,
}

impl<E: Encoder> Towers for Supervised<E> {
    type Left = E::Views;
    type Right = Logits;

    fn project(
        &self,
        batch: &Batch<E::Views, Logits>,
        views: ViewSet,
        at: &Places,
        pass: &Pass,
    ) -> Result<(Embeddings, EmbeddingsTape)> {
        let lefts = batch.left.len();
        let logits = batch.right.iter().map(|logits| Ok(Logits::stack(&[logits])?.map(Embedded::from)));
        let logits = logits.collect::<Result<Vec<_>>>()?;
        let passes = self.tower.views(&chosen(&batch.left, 0, views), at, pass)?;
        let (embeddings, tape) = collected(lefts, lefts, vec![passes]);
        Ok((embeddings.followed_by(logits), tape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_stacked_and_absence_is_no_error() {
        let of = |rows: &[f32], classes| Logits { rows: rows.to_vec(), classes };
        let on = Logits::stack(&[&of(&[1.0, 2.0], 2), &of(&[3.0, 4.0, 5.0, 6.0], 2)]).unwrap().unwrap();
        assert_eq!(on.to_vec2::<f32>().unwrap(), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
        assert!(Logits::stack(&[&Logits::default()]).unwrap().is_none());
        assert!(Logits::stack(&[&of(&[1.0, 2.0], 2), &of(&[1.0], 1)]).is_err());
    }
}
