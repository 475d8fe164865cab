//! `[data]` of a recipe: which images, and how they are opened.

use std::path::PathBuf;

use ctk_core::Result;
use ctk_core::recipe::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{self, Cache, Columns, Format, OnError, Splits};
use crate::decode::{Background, Law, Range};
use crate::{generated, holdout};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// A folder, an archive (.tar, .tar.gz, .tar.zst, .zip), a table (.csv, .tsv, .jsonl, .parquet), an image, or a glob; one or a list;
    /// kinds are found by looking. Absent: the generated dataset.
    pub path: Option<Paths>,
    /// Forces the kind.
    pub format: Option<Format>,
    /// Memory for decoded images: `auto` (half of what is free), `off`, or an amount such as `2GB`. Does not change what is
    /// learned; images beyond it are decoded in every epoch.
    pub cache: String,
    /// What the columns of a table are called.
    pub columns: Columns,
    /// What is done about an image that cannot be read: `fail` (all of them are listed before training) or `skip` (they are left
    /// out, counted and named).
    pub on_error: OnError,
    /// What lies behind transparent pixels: `white`, `black`, `#rrggbb`, or `drop` (alpha is dropped, and the colours below it stay as
    /// they are, as in PIL and torchvision). A new run states `white`; absent from a stored one it is `drop`.
    pub background: Option<Background>,
    /// What is black and white in pictures of more than 8 bits: `full` (all that the file could hold), `minmax` (each picture's lowest and
    /// highest value), or two values as they are in the file, as `[0, 4095]` for 12 bits.
    pub range: Range,
    /// Share of each class that is held out where labelled data has no test part.
    pub holdout: f64,
    /// Training images of the generated dataset.
    pub train: usize,
    /// Test images of the generated dataset.
    pub test: usize,
}

/// Paths of a list, at most: each is compared with all others.
const MOST_PATHS: usize = 1000;

/// No value of a picture lies farther from 0.
const FARTHEST: f64 = 1e30;

/// One path or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "data.path must be a path in quotes, or a list of paths")]
pub enum Paths {
    /// One.
    One(PathBuf),
    /// Several, read as one collection.
    Many(Vec<PathBuf>),
}

impl Paths {
    /// All of them.
    pub fn list(&self) -> &[PathBuf] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    /// How messages name them.
    pub fn place(&self) -> PathBuf {
        match self.list() {
            [only] => only.clone(),
            several => several.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ").into(),
        }
    }
}

impl Default for DataRecipe {
    fn default() -> Self {
        DataRecipe {
            path: None,
            format: None,
            cache: "auto".to_string(),
            columns: Columns::default(),
            on_error: OnError::Fail,
            background: None,
            range: Range::Full,
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
        text.require(self.path.as_ref().is_none_or(|p| !p.list().is_empty()), "data.path", "names no path")?;
        let paths = self.path.as_ref().map_or(0, |paths| paths.list().len());
        let most = format!("must be up to {MOST_PATHS} paths, and has {paths}: a folder or a glob names any number of files");
        text.require(paths <= MOST_PATHS, "data.path", most)?;
        if let Range::Values([low, high]) = self.range {
            let sound = -FARTHEST <= low && low < high && high <= FARTHEST;
            text.require(sound, "data.range", "must be two values, the lower first, none farther from 0 than 1e30")?;
        }
        text.require(self.holdout > 0.0 && self.holdout < 1.0, "data.holdout", "must be a share between 0 and 1")?;
        text.within("data.train", self.train, 1..=generated::MOST)?;
        text.within("data.test", self.test, 0..=generated::MOST)
    }

    /// How pictures are decoded.
    pub fn law(&self) -> Law {
        Law { background: self.background.unwrap_or(Background::Drop), range: self.range }
    }

    /// What lies at the path, or the generated dataset, as it is found.
    ///
    /// # Errors
    /// Those of [`dataset::open`].
    pub fn found(&self) -> Result<Splits> {
        let splits = match &self.path {
            Some(paths) => dataset::open_all(paths.list(), self.format, &self.columns)?,
            None => generated::open(self.train, self.test),
        };
        Ok(splits.decoded_by(self.law()))
    }

    /// The same after a look at every image; with room in memory for what is decoded.
    ///
    /// # Errors
    /// Those of [`dataset::open`] and [`Splits::scanned`], and a cache that is neither a word nor an amount.
    pub fn open(&self) -> Result<Splits> {
        let splits = match &self.path {
            Some(paths) => self.found()?.scanned(&paths.place(), self.on_error)?,
            None => self.found()?,
        };
        Ok(splits.cached(Cache::of(&self.cache)?))
    }
}
