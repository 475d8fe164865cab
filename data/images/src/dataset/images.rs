//! Lists of images by index: where each image's bytes lie, and the decoded images that are cached.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ctk_core::data::dataset::Dataset;
use ctk_core::opened;
use ctk_core::{Context, Error, Result, memory};
use rayon::prelude::*;

use super::archive;
use super::cache::Cache;
use super::captions::Captions;
use super::report::Bad;
use super::spool::Cell;
use crate::decode::{self, Law};
use crate::picture::Picture;
use crate::scene::{self, Scene};

/// A digest of an image's pixels: equal pixels have equal digests.
pub type Digest = blake3::Hash;

/// A list of images, labelled or not. Clones, parts and unions share the images and the cache.
#[derive(Clone)]
pub struct Images {
    items: Vec<Arc<Item>>,
    classes: Arc<Vec<String>>,
    cache: Arc<Cache>,
    // Images that could not be read during training, with the reason; none if that is an error.
    skipped: Option<Arc<Mutex<BTreeMap<String, String>>>>,
    law: Law,
}

/// One image: its name, its class, and where its bytes lie.
pub(crate) struct Item {
    pub name: String,
    pub label: Option<u32>,
    pub stored: Stored,
    /// The group that it belongs to, if known: a patient, a video.
    pub group: Option<Arc<str>>,
    /// Its captions, if they were asked for and there are any: one pointer, because there may be millions of images without.
    pub captions: Option<Arc<Captions>>,
    decoded: OnceLock<Arc<Picture>>,
}

/// Where an image's bytes lie.
#[derive(Clone)]
pub(crate) enum Stored {
    /// An image file.
    File(PathBuf),
    /// An image file inside another file.
    Inside(Span),
    /// A deflated image file inside another file, and its size when unpacked.
    Deflated(Span, usize),
    /// An image file's bytes.
    Memory(Arc<[u8]>),
    /// An image file in a row of a compressed table.
    Row(Cell),
    /// Uncompressed pixels inside a file.
    Raw(Span, Layout),
    /// Uncompressed gray pixels in memory: `height`, `width`, and their range.
    Gray(Arc<Vec<u8>>, usize, usize, Range<usize>),
    /// Rendered when it is needed.
    Generated(Scene),
}

/// A range of bytes in a file.
#[derive(Clone)]
pub(crate) struct Span {
    pub file: Arc<PathBuf>,
    pub offset: u64,
    pub length: usize,
}

/// The layout of uncompressed pixels: height and width, and the order of the rest.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Three row-major planes (CIFAR).
    Planes(usize, usize),
    /// Three column-major planes (STL-10).
    Columns(usize, usize),
    /// One row-major plane (IDX).
    Gray(usize, usize),
}

impl Item {
    pub fn new(name: impl Into<String>, label: Option<u32>, stored: Stored) -> Item {
        Item { name: name.into(), label, stored, group: None, captions: None, decoded: OnceLock::new() }
    }

    /// The same item in `group`.
    pub fn of_group(self, group: Option<Arc<str>>) -> Item {
        Item { group, ..self }
    }

    /// The same item with `captions`.
    pub fn captioned(self, captions: Option<Arc<Captions>>) -> Item {
        Item { captions, ..self }
    }

    /// Decodes the image.
    ///
    /// # Errors
    /// The file cannot be read or decoded.
    pub fn read(&self, law: &Law) -> Result<Picture> {
        match &self.stored {
            Stored::File(_) | Stored::Inside(_) | Stored::Deflated(..) | Stored::Memory(_) | Stored::Row(_) => {
                self.stored.at(self.stored.bytes().and_then(|bytes| decode::decode_by(&bytes, law)))
            }
            Stored::Raw(span, layout) => {
                let bytes = span.read().at(span.file.display())?;
                Ok(match *layout {
                    Layout::Planes(height, width) => Picture::from_planes(height, width, &bytes),
                    Layout::Columns(height, width) => Picture::from_columns(height, width, &bytes),
                    Layout::Gray(height, width) => Picture::from_gray(height, width, &bytes),
                })
            }
            Stored::Gray(bytes, height, width, range) => Ok(Picture::from_gray(*height, *width, &bytes[range.clone()])),
            Stored::Generated(scene) => Ok(scene.render()),
        }
    }

