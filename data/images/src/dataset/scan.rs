//! Checks every image's header before training, on all threads, so that a bad file costs a message and not a night of training.
//!
//! The first and the last bytes of each file are read. If they are not those of a whole image, the file is decoded, and the decoder
//! decides. Images that are whole are remembered in the user's cache by path, size and time of change, so that the next start only asks the
//! system for these.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::opened;
use ctk_core::store::files;
use ctk_core::{Context, Error, Result};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::images::{Item, Stored};
use super::report::{Bad, Sizes, count, some};
use super::{Images, Splits};
use crate::decode::{self, Kind, Law, Look};

/// Bytes that are read from a file's beginning: enough for almost every header.
const HEAD: usize = 64 << 10;

/// Bytes that are read from a file's end.
const TAIL: usize = 4 << 10;

/// Fewer images than this are checked faster than they are looked up in the cache.
const REMEMBERED: usize = 256;

/// What to do about an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// List all of them and train nothing.
    #[default]
    Fail,
    /// Leave them out, count and name them. One that fails during training is replaced by the next of its class.
    Skip,
}

/// An image that is whole, as far as the check can tell.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Whole {
    height: u32,
    width: u32,
    /// Whether the file has pages or frames beyond the first.
    more: bool,
    /// Whether it has more than 8 bits a channel.
    deep: bool,
}

impl Splits {
    /// The same splits after a check of every image; `path` is the data's path.
    ///
    /// # Errors
    /// Images that cannot be read, all of them by name, unless they are to be left out; or no image is left.
    pub fn scanned(self, path: &Path, on_error: OnError) -> Result<Splits> {
        let all = self.all();
        let looked = scan(&all, path);
        let bad: Vec<Bad> = looked.iter().filter_map(|(found, _)| found.as_ref().err().cloned()).collect();
        if !bad.is_empty() && on_error == OnError::Fail {
            return Err(refusal(&bad, path));
        }
        let mut found = (*self.found).clone();
        found.bytes = looked.iter().filter(|(found, _)| found.is_ok()).map(|(_, bytes)| bytes).sum();
        found.sizes =
            Sizes::of(looked.iter().filter_map(|(found, _)| found.as_ref().ok()).map(|w| (w.height, w.width)).collect());
        found.skipped.extend(bad);
        found.notes.extend(pages(&all, &looked));
        found.notes.extend(narrow(&all, &looked));
        let mut ok = looked.iter().map(|(found, _)| found.is_ok());
        let mut keep = |images: Images| -> Images {
            let kept: Vec<usize> = (0..images.len()).zip(ok.by_ref()).filter(|(_, ok)| *ok).map(|(i, _)| i).collect();
            let images = if kept.len() == images.len() { images } else { images.select(&kept) };
            images.lenient(on_error == OnError::Skip)
        };
        // In the order of `all`.
        let train = keep(self.train);
        let [val, test, unlabelled] = [self.val, self.test, self.unlabelled].map(|part| part.map(&mut keep));
        let apart = self.apart.into_iter().map(&mut keep).collect();
        let some = |part: Option<Images>| part.filter(|images| !images.is_empty());
        let splits = Splits { train, val: some(val), test: some(test), unlabelled: some(unlabelled), apart, found: found.into() };
        if splits.pretraining().is_empty() {
            return Err(refusal(&splits.found.skipped, path));
        }
        Ok(splits.finish())
    }
}

/// A note about files of which only the first page or frame is read.
fn pages(images: &Images, looked: &[(Result<Whole, Bad>, u64)]) -> Option<String> {
    let of = images.items().iter().zip(looked).filter(|(_, (found, _))| found.as_ref().is_ok_and(|whole| whole.more));
    let names: Vec<String> = of.map(|(item, _)| item.name.clone()).collect();
    let what = format!("of {}, which hold several pages or frames, the first is read", count(names.len(), "file"));
    let what = if names.len() == 1 { "of a file that holds several pages or frames, the first is read".into() } else { what };
    (!names.is_empty()).then(|| format!("{what}: {}", some(&names, names.len())))
}

/// The number of images of more than 8 bits that are decoded to see how much of their range they use.
const DEEP: usize = 16;

/// A warning about images of more than 8 bits that are nearly black in their full range.
fn narrow(images: &Images, looked: &[(Result<Whole, Bad>, u64)]) -> Option<String> {
    if images.law().range != decode::Range::Full {
        return None;
    }
    let deep = |(found, _): &(Result<Whole, Bad>, u64)| found.as_ref().is_ok_and(|whole| whole.deep);
    let items: Vec<&Item> = images.items().iter().zip(looked).filter(|(_, of)| deep(of)).map(|(item, _)| &**item).collect();
    let number = items.len().min(DEEP);
    let used = |place: usize| decode::used_range(&items[place * items.len() / number].stored.bytes().ok()?).ok()?;
    let mut shares: Vec<f64> = (0..number).into_par_iter().filter_map(used).collect();
    shares.sort_by(f64::total_cmp);
    decode::narrow_range(*shares.get(shares.len() / 2)?)
}

