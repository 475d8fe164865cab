//! A file's bytes as its writer had them: opened without waiting for anyone, read as far as it went then, and unpacked.

use std::fs::File;
use std::io::{BufRead, BufReader, Error as Failed, ErrorKind, Read};
use std::path::Path;

use ctk_core::opened;
use ctk_core::{Context, Result};

use super::{STDIN, shown};

/// Kilobytes that an .xz file may ask for its dictionary: four times what `xz -9` does.
const DICTIONARY: u32 = 256 << 10;

/// What is looked at to tell how a file is packed.
const HEAD: usize = 1 << 16;

/// Opens the file at `path`. What is no file is refused: a pipe waits for whoever writes into it, and a device never ends.
///
/// # Errors
/// There is nothing, or no file; it may not be read.
pub fn open(path: &Path) -> Result<File> {
    opened::open(path).map_err(|e| e.at(path.display()))
}

/// A file as long as it was when it was opened: what another program adds meanwhile is not read, and what it takes away is missed.
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
    /// The bytes, unpacked.
    pub reader: Box<dyn Read + Send>,
    /// Whether they were packed.
    pub packed: bool,
    /// Bytes of the file when it was opened; of standard input none are known.
    pub length: Option<u64>,
}

/// A file's bytes, unpacked if they need it: gzip, zstd, bzip2 and xz are known by their first bytes.
///
/// # Errors
/// A file that cannot be opened, or is no file.
pub fn unpacked(path: &Path) -> Result<Unpacked> {
    let (file, length): (Box<dyn Read + Send>, Option<u64>) = if path == Path::new(STDIN) {
        (Box::new(std::io::stdin()), None)
    } else {
        let file = open(path)?;
        let length = file.metadata().at(path.display())?.len();
        // Some files of the system say that they have no bytes.
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

/// Whether a file that begins with `head` is packed in a way that [`unpacked`] knows.
pub fn is_packed(head: &[u8]) -> bool {
    Packing::of(head).is_some()
}

/// How a file is packed.
#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Packing {
    fn of(head: &[u8]) -> Option<Packing> {
        // A zstd file may begin with a skippable frame, which pzstd and the seekable format write.
        let skipped = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        // "BZh", a digit, and the first block's or the end's mark: three letters alone begin many texts.
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

/// What bytes are that are no text: archives and other files with a first mark of their own, in words.
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
