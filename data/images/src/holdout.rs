//! The hold-out: a test split for data that has none. It is seeded and stratified, with exact duplicates on one side.
//!
//! Files with equal pixels are one image to a learner, however they were compressed or named, so decoded images are compared. A hold-out
//! does not split a group (a patient, a video) either, if a table names groups. The side of an image depends on the seed and its pixels
//! alone: neither the order of the files nor images added to other classes can change it. The hold-out is stored in the run, so that every
//! later evaluation uses the same split and notices if the data has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ctk_core::data::dataset::Dataset;
use ctk_core::rng::Key;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Error, Result};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::dataset::{Images, Splits, thousands};
use crate::sets::Sets;

/// The default fraction that is held out.
pub const SHARE: f64 = 0.2;

/// The file of a run that stores the hold-out.
pub const FILE: &str = "splits.json";

/// The images that are held out, as stored in [`FILE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holdout {
    /// The seed of the draw.
    pub seed: u64,
    /// The fraction of each class that was asked for.
    pub share: f64,
    /// Number of images, held out or not.
    pub images: usize,
    /// blake3 over the names and pixels of the images that may be trained on.
    pub train: String,
    /// blake3 over the names and pixels of the images held out.
    pub test: String,
    /// Names of the images held out, sorted.
    pub held_out: Vec<String>,
}

impl Holdout {
    /// Holds out the fraction `share` of every class of labelled `images`, rounded: at least one image of a class of two or more, and never
    /// all.
    ///
    /// Copies of one image, and images of one group, stay on one side; copies with different labels stay in training. So nothing may be
    /// held out of a class that has only copies.
    ///
    /// # Errors
    /// Images without labels, an image that cannot be decoded, or nothing to hold out.
    pub fn draw(images: &Images, share: f64, seed: u64) -> Result<Holdout> {
        let labels = images.labels().ok_or_else(|| Error::new("images without labels need no test split"))?;
        let digests = images.digests()?;

        let mut wanted: BTreeMap<u32, usize> = BTreeMap::new();
        for &label in &labels {
            *wanted.entry(label).or_default() += 1;
        }
        // Groups are large: if none fits, one that leaves the class its larger half is used.
        let mut most: BTreeMap<u32, usize> = wanted.iter().map(|(label, count)| (*label, count / 2)).collect();
        for count in wanted.values_mut() {
            let part = (share * *count as f64).round() as usize;
            *count = part.max(1).min(*count - 1);
        }
        let mut held_out = Vec::new();
        for group in drawn(images, &digests, &[], seed) {
            let grouped = group.iter().any(|&i| images.group(i).is_some());
            let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
            group.iter().for_each(|&i| *counts.entry(labels[i]).or_default() += 1);
            let fits = |(label, count): (&u32, &usize)| {
                let left = wanted[label];
                *count <= left || (grouped && left > 0 && *count <= most[label])
            };
            // Copies of one image with several labels stay in training; a group (a patient) may have images of several classes.
            if counts.iter().all(fits) && (grouped || counts.len() == 1) {
                for (label, count) in counts {
                    wanted.entry(label).and_modify(|left| *left = left.saturating_sub(count));
                    most.entry(label).and_modify(|left| *left = left.saturating_sub(count));
                }
                held_out.extend(group);
            }
        }
        if held_out.is_empty() {
            return Err(Error::usage("no image could be held out")
                .hint("every class needs two different images, of two groups where there are groups"));
        }
        Ok(Holdout::of(images, &digests, held_out, share, seed))
    }

    /// Holds out the fraction `share` of all `images`, which need no labels. Images that have the same number in `sets` stay on one side, and
    /// so do copies of one image and images of one group.
    ///
    /// # Errors
    /// An image that cannot be decoded, or nothing to hold out.
    pub fn draw_sets(images: &Images, sets: &[u32], share: f64, seed: u64) -> Result<Holdout> {
        let digests = images.digests()?;
        let mut wanted = ((share * images.len() as f64).round() as usize).max(1).min(images.len().saturating_sub(1));
        let mut held_out = Vec::new();
        for group in drawn(images, &digests, sets, seed) {
            if group.len() <= wanted {
                wanted -= group.len();
                held_out.extend(group);
            }
        }
        if held_out.is_empty() {
            return Err(Error::usage("no image could be held out").hint(
                "too few images, or most of them have a caption in common; captions.holdout = 0.0 holds out nothing, and then nothing is \
                 measured",
            ));
        }
        Ok(Holdout::of(images, &digests, held_out, share, seed))
    }

    /// That of the images with the indices `held_out`.
    fn of(images: &Images, digests: &[blake3::Hash], mut held_out: Vec<usize>, share: f64, seed: u64) -> Holdout {
        held_out.sort_unstable();
        let names = images.names();
        let test: BTreeSet<usize> = held_out.iter().copied().collect();
        let train: Vec<usize> = (0..images.len()).filter(|i| !test.contains(i)).collect();
        let mut held: Vec<String> = held_out.iter().map(|&i| names[i].clone()).collect();
        held.sort_unstable();
        Holdout {
            seed,
            share,
            images: images.len(),
            train: side(&names, digests, &train),
            test: side(&names, digests, &held_out),
            held_out: held,
        }
    }

