//! Tables of images: CSV, TSV or JSON lines, a row an image. Columns are found by their names, or named by `data.columns`.
//!
//! A row has the path of an image, from the table's own folder on; and, where there are such columns, its class, its part and its group
//! (a patient, a video): images of one group stay on one side of a hold-out. A row without a class is trained on without. An image of
//! several rows is one image; where these rows name several classes, it has none.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::{Context, Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::content::{self, Classes, Content, Labels};
use super::parts::{self, Role};
use super::report::{Found, count, some};
use super::tree::Leaf;
use super::{Splits, Stored, file_name};

/// `[data.columns]`: what the columns of a table are called. Absent ones are found by the names that people use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The column with the path of each image.
    pub path: Option<String>,
    /// The column with its class.
    pub label: Option<String>,
    /// The column with its part: train, val, test.
    pub split: Option<String>,
    /// The column with what it belongs to (a patient, a video): a hold-out never splits a group.
    pub group: Option<String>,
}

const PATHS: &[&str] = &[
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
const LABELS: &[&str] = &[
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
const SPLITS: &[&str] = &["split", "part", "set", "subset", "partition"];
const GROUPS: &[&str] = &["group", "group_id", "patient", "patient_id", "subject", "subject_id", "video", "video_id"];

/// Endings that a path may leave out.
const ENDINGS: [&str; 4] = ["jpg", "png", "jpeg", "tif"];

/// Whether a file's name is that of a table.
pub(super) fn is_table(name: &str) -> bool {
    let name = name.to_lowercase();
    [".csv", ".tsv", ".jsonl", ".ndjson"].iter().any(|end| name.ends_with(end))
}

/// Rows of cells under the names of their columns.
struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// What is known of an image.
struct Row {
    class: Option<String>,
    several: bool,
    split: Option<String>,
    group: Option<Arc<str>>,
}

pub(super) fn open(file: &Path, columns: &Columns) -> Result<Splits> {
    let mut found = Found::default();
    let table = read(file).at(file.display())?;
    let at = |wish: &Option<String>, known: &[&str], key: &str| table.column(wish, known, key).at(file.display());
    let path = at(&columns.path, PATHS, "path")?.ok_or_else(|| {
        Error::usage(format!("no column of this table is known to hold the paths of images: it has {}", table.header.join(", ")))
            .at(file.display())
            .hint("name the column: --set data.columns.path=NAME; the first line of a table names its columns")
    })?;
    let label = at(&columns.label, LABELS, "label")?;
    let split = at(&columns.split, SPLITS, "split")?;
    let group = at(&columns.group, GROUPS, "group")?;
    let named = |what: &str, column: Option<usize>| Some(format!("`{}` holds {what}", table.header[column?]));
    let said = [named("paths", Some(path)), named("labels", label), named("parts", split), named("groups", group)];
    found.note(format!("of the table's columns, {}", said.into_iter().flatten().collect::<Vec<_>>().join(", ")));

    let mut rows: Vec<(String, Row)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut again = 0;
    for cells in &table.rows {
        let cell = |column: Option<usize>| column.and_then(|c| cells.get(c)).map(|c| c.trim()).filter(|c| !c.is_empty());
        let Some(name) = cell(Some(path)) else {
            found.pass_over("row without a path", &cells.join(","));
            continue;
        };
        let class = cell(label).map(String::from);
        match places.get(name) {
            Some(&place) => {
                again += 1;
                let before = &mut rows[place].1;
                before.several |= before.class != class;
            }
            None => {
                places.insert(name.to_string(), rows.len());
                let of = Row { class, several: false, split: cell(split).map(String::from), group: cell(group).map(Arc::from) };
                rows.push((name.to_string(), of));
            }
        }
    }
    found.files = rows.len() + found.unread();
    if again > 0 {
        let several = rows.iter().filter(|(_, row)| row.several).count();
        let without =
            if several > 0 { format!("; {} of several classes: without one", count(several, "image")) } else { String::new() };
        found.note(format!("{again} rows name an image that another row names: it is read once{without}"));
    }
    if rows.is_empty() {
        return Err(Error::usage("this table has no row")
            .at(file.display())
            .hint("a row an image, below a line with the columns' names"));
    }
    let base = base(file, &rows[0].0);
    let roles = of_parts(&rows, &mut found);
    let mut of: [(Classes, Vec<Leaf>); 4] = Default::default();
    for ((name, row), role) in rows.into_iter().zip(roles) {
        let Some(role) = role else {
            found.pass_over("image outside the parts", &name);
            continue;
        };
        let leaf = Leaf { stored: Stored::File(resolve(&base, &name)), path: name, group: row.group };
        let (classes, loose) = &mut of[role as usize];
        match row.class.filter(|_| !row.several) {
            Some(class) => classes.entry(class).or_default().push(leaf),
            None => loose.push(leaf),
        }
    }
    let of = of.map(|(classes, loose)| Content::sorted(classes, loose));
    let by = if split.is_some() { "by the table" } else { "every row of the table" };
    Ok(content::splits("", of, Labels::Forced, by, found))
}

/// The part of each row; nothing where its column says something else than the others.
fn of_parts(rows: &[(String, Row)], found: &mut Found) -> Vec<Option<Role>> {
    let mut values: Vec<&str> = rows.iter().filter_map(|(_, row)| row.split.as_deref()).collect();
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
    rows.iter().map(|(_, row)| row.split.as_deref().and_then(|value| roles.get(value).copied())).collect()
}

/// The folder that paths begin in: the table's own, or one in it, where the first image lies there.
fn base(file: &Path, first: &str) -> PathBuf {
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

/// Where the image `name` lies, whose ending may be left out.
fn resolve(base: &Path, name: &str) -> PathBuf {
    let path = base.join(name);
    if path.exists() || Path::new(name).extension().is_some() {
        return path;
    }
    let with = ENDINGS.iter().map(|ending| base.join(format!("{name}.{ending}")));
    with.into_iter().find(|path| path.exists()).unwrap_or(path)
}

impl Table {
    /// The column that is wished for, or else the first of `known` that there is.
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

fn read(file: &Path) -> Result<Table> {
    let text = fs::read_to_string(file).hint("tables are text in UTF-8")?;
    let text = text.trim_start_matches('\u{feff}');
    let name = file_name(file).to_lowercase();
    if name.ends_with("jsonl") || name.ends_with("ndjson") { json(text) } else { separated(text, name.ends_with(".tsv"), file) }
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

/// Cells between tabs, or between the commas, semicolons or tabs that the first line has most of.
fn separated(text: &str, tabs: bool, file: &Path) -> Result<Table> {
    let first = text.lines().next().unwrap_or_default();
    let most = [b',', b';', b'\t'].into_iter().rev().max_by_key(|mark| first.bytes().filter(|byte| byte == mark).count());
    let delimiter = if tabs { b'\t' } else { most.unwrap_or(b',') };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(false).from_reader(text.as_bytes());
    let wrong =
        |e: csv::Error| Error::new(format!("cannot read this table: {e}")).hint("each line needs as many cells as the first");
    let mut rows = Vec::new();
    for record in reader.records() {
        rows.push(record.map_err(wrong)?.iter().map(String::from).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return Ok(Table { header: Vec::new(), rows });
    }
    // A first line that is an image already names no columns.
    let bare = resolve(&base(file, &rows[0][0]), &rows[0][0]).is_file();
    let header = match bare {
        true => ["path", "label", "split"].into_iter().map(String::from).take(rows[0].len()).collect(),
        false => rows.remove(0),
    };
    Ok(Table { header, rows })
}
