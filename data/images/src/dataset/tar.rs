//! `.tar` files by WebDataset's names: consecutive entries `key.jpg` (or `.jpeg`, `.png`) and `key.cls` are one sample.
//!
//! Each archive is walked once, by its headers; images are then read by position. A folder of archives is one dataset, and
//! archives whose names begin with `test` or `val` are its test part.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::{Context, Error, Result};

use super::{Images, Item, Span, Splits, Stored, entries, file_name, folder};

pub(super) fn open(path: &Path) -> Result<Splits> {
    let files: Vec<PathBuf> = match path.is_file() {
        true => vec![path.to_path_buf()],
        false => entries(path)?.files.into_iter().filter(|f| file_name(f).ends_with(".tar")).collect(),
    };
    let (test, train): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|f| path.is_dir() && ["test", "val"].iter().any(|split| file_name(f).starts_with(split)));
    let (train, test) = (index(&train)?, index(&test)?);
    if train.is_empty() {
        return Err(Error::usage("no image in these .tar files")
            .at(path.display())
            .hint("entries are named key.jpg or key.png, with key.cls beside"));
    }
    let labelled = train.iter().filter(|item| item.label.is_some()).count();
    if labelled != 0
        && let Some(without) = train.iter().chain(&test).find(|item| item.label.is_none())
    {
        return Err(Error::new("this image has no .cls, and others have").at(&without.name).at(path.display()));
    }
    let classes = train.iter().chain(&test).filter_map(|item| item.label).max().map_or(0, |most| most as usize + 1);
    let names: Vec<String> = (0..if labelled > 0 { classes } else { 0 }).map(|c| c.to_string()).collect();
    let test = (!test.is_empty()).then(|| Images::new(test, names.clone()));
    Ok(Splits { train: Images::new(train, names), test, unlabelled: None })
}

fn index(files: &[PathBuf]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for file in files {
        walk(file, &mut items).at(file.display())?;
    }
    Ok(items)
}

fn walk(file: &Path, items: &mut Vec<Item>) -> Result<()> {
    let shared = Arc::new(file.to_path_buf());
    let length = std::fs::metadata(file)?.len();
    let mut archive = ::tar::Archive::new(BufReader::new(File::open(file)?));
    // What is known of the sample whose entries are passing by.
    let (mut key, mut label, mut image): (String, Option<u32>, Option<Span>) = Default::default();
    let mut finish = |key: &str, label: &mut Option<u32>, image: &mut Option<Span>| {
        let label = label.take();
        if let Some(span) = image.take() {
            items.push(Item::new(format!("{}/{key}", file_name(file)), label, Stored::Inside(span)));
        }
    };
    for entry in archive.entries_with_seek()? {
        let mut entry = entry.hint("the archive is damaged or cut short")?;
        let path = entry.path()?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        // WebDataset's rule: the key ends at the first dot of the base name.
        let (folder, base) = path.rsplit_once('/').map_or(("", path.as_str()), |(folder, base)| (folder, base));
        let Some((stem, extension)) = base.split_once('.').filter(|(stem, _)| !stem.is_empty()) else { continue };
        let this = if folder.is_empty() { stem.to_string() } else { format!("{folder}/{stem}") };
        if this != key {
            finish(&key, &mut label, &mut image);
            key = this;
        }
        if extension == "cls" {
            let mut text = String::new();
            entry.by_ref().take(32).read_to_string(&mut text).at(&path)?;
            let number = text.trim().parse().ok().filter(|&class: &u32| class < 1 << 20);
            label = Some(number.ok_or_else(|| Error::new(format!("`{}` is no class number", text.trim())).at(&path))?);
        } else if folder::is_image(Path::new(base)) && !extension.contains('.') {
            let span = Span { file: shared.clone(), offset: entry.raw_file_position(), length: entry.size() as usize };
            if span.offset + entry.size() > length {
                return Err(Error::new("the archive ends inside this image").at(&path).hint("fetch the file again"));
            }
            image = Some(span);
        }
    }
    finish(&key, &mut label, &mut image);
    Ok(())
}
