//! Tables of captions beside the images, in a folder: `metadata.csv` of Hugging Face's imagefolder, Flickr8k's `captions.txt`.
//!
//! Such a table is called `metadata`, or its name has `caption` in it; it lies anywhere in the folder, and its paths are relative to its own
//! folder. The images that the tables name are the data, and others are counted as left out. Parts and classes are those of the tables, or
//! else those of the folders.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ctk_core::store::files;
use ctk_core::{Context, Error, Result};

use super::super::content::{self, Labels};
use super::super::report::{Found, some};
use super::super::table::{self, BY_COLUMN, Named, Row};
use super::super::tree::{self, Node};
use super::super::{Splits, file_name, parquet, parts};
use super::{HINT, Reading};

/// The kind under which images are counted that no table names.
const UNNAMED: &str = "image that is in no table";

/// Opens the images `root` of the folder `path` with the captions of the tables beside them. Without a table of captions, or where captions
/// are not read, `plain` opens the images; it also opens those that the tables name, if the tables say neither parts nor classes.
pub(in super::super) fn open(
    path: &Path,
    root: Node,
    mut found: Found,
    how: Reading,
    plain: impl FnOnce(Node, Found) -> Result<Splits>,
) -> Result<Splits> {
    if !how.captions {
        return plain(root, found);
    }
    let (mut all, mut columns, mut unused) = (Rows::default(), Vec::new(), Unused::default());
    for file in files::below(path)? {
        let name = file_name(&file);
        if !(table::is_captions(&name) || parquet::is_parquet(&name)) {
            continue;
        }
        let shown = relative(path, &file).unwrap_or_else(|| name.clone());
        if !is_beside(&name) {
            unused.other.push(shown);
            continue;
        }
        let mut said = Found::default();
        match rows(&file, how, &mut said)? {
            Err(missing) => {
                unused.error = unused.error.or(missing);
                unused.without.push(shown);
            }
            Ok(named) => {
                found.was_read(&tree::kind(&name), &shown);
                found.absorb(Found { files: said.unread(), ..said }, &shown);
                columns.extend(named.captions);
                named.rows.into_iter().for_each(|row| all.add(row, path));
            }
        }
    }
    if columns.is_empty() {
        return match unused.error {
            Some(error) => Err(error),
            None => {
                unused.say(&mut found);
                plain(root, found)
            }
        };
    }
    if all.rows.iter().all(|row| row.leaf.captions.is_none()) {
        columns.sort();
        columns.dedup();
        return Err(table::without(&columns).at(path.display()));
    }
    let there = root.count;
    let mut unnamed = 0;
    for leaf in root.leaves().iter().filter(|leaf| !all.places.contains_key(&leaf.path)) {
        found.pass_over(UNNAMED, &leaf.path);
        unnamed += 1;
    }
    // Images that a table names and that are not there.
    found.files += all.rows.len().saturating_sub(there - unnamed);
    super::settle(all.rows.iter_mut().map(|row| &mut row.leaf), &mut found);
    if all.rows.iter().all(|row| row.class.is_none() && row.split.is_none()) {
        return plain(Node::of(all.rows.into_iter().map(|row| row.leaf).collect()), found);
    }
    all.rows.iter_mut().for_each(by_folder);
    let roles = table::of_parts(&all.rows, &mut found);
    let of = table::contents(all.rows, roles, &mut found);
    Ok(content::splits("", of, Labels::Forced, BY_COLUMN, found))
}

/// Whether a table's name is that of a table of captions beside images.
pub(in super::super) fn is_beside(name: &str) -> bool {
    let name = name.to_lowercase();
    name.split('.').next() == Some("metadata") || name.contains("caption")
}

/// The images that the table `file` names. If it has no captions of images that are files, an error in the error says that it has not the
/// column that is named.
fn rows(file: &Path, how: Reading, found: &mut Found) -> Result<Result<Named, Option<Error>>> {
    if parquet::is_parquet(&file_name(file)) {
        return Ok(parquet::named(file, how, found).at(file.display())?.ok_or(None));
    }
    let table = table::read(file, true).at(file.display())?;
    match table.caption_columns(how, &[]) {
        Err(error) => Ok(Err(Some(error.at(file.display())))),
        Ok(columns) if columns.is_empty() => Ok(Err(None)),
        Ok(_) => table.rows(file, how, found).map(Ok),
    }
}

/// Takes the nearest folder that is called as a part for the part of an image whose table does not say it.
fn by_folder(row: &mut Row) {
    let folders = row.leaf.path.rsplit_once('/').map_or("", |(folders, _)| folders);
    let part = || folders.rsplit('/').find(|folder| parts::named(folder).is_some()).map(String::from);
    row.split = row.split.take().or_else(part);
}

/// The images of all tables, each once.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    places: HashMap<String, usize>,
}

impl Rows {
    /// Adds an image, by its path below the folder `root`.
    fn add(&mut self, mut row: Row, root: &Path) {
        if let Some(path) = row.leaf.stored.file().and_then(|file| relative(root, file)) {
            row.leaf.path = path;
        }
        match self.places.get(&row.leaf.path).map(|&place| &mut self.rows[place]) {
            Some(known) => {
                known.leaf.add_captions(row.leaf.captions.map(Arc::unwrap_or_clone).unwrap_or_default());
                known.class = known.class.take().or(row.class);
                known.split = known.split.take().or(row.split);
                known.leaf.group = known.leaf.group.take().or(row.leaf.group);
            }
            None => {
                self.places.insert(row.leaf.path.clone(), self.rows.len());
                self.rows.push(row);
            }
        }
    }
}

/// Tables that are not read.
#[derive(Default)]
struct Unused {
    /// Those without a column of captions.
    without: Vec<String>,
    /// Those whose names are not those of tables of captions.
    other: Vec<String>,
    /// Why the first of them cannot be read.
    error: Option<Error>,
}

impl Unused {
    fn say(&self, found: &mut Found) {
        if !self.without.is_empty() {
            let names = some(&self.without, self.without.len());
            found.note(format!("no column of {names} is known to hold captions: {HINT}"));
        } else if !self.other.is_empty() {
            let names = some(&self.other, self.other.len());
            found
                .note(format!("tables beside the images are not read ({names}): give the table itself to read captions from it"));
        }
    }
}

/// The path of `file` below `root`, with forward slashes; none if it lies elsewhere.
fn relative(root: &Path, file: &Path) -> Option<String> {
    let (root, file) = (plain(root), plain(file));
    let inside = file.strip_prefix(root).ok()?;
    Some(inside.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"))
}

/// A path without `.` and `..`, as far as its own words tell.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
