//! What a forward pass needs to know besides its input.

use crate::rng::Key;
use crate::world::Collective;

/// What batch normalisation does with its running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Normalise by the batch, move the running statistics.
    Update,
    /// Normalise by the batch, leave the running statistics alone (the second pass of two).
    Hold,
    /// Normalise by the running statistics.
    Frozen,
}

/// One forward pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Whether a backward pass may follow: without it nothing is kept.
    pub train: bool,
    /// What normalisation does.
    pub statistics: Statistics,
    /// The step's key, for dropout and the like: draw by (key, global row, layer name), never by call count.
    pub key: Key,
    /// The other ranks.
    pub world: &'a dyn Collective,
}

impl Pass<'static> {
    /// The pass of evaluation: running statistics, nothing kept.
    pub fn eval() -> Self {
        Pass { train: false, statistics: Statistics::Frozen, key: Key::new(0), world: &crate::world::Solo }
    }
}

impl<'a> Pass<'a> {
    /// The pass of a training step.
    pub fn train(key: Key, world: &'a dyn Collective) -> Self {
        Pass { train: true, statistics: Statistics::Update, key, world }
    }

    /// The same pass with other statistics.
    pub fn with(self, statistics: Statistics) -> Self {
        Pass { statistics, ..self }
    }
}
