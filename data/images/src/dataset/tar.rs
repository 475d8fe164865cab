//! Archives as datasets: samples by WebDataset's names, or folders of images.
//!
//! Files with the same key, `key.jpg` and `key.cls`, are one sample, wherever in the archive they are. A key ends at the first dot of the
//! file name; if no image has that key, at the last dot (`photo.v1.jpg` has the key `photo.v1`). So `key.seg.png` beside `key.png` is not a
//! sample of its own. Archives without a `.cls` are read like folders, if these distinguish classes.
//!
//! Where captions are read, `key.txt` and `key.json` belong to the sample, too, in all archives (`captions/keyed.rs`).
//!
//! A folder of archives is one dataset. An archive that is named as a part (`test-0.tar`, `imagenet-val-00.tar`) is that part.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::{Context, Error, Result};

use super::archive::{self, Body, Inner};
use super::captions::Captions;
use super::captions::Reading;
use super::captions::keyed::Met;
use super::content::Labels;
use super::folder;
use super::parts::{self, Role};
use super::report::{Found, Slot, count};
use super::tree::{Leaf, Node, is_image};
use super::{Images, Item, Splits, Stored, file_name};

/// The content of one archive.
struct Archive {
    name: String,
    role: Role,
    inner: Vec<Inner>,
}

/// Opens the archives `files`; `path` is where they were found.
pub(super) fn open(path: &Path, files: &[PathBuf], labels: Labels, how: Reading, mut found: Found) -> Result<Splits> {
    let names: Vec<String> = files.iter().map(|file| file_name(file)).collect();
    let (mut archives, mut met) = (Vec::new(), Met::default());
    for ((file, name), role) in files.iter().zip(&names).zip(roles(&names)) {
        let mut inner = archive::list(file, how, &mut found)?;
        if how.captions {
            inner = met.attach(name, inner, how, &mut found);
        }
        archives.push(Archive { name: name.clone(), role, inner });
    }
    if how.captions {
        met.say(how, &mut found).at(path.display())?;
    }
    if archives.iter().all(|archive| archive.role != Role::Train) && !archives.is_empty() {
        let what = "there are archives of a test split here, and none to train on";
        found.note(format!("{what}: all of them are read"));
        found.untrainable = Some([what.to_string(), "give the archive itself to train on it".to_string()]);
        archives.iter_mut().for_each(|archive| archive.role = Role::Train);
    }
    let by_class = |archive: &Archive| archive.inner.iter().any(|inner| matches!(inner.body, Body::Class(_)));
    if !archives.iter().any(by_class) {
        return folders(path, archives, labels, found);
    }
    shards(path, archives, found)
}

/// The part of each archive by its name. A single archive is trained on, whatever its name is. A name with further words stands for a part
/// only if another archive is a training part by its name.
fn roles(names: &[String]) -> Vec<Role> {
    let stems: Vec<&str> = names.iter().map(|name| archive::stem(name).unwrap_or(name)).collect();
    if let [_] = stems[..] {
        return vec![Role::Train];
    }
    let roles = parts::roles(&stems);
    let train = roles.contains(&Some(Role::Train));
    let plain = |stem: &str| parts::named(stem).is_some_and(|of| of.plain);
    let role = |(stem, role): (&&str, Option<Role>)| role.filter(|_| train || plain(stem)).unwrap_or(Role::Train);
    stems.iter().zip(roles).map(role).collect()
}

/// Archives without classes of their own: like folders, if these may distinguish classes, or images without labels.
fn folders(path: &Path, archives: Vec<Archive>, labels: Labels, found: Found) -> Result<Splits> {
    let bare = |archive: &Archive| archive.name.ends_with(".tar") && !several_folders(&archive.inner);
    if labels == Labels::Found && archives.iter().all(bare) {
        return shards(path, archives, found);
    }
    let mut of: [Vec<Node>; 4] = Default::default();
    let several = archives.len() > 1;
    for Archive { name, role, inner } in archives {
        let mut root = Node::of(leaves(inner));
        if !several {
            return folder::open(root, labels, found).at(path.display());
        }
        root.move_below(&name);
        of[role as usize].push(root);
    }
    Ok(folder::splits("", of, labels, "by the archive's name", found))
}

