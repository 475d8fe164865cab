//! Output: results to stdout, messages to stderr. A reader that closed its end of the pipe is no error.

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

/// Writes one line to stdout.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes one line to stderr. Control characters, in a file's name for instance, are printed as escapes.
pub fn say(text: impl std::fmt::Display) {
    // If stderr is closed there is no place to report that.
    let _ = writeln!(std::io::stderr(), "{}", printable(&text.to_string()));
}

/// Prints a note. A warning needs no further word before it.
pub fn note(text: &str) {
    if text.starts_with("warning: ") { say(text) } else { say(format!("note: {text}")) }
}

/// Prints what the model has to say about rows as notes, and removes it from the figures.
pub fn notes(features: &mut Features, quiet: bool) {
    for (_, notes) in features.extras.extract_if(.., |(name, _)| *name == NOTES) {
        let notes = notes.as_array().into_iter().flatten().filter_map(|note| note.as_str());
        notes.filter(|_| !quiet).for_each(note);
    }
}

/// Prints an error with its hint.
pub fn error(error: &Error) {
    say(format!("error: {error}"));
}

/// Figures for people (one a line) or for scripts (one JSON object).
pub fn figures(json: bool, figures: &serde_json::Value) -> Result<()> {
    if json {
        return line(figures);
    }
    let Some(map) = figures.as_object() else { return line(figures) };
    let told: Vec<(String, String)> =
        map.iter().filter(|(_, value)| !is_empty(value)).map(|(key, value)| (title(key), cell(key, value))).collect();
    let width = told.iter().map(|(title, _)| title.len()).max().unwrap_or(0);
    told.iter().try_for_each(|(title, value)| line(format!("{title:width$}  {value}")))
}

/// The title of the figure `key` for people; a time has its unit beside its value.
fn title(key: &str) -> String {
    match key {
        "seconds" => "time".to_string(),
        _ => key.strip_suffix("_seconds").map_or(key.to_string(), |of| format!("{of}_time")).replace('_', " "),
    }
}

/// Whether there is nothing to tell people: an empty list or an empty table of counts.
fn is_empty(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

/// Rows of the same figures for people (a table) or for scripts (one JSON object with a list called `name`).
pub fn rows(json: bool, name: &str, rows: &[serde_json::Value]) -> Result<()> {
    if json {
        return line(serde_json::json!({ name: rows }));
    }
    let Some(header) = rows.first().and_then(|row| row.as_object()) else { return Ok(()) };
    let header: Vec<String> = header.keys().map(|key| title(key)).collect();
    let cells = rows.iter().filter_map(|row| Some(row.as_object()?.iter().map(|(key, value)| cell(key, value)).collect()));
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

/// A name to print: control characters are written as escapes.
pub fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A fraction as a percentage with one digit.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Figures that are fractions of 1, by their JSON keys. They are printed as percentages; `--json` has the fractions.
const FRACTIONS: [&str; 16] = [
    "accuracy",
    "agreement",
    "analogy",
    "best_value",
    "ece",
    "ece_calibrated",
    "mean_class_accuracy",
    "missing",
    "precision",
    "purity",
    "random_mean",
    "random_sd",
    "recall",
    "semantic",
    "syntactic",
    "top5",
];

/// The figure `key` as people read it: a percentage or a time with its unit, else a number with so many digits after the point.
pub fn figure(key: &str, value: f64, digits: usize) -> String {
    match key {
        _ if FRACTIONS.contains(&key) || key.ends_with("top1") => format!("{} %", percent(value)),
        _ if key.ends_with("seconds") => format!("{value:.1} s"),
        "epochs" => format!("{value:.2}"),
        _ => format!("{value:.digits$}"),
    }
}

fn cell(key: &str, value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_string(),
        serde_json::Value::String(s) => shown(s),
        serde_json::Value::Number(n) if n.is_f64() => figure(key, n.as_f64().unwrap_or(f64::NAN), 4),
        serde_json::Value::Object(counts) if counts.values().all(serde_json::Value::is_u64) => counted(key, counts),
        other => other.to_string(),
    }
}

/// Entries of a table of counts that are printed.
const COUNTED: usize = 4;

/// A table of counts as people read it: how many entries it has (of files that were not read: how many files), and the first ones.
fn counted(key: &str, counts: &serde_json::Map<String, serde_json::Value>) -> String {
    let number = match key {
        "not_read" => counts.values().filter_map(serde_json::Value::as_u64).sum(),
        _ => counts.len() as u64,
    };
    let first: Vec<String> = counts.iter().take(COUNTED).map(|(name, count)| format!("{} {count}", shown(name))).collect();
    let more = if counts.len() > COUNTED { ", …" } else { "" };
    format!("{number} ({}{more})", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_counts_are_shortened() {
        let counts = |number: usize| (0..number).map(|i| (format!("c{i}"), i.into())).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(cell("classes", &counts(2)), "2 (c0 0, c1 1)");
        assert_eq!(cell("classes", &counts(9)), "9 (c0 0, c1 1, c2 2, c3 3, …)");
        assert_eq!(cell("not_read", &serde_json::json!({ "txt": 2, "pdf": 3 })), "5 (txt 2, pdf 3)");
        assert!(is_empty(&counts(0)) && is_empty(&serde_json::json!([])) && !is_empty(&serde_json::json!(0)));
    }

    #[test]
    fn figures_are_printed_with_their_units() {
        for (key, value, text) in [
            ("knn_top1", 0.5, "50.0 %"),
            ("missing", 0.015, "1.5 %"),
            ("total_seconds", 61.25, "61.2 s"),
            ("spearman", 0.5, "0.5000"),
        ] {
            assert_eq!(cell(key, &serde_json::json!(value)), text);
        }
        assert_eq!(cell("missing", &serde_json::json!(3)), "3", "a count is no fraction");
        assert_eq!(["seconds", "total_seconds", "knn_top1"].map(title), ["time", "total time", "knn top1"]);
    }

    #[test]
    fn escapes_in_names_are_printed_and_not_obeyed() {
        assert_eq!(printable("a\u{1b}[31mb\r\n\tc é"), "a\\u{1b}[31mb\\r\n\tc é");
        assert_eq!(cell("name", &serde_json::json!("x\u{7}")), "x\\u{7}");
    }
}
