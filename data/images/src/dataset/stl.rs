//! STL-10's binary folder: records of three column-major planes of 96 × 96, labels 1 to 10 in files of their own, and
//! 100,000 images without labels. (Coates, Lee, Ng 2011; <https://cs.stanford.edu/~acoates/stl10>)

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ctk_core::opened;
use ctk_core::{Context, Error, Result};

use super::images::listed;
use super::{Images, Item, Layout, Span, Splits, Stored, file_name};

const SIDE: usize = 96;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Whether a file belongs to the dataset.
pub(super) fn is_part(name: &str) -> bool {
    name == "train_X.bin" || name == "unlabeled_X.bin"
}

pub(super) fn open(folder: &Path) -> Result<Splits> {
    if !folder.join("train_X.bin").is_file() {
        return Err(Error::usage("this is not STL-10's binary folder")
            .at(folder.display())
            .hint("it holds train_X.bin, train_y.bin, test_X.bin, test_y.bin and unlabeled_X.bin"));
    }
    let names = folder.join("class_names.txt");
    let classes: Vec<String> = match names.is_file() {
        true => opened::text(&names).at(names.display())?.split_whitespace().map(String::from).collect(),
        false => (1..=10).map(|c| c.to_string()).collect(),
    };
    let part = |pictures: &str, labels: Option<&str>| -> Result<Option<Images>> {
        let pictures = folder.join(pictures);
        if !pictures.is_file() {
            return Ok(None);
        }
        let labels = match labels {
            Some(file) => Some(read_labels(&folder.join(file), classes.len())?),
            None => None,
        };
        let items = records(&pictures, labels.as_deref())?;
        Ok(Some(Images::new(items, if labels.is_some() { classes.clone() } else { Vec::new() })))
    };
    let train = part("train_X.bin", Some("train_y.bin"))?.expect("it was looked for above");
    let test = part("test_X.bin", Some("test_y.bin"))?;
    Ok(Splits { test, unlabelled: part("unlabeled_X.bin", None)?, ..Splits::of(train) })
}

fn read_labels(file: &Path, classes: usize) -> Result<Vec<u32>> {
    let bytes = opened::read(file).at(file.display())?;
    if let Some(at) = bytes.iter().position(|&l| l == 0 || usize::from(l) > classes) {
        let what = format!("label {}, and labels are 1 to {classes}", bytes[at]);
        return Err(Error::new(what).at(format!("record {at}")).at(file.display()));
    }
    Ok(bytes.into_iter().map(|l| u32::from(l) - 1).collect())
}

fn records(file: &Path, labels: Option<&[u32]>) -> Result<Vec<Item>> {
    let bytes = fs::metadata(file).at(file.display())?.len();
    let count = bytes / PIXELS as u64;
    if bytes == 0 || bytes % PIXELS as u64 != 0 || labels.is_some_and(|l| l.len() as u64 != count) {
        let expected = labels.map_or(String::new(), |l| format!(", and there are {} labels", l.len()));
        return Err(Error::new(format!("{bytes} bytes are {count} images of {PIXELS} bytes and a rest{expected}"))
            .at(file.display())
            .hint("the file is cut short: fetch it again"));
    }
    listed(count).at(file.display())?;
    let shared = Arc::new(file.to_path_buf());
    let item = |index: u64| {
        let span = Span { file: shared.clone(), offset: index * PIXELS as u64, length: PIXELS };
        let name = format!("{}/{index:06}", file_name(file));
        Item::new(name, labels.map(|l| l[index as usize]), Stored::Raw(span, Layout::Columns(SIDE, SIDE)))
    };
    Ok((0..count).map(item).collect())
}
