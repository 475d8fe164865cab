//! Tables of images: CSV, TSV or JSON lines, one row for each image. Columns are recognised by their names, or named by `data.columns`.
//!
//! A row has the path of an image, relative to the table's folder, and optionally its class, its part and its group (a patient, a video).
//! Images of one group stay on one side of a hold-out. An image without a class is trained on without a label. An image in several rows is
//! one image; if the rows give it several classes, it has none.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::opened;
use ctk_core::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::captions::{self, Captions, ColumnNames, Reading};
use super::content::{self, Classes, Content, Labels};
use super::parts::{self, Role};
use super::report::{Found, count, some};
use super::tree::Leaf;
use super::{Splits, Stored, file_name};

/// `[data.columns]`: the names of a table's columns. By default they are recognised by common names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The column with each image's path or, in a Parquet table, with the bytes of its file.
    pub path: Option<String>,
    /// The column with the image's class.
    pub label: Option<String>,
    /// The column with the image's part: train, val, test.
    pub split: Option<String>,
    /// The column with the image's group (a patient, a video); a hold-out never splits a group.
    pub group: Option<String>,
    /// The column or the columns with the image's captions, where captions are read; a cell is a caption or a list of captions.
    pub captions: Option<ColumnNames>,
}

pub(super) const PATHS: &[&str] = &[
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "image_name",
    "img",
    "img_path",
    "img_name",
    "name",
    "image_id",
    "id",
];
pub(super) const LABELS: &[&str] = &[
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "label_name",
    "category",
    "target",
    "y",
    "species",
    "breed",
    "diagnosis",
];
pub(super) const SPLITS: &[&str] = &["split", "part", "set", "subset", "partition"];
pub(super) const GROUPS: &[&str] = &["group", "group_id", "patient", "patient_id", "subject", "subject_id", "video", "video_id"];

/// File name endings that a path may leave out.
const ENDINGS: [&str; 4] = ["jpg", "png", "jpeg", "tif"];

/// Whether a file's name is that of a table.
pub(super) fn is_table(name: &str) -> bool {
    let name = name.to_lowercase();
    [".csv", ".tsv", ".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end))
}

/// Whether a file's name is that of a table where captions are read: Flickr8k's `captions.txt` is one.
pub(super) fn is_captions(name: &str) -> bool {
    let name = name.to_lowercase();
    is_table(&name) || (name.ends_with(".txt") && name.contains("captions"))
}

/// Rows of cells, with the names of their columns.
pub(super) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The cells of a row that concern its image.
pub(super) struct Cells {
    /// The image's path; none if the cell is empty.
    pub path: Option<String>,
    pub class: Option<String>,
    pub split: Option<String>,
    pub group: Option<String>,
    pub captions: Captions,
}

/// An image with its class, part and group.
pub(super) struct Row {
    pub leaf: Leaf,
    pub class: Option<String>,
    pub split: Option<String>,
}

pub(super) fn open(file: &Path, how: Reading) -> Result<Splits> {
    let mut found = Found::default();
    let table = read(file, how.captions).at(file.display())?;
    let Named { rows, by_column, captions } = table.rows(file, how, &mut found)?;
    if rows.is_empty() {
        return Err(Error::usage("this table has no row")
            .at(file.display())
            .hint("write one row for each image, below a line with the columns' names"));
    }
    if how.captions && rows.iter().all(|row| row.leaf.captions.is_none()) {
        return Err(without(&captions).at(file.display()));
    }
    let roles = of_parts(&rows, &mut found);
    let of = contents(rows, roles, &mut found);
    let by = if by_column { BY_COLUMN } else { EVERY_ROW };
    Ok(content::splits("", of, Labels::Forced, by, found))
}

/// The error of a table in whose `columns` every cell is empty.
pub(super) fn without(columns: &[String]) -> Error {
    let names: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
    Error::usage(format!("no image of this table has a caption: {} of every row is empty", names.join(", "))).hint(captions::HINT)
}

/// The images that a table names.
pub(super) struct Named {
    pub rows: Vec<Row>,
    /// Whether a column says their parts.
    pub by_column: bool,
    /// The names of the columns of captions.
    pub captions: Vec<String>,
}

/// How parts are recognised: by a column, or there are none.
pub(super) const BY_COLUMN: &str = "by the table";
pub(super) const EVERY_ROW: &str = "every row of the table";

/// Describes which column is used for what.
pub(super) fn holding<'a>(said: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let said: Vec<String> = said.map(|(what, column)| format!("`{column}` holds {what}")).collect();
    format!("of the table's columns, {}", said.join(", "))
}

