//! Several paths as one dataset: expands globs, and merges the data of each path.

use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ctk_core::data::dataset::Dataset as _;
use ctk_core::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};

use super::captions::Reading;
use super::content::{self, Classes, Content, Labels};
use super::parts::{self, Role};
use super::report::Found;
use super::tree::{Leaf, Node, check_depth, is_image};
use super::{Columns, Format, Images, Splits, archive, file_name, folder, lie, parquet, visible};

/// The paths and the result of [`first_look`], and whether captions were read, until they are opened.
static LAST: Mutex<Option<(Vec<PathBuf>, bool, Splits)>> = Mutex::new(None);

/// Opens all `paths` as [`open_all`] does, and remembers the result for the next call of [`open_all`] with these paths. The data is opened
/// to choose a recipe, and then at once by that recipe; with many files or compressed tables that takes time.
///
/// # Errors
/// Those of [`open_all`].
pub fn first_look(paths: &[PathBuf]) -> Result<Splits> {
    look(paths, false)
}

/// The same with captions, for the next call of [`open_all_captioned`].
///
/// # Errors
/// Those of [`open_all_captioned`].
pub fn first_look_captioned(paths: &[PathBuf]) -> Result<Splits> {
    look(paths, true)
}

fn look(paths: &[PathBuf], captions: bool) -> Result<Splits> {
    let splits = all(paths, None, Reading { columns: &Columns::default(), captions })?;
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some((absolute(paths), captions, splits.clone()));
    Ok(splits)
}

fn absolute(paths: &[PathBuf]) -> Vec<PathBuf> {
    paths.iter().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())).collect()
}

/// Opens all `paths`, which may be folders, archives, tables, images or globs of these, as one dataset.
///
/// Classes of one name are one class. Paths that are named as parts (`data/train data/test`) are these parts.
///
/// # Errors
/// Those of [`super::open`]; a glob that matches nothing.
pub fn open_all(paths: &[PathBuf], format: Option<Format>, columns: &Columns) -> Result<Splits> {
    all(paths, format, Reading { columns, captions: false })
}

/// The same with captions, as [`super::open_captioned`] reads them.
///
/// # Errors
/// Those of [`super::open_captioned`]; a glob that matches nothing.
pub fn open_all_captioned(paths: &[PathBuf], format: Option<Format>, columns: &Columns) -> Result<Splits> {
    all(paths, format, Reading { columns, captions: true })
}

fn all(paths: &[PathBuf], format: Option<Format>, how: Reading) -> Result<Splits> {
    if format.is_none() && *how.columns == Columns::default() {
        let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((.., splits)) = last.filter(|(of, captions, _)| *captions == how.captions && *of == absolute(paths)) {
            return Ok(splits);
        }
    }
    let mut found = Vec::new();
    for path in paths {
        match !path.exists() && is_glob(path) {
            true => found.extend(expand(path)?),
            false => found.push(path.clone()),
        }
    }
    match &found[..] {
        [] => Err(Error::usage("data.path names no path").hint("leave it out for generated images")),
        [only] => super::whole(only, format, how),
        files if files.iter().all(|path| path.is_file() && is_image(&file_name(path))) => {
            let root = common(files);
            let leaf = |path: &PathBuf| {
                let name = path
                    .strip_prefix(&root)
                    .unwrap_or(path)
                    .components()
                    .map(|c| c.as_os_str().to_string_lossy())
                    .collect::<Vec<_>>();
                Leaf::new(name.join("/"), super::Stored::File(path.clone()))
            };
            let found = Found { files: files.len(), ..Found::default() };
            folder::open(Node::of(files.iter().map(leaf).collect()), Labels::Found, found).map(Splits::finish)
        }
        tables if tables.iter().all(|path| path.is_file() && parquet::is_parquet(&file_name(path))) => {
            let root = common(tables);
            finished(parquet::open(&root, tables, how, Found::default())?, &root, how)
        }
        several => finished(together(several, format, how)?, &common(several), how),
    }
}

/// The same without images that have no caption, where captions are read, and with counted parts.
fn finished(splits: Splits, root: &Path, how: Reading) -> Result<Splits> {
    let splits = if how.captions { splits.captioned(root)? } else { splits };
    Ok(splits.finish())
}

