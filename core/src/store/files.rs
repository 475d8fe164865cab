//! Every write, fsync and rename of ctk: a file appears whole or not at all. Also listing folders, locking, and reading from the middle of
//! a file.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Result};

/// Writes `path` through a temporary file beside it, so that a crash or a full disk never leaves half a file under its name.
///
/// # Errors
/// The file cannot be written, or `path` is not a regular file.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| Ok(file.write_all(bytes)?))
}

/// As [`write`], for content that is produced piece by piece.
///
/// # Errors
/// As [`write`]; the errors of `fill`.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut std::io::BufWriter<File>) -> Result<()>) -> Result<()> {
    // The file gets its name by a rename, which would replace a device or a pipe at `path`.
    crate::opened::check(path)?;
    let temporary = Temporary::beside(path);
    let written = (|| {
        if let Some(parent) = parent(path) {
            fs::create_dir_all(parent).at(parent.display())?;
        }
        let mut file = std::io::BufWriter::new(File::create(&temporary.0)?);
        fill(&mut file)?;
        file.flush()?;
        file.get_ref().sync_all()?;
        drop(file);
        fs::rename(&temporary.0, path)?;
        sync_parent(path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary.0);
    }
    written.at(path.display())
}

/// The blake3 of `bytes`, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Appends a line to `path` in one write, so that two programs do not mix their lines.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, line: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).at(path.display())?;
    file.write_all(format!("{line}\n").as_bytes()).at(path.display())
}

/// Opens the file at `path` to continue writing at byte `from`; what comes after is cut off. A new file begins at 0.
///
/// # Errors
/// Something other than a regular file (a link, too), or a file shorter than `from`.
pub fn go_on(path: &Path, from: u64) -> Result<File> {
    let there = path.symlink_metadata().ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return Err(Error::new("this is not a file").at(path.display()).hint("delete it"));
    }
    if there.map_or(0, |there| there.len()) < from {
        return Err(Error::new("this file is shorter than it was").at(path.display()).hint("try again"));
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).open(path).and_then(|mut file| {
        file.set_len(from)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(from))?;
        Ok(file)
    });
    opened.at(path.display())
}

/// A lock that only one program holds at a time; released when it is dropped, or when the program ends.
pub struct Lock {
    _file: File,
}

/// Waits until no other program holds the lock file at `path`.
///
/// # Errors
/// The file cannot be opened or locked.
pub fn lock(path: &Path) -> Result<Lock> {
    if let Some(parent) = parent(path) {
        fs::create_dir_all(parent).at(parent.display())?;
    }
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).at(path.display())?;
    file.lock().at(path.display())?;
    Ok(Lock { _file: file })
}

/// Removes the file or the folder at `path`, if it exists.
///
/// # Errors
/// It cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let Ok(there) = path.symlink_metadata() else { return Ok(()) };
    if there.is_dir() { fs::remove_dir_all(path).at(path.display()) } else { fs::remove_file(path).at(path.display()) }
}

/// Makes the folder `path` with the files that `fill` writes into the folder that it is given; it appears with all of them or not at all.
///
/// # Errors
/// Something other than an empty folder exists at `path`; the errors of `fill`.
pub fn folder_with(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    if path.symlink_metadata().is_ok() && !empty(path) {
        return Err(Error::usage("there is something here already").at(path.display()).hint("give the name of a new folder"));
    }
    let temporary = Temporary::beside(path);
    let written = (|| {
        fs::create_dir_all(&temporary.0)?;
        fill(&temporary.0)?;
        sync_folder(&temporary.0)?;
        if path.is_dir() {
            fs::remove_dir(path)?;
        }
        fs::rename(&temporary.0, path)?;
        sync_parent(path)
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary.0);
    }
    written.at(path.display())
}

/// The files of a folder and of the folders below it, in the order of their names. Hidden files are left out, and so are links to folders,
/// which may lead upwards and never end.
///
/// # Errors
/// A folder cannot be read.
pub fn below(folder: &Path) -> Result<Vec<PathBuf>> {
    let shown = |entry: &walkdir::DirEntry| entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".");
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().filter_entry(shown);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(std::io::Error::from).at(folder.display())?.into_path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Fills `bytes` from byte `at` on. Several threads may do so at once.
///
/// # Errors
/// The file cannot be read, or ends earlier.
#[cfg(unix)]
pub fn read_at(file: &File, bytes: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

/// Fills `bytes` from byte `at` on. Several threads may do so at once.
///
/// # Errors
/// The file cannot be read, or ends earlier.
#[cfg(windows)]
pub fn read_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => (bytes, at) = (&mut bytes[read..], at + read as u64),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes a folder's entries durable (fsync).
///
/// # Errors
/// The folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<()> {
    // Windows cannot open a folder as a file; its renames are durable enough without.
    if cfg!(unix) {
        File::open(folder).and_then(|f| f.sync_all()).at(folder.display())?;
    }
    Ok(())
}

/// Makes the entry of `path` in its folder durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    parent(path).map_or(Ok(()), sync_folder)
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p })
}

/// The temporary names of files and folders that are being written.
static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The temporary name of a path while it is written; registered until it is dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Temporary {
        let mut name = std::ffi::OsString::from(".tmp-");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!("-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).insert(temporary.clone());
        Temporary(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// Removes what this process has half written, for a program that ends at once.
pub fn remove_temporaries() {
    for path in &*TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner) {
        let _ = remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |f| {
            f.write_all(b"half")?;
            Err(Error::new("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("a.txt"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/model");
        let failed = folder_with(&path, |folder| {
            write(&folder.join("a/b.txt"), b"half")?;
            Err(Error::new("disk full"))
        });
        assert!(failed.unwrap_err().to_string().contains("model"));
        assert_eq!(fs::read_dir(parent.path().join("new")).unwrap().count(), 0);
        fs::create_dir(&path).unwrap();
        folder_with(&path, |folder| write(&folder.join("a/b.txt"), b"whole")).unwrap();
        assert_eq!(fs::read(path.join("a/b.txt")).unwrap(), b"whole");
        let error = folder_with(&path, |_| Ok(())).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("already"), "{error}");
        assert_eq!(fs::read_dir(parent.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_goes_on_where_it_was_and_through_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part");
        go_on(&path, 0).unwrap().write_all(b"abcdef").unwrap();
        go_on(&path, 3).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcx");
        assert!(go_on(&path, 9).unwrap_err().to_string().contains("shorter"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
            assert!(go_on(&folder.path().join("link"), 0).unwrap_err().to_string().contains("not a file"));
            assert_eq!(fs::read(&path).unwrap(), b"abcx");
        }
    }

    #[test]
    fn files_below_a_folder_come_in_order_without_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["b.txt", "a/c.txt", "a/.hidden/d.txt", ".e.txt", "a.txt"] {
            write(&at(name), b"").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path(), at("a/loop")).unwrap();
        assert_eq!(below(folder.path()).unwrap(), ["a/c.txt", "a.txt", "b.txt"].map(at));
        // A folder that the caller named may itself be hidden.
        assert_eq!(below(&at("a/.hidden")).unwrap(), [at("a/.hidden/d.txt")]);
        assert!(below(&at("none")).unwrap_err().to_string().contains("none"));
    }
}
