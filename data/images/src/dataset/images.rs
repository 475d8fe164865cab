//! Images by index: where each one's bytes lie, and what was decoded of them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ctk_core::data::dataset::Dataset;
use ctk_core::{Context, Error, Result};
use rayon::prelude::*;

use super::cache::Cache;
use crate::decode;
use crate::picture::Picture;
use crate::scene::{self, Scene};

/// A list of images, labelled or not. Clones, parts and unions share the images and what was decoded of them.
#[derive(Clone)]
pub struct Images {
    items: Vec<Arc<Item>>,
    classes: Arc<Vec<String>>,
    cache: Arc<Cache>,
}

/// One image: its name, its class, where it lies.
pub(crate) struct Item {
    pub name: String,
    pub label: Option<u32>,
    pub stored: Stored,
    decoded: OnceLock<Arc<Picture>>,
}

/// Where an image's bytes lie.
pub(crate) enum Stored {
    /// A PNG or JPEG file.
    File(PathBuf),
    /// A PNG or JPEG file inside another file.
    Inside(Span),
    /// Bare pixels inside a file.
    Raw(Span, Layout),
    /// Bare gray pixels in memory: `height`, `width`, the range of them.
    Gray(Arc<Vec<u8>>, usize, usize, Range<usize>),
    /// Rendered when it is asked for.
    Generated(Scene),
}

/// Bytes inside a file.
pub(crate) struct Span {
    pub file: Arc<PathBuf>,
    pub offset: u64,
    pub length: usize,
}

/// How bare pixels lie: height and width, and the order of the rest.
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
        Item { name: name.into(), label, stored, decoded: OnceLock::new() }
    }

    fn read(&self) -> Result<Picture> {
        match &self.stored {
            Stored::File(path) => fs::read(path).map_err(Error::from).and_then(|bytes| decode::decode(&bytes)).at(path.display()),
            Stored::Inside(span) => span.read().and_then(|bytes| decode::decode(&bytes)).at(span.file.display()),
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
    fn size(&self) -> Result<(usize, usize)> {
        match &self.stored {
            Stored::File(path) => fs::read(path).map_err(Error::from).and_then(|bytes| decode::size(&bytes)).at(path.display()),
            Stored::Inside(span) => span.read().and_then(|bytes| decode::size(&bytes)).at(span.file.display()),
            Stored::Raw(_, Layout::Planes(h, w) | Layout::Columns(h, w) | Layout::Gray(h, w)) | Stored::Gray(_, h, w, _) => {
                Ok((*h, *w))
            }
            Stored::Generated(_) => Ok((scene::SIZE, scene::SIZE)),
        }
    }
}

impl Span {
    // Opened anew for each read: no handle to share between threads, and the cache makes it once an image.
    fn read(&self) -> Result<Vec<u8>> {
        let mut file = File::open(self.file.as_path())?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut bytes = vec![0; self.length];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

impl Images {
    pub(crate) fn new(items: Vec<Item>, classes: Vec<String>) -> Images {
        Images { items: items.into_iter().map(Arc::new).collect(), classes: Arc::new(classes), cache: Arc::default() }
    }

    /// The same images with room in `cache` for what is decoded of them.
    pub fn cached(self, cache: &Arc<Cache>) -> Images {
        Images { cache: cache.clone(), ..self }
    }

    /// One line for whoever watches: how much of what will be decoded stays in memory.
    ///
    /// # Errors
    /// A file whose header cannot be read.
    pub fn cache_line(&self) -> Result<String> {
        let sizes = self.sizes(64)?.into_iter().map(|(height, width)| height * width * 3).collect::<Vec<_>>();
        let mean = sizes.iter().sum::<usize>() / sizes.len().max(1);
        Ok(self.cache.line(self.items.len(), mean))
    }

    /// Image `index`, from the cache or decoded here, on the thread that asks.
    pub fn picture(&self, index: usize) -> Result<Arc<Picture>> {
        let item = &self.items[index];
        if let Some(picture) = item.decoded.get() {
            return Ok(picture.clone());
        }
        let picture = Arc::new(item.read()?);
        let bytes = picture.pixels.len();
        // Two threads may decode the same image; the one that comes second gives its room back.
        if self.cache.take(bytes) && item.decoded.set(picture.clone()).is_err() {
            self.cache.give_back(bytes);
        }
        Ok(picture)
    }

    /// Names of the classes by number; empty where there are no labels.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Every image's class, or nothing where one has none.
    pub fn labels(&self) -> Option<Vec<u32>> {
        self.items.iter().map(|item| item.label).collect()
    }

    /// Every image's name, relative to the data's folder.
    pub fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.name.clone()).collect()
    }

    /// The images of these indices, in this order.
    pub fn select(&self, indices: &[usize]) -> Images {
        Images { items: indices.iter().map(|&i| self.items[i].clone()).collect(), ..self.clone() }
    }

    /// These images and then those of `other`, under these classes: both come from the same data.
    pub fn and(&self, other: &Images) -> Images {
        Images { items: self.items.iter().chain(&other.items).cloned().collect(), ..self.clone() }
    }

    /// A digest of every picture's pixels, in order. Decodes everything once, on all threads.
    ///
    /// # Errors
    /// The first image (in order) that cannot be decoded.
    pub(crate) fn digests(&self) -> Result<Vec<blake3::Hash>> {
        let digests: Vec<Result<blake3::Hash>> = (0..self.items.len())
            .into_par_iter()
            .map(|i| self.picture(i).map(|picture| picture.digest()).map_err(|e| e.at(&self.items[i].name)))
            .collect();
        digests.into_iter().collect()
    }

    /// The median of `sample` images' shorter sides, spread evenly over the data: what a general recipe goes by.
    ///
    /// # Errors
    /// A file whose header cannot be read; no image at all.
    pub fn median_side(&self, sample: usize) -> Result<usize> {
        let mut sides: Vec<usize> = self.sizes(sample)?.into_iter().map(|(height, width)| height.min(width)).collect();
        sides.sort_unstable();
        sides.get(sides.len() / 2).copied().ok_or_else(|| Error::new("there is no image to look at"))
    }

    /// Height and width of `sample` images, spread evenly over the data, without decoding.
    fn sizes(&self, sample: usize) -> Result<Vec<(usize, usize)>> {
        let count = sample.min(self.items.len());
        (0..count).map(|i| self.items[i * self.items.len() / count].size()).collect()
    }
}

impl Dataset for Images {
    // Decoded, since the same loader thread would decode it next, and only here can it be remembered.
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

/// The path's part below `root`, with forward slashes on every system: a name that survives a move of the folder.
pub(crate) fn relative(root: &Path, path: &Path) -> String {
    let below = path.strip_prefix(root).unwrap_or(path);
    below.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
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
