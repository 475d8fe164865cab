//! Opens datasets of images from a path; the format is recognised by its content.
//!
//! | format | what it is | file |
//! |---|---|---|
//! | `cifar` | the binary version of CIFAR-10 or CIFAR-100 | `cifar.rs` |
//! | `folder` | parts (`train/`, `val/`, `test/` and the like: `parts.rs`) of class folders, or class folders alone | `folder.rs` |
//! | `flat` | images without labels, in a folder and below it | `folder.rs` |
//! | `idx` | MNIST, Fashion-MNIST and their kin, `.gz` or not | `idx.rs` |
//! | `tar` | archives (`archive.rs`) of folders, or by WebDataset's names (`key.jpg`, `key.cls`) | `tar.rs` |
//! | `stl` | STL-10's binary folder | `stl.rs` |
//! | `table` | CSV, TSV or JSON lines with paths and labels | `table.rs` |
//! | `table` | Parquet with paths, or with images as Hugging Face's `datasets` keeps them | `parquet/` |
//!
//! Tables and archives may hold captions of the images (`captions/`), which are read where they are asked for ([`open_captioned`]).
//!
//! What a reader left out, guessed or repaired is recorded in [`Found`].

mod archive;
mod cache;
mod captions;
mod cifar;
mod content;
mod folder;
mod identity;
mod idx;
mod images;
mod many;
mod parquet;
mod parts;
mod report;
mod scan;
mod spool;
mod stl;
mod table;
mod tar;
mod tree;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::opened;
use ctk_core::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::Law;

pub use cache::Cache;
pub use captions::ColumnNames;
use captions::{Reading, beside};
use content::Labels;
pub use images::{Digest, Images};
pub(crate) use images::{Item, Stored};
use images::{Layout, Span};
pub use many::{first_look, first_look_captioned, open_all, open_all_captioned};
pub(crate) use report::some;
pub use report::{Bad, Found, NotRead, Part, Sizes, count, skipped_line, thousands};
pub use scan::OnError;
pub use table::Columns;
use tree::{Leaf, Node};

/// Formats of image data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The binary version of CIFAR-10 or CIFAR-100.
    Cifar,
    /// Class folders, alone or inside folders of parts; images beside them have no class.
    Folder,
    /// Images without labels.
    Flat,
    /// MNIST's format.
    Idx,
    /// Archives (.tar, .tar.gz, .tar.zst, .zip) of folders, or with WebDataset's names.
    Tar,
    /// STL-10's binary folder.
    Stl,
    /// A table of paths and labels (CSV, TSV or JSON lines), or Parquet, also with the images in it, or a folder of such tables.
    Table,
}

/// The images found at a path, divided into parts.
#[derive(Clone)]
pub struct Splits {
    /// The training part; labelled if the data is.
    pub train: Images,
    /// The validation part, measured on during training, if there is a test part as well; never trained on.
    pub val: Option<Images>,
    /// The test part, on which results are evaluated; never trained on. If the data has only a val part, this is it.
    pub test: Option<Images>,
    /// Further images for pretraining, without labels (STL-10's 100,000).
    pub unlabelled: Option<Images>,
    /// Val and test parts without labels, beside labelled training images: used neither for training nor for evaluation.
    pub apart: Vec<Images>,
    /// The reader's report.
    pub found: Arc<Found>,
}

impl Splits {
    /// Splits with all of these images for training.
    pub fn of(train: Images) -> Splits {
        Splits { train, val: None, test: None, unlabelled: None, apart: Vec::new(), found: Arc::default() }
    }

    /// The images for pretraining: the training part and the unlabelled part, never what is held back.
    pub fn pretraining(&self) -> Images {
        self.unlabelled.as_ref().map_or_else(|| self.train.clone(), |more| self.train.and(more))
    }

    /// All images: train, val, test, unlabelled and those set apart.
    pub fn all(&self) -> Images {
        let others = [&self.val, &self.test, &self.unlabelled].into_iter().flatten().chain(&self.apart);
        others.fold(self.train.clone(), |all, more| all.and(more))
    }

    /// The part that is measured on during training: val, or else test.
    pub fn measured(&self) -> Option<&Images> {
        self.val.as_ref().or(self.test.as_ref())
    }

    /// The same with `change` applied to each part.
    fn each(self, change: impl Fn(Images) -> Images) -> Splits {
        Splits {
            train: change(self.train),
            val: self.val.map(&change),
            test: self.test.map(&change),
            unlabelled: self.unlabelled.map(&change),
            apart: self.apart.into_iter().map(&change).collect(),
            found: self.found,
        }
    }

    /// The same with one cache for all parts.
    pub fn cached(self, cache: Cache) -> Splits {
        let cache = Arc::new(cache);
        self.each(|images| images.cached(&cache))
    }

    /// The same decoded by `law`.
    pub fn decoded_by(self, law: Law) -> Splits {
        self.each(|images| images.decoded_by(law))
    }

