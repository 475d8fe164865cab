//! The generated dataset: small scenes that are rendered when they are needed, so that a first run downloads nothing.
//!
//! A class is a shape together with its texture. Everything else is drawn for each image and is varied by augmentations, too: place and
//! size (crops), the phase of the texture (crops and mirroring), hue and lightness (jitter); and there is noise on every pixel. Properties
//! that augmentations do not change, such as the distance between the tones, are the same in all images: otherwise contrastive learning
//! would tell images apart by them, regardless of their class. Colours do not depend on the class, and textures cover equal areas with
//! their two tones, so raw pixels and colour histograms do not classify well. Training and test images come from different streams.

use ctk_core::rng::Key;

use crate::dataset::{Images, Item, Splits, Stored};
use crate::scene::{self, Scene};

pub use crate::scene::CLASSES;

/// Training images of the default dataset.
pub const TRAIN: usize = 4608;

/// Test images of the default dataset.
pub const TEST: usize = 1800;

/// The largest number of images of a part: each takes a name and a place in memory.
pub const MOST: usize = 1_000_000;

/// `train` and `test` images, with the classes in turn.
pub fn open(train: usize, test: usize) -> Splits {
    let classes = scene::names();
    let part = |name: &str, count: usize| {
        let key = Key::new(0).of("generated dataset").of(name);
        let item = |i: usize| {
            let scene = Scene { class: i % CLASSES, key: key.at(i as u64) };
            Item::new(format!("{name}/{i:05}"), Some(scene.class as u32), Stored::Generated(scene))
        };
        Images::new((0..count).map(item).collect(), classes.clone())
    };
    Splits { test: Some(part("test", test)), ..Splits::of(part("train", train)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::SIZE;
    use ctk_core::data::dataset::Dataset;

    #[test]
    fn it_is_balanced_fixed_and_split() {
        let splits = open(900, 450);
        let test = splits.test.unwrap();
        for images in [&splits.train, &test] {
            let labels = images.labels().unwrap();
            assert!((0..CLASSES as u32).all(|c| labels.iter().filter(|&&l| l == c).count() == images.len() / CLASSES));
        }
        assert_eq!(splits.train.classes().len(), CLASSES);
        let digests = |images: &Images| images.digests().unwrap().iter().map(|d| d.to_hex().to_string()).collect::<Vec<_>>();
        let (a, b) = (digests(&splits.train), digests(&test));
        assert_eq!(a, digests(&open(900, 450).train), "the same at every start");
        let all: std::collections::BTreeSet<_> = a.iter().chain(&b).collect();
        assert_eq!(all.len(), 1350, "no image twice, in either part");
    }

    #[test]
    fn colours_tell_nothing_of_the_class() {
        // The mean colour of each class over many images: equal up to noise, because colours are drawn independently of the class.
        let splits = open(CLASSES * 200, 0);
        let mut sums = vec![[0.0; 3]; CLASSES];
        for i in 0..splits.train.len() {
            let picture = splits.train.picture(i).unwrap();
            for (c, sum) in sums[i % CLASSES].iter_mut().enumerate() {
                *sum += picture.pixels.iter().skip(c).step_by(3).map(|&v| f64::from(v)).sum::<f64>() / (200 * SIZE * SIZE) as f64;
            }
        }
        for channel in 0..3 {
            let of: Vec<f64> = sums.iter().map(|s| s[channel]).collect();
            let (low, high) = of.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            assert!(high - low < 20.0, "channel {channel}: {of:?}");
        }
    }
}
