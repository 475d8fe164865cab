//! Pairs of sentences with scores of their similarity (STS 2012 to 2016, STS-B, SICK), read from a file or a folder, set by set.

mod columns;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use columns::Columns;
use ctk_core::store::files;
use ctk_core::{Context, Error, Result};

use crate::cells::{Row, plain_name, quoted, tabbed};
use crate::corpus::Invalid;
use crate::files::{Encoding, Whole, shown, whole};

/// What a file of pairs may look like.
const FORM: &str = "a line is two sentences and a score with tabs between them, or a first line names the columns `sentence1`, `sentence2` and \
                    `score`";

/// The files of a folder that are looked at.
const ENDINGS: [&str; 3] = [".tsv", ".csv", ".txt"];

/// The largest number of files that a note names.
const NAMED: usize = 5;

/// One set of pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// Its name: the file's (in a folder: its path below it) and what the columns of year, set and part say, with `/` between.
    pub name: String,
    /// What the column of years says.
    pub year: Option<String>,
    /// What the column of parts (`train`, `test`) says.
    pub split: Option<String>,
    /// The first sentence of each pair.
    pub left: Vec<String>,
    /// The second sentence of each pair.
    pub right: Vec<String>,
    /// The score of each pair, on the file's scale: more for more similar.
    pub scores: Vec<f64>,
}

impl Set {
    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// All pairs of some sets, one after the other: the subsets of a year, which papers measure as one list.
    pub fn joined<'a>(name: impl Into<String>, sets: impl IntoIterator<Item = &'a Set>) -> Set {
        let mut all = Set { name: name.into(), ..Set::default() };
        for set in sets {
            all.left.extend_from_slice(&set.left);
            all.right.extend_from_slice(&set.right);
            all.scores.extend_from_slice(&set.scores);
        }
        all
    }
}

/// Sets of pairs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sets {
    /// The sets, in the order in which they first occur; none is empty.
    pub sets: Vec<Set>,
    /// Notes about the reading: what was guessed, and what was left out.
    pub notes: Vec<String>,
}

impl Sets {
    /// Reads a file of pairs, compressed or not, or every `.tsv`, `.csv` and `.txt` file of pairs below a folder.
    ///
    /// A file has tab-separated lines, or comma-separated cells that may be quoted. Its first line may name the columns: `sentence1` and
    /// `sentence2` (or `sentence_A`, `text1`, …), `score` (or `similarity`, `relatedness_score`, `label`, …), and, if there are any, `source`
    /// or another name of a set, `year`, and `split`. Pairs that differ in these are different sets. Without names, lines of three columns
    /// are two sentences and a score, which is the first or the last; longer ones have STS-B's columns (genre, file, year, number, score,
    /// two sentences), and are one set. Pairs without a score are left out and counted.
    ///
    /// # Errors
    /// A file that cannot be read or is not text; with [`Invalid::Refuse`], bytes that are not characters; a line without its columns, a
    /// score that is not a number; no pair at all.
    pub fn read(path: &Path, encoding: Encoding, invalid: Invalid) -> Result<Sets> {
        if !path.is_dir() {
            if !path.exists() {
                return Err(Error::usage("cannot read the pairs: there is no such file or folder").at(path.display()).hint(FORM));
            }
            let Whole { text, notes } = whole(path, encoding, invalid)?;
            let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
            let found = parse(&text, path, &name, false)?;
            let mut found =
                found.ok_or_else(|| Error::new("these are no pairs of sentences with scores").at(shown(path)).hint(FORM))?;
            found.notes.splice(0..0, notes);
            return Ok(found);
        }
        let (mut all, mut others) = (Sets::default(), Vec::new());
        for file in files::below(path)? {
            let name = file.strip_prefix(path).unwrap_or(&file).display().to_string();
            let found = if ENDINGS.iter().any(|ending| plain_name(&file).ends_with(ending)) {
                let Whole { text, notes } = whole(&file, encoding, invalid)?;
                parse(&text, &file, &name, true)?.map(|found| (found, notes))
            } else {
                None
            };
            match found {
                Some((found, notes)) => {
                    all.notes.extend(notes.into_iter().chain(found.notes));
                    all.sets.extend(found.sets);
                }
                None => others.push(name),
            }
        }
        if all.sets.is_empty() {
            return Err(Error::usage("there is no file of pairs of sentences below this folder").at(path.display()).hint(FORM));
        }
        if !others.is_empty() {
            let more = if others.len() > NAMED { ", …" } else { "" };
            let named = others[..others.len().min(NAMED)].join(", ");
            all.notes.push(format!("{} files below {} are no pairs of sentences: {named}{more}", others.len(), path.display()));
        }
        Ok(all)
    }
}