    /// Height and width without decoding.
    ///
    /// # Errors
    /// The file cannot be read, or its header is damaged.
    pub fn size(&self) -> Result<(usize, usize)> {
        match &self.stored {
            Stored::File(_) | Stored::Inside(_) | Stored::Deflated(..) | Stored::Memory(_) | Stored::Row(_) => {
                self.stored.at(self.stored.bytes().and_then(|bytes| decode::size(&bytes)))
            }
            Stored::Raw(_, Layout::Planes(h, w) | Layout::Columns(h, w) | Layout::Gray(h, w)) | Stored::Gray(_, h, w, _) => {
                Ok((*h, *w))
            }
            Stored::Generated(_) => Ok((scene::SIZE, scene::SIZE)),
        }
    }
}

impl Stored {
    /// The bytes as they are stored: an image file's, or uncompressed pixels.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        Ok(match self {
            Stored::File(path) => opened::read(path)?.into(),
            Stored::Inside(span) | Stored::Raw(span, _) => span.read()?.into(),
            Stored::Deflated(span, size) => archive::inflate(&span.read()?, *size)?.into(),
            Stored::Memory(bytes) => bytes[..].into(),
            Stored::Row(cell) => cell.read()?.into(),
            Stored::Gray(bytes, _, _, range) => bytes[range.clone()].into(),
            Stored::Generated(_) => Cow::default(),
        })
    }

    /// The file that holds it, if there is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Stored::File(path) => Some(path),
            Stored::Inside(span) | Stored::Deflated(span, _) | Stored::Raw(span, _) => Some(span.file.as_path()),
            Stored::Row(cell) => Some(&cell.of.table),
            Stored::Memory(_) | Stored::Gray(..) | Stored::Generated(_) => None,
        }
    }

    /// Where it lies in its file: the first byte, or the row.
    pub fn offset(&self) -> u64 {
        match self {
            Stored::Inside(span) | Stored::Deflated(span, _) | Stored::Raw(span, _) => span.offset,
            Stored::Row(cell) => u64::from(cell.row),
            Stored::File(_) | Stored::Memory(_) | Stored::Gray(..) | Stored::Generated(_) => 0,
        }
    }

    /// Its size in bytes; for a file of its own only the system knows it.
    pub fn length(&self) -> Option<u64> {
        match self {
            Stored::File(_) => None,
            Stored::Inside(span) | Stored::Deflated(span, _) | Stored::Raw(span, _) => Some(span.length as u64),
            Stored::Memory(bytes) => Some(bytes.len() as u64),
            Stored::Row(cell) => Some(u64::from(cell.length)),
            Stored::Gray(_, _, _, range) => Some(range.len() as u64),
            Stored::Generated(_) => Some(0),
        }
    }

    fn at<T>(&self, result: Result<T>) -> Result<T> {
        match self.file() {
            Some(file) => result.at(file.display()),
            None => result,
        }
    }
}

/// Refuses more images than fit into memory as a list, before the list is made.
pub(super) fn listed(count: u64) -> Result<()> {
    // The item, its counters, its name.
    let bytes = count.saturating_mul(size_of::<Item>() as u64 + 64);
    memory::require(&format!("a list of {count} images"), bytes, |_| "is the file damaged?".to_string())
}

impl Span {
    /// The bytes of the range. The file is opened for each read: no handle is shared between threads, and the cache makes it one read
    /// for each image.
    ///
    /// # Errors
    /// The file cannot be read, or ends earlier.
    pub fn read(&self) -> Result<Vec<u8>> {
        opened::span(&self.file, self.offset, self.length)
    }
}

impl Images {
    pub(crate) fn new(items: Vec<Item>, classes: Vec<String>) -> Images {
        Images {
            items: items.into_iter().map(Arc::new).collect(),
            classes: Arc::new(classes),
            cache: Arc::default(),
            law: Law::default(),
            skipped: None,
        }
    }

    /// The same images with `cache` for decoded ones.
    pub fn cached(self, cache: &Arc<Cache>) -> Images {
        Images { cache: cache.clone(), ..self }
    }

