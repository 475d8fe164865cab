//! Reads a file as rows of cells: lines of text, TSV, CSV, JSON lines or Parquet.

use std::io::Read as _;
use std::path::Path;

use ctk_core::store::parquet::Parquet;
use ctk_core::{Context, Error, Result};
use serde_json::Value;

use super::columns::{Known, short_cell};
use super::recipe::Format;
use crate::cells::line_of;
use crate::corpus::Invalid;
use crate::files::{self, Encoding, Whole, whole};

/// A file's rows.
pub(crate) struct Table {
    /// The names of the columns, if the file has them.
    pub names: Option<Vec<String>>,
    /// Number of columns.
    pub columns: usize,
    content: Content,
}

enum Content {
    Lines(String),
    Tabs(String),
    Csv(String, u8),
    Json(String),
    Parquet(Parquet),
}

/// How a file is read.
pub(crate) struct Reading {
    pub format: Option<Format>,
    pub encoding: Encoding,
    pub invalid: Invalid,
}

/// Called with the number of each row, from 1 on, and its cells; none if a cell is empty. It says whether to go on.
pub(crate) type EachRow<'a> = &'a mut dyn FnMut(usize, &[Option<&str>]) -> Result<bool>;

impl Table {
    /// Opens `path`. The first row of TSV and CSV has the columns' names if `named` says so, or if it looks like that.
    ///
    /// # Errors
    /// A file that cannot be read, has another format, or has no row.
    pub fn open(path: &Path, reading: &Reading, named: bool, notes: &mut Vec<String>) -> Result<Table> {
        let format = match reading.format {
            None if is_parquet(path)? => Some(Format::Parquet),
            format => format,
        };
        if format == Some(Format::Parquet) {
            let table = Parquet::open(path)?;
            let names: Vec<String> = table.columns().iter().map(|column| column.name()).collect();
            let content = Content::Parquet(table);
            return Ok(Table { columns: names.len(), names: Some(names), content });
        }
        let Whole { text, notes: mut said } = whole(path, reading.encoding, reading.invalid)?;
        notes.append(&mut said);
        let Some(first) = text.lines().find(|line| !line.trim().is_empty()) else {
            return Err(Error::new("there is no text in this file").hint("a row has the texts of one sample"));
        };
        let format = format.or_else(|| by_name(path)).unwrap_or_else(|| by_content(&text, first, notes));
        Table::parse(text, format, named)
    }

    /// The table in `text`.
    ///
    /// # Errors
    /// Lines that are not JSON.
    fn parse(text: String, format: Format, named: bool) -> Result<Table> {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let content = match format {
            Format::Text => return Ok(Table { names: None, columns: 1, content: Content::Lines(text) }),
            Format::Jsonl => {
                let (names, columns) = keys(&text)?;
                return Ok(Table { names, columns, content: Content::Json(text) });
            }
            Format::Csv => {
                let delimiter = delimiter(first);
                Content::Csv(text, delimiter)
            }
            Format::Tsv | Format::Parquet => Content::Tabs(text),
        };
        let mut table = Table { names: None, columns: 0, content };
        let mut cells: Vec<String> = Vec::new();
        table.all(&mut |_, row| {
            cells = row.iter().map(|cell| cell.trim().trim_matches('"').to_string()).collect();
            Ok(row.iter().all(|cell| cell.trim().is_empty()))
        })?;
        table.columns = cells.len();
        if named || Known::is_header(&cells) {
            table.names = Some(cells);
        }
        Ok(table)
    }

