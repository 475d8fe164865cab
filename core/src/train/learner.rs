//! The Learner seam: whoever can take a step and save itself walks through the one `fit`.

use crate::data::feed::Feed;
use crate::error::Result;
use crate::objective::Terms;
use crate::store::checkpoint::{Reader, Writer};

/// A model in training.
pub trait Learner {
    /// What it consumes.
    type Batch: Send;

    /// One optimisation step at learning rate `rate`. Pulls the step's parts; may pull one twice.
    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms>;

    /// Writes everything that the next step depends on.
    fn save(&self, writer: &mut Writer) -> Result<()>;

    /// Restores what [`save`](Learner::save) wrote; after it, the next step is the one that would have come.
    fn load(&mut self, reader: &Reader) -> Result<()>;
}
