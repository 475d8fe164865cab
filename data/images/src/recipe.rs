//! `[data]` of a recipe: which images, and how they are opened.

use std::path::PathBuf;

use ctk_core::Result;
use ctk_core::recipe::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{self, Cache, Format, Splits};
use crate::{generated, holdout};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// A folder or a .tar; its kind is found by looking. Absent: the generated dataset.
    pub path: Option<PathBuf>,
    /// Forces the kind.
    pub format: Option<Format>,
    /// Memory for decoded images: `auto` (half of what is free), `off`, or an amount such as `2GB`. Does not change what is
    /// learned; images beyond it are decoded in every epoch.
    pub cache: String,
    /// Share of each class that is held out where labelled data has no test part.
    pub holdout: f64,
    /// Training images of the generated dataset.
    pub train: usize,
    /// Test images of the generated dataset.
    pub test: usize,
}

impl Default for DataRecipe {
    fn default() -> Self {
        DataRecipe {
            path: None,
            format: None,
            cache: "auto".to_string(),
            holdout: holdout::SHARE,
            train: generated::TRAIN,
            test: generated::TEST,
        }
    }
}

impl DataRecipe {
    /// Checks every figure; errors point at its line in `text`.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        Cache::of(&self.cache).map_err(|e| e.at(text.place_of("data.cache")))?;
        text.require(self.holdout > 0.0 && self.holdout < 1.0, "data.holdout", "must be a share between 0 and 1")?;
        text.require(self.train > 0, "data.train", "must be at least 1")
    }

    /// What lies at the path, or the generated dataset; with room in memory for what is decoded.
    ///
    /// # Errors
    /// Those of [`dataset::open`], and a cache that is neither a word nor an amount.
    pub fn open(&self) -> Result<Splits> {
        let splits = match &self.path {
            Some(path) => dataset::open(path, self.format)?,
            None => generated::open(self.train, self.test),
        };
        Ok(splits.cached(Cache::of(&self.cache)?))
    }
}
