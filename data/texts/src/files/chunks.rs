//! Reads a text file in bounded pieces that end at line ends, or all at once.

use std::io::Read;
use std::path::{Path, PathBuf};

use ctk_core::{Context, Error, Result, memory};

use super::encoding::{Decoded, Encoding, decoded};
use super::unpack::{Unpacked, unpacked};
use super::{STDIN, shown};
use crate::corpus::Invalid;

/// Bytes in a piece, up to the next line end.
const CHUNK: usize = 4 << 20;

/// The largest number of bytes between two places where a text may be cut.
const LONGEST: usize = 64 << 20;

/// A table of texts may take this fraction (one part in so many) of the free memory.
const SHARE: u64 = 2;

/// What the offsets of a text refer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Whether the file is compressed.
    pub packed: bool,
    /// The encoding that was converted to UTF-8, if it was another.
    pub encoding: Option<&'static str>,
}

impl Origin {
    /// Describes byte `at` of the text from `path` for error messages.
    pub fn place(&self, path: &Path, at: u64) -> String {
        let of = match self {
            Origin { encoding: Some(_), .. } => " of the text in UTF-8",
            Origin { packed: true, .. } => " of the decompressed text",
            _ => "",
        };
        format!("{}: byte {at}{of}", shown(path))
    }

    /// The error for bytes that are not in the encoding; `byte` is the first of them.
    pub fn refusal(&self, byte: u8) -> Error {
        match self.encoding {
            Some(encoding) => Error::new(format!("this is not {encoding}: some bytes belong to no character"))
                .hint("name the right one in data.encoding, or set data.invalid = \"replace\""),
            None => Error::new(format!("this is not UTF-8: byte 0x{byte:02x} belongs to no character")).hint(
                "name the file's encoding, as in data.encoding = \"windows-1252\", convert it (iconv -t utf-8), or set data.invalid = \
                 \"replace\"",
            ),
        }
    }
}

/// A piece of a file's text.
pub struct Chunk {
    /// Its bytes, not yet validated.
    pub bytes: Vec<u8>,
    /// Its start in the text.
    pub offset: u64,
    /// What the offset refers to.
    pub origin: Origin,
}

/// A file in pieces. A piece ends after a line end; a line of text longer than a piece is cut at white space.
pub struct Chunks {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    origin: Origin,
    // How an encoding that was not named was recognised.
    seen: Option<&'static str>,
    // For an uncompressed file, its length when it was opened.
    length: Option<u64>,
    // Whether a line may be cut.
    text: bool,
    offset: u64,
    rest: Vec<u8>,
    done: bool,
}

impl Chunks {
    /// Opens a file of lines, compressed or not, whose bytes stay as they are: pieces end only at line ends.
    ///
    /// # Errors
    /// A file that cannot be opened, or that is not a regular file.
    pub fn lines(path: &Path) -> Result<Chunks> {
        let Unpacked { reader, packed, length } = unpacked(path)?;
        let origin = Origin { packed, encoding: None };
        Ok(Chunks {
            path: path.to_path_buf(),
            reader,
            origin,
            seen: None,
            length,
            text: false,
            offset: 0,
            rest: Vec::new(),
            done: false,
        })
    }

    /// Opens a text file in `encoding`, compressed or not; its pieces are UTF-8.
    ///
    /// # Errors
    /// A file that cannot be opened, is not a regular file, or is not text.
    pub fn text(path: &Path, encoding: Encoding) -> Result<Chunks> {
        let lines = Chunks::lines(path)?;
        let Decoded { reader, encoding, seen } = decoded(lines.reader, encoding).at(shown(path))?;
        Ok(Chunks { reader, origin: Origin { encoding, ..lines.origin }, seen, text: true, ..lines })
    }

    /// What offsets refer to.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The encoding, if it was not named, and how it was recognised.
    pub fn seen(&self) -> Option<(&'static str, &'static str)> {
        self.origin.encoding.zip(self.seen)
    }

    /// The number of bytes by which the file has grown since it was opened. They are not read.
    pub fn grown(&self) -> Option<u64> {
        let now = self.path.metadata().ok().filter(|_| self.path != Path::new(STDIN))?.len();
        now.checked_sub(self.length.filter(|length| *length > 0)?).filter(|more| *more > 0)
    }