    /// The same images decoded by `law`; none may have been decoded yet.
    pub fn decoded_by(self, law: Law) -> Images {
        Images { law, ..self }
    }

    /// One line about how many decoded images will stay in memory, to print.
    ///
    /// # Errors
    /// There is no image.
    pub fn cache_line(&self) -> Result<String> {
        let sizes = self.sizes(64)?.into_iter().map(|(height, width)| height * width * 3).collect::<Vec<_>>();
        let mean = sizes.iter().sum::<usize>() / sizes.len().max(1);
        Ok(self.cache.line(self.items.len(), mean))
    }

    /// The rules by which they are decoded.
    pub(crate) fn law(&self) -> &Law {
        &self.law
    }

    /// The same images. If one cannot be read, the next readable image of its class is used instead, and that is recorded.
    pub(crate) fn lenient(self, lenient: bool) -> Images {
        Images { skipped: lenient.then(Arc::default), ..self }
    }

    /// The images that were replaced because they could not be read, with the reasons.
    pub fn skipped(&self) -> Vec<Bad> {
        let Some(skipped) = &self.skipped else { return Vec::new() };
        let skipped = skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.iter().map(|(path, why)| Bad { path: path.clone(), why: why.clone() }).collect()
    }

    /// Image `index`, from the cache or decoded on the calling thread.
    ///
    /// # Errors
    /// The image cannot be read, and images are not replaced.
    pub fn picture(&self, index: usize) -> Result<Arc<Picture>> {
        self.readable(index).map(|(_, picture)| picture)
    }

    /// Image `index` as [`picture`](Self::picture) returns it, and the index of the image that it really is: another one where images that
    /// cannot be read are replaced. That image's captions belong to the picture.
    ///
    /// # Errors
    /// Those of [`picture`](Self::picture).
    pub fn readable(&self, index: usize) -> Result<(usize, Arc<Picture>)> {
        match (self.decoded(index), &self.skipped) {
            (Err(e), Some(skipped)) => {
                let item = &self.items[index];
                skipped.lock().unwrap_or_else(PoisonError::into_inner).insert(item.name.clone(), e.what().to_string());
                let next = (1..self.items.len()).map(|step| (index + step) % self.items.len());
                let mut alike = next.filter(|&i| self.items[i].label == item.label);
                alike.find_map(|i| Some((i, self.decoded(i).ok()?))).ok_or(e)
            }
            (picture, _) => Ok((index, picture?)),
        }
    }

    /// Image `index`; one that cannot be read is an error in any case.
    pub(crate) fn decoded(&self, index: usize) -> Result<Arc<Picture>> {
        let item = &self.items[index];
        if let Some(picture) = item.decoded.get() {
            return Ok(picture.clone());
        }
        let picture = Arc::new(item.read(&self.law)?);
        let bytes = picture.pixels.len();
        // Two threads may decode the same image; the second one frees its space again.
        if self.cache.take(bytes) && item.decoded.set(picture.clone()).is_err() {
            self.cache.give_back(bytes);
        }
        Ok(picture)
    }

    /// Names of the classes by number; empty where there are no labels.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Every image's class; none if an image has no class.
    pub fn labels(&self) -> Option<Vec<u32>> {
        self.items.iter().map(|item| item.label).collect()
    }

