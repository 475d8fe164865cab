//! Parquet tables of images: paths as in other tables, or the images themselves, as in Hugging Face's `datasets`.
//!
//! A folder of tables is one dataset. If any of several tables is named as a part (`train-00000-of-00002.parquet`, `test/0000.parquet`),
//! names say the parts (training, validation, test), and tables without such a name are trained on; otherwise a column may say them. An image in a table is named by the path beside it, if each row has a different one, and otherwise by its
//! row number. Images in tables are first unpacked to a temporary file (`spool.rs`).

mod columns;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use ctk_core::store::files;
use ctk_core::store::parquet::{Kind, Parquet};
use ctk_core::{Context, Error, Result};

use self::columns::{Chosen, Image, choose, listing};
use super::captions::{self, Captions, HINT, Reading};
use super::content::{self, Labels};
use super::parts::{self, Role};
use super::report::{Found, count};
use super::spool::Spool;
use super::table::{self, BY_COLUMN, Cells, EVERY_ROW, Named, Row};
use super::tree::Leaf;
use super::{Splits, Stored, file_name};

const ENDINGS: [&str; 2] = ["parquet", "pq"];

/// The label that `datasets` writes for an image without a class.
const NO_CLASS: &str = "-1";

/// Whether a file's name is that of a Parquet table.
pub(super) fn is_parquet(name: &str) -> bool {
    stem(name).is_some()
}

/// Whether `kind`, under which files are counted, stands for Parquet tables.
pub(super) fn is_kind(kind: &str) -> bool {
    ENDINGS.contains(&kind)
}

fn stem(name: &str) -> Option<&str> {
    let (stem, end) = name.rsplit_once('.')?;
    (!stem.is_empty() && is_kind(&end.to_lowercase())).then_some(stem)
}

/// The tables in `folder` and below it.
pub(super) fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(files::below(folder)?.into_iter().filter(|file| is_parquet(&file_name(file))).collect())
}

/// A table and its chosen columns.
struct Table {
    file: PathBuf,
    /// Its path below the folder that was given.
    name: String,
    opened: Parquet,
    chosen: Chosen,
}

/// Observations that are reported once, and not for each table.
#[derive(Default)]
struct Met {
    /// Rows whose label means "no class".
    without: usize,
    /// Whether classes are named by their numbers.
    numbered: bool,
    /// Rows without an image.
    empty: usize,
    /// Rows with the image of an earlier row.
    again: usize,
}

/// The rows of a table by their images.
#[derive(Default)]
struct Copies {
    /// The first row with each image, by its digest.
    rows: HashMap<blake3::Hash, usize>,
    /// The place of a row's image among the images that are read.
    places: HashMap<usize, usize>,
}

impl Copies {
    /// The first row with the image `bytes`, if it is not `row` itself.
    fn first(&mut self, row: usize, bytes: &[u8]) -> Option<usize> {
        let first = *self.rows.entry(blake3::hash(bytes)).or_insert(row);
        (first != row).then_some(first)
    }
}