/// A cell without surrounding blanks; none if it is empty.
pub(super) fn text(cell: Option<String>) -> Option<String> {
    let cell = cell?;
    let text = cell.trim();
    match text.len() {
        0 => None,
        same if same == cell.len() => Some(cell),
        _ => Some(text.to_string()),
    }
}

/// The images that the rows of the table `file` name by their paths, each once; `shown` names a row in messages.
pub(super) fn named_images(
    file: &Path,
    cells: impl Iterator<Item = Cells>,
    shown: impl Fn(usize) -> String,
    found: &mut Found,
) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    // Rows that repeat an image, and images whose rows give several classes.
    let (mut again, mut several) = (0, HashSet::new());
    let mut folder = None;
    for (number, cells) in cells.enumerate() {
        let Some(name) = cells.path else {
            found.files += 1;
            found.pass_over("row without a path", &shown(number));
            continue;
        };
        if let Some(&place) = places.get(&name) {
            again += 1;
            if rows[place].class != cells.class {
                several.insert(place);
            }
            rows[place].leaf.add_captions(cells.captions);
            continue;
        }
        let folder = folder.get_or_insert_with(|| base(file, &name));
        let leaf = Leaf {
            stored: Stored::File(resolve(folder, &name)),
            path: name.clone(),
            group: cells.group.map(Arc::from),
            captions: captions::kept(cells.captions),
        };
        places.insert(name, rows.len());
        rows.push(Row { leaf, class: cells.class, split: cells.split });
    }
    found.files += rows.len();
    if again > 0 {
        let without = match several.len() {
            0 => String::new(),
            number => format!("; {} of several classes: without one", count(number, "image")),
        };
        let with = if rows.iter().any(|row| row.leaf.captions.is_some()) { " with the captions of all its rows" } else { "" };
        found.note(format!("{again} rows name an image that another row names: it is read once{with}{without}"));
    }
    several.into_iter().for_each(|place: usize| rows[place].class = None);
    captions::settle(rows.iter_mut().map(|row| &mut row.leaf), found);
    rows
}

/// The content of each part; an image without a part is left out.
pub(super) fn contents(rows: Vec<Row>, roles: Vec<Option<Role>>, found: &mut Found) -> [Content; 4] {
    let mut of: [(Classes, Vec<Leaf>); 4] = Default::default();
    for (Row { leaf, class, .. }, role) in rows.into_iter().zip(roles) {
        let Some(role) = role else {
            found.pass_over("image outside the parts", &leaf.path);
            continue;
        };
        let (classes, loose) = &mut of[role as usize];
        match class {
            Some(class) => classes.entry(class).or_default().push(leaf),
            None => loose.push(leaf),
        }
    }
    of.map(|(classes, loose)| Content::sorted(classes, loose))
}

/// The part of each row; none at all if the column's values are not parts.
pub(super) fn of_parts(rows: &[Row], found: &mut Found) -> Vec<Option<Role>> {
    let mut values: Vec<&str> = rows.iter().filter_map(|row| row.split.as_deref()).collect();
    values.sort_unstable();
    values.dedup();
    let roles: HashMap<&str, Role> =
        values.iter().copied().zip(parts::roles(&values)).filter_map(|(value, role)| Some((value, role?))).collect();
    if !roles.values().any(|role| *role == Role::Train) {
        if !values.is_empty() {
            let shown: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            found.note(format!("no part is called train ({}): all rows are trained on", some(&shown, shown.len())));
        }
        return vec![Some(Role::Train); rows.len()];
    }
    rows.iter().map(|row| row.split.as_deref().and_then(|value| roles.get(value).copied())).collect()
}