    /// The class of each image.
    pub(crate) fn each_label(&self) -> impl Iterator<Item = Option<u32>> + '_ {
        self.items.iter().map(|item| item.label)
    }

    /// The same images without classes.
    pub(crate) fn without_labels(&self) -> Images {
        let bare = |item: &Item| Item::new(item.name.clone(), None, item.stored.clone());
        let item = |item: &Arc<Item>| Arc::new(bare(item).of_group(item.group.clone()).captioned(item.captions.clone()));
        Images { items: self.items.iter().map(item).collect(), classes: Arc::default(), ..self.clone() }
    }

    /// The group of image `index`, if known.
    pub(crate) fn group(&self, index: usize) -> Option<&str> {
        self.items[index].group.as_deref()
    }

    /// The captions of image `index`, in the data's order, each once; none if captions were not asked for, or it has none.
    pub fn captions(&self, index: usize) -> &[Box<str>] {
        self.items[index].captions.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Whether any image has a caption. If not, the format has no captions, or they were not asked for (see
    /// [`open_captioned`](super::open_captioned)).
    pub fn has_captions(&self) -> bool {
        self.items.iter().any(|item| item.captions.is_some())
    }

    pub(super) fn items(&self) -> &[Arc<Item>] {
        &self.items
    }

    /// The number of files that hold the images.
    pub(crate) fn containers(&self) -> usize {
        let files: HashSet<&Path> = self.items.iter().filter_map(|item| item.stored.file()).collect();
        files.len()
    }

    /// Every image's name, relative to the data's folder.
    pub fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.name.clone()).collect()
    }

    /// The images with these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Images {
        Images { items: indices.iter().map(|&i| self.items[i].clone()).collect(), ..self.clone() }
    }

    /// These images followed by those of `other`, with these class names: both come from the same data.
    pub fn and(&self, other: &Images) -> Images {
        Images { items: self.items.iter().chain(&other.items).cloned().collect(), ..self.clone() }
    }

    /// The digest of every image's pixels, in order. Decodes every image, on all threads.
    ///
    /// # Errors
    /// The first image (in order) that cannot be decoded.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        let digests: Vec<Result<Digest>> = (0..self.items.len())
            .into_par_iter()
            .map(|i| self.picture(i).map(|picture| picture.digest()).map_err(|e| e.at(&self.items[i].name)))
            .collect();
        digests.into_iter().collect()
    }

    /// The median of the shorter sides of `sample` images, spread evenly over the data, in pixels; general recipes depend on it.
    ///
    /// # Errors
    /// There is no image, or none whose header can be read.
    pub fn median_side(&self, sample: usize) -> Result<usize> {
        let mut sides: Vec<usize> = self.sizes(sample)?.into_iter().map(|(height, width)| height.min(width)).collect();
        sides.sort_unstable();
        sides.get(sides.len() / 2).copied().ok_or_else(|| Error::new("there is no image to look at"))
    }

    /// Height and width of `sample` images, spread evenly over the data, without decoding; of those whose header can be read.
    fn sizes(&self, sample: usize) -> Result<Vec<(usize, usize)>> {
        let count = sample.min(self.items.len());
        let sizes: Vec<Result<(usize, usize)>> = (0..count).map(|i| self.items[i * self.items.len() / count].size()).collect();
        match sizes.iter().any(Result::is_ok) {
            true => Ok(sizes.into_iter().flatten().collect()),
            // If none of them can be read, the reason should be reported.
            false => sizes.into_iter().collect(),
        }
    }
}

impl Dataset for Images {
    // Decoded here, because the same loader thread needs it next, and only here can it be cached.
    type Sample = Arc<Picture>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn get(&self, index: usize) -> Result<Arc<Picture>> {
        self.picture(index)
    }

    fn name(&self, index: usize) -> String {
        self.items[index].name.clone()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.items[index].label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(count: usize) -> Images {
        let bytes = Arc::new((0..count as u8 * 4).collect::<Vec<u8>>());
        let item = |i: usize| Item::new(i.to_string(), None, Stored::Gray(bytes.clone(), 2, 2, i * 4..i * 4 + 4));
        Images::new((0..count).map(item).collect(), Vec::new())
    }

    #[test]
    fn a_full_cache_changes_nothing_but_time() {
        let (full, empty) = (gray(10), gray(10).cached(&Arc::new(Cache::new(250))));
        for _ in 0..2 {
            for i in 0..10 {
                assert_eq!(full.picture(i).unwrap(), empty.picture(i).unwrap());
            }
        }
        let kept = |images: &Images| images.items.iter().filter(|item| item.decoded.get().is_some()).count();
        assert_eq!((kept(&full), kept(&empty)), (10, 2));
    }

    #[test]
    fn parts_and_unions_keep_order_and_share_what_is_decoded() {
        let all = gray(5);
        let part = all.select(&[3, 1]).and(&all.select(&[0]));
        assert_eq!(part.names(), ["3", "1", "0"]);
        assert!(Arc::ptr_eq(&part.picture(0).unwrap(), &all.picture(3).unwrap()));
    }
}
