//! `[head]` and `[predictor]`: the layers between a representation and what a loss compares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;

/// `[head]`: the projection head g.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadRecipe {
    /// Layers, 0 (no head) to 3 (SimCLRv2). SimCLR v1 has 2.
    pub layers: usize,
    /// Output width.
    pub width: usize,
    /// Width of the layers between; absent: as wide as the representation, as SimCLR's are.
    pub hidden: Option<usize>,
    /// Which layers are normalised.
    pub norms: Norms,
}

/// Which layers of a head have batch normalisation. A layer without has a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Norms {
    /// All, the last one's without a shift: SimCLR, SimSiam.
    All,
    /// All but the last: BYOL, Barlow Twins, VICReg, and every predictor.
    Hidden,
    /// None: MoCo v2.
    None,
}

impl Default for HeadRecipe {
    fn default() -> Self {
        HeadRecipe { layers: 3, width: 128, hidden: None, norms: Norms::All }
    }
}

impl HeadRecipe {
    /// Checks every figure; errors point at its line in `recipe`.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.require(self.layers <= 3, "head.layers", "must be 0 to 3")?;
        recipe.require(self.width > 0, "head.width", "must be at least 1")?;
        recipe.require(self.hidden != Some(0), "head.hidden", "must be at least 1")
    }
}

/// `[predictor]`: what BYOL and SimSiam put behind the head on the side that learns. It is as wide as the head at its end, and
/// normalised in between.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictorRecipe {
    /// Layers; 2 in both papers.
    pub layers: usize,
    /// Width of the layers between; 512 in SimSiam, 4096 in BYOL.
    pub hidden: usize,
}

impl Default for PredictorRecipe {
    fn default() -> Self {
        PredictorRecipe { layers: 2, hidden: 512 }
    }
}

impl PredictorRecipe {
    /// Checks every figure; errors point at its line in `recipe`.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.require((1..=3).contains(&self.layers), "predictor.layers", "must be 1 to 3")?;
        recipe.require(self.hidden > 0, "predictor.hidden", "must be at least 1")
    }

    /// As a head over embeddings of `width` values.
    pub fn head(&self, width: usize) -> HeadRecipe {
        HeadRecipe { layers: self.layers, width, hidden: Some(self.hidden), norms: Norms::Hidden }
    }
}