/// Whether the images are in more than one folder.
fn several_folders(inner: &[Inner]) -> bool {
    let mut folders = inner.iter().map(|inner| inner.path.rsplit_once('/').map_or("", |(folder, _)| folder));
    folders.next().is_some_and(|first| folders.any(|folder| folder != first))
}

fn leaves(inner: Vec<Inner>) -> Vec<Leaf> {
    let leaf = |inner: Inner| match inner.body {
        Body::Image(stored) => Some(Leaf { captions: inner.captions, ..Leaf::new(inner.path, stored) }),
        Body::Class(_) | Body::Text(_) => None,
    };
    inner.into_iter().filter_map(leaf).collect()
}

/// Archives of samples by WebDataset's names.
fn shards(path: &Path, archives: Vec<Archive>, mut found: Found) -> Result<Splits> {
    let mut of: [Vec<Item>; 4] = Default::default();
    let mut from: [Vec<String>; 4] = Default::default();
    for Archive { name, role, inner } in archives {
        let mut items = samples(&name, inner, &mut found).at(path.display())?;
        of[role as usize].append(&mut items);
        from[role as usize].push(name);
    }
    let [train, val, test, more] = of;
    if train.is_empty() {
        return Err(Error::usage("no image in these archives")
            .at(path.display())
            .hint("entries are named key.jpg or key.png, with key.cls beside; or they lie in one folder for each class"));
    }
    let labelled = train.iter().any(|item| item.label.is_some());
    let held: Vec<&Item> = val.iter().chain(&test).collect();
    let classes = held.iter().copied().chain(&train).filter_map(|item| item.label).max().map_or(0, |most| most as usize + 1);
    let names: Vec<String> = (0..if labelled { classes } else { 0 }).map(|class| class.to_string()).collect();
    // A sample without a class is trained on without a label, and is not evaluated on.
    let (train, mut without) = sides(train, labelled);
    if !without.is_empty() {
        let first = without[0].name.clone();
        found.note(format!(
            "{} of the training part without a .cls ({first}): trained on without labels",
            count(without.len(), "image")
        ));
    }
    without.extend(more);
    let mut judged = |items: Vec<Item>, part: &str| {
        // Pairs of an image and its caption are evaluated without labels.
        let keeps = |item: &Item| !labelled || item.label.is_some() || item.captions.is_some();
        let (items, without): (Vec<Item>, Vec<Item>) = items.into_iter().partition(keeps);
        without.iter().for_each(|item| found.pass_over("image without .cls", &item.name));
        if !without.is_empty() {
            found.note(format!("{} of the {part} part without a .cls: not evaluated", count(without.len(), "image")));
        }
        (!items.is_empty()).then(|| Images::new(items, names.clone()))
    };
    let (val, test) = (judged(val, "val"), judged(test, "test"));
    let [train_from, val_from, test_from, more_from] = from;
    let why = "by the archive's name";
    let several = val.is_some() || test.is_some();
    if several {
        found.part("train", Slot::Train, train_from, "trained on");
    }
    let (val, test) = match (val, test) {
        (Some(val), None) => {
            found.part(
                "val",
                Slot::Test,
                val_from,
                format!("measured during training and used for evaluation, {why}: there is no test part"),
            );
            (None, Some(val))
        }
        (val, test) => {
            if val.is_some() {
                found.part("val", Slot::Val, val_from, format!("measured on while training, {why}"));
            }
            if test.is_some() {
                found.part("test", Slot::Test, test_from, format!("used for evaluation, never for training, {why}"));
            }
            (val, test)
        }
    };
    if !without.is_empty() {
        found.part("unlabelled", Slot::Unlabelled, more_from, "trained on too, without labels");
    }
    let unlabelled = (!without.is_empty()).then(|| Images::new(without, Vec::new()));
    Ok(Splits { val, test, unlabelled, found: found.into(), ..Splits::of(Images::new(train, names)) })
}