    /// Whether the training part has labels.
    pub fn labelled(&self) -> bool {
        !self.train.classes().is_empty()
    }
}

/// Opens the data at `path`; `format` overrides the recognised format, `columns` names a table's columns.
///
/// # Errors
/// A missing path, an empty folder, or a format that does not fit; the error names the path and says what to do.
pub fn open(path: &Path, format: Option<Format>, columns: &Columns) -> Result<Splits> {
    whole(path, format, Reading { columns, captions: false })
}

/// The same with the captions of the images ([`Images::captions`]): those of a table's columns, of a table beside the images of a folder
/// (`metadata.csv`, `captions.txt` and the like), or of the files `key.txt` and `key.json` of archives.
///
/// Images without a caption are left out and counted, as far as there are captions at all. A format that has none is read as [`open`] reads
/// it; then [`Images::has_captions`] is false.
///
/// # Errors
/// Those of [`open`]; a table without captions; or no image to train on has a caption.
pub fn open_captioned(path: &Path, format: Option<Format>, columns: &Columns) -> Result<Splits> {
    whole(path, format, Reading { columns, captions: true })
}

fn whole(path: &Path, format: Option<Format>, how: Reading) -> Result<Splits> {
    let splits = one_class(lie(path, format, how)?);
    let splits = if how.captions { splits.captioned(path)? } else { splits };
    Ok(splits.finish())
}

/// Reads the data at `path`, before the checks of [`open`].
fn lie(path: &Path, format: Option<Format>, how: Reading) -> Result<Splits> {
    let path = &*ctk_hub::local(path)?;
    if !path.exists() {
        return Err(Error::usage("there is no such file or folder")
            .at(path.display())
            .hint("check the path of [data] or --data"));
    }
    opened::check(path)?;
    let splits = match format {
        Some(format) => read(path, format, how)?,
        None => look(path, how)?,
    };
    check(path, &splits)?;
    Ok(splits)
}

/// Whether a file's name is that of an image.
pub fn is_image(path: &Path) -> bool {
    tree::is_image(&file_name(path))
}

/// These image files as a dataset without labels, in this order; their names are their paths.
///
/// # Errors
/// A path that is not a file, or whose name is not that of an image.
pub fn files(paths: &[PathBuf]) -> Result<Images> {
    let item = |path: &PathBuf| {
        let file = ctk_hub::local(path)?;
        opened::check(&file)?;
        if !file.is_file() {
            return Err(Error::usage("there is no such file").at(path.display()).hint("check the path of the image"));
        }
        if !is_image(&file) {
            return Err(Error::usage("this file is not an image").at(path.display()).hint(folder::NO_IMAGE));
        }
        Ok(Item::new(path.to_string_lossy(), None, Stored::File(file.into_owned())))
    };
    Ok(Images::new(paths.iter().map(item).collect::<Result<_>>()?, Vec::new()))
}

fn read(path: &Path, format: Format, how: Reading) -> Result<Splits> {
    match format {
        Format::Cifar => cifar::open(path),
        Format::Folder => open_folder(path, how, |root, found| folder::open(root, Labels::Forced, found)),
        Format::Flat => {
            let mut found = Found::default();
            let root = tree::walk(path, &mut found)?;
            beside::open(path, root, found, how, |root, found| Ok(folder::open_flat(root, found)))
        }
        Format::Idx => idx::open(path),
        Format::Tar => tar::open(path, &archives(path)?, Labels::Found, how, Found::default()),
        Format::Stl => stl::open(path),
        Format::Table if path.is_dir() => match &parquet::below(path)?[..] {
            [] => Err(Error::usage("there is no Parquet table in this folder").at(path.display()).hint("give the table itself")),
            tables => parquet::open(path, tables, how, Found::default()),
        },
        Format::Table if parquet::is_parquet(&file_name(path)) => parquet::open(path, &[path.into()], how, Found::default()),
        Format::Table => table::open(path, how),
    }
}

/// The archive at `path`, or the archives in this folder.
fn archives(path: &Path) -> Result<Vec<PathBuf>> {
    match path.is_file() {
        true => Ok(vec![path.to_path_buf()]),
        false => Ok(entries(path)?.files.into_iter().filter(|file| archive::is_archive(&file_name(file))).collect()),
    }
}