fn together(paths: &[PathBuf], format: Option<Format>, how: Reading) -> Result<Splits> {
    let names: Vec<String> = paths.iter().map(|path| label(path, paths)).collect();
    let plain: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
    let stems: Vec<&str> = plain.iter().map(|name| archive::stem(name).unwrap_or(name)).collect();
    let roles = parts::roles(&stems);
    let train = roles.contains(&Some(Role::Train));
    let mut found = Found::default();
    let mut of: [(Classes, Vec<Leaf>, Vec<String>); 4] = Default::default();
    for ((path, name), role) in paths.iter().zip(&names).zip(roles) {
        let splits = lie(path, format, how)?;
        let mut add = |images: &Images, role: Role| {
            let (classes, loose, from) = &mut of[role as usize];
            from.push(name.clone());
            for item in images.items() {
                let leaf = Leaf {
                    path: format!("{name}/{}", item.name),
                    stored: item.stored.clone(),
                    group: item.group.clone(),
                    captions: item.captions.clone(),
                };
                match item.label {
                    Some(label) => classes.entry(images.classes()[label as usize].clone()).or_default().push(leaf),
                    None => loose.push(leaf),
                }
            }
        };
        match role.filter(|_| train) {
            Some(role) => add(&splits.all(), role),
            None => {
                add(&splits.train, Role::Train);
                splits.unlabelled.iter().for_each(|images| add(images, Role::Unlabelled));
                splits.val.iter().for_each(|images| add(images, Role::Val));
                splits.test.iter().for_each(|images| add(images, Role::Test));
                if let Some(apart) = splits.apart.first() {
                    found.note(format!("{name}: {} held-out images have no labels and are left out", apart.len()));
                }
            }
        }
        found.absorb((*splits.found).clone(), name);
    }
    let of = of.map(|(classes, loose, mut from)| {
        from.dedup();
        Content { from, ..Content::sorted(classes, loose) }
    });
    Ok(content::splits("", of, Labels::Forced, "of several paths", found))
}

/// The name of a path in image names: its last component, or the whole path if another one has the same last component.
fn label(path: &Path, all: &[PathBuf]) -> String {
    let name = file_name(path);
    match all.iter().filter(|other| file_name(other) == name).count() {
        1 if !name.is_empty() => name,
        _ => path.display().to_string(),
    }
}

/// The folder that contains all of `files`.
fn common(files: &[PathBuf]) -> PathBuf {
    let mut root = files[0].parent().map_or_else(PathBuf::new, Path::to_path_buf);
    while !files.iter().all(|file| file.starts_with(&root)) && root.pop() {}
    root
}

fn is_glob(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '[', '{'])
}

/// The matches of a glob, in order; `*` does not cross folders, `**` does. Hidden names never match.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let mut at = vec![PathBuf::new()];
    for component in pattern.components() {
        let part = component.as_os_str().to_string_lossy();
        at = match component {
            Component::Normal(_) if part == "**" => {
                let mut all = Vec::new();
                at.iter().try_for_each(|folder| below(folder, 0, &mut all))?;
                all
            }
            Component::Normal(_) if is_glob(Path::new(component.as_os_str())) => {
                let glob = GlobBuilder::new(&part).literal_separator(true).build();
                let matcher = glob.map_err(|e| Error::usage(format!("not a glob: {e}")).at(pattern.display()))?.compile_matcher();
                let mut all = Vec::new();
                at.iter().filter(|folder| is_folder(folder)).try_for_each(|folder| matching(folder, &matcher, &mut all))?;
                all
            }
            _ => at.into_iter().map(|folder| folder.join(component)).collect(),
        };
    }
    at.retain(|path| path.exists());
    at.sort();
    at.dedup();
    if at.is_empty() {
        return Err(Error::usage("nothing matches this glob").at(pattern.display()).hint("`**` crosses folders, `*` does not"));
    }
    Ok(at)
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().is_empty() || path.is_dir()
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(visible(here)?.into_iter().map(|name| folder.join(name)).collect())
}

fn matching(folder: &Path, matcher: &GlobMatcher, all: &mut Vec<PathBuf>) -> Result<()> {
    all.extend(entries(folder)?.into_iter().filter(|path| matcher.is_match(file_name(path))));
    Ok(())
}

fn below(folder: &Path, depth: usize, all: &mut Vec<PathBuf>) -> Result<()> {
    all.push(folder.to_path_buf());
    check_depth(folder, depth)?;
    entries(folder)?.iter().filter(|path| path.is_dir()).try_for_each(|path| below(path, depth + 1, all))
}