    /// Splits `images` as they were split before.
    ///
    /// # Errors
    /// The images have changed, so that figures before and after could not be compared.
    pub fn apply(&self, images: &Images) -> Result<Splits> {
        let [train, test] = self.sides(images)?;
        Ok(Splits { test: Some(images.select(&test)), ..Splits::of(images.select(&train)) })
    }

    /// The indices of the images that may be trained on, and of those that are held out.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn sides(&self, images: &Images) -> Result<[Vec<usize>; 2]> {
        let changed = |what: String| {
            Error::new(format!("the data is not what it was when its test split was drawn: {what}"))
                .hint("restore the data, or train again; --data evaluates on other data")
        };
        if images.len() != self.images {
            return Err(changed(format!("{} images then, {} now", self.images, images.len())));
        }
        let names = images.names();
        let held: BTreeSet<&str> = self.held_out.iter().map(String::as_str).collect();
        let (test, train): (Vec<usize>, Vec<usize>) = (0..images.len()).partition(|&i| held.contains(names[i].as_str()));
        if test.len() != self.held_out.len() {
            let missing = self.held_out.iter().find(|name| !names.contains(name)).map_or("", String::as_str);
            return Err(changed(format!("`{missing}` is missing")));
        }
        let digests = images.digests()?;
        for (digest, indices, part) in [(&self.train, &train, "training"), (&self.test, &test, "held-out")] {
            if *digest != side(&names, &digests, indices) {
                return Err(changed(format!("a name or a picture of the {part} part differs")));
            }
        }
        Ok([train, test])
    }

    /// The hold-out stored in the checkpoint's run; none for a checkpoint that was moved out of its run.
    ///
    /// # Errors
    /// A file that cannot be read, or is not a hold-out.
    pub fn stored(checkpoint: &Checkpoint) -> Result<Option<Holdout>> {
        checkpoint.of_run(FILE)?.map(|bytes| serde_json::from_slice(&bytes).at(FILE)).transpose()
    }

    /// One line to print.
    pub fn line(&self) -> String {
        format!(
            "no test split found: {} of {} images held out, seed {}, stratified; stored in splits.json",
            thousands(self.held_out.len()),
            thousands(self.images),
            self.seed
        )
    }
}

/// Sets of images that stay on one side, in an order that the seed draws.
fn drawn(images: &Images, digests: &[blake3::Hash], sets: &[u32], seed: u64) -> impl Iterator<Item = Vec<usize>> {
    let key = Key::new(seed).of("holdout");
    let mut ranked: Vec<(u64, blake3::Hash, Vec<usize>)> = together(images, digests, sets)
        .into_iter()
        .map(|(digest, group)| (key.of(&digest.to_hex()).rng().next_u64(), digest, group))
        .collect();
    ranked.sort_unstable_by(|a, b| (a.0, a.1.as_bytes()).cmp(&(b.0, b.1.as_bytes())));
    ranked.into_iter().map(|(.., group)| group)
}

/// Sets of images that stay on one side: copies of one image, those of one group, and those with one number in `sets`, if there are any; each
/// set under its smallest digest.
fn together(images: &Images, digests: &[blake3::Hash], sets: &[u32]) -> HashMap<blake3::Hash, Vec<usize>> {
    let mut joined = Sets::new(digests.len());
    let (mut pictures, mut groups, mut numbers) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (i, digest) in digests.iter().enumerate() {
        joined.join_alike(&mut pictures, *digest, i);
        if let Some(group) = images.group(i) {
            joined.join_alike(&mut groups, group, i);
        }
        if let Some(set) = sets.get(i) {
            joined.join_alike(&mut numbers, *set, i);
        }
    }
    let mut lots: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..digests.len() {
        lots.entry(joined.first(i)).or_default().push(i);
    }
    let least = |lot: &[usize]| lot.iter().map(|&i| digests[i]).min_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    lots.into_values().filter_map(|lot| Some((least(&lot)?, lot))).collect()
}

