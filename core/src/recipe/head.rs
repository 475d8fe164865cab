//! `[head]` and `[predictor]`: the layers between a representation and the embedding that a loss compares.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Recipe;
use crate::error::Result;

/// The largest width of a layer: eight times the widest in the papers.
const WIDEST: usize = 65_536;

/// `[head]`: the projection head g.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadRecipe {
    /// Layers, 0 (no head) to 3 (SimCLRv2). SimCLR v1 has 2.
    pub layers: usize,
    /// Width of the output, the embedding.
    pub width: usize,
    /// Width of the hidden layers; default: as wide as the representation, as in SimCLR.
    pub hidden: Option<usize>,
    /// Which layers have batch normalisation.
    pub norms: Norms,
    /// Whether layers without batch normalisation have a bias. CLIP's projections have none.
    pub bias: bool,
}

/// Which layers of a head have batch normalisation. Layers without it have a bias, unless `bias` is false.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Norms {
    /// All layers, the last one without a shift: SimCLR, SimSiam.
    All,
    /// All layers but the last: BYOL, Barlow Twins, VICReg, and every predictor.
    Hidden,
    /// No layers: MoCo v2.
    None,
}

impl Default for HeadRecipe {
    fn default() -> Self {
        HeadRecipe { layers: 3, width: 128, hidden: None, norms: Norms::All, bias: true }
    }
}

impl HeadRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.within("head.layers", self.layers, 0..=3)?;
        recipe.within("head.width", self.width, 1..=WIDEST)?;
        recipe.within("head.hidden", self.hidden.unwrap_or(1), 1..=WIDEST)
    }
}

/// `[predictor]`: the layers that BYOL and SimSiam put after the projection head of the online network. Its output is as wide as the
/// head's; hidden layers have batch normalisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PredictorRecipe {
    /// Layers; 2 in both papers.
    pub layers: usize,
    /// Width of the hidden layers; 512 in SimSiam, 4096 in BYOL.
    pub hidden: usize,
}

impl Default for PredictorRecipe {
    fn default() -> Self {
        PredictorRecipe { layers: 2, hidden: 512 }
    }
}

impl PredictorRecipe {
    /// Checks every value; errors point at its line in `recipe`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, recipe: &Recipe) -> Result<()> {
        recipe.within("predictor.layers", self.layers, 1..=3)?;
        recipe.within("predictor.hidden", self.hidden, 1..=WIDEST)
    }

    /// The predictor as a head over embeddings of `width` values.
    pub fn head(&self, width: usize) -> HeadRecipe {
        HeadRecipe { layers: self.layers, width, hidden: Some(self.hidden), norms: Norms::Hidden, bias: true }
    }
}
