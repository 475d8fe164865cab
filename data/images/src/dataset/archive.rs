//! Archives, file by file: `.tar`, plain or packed (`.tar.gz`, `.tar.zst`), and `.zip`.
//!
//! Of a plain tar and of a zip, images stay where they are and are read by position. A packed tar has no positions: the bytes of its
//! images, as small as they are stored, are kept in memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use ::tar::{Archive, Entries, Entry};
use bytesize::ByteSize;
use ctk_core::{Context, Error, Result, memory};
use flate2::read::MultiGzDecoder;
use zip::{CompressionMethod, ZipArchive};

use super::report::Found;
use super::tree::{begins_as_image, extension, is_foreign, is_image, is_mark, is_unclear, kind};
use super::{Span, Stored};

/// Endings of the archives that are read.
const ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".zip"];

/// What a file with a class may hold.
const LONGEST_CLASS: u64 = 32;

/// A file inside an archive: an image, or a text that names an image's class.
pub(super) struct Inner {
    /// Its path inside the archive.
    pub path: String,
    pub body: Body,
}

pub(super) enum Body {
    Image(Stored),
    Class(String),
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

/// The images of `file` and their classes, in the order in which they lie there; what is neither is counted in `found`.
///
/// # Errors
/// An archive that is damaged, encrypted, or too large to be kept in memory.
pub(super) fn list(file: &Path, found: &mut Found) -> Result<Vec<Inner>> {
    let name = file.to_string_lossy().to_lowercase();
    let open = || File::open(file).map(|file| BufReader::with_capacity(1 << 16, file)).at(file.display());
    match () {
        () if name.ends_with(".zip") => zip(file, open()?, found),
        () if name.ends_with(".tar") => plain(file, open()?, found),
        () if name.ends_with("zst") => zstd::Decoder::with_buffer(open()?).map_err(Error::from).and_then(|r| packed(r, found)),
        () => packed(MultiGzDecoder::new(open()?), found),
    }
    .at(file.display())
}

const DAMAGED: &str = "the archive is damaged or cut short: fetch it again";

/// What a file inside is, as far as its name tells.
enum Kind {
    Image,
    Class,
    Unclear,
    Other,
}

/// The kind of the file `path`; nothing where it is another program's mark.
fn kind_of(path: &str, found: &mut Found) -> Option<Kind> {
    let (folders, base) = path.rsplit_once('/').unwrap_or(("", path));
    if folders.split('/').any(|folder| folder != "." && is_foreign(folder)) || is_mark(base) || base.is_empty() {
        return None;
    }
    if extension(base).is_some_and(|e| e == "cls") {
        return Some(Kind::Class);
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

/// A path as archives write it, `./a/b.png` or `a\b.png`, as one of ours.
fn tidy(path: &str) -> String {
    let path = path.replace('\\', "/");
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

/// The files of a tar. `image` stores an image, or gives nothing where a file `unclear` by its name does not begin as one.
fn tar<'a, R: Read + 'a>(
    entries: Entries<'a, R>,
    found: &mut Found,
    mut image: impl FnMut(&mut Entry<'a, R>, &str, bool) -> Result<Option<Stored>>,
) -> Result<Vec<Inner>> {
    let mut all = Vec::new();
    for entry in entries {
        let mut entry = entry.hint(DAMAGED)?;
        let path = tidy(&entry.path()?.to_string_lossy());
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let body = match kind_of(&path, found) {
            None => continue,
            Some(Kind::Class) => Some(class(&path, entry.by_ref())?),
            Some(Kind::Other) => None,
            Some(kind) => image(&mut entry, &path, matches!(kind, Kind::Unclear))?.map(Body::Image),
        };
        match body {
            Some(body) => all.push(Inner { path, body }),
            None => pass_over(&path, found),
        }
    }
    Ok(all)
}

fn plain(file: &Path, reader: BufReader<File>, found: &mut Found) -> Result<Vec<Inner>> {
    let shared = Arc::new(file.to_path_buf());
    let length = std::fs::metadata(file)?.len();
    tar(Archive::new(reader).entries_with_seek()?, found, |entry, path, unclear| {
        let span = Span { file: shared.clone(), offset: entry.raw_file_position(), length: entry.size() as usize };
        if span.offset + entry.size() > length {
            return Err(Error::new("the archive ends inside this image").at(path).hint("fetch the file again"));
        }
        let none = unclear && !begins_as_image(&start(entry)?);
        Ok((!none).then_some(Stored::Inside(span)))
    })
}

fn packed(reader: impl Read, found: &mut Found) -> Result<Vec<Inner>> {
    let room = memory::limit("data.cache", "auto")?;
    let mut kept = 0;
    let all = tar(Archive::new(reader).entries()?, found, |entry, path, unclear| {
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).at(path).hint(DAMAGED)?;
        if unclear && !begins_as_image(&bytes) {
            return Ok(None);
        }
        kept += bytes.len();
        if kept > room {
            let allowed = ByteSize::b(room as u64).display().si();
            return Err(Error::usage(format!("this archive is packed as one piece, and its images take more than {allowed}"))
                .hint("unpack it, or pack it as a plain .tar or a .zip: these can stay packed"));
        }
        Ok(Some(Stored::Memory(bytes.into())))
    })?;
    if kept > 0 {
        let size = ByteSize::b(kept as u64).display().si();
        found.note(format!("the archive is packed as one piece: its images, {size}, are kept in memory as they are stored"));
    }
    Ok(all)
}

fn zip(file: &Path, reader: BufReader<File>, found: &mut Found) -> Result<Vec<Inner>> {
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
        let Some(kind) = kind_of(&path, found) else { continue };
        if matches!(kind, Kind::Other) {
            pass_over(&path, found);
            continue;
        }
        if inner.encrypted() {
            return Err(Error::usage("this archive is encrypted").at(&path).hint("unpack it, and give the folder"));
        }
        let offset =
            inner.data_start().ok_or_else(|| Error::new("this file of the archive has no place").at(&path).hint(DAMAGED))?;
        let span = Span { file: shared.clone(), offset, length: inner.compressed_size() as usize };
        let stored = match inner.compression() {
            CompressionMethod::Stored => Stored::Inside(span),
            CompressionMethod::DEFLATE => Stored::Deflated(span, inner.size() as usize),
            other => {
                return Err(Error::usage(format!("this file is packed by {other}, and of zip archives only deflate is read"))
                    .at(&path)
                    .hint("unpack the archive, and give the folder"));
            }
        };
        let body = match kind {
            Kind::Class => class(&path, &*stored.bytes().at(&path).hint(DAMAGED)?)?,
            Kind::Unclear if !begins_as_image(&stored.bytes().at(&path).hint(DAMAGED)?) => {
                pass_over(&path, found);
                continue;
            }
            _ => Body::Image(stored),
        };
        all.push(Inner { path, body });
    }
    Ok(all)
}

/// The first bytes of a file inside.
fn start(body: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(16).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A deflated file of a zip archive, whole.
pub(super) fn inflate(packed: &[u8], size: usize) -> Result<Vec<u8>> {
    // Grows with what is really there, whatever the archive claims.
    let mut bytes = Vec::new();
    let read = flate2::read::DeflateDecoder::new(packed).take(size as u64 + 1).read_to_end(&mut bytes);
    match read {
        Ok(length) if length == size => Ok(bytes),
        Ok(length) => Err(Error::new(format!("the archive promises {size} bytes here and holds {length}")).hint(DAMAGED)),
        Err(e) => Err(Error::new(format!("cannot unpack this file: {e}")).hint(DAMAGED)),
    }
}