/// Opens the tables `tables`; `root` is the folder that they are in.
pub(super) fn open(root: &Path, tables: &[PathBuf], how: Reading, mut found: Found) -> Result<Splits> {
    let names: Vec<String> = tables.iter().map(|file| name(root, file)).collect();
    let roles = roles(&names, &mut found);
    let (mut opened, mut notes) = (Vec::new(), Vec::new());
    for (file, name) in tables.iter().zip(names) {
        let table = Parquet::open(file).at(file.display())?;
        // A note that applies to all tables is given once.
        let mut said = Found::default();
        let chosen = choose(&table, how, &mut said).at(file.display())?;
        said.note(table::holding(chosen.said(table.columns()).into_iter()));
        notes.extend(said.notes);
        opened.push(Table { file: file.clone(), name, opened: table, chosen });
    }
    if how.captions && opened.iter().all(|table| table.chosen.captions.is_empty()) {
        let all = opened.first().map(|table| listing(&table.opened)).unwrap_or_default();
        return Err(Error::usage(format!("no column of this table is known to hold captions: it has {all}"))
            .at(tables.first().unwrap_or(&root.to_path_buf()).display())
            .hint(HINT));
    }
    let mut once = HashSet::new();
    notes.retain(|note| once.insert(note.clone()));
    found.notes.extend(notes);

    let embedded = opened.iter().any(|table| matches!(table.chosen.image, Image::Bytes(..)));
    let mut spool = if embedded { Some(Spool::new()?) } else { None };
    let (mut rows, mut of_rows, mut met) = (Vec::new(), Vec::new(), Met::default());
    let several = opened.len() > 1;
    for (table, role) in opened.iter().zip(&roles) {
        let mut of = table.rows(several, spool.as_mut(), &mut met, &mut found).at(table.file.display())?;
        of_rows.extend(std::iter::repeat_n(*role, of.len()));
        rows.append(&mut of);
    }
    if rows.is_empty() {
        let (these, have) = if several { ("these tables", "have") } else { ("this table", "has") };
        let what = if met.empty > 0 { "row with an image" } else { "row" };
        return Err(Error::usage(format!("{these} {have} no {what}"))
            .at(root.display())
            .hint("a table of images has a row for each image"));
    }
    if how.captions && rows.iter().all(|row: &Row| row.leaf.captions.is_none()) {
        let mut names: Vec<String> = opened.iter().flat_map(Table::caption_columns).collect();
        names.dedup();
        return Err(table::without(&names).at(root.display()));
    }
    if let Some(spool) = spool {
        let (bytes, folder) = spool.finish()?;
        if bytes > 0 {
            let (size, folder) = (ByteSize::b(bytes).display().si(), folder.display());
            found.note(format!("the images of the table, {size}, are unpacked to a temporary file in {folder} while ctk runs"));
        }
    }
    met.say(&mut found);
    let by_name = roles.iter().any(Option::is_some);
    let by_column = rows.iter().any(|row| row.split.is_some());
    let (of_rows, by) = match by_name {
        // A table whose name is no part's is trained on.
        true => (of_rows.into_iter().map(|role| role.or(Some(Role::Train))).collect(), "by the file's name"),
        false => (table::of_parts(&rows, &mut found), if by_column { BY_COLUMN } else { EVERY_ROW }),
    };
    let mut of = table::contents(rows, of_rows, &mut found);
    if by_name {
        for (table, role) in opened.iter().zip(&roles) {
            of[role.unwrap_or(Role::Train) as usize].from.push(table.name.clone());
        }
    }
    Ok(content::splits("", of, Labels::Forced, by, found))
}

/// The images that the table `file`, beside them, names; none if it has no captions, or has the images in it.
pub(super) fn named(file: &Path, how: Reading, found: &mut Found) -> Result<Option<Named>> {
    let opened = Parquet::open(file)?;
    let mut said = Found::default();
    let chosen = choose(&opened, how, &mut said)?;
    if chosen.captions.is_empty() || matches!(chosen.image, Image::Bytes(..)) {
        return Ok(None);
    }
    found.notes.extend(said.notes);
    found.note(table::holding(chosen.said(opened.columns()).into_iter()));
    let table = Table { file: file.to_path_buf(), name: file_name(file), opened, chosen };
    let mut met = Met::default();
    let rows = table.rows(false, None, &mut met, found)?;
    met.say(found);
    Ok(Some(Named { rows, by_column: table.chosen.split.is_some(), captions: table.caption_columns() }))
}

