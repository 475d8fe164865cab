//! The learner of sentences: an encoder with its head that is trained by backpropagation. Its checkpoints also have the tokenizer and the
//! encoder's description, so they can be used without the files that the run began with.

use std::sync::Arc;

use ctk_core::Result;
use ctk_core::data::feed::Feed;
use ctk_core::data::pair::Batch;
use ctk_core::model::tower::{Siamese, Towers};
use ctk_core::objective::Terms;
use ctk_core::store::checkpoint::{Reader, Writer};
use ctk_core::train::dense::Dense;
use ctk_core::train::learner::Learner;
use ctk_core::world::Collective;

use crate::tokens::TokenEncoder;

/// The tokenizer in a checkpoint.
pub const TOKENIZER: &str = "tokenizer.json";
/// The encoder's description in a checkpoint.
pub const DESCRIPTION: &str = "encoder.json";

/// An encoder in training: by itself, or in other towers.
pub struct Trainee<T = Siamese<TokenEncoder>> {
    /// The network, the loss and the optimizer.
    pub dense: Dense<T>,
    /// The tokenizer's file, the description's, and others.
    pub files: Vec<(&'static str, Vec<u8>)>,
}

impl<T: Towers> Learner for Trainee<T> {
    type Batch = Batch<T::Left, T::Right>;

    fn join(&mut self, world: &Arc<dyn Collective>) {
        self.dense.join(world);
    }

    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms> {
        self.dense.step(feed, rate)
    }

    fn passes(&self) -> usize {
        self.dense.passes()
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.files.iter().try_for_each(|(name, bytes)| writer.bytes(name, bytes))?;
        self.dense.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        self.dense.load(reader)
    }
}
