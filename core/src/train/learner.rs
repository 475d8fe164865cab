//! The Learner seam: whoever can take a step and save itself walks through the one `fit`.

use std::sync::Arc;

use crate::data::feed::Feed;
use crate::error::Result;
use crate::objective::Terms;
use crate::store::checkpoint::{Reader, Writer};
use crate::world::Collective;

/// A model in training.
pub trait Learner {
    /// What it consumes.
    type Batch: Send;

    /// Makes it one rank of `world`. A learner that trains alone leaves this out.
    fn join(&mut self, _world: &Arc<dyn Collective>) {}

    /// One optimisation step at learning rate `rate`. Pulls the step's parts in order, and in a second pass again where
    /// [`passes`](Learner::passes) says so.
    ///
    /// # Errors
    /// Whatever drawing or computing met.
    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms>;

    /// Times that it goes through the parts of a step that has several.
    fn passes(&self) -> usize {
        1
    }

    /// Writes everything that the next step depends on.
    fn save(&self, writer: &mut Writer) -> Result<()>;

    /// Restores what [`save`](Learner::save) wrote; after it, the next step is the one that would have come.
    fn load(&mut self, reader: &Reader) -> Result<()>;
}
