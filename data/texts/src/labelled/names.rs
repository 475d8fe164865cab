//! What the names of a set's files say: which are data, which part each is, and whether they are of one set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ctk_core::{Error, Result};

use crate::cells::plain_name;

/// Names of files that are no data.
const ABOUT: [&str; 5] = ["readme", "license", "licence", "licenses", "notice"];

/// Endings of the files that are read in a folder.
const ENDINGS: [&str; 9] = [".tsv", ".tab", ".csv", ".jsonl", ".ndjson", ".json", ".parquet", ".pq", ".txt"];

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Test,
    Dev,
}

/// The files of a set, with their names below their common folder and their parts.
pub(super) struct Named {
    pub files: Vec<(PathBuf, String, Part)>,
    pub notes: Vec<String>,
}

impl Named {
    /// The files among `paths` that are data.
    ///
    /// # Errors
    /// Files of several sets, or none.
    pub fn all(paths: &[PathBuf]) -> Result<Named> {
        let root = common(paths);
        let (mut files, mut unread) = (Vec::new(), Vec::new());
        for path in paths {
            let name = path.strip_prefix(&root).unwrap_or(path).display().to_string();
            let words = words(&name);
            let data = ENDINGS.iter().any(|ending| plain_name(path).ends_with(ending));
            if data && !words.iter().any(|word| ABOUT.contains(&word.as_str())) {
                let part = words.iter().find_map(|word| part(word));
                files.push((path.clone(), name, part, set(&words)));
            } else {
                unread.push(name);
            }
        }
        let parts = files.iter().any(|(.., part, _)| part.is_some());
        let mut notes = Vec::new();
        if parts {
            files.retain(|(_, name, part, _)| {
                let used = matches!(part, Some(Part::Train | Part::Test));
                if *part == Some(Part::Dev) {
                    notes.push(format!("{name} is not read: its texts are neither to train nor to test on"));
                } else if !used {
                    unread.push(name.clone());
                }
                used
            });
            let sets: BTreeSet<&String> = files.iter().map(|(.., set)| set).collect();
            if sets.len() > 1 {
                let sets: Vec<String> = sets.iter().map(|set| format!("`{set}`")).collect();
                return Err(Error::usage(format!("these files are of {} sets: {}", sets.len(), sets.join(", ")))
                    .at(root.display())
                    .hint("name the files of one, as in --data 'folder/sst2.*.tsv'"));
            }
        }
        if !unread.is_empty() {
            notes.push(format!("not read: {}", unread.join(", ")));
        }
        if files.is_empty() {
            return Err(Error::usage("there is no table of texts here")
                .at(root.display())
                .hint("give .tsv, .csv, .jsonl, .parquet or .txt files, as train.tsv and test.tsv"));
        }
        if !parts {
            notes.push(format!("{} files are read as one table", files.len()));
        }
        let files = files.into_iter().map(|(path, name, part, _)| (path, name, part.unwrap_or(Part::Train))).collect();
        Ok(Named { files, notes })
    }
}

/// The folder that holds all `paths`.
fn common(paths: &[PathBuf]) -> PathBuf {
    let mut root = paths.first().and_then(|path| path.parent()).map(Path::to_path_buf).unwrap_or_default();
    while !paths.iter().all(|path| path.starts_with(&root)) {
        root = root.parent().map(Path::to_path_buf).unwrap_or_default();
    }
    root
}

/// The words of a name, in lower case, without its endings.
fn words(name: &str) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut stem = lower.as_str();
    for ending in [".gz", ".bz2", ".xz", ".zst"].iter().chain(&ENDINGS) {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    stem.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(String::from).collect()
}

/// The part that a word of a name says.
fn part(word: &str) -> Option<Part> {
    match word {
        "train" | "training" => Some(Part::Train),
        "test" | "testing" => Some(Part::Test),
        "dev" | "val" | "valid" | "validation" | "eval" => Some(Part::Dev),
        _ => None,
    }
}

/// What a name says besides its part and the number of a piece.
fn set(words: &[String]) -> String {
    let other = |word: &&String| part(word).is_none() && *word != "of" && !word.chars().all(|c| c.is_ascii_digit());
    words.iter().filter(other).cloned().collect::<Vec<_>>().join(".")
}