/// The folder that paths are relative to: the table's own, or a folder in it that contains the first image.
pub(super) fn base(file: &Path, first: &str) -> PathBuf {
    let own = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    if resolve(&own, first).exists() {
        return own;
    }
    let mut inside: Vec<PathBuf> = fs::read_dir(if own.as_os_str().is_empty() { Path::new(".") } else { &own })
        .map(|entries| entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
        .unwrap_or_default();
    inside.sort();
    inside.into_iter().find(|folder| resolve(folder, first).exists()).unwrap_or(own)
}

/// The file of the image `name`, whose ending may be left out.
pub(super) fn resolve(base: &Path, name: &str) -> PathBuf {
    let path = base.join(name);
    if path.exists() {
        return path;
    }
    // A table that was written on Windows.
    if name.contains('\\') {
        let other = base.join(name.replace('\\', "/"));
        if other.exists() {
            return other;
        }
    }
    if Path::new(name).extension().is_some() {
        return path;
    }
    let with = ENDINGS.iter().map(|ending| base.join(format!("{name}.{ending}")));
    with.into_iter().find(|path| path.exists()).unwrap_or(path)
}

impl Table {
    /// The images of the table `file`.
    ///
    /// # Errors
    /// No column of paths; no column of captions, where they are read; a column that is named and is not there.
    pub fn rows(&self, file: &Path, how: Reading, found: &mut Found) -> Result<Named> {
        let columns = how.columns;
        let at = |wish: &Option<String>, known: &[&str], key: &str| self.column(wish, known, key).at(file.display());
        let path = at(&columns.path, PATHS, "path")?.ok_or_else(|| {
            Error::usage(format!(
                "no column of this table is known to hold the paths of images: it has {}",
                self.header.join(", ")
            ))
            .at(file.display())
            .hint("name the column: --set data.columns.path=NAME; the first line of a table names its columns")
        })?;
        let label = at(&columns.label, LABELS, "label")?;
        let split = at(&columns.split, SPLITS, "split")?;
        let group = at(&columns.group, GROUPS, "group")?;
        let others: Vec<usize> = [Some(path), label, split, group].into_iter().flatten().collect();
        let captions = self.caption_columns(how, &others).at(file.display())?;
        if how.captions && captions.is_empty() {
            return Err(Error::usage(format!(
                "no column of this table is known to hold captions: it has {}",
                self.header.join(", ")
            ))
            .at(file.display())
            .hint(captions::HINT));
        }
        let named = |what: &'static str, column: Option<usize>| Some((what, self.header[column?].as_str()));
        let said = [named("paths", Some(path)), named("labels", label), named("parts", split), named("groups", group)];
        let captioned = captions.iter().filter_map(|column| named("captions", Some(*column)));
        found.note(holding(said.into_iter().flatten().chain(captioned)));

        let cells = self.rows.iter().map(|cells| {
            let cell = |column: Option<usize>| text(column.and_then(|c| cells.get(c)).cloned());
            let mut of = Captions::new();
            captions.iter().filter_map(|c| cells.get(*c)).for_each(|cell| captions::add_cell(&mut of, cell));
            Cells { path: cell(Some(path)), class: cell(label), split: cell(split), group: cell(group), captions: of }
        });
        let rows = named_images(file, cells, |row| self.rows[row].join(","), found);
        let captions = captions.iter().map(|column| self.header[*column].clone()).collect();
        Ok(Named { rows, by_column: split.is_some(), captions })
    }

    /// The columns with captions: those that are named, or else recognised, if they are not among the `others`. None if captions are not
    /// read, but a name that is not there is an error also then.
    pub fn caption_columns(&self, how: Reading, others: &[usize]) -> Result<Vec<usize>> {
        if let Some(names) = &how.columns.captions {
            let place = |name: &String| self.column(&Some(name.clone()), &[], "captions");
            let named: Vec<usize> = names.list().iter().filter_map(|name| place(name).transpose()).collect::<Result<_>>()?;
            return Ok(if how.captions { named } else { Vec::new() });
        }
        let names = self.header.iter().map(String::as_str).enumerate().filter(|(place, _)| !others.contains(place));
        Ok(if how.captions { captions::recognised(names) } else { Vec::new() })
    }

    /// The column that `wish` names, or else the first of `known` that exists.
    fn column(&self, wish: &Option<String>, known: &[&str], key: &str) -> Result<Option<usize>> {
        let place = |name: &str| self.header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        match wish {
            Some(name) => place(name).map(Some).ok_or_else(|| {
                Error::usage(format!("there is no column `{name}`: the table has {}", self.header.join(", ")))
                    .hint(format!("set data.columns.{key} to one of them"))
            }),
            None => Ok(known.iter().find_map(|name| place(name))),
        }
    }
}

/// The table `file`; the first line of one without a line of names is an image, its class or its caption, and its part.
///
/// # Errors
/// Text that is not UTF-8; rows of different lengths; lines that are not JSON.
pub(super) fn read(file: &Path, captions: bool) -> Result<Table> {
    let text = opened::text(file).hint("tables are text in UTF-8")?;
    let text = text.trim_start_matches('\u{feff}');
    let name = file_name(file).to_lowercase();
    if name.ends_with("jsonl") || name.ends_with("ndjson") {
        json(text)
    } else {
        separated(text, name.ends_with(".tsv"), file, captions)
    }
}

fn json(text: &str) -> Result<Table> {
    let mut table = Table { header: Vec::new(), rows: Vec::new() };
    let mut places: HashMap<String, usize> = HashMap::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).at(format!("line {number}"))?;
        let mut row = vec![String::new(); table.header.len()];
        for (key, value) in object {
            let cell = match value {
                serde_json::Value::Null => String::new(),
                serde_json::Value::String(text) => text,
                other => other.to_string(),
            };
            let place = *places.entry(key.clone()).or_insert_with(|| {
                table.header.push(key);
                table.header.len() - 1
            });
            row.resize(row.len().max(place + 1), String::new());
            row[place] = cell;
        }
        table.rows.push(row);
    }
    Ok(table)
}

/// Cells separated by tabs, or by whichever of comma, semicolon and tab is most frequent in the first line.
fn separated(text: &str, tabs: bool, file: &Path, captions: bool) -> Result<Table> {
    let first = text.lines().next().unwrap_or_default();
    let most = [b',', b';', b'\t'].into_iter().rev().max_by_key(|mark| first.bytes().filter(|byte| byte == mark).count());
    let delimiter = if tabs { b'\t' } else { most.unwrap_or(b',') };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(false).from_reader(text.as_bytes());
    let wrong = |e: csv::Error| {
        Error::new(format!("cannot read this table: {e}"))
            .hint("each line needs as many cells as the first; a cell with a comma in it needs quotes around it")
    };
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(record.map_err(wrong)?.iter().map(String::from).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return Ok(Table { header: Vec::new(), rows });
    }
    // A first line that is an image already is not a header.
    let bare = resolve(&base(file, &rows[0][0]), &rows[0][0]).is_file();
    let header = match bare {
        true if captions && rows[0].len() == 2 => ["path", "caption"].map(String::from).into(),
        true => ["path", "label", "split"].into_iter().map(String::from).take(rows[0].len()).collect(),
        false => rows.remove(0),
    };
    Ok(Table { header, rows })
}
