//! What feature maps are kept and multiplied in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What feature maps are kept and multiplied in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
