//! `[data]` of a recipe: which images, and how they are opened and decoded.

use std::path::{Path, PathBuf};

use ctk_core::recipe::Recipe;
use ctk_core::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{self, Cache, Columns, Format, OnError, Splits};
use crate::decode::{Background, Law, Range};
use crate::{generated, holdout};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// A folder, an archive (.tar, .tar.gz, .tar.zst, .zip), a table (.csv, .tsv, .jsonl, .parquet), an image, or a glob; one or a list.
    /// The kind is recognised by the content. Default: the generated dataset.
    pub path: Option<Paths>,
    /// Overrides the recognised format.
    pub format: Option<Format>,
    /// Memory for decoded images: `auto` (half of the free memory), `off`, or an amount such as `2GB`. It does not change what is learned;
    /// images that do not fit are decoded in every epoch.
    pub cache: String,
    /// The names of a table's columns.
    pub columns: Columns,
    /// What to do about images that cannot be read: `fail` (list all of them before training) or `skip` (leave them out, count and name
    /// them).
    pub on_error: OnError,
    /// The background of transparent pixels: `white`, `black`, `#rrggbb`, or `drop` (alpha is dropped and the colours stay as they are, as
    /// in PIL and torchvision). New runs use `white`; a stored recipe without this key used `drop`.
    pub background: Option<Background>,
    /// The values of black and white in images of more than 8 bits: `full` (the format's range), `minmax` (each image's lowest and highest
    /// value), or two values on the file's scale, such as `[0, 4095]` for 12 bits.
    pub range: Range,
    /// Fraction of each class that is held out if labelled data has no test part.
    pub holdout: f64,
    /// Training images of the generated dataset.
    pub train: usize,
    /// Test images of the generated dataset.
    pub test: usize,
}

/// The largest number of paths in a list, because each is compared with all others.
const MOST_PATHS: usize = 1000;

/// The largest absolute value of an image.
const FARTHEST: f64 = 1e30;

/// One path or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "data.path must be a path in quotes, or a list of paths")]
pub enum Paths {
    /// One.
    One(PathBuf),
    /// Several, read as one dataset.
    Many(Vec<PathBuf>),
}

impl Paths {
    /// All paths.
    pub fn list(&self) -> &[PathBuf] {
        match self {
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    /// How messages name the paths.
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
    /// Checks every value; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        Cache::of(&self.cache).map_err(|e| e.at(text.place_of("data.cache")))?;
        text.require(self.path.as_ref().is_none_or(|p| !p.list().is_empty()), "data.path", "names no path")?;
        let paths = self.path.as_ref().map_or(0, |paths| paths.list().len());
        let most = format!("must be up to {MOST_PATHS} paths, and has {paths}: a folder or a glob names any number of files");
        text.require(paths <= MOST_PATHS, "data.path", most)?;
        let named = self.columns.captions.as_ref().is_none_or(|names| !names.list().is_empty());
        text.require(named, "data.columns.captions", "names no column")?;
        if let Range::Values([low, high]) = self.range {
            let sound = -FARTHEST <= low && low < high && high <= FARTHEST;
            text.require(sound, "data.range", "must be two values, the lower first, none farther from 0 than 1e30")?;
        }
        text.require(self.holdout > 0.0 && self.holdout < 1.0, "data.holdout", "must be a share between 0 and 1")?;
        text.within("data.train", self.train, 1..=generated::MOST)?;
        text.within("data.test", self.test, 0..=generated::MOST)
    }

    /// How images are decoded.
    pub fn law(&self) -> Law {
        Law { background: self.background.unwrap_or(Background::Drop), range: self.range }
    }

    /// The same for the data at `path`. The format is kept if that is this recipe's own data.
    pub fn of(&self, path: &Path) -> DataRecipe {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let same = self.path.as_ref().is_some_and(|paths| matches!(paths.list(), [only] if whole(only) == whole(path)));
        DataRecipe { path: Some(Paths::One(path.to_path_buf())), format: self.format.filter(|_| same), ..self.clone() }
    }

    /// The data at the path, or the generated dataset, before images are checked.
    ///
    /// # Errors
    /// Those of [`dataset::open`]; there is no image to train on.
    pub fn found(&self) -> Result<Splits> {
        self.trainable(self.looked_at(dataset::open_all)?)
    }

    /// The same with captions, as [`dataset::open_captioned`] reads them; generated images have none.
    ///
    /// # Errors
    /// Those of [`dataset::open_captioned`]; there is no image to train on.
    pub fn found_captioned(&self) -> Result<Splits> {
        self.trainable(self.looked_at(dataset::open_all_captioned)?)
    }

    fn trainable(&self, splits: Splits) -> Result<Splits> {
        let place = self.path.as_ref().map(|paths| paths.place().display().to_string());
        splits.found.trainable().at(place.unwrap_or_default())?;
        Ok(splits)
    }

    /// The data as `open` reads it, also where all images are in a part that is held back.
    fn looked_at(&self, open: impl Fn(&[PathBuf], Option<Format>, &Columns) -> Result<Splits>) -> Result<Splits> {
        let splits = match &self.path {
            Some(paths) => open(paths.list(), self.format, &self.columns)?,
            None => generated::open(self.train, self.test),
        };
        Ok(splits.decoded_by(self.law()))
    }

    /// The same after a check of every image, with a cache for decoded ones.
    ///
    /// # Errors
    /// Those of [`dataset::open`] and [`Splits::scanned`]; or `cache` is neither a known word nor an amount.
    pub fn open(&self) -> Result<Splits> {
        self.ready(self.found()?)
    }

    /// The same with captions. If the data can have none, [`has_captions`](dataset::Images::has_captions) of its images is false.
    ///
    /// # Errors
    /// Those of [`dataset::open_captioned`] and [`Splits::scanned`]; or `cache` is neither a known word nor an amount.
    pub fn open_captioned(&self) -> Result<Splits> {
        self.ready(self.found_captioned()?)
    }

    /// The same for a network that is trained already: the images may all be in a part that is held back.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_to_use(&self) -> Result<Splits> {
        self.ready(self.looked_at(dataset::open_all)?)
    }

    /// The same with captions.
    ///
    /// # Errors
    /// As for [`open_captioned`](Self::open_captioned).
    pub fn open_captioned_to_use(&self) -> Result<Splits> {
        self.ready(self.looked_at(dataset::open_all_captioned)?)
    }

    fn ready(&self, splits: Splits) -> Result<Splits> {
        let splits = match &self.path {
            Some(paths) => splits.scanned(&paths.place(), self.on_error)?,
            None => splits,
        };
        Ok(splits.cached(Cache::of(&self.cache)?))
    }
}
