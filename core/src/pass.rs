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

/// What feature maps are kept and multiplied in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All in f32.
    #[default]
    F32,
    /// Feature maps and the factors of products in bf16; parameters, sums, statistics and losses in f32. On the CPU alone.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// One forward pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Whether a backward pass may follow: without it nothing is kept.
    pub train: bool,
    /// What normalisation does.
    pub statistics: Statistics,
    /// What maps are kept and multiplied in.
    pub precision: Precision,
    /// The step's key, for dropout and the like: draw by (key, global row, layer name), never by call count.
    pub key: Key,
    /// The other ranks.
    pub world: &'a dyn Collective,
}

impl Pass<'static> {
    /// The pass of evaluation: running statistics, nothing kept.
    pub fn eval() -> Self {
        let (precision, key) = (Precision::F32, Key::new(0));
        Pass { train: false, statistics: Statistics::Frozen, precision, key, world: &crate::world::Solo }
    }
}

impl<'a> Pass<'a> {
    /// The pass of a training step.
    pub fn train(key: Key, world: &'a dyn Collective) -> Self {
        Pass { train: true, statistics: Statistics::Update, precision: Precision::F32, key, world }
    }

    /// The same pass in another precision.
    pub fn at(self, precision: Precision) -> Self {
        Pass { precision, ..self }
    }

    /// The same pass with other statistics.
    pub fn with(self, statistics: Statistics) -> Self {
        Pass { statistics, ..self }
    }
}
