//! Writes samples as a table that `[data]` reads again: TSV, CSV or JSON lines, by the file's name.

use std::io::Write;
use std::path::Path;

use ctk_core::store::files;
use ctk_core::{Error, Result};
use serde_json::{Map, Value};

use super::columns::short_cell;

/// How samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Cells between tabs, without quotes.
    Tsv,
    /// Cells between commas, some of them in quotes.
    Csv,
    /// An object on each line.
    Jsonl,
}

impl Layout {
    /// The layout that the name of a file tells.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Layout> {
        match path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase).as_deref() {
            Some("tsv") => Ok(Layout::Tsv),
            Some("csv") => Ok(Layout::Csv),
            Some("jsonl") => Ok(Layout::Jsonl),
            _ => Err(Error::usage("the file's name does not say its format")
                .at(path.display())
                .hint("samples are written to .tsv, .csv or .jsonl files")),
        }
    }

    /// Writes the file `path`: `names` of the columns, and rows with a text for each of them. Returns the number of rows.
    ///
    /// # Errors
    /// A text that the layout cannot hold; a file that cannot be written.
    pub fn write<'a>(self, path: &Path, names: &[String], rows: impl Iterator<Item = Vec<&'a str>>) -> Result<usize> {
        let mut count = 0;
        files::write_with(path, |out| match self {
            Layout::Tsv => {
                writeln!(out, "{}", names.join("\t"))?;
                for row in rows {
                    if let Some(cell) = row.iter().find(|cell| cell.contains(['\t', '\n', '\r'])) {
                        let what = format!("a text has a tab or a line end, which .tsv cannot hold: “{}”", short_cell(cell));
                        return Err(Error::new(what).hint("write a .csv or .jsonl file"));
                    }
                    writeln!(out, "{}", row.join("\t"))?;
                    count += 1;
                }
                Ok(())
            }
            Layout::Csv => {
                let mut table = csv::Writer::from_writer(out);
                table.write_record(names).map_err(Error::new)?;
                for row in rows {
                    table.write_record(row).map_err(Error::new)?;
                    count += 1;
                }
                Ok(table.flush()?)
            }
            Layout::Jsonl => {
                for row in rows {
                    let cells = names.iter().zip(row).map(|(name, cell)| (name.clone(), cell.into()));
                    writeln!(out, "{}", Value::Object(cells.collect::<Map<String, Value>>()))?;
                    count += 1;
                }
                Ok(())
            }
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Kind;
    use crate::pairs::recipe::SentencesDataRecipe;
    use crate::recipe::Paths;

    #[test]
    fn what_is_written_is_read_again_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["anchor", "positive", "negative_1", "negative_2"].map(String::from);
        let rows = [["a, \"b\"", "ü 日本", "'c;", "-1"], ["#e", "=f", "\"g", "h\\n"]];
        for name in ["a.tsv", "b.CSV", "c.jsonl"] {
            let path = folder.path().join(name);
            let layout = Layout::of(&path).unwrap();
            assert_eq!(layout.write(&path, &names, rows.iter().map(|row| row.to_vec())).unwrap(), 2);
            let recipe =
                SentencesDataRecipe { path: Some(Paths::One(path.display().to_string())), ..SentencesDataRecipe::default() };
            let read = recipe.open().unwrap().train;
            assert_eq!((read.kind(), read.columns(), read.samples()), (Kind::Triplets, 4, 2), "{name}");
            for (sample, row) in rows.iter().enumerate() {
                (0..4).for_each(|column| assert_eq!(read.text(sample, column), row[column], "{name}"));
            }
            let odd = layout.write(&path, &names[..1], [vec!["two\nlines"]].into_iter());
            assert_eq!(odd.is_err(), layout == Layout::Tsv, "{name}");
        }
        assert_eq!(Layout::of(Path::new("a.txt")).unwrap_err().exit_code(), 2);
    }
}
