//! stdout and stderr: data on one, words on the other. A reader that has gone away is no error.

use std::io::{ErrorKind, Write};

pub use ctk_core::error::printable;
use ctk_core::error::{Error, Result};
use ctk_core::eval::{Features, NOTES};

/// Writes to stdout.
pub fn bytes(data: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::from),
    }
}

/// One line to stdout.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// One line to stderr. What a terminal would obey, in a file's name for instance, is printed as its escape.
pub fn say(text: impl std::fmt::Display) {
    // A closed stderr leaves no place to report it.
    let _ = writeln!(std::io::stderr(), "{}", printable(&text.to_string()));
}

/// What is to be said of rows, as notes; they are taken off, being no figures.
pub fn notes(features: &mut Features, quiet: bool) {
    for (_, notes) in features.extras.extract_if(.., |(name, _)| *name == NOTES) {
        let notes = notes.as_array().into_iter().flatten().filter_map(|note| note.as_str());
        notes.filter(|_| !quiet).for_each(|note| say(format!("note: {note}")));
    }
}

/// An error, the way a user reads it.
pub fn error(error: &Error) {
    say(format!("error: {error}"));
}

/// Figures for people (one a line) or for scripts (one JSON object).
pub fn figures(json: bool, figures: &serde_json::Value) -> Result<()> {
    if json {
        return line(figures);
    }
    let Some(map) = figures.as_object() else { return line(figures) };
    let width = map.keys().map(|k| k.len()).max().unwrap_or(0);
    map.iter().try_for_each(|(key, value)| line(format!("{:width$}  {}", key.replace('_', " "), cell(value))))
}

/// Rows of the same figures for people (a table) or for scripts (one JSON object with a list called `name`).
pub fn rows(json: bool, name: &str, rows: &[serde_json::Value]) -> Result<()> {
    if json {
        return line(serde_json::json!({ name: rows }));
    }
    let Some(header) = rows.first().and_then(|row| row.as_object()) else { return Ok(()) };
    let header: Vec<String> = header.keys().map(|key| key.replace('_', " ")).collect();
    let cells = rows.iter().filter_map(|row| Some(row.as_object()?.values().map(cell).collect()));
    let table: Vec<Vec<String>> = std::iter::once(header).chain(cells).collect();
    let width = |column: usize| table.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..table[0].len()).map(width).collect();
    table.iter().try_for_each(|row| {
        // Names to the left, figures to the right.
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| if at == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") });
        line(cells.collect::<Vec<_>>().join("  "))
    })
}

/// A name for people: characters that would move the cursor are written as escapes.
pub fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A share for people: percent, one digit.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_string(),
        serde_json::Value::String(s) => shown(s),
        serde_json::Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or(f64::NAN)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_in_names_are_printed_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[31mb\r\n\tc é"), "a\\u{1b}[31mb\\r\n\tc é");
        assert_eq!(cell(&serde_json::json!("x\u{7}")), "x\\u{7}");
    }
}
