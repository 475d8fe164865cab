//! Lists and reads archives: `.tar`, plain or compressed (`.tar.gz`, `.tar.zst`), and `.zip`.
//!
//! Images of a plain tar or a zip stay in the file and are read by their position. A compressed tar has no positions, so the bytes of its
//! images, as they are stored, are kept in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::tar::{Archive, Entries, Entry};
use bytesize::ByteSize;
use ctk_core::opened;
use ctk_core::{Context, Error, Result, memory};
use flate2::read::MultiGzDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::captions::keyed::{LONGEST, Text};
use super::captions::{Captions, Reading};
use super::report::Found;
use super::tree::{begins_as_image, extension, is_foreign, is_image, is_mark, is_unclear, kind};
use super::{Span, Stored};

/// File name endings of archives that are read.
const ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".zip"];

/// The largest image file in bytes: the largest number of pixels with 16 bits a channel and alpha, uncompressed.
const LONGEST_IMAGE: u64 = crate::decode::MOST_PIXELS * 8;

/// The longest content of a file with a class.
const LONGEST_CLASS: u64 = 32;

/// A file inside an archive: an image, or a text with an image's class or captions.
pub(super) struct Inner {
    /// Its path inside the archive.
    pub path: String,
    pub body: Body,
    /// Of an image its captions, once they are attached to it (`captions/keyed.rs`).
    pub captions: Option<Arc<Captions>>,
}

pub(super) enum Body {
    Image(Stored),
    Class(String),
    Text(Text),
}

/// Whether a file's name is that of an archive.
pub(super) fn is_archive(name: &str) -> bool {
    stem(name).is_some()
}

/// An archive's name without its ending.
pub(super) fn stem(name: &str) -> Option<&str> {
    // The longest ending first: `.tar.gz` is more than `.gz`.
    let end =
        ENDINGS.iter().filter(|end| name.len() > end.len() && name.to_lowercase().ends_with(*end)).map(|end| end.len()).max()?;
    name.get(..name.len() - end)
}

/// The images of `file` and their classes, in the order of the archive, and files of captions where these are read; other files are counted
/// in `found`.
///
/// # Errors
/// An archive that is damaged, encrypted, or too large to be kept in memory.
pub(super) fn list(file: &Path, how: Reading, found: &mut Found) -> Result<Vec<Inner>> {
    let name = file.to_string_lossy().to_lowercase();
    let opened = opened::open(file).at(file.display())?;
    let length = opened.metadata().at(file.display())?.len();
    let reader = BufReader::with_capacity(1 << 16, opened);
    match () {
        () if name.ends_with(".zip") => zip(file, reader, length, how, found),
        () if name.ends_with(".tar") => plain(file, reader, length, how, found),
        () if name.ends_with("zst") => zstd::Decoder::with_buffer(reader)
            .map_err(Error::from)
            .and_then(|reader| packed(Bounded::of(reader, length), how, found)),
        () => packed(Bounded::of(MultiGzDecoder::new(reader), length), how, found),
    }
    .at(file.display())
}

const DAMAGED: &str = "the archive is damaged or cut short: fetch it again";

/// The kind of a file inside an archive, by its name.
enum Kind {
    Image,
    Class,
    Text,
    Unclear,
    Other,
}

/// The kind of the file `path`; none for another program's hidden files.
fn kind_of(path: &str, how: Reading, found: &mut Found) -> Option<Kind> {
    let (folders, base) = path.rsplit_once('/').unwrap_or(("", path));
    if folders.split('/').any(|folder| folder != "." && is_foreign(folder)) || is_mark(base) || base.is_empty() {
        return None;
    }
    if extension(base).is_some_and(|e| e == "cls") {
        return Some(Kind::Class);
    }
    if how.captions && !base.starts_with('.') && extension(base).is_some_and(|e| e == "txt" || e == "json") {
        return Some(Kind::Text);
    }
    found.files += 1;
    Some(match () {
        () if base.starts_with('.') => Kind::Other,
        () if is_image(base) => Kind::Image,
        () if is_unclear(base) => Kind::Unclear,
        () => Kind::Other,
    })
}

fn pass_over(path: &str, found: &mut Found) {
    found.pass_over(kind(path.rsplit('/').next().unwrap_or_default()), path);
}

fn class(path: &str, body: impl Read) -> Result<Body> {
    let mut text = String::new();
    body.take(LONGEST_CLASS).read_to_string(&mut text).at(path)?;
    Ok(Body::Class(text.trim().to_string()))
}

