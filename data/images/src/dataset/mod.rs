//! Images from a path: what lies there is found by looking.
//!
//! | format | what it is | file |
//! |---|---|---|
//! | `cifar` | the binary version of CIFAR-10 or CIFAR-100 | `cifar.rs` |
//! | `folder` | `train/` and `test/` (or `val/`, `validation/`) of class folders, or class folders alone | `folder.rs` |
//! | `flat` | images without labels, in a folder and below it | `folder.rs` |
//! | `idx` | MNIST, Fashion-MNIST and their kin, `.gz` or not | `idx.rs` |
//! | `tar` | `.tar` files by WebDataset's names (`key.jpg`, `key.cls`) | `tar.rs` |
//! | `stl` | STL-10's binary folder | `stl.rs` |

mod cache;
mod cifar;
mod folder;
mod idx;
mod images;
mod stl;
mod tar;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::data::dataset::Dataset;
use ctk_core::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cache::Cache;
pub use images::Images;
pub(crate) use images::{Item, Stored};
use images::{Layout, Span, relative};

/// Kinds of image data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The binary version of CIFAR-10 or CIFAR-100.
    Cifar,
    /// Class folders, below `train/` and `test|val|validation/` or alone.
    Folder,
    /// Images without labels.
    Flat,
    /// MNIST's format.
    Idx,
    /// `.tar` files by WebDataset's names.
    Tar,
    /// STL-10's binary folder.
    Stl,
}

/// What was found at a path.
#[derive(Clone)]
pub struct Splits {
    /// What may be trained on; labelled where the data is.
    pub train: Images,
    /// What must not be trained on.
    pub test: Option<Images>,
    /// Further images to pretrain on, without labels (STL-10's 100,000).
    pub unlabelled: Option<Images>,
}

impl Splits {
    /// Everything that pretraining may see: the training part and the unlabelled one, never the test part.
    pub fn pretraining(&self) -> Images {
        self.unlabelled.as_ref().map_or_else(|| self.train.clone(), |more| self.train.and(more))
    }

    /// Everything there is: train, test, unlabelled.
    pub fn all(&self) -> Images {
        [&self.test, &self.unlabelled].into_iter().flatten().fold(self.train.clone(), |all, more| all.and(more))
    }

    /// The same with one room for what is decoded of any of them.
    pub fn cached(self, cache: Cache) -> Splits {
        let cache = Arc::new(cache);
        let share = |images: Images| images.cached(&cache);
        Splits { train: share(self.train), test: self.test.map(share), unlabelled: self.unlabelled.map(share) }
    }

    /// Whether the training part has labels.
    pub fn labelled(&self) -> bool {
        !self.train.classes().is_empty()
    }
}

/// Opens what lies at `path`; `format` forces what is otherwise found by looking.
///
/// # Errors
/// A missing path, an empty folder, a format that does not fit, labels of one class alone: each names the place and says
/// what to do.
pub fn open(path: &Path, format: Option<Format>) -> Result<Splits> {
    let path = &*ctk_hub::local(path)?;
    if !path.exists() {
        return Err(Error::usage("there is no such file or folder")
            .at(path.display())
            .hint("check the path of [data] or --data"));
    }
    let splits = match format {
        Some(format) => read(path, format)?,
        None => look(path)?,
    };
    check(path, &splits)?;
    Ok(splits)
}

fn read(path: &Path, format: Format) -> Result<Splits> {
    match format {
        Format::Cifar => cifar::open(path),
        Format::Folder => folder::open(path),
        Format::Flat => folder::open_flat(path),
        Format::Idx => idx::open(path),
        Format::Tar => tar::open(path),
        Format::Stl => stl::open(path),
    }
}

fn look(path: &Path) -> Result<Splits> {
    if path.is_file() {
        let name = file_name(path).to_lowercase();
        return match () {
            () if name.ends_with(".tar") => tar::open(path),
            () if name.ends_with(".tar.gz") || name.ends_with(".tgz") || name.ends_with(".zip") => {
                Err(Error::usage("this is a compressed archive")
                    .at(path.display())
                    .hint("unpack it; a plain .tar can stay packed"))
            }
            () => Err(Error::usage("this is a file, and data is a folder or a .tar")
                .at(path.display())
                .hint("give the folder that holds the data")),
        };
    }
    let mut folder = path.to_path_buf();
    loop {
        let entries = entries(&folder)?;
        let has = |test: &dyn Fn(&str) -> bool| entries.files.iter().any(|f| test(&file_name(f)));
        if has(&cifar::is_batch) {
            return cifar::open(&folder);
        }
        if has(&stl::is_part) {
            return stl::open(&folder);
        }
        if has(&idx::is_images) {
            return idx::open(&folder);
        }
        if has(&|name| name.ends_with(".tar")) {
            return tar::open(&folder);
        }
        if cifar::is_pickled(&entries.files) {
            return Err(Error::usage("these are CIFAR's Python pickles, which run code when they are read")
                .at(folder.display())
                .hint(
                    "get the binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz), or one folder of images a class",
                ));
        }
        // An archive often unpacks to one folder around the data: a lone folder that holds no image itself is stepped into.
        match entries.folders.as_slice() {
            [only]
                if entries.files.iter().all(|f| !folder::is_image(f))
                    && !folder::holds_images(only)?
                    && !folder::is_split(only) =>
            {
                folder = only.clone();
            }
            [] => return folder::open_flat(&folder),
            _ => return folder::open(&folder),
        }
    }
}

/// What every reader's result must hold, whatever it read.
fn check(path: &Path, splits: &Splits) -> Result<()> {
    if splits.pretraining().is_empty() {
        return Err(Error::usage("there is no image to train on").at(path.display()).hint(folder::NO_IMAGE));
    }
    // Batches count samples in u32.
    if splits.all().len() > u32::MAX as usize {
        return Err(Error::usage("more than 4 billion images").at(path.display()));
    }
    Ok(())
}

/// Whether labels, where there are any, tell classes apart.
///
/// # Errors
/// One class alone.
pub fn check_classes(splits: &Splits) -> Result<()> {
    match splits.train.classes() {
        [only] => Err(Error::usage(format!("labels need two classes or more, and there is only `{only}`"))
            .hint("give one folder a class; to train without labels, set data.format = \"flat\"")),
        _ => Ok(()),
    }
}

/// A folder's visible entries, sorted by name.
struct Entries {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

fn entries(folder: &Path) -> Result<Entries> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).at(folder.display())? {
        all.push(entry.at(folder.display())?.path());
    }
    // Hidden files are other programs' marks (.DS_Store, .done), never data.
    all.retain(|path| !file_name(path).starts_with('.'));
    all.sort();
    let (folders, files) = all.into_iter().partition(|path| path.is_dir());
    Ok(Entries { files, folders })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