/// The number of images that an error names.
const LISTED: usize = 20;

fn refusal(bad: &[Bad], path: &Path) -> Error {
    let error = Error::new(format!("{} cannot be read", count(bad.len(), "image")));
    let error = bad.iter().take(LISTED).fold(error, |error, bad| error.at(format!("{}: {}", bad.path, bad.why)));
    let more = bad.len().saturating_sub(LISTED);
    let error = if more > 0 { error.at(format!("… and {more} more, which `ctk data check` lists")) } else { error };
    error.at(path.display()).hint("remove or replace them; a run that is trained with --set data.on_error=skip leaves them out, also of other data that it reads later")
}

/// The result of the check of each image, and its size in bytes.
fn scan(images: &Images, path: &Path) -> Vec<(Result<Whole, Bad>, u64)> {
    let place = cached(path).filter(|_| images.len() >= REMEMBERED);
    let known = place.as_deref().map(remembered).unwrap_or_default();
    let holders = holders(images);
    let looked: Vec<(Result<Whole, Bad>, u64, Option<Key>)> = images
        .items()
        .par_iter()
        .map(|item| {
            let holder = item.stored.file().and_then(|file| match &item.stored {
                Stored::File(file) => stamp(file),
                _ => holders.get(file).copied(),
            });
            let key = holder.map(|stamp| key(item, stamp));
            let bytes = item.stored.length().unwrap_or_else(|| holder.map_or(0, |stamp| stamp.0));
            let found = match key.and_then(|key| known.get(&key)) {
                Some(whole) => Ok(*whole),
                None => look(item, images.law()).map_err(|e| Bad { path: item.name.clone(), why: e.what().to_string() }),
            };
            (found, bytes, key)
        })
        .collect();
    let whole: Vec<(Key, Whole)> = looked.iter().filter_map(|(found, _, key)| Some(((*key)?, *found.as_ref().ok()?))).collect();
    let new = whole.iter().any(|(key, _)| !known.contains_key(key));
    if let Some(place) = place.filter(|_| new) {
        // If the cache cannot be written, images are checked again next time.
        let _ = files::write(&place, &whole.iter().flat_map(record).collect::<Vec<u8>>());
    }
    looked.into_iter().map(|(found, bytes, _)| (found, bytes)).collect()
}

/// A file's size in bytes and when it was changed, in nanoseconds.
type Stamp = (u64, u128);

fn stamp(file: &Path) -> Option<Stamp> {
    let of = fs::metadata(file).ok()?;
    let changed = of.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Some((of.len(), changed))
}

/// The stamps of files that hold many images.
fn holders(images: &Images) -> HashMap<PathBuf, Stamp> {
    let mut all = HashMap::new();
    for item in images.items() {
        if let Some(file) = item.stored.file().filter(|file| !matches!(item.stored, Stored::File(_)) && !all.contains_key(*file))
        {
            all.extend(stamp(file).map(|stamp| (file.to_path_buf(), stamp)));
        }
    }
    all
}

/// The identity of an image: its file, its place in it, the file's size and time of change.
type Key = [u8; 16];

fn key(item: &Item, stamp: Stamp) -> Key {
    let mut hasher = blake3::Hasher::new();
    let file = item.stored.file().unwrap_or(Path::new(""));
    hasher.update(file.as_os_str().as_encoded_bytes());
    hasher.update(&item.stored.offset().to_le_bytes()).update(&stamp.0.to_le_bytes()).update(&stamp.1.to_le_bytes());
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// The cache file for `path`: below CTK_CACHE, XDG_CACHE_HOME or the home folder; none without these.
fn cached(path: &Path) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("CTK_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("ctk")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/ctk")))?;
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
    Some(cache.join("headers-2").join(&name[..32]))
}

const RECORD: usize = 25;

fn record((key, whole): &(Key, Whole)) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..16].copy_from_slice(key);
    bytes[16..20].copy_from_slice(&whole.height.to_le_bytes());
    bytes[20..24].copy_from_slice(&whole.width.to_le_bytes());
    bytes[24] = u8::from(whole.more) | u8::from(whole.deep) << 1;
    bytes
}