// By name, so that the order in which a folder is listed does not matter.
fn side(names: &[String], digests: &[blake3::Hash], indices: &[usize]) -> String {
    let mut indices = indices.to_vec();
    indices.sort_unstable_by(|&a, &b| names[a].cmp(&names[b]));
    let mut hasher = blake3::Hasher::new();
    for i in indices {
        hasher.update(&(names[i].len() as u64).to_le_bytes()).update(names[i].as_bytes()).update(digests[i].as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Item, Stored};
    use std::sync::Arc;

    /// Images of one pixel block each: `(class, content)`.
    fn images(of: &[(u32, u16)]) -> Images {
        let bytes: Vec<u8> = of.iter().flat_map(|&(_, content)| content.to_le_bytes()).collect();
        let bytes = Arc::new(bytes);
        let item = |(i, &(class, content)): (usize, &(u32, u16))| {
            let name = format!("{class}/{content}-{}", of[..i].iter().filter(|&&before| before == (class, content)).count());
            Item::new(name, Some(class), Stored::Gray(bytes.clone(), 1, 2, i * 2..i * 2 + 2))
        };
        let classes = of.iter().map(|o| o.0).max().unwrap_or(0) + 1;
        Images::new(of.iter().enumerate().map(item).collect(), (0..classes).map(|c| c.to_string()).collect())
    }

    fn plain() -> Vec<(u32, u16)> {
        (0..100).map(|i| (u32::from(i % 3 == 0), i)).collect()
    }

    #[test]
    fn it_is_stratified_seeded_and_complete() {
        let all = images(&plain());
        let split = Holdout::draw(&all, 0.2, 0).unwrap();
        let splits = split.apply(&all).unwrap();
        let test = splits.test.unwrap();
        let count = |images: &Images, class| images.labels().unwrap().iter().filter(|&&l| l == class).count();
        // 34 of class 1 and 66 of class 0.
        assert_eq!((count(&test, 1), count(&test, 0)), (7, 13));
        let mut names = [splits.train.names(), test.names()].concat();
        names.sort();
        let mut expected = all.names();
        expected.sort();
        assert_eq!(names, expected, "every image is on one side");
        assert_eq!(split, Holdout::draw(&all, 0.2, 0).unwrap());
        assert_ne!(split.held_out, Holdout::draw(&all, 0.2, 1).unwrap().held_out);
        assert_eq!(split.line(), "no test split found: 20 of 100 images held out, seed 0, stratified; stored in splits.json");
        let stored = serde_json::to_string(&split).unwrap();
        assert_eq!(serde_json::from_str::<Holdout>(&stored).unwrap(), split);
    }

    #[test]
    fn order_and_other_classes_do_not_matter() {
        let of = plain();
        let split = Holdout::draw(&images(&of), 0.2, 5).unwrap();
        let mut turned = of.clone();
        turned.reverse();
        turned.rotate_left(17);
        assert_eq!(Holdout::draw(&images(&turned), 0.2, 5).unwrap(), split);
        assert!(split.apply(&images(&turned)).is_ok(), "a listing in another order is the same data");
        let more: Vec<_> = of.iter().copied().chain((200..230).map(|i| (2, i))).collect();
        let grown = Holdout::draw(&images(&more), 0.2, 5).unwrap();
        let old: Vec<_> = grown.held_out.iter().filter(|name| !name.starts_with("2/")).cloned().collect();
        assert_eq!(old, split.held_out, "an added class moves no other image");
    }

    #[test]
    fn copies_stay_on_one_side() {
        // Every image of class 0 two or three times; one image under both labels.
        let mut of: Vec<(u32, u16)> = (0..30).flat_map(|i| vec![(0, i); 2 + usize::from(i % 2)]).collect();
        of.extend((100..130).map(|i| (1, i)));
        of.extend([(0, 500), (1, 500)]);
        let all = images(&of);
        for seed in 0..20 {
            let splits = Holdout::draw(&all, 0.3, seed).unwrap().apply(&all).unwrap();
            let content = |images: &Images| images.digests().unwrap().iter().map(blake3::Hash::to_hex).collect::<BTreeSet<_>>();
            let (train, test) = (content(&splits.train), content(splits.test.as_ref().unwrap()));
            assert!(train.is_disjoint(&test), "seed {seed}");
        }
    }

    #[test]
    fn small_classes_keep_one_on_each_side_where_they_can() {
        let all = images(&[(0, 1), (0, 2), (1, 3), (2, 4), (2, 5), (2, 6)]);
        let splits = Holdout::draw(&all, 0.2, 0).unwrap().apply(&all).unwrap();
        assert_eq!(splits.test.unwrap().labels().unwrap(), [0, 2]);
        let most = Holdout::draw(&all, 0.99, 0).unwrap().apply(&all).unwrap();
        assert_eq!(most.train.labels().unwrap(), [0, 1, 2], "training keeps one of each class");
        let copies = Holdout::draw(&images(&[(0, 1), (0, 1), (1, 2)]), 0.5, 0).unwrap_err().to_string();
        assert!(copies.contains("two different images"), "{copies}");
    }

    #[test]
    fn changed_data_is_noticed() {
        let of = plain();
        let split = Holdout::draw(&images(&of), 0.2, 0).unwrap();
        let fewer = split.apply(&images(&of[1..])).err().unwrap().to_string();
        assert!(fewer.contains("100 images then, 99 now"), "{fewer}");
        let mut other = of.clone();
        other[7].1 = 900;
        assert!(split.apply(&images(&other)).err().unwrap().to_string().contains("not what it was"));
    }
}