    /// What a row is called in messages.
    pub fn row_word(&self) -> &'static str {
        if matches!(self.content, Content::Parquet(_)) { "row" } else { "line" }
    }

    /// Calls `each` with the cells of the columns `wanted`, in this order, for every row. A blank line is a row of empty cells.
    ///
    /// # Errors
    /// A row with another number of columns than the first; a cell that is not a text or a number; the errors of `each`.
    pub fn each(&self, wanted: &[usize], each: EachRow) -> Result<()> {
        match &self.content {
            Content::Json(text) => self.objects(text, wanted, each),
            Content::Parquet(table) => {
                let columns = wanted.iter().map(|column| table.texts(*column)).collect::<Result<Vec<_>>>()?;
                for row in 0..table.rows() {
                    let cells: Vec<Option<&str>> = columns.iter().map(|column| column[row].as_deref()).collect();
                    if !each(row + 1, &cells)? {
                        break;
                    }
                }
                Ok(())
            }
            _ => {
                let mut header = self.names.is_some();
                let empty = vec![None; wanted.len()];
                self.all(&mut |line, row| {
                    let blank = row.iter().all(|cell| cell.trim().is_empty());
                    if blank && (header || row.len() != self.columns) {
                        return if header { Ok(true) } else { each(line, &empty) };
                    }
                    if row.len() != self.columns {
                        return Err(Error::new(format!("this line has {} columns, not {}", row.len(), self.columns))
                            .at(format!("line {line}"))
                            .hint(
                                "all lines of a table need the same number of columns; in a .csv file a cell with commas or line ends \
                                 stands in quotes; data.format = \"text\" reads each line as one text",
                            ));
                    }
                    if std::mem::take(&mut header) {
                        return Ok(true);
                    }
                    let cells: Vec<Option<&str>> = wanted.iter().map(|column| Some(row[*column])).collect();
                    each(line, &cells)
                })
            }
        }
    }

    /// Calls `each` with all cells of every line of text, the header included.
    fn all(&self, each: &mut dyn FnMut(usize, &[&str]) -> Result<bool>) -> Result<()> {
        match &self.content {
            Content::Lines(text) => {
                for (line, number) in text.lines().zip(1..) {
                    if !each(number, &[line])? {
                        break;
                    }
                }
            }
            Content::Tabs(text) => {
                for (line, number) in text.lines().zip(1..) {
                    if !each(number, &line.split('\t').collect::<Vec<_>>())? {
                        break;
                    }
                }
            }
            Content::Csv(text, delimiter) => {
                let mut reader = csv::ReaderBuilder::new();
                reader.delimiter(*delimiter).has_headers(false).flexible(true);
                for record in reader.from_reader(text.as_bytes()).records() {
                    let record = record.map_err(Error::new)?;
                    let line = line_of(text, &record);
                    if !each(line, &record.iter().collect::<Vec<_>>())? {
                        break;
                    }
                }
            }
            Content::Json(_) | Content::Parquet(_) => {}
        }
        Ok(())
    }

    /// [`each`](Table::each) for JSON lines.
    fn objects(&self, text: &str, wanted: &[usize], each: EachRow) -> Result<()> {
        for (line, number) in text.lines().zip(1..) {
            if line.trim().is_empty() {
                if !each(number, &vec![None; wanted.len()])? {
                    break;
                }
                continue;
            }
            let place = || format!("line {number}");
            let value: Value = serde_json::from_str(line).at(place())?;
            let cell = |column: &usize| {
                let (cell, name) = match (&value, &self.names) {
                    (Value::Object(object), Some(names)) => (object.get(&names[*column]), names[*column].clone()),
                    (Value::Array(list), None) if list.len() == self.columns => (list.get(*column), (column + 1).to_string()),
                    (Value::Array(list), None) => {
                        let what = format!("this line has {} cells, not {}", list.len(), self.columns);
                        return Err(Error::new(what).at(place()).hint("all lines need the same number of cells"));
                    }
                    _ => {
                        return Err(Error::new("this line is of another kind than the first one")
                            .at(place())
                            .hint("a line is an object, {\"anchor\": …}, or a list of texts; all lines are alike"));
                    }
                };
                match cell {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text.clone())),
                    Some(Value::Array(_) | Value::Object(_)) => {
                        Err(Error::new(format!("the cell `{name}` is a list or an object, and has to be a text or a number"))
                            .at(place())
                            .hint("write a line for each positive, and several negatives as negative_1, negative_2, …"))
                    }
                    Some(other) => Ok(Some(other.to_string())),
                }
            };
            let cells = wanted.iter().map(cell).collect::<Result<Vec<Option<String>>>>()?;
            if !each(number, &cells.iter().map(Option::as_deref).collect::<Vec<_>>())? {
                break;
            }
        }
        Ok(())
    }

    /// The columns as messages list them, each with its first cell.
    pub fn shown(&self) -> Result<String> {
        let all: Vec<usize> = match &self.content {
            // A column of lists cannot be shown, and reading one only to show it takes long.
            Content::Parquet(_) => Vec::new(),
            _ => (0..self.columns).collect(),
        };
        let mut first = vec![String::new(); self.columns];
        if !all.is_empty() {
            self.each(&all, &mut |_, cells| {
                cells.iter().zip(&mut first).for_each(|(cell, first)| *first = short_cell(cell.unwrap_or_default()));
                Ok(cells.iter().all(Option::is_none))
            })?;
        }
        let shown = first.iter().enumerate().map(|(at, cell)| match (&self.names, all.is_empty()) {
            (Some(names), true) => format!("`{}`", names[at]),
            (Some(names), false) => format!("`{}` (“{cell}”)", names[at]),
            (None, _) => format!("{} (“{cell}”)", at + 1),
        });
        Ok(shown.collect::<Vec<_>>().join(", "))
    }
}

