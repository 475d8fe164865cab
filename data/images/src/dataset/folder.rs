//! Folders of PNG and JPEG files: one folder a class, as torchvision's ImageFolder reads them, or no classes at all.
//!
//! Classes are numbered by their sorted names, and a class's images are everything below its folder, as in torchvision.
//! Beside `train/` and `test/` (or `val/`, `validation/`) a folder `unlabelled/` (or `unlabeled/`) is pretrained on too.

use std::path::{Path, PathBuf};

use ctk_core::{Error, Result};

use super::{Images, Item, Splits, Stored, entries, file_name, relative};

pub(super) const NO_IMAGE: &str = "ctk reads .png, .jpg and .jpeg; class folders lie below train/ and test/, or directly here";

// More levels than this are a link to an upper folder.
const DEEPEST: usize = 32;

/// Whether a file's name says PNG or JPEG.
pub(super) fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Whether a folder itself, not one below it, holds an image.
pub(super) fn holds_images(folder: &Path) -> Result<bool> {
    Ok(entries(folder)?.files.iter().any(|f| is_image(f)))
}

/// Whether a folder's name says that it is a split.
pub(super) fn is_split(folder: &Path) -> bool {
    let name = file_name(folder);
    name == "train" || TEST.contains(&name.as_str())
}

const TEST: [&str; 3] = ["test", "val", "validation"];

/// Class folders below splits, or class folders alone.
pub(super) fn open(root: &Path) -> Result<Splits> {
    let train = root.join("train");
    if !train.is_dir() {
        // Split names are never class names: a test folder without its training part must not be trained on.
        if let Some(test) = TEST.iter().map(|name| root.join(name)).find(|folder| folder.is_dir()) {
            return Err(Error::usage("there is a test split here, and no train/ beside it")
                .at(test.display())
                .hint("rename the folder with the training images to `train`"));
        }
        return Ok(Splits { train: classes(root, root, None)?, test: None, unlabelled: None });
    }
    let found = classes(root, &train, None)?;
    let test = match TEST.iter().map(|name| root.join(name)).find(|folder| folder.is_dir()) {
        Some(test) => Some(classes(root, &test, Some(found.classes()))?),
        None => None,
    };
    let unlabelled = match ["unlabelled", "unlabeled"].iter().map(|name| root.join(name)).find(|folder| folder.is_dir()) {
        Some(folder) => Some(Images::new(items(root, &folder, None)?, Vec::new())),
        None => None,
    };
    Ok(Splits { train: found, test, unlabelled })
}

/// Every image in a folder and below it, without labels.
pub(super) fn open_flat(root: &Path) -> Result<Splits> {
    Ok(Splits { train: Images::new(items(root, root, None)?, Vec::new()), test: None, unlabelled: None })
}

/// The images of one split; `known` are the classes of the training part. A split without class folders has no labels.
fn classes(root: &Path, split: &Path, known: Option<&[String]>) -> Result<Images> {
    let inside = entries(split)?;
    let loose = inside.files.iter().find(|f| is_image(f));
    if inside.folders.is_empty() || known.is_some_and(|known| known.is_empty()) {
        return Ok(Images::new(items(root, split, None)?, Vec::new()));
    }
    if let Some(loose) = loose {
        return Err(Error::usage("this image lies beside the class folders and belongs to no class")
            .at(loose.display())
            .hint("move it into a class folder; to train without labels, set data.format = \"flat\""));
    }
    let names: Vec<String> = match known {
        Some(known) => known.to_vec(),
        None => inside.folders.iter().map(|f| file_name(f)).collect(),
    };
    let mut all = Vec::new();
    for folder in &inside.folders {
        let name = file_name(folder);
        let label = names.iter().position(|class| *class == name).ok_or_else(|| {
            Error::usage("this class is not among the training classes")
                .at(folder.display())
                .hint("every class needs training images")
        })?;
        let mut found = items(root, folder, Some(label as u32))?;
        if found.is_empty() {
            return Err(Error::usage("this class folder holds no image")
                .at(folder.display())
                .hint("remove the folder, or fill it"));
        }
        all.append(&mut found);
    }
    Ok(Images::new(all, names))
}

fn items(root: &Path, folder: &Path, label: Option<u32>) -> Result<Vec<Item>> {
    let mut files = Vec::new();
    walk(folder, 0, &mut files)?;
    Ok(files.into_iter().map(|file| Item::new(relative(root, &file), label, Stored::File(file))).collect())
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    if depth > DEEPEST {
        return Err(Error::new("folders nest too deep here: is one a link to an upper folder?").at(folder.display()));
    }
    let inside = entries(folder)?;
    files.extend(inside.files.into_iter().filter(|f| is_image(f)));
    inside.folders.iter().try_for_each(|below| walk(below, depth + 1, files))
}
