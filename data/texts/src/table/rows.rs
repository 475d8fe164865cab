//! Reads the rows of a table: tab-separated lines, or CSV with quoted cells.

use std::collections::BTreeSet;
use std::path::Path;

use ctk_core::{Error, Result};

use super::Texts;
use super::columns::{Columns, Wish, is_text};
use crate::cells::{Row, plain_name, quoted, tabbed};

/// Whether a file's name is that of a CSV file.
pub fn is_csv(path: &Path) -> bool {
    plain_name(path).ends_with(".csv")
}

/// Parses a table, of which the columns of `wish` are used if there are any.
///
/// # Errors
/// A line without its columns, a column that there is not, or no text at all.
pub fn parse(text: &str, csv: bool, wish: &Wish) -> Result<Texts> {
    let lines = || text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let Some((_, first)) = lines().next() else { return Err(Error::new("there is no text in this file")) };
    let separator = if csv { Some(separator(first)) } else { named_cells(first) };
    if let Some(separator) = separator {
        let cells = quoted(text, separator)?;
        let rows: Vec<Row> = cells.iter().map(|(line, record)| (*line, record.iter().collect())).collect();
        if rows.iter().any(|(_, row)| row.len() > 1) {
            return table(rows, usize::MAX, wish);
        }
        let named = rows.len() > 1 && is_text(rows[0].1[0]);
        return Ok(bare(rows.iter().skip(usize::from(named)).map(|(_, row)| row[0])));
    }
    if !first.contains('\t') {
        return Ok(bare(lines().map(|(_, line)| line)));
    }
    table(tabbed(text), 2, wish)
}

/// Texts without classes.
fn bare<'a>(lines: impl Iterator<Item = &'a str>) -> Texts {
    let mut texts = Texts::default();
    for line in lines {
        texts.names.push(line.trim().to_string());
        texts.texts.push(line.to_string());
    }
    texts
}

/// The separator of a CSV file, by its first line.
fn separator(first: &str) -> u8 {
    let named = |separator: &char| Columns::named(&first.split(*separator).collect::<Vec<_>>()).is_some();
    let all = [',', ';', '\t', '|'];
    let found = all.iter().find(|c| named(c)).or_else(|| all.iter().find(|c| first.contains(**c)));
    found.map_or(b',', |c| *c as u8)
}

/// The separator of a file that is not named .csv, if its first line has comma-separated names of a label and a text.
fn named_cells(first: &str) -> Option<u8> {
    let named = |c: &char| {
        let names: Vec<&str> = first.split(*c).collect();
        !first.contains('\t')
            && names.iter().all(|name| !name.trim().contains(' '))
            && Columns::named(&names).is_some_and(|c| c.label.is_some())
    };
    [',', ';'].iter().find(|c| named(c)).map(|c| *c as u8)
}

/// A table of rows, the first of which may name the columns. Without names, rows of different lengths have at most `most` fields: further
/// fields belong to the last one, because a text may contain tabs.
fn table(rows: Vec<Row>, most: usize, wish: &Wish) -> Result<Texts> {
    let mut joined = Vec::new();
    let mut rows = rows;
    let (named, header) = wish.columns(&rows[0].1)?;
    let count = match &named {
        Some(columns) => columns.escaped.len(),
        None if most < rows[0].1.len() && rows.iter().any(|(_, row)| row.len() != rows[0].1.len()) => most,
        None => rows[0].1.len(),
    };
    if header {
        rows.remove(0);
    }
    for (place, (line, row)) in rows.iter_mut().enumerate() {
        if most < usize::MAX && row.len() > count {
            // The fields of a line are parts of it with a tab between them.
            joined.push((place, row[count - 1..].join("\t")));
            row.truncate(count);
        }
        if row.len() != count {
            return Err(Error::new(format!("this line has {} columns, not {count}", row.len()))
                .at(format!("line {line}"))
                .hint("a line is `label`, tab, text; in a .csv file cells with commas or line ends in them stand in quotes"));
        }
    }
    for (place, text) in &joined {
        rows[*place].1[count - 1] = text;
    }
    if rows.is_empty() {
        return Err(Error::new("there is no text in this file"));
    }
    let columns = named.unwrap_or_else(|| {
        let fields: Vec<Vec<&str>> = rows.iter().map(|(_, row)| row.clone()).collect();
        Columns::unnamed(&fields, count, if most < usize::MAX { "\t" } else { "\n" })
    });
    fill(&rows, columns)
}

/// The texts of rows that have these columns.
pub(crate) fn fill(rows: &[Row], columns: Columns) -> Result<Texts> {
    let mut texts = Texts::default();
    let (mut labels, mut test) = (Vec::new(), Vec::new());
    for (line, fields) in rows {
        if let Some(split) = columns.split {
            test.push(match fields[split].trim() {
                "train" => false,
                "test" => true,
                other => {
                    let what = format!("`{other}` is not a part: a text belongs to `train` or to `test`");
                    return Err(Error::new(what).at(format!("line {line}")).hint("a line is `label`, tab, text"));
                }
            });
        }
        let field = |&at: &usize| if columns.escaped[at] { unescape(fields[at]) } else { fields[at].to_string() };
        let text = columns.text.iter().map(field).collect::<Vec<_>>().join(columns.between);
        texts.names.push(if columns.label.is_some() { line.to_string() } else { text.trim().to_string() });
        texts.texts.push(text);
        labels.extend(columns.label.map(|label| fields[label].trim()));
    }
    if columns.label.is_some() {
        let classes: Vec<&str> = labels.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        // The names are sorted, so each label is found by binary search.
        texts.labels = Some(labels.iter().map(|label| classes.partition_point(|name| name < label) as u32).collect());
        texts.classes = classes.into_iter().map(String::from).collect();
    }
    texts.test = columns.split.map(|_| test);
    texts.notes.extend(columns.note);
    Ok(texts)
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('t')) => out.push('\t'),
            ('\\', Some('r')) => out.push('\r'),
            ('\\', Some(other)) => out.push(other),
            _ => out.push(c),
        }
    }
    out
}