/// The sets of a file's text; none if it is no file of pairs. `name` is the file's name, which sets are named after; in a folder it stands
/// before the names of columns, too.
fn parse(text: &str, path: &Path, name: &str, in_folder: bool) -> Result<Option<Sets>> {
    let Some(first) = text.lines().find(|line| !line.trim().is_empty()) else { return Ok(None) };
    let cells;
    let rows: Vec<Row> = if first.contains('\t') {
        tabbed(text)
    } else {
        let separator = [',', ';'].into_iter().find(|c| first.contains(*c)).unwrap_or(',');
        cells = quoted(text, separator as u8).at(shown(path))?;
        cells.iter().map(|(line, record)| (*line, record.iter().collect())).collect()
    };
    let Some(columns) = rows.first().and_then(|(_, first)| Columns::of(first)) else { return Ok(None) };
    let mut found =
        Sets { notes: columns.note.iter().map(|note| format!("{}: {note}", shown(path))).collect(), ..Sets::default() };
    let mut places: HashMap<[Option<&str>; 3], usize> = HashMap::new();
    let (mut unscored, mut empty) = (Lines::default(), Lines::default());
    for (line, fields) in rows.iter().skip(usize::from(columns.named)) {
        let place = || format!("{}:{line}", shown(path));
        let pair = [columns.left, columns.right, columns.score].map(|column| fields.get(column).copied());
        let [Some(left), Some(right), Some(score)] = pair else {
            let what = format!("this line has {} columns, not {}", fields.len(), columns.count);
            return Err(Error::new(what).at(place()).hint(FORM));
        };
        let score = score.trim();
        if ["", "nan", "na", "none", "null", "-"].contains(&score.to_lowercase().as_str()) {
            unscored.add(*line);
            continue;
        }
        let value: f64 = score.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| {
            Error::new(format!("`{}` is not a score", ctk_core::error::short(score, 40))).at(place()).hint(FORM)
        })?;
        if left.trim().is_empty() || right.trim().is_empty() {
            empty.add(*line);
        }
        let key = [columns.year, columns.set, columns.split].map(|column| Some(fields.get(column?)?.trim()));
        let number = *places.entry(key).or_insert_with(|| {
            let own = if in_folder || key.iter().all(Option::is_none) { Some(name) } else { None };
            let name = own.into_iter().chain(key.into_iter().flatten()).collect::<Vec<_>>().join("/");
            let [year, _, split] = key.map(|word| word.map(String::from));
            found.sets.push(Set { name, year, split, ..Set::default() });
            found.sets.len() - 1
        });
        let set = &mut found.sets[number];
        set.left.push(left.to_string());
        set.right.push(right.to_string());
        set.scores.push(value);
    }
    if found.sets.is_empty() {
        return Err(Error::new("there is no pair with a score in this file").at(shown(path)).hint(FORM));
    }
    found.notes.extend(unscored.note(path, "have no score and are left out"));
    found.notes.extend(empty.note(path, "have an empty sentence"));
    Ok(Some(found))
}

/// Lines that have something in common.
#[derive(Default)]
struct Lines {
    count: usize,
    first: usize,
}

impl Lines {
    fn add(&mut self, line: usize) {
        if self.count == 0 {
            self.first = line;
        }
        self.count += 1;
    }

    fn note(&self, path: &Path, what: &str) -> Option<String> {
        (self.count > 0).then(|| format!("{}: {} pairs {what}, the first in line {}", shown(path), self.count, self.first))
    }
}