    fn read(&mut self) -> Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        // The position up to which there is neither a line end nor another place to cut.
        let (mut goal, mut searched) = (CHUNK, 0);
        let cut = loop {
            let want = goal.saturating_sub(bytes.len()) as u64;
            let read = self.reader.by_ref().take(want).read_to_end(&mut bytes).at(shown(&self.path))?;
            if read == 0 {
                self.done = true;
                break bytes.len();
            }
            if bytes.len() < goal {
                continue;
            }
            let new = &bytes[searched..];
            // ASCII bytes are never part of a longer UTF-8 sequence, so these cuts split no character.
            if let Some(at) = new.iter().rposition(|&b| b == b'\n') {
                break searched + at + 1;
            }
            if self.text
                && let Some(at) = last_space(new)
            {
                break searched + at;
            }
            searched = bytes.len();
            goal += CHUNK;
            if goal > LONGEST {
                let what = if self.text { "white space" } else { "line's end" };
                return Err(Error::new(format!("there is no {what} in {} MB: is this text?", LONGEST >> 20))
                    .at(self.origin.place(&self.path, self.offset))
                    .hint(if self.text { "put each document on a line of its own" } else { "a line is a word and its values" }));
            }
        };
        self.rest = bytes.split_off(cut);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        // A byte order mark would become part of the first word.
        if offset == 0 && bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
            bytes[..3].fill(b' ');
        }
        Ok((!bytes.is_empty()).then_some(Chunk { bytes, offset, origin: self.origin }))
    }
}

impl Iterator for Chunks {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        if self.done { None } else { self.read().transpose() }
    }
}

/// The position after the last white space: ASCII's, or else any other.
fn last_space(bytes: &[u8]) -> Option<usize> {
    if let Some(at) = bytes.iter().rposition(u8::is_ascii_whitespace) {
        return Some(at + 1);
    }
    let (mut at, mut last) = (0, None);
    for part in bytes.utf8_chunks() {
        let spaces = part.valid().char_indices().rev().find(|(_, c)| c.is_whitespace());
        last = spaces.map(|(from, c)| at + from + c.len_utf8()).or(last);
        at += part.valid().len() + part.invalid().len();
    }
    last
}

/// The whole text of a file.
#[derive(Debug)]
pub struct Whole {
    /// The text, without a byte order mark.
    pub text: String,
    /// Notes about the reading.
    pub notes: Vec<String>,
}

/// Reads the whole text of a file, which may take half of the free memory.
///
/// # Errors
/// A file that cannot be read, is not text, or is too long; with [`Invalid::Refuse`], bytes that are not characters.
pub fn whole(path: &Path, encoding: Encoding, invalid: Invalid) -> Result<Whole> {
    whole_within(path, encoding, invalid, memory::free().map_or(u64::MAX, |free| free / SHARE))
}

/// [`whole`] with a limit of `most` bytes.
pub(super) fn whole_within(path: &Path, encoding: Encoding, invalid: Invalid, most: u64) -> Result<Whole> {
    let mut chunks = Chunks::text(path, encoding)?;
    let mut bytes = Vec::new();
    // The length of an uncompressed file is known before anything is read.
    let known = chunks.length.filter(|_| !chunks.origin.packed).unwrap_or(0);
    let read = if known > most {
        0
    } else {
        chunks.reader.by_ref().take(most.saturating_add(1)).read_to_end(&mut bytes).at(shown(path))?
    };
    if known > most || read as u64 > most {
        return Err(Error::new(format!("this text takes more than {most} bytes, half of the memory that is free"))
            .at(shown(path))
            .hint("cut it into several files"));
    }
    let mut notes = Vec::new();
    if let Some((encoding, by)) = chunks.seen() {
        notes.push(format!("{} is read as {encoding}, known by {by}; data.encoding names another", shown(path)));
    }
    if let Some(more) = chunks.grown() {
        notes.push(format!("{} grew by {more} bytes while it was read: they are left out", shown(path)));
    }
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let (at, bytes) = (e.utf8_error().valid_up_to(), e.as_bytes());
            let place = chunks.origin.place(path, at as u64);
            if invalid == Invalid::Refuse {
                return Err(chunks.origin.refusal(bytes[at]).at(place));
            }
            let bad = bytes.utf8_chunks().filter(|part| !part.invalid().is_empty()).count();
            notes.push(format!("replaced {bad} runs of bytes that are not characters, the first at {place}"));
            String::from_utf8_lossy(bytes).into_owned()
        }
    };
    if text.starts_with('\u{feff}') {
        text.drain(..3);
    }
    Ok(Whole { text, notes })
}
