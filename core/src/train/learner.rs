//! The interface of a model in training; the training loop `fit` trains anything that implements it.

use std::sync::Arc;

use crate::data::feed::Feed;
use crate::error::Result;
use crate::objective::Terms;
use crate::store::checkpoint::{Reader, Writer};
use crate::world::Collective;

/// A model in training.
pub trait Learner {
    /// The batch that it trains on.
    type Batch: Send;

    /// Makes it one rank of `world`. A learner that trains on a single rank need not implement this.
    fn join(&mut self, _world: &Arc<dyn Collective>) {}

    /// One optimisation step at learning rate `rate`. Draws the step's parts in order, and again in a second pass if
    /// [`passes`](Learner::passes) is 2.
    ///
    /// # Errors
    /// A part cannot be drawn, or a computation failed.
    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms>;

    /// How often it goes through the parts of a step that has several.
    fn passes(&self) -> usize {
        1
    }

    /// Writes everything that the next step depends on.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, writer: &mut Writer) -> Result<()>;

    /// Restores what [`save`](Learner::save) wrote; the next step is then the one that would have followed.
    ///
    /// # Errors
    /// A file is missing, damaged, or of another network.
    fn load(&mut self, reader: &Reader) -> Result<()>;
}
