//! Features that another program computed, in place of an encoder: rows of a file, found by their names.

use std::collections::HashMap;
use std::path::Path;

use ctk_core::eval::Features;
use ctk_core::{Context, Error, Result};
use ctk_images::dataset::count;

/// Names of a message.
const SHOWN: usize = 3;

/// The rows of a file, by name. A name may have several rows: crops of one image.
pub struct Stored {
    features: Features,
    rows: HashMap<String, Vec<u32>>,
}

/// The rows of each of some names.
#[derive(Clone)]
pub struct Found(pub Vec<Vec<u32>>);

impl Found {
    /// Row 0 of the first, row 1 of the second, and so on.
    pub fn each(count: usize) -> Found {
        Found((0..count as u32).map(|row| vec![row]).collect())
    }
}

impl Stored {
    /// Reads a file of features.
    ///
    /// # Errors
    /// A file that holds no features, or one whose values are not finite.
    pub fn open(path: &Path) -> Result<Stored> {
        let features = Features::load(path)?;
        if let Some(at) = features.rows.iter().position(|value| !value.is_finite()) {
            let row = at / features.width.max(1);
            return Err(Error::usage(format!("row {row} has a value that is not finite")).at(path.display()));
        }
        if features.is_empty() {
            return Err(Error::usage("this file has no row").at(path.display()));
        }
        let mut rows: HashMap<String, Vec<u32>> = HashMap::new();
        for (row, name) in features.names.iter().enumerate() {
            rows.entry(name.clone()).or_default().push(row as u32);
        }
        Ok(Stored { features, rows })
    }

    /// Rows without names, as [`Found::each`] finds them.
    pub fn of(width: usize, rows: Vec<f32>) -> Stored {
        Stored { features: Features { width, rows, ..Features::default() }, rows: HashMap::new() }
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.features.width
    }

    /// Row `row`.
    pub fn row(&self, row: u32) -> &[f32] {
        self.features.row(row as usize)
    }

    /// The rows of `names`, which are those of `what`.
    ///
    /// # Errors
    /// A name has no row; the message says how many and which.
    pub fn find<'a>(&self, path: &Path, what: &str, names: impl Iterator<Item = &'a str>) -> Result<Found> {
        let (mut found, mut missing, mut all) = (Vec::new(), Vec::new(), 0);
        for name in names {
            all += 1;
            match self.rows.get(name) {
                Some(rows) => found.push(rows.clone()),
                None => missing.push(name),
            }
        }
        if missing.is_empty() {
            return Ok(Found(found));
        }
        let shown: Vec<String> = missing.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
        let have = self.features.names.first().map_or(String::new(), |name| format!("; the file's first row is `{name}`"));
        let what = format!("{} of {} have no row in this file: {}", missing.len(), count(all, what), shown.join(", "));
        Err(Error::usage(format!("{what}{have}"))
            .hint("rows are found by their names: those that `ctk embed` gives them, or, of captions, the captions themselves"))
        .at(path.display())
    }

    /// What to know about rows that were found for `what`.
    pub fn note(&self, found: &Found, what: &str) -> String {
        let used: usize = found.0.iter().map(Vec::len).sum();
        let several = found.0.iter().filter(|rows| rows.len() > 1).count();
        let several = if several > 0 { format!(", {several} of them with several rows") } else { String::new() };
        format!(
            "stored features of {} values: {used} of {} rows, for {}{several}",
            self.width(),
            self.features.len(),
            count(found.0.len(), what)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_name_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.npy");
        let mut features = Features::default();
        for (name, row) in [("a.png", [1.0, 2.0]), ("b.png", [3.0, 4.0]), ("a.png", [5.0, 6.0])] {
            features.push(name, &row).unwrap();
        }
        features.save(&path).unwrap();
        let stored = Stored::open(&path).unwrap();
        let found = stored.find(&path, "image", ["b.png", "a.png"].into_iter()).unwrap();
        assert_eq!((found.0.clone(), stored.row(2)), (vec![vec![1], vec![0, 2]], &[5.0, 6.0][..]));
        let note = stored.note(&found, "image");
        assert!(note.contains("3 of 3 rows, for 2 images, 1 of them with several rows"), "{note}");
        let error = stored.find(&path, "image", ["c.png", "a.png"].into_iter()).err().unwrap();
        let said = error.to_string();
        assert!(said.contains("1 of 2 images have no row") && said.contains("`c.png`") && said.contains("`a.png`"), "{said}");
        assert_eq!(error.exit_code(), 2);
    }
}
