//! Reads a file's bytes, decompressed if needed: opened without blocking on pipes, and read up to the length that it had when it was
//! opened.

use std::fs::File;
use std::io::{BufRead, BufReader, Error as Failed, ErrorKind, Read};
use std::path::Path;

use ctk_core::opened;
use ctk_core::{Context, Result};

use super::{STDIN, shown};

/// The largest dictionary of an .xz file in kilobytes: four times that of `xz -9`.
const DICTIONARY: u32 = 256 << 10;

/// Bytes that are read to recognise the compression.
const HEAD: usize = 1 << 16;

/// Opens the file at `path`. Anything but a regular file is refused: a pipe waits for a writer, and a device never ends.
///
/// # Errors
/// There is no file, it is not a regular file, or it may not be read.
pub fn open(path: &Path) -> Result<File> {
    opened::open(path).map_err(|e| e.at(path.display()))
}

/// A file with the length that it had when it was opened: bytes added later are not read, and removed bytes are an error.
struct Bounded {
    file: File,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let most = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut into[..most])?;
        if read == 0 && most > 0 {
            return Err(Failed::new(ErrorKind::UnexpectedEof, "the file has become shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// A file's bytes.
pub struct Unpacked {
    /// The bytes, decompressed.
    pub reader: Box<dyn Read + Send>,
    /// Whether they were compressed.
    pub packed: bool,
    /// Length of the file when it was opened; unknown for standard input.
    pub length: Option<u64>,
}

/// A file's bytes, decompressed if needed: gzip, zstd, bzip2 and xz are recognised by their first bytes.
///
/// # Errors
/// A file that cannot be opened, or that is not a regular file.
pub fn unpacked(path: &Path) -> Result<Unpacked> {
    let (file, length): (Box<dyn Read + Send>, Option<u64>) = if path == Path::new(STDIN) {
        (Box::new(std::io::stdin()), None)
    } else {
        let file = open(path)?;
        let length = file.metadata().at(path.display())?.len();
        // Some files of the system (as in /proc) claim to be empty.
        let bounded: Box<dyn Read + Send> = if length == 0 { Box::new(file) } else { Box::new(Bounded { file, left: length }) };
        (bounded, Some(length))
    };
    let mut file = BufReader::with_capacity(HEAD, file);
    let head = file.fill_buf().at(shown(path))?;
    let packing = Packing::of(head);
    let reader: Box<dyn Read + Send> = match packing {
        None => Box::new(file),
        Some(Packing::Gzip) => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Some(Packing::Zstd) => Box::new(zstd::Decoder::with_buffer(file).at(shown(path))?),
        Some(Packing::Bzip2) => Box::new(bzip2::bufread::MultiBzDecoder::new(file)),
        Some(Packing::Xz) => Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, DICTIONARY)),
    };
    Ok(Unpacked { reader, packed: packing.is_some(), length })
}

/// Whether a file that begins with `head` is compressed in a way that [`unpacked`] knows.
pub fn is_packed(head: &[u8]) -> bool {
    Packing::of(head).is_some()
}

/// How a file is compressed.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Packing {
    fn of(head: &[u8]) -> Option<Packing> {
        // A zstd file may begin with a skippable frame, as pzstd and the seekable format write.
        let skipped = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        // "BZh", a digit, and the mark of the first block or of the end: the three letters alone begin many texts.
        let bzip2 = head.len() >= 10
            && head.starts_with(b"BZh")
            && (b'1'..=b'9').contains(&head[3])
            && [[0x31, 0x41, 0x59, 0x26, 0x53, 0x59], [0x17, 0x72, 0x45, 0x38, 0x50, 0x90]]
                .iter()
                .any(|mark| head[4..10] == *mark);
        match head {
            [0x1f, 0x8b, ..] => Some(Packing::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
            _ if skipped => Some(Packing::Zstd),
            _ if bzip2 => Some(Packing::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Xz),
            _ => None,
        }
    }
}

/// The name of content that is not text: archives and other files with a magic number of their own.
pub(super) fn no_text(head: &[u8]) -> Option<&'static str> {
    const MARKS: [(&[u8], &str); 14] = [
        (b"PK\x03\x04", "a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a rar archive"),
        (b"\x04\x22\x4d\x18", "packed by LZ4"),
        (b"\x1f\x9d", "packed by compress (.Z)"),
        (b"LZIP\x01", "packed by lzip"),
        (b"%PDF-", "a PDF file"),
        (b"PAR1", "a Parquet file"),
        (b"\x93NUMPY", "an array of NumPy"),
        (b"SQLite format 3\0", "a database of SQLite"),
        (b"\x7fELF", "a program"),
        (b"\x89PNG\r\n", "a picture"),
        (b"\xff\xd8\xff", "a picture"),
        (b"{\\rtf", "a document in RTF"),
    ];
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive");
    }
    MARKS.iter().find(|(mark, _)| head.starts_with(mark)).map(|(_, kind)| *kind)
}