fn text(path: &str, body: impl Read, how: Reading) -> Result<Body> {
    let mut bytes = Vec::new();
    body.take(LONGEST + 1).read_to_end(&mut bytes).at(path)?;
    Ok(Body::Text(Text::of(path, &bytes, how)))
}

/// Normalises a path in an archive, such as `./a/b.png` or `a\b.png`.
fn tidy(path: &str) -> String {
    let path = path.replace('\\', "/");
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// Lists the files of a tar. `image` stores an image; for a file whose name is `unclear`, it returns none if the content is not an image.
fn tar<'a, R: Read + 'a>(
    entries: Entries<'a, R>,
    how: Reading,
    found: &mut Found,
    mut image: impl FnMut(&mut Entry<'a, R>, &str, bool) -> Result<Option<Stored>>,
) -> Result<Vec<Inner>> {
    let mut all = Vec::new();
    for entry in entries {
        let mut entry = entry.hint(DAMAGED)?;
        let path = tidy(&entry.path()?.to_string_lossy());
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            found.files += 1;
            found.pass_over("file with holes (sparse)", &path);
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        let body = match kind_of(&path, how, found) {
            None => continue,
            Some(Kind::Class) => Some(class(&path, entry.by_ref())?),
            Some(Kind::Text) => Some(text(&path, entry.by_ref(), how)?),
            Some(Kind::Other) => None,
            Some(kind) => image(&mut entry, &path, matches!(kind, Kind::Unclear))?.map(Body::Image),
        };
        match body {
            Some(body) => all.push(Inner { path, body, captions: None }),
            None => pass_over(&path, found),
        }
    }
    Ok(all)
}

fn plain(file: &Path, reader: BufReader<File>, length: u64, how: Reading, found: &mut Found) -> Result<Vec<Inner>> {
    let shared = Arc::new(file.to_path_buf());
    tar(Archive::new(reader).entries_with_seek()?, how, found, |entry, path, unclear| {
        let span = inside(&shared, entry.raw_file_position(), entry.size(), length).at(path)?;
        let none = unclear && !begins_as_image(&start(entry)?);
        Ok((!none).then_some(Stored::Inside(span)))
    })
}

fn packed(reader: impl Read, how: Reading, found: &mut Found) -> Result<Vec<Inner>> {
    let room = memory::limit("data.cache", "auto")?;
    let mut kept = 0u64;
    let all = tar(Archive::new(reader).entries()?, how, found, |entry, path, unclear| {
        let mut bytes = start(&mut *entry).at(path).hint(DAMAGED)?;
        if unclear && !begins_as_image(&bytes) {
            return Ok(None);
        }
        // By the size that the archive claims, before it is unpacked.
        kept = entry.size().saturating_add(kept);
        if kept > room as u64 {
            let allowed = ByteSize::b(room as u64).display().si();
            return Err(Error::usage(format!("this archive is compressed as a whole, and its images take more than {allowed}"))
                .at(path)
                .hint("unpack it, or store the images in a plain .tar or a .zip, which can be read as they are"));
        }
        bytes.reserve_exact((entry.size() as usize).saturating_sub(bytes.len()));
        entry.read_to_end(&mut bytes).at(path).hint(DAMAGED)?;
        Ok(Some(Stored::Memory(bytes.into())))
    })?;
    if kept > 0 {
        let size = ByteSize::b(kept).display().si();
        found.note(format!("the archive is compressed as a whole: its images, {size}, are kept in memory as they are stored"));
    }
    Ok(all)
}

fn zip(file: &Path, reader: BufReader<File>, length: u64, how: Reading, found: &mut Found) -> Result<Vec<Inner>> {
    let damaged = |e: zip::result::ZipError| Error::new(format!("cannot read the archive: {e}")).hint(DAMAGED);
    let shared = Arc::new(file.to_path_buf());
    let mut all = Vec::new();
    let mut archive = ZipArchive::new(reader).map_err(damaged)?;
    for index in 0..archive.len() {
        let inner = archive.by_index_raw(index).map_err(damaged)?;
        let path = tidy(&inner.name().map_err(damaged)?);
        if !inner.is_file() {
            continue;
        }
        let Some(kind) = kind_of(&path, how, found) else { continue };
        if matches!(kind, Kind::Other) {
            pass_over(&path, found);
            continue;
        }
        if inner.encrypted() {
            return Err(Error::usage("this archive is encrypted").at(&path).hint("unpack it, and give the folder"));
        }
        let offset =
            inner.data_start().ok_or_else(|| Error::new("this file of the archive has no place").at(&path).hint(DAMAGED))?;
        let span = inside(&shared, offset, inner.compressed_size(), length).at(&path)?;
        let stored = match inner.compression() {
            CompressionMethod::Stored => Stored::Inside(span),
            CompressionMethod::DEFLATE => {
                let size = usize::try_from(inner.size()).unwrap_or(usize::MAX);
                if matches!(kind, Kind::Image | Kind::Unclear) && size as u64 > LONGEST_IMAGE {
                    let claimed = ByteSize::b(inner.size()).display().si();
                    return Err(Error::new(format!("this file would unpack to {claimed}, and no image is so large"))
                        .at(&path)
                        .hint("the archive is damaged, or made to fill memory: remove the file from it"));
                }
                Stored::Deflated(span, size)
            }
            other => {
                return Err(Error::usage(format!("this file is compressed by {other}; of zip archives only deflate is read"))
                    .at(&path)
                    .hint("unpack the archive, and give the folder"));
            }
        };
        let body = match kind {
            Kind::Class => class(&path, &*begin(&stored, LONGEST_CLASS).at(&path).hint(DAMAGED)?)?,
            Kind::Text => text(&path, &*begin(&stored, LONGEST + 1).at(&path).hint(DAMAGED)?, how)?,
            Kind::Unclear if !begins_as_image(&begin(&stored, START).at(&path).hint(DAMAGED)?) => {
                pass_over(&path, found);
                continue;
            }
            _ => Body::Image(stored),
        };
        all.push(Inner { path, body, captions: None });
    }
    Ok(all)
}

/// The number of first bytes that tell whether a file is an image.
const START: u64 = 16;

/// The first bytes of a file inside an archive.
fn start(body: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(START).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Up to `most` bytes of a stored file's beginning; the rest is not unpacked.
fn begin(stored: &Stored, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match stored {
        Stored::Deflated(span, _) => {
            flate2::read::DeflateDecoder::new(&*span.read()?).take(most).read_to_end(&mut bytes)?;
        }
        Stored::Inside(span) => bytes = Span { length: span.length.min(most as usize), ..span.clone() }.read()?,
        other => bytes.extend(other.bytes()?.iter().take(most as usize)),
    }
    Ok(bytes)
}

/// `size` bytes of the archive `file` at `offset`, if the archive is long enough.
fn inside(file: &Arc<PathBuf>, offset: u64, size: u64, length: u64) -> Result<Span> {
    match (offset.checked_add(size).filter(|end| *end <= length), usize::try_from(size)) {
        (Some(_), Ok(size)) => Ok(Span { file: file.clone(), offset, length: size }),
        _ => Err(Error::new("the archive ends inside this file").hint(DAMAGED)),
    }
}

/// A reader of a compressed archive that stops at an implausible size: images are compressed already and hardly become smaller.
struct Bounded<R> {
    reader: R,
    left: u64,
}

/// An archive of images unpacks to at most this many times its size, or to a fixed number of bytes if that is more.
const EXPANDS: u64 = 200;
const EXPANDED: u64 = 1 << 30;

impl<R> Bounded<R> {
    fn of(reader: R, length: u64) -> Bounded<R> {
        Bounded { reader, left: length.saturating_mul(EXPANDS).max(EXPANDED) }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(bytes)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            std::io::Error::other(format!(
                "it unpacks to more than {EXPANDS} times its size, which archives of images do not: unpack it yourself if it can be \
                 trusted"
            ))
        })?;
        Ok(read)
    }
}

/// The whole content of a deflated file in a zip archive.
pub(super) fn inflate(packed: &[u8], size: usize) -> Result<Vec<u8>> {
    // The buffer grows with the real content, whatever the archive claims.
    let mut bytes = Vec::new();
    let read = flate2::read::DeflateDecoder::new(packed).take((size as u64).saturating_add(1)).read_to_end(&mut bytes);
    match read {
        Ok(length) if length == size => Ok(bytes),
        Ok(length) => Err(Error::new(format!("the archive announces {size} bytes here and holds {length}")).hint(DAMAGED)),
        Err(e) => Err(Error::new(format!("cannot unpack this file: {e}")).hint(DAMAGED)),
    }
}
