//! Towers: encoder, projection head and, for asymmetric methods, predictor; one shared by both sides, or one a side.

use candle_core::{Device, Tensor};

use crate::data::pair::{Batch, Views};
use crate::error::Result;
use crate::model::encoder::Encoder;
use crate::model::head::ProjectionHead;
use crate::nn::pass::{Pass, Sides};

/// One side's road from views to the space where the contrast is made.
pub struct Tower<E> {
    /// h = encoder(view).
    pub encoder: E,
    /// z = head(h).
    pub head: ProjectionHead,
    /// q = predictor(z), for BYOL and SimSiam.
    pub predictor: Option<ProjectionHead>,
}

impl<E: Encoder> Tower<E> {
    /// Uploaded views to one side's embeddings.
    pub fn project(&self, x: &<E::Views as Views>::On, pass: &Pass) -> Result<Side> {
        let key = self.head.project(&self.encoder.encode(x, pass)?, pass)?;
        let query = match &self.predictor {
            Some(predictor) => predictor.project(&key, pass)?,
            None => key.clone(),
        };
        Ok(Side { query, key })
    }
}

/// One side's embeddings, `(n, d)`: after and before the predictor, equal where there is none.
#[derive(Clone, Debug)]
pub struct Side {
    /// What is compared.
    pub query: Tensor,
    /// What it is compared with.
    pub key: Tensor,
}

impl Side {
    fn rows(&self, from: usize, count: usize) -> Result<Side> {
        Ok(Side { query: self.query.narrow(0, from, count)?, key: self.key.narrow(0, from, count)? })
    }
}

/// Both sides of a batch through whatever towers a method has.
pub trait Towers {
    /// Host rows of the left side.
    type Left: Views;
    /// Host rows of the right side.
    type Right: Views;

    /// Embeddings of both sides, n rows each. Of a pass for one side alone, that side stands in both places.
    fn project(&self, batch: &Batch<Self::Left, Self::Right>, pass: &Pass) -> Result<(Side, Side)>;
}

/// One tower for both sides, in ONE forward pass of 2N rows, so that batch normalisation sees both views (SimCLR's
/// `model.py`; two passes of N are a different method, and what [`Groups::Each`](crate::nn::pass::Groups::Each) makes of it).
pub struct Siamese<E> {
    /// The shared tower.
    pub tower: Tower<E>,
    /// Where its parameters live.
    pub device: Device,
}

impl<E: Encoder> Towers for Siamese<E> {
    type Left = E::Views;
    type Right = E::Views;

    fn project(&self, batch: &Batch<E::Views, E::Views>, pass: &Pass) -> Result<(Side, Side)> {
        let n = batch.samples.len();
        let views: &[&E::Views] = match pass.sides {
            Sides::Both => &[&batch.left, &batch.right],
            Sides::Left => &[&batch.left],
            Sides::Right => &[&batch.right],
        };
        let side = self.tower.project(&E::Views::upload(views, &self.device)?, pass)?;
        match pass.sides {
            Sides::Both => Ok((side.rows(0, n)?, side.rows(n, n)?)),
            Sides::Left | Sides::Right => Ok((side.clone(), side)),
        }
    }
}

/// A tower a side, for pairs whose sides differ (images and captions; centre and context words).
pub struct Dual<L, R> {
    /// The left side's tower.
    pub left: Tower<L>,
    /// The right side's tower.
    pub right: Tower<R>,
    /// Where their parameters live.
    pub device: Device,
}

impl<L: Encoder, R: Encoder> Towers for Dual<L, R> {
    type Left = L::Views;
    type Right = R::Views;

    fn project(&self, batch: &Batch<L::Views, R::Views>, pass: &Pass) -> Result<(Side, Side)> {
        let left = || self.left.project(&L::Views::upload(&[&batch.left], &self.device)?, &pass.of(Sides::Left));
        let right = || self.right.project(&R::Views::upload(&[&batch.right], &self.device)?, &pass.of(Sides::Right));
        match pass.sides {
            Sides::Both => Ok((left()?, right()?)),
            Sides::Left => left().map(|side| (side.clone(), side)),
            Sides::Right => right().map(|side| (side.clone(), side)),
        }
    }
}
