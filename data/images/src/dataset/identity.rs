//! A digest that shows whether the data is still the data of a run, without reading all of it: names, labels, order, sizes, and the bytes
//! of some images.

use std::fs;

use ctk_core::data::dataset::Dataset as _;
use ctk_core::{Error, Result};
use rayon::prelude::*;

use super::Images;

/// The number of images whose bytes are read, spread evenly.
const SAMPLE: usize = 64;

impl Images {
    /// A digest of every image's name, label, group, captions and size, in order, and of the bytes of 64 images, spread evenly. The place of the data
    /// does not matter. A change inside an image that keeps its size is found only if the image is one of the 64.
    ///
    /// # Errors
    /// A file that is missing or cannot be read.
    /// A file that has gone or cannot be read.
    pub fn identity(&self) -> Result<String> {
        let items = self.items();
        let lengths: Vec<Result<u64>> = items
            .par_iter()
            .map(|item| match (item.stored.length(), item.stored.file()) {
                (Some(length), _) => Ok(length),
                (None, Some(file)) => fs::metadata(file).map(|m| m.len()).map_err(|e| Error::from(e).at(file.display())),
                (None, None) => Ok(0),
            })
            .collect();
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        self.classes().iter().for_each(|class| text(class));
        for (at, (item, length)) in items.iter().zip(lengths).enumerate() {
            text(&item.name);
            text(&format!("{:?} {}", item.label, length?));
            text(self.group(at).unwrap_or_default());
            self.captions(at).iter().for_each(|caption| text(caption));
        }
        let sample = SAMPLE.min(self.len());
        let places: Vec<usize> = (0..sample).map(|i| i * self.len() / sample).collect();
        let bytes: Vec<Result<blake3::Hash>> = places
            .par_iter()
            .map(|&at| items[at].stored.bytes().map(|bytes| blake3::hash(&bytes)).map_err(|e| e.at(&items[at].name)))
            .collect();
        for digest in bytes {
            hasher.update(digest?.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dataset;

    fn identity(at: &Path) -> String {
        dataset::open(at, None, &Default::default()).unwrap().pretraining().identity().unwrap()
    }

    #[test]
    fn it_changes_with_names_classes_sizes_and_bytes_and_not_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let write = |root: &str, name: &str, shade: u8| {
            let path = folder.path().join(root).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, [b"P5 2 2 255\n".as_slice(), &[shade; 4]].concat()).unwrap();
        };
        let make = |root: &str| ["a/1.pgm", "a/2.pgm", "b/3.pgm", "b/4.pgm"].iter().for_each(|name| write(root, name, 9));
        ["one", "two", "byte", "more", "moved", "named"].iter().for_each(|root| make(root));
        let of = |root: &str| identity(&folder.path().join(root));
        assert_eq!(of("one"), of("two"), "another folder with the same images");
        write("byte", "b/4.pgm", 10);
        write("more", "b/5.pgm", 9);
        let at = |name: &str| folder.path().join(name);
        fs::rename(at("moved/b/4.pgm"), at("moved/a/4.pgm")).unwrap();
        fs::rename(at("named/b/4.pgm"), at("named/b/9.pgm")).unwrap();
        let all = ["one", "byte", "more", "moved", "named"].map(of);
        assert_eq!(std::collections::BTreeSet::from(all.clone()).len(), all.len());
    }
}