fn look(path: &Path, how: Reading) -> Result<Splits> {
    if path.is_file() {
        return look_at_file(path, how);
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
        if cifar::is_pickled(&entries.files) {
            return Err(Error::usage("these are CIFAR's Python pickles, which run code when they are read")
                .at(folder.display())
                .hint(
                    "get the binary version (cifar-10-binary.tar.gz, cifar-100-binary.tar.gz), or one folder of images a class",
                ));
        }
        // Archives often unpack to one folder around the data: a single folder is entered.
        match entries.folders.as_slice() {
            [only] if entries.files.iter().all(|f| !tree::is_image(&file_name(f))) => folder = only.clone(),
            _ => break,
        }
    }
    let mut found = Found::default();
    let root = tree::walk(path, &mut found)?;
    let archives = archives(&folder)?;
    // Images beside archives or tables (a preview) are not the data; nor is an archive beside images.
    let any = found.not_read.keys().any(|kind| parquet::is_kind(kind));
    let tables = if any { parquet::below(path)? } else { Vec::new() };
    let captioned = how.captions && tables.iter().any(|table| beside::is_beside(&file_name(table)));
    let few = root.filled().next().is_none() && root.count <= archives.len() + tables.len() && !captioned;
    if root.count > 0 && !few {
        let lying: Vec<&String> =
            found.not_read.values().flat_map(|group| &group.first).filter(|n| archive::is_archive(n)).collect();
        if let Some(first) = lying.first() {
            let note = format!("archives beside the images are not read (`{first}`): to read one, give it as the data itself");
            found.note(note);
        }
        return beside::open(path, root, found, how, |root, found| folder::open(root, Labels::Found, found)).at(path.display());
    }
    if archives.is_empty() && tables.is_empty() {
        return Err(no_image(path, &found));
    }
    if archives.is_empty() {
        found.not_read.retain(|kind, _| !parquet::is_kind(kind));
        found.files = root.count + found.unread();
        root.pass_over("image beside tables", &mut found);
        return parquet::open(path, &tables, how, found);
    }
    let mut beside = Found { files: root.count + tables.len(), ..Found::default() };
    root.pass_over("image beside archives", &mut beside);
    tables.iter().for_each(|table| beside.pass_over("table beside archives", &file_name(table)));
    tar::open(&folder, &archives, Labels::Found, how, beside)
}

fn look_at_file(path: &Path, how: Reading) -> Result<Splits> {
    let name = file_name(path);
    if archive::is_archive(&name) {
        return tar::open(path, &archives(path)?, Labels::Found, how, Found::default());
    }
    if idx::is_images(&name) {
        return idx::open(path);
    }
    if table::is_table(&name) || parquet::is_parquet(&name) || (how.captions && table::is_captions(&name)) {
        return read(path, Format::Table, how);
    }
    if tree::is_image(&name) || tree::looks_like_one(path) {
        let leaf = Leaf::new(name, Stored::File(path.to_path_buf()));
        return Ok(folder::open_flat(Node::of(vec![leaf]), Found { files: 1, ..Found::default() }));
    }
    Err(Error::usage("this file is not an image, an archive or a table").at(path.display()).hint(
        "data is a folder, an archive (.tar, .tar.gz, .tar.zst, .zip), a table (.csv, .tsv, .jsonl, .parquet), or one image",
    ))
}

fn open_folder(path: &Path, how: Reading, open: impl FnOnce(Node, Found) -> Result<Splits>) -> Result<Splits> {
    let mut found = Found::default();
    let root = tree::walk(path, &mut found)?;
    if root.count == 0 {
        return Err(no_image(path, &found));
    }
    beside::open(path, root, found, how, open).at(path.display())
}

fn no_image(path: &Path, found: &Found) -> Error {
    let there = found.unread_line().map_or(String::new(), |line| format!(": {line}"));
    Error::usage(format!("there is no image to train on{there}")).at(path.display()).hint(folder::NO_IMAGE)
}

/// Checks what must be true of every reader's result.
fn check(path: &Path, splits: &Splits) -> Result<()> {
    let (train, all) = (splits.pretraining().len(), splits.images());
    if train == 0 {
        return Err(no_image(path, &splits.found));
    }
    // Batches count samples in u32.
    if all > u32::MAX as usize {
        return Err(Error::usage("more than 4 billion images").at(path.display()));
    }
    Ok(())
}

/// Removes the labels if there is only one class, because one class distinguishes nothing.
fn one_class(splits: Splits) -> Splits {
    let [only] = splits.train.classes() else { return splits };
    let mut found = (*splits.found).clone();
    found.note(format!("there is only one class, `{only}`, and labels need two: the images go without labels"));
    Splits { found: found.into(), ..splits.each(|images| images.without_labels()) }
}

/// A folder's visible entries, sorted by name.
struct Entries {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

fn entries(folder: &Path) -> Result<Entries> {
    // Pipes and devices are counted when images are listed.
    let mut all: Vec<PathBuf> =
        visible(folder)?.into_iter().map(|name| folder.join(name)).filter(|path| opened::odd(path).is_none()).collect();
    all.sort();
    let (folders, files) = all.into_iter().partition(|path| path.is_dir());
    Ok(Entries { files, folders })
}

/// The visible names in a folder: hidden files belong to other programs (.DS_Store, .done) and are never data.
fn visible(folder: &Path) -> Result<Vec<OsString>> {
    let names = fs::read_dir(folder).and_then(|all| all.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>());
    Ok(names.at(folder.display())?.into_iter().filter(|name| !name.to_string_lossy().starts_with('.')).collect())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
