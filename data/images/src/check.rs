//! `ctk data check`: decodes every image, compares all with each other, and reports what is wrong with them before training.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ctk_core::Result;
use ctk_core::data::dataset::Dataset as _;
use ctk_core::modality::DataCheck;
use ctk_core::rng::Key;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::augment::Augment;
use crate::dataset::{Bad, Cache, OnError, Splits, count, some, thousands};
use crate::preview;

/// The number of images whose views are checked.
const VIEWS: usize = 256;

/// A class this many times as large as another is reported.
const UNEVEN: usize = 10;

/// An image's place and a digest of its pixels.
struct Seen {
    name: String,
    part: &'static str,
    label: Option<u32>,
    digest: blake3::Hash,
}

/// Checks all images of `splits`, which lie at `path`; views are drawn from `seed`.
///
/// # Errors
/// No image can be read.
pub fn check(splits: Splits, path: &Path, augment: &Augment, seed: u64) -> Result<DataCheck> {
    // Nothing is cached: there may be more than fits into memory, and each image is read once.
    let splits = splits.cached(Cache::new(0)).scanned(path, OnError::Skip)?.cached(Cache::new(0));
    let mut bad = splits.found.skipped.clone();
    let mut seen = Vec::new();
    for part in &splits.found.parts {
        let Some(images) = splits.of_part(part) else { continue };
        let decoded: Vec<Result<Seen, Bad>> = (0..images.len())
            .into_par_iter()
            .map(|i| {
                let name = images.name(i);
                match images.decoded(i) {
                    Ok(picture) => Ok(Seen { name, part: part.part, label: images.label(i), digest: picture.digest() }),
                    Err(e) => Err(Bad { path: name, why: e.what().to_string() }),
                }
            })
            .collect();
        for image in decoded {
            match image {
                Ok(image) => seen.push(image),
                Err(broken) => bad.push(broken),
            }
        }
    }
    let names = splits.train.classes();
    let mut classes = vec![0; names.len()];
    seen.iter().filter_map(|image| image.label).for_each(|label| classes[label as usize] += 1);
    let classes: Vec<(&String, usize)> = names.iter().zip(classes).collect();
    let in_part = |part: &str| seen.iter().filter(|image| image.part == part).count();
    let alike = Alike::of(&seen);
    let figures = json!({
        "files": splits.found.files,
        "images": seen.len(),
        "labelled": seen.iter().filter(|image| image.label.is_some()).count(),
        "classes": classes.iter().map(|(name, count)| ((*name).clone(), json!(count))).collect::<Map<String, Value>>(),
        // Images that are trained on without labels count as training images.
        "parts": { "train": in_part("train") + in_part("unlabelled"), "val": in_part("val"), "test": in_part("test") },
        "not_read": splits.found.not_read_json(),
        "bad": bad.iter().map(|bad| json!({ "path": bad.path, "why": bad.why })).collect::<Vec<_>>(),
        "duplicates": alike.duplicates,
        "leaks": alike.leaks.len(),
        "bytes": splits.found.bytes,
    });
    let mut lines = splits.lines();
    if !bad.is_empty() {
        lines.retain(|line| Some(line) != splits.found.skipped_line().as_ref());
        lines.push(format!("{}:", count(bad.len(), "image that cannot be read")));
        lines.extend(bad.iter().map(|bad| format!("  {}: {}", bad.path, bad.why)));
        lines.push("  training stops at such an image: remove it, or leave it out by --set data.on_error=skip".to_string());
    }
    lines.extend(alike.lines());
    lines.extend(uneven(&classes));
    lines.extend(views(&splits, augment, seed));
    Ok(DataCheck { figures, lines })
}

/// Images with equal pixels.
struct Alike {
    /// Images that equal an earlier one.
    duplicates: usize,
    /// Some of them, as pairs.
    pairs: Vec<String>,
    /// Equal images in several classes.
    classes: Vec<String>,
    /// Held-out images that are also trained on.
    leaks: Vec<String>,
}

impl Alike {
    fn of(seen: &[Seen]) -> Alike {
        let mut groups: HashMap<blake3::Hash, Vec<&Seen>> = HashMap::new();
        seen.iter().for_each(|image| groups.entry(image.digest).or_default().push(image));
        // By name, so that the same ones are shown each time.
        let groups: BTreeMap<&str, Vec<&Seen>> =
            groups.into_values().filter(|group| group.len() > 1).map(|group| (group[0].name.as_str(), group)).collect();
        let mut of = Alike { duplicates: 0, pairs: Vec::new(), classes: Vec::new(), leaks: Vec::new() };
        for group in groups.values() {
            of.duplicates += group.len() - 1;
            let pair = |other: &Seen| format!("{} = {}", group[0].name, other.name);
            of.pairs.push(pair(group[1]));
            let label = group.iter().find_map(|image| image.label);
            if let Some(other) = group.iter().find(|image| image.label.is_some() && image.label != label) {
                of.classes.push(pair(other));
            }
            let held = |image: &&&Seen| ["val", "test"].contains(&image.part);
            if let Some(trained) = group.iter().find(|image| !held(image)) {
                of.leaks.extend(group.iter().filter(held).map(|image| format!("{} = {}", image.name, trained.name)));
            }
        }
        of
    }

    fn lines(&self) -> Vec<String> {
        let line = |number: usize, what: &str, names: &[String]| match number {
            0 => None,
            _ => Some(format!("{}: {}", count(number, what), some(names, names.len()))),
        };
        let all = [
            line(self.duplicates, "copy of other images", &self.pairs),
            line(self.classes.len(), "image under several classes", &self.classes),
            line(self.leaks.len(), "image that is held out and also trained on", &self.leaks),
        ];
        all.into_iter().flatten().collect()
    }
}

/// A note about classes of very different sizes.
fn uneven(classes: &[(&String, usize)]) -> Option<String> {
    let (least, most) = (classes.iter().min_by_key(|of| of.1)?, classes.iter().max_by_key(|of| of.1)?);
    let say = |of: &(&String, usize)| format!("{} ({})", of.0, thousands(of.1));
    (most.1 > UNEVEN * least.1).then(|| format!("classes are uneven: from {} to {} images", say(least), say(most)))
}

/// A note about views that are almost black or almost white.
fn views(splits: &Splits, augment: &Augment, seed: u64) -> Option<String> {
    let images = splits.pretraining();
    let augment = augment.visible();
    let number = images.len().min(VIEWS);
    let mean = |place: usize| {
        let index = place * images.len() / number;
        let picture = images.decoded(index).ok()?;
        let mut view = vec![0.0; augment.size * augment.size * 3];
        augment.view(&picture, &mut Key::new(seed).of("preview").at(index as u64).rng(), &mut view);
        let mean = view.iter().sum::<f32>() / view.len() as f32;
        (!preview::VISIBLE.contains(&mean)).then(|| images.name(index))
    };
    let names: Vec<String> = (0..number).into_par_iter().filter_map(mean).collect();
    let what = format!("{} of {} are almost black or almost white", names.len(), count(number, "view"));
    (!names.is_empty()).then(|| format!("{what}: {}", some(&names, names.len())))
}
