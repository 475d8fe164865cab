//! Splits the text of a table into rows of fields: tab-separated lines as they are, or CSV with quoted cells.

use std::path::Path;

use ctk_core::{Error, Result};

/// A row's line number, from 1, and its fields.
pub(crate) type Row<'a> = (usize, Vec<&'a str>);

/// The name of a file in lower case, without the ending of its compression.
pub(crate) fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let packed = [".gz", ".bz2", ".xz", ".zst"].iter().find_map(|ending| name.strip_suffix(ending));
    packed.unwrap_or(&name).to_string()
}

/// The lines that are not empty, split at tabs. Quotes are characters like others.
pub(crate) fn tabbed(text: &str) -> Vec<Row<'_>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(number, line)| (number + 1, line.split('\t').collect())).collect()
}

/// The records of a CSV file that are not empty, each with its line number.
///
/// # Errors
/// A record that cannot be read.
pub(crate) fn quoted(text: &str, separator: u8) -> Result<Vec<(usize, csv::StringRecord)>> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(separator).has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut cells = Vec::new();
    for record in reader.records() {
        let record = record.map_err(Error::new)?;
        if record.iter().any(|cell| !cell.trim().is_empty()) {
            cells.push((line_of(text, &record), record));
        }
    }
    Ok(cells)
}

/// The line of `text`, from 1, in which a record of it begins.
pub(crate) fn line_of(text: &str, record: &csv::StringRecord) -> usize {
    let Some(at) = record.position() else { return 0 };
    // The library stands before what is left of the line end of the record before, and before empty lines.
    let before = text.as_bytes().get(at.byte() as usize..).unwrap_or_default().iter();
    at.line() as usize + before.take_while(|byte| matches!(byte, b'\n' | b'\r')).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_begin_in_the_line_that_an_editor_shows() {
        for end in ["\n", "\r\n"] {
            let text = ["a,b", "\"one", "two\",2", "", "", "c,d", "e,f"].join(end);
            let lines: Vec<usize> = quoted(&text, b',').unwrap().iter().map(|(line, _)| *line).collect();
            assert_eq!(lines, [1, 2, 6, 7], "{end:?}");
        }
    }
}
