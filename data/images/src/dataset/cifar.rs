//! CIFAR-10 and CIFAR-100 in their binary version: records of one label byte (CIFAR-100: coarse, then fine) and three
//! row-major planes of 32 × 32. (Krizhevsky 2009; <https://www.cs.toronto.edu/~kriz/cifar.html>)

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::opened;
use ctk_core::{Context, Error, Result};

use super::images::listed;
use super::{Images, Item, Layout, Span, Splits, Stored, entries, file_name};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Whether a file belongs to either dataset.
pub(super) fn is_batch(name: &str) -> bool {
    name == "train.bin" || name == "test_batch.bin" || (name.starts_with("data_batch") && name.ends_with(".bin"))
}

/// Whether a folder holds the Python version instead.
pub(super) fn is_pickled(files: &[PathBuf]) -> bool {
    let has = |wanted: &str| files.iter().any(|f| file_name(f) == wanted);
    has("data_batch_1") || (has("train") && has("test") && has("meta"))
}

pub(super) fn open(folder: &Path) -> Result<Splits> {
    if !folder.is_dir() {
        return Err(nothing(folder));
    }
    let files = entries(folder)?.files;
    let named = |test: &dyn Fn(&str) -> bool| files.iter().filter(|f| test(&file_name(f))).cloned().collect::<Vec<_>>();
    let hundred = named(&|n| n == "train.bin" || n == "test.bin");
    let (train, test, labels, names) = if hundred.is_empty() {
        let train = named(&|n| n.starts_with("data_batch") && n.ends_with(".bin"));
        (train, named(&|n| n == "test_batch.bin"), 1, folder.join("batches.meta.txt"))
    } else {
        (named(&|n| n == "train.bin"), named(&|n| n == "test.bin"), 2, folder.join("fine_label_names.txt"))
    };
    if train.is_empty() {
        return Err(nothing(folder));
    }
    let classes = classes(&names, if labels == 1 { 10 } else { 100 })?;
    let items = |files: Vec<PathBuf>| -> Result<Option<Images>> {
        let mut items = Vec::new();
        for file in files {
            records(&file, labels, classes.len(), &mut items).at(file.display())?;
        }
        Ok((!items.is_empty()).then(|| Images::new(items, classes.clone())))
    };
    let train = items(train)?.ok_or_else(|| nothing(folder))?;
    Ok(Splits { test: items(test)?, ..Splits::of(train) })
}

fn classes(names: &Path, count: usize) -> Result<Vec<String>> {
    if !names.exists() {
        return Ok((0..count).map(|c| c.to_string()).collect());
    }
    let text = opened::text(names).at(names.display())?;
    let found: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    if found.len() != count {
        return Err(Error::new(format!("{} class names, and there are {count} classes", found.len()))
            .at(names.display())
            .hint("the file of the original archive has one name a line"));
    }
    Ok(found)
}

fn records(file: &Path, labels: usize, classes: usize, items: &mut Vec<Item>) -> Result<()> {
    let length = labels + PIXELS;
    let bytes = fs::metadata(file)?.len();
    if bytes == 0 || bytes % length as u64 != 0 {
        return Err(Error::new(format!("{bytes} bytes are not a whole number of {length}-byte records"))
            .hint("the file is cut short, or is not a CIFAR binary: fetch it again"));
    }
    listed(bytes / length as u64)?;
    let shared = Arc::new(file.to_path_buf());
    let mut reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let mut record = vec![0; length];
    for index in 0..bytes / length as u64 {
        reader.read_exact(&mut record)?;
        let label = record[labels - 1];
        if usize::from(label) >= classes {
            return Err(Error::new(format!("label {label}, and there are {classes} classes")).at(format!("record {index}")));
        }
        let span = Span { file: shared.clone(), offset: index * length as u64 + labels as u64, length: PIXELS };
        let name = format!("{}/{index:05}", file_name(file));
        items.push(Item::new(name, Some(u32::from(label)), Stored::Raw(span, Layout::Planes(SIDE, SIDE))));
    }
    Ok(())
}

fn nothing(folder: &Path) -> Error {
    Error::usage("this is not CIFAR's binary version")
        .at(folder.display())
        .hint("it is a folder with data_batch_1.bin … (CIFAR-10) or train.bin (CIFAR-100)")
}
