//! `[checkpoint]`: which checkpoints are kept beside the newest ones.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[checkpoint]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRecipe {
    /// Whether the best checkpoint is kept beside the newest ones, as `RUN/checkpoints/best`. Whenever one is saved it is measured on the
    /// data's part `val`, or else on a tenth of the training labels, which nothing then learns from; never on test labels.
    pub keep_best: bool,
}
