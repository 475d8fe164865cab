//! `sums.json`: the blake3 digests of the small files in a run's folder that no checkpoint covers, so that a damaged file is never taken
//! for a whole one.
//!
//! Before a file is written, its new digest is added to the list beside the old one; afterwards the old one is removed. So either version
//! that a crash may leave behind is accepted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::opened;
use crate::store::checkpoint::damaged;
use crate::store::files;

/// The file's name.
pub(super) const FILE: &str = "sums.json";

/// Stands in the list for a file that does not exist yet.
const ABSENT: &str = "absent";

/// The digests of a run's small files.
pub(super) struct Sums {
    path: PathBuf,
    known: Known,
}

/// The content of `sums.json`.
#[derive(Default, Serialize, Deserialize)]
struct Known {
    /// The digests that each file may have: one, or two while it is written.
    files: BTreeMap<String, Vec<String>>,
    /// blake3 of `files` as JSON.
    checksum: String,
}

impl Known {
    fn seal(&self) -> Result<String> {
        Ok(files::digest(&serde_json::to_vec(&self.files)?))
    }
}

impl Sums {
    /// The digests of the files in `folder`; empty for a run of an earlier version, which has no list.
    ///
    /// # Errors
    /// The list itself is damaged.
    pub fn of(folder: &Path) -> Result<Sums> {
        let path = folder.join(FILE);
        let known = match path.is_file() {
            false => Known::default(),
            true => {
                let damaged = || {
                    Error::new("this list of the run's files is damaged")
                        .at(path.display())
                        .hint("remove it to go without: the files that it lists are then not checked")
                };
                let known: Known = serde_json::from_slice(&fs::read(&path).at(path.display())?).map_err(|_| damaged())?;
                if known.checksum != known.seal()? {
                    return Err(damaged());
                }
                known
            }
        };
        Ok(Sums { path, known })
    }

    /// Adds the digest of `bytes`, with which the file `name` is about to be written.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn expect(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let digests = self.known.files.entry(name.to_string()).or_insert_with(|| vec![ABSENT.to_string()]);
        digests.insert(0, files::digest(bytes));
        digests.truncate(2);
        self.write()
    }

    /// Removes the old digest of the file `name`, once it is written.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn settle(&mut self, name: &str) -> Result<()> {
        match self.known.files.get_mut(name) {
            Some(digests) => digests.truncate(1),
            None => return Ok(()),
        }
        self.write()
    }

    /// Removes the file `name`, and all files below the folder of this name, from the list.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn forget(&mut self, name: &str) -> Result<()> {
        let below = format!("{name}/");
        let before = self.known.files.len();
        self.known.files.retain(|file, _| file != name && !file.starts_with(&below));
        if self.known.files.len() == before { Ok(()) } else { self.write() }
    }

    /// Whether the file `name` was written and must exist. Files in folders of the run are temporary and need not exist.
    pub fn knows(&self, name: &str) -> bool {
        !name.contains('/') && self.known.files.get(name).is_some_and(|digests| !digests.iter().any(|digest| digest == ABSENT))
    }

    /// Whether `bytes` are what the file `name` was written with; true also for a file that is not listed.
    pub fn agree(&self, name: &str, bytes: &[u8]) -> bool {
        self.known.files.get(name).is_none_or(|digests| digests.contains(&files::digest(bytes)))
    }

    /// Reads the small file `name` of the run in `folder`, if it was ever written.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has been removed.
    pub fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
        let (path, sums) = (folder.join(name), Sums::of(folder)?);
        if !path.exists() {
            return match sums.knows(name) {
                true => Err(Error::new("this file of the run is missing")
                    .at(path.display())
                    .hint("bring it back, or begin a new run")),
                false => Ok(None),
            };
        }
        let bytes = opened::read(&path).at(path.display())?;
        match sums.agree(name, &bytes) {
            true => Ok(Some(bytes)),
            false => Err(damaged(&path)),
        }
    }

    /// The listed files that are damaged or missing, each with what is wrong.
    pub fn damaged(&self) -> Vec<(&str, &'static str)> {
        let found = self.known.files.keys().filter_map(|name| {
            let path = self.path.with_file_name(name);
            match opened::read(&path) {
                Ok(bytes) if self.agree(name, &bytes) => None,
                Ok(_) => Some((name.as_str(), "is not as it was written")),
                Err(_) if !path.exists() => self.knows(name).then_some((name.as_str(), "is missing")),
                Err(_) => Some((name.as_str(), "cannot be read")),
            }
        });
        found.collect()
    }

    fn write(&mut self) -> Result<()> {
        self.known.checksum = self.known.seal()?;
        files::write(&self.path, &serde_json::to_vec_pretty(&self.known)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_what_it_is_to_become_or_what_it_was_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let mut sums = Sums::of(folder.path()).unwrap();
        assert!(sums.agree("a.json", b"anything") && sums.damaged().is_empty());
        sums.expect("a.json", b"one").unwrap();
        assert!(!sums.knows("a.json") && sums.damaged().is_empty(), "a stop before it was written");
        sums.settle("a.json").unwrap();
        assert_eq!(sums.damaged(), [("a.json", "is missing")]);
        sums.expect("a.json", b"two").unwrap();
        let write = |bytes: &[u8]| fs::write(folder.path().join("a.json"), bytes).unwrap();
        let read = || Sums::of(folder.path()).unwrap();
        for bytes in [b"one", b"two"] {
            write(bytes);
            assert!(read().damaged().is_empty());
        }
        write(b"six");
        assert_eq!(read().damaged(), [("a.json", "is not as it was written")]);
        sums.settle("a.json").unwrap();
        sums.expect("a.json", b"three").unwrap();
        assert!(!sums.agree("a.json", b"one") && sums.agree("a.json", b"two"));
        fs::remove_file(folder.path().join("a.json")).unwrap();
        assert_eq!(read().damaged(), [("a.json", "is missing")]);
        sums.expect("search/0.f32", b"x").unwrap();
        sums.forget("search").unwrap();
        sums.forget("a.json").unwrap();
        assert!(read().known.files.is_empty());
    }

    #[test]
    fn every_flipped_bit_of_the_list_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        Sums::of(folder.path()).unwrap().expect("a.json", b"one").unwrap();
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(&path, &bytes).unwrap();
            // White space between values may change; the values may not.
            if let Ok(sums) = Sums::of(folder.path()) {
                assert!(sums.agree("a.json", b"one") && !sums.agree("a.json", b"two"), "byte {at}");
            }
        }
    }
}
