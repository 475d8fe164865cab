//! Features as a Parquet table: `name`, `label`, `split`, and `embedding`, a list of f32 in each row.
//!
//! Labels and parts are as in `csv.rs`: cells are empty if they are unknown. Any Parquet table with columns `name` and `embedding` can be
//! read, whatever other columns it has.

use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::eval::Features;
use crate::store::parquet::{self, Cells, Kind, Parquet};

const NAME: &str = "name";
const LABEL: &str = "label";
const SPLIT: &str = "split";
const VALUES: &str = "embedding";

pub(super) fn is_features(path: &Path) -> bool {
    path.is_file() && Parquet::open(path).is_ok_and(|table| values(&table).is_some() && column(&table, NAME).is_some())
}

/// The column of that name, with one value in each row.
fn column(table: &Parquet, name: &str) -> Option<usize> {
    table.columns().iter().position(|column| column.parts == [name] && !column.listed)
}

/// The column with lists of numbers.
fn values(table: &Parquet) -> Option<usize> {
    table.columns().iter().position(|column| column.parts[0] == VALUES && column.listed && column.kind == Kind::Real)
}

pub(super) fn write(features: &Features, out: impl Write + Send) -> Result<()> {
    let labels: Vec<Option<String>> = (0..features.len()).map(|i| features.label_text(i)).collect();
    let part = |i: usize| features.parts.get(i).map(String::as_str).filter(|part| !part.is_empty());
    parquet::write(
        out,
        &[
            (NAME, Cells::Texts(features.names.iter().map(|name| Some(name.as_str())).collect())),
            (LABEL, Cells::Texts(labels.iter().map(Option::as_deref).collect())),
            (SPLIT, Cells::Texts((0..features.len()).map(part).collect())),
            (VALUES, Cells::Rows(&features.rows, features.width)),
        ],
    )
}

pub(super) fn read(path: &Path) -> Result<Features> {
    let table = Parquet::open(path)?;
    let (Some(names), Some(values)) = (column(&table, NAME), values(&table)) else {
        return Err(Error::new("this is not a table of features: it has no columns `name` and `embedding` (lists of numbers)")
            .hint("`ctk embed RUN --out FILE.parquet` writes one"));
    };
    let told = |name: &str| match column(&table, name) {
        Some(column) => Ok(table.texts(column)?.into_iter().map(Option::unwrap_or_default).collect()),
        None => Ok::<Vec<String>, Error>(Vec::new()),
    };
    let (rows, width) = table.numbers(values)?;
    let names = table.texts(names)?.into_iter().map(Option::unwrap_or_default).collect();
    let features = Features { rows, width, names, parts: told(SPLIT)?, ..Features::default() };
    Ok(features.told(&told(LABEL)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_with_odd_names_and_every_bit_of_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        let some = Features {
            rows: vec![1.5, -2.0, f32::MIN_POSITIVE, 0.1, 7.0, 1e30],
            width: 2,
            names: vec!["a/b.png".into(), "two\nlines, \"quoted\"".into(), " ümlaut\t".into()],
            labels: Some(vec![1, 0, 1]),
            classes: vec!["cat".into(), "dog, big".into()],
            parts: vec!["train".into(), String::new(), "test".into()],
            extras: vec![],
        };
        some.save(&path).unwrap();
        let columns: Vec<String> = Parquet::open(&path).unwrap().columns().iter().map(|column| column.name()).collect();
        assert!(is_features(&path) && columns == ["name", "label", "split", "embedding.list.element"], "{columns:?}");
        let back = Features::load(&path).unwrap();
        assert_eq!((&back.rows, back.width, &back.names, &back.parts), (&some.rows, 2, &some.names, &some.parts));
        assert_eq!((&back.labels, &back.classes), (&some.labels, &some.classes));
        let bare = Features { labels: None, classes: vec![], parts: vec![], ..some };
        bare.save(&path).unwrap();
        let back = Features::load(&path).unwrap();
        assert_eq!((back.labels, back.classes, back.parts, back.rows), (None, vec![], vec![], bare.rows));
        // Another kind of table with the same ending.
        crate::store::files::write_with(&path, |out| parquet::write(out, &[("name", Cells::Texts(vec![Some("a")]))])).unwrap();
        let error = Features::load(&path).unwrap_err().to_string();
        assert!(!is_features(&path) && error.contains("not a table of features") && error.contains("x.parquet"), "{error}");
    }
}
