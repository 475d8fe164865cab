//! Safe opening and reading of files that others wrote. Only regular files are opened. No more is read than the file had when it was
//! opened, and no more than fits into memory.
//!
//! A named pipe, a socket or a device would make the program wait, or read for ever, so it is refused, and the error says what it is.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::memory;

/// The kind of what lies at `path`, or where a link there leads to, if it is neither a file nor a folder.
pub fn odd(path: &Path) -> Option<&'static str> {
    word(fs::metadata(path).ok()?.file_type())
}

/// The name of this kind, if it is neither a file nor a folder.
fn word(kind: fs::FileType) -> Option<&'static str> {
    if kind.is_file() || kind.is_dir() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a named pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("a device")
}

/// Refuses a path that exists and is neither a file nor a folder.
///
/// # Errors
/// A named pipe, a socket, a device.
pub fn check(path: &Path) -> Result<()> {
    odd(path).map_or(Ok(()), |what| {
        Err(Error::usage(format!("this is {what}, and has to be a file or a folder"))
            .at(path.display())
            .hint("give the path of a file; write the data into a file first"))
    })
}

/// Opens a file for reading. Errors do not name the file; the caller adds its path.
///
/// # Errors
/// There is no such file, or it is a folder, a named pipe, a socket or a device.
pub fn open(path: &Path) -> Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if let Some(what) = if kind.is_dir() { Some("a folder") } else { word(kind) } {
        return Err(Error::usage(format!("this is {what}, and has to be a file")).hint("give the path of a file"));
    }
    Ok(File::open(path)?)
}

/// Reads a whole file. Errors do not name the file.
///
/// # Errors
/// Those of [`open`]; a file that is larger than the free memory, or whose length changes while it is read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    part(&file, length)
}

/// Reads a whole text file. Errors do not name the file.
///
/// # Errors
/// Those of [`read`]; bytes that are not UTF-8.
pub fn text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::new(format!("this file is not text in UTF-8: {}", e.utf8_error())))
}

/// The next `length` bytes of `file`, whose length was just found to be that.
fn part(file: &File, length: u64) -> Result<Vec<u8>> {
    if length > SMALL {
        memory::require("this file", length, |_| "is this the right file?".to_string())?;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes)?;
    let now = file.metadata()?.len();
    if bytes.len() as u64 != length || now != length {
        return Err(Error::new(format!("this file had {length} bytes when it was opened, and has {now} now"))
            .hint("another program is writing it: wait until it is done"));
    }
    Ok(bytes)
}

/// Files up to this length are read without asking how much memory is free.
const SMALL: u64 = 64 << 20;

/// `length` bytes of the file at `path`, starting at byte `offset`.
///
/// # Errors
/// Those of [`open`]; the file ends earlier.
pub fn span(path: &Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let file = open(path)?;
    let end = offset.checked_add(length as u64);
    let there = file.metadata()?.len();
    // Checked before memory is allocated for a size that a damaged table of contents may claim.
    if end.is_none_or(|end| end > there) {
        return Err(Error::new(format!("this file ends at byte {there}, before what is looked for in it"))
            .hint("it is damaged, or was changed meanwhile"));
    }
    let mut bytes = vec![0; length];
    crate::store::files::read_at(&file, &mut bytes, offset).hint("the file is shorter than it was: was it changed meanwhile?")?;
    Ok(bytes)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_by_its_name_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        fs::write(at("file"), "text").unwrap();
        for (path, what) in [
            (at("pipe"), "a named pipe"),
            (at("link"), "a named pipe"),
            (at("socket"), "a socket"),
            ("/dev/zero".into(), "a device"),
            (at(""), "a folder"),
        ] {
            for error in [open(&path).unwrap_err(), read(&path).unwrap_err(), span(&path, 0, 1).unwrap_err()] {
                assert!(error.to_string().starts_with(&format!("this is {what}, and has to be a file")), "{error}");
                assert_eq!(error.exit_code(), 2);
            }
            assert_eq!(check(&path).is_err(), what != "a folder");
        }
        assert_eq!(text(&at("file")).unwrap(), "text");
        assert_eq!(span(&at("file"), 1, 2).unwrap(), b"ex");
        for (offset, length) in [(3, 2), (5, 0), (0, usize::MAX), (u64::MAX, 1)] {
            assert!(span(&at("file"), offset, length).unwrap_err().to_string().contains("ends at byte 4"));
        }
        assert!(check(&at("none")).is_ok() && read(&at("none")).is_err());
    }

    #[test]
    fn a_file_that_grows_or_shrinks_or_is_larger_than_memory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "0123456789").unwrap();
        let file = File::open(&path).unwrap();
        for (was, now) in [(8, 10), (12, 10)] {
            let error = part(&file, was).unwrap_err().to_string();
            assert!(error.contains(&format!("had {was} bytes when it was opened, and has {now} now")), "{error}");
            std::io::Seek::rewind(&mut &file).unwrap();
        }
        assert_eq!(part(&file, 10).unwrap(), b"0123456789");
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("this file needs about 4.4 TB") && error.contains("are free"), "{error}");
    }
}