/// Whether a file is Parquet by its first bytes.
fn is_parquet(path: &Path) -> Result<bool> {
    if path == Path::new("-") {
        return Ok(false);
    }
    let mut head = Vec::new();
    files::open(path)?.take(4).read_to_end(&mut head)?;
    Ok(head == *b"PAR1" || ends_with(path, &[".parquet", ".pq"]))
}

/// Whether a file's name has one of these endings, besides one of compression.
fn ends_with(path: &Path, endings: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let packed = [".gz", ".bz2", ".xz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
    endings.iter().any(|ending| packed.unwrap_or(&name).ends_with(ending))
}

/// The format that a file's name tells. Whether a .txt file is a table is told by its content.
fn by_name(path: &Path) -> Option<Format> {
    let formats =
        [(Format::Tsv, &[".tsv", ".tab"][..]), (Format::Csv, &[".csv"]), (Format::Jsonl, &[".jsonl", ".ndjson", ".json"])];
    formats.into_iter().find(|(_, endings)| ends_with(path, endings)).map(|(format, _)| format)
}

/// JSON lines begin with an object; in a table all lines have equally many tabs. Anything else is one text a line.
fn by_content(text: &str, first: &str, notes: &mut Vec<String>) -> Format {
    if first.trim_start().starts_with('{') && serde_json::from_str::<serde_json::Map<String, Value>>(first).is_ok() {
        return Format::Jsonl;
    }
    let tabs = |line: &str| line.matches('\t').count();
    let wanted = tabs(first);
    if wanted == 0 || !text.lines().filter(|line| !line.trim().is_empty()).all(|line| tabs(line) == wanted) {
        return Format::Text;
    }
    notes.push(format!("every line has {wanted} tabs, so this is a table; data.format = \"text\" reads a text from each line"));
    Format::Tsv
}

/// The separator of a CSV file: the most frequent one in its first line.
fn delimiter(first: &str) -> u8 {
    let count = |mark: &u8| first.bytes().filter(|byte| byte == mark).count();
    [b'\t', b';', b','].into_iter().max_by_key(count).unwrap_or(b',')
}

/// The keys of all objects in the order in which they are met, or the number of cells of lists.
fn keys(text: &str) -> Result<(Option<Vec<String>>, usize)> {
    let mut names: Vec<String> = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let value: Value = serde_json::from_str(line).at(format!("line {number}")).hint("a line is one JSON object")?;
        match value {
            Value::Array(list) if names.is_empty() => return Ok((None, list.len())),
            Value::Object(object) => {
                names.extend(object.into_iter().map(|(key, _)| key).filter(|key| !names.contains(key)).collect::<Vec<_>>());
            }
            _ => {
                let what = "this line is not of the kind of the first one: a JSON object, or a list of texts";
                return Err(Error::new(what)
                    .at(format!("line {number}"))
                    .hint("all lines are alike, as in {\"anchor\": …, \"positive\": …}"));
            }
        }
    }
    Ok((Some(names.clone()), names.len()))
}