/// A file's path below `root`, with forward slashes.
fn name(root: &Path, file: &Path) -> String {
    let path = file.strip_prefix(root).ok().filter(|path| !path.as_os_str().is_empty());
    let parts = path.map(|path| path.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"));
    parts.unwrap_or_else(|| file_name(file))
}

/// The part of each table by its own name, or by the nearest folder that is named as a part; no parts at all if no table is a training part
/// by its name. A single table is trained on, whatever its name is.
fn roles(names: &[String], found: &mut Found) -> Vec<Option<Role>> {
    let telling = |name: &String| {
        let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
        let words = std::iter::once(stem(file).unwrap_or(file)).chain(folders.rsplit('/'));
        words.into_iter().find(|word| parts::named(word).is_some()).unwrap_or_default().to_string()
    };
    let telling: Vec<String> = names.iter().map(telling).collect();
    let roles = parts::roles(&telling.iter().map(String::as_str).collect::<Vec<_>>());
    let all_held = !roles.is_empty() && roles.iter().all(|role| matches!(role, Some(Role::Val | Role::Test)));
    match names.len() {
        1 => vec![None],
        _ if all_held => {
            let what = "there are tables of a test split here, and none to train on";
            found.note(format!("{what}: all of them are read"));
            found.untrainable = Some([what.to_string(), "give the table itself to train on it".to_string()]);
            vec![None; names.len()]
        }
        _ if roles.contains(&Some(Role::Train)) => roles,
        _ => {
            let plain = |word: &String| parts::named(word).is_some_and(|of| of.plain);
            roles.into_iter().zip(&telling).map(|(role, word)| role.filter(|_| plain(word))).collect()
        }
    }
}

impl Table {
    /// Its images, in the order of its rows; those inside the table are added to `spool`. If it is one of `several` tables, image names
    /// begin with its own name.
    fn rows(&self, several: bool, spool: Option<&mut Spool>, met: &mut Met, found: &mut Found) -> Result<Vec<Row>> {
        let texts = |column: Option<usize>| match column {
            Some(column) => Ok(self.opened.texts(column)?.into_iter().map(table::text).collect::<Vec<_>>()),
            None => Ok::<_, Error>(vec![None; self.opened.rows()]),
        };
        let mut about = || -> Result<_> {
            let classes = self.classes(texts(self.chosen.label)?, met)?;
            Ok(classes.into_iter().zip(texts(self.chosen.split)?.into_iter().zip(texts(self.chosen.group)?)))
        };
        // Images first: if all of them can be read, the table really has as many rows as it claims.
        match (self.chosen.image, spool) {
            (Image::Bytes(bytes, path), Some(spool)) => {
                let unpacked = spool.table(&self.file);
                let mut cells = Vec::new();
                // Where captions are read, rows with one image are one image.
                let mut copies = (!self.chosen.captions.is_empty()).then(Copies::default);
                self.opened.bytes(bytes, |row, cell| {
                    let cell = cell.filter(|bytes| !bytes.is_empty());
                    let first = cell.zip(copies.as_mut()).and_then(|(bytes, copies)| copies.first(row, bytes));
                    cells.push(match (first, cell) {
                        (Some(first), _) => Err(first),
                        (None, cell) => Ok(cell.map(|bytes| spool.add(&unpacked, row, bytes)).transpose()?.map(Stored::Row)),
                    });
                    Ok(())
                })?;
                let paths = texts(path)?;
                let names = self.names(&paths, several);
                let mut rows: Vec<Row> = Vec::with_capacity(cells.len());
                let mut folder = None;
                let about = about()?;
                let mut captions = self.captions()?.into_iter();
                let cells = cells.into_iter().zip(paths).zip(names).zip(about).enumerate();
                for (row, (((stored, path), name), (class, (split, group)))) in cells {
                    let captions = captions.next().unwrap_or_default();
                    // Images that are not in the table are files beside it.
                    let mut outside = || {
                        let path = path.as_ref()?;
                        let first = copies.as_mut().and_then(|copies| copies.first(row, path.as_bytes()));
                        let folder: &PathBuf = folder.get_or_insert_with(|| table::base(&self.file, path));
                        Some(first.map_or_else(|| Ok(Stored::File(table::resolve(folder, path))), Err))
                    };
                    let stored = match stored {
                        Ok(None) => outside().transpose(),
                        stored => stored,
                    };
                    let stored = match stored {
                        Err(first) => {
                            met.again += 1;
                            if let Some(known) = copies.as_ref().and_then(|copies| rows.get_mut(*copies.places.get(&first)?)) {
                                known.class = known.class.take().filter(|known| Some(known) == class.as_ref());
                                known.leaf.add_captions(captions);
                            }
                            continue;
                        }
                        Ok(stored) => stored,
                    };
                    found.files += 1;
                    let Some(stored) = stored else {
                        met.empty += 1;
                        found.pass_over("row without an image", &name);
                        continue;
                    };
                    if let Some(copies) = &mut copies {
                        copies.places.insert(row, rows.len());
                    }
                    let captions = captions::kept(captions);
                    rows.push(Row { leaf: Leaf { path: name, stored, group: group.map(Into::into), captions }, class, split });
                }
                captions::settle(rows.iter_mut().map(|row| &mut row.leaf), found);
                Ok(rows)
            }
            (Image::Bytes(column, _) | Image::Paths(column), _) => {
                let cells = texts(Some(column))?.into_iter().zip(about()?);
                let mut captions = self.captions()?.into_iter();
                let cells = cells.map(|(path, (class, (split, group)))| Cells {
                    path,
                    class,
                    split,
                    group,
                    captions: captions.next().unwrap_or_default(),
                });
                let mut rows = table::named_images(&self.file, cells, |row| format!("{}: row {row}", self.name), found);
                if let Some((folder, _)) = self.name.rsplit_once('/').filter(|_| several) {
                    rows.iter_mut().for_each(|row| row.leaf.path = format!("{folder}/{}", row.leaf.path));
                }
                Ok(rows)
            }
        }
    }

    /// Each row's captions; no row at all where they are not read.
    fn captions(&self) -> Result<Vec<Captions>> {
        let mut all = Vec::new();
        for &column in &self.chosen.captions {
            all.resize_with(self.opened.rows(), Captions::new);
            if self.opened.columns()[column].listed {
                self.opened.text_lists(column, |row, texts| {
                    all.get_mut(row).into_iter().for_each(|of| texts.iter().for_each(|text| captions::add(of, text)));
                    Ok(())
                })?;
            } else {
                let cells = all.iter_mut().zip(self.opened.texts(column)?);
                cells.for_each(|(of, cell)| captions::add_cell(of, cell.as_deref().unwrap_or_default()));
            }
        }
        Ok(all)
    }

    /// The names of the columns of captions.
    fn caption_columns(&self) -> Vec<String> {
        self.chosen.captions.iter().map(|column| self.opened.columns()[*column].parts[0].clone()).collect()
    }

    /// The names of the images: their paths if each row has a different one, and otherwise their row numbers.
    fn names(&self, paths: &[Option<String>], several: bool) -> Vec<String> {
        let mut own = HashSet::new();
        let all = paths.iter().all(|path| path.as_deref().is_some_and(|path| own.insert(path)));
        let before = if several { format!("{}/", self.name) } else { String::new() };
        let name = |(row, path): (usize, &Option<String>)| match path {
            Some(path) if all => format!("{before}{}", path.trim_start_matches('/')),
            _ => format!("{before}{row:05}"),
        };
        paths.iter().enumerate().map(name).collect()
    }

    /// Each row's class by its name.
    fn classes(&self, labels: Vec<Option<String>>, met: &mut Met) -> Result<Vec<Option<String>>> {
        let Some(names) = &self.chosen.classes else {
            let whole = |label: &String| label.parse::<i64>().is_ok();
            let numbers = self.chosen.label.is_some_and(|label| self.opened.columns()[label].kind != Kind::Text);
            met.numbered |= numbers && labels.iter().flatten().any(whole);
            return Ok(labels);
        };
        let mut class = |(row, label): (usize, Option<String>)| match label.as_deref() {
            None => Ok(None),
            Some(NO_CLASS) => {
                met.without += 1;
                Ok(None)
            }
            Some(label) => match label.parse::<usize>().ok().and_then(|number| names.get(number)) {
                Some(name) => Ok(Some(name.clone())),
                None => {
                    Err(Error::new(format!("row {row} is of class {label}, and the table names {}", count(names.len(), "class")))
                        .hint("classes are numbered from 0; -1 is none"))
                }
            },
        };
        labels.into_iter().enumerate().map(&mut class).collect()
    }
}

impl Met {
    fn say(&self, found: &mut Found) {
        if self.numbered {
            found.note("labels are numbers, and the table does not say what they mean: classes are called by their numbers");
        }
        if self.again > 0 {
            let again = self.again;
            found.note(format!("{again} rows have the image of another row: it is read once with the captions of all its rows"));
        }
        if self.without > 0 {
            let (have, their) = if self.without == 1 { ("has", "its") } else { ("have", "their") };
            found.note(format!("{} {have} no class: {their} label is -1", count(self.without, "image")));
        }
    }
}
