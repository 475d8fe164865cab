//! `[head]` and `[predictor]`: the layers between a representation and what a loss compares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;

/// Values of a layer, at most: eight times as many as the widest in the papers.
const WIDEST: usize = 65_536;

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
        recipe.within("head.layers", self.layers, 0..=3)?;
        recipe.within("head.width", self.width, 1..=WIDEST)?;
        recipe.within("head.hidden", self.hidden.unwrap_or(1), 1..=WIDEST)
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
        recipe.within("predictor.layers", self.layers, 1..=3)?;
        recipe.within("predictor.hidden", self.hidden, 1..=WIDEST)
    }

    /// As a head over embeddings of `width` values.
    pub fn head(&self, width: usize) -> HeadRecipe {
        HeadRecipe { layers: self.layers, width, hidden: Some(self.hidden), norms: Norms::Hidden }
    }
}