fn remembered(place: &Path) -> HashMap<Key, Whole> {
    let bytes = fs::read(place).unwrap_or_default();
    let of = |record: &[u8; RECORD]| {
        let mut key = Key::default();
        key.copy_from_slice(&record[..16]);
        let number = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        let (more, deep) = (record[24] & 1 != 0, record[24] & 2 != 0);
        (key, Whole { height: number(16), width: number(20), more, deep })
    };
    bytes.as_chunks::<RECORD>().0.iter().map(of).collect()
}

/// Height and width of an image that is whole.
fn look(item: &Item, law: &Law) -> Result<Whole> {
    let Some((head, tail, length)) = ends(item)? else {
        let (height, width) = item.size()?;
        return Ok(Whole { height: height as u32, width: width as u32, more: false, deep: false });
    };
    let of = |look: Look| Whole { height: look.height as u32, width: look.width as u32, more: look.more, deep: look.deep };
    if let Ok(look) = decode::look(&head)
        && is_whole(look.kind, &head, &tail, length)
    {
        // If more frames may follow, only the whole file tells.
        let short = look.kind == Kind::Gif && length > head.len() as u64;
        return Ok(of(if short { decode::look(&item.stored.bytes()?)? } else { look }));
    }
    let bytes = item.stored.bytes()?;
    decode::decode_by(&bytes, law)?;
    decode::look(&bytes).map(of)
}

/// The first and the last bytes of an image file, and its length.
type Ends = (Vec<u8>, Vec<u8>, u64);

/// The first and last bytes of an image file; none for uncompressed pixels.
fn ends(item: &Item) -> Result<Option<Ends>> {
    let (path, offset, length) = match &item.stored {
        Stored::File(path) => (path.as_path(), 0, None),
        Stored::Inside(span) => (span.file.as_path(), span.offset, Some(span.length as u64)),
        Stored::Deflated(..) | Stored::Memory(_) | Stored::Row(_) => {
            let bytes = item.stored.bytes()?;
            let tail = bytes[bytes.len().saturating_sub(TAIL)..].to_vec();
            return Ok(Some((bytes[..bytes.len().min(HEAD)].to_vec(), tail, bytes.len() as u64)));
        }
        Stored::Raw(..) | Stored::Gray(..) | Stored::Generated(_) => return Ok(None),
    };
    let mut file = opened::open(path)?;
    let length = match length {
        Some(length) => length,
        None => file.metadata()?.len(),
    };
    let mut part = |from: u64, count: usize| -> Result<Vec<u8>> {
        file.seek(SeekFrom::Start(offset + from))?;
        let mut bytes = vec![0; (length - from).min(count as u64) as usize];
        file.read_exact(&mut bytes).hint("the file is shorter than it was: was it changed meanwhile?")?;
        Ok(bytes)
    };
    let head = part(0, HEAD)?;
    let from = length.saturating_sub(TAIL as u64);
    let tail = if length <= HEAD as u64 { head[from as usize..].to_vec() } else { part(from, TAIL)? };
    Ok(Some((head, tail, length)))
}

/// Whether an image file ends as its kind does; false if the last bytes cannot tell.
fn is_whole(kind: Kind, head: &[u8], tail: &[u8], length: u64) -> bool {
    let holds = |marker: &[u8]| tail.windows(marker.len()).any(|window| window == marker);
    let number = |at: usize| head.get(at..at + 4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    match kind {
        // In a short file the marker could be a thumbnail's; then the last two bytes must be one.
        Kind::Jpeg => {
            if length > HEAD as u64 {
                holds(&[0xFF, 0xD9])
            } else {
                tail.ends_with(&[0xFF, 0xD9])
            }
        }
        Kind::Png => holds(b"IEND"),
        Kind::Gif => tail.last() == Some(&0x3B),
        Kind::Webp => number(4).is_some_and(|size| size + 8 <= length),
        Kind::Bmp => number(2).is_some_and(|size| size > 0 && size <= length),
        Kind::Tiff | Kind::Pnm => false,
        #[cfg(feature = "heif")]
        Kind::Heif => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a/headers");
        let all: Vec<(Key, Whole)> = (0..300)
            .map(|i| ([i as u8; 16], Whole { height: i, width: 7 * i, more: i % 2 == 0, deep: i % 3 == 0 }))
            .take(200)
            .collect();
        files::write(&place, &all.iter().flat_map(record).collect::<Vec<u8>>()).unwrap();
        let read = remembered(&place);
        assert_eq!(read.len(), 200);
        assert!(all.iter().all(|(key, whole)| read[key] == *whole));
        assert!(remembered(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn a_file_that_changed_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.png");
        let key_now = || key(&Item::new("a.png", None, Stored::File(file.clone())), stamp(&file).unwrap());
        fs::write(&file, b"1").unwrap();
        let first = key_now();
        assert_eq!(first, key_now());
        fs::write(&file, b"22").unwrap();
        assert_ne!(first, key_now());
    }
}
