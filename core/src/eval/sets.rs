//! Files of questions for evaluators of word vectors: one file, or every file of a kind below a folder; and how their tables are read.

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::opened;
use crate::store::files;

/// The questions of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct Set<T> {
    /// The file's name; in a folder, its path below the folder.
    pub name: String,
    /// The questions.
    pub questions: Vec<T>,
}

/// The sets that were read, and the names of the files of another kind.
pub(super) type Found<T> = (Vec<Set<T>>, Vec<String>);

/// Reads `path`: a file, or every .csv, .tsv and .txt file below a folder whose text is of this kind according to `is`, sorted by path.
/// Also returns the names of the other files.
pub(super) fn read<T>(
    path: &Path,
    kind: &str,
    is: impl Fn(&str) -> bool,
    parse: impl Fn(&str, &Path) -> Result<Vec<T>>,
) -> Result<Found<T>> {
    if !path.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        return Ok((vec![Set { name, questions: parse(&given(path)?, path)? }], Vec::new()));
    }
    let files = tables(path)?;
    let (mut sets, mut others) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
        match std::fs::read_to_string(&file) {
            Ok(text) if is(&text) => sets.push(Set { name, questions: parse(&text, &file)? }),
            Ok(_) => others.push(name),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => others.push(name),
            Err(e) => return Err(e).at(file.display()),
        }
    }
    if sets.is_empty() {
        return Err(Error::usage(format!("there is no file of {kind} below this folder"))
            .at(path.display())
            .hint("its .csv, .tsv and .txt files are looked at"));
    }
    Ok((sets, others))
}

/// The .csv, .tsv and .txt files below a folder, sorted by path.
pub(super) fn tables(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files::below(folder)?;
    files.retain(|file| file.extension().is_some_and(|e| ["csv", "tsv", "txt"].iter().any(|t| e.eq_ignore_ascii_case(t))));
    Ok(files)
}

/// The text of a file that the user named.
pub(super) fn given(path: &Path) -> Result<String> {
    opened::text(path).map_err(|e| {
        Error::usage(format!("cannot read the file: {}", e.what()))
            .at(path.display())
            .hint("give a text file, or a folder of them; paths are relative to the current folder")
    })
}

/// The lines with content and their numbers from 1, without a byte order mark, comments (`#`) and empty lines.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    lines.map(|(at, line)| (at + 1, line.trim_end())).filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
}

/// The columns of a table, by the names in its first line.
#[derive(Clone, Debug)]
pub(super) struct Columns<const N: usize> {
    separator: char,
    places: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// The columns that a header names: each of `names` is a list of what a column may be called (spaces and capitals do not matter). None
    /// if one is missing; then the line is not a header.
    pub(super) fn of(header: &str, names: [&[&str]; N]) -> Option<Self> {
        let separator = separator(header);
        let plain = |field: &str| field.to_lowercase().replace(' ', "");
        let fields: Vec<String> = split(header, separator).map(plain).collect();
        let mut places = [0; N];
        for (place, names) in places.iter_mut().zip(names) {
            *place = fields.iter().position(|field| names.contains(&field.as_str()))?;
        }
        Some(Columns { separator, places })
    }

    /// Whether a line is empty in all of these columns; some tables have rows of only a number and separators.
    pub(super) fn empty(&self, line: &str) -> bool {
        let fields: Vec<&str> = split(line, self.separator).collect();
        self.places.iter().all(|&place| fields.get(place).is_some_and(|field| field.is_empty()))
    }

    /// A line's fields, in the order of the requested names.
    pub(super) fn fields<'a>(&self, line: &'a str) -> Option<[&'a str; N]> {
        let fields: Vec<&str> = split(line, self.separator).collect();
        let mut found = [""; N];
        for (found, place) in found.iter_mut().zip(self.places) {
            *found = fields.get(place).filter(|field| !field.is_empty())?;
        }
        Some(found)
    }
}

/// The separator between the fields of a line.
pub(super) fn separator(line: &str) -> char {
    ['\t', ',', ';'].into_iter().find(|&c| line.contains(c)).unwrap_or(' ')
}

/// A line's fields without surrounding white space and quotes.
pub(super) fn split(line: &str, separator: char) -> impl Iterator<Item = &str> {
    line.split(separator).map(|field| {
        let field = field.trim();
        field.strip_prefix('"').and_then(|f| f.strip_suffix('"')).unwrap_or(field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn columns_are_found_by_name() {
        let columns = Columns::of(",Similarity,\"Word 1\",word2", [&["word1"], &["word2"], &["score", "similarity"]]).unwrap();
        assert_eq!(columns.fields("0, 6.81,take , remove"), Some(["take", "remove", "6.81"]));
        assert_eq!(columns.fields("0,6.81,take"), None);
        assert_eq!(columns.fields("0,,take,remove"), None, "an empty field is none");
        assert!(columns.empty("252,,,") && !columns.empty("252,,take,") && !columns.empty("252"));
        assert!(Columns::of("word1,word2", [&["word1"], &["word3"]]).is_none());
    }

    #[test]
    fn a_folder_is_searched_for_files_of_the_kind() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::create_dir(at.join("b")).unwrap();
        for (name, text) in
            [("b/one.csv", "yes 1"), ("a.TXT", "yes 2"), ("other.tsv", "no"), ("c.md", "yes"), (".hidden.csv", "yes")]
        {
            fs::write(at.join(name), text).unwrap();
        }
        fs::write(at.join("latin.txt"), b"\xff").unwrap();
        let search = |path: &Path| read(path, "yes", |text| text.starts_with("yes"), |text, _| Ok(vec![text.to_string()]));
        let (sets, others) = search(at).unwrap();
        assert_eq!(sets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["a.TXT", "b/one.csv"]);
        assert_eq!((sets[1].questions[0].as_str(), others), ("yes 1", vec!["latin.txt".to_string(), "other.tsv".to_string()]));
        assert_eq!(search(&at.join("other.tsv")).unwrap().0[0].name, "other.tsv", "a named file is read, whatever it seems");
        let none = search(&at.join("none.tsv")).unwrap_err();
        assert_eq!(none.exit_code(), 2);
        fs::create_dir(at.join("empty")).unwrap();
        assert!(search(&at.join("empty")).unwrap_err().to_string().contains("no file of yes"));
    }
}
