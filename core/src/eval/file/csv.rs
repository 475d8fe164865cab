//! Features as a table of comma-separated values: `name`, `label`, `split`, then one column for each value, `f0`, `f1`, ….
//!
//! A label is the class's name, or its number if classes have no names; a cell is empty if label or part is unknown. When such a file is
//! read, classes are numbered by their sorted names.

use std::io::{Read, Write};
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::eval::Features;
use crate::opened;

const COLUMNS: [&str; 3] = ["name", "label", "split"];

pub(super) fn is_features(path: &Path) -> bool {
    let begins = format!("{},f0", COLUMNS.join(","));
    let mut start = Vec::new();
    let read = opened::open(path).map(|file| file.take(begins.len() as u64).read_to_end(&mut start));
    matches!(read, Ok(Ok(_))) && start == begins.as_bytes()
}

pub(super) fn write(features: &Features, out: impl Write) -> Result<()> {
    let mut table = csv::Writer::from_writer(out);
    let header = COLUMNS.map(String::from).into_iter().chain((0..features.width).map(|at| format!("f{at}")));
    table.write_record(header).map_err(Error::new)?;
    for (i, name) in features.names.iter().enumerate() {
        table.write_field(name).map_err(Error::new)?;
        table.write_field(features.label_text(i).unwrap_or_default()).map_err(Error::new)?;
        table.write_field(features.parts.get(i).map_or("", String::as_str)).map_err(Error::new)?;
        // The shortest decimals that are read back as the same numbers.
        features.row(i).iter().try_for_each(|value| table.write_field(value.to_string())).map_err(Error::new)?;
        table.write_record(None::<&[u8]>).map_err(Error::new)?;
    }
    Ok(table.flush()?)
}

pub(super) fn read(path: &Path) -> Result<Features> {
    let mut table = csv::Reader::from_path(path).map_err(Error::new)?;
    let header = table.headers().map_err(Error::new)?;
    if !header.iter().take(COLUMNS.len()).eq(COLUMNS) || header.len() == COLUMNS.len() {
        return Err(Error::new("this is not a table of features: its columns are not name, label, split, f0, …")
            .hint("`ctk embed RUN --out FILE.csv` writes one"));
    }
    let mut features = Features { width: header.len() - COLUMNS.len(), ..Features::default() };
    let mut labels = Vec::new();
    for (at, record) in table.records().enumerate() {
        let record = record.map_err(Error::new)?;
        let field = |column: usize| record.get(column).unwrap_or_default().to_string();
        features.names.push(field(0));
        labels.push(field(1));
        features.parts.push(field(2));
        for value in record.iter().skip(COLUMNS.len()) {
            let number = value.trim().parse::<f32>();
            features
                .rows
                .push(number.map_err(|_| Error::new(format!("`{value}` is not a number"))).at(format!("row {}", at + 1))?);
        }
    }
    Ok(features.told(&labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_with_odd_names_and_every_bit_of_its_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
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
        assert!(
            is_features(&path)
                && std::fs::read_to_string(&path).unwrap().starts_with("name,label,split,f0,f1\na/b.png,\"dog, big\",")
        );
        let back = Features::load(&path).unwrap();
        assert_eq!((&back.rows, back.width, &back.names, &back.parts), (&some.rows, 2, &some.names, &some.parts));
        assert_eq!((&back.labels, &back.classes), (&some.labels, &some.classes));
        let bare = Features { labels: None, classes: vec![], parts: vec![], ..some };
        bare.save(&path).unwrap();
        let back = Features::load(&path).unwrap();
        assert_eq!((back.labels, back.classes, back.parts, back.rows), (None, vec![], vec![], bare.rows));
        for (text, part) in [("name,label\na,b\n", "name, label, split"), ("name,label,split,f0\na,,,x\n", "`x` is not a number")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Features::load(&path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("x.csv"), "{error}");
        }
        std::fs::write(&path, "name,label,split,f0\na,,,1\nb,,\n").unwrap();
        assert!(Features::load(&path).is_err(), "a row that is too short");
    }
}