/// Divides the items into those with a class and those without; all are on the left if classes are not needed.
fn sides(items: Vec<Item>, labelled: bool) -> (Vec<Item>, Vec<Item>) {
    items.into_iter().partition(|item| !labelled || item.label.is_some())
}

/// The samples of one archive, in the order of their images.
fn samples(name: &str, inner: Vec<Inner>, found: &mut Found) -> Result<Vec<Item>> {
    let mut classes: HashMap<String, u32> = HashMap::new();
    let mut images: Vec<(String, Stored, Option<Arc<Captions>>)> = Vec::new();
    for Inner { path, body, captions } in inner {
        match body {
            Body::Image(stored) => images.push((path, stored, captions)),
            Body::Text(_) => {}
            Body::Class(text) => {
                let number = text.parse().ok().filter(|&class: &u32| class < 1 << 20);
                let number = number.ok_or_else(|| Error::new(format!("`{text}` is not a class number")).at(&path))?;
                if classes.insert(last(&path).to_string(), number).is_some() {
                    return Err(twice("class", last(&path)).at(&path));
                }
            }
        }
    }
    // Keys that end at the first dot, of images that have only an extension after it.
    let mut keys: HashMap<String, String> = HashMap::new();
    let plain = |path: &str| first(path) == last(path);
    for (path, ..) in images.iter().filter(|(path, ..)| plain(path)) {
        if let Some(before) = keys.insert(first(path).to_string(), path.clone()) {
            return Err(twice("image", first(path)).at(path).at(before));
        }
    }
    let mut items = Vec::with_capacity(images.len());
    for (path, stored, captions) in images {
        let key = if plain(&path) { first(&path) } else { last(&path) }.to_string();
        if !plain(&path) {
            if keys.contains_key(first(&path)) {
                found.pass_over("further picture of a sample", &format!("{name}/{path}"));
                continue;
            }
            if let Some(before) = keys.insert(key.clone(), path.clone()) {
                return Err(twice("image", &key).at(path).at(before));
            }
        }
        let label = classes.remove(&key).or_else(|| classes.get(first(&path)).copied());
        items.push(Item::new(format!("{name}/{key}"), label, stored).captioned(captions));
    }
    if let Some(alone) = classes.keys().min() {
        found.note(format!("{name}: {} without an image ({alone}.cls)", count(classes.len(), "class")));
    }
    Ok(items)
}

fn twice(what: &str, key: &str) -> Error {
    Error::usage(format!("the key `{key}` has more than one {what}"))
        .hint("each sample needs a key of its own: rename one of the files")
}

/// A path up to the first dot of its base name.
pub(super) fn first(path: &str) -> &str {
    let base = path.rfind('/').map_or(0, |slash| slash + 1);
    path[base..].find('.').map_or(path, |dot| &path[..base + dot])
}

/// A path up to the last dot of its base name.
pub(super) fn last(path: &str) -> &str {
    let base = path.rfind('/').map_or(0, |slash| slash + 1);
    // A file without an extension has no dot that ends its key, whatever dots its folder has.
    let ends = is_image(&path[base..]) || path.ends_with(".cls") || path[base..].matches('.').count() == 1;
    path[base..].rfind('.').filter(|_| ends).map_or(path, |dot| &path[..base + dot])
}

/// A path without the extension of its base name, whatever that is.
pub(super) fn unending(path: &str) -> &str {
    let base = path.rfind('/').map_or(0, |slash| slash + 1);
    path[base..].rfind('.').map_or(path, |dot| &path[..base + dot])
}
