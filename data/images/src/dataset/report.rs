//! The report about the data at a path: its parts and why, the files that were not read, and what was guessed.

use std::collections::{BTreeMap, HashSet};

use ctk_core::data::dataset::Dataset as _;
use ctk_core::{Error, Result};
use serde_json::{Value, json};

use super::{Images, Splits};

/// Names that a list shows before it ends in `…`.
const SHOWN: usize = 3;

/// Classes that a line shows before it ends in `…`.
const CLASSES: usize = 12;

/// The fraction of unread files above which there is a warning.
const UNREAD: f64 = 0.01;

/// What a note begins with that people should not miss.
const WARNING: &str = "warning: ";

/// The report of a reader.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Files looked at, read and not read. For archives and tables: the entries that they list.
    pub files: usize,
    /// Size of the images in bytes, as they are stored.
    pub bytes: u64,
    /// The parts, each with its source and the reason for its role.
    pub parts: Vec<Part>,
    /// Files that were not read, by kind: an extension in lower case, or the reason.
    pub not_read: BTreeMap<String, NotRead>,
    /// Images that cannot be read and were left out (`data.on_error = "skip"`).
    pub skipped: Vec<Bad>,
    /// The sizes of the images, if they were read.
    pub sizes: Option<Sizes>,
    /// Sentences about what was guessed, repaired or left out.
    pub notes: Vec<String>,
    /// Why these images may be used, but not for training, and what to do about it: all of them are in parts that are held back.
    pub untrainable: Option<[String; 2]>,
}

/// Sizes of images, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Height and width of the image with the fewest pixels.
    pub smallest: (u32, u32),
    /// Those of the image with the median number of pixels.
    pub median: (u32, u32),
    /// Those of the image with the most pixels.
    pub largest: (u32, u32),
    /// The sum of all images' pixels.
    pub pixels: u64,
}

impl Sizes {
    /// The sizes from all images' heights and widths; none if there are none.
    pub(super) fn of(mut all: Vec<(u32, u32)>) -> Option<Sizes> {
        let area = |&(height, width): &(u32, u32)| u64::from(height) * u64::from(width);
        all.sort_by_key(|size| (area(size), *size));
        let (smallest, largest) = (*all.first()?, *all.last()?);
        Some(Sizes { smallest, median: all[all.len() / 2], largest, pixels: all.iter().map(area).sum() })
    }

    /// One line to print.
    pub fn line(&self) -> String {
        let size = |(height, width): (u32, u32)| format!("{width} × {height}");
        match self.smallest == self.largest {
            true => format!("every image has {} pixels", size(self.median)),
            false => {
                let Sizes { smallest, median, largest, .. } = *self;
                format!("images have {} pixels (the median), from {} to {}", size(median), size(smallest), size(largest))
            }
        }
    }
}

/// One part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// `train`, `val`, `test` or `unlabelled`.
    pub part: &'static str,
    /// The folders or files that make up the part.
    pub from: Vec<String>,
    /// Why it is this part, and how it is used.
    pub why: String,
    /// Number of images.
    pub images: usize,
    pub(super) slot: Slot,
}

/// The field of [`Splits`] that holds the images of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Train,
    Val,
    Test,
    Unlabelled,
    Apart(usize),
}

/// Files of one kind that were not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotRead {
    /// How many.
    pub count: usize,
    /// The names of the first ones.
    pub first: Vec<String>,
}

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its name, relative to the data's folder.
    pub path: String,
    /// The reason, in one line.
    pub why: String,
}

impl NotRead {
    /// Counts the file `name`.
    pub(super) fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < SHOWN {
            self.first.push(name.to_string());
        }
    }
}

impl Found {
    /// Counts a file that is not read.
    pub(super) fn pass_over(&mut self, kind: impl Into<String>, name: &str) {
        self.not_read.entry(kind.into()).or_default().add(name);
    }

    /// Takes back that the file `name`, which was counted under `kind`, is not read.
    pub(super) fn was_read(&mut self, kind: &str, name: &str) {
        if let Some(of) = self.not_read.get_mut(kind) {
            of.count = of.count.saturating_sub(1);
            of.first.retain(|first| first != name);
            self.files = self.files.saturating_sub(1);
            if of.count == 0 {
                self.not_read.remove(kind);
            }
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(super) fn warn(&mut self, text: impl std::fmt::Display) {
        self.note(format!("{WARNING}{text}"));
    }

    /// Checks that there are images for training.
    ///
    /// # Errors
    /// All images are in a part that is held back.
    pub fn trainable(&self) -> Result<()> {
        match &self.untrainable {
            Some([what, hint]) => Err(Error::usage(what).hint(hint)),
            None => Ok(()),
        }
    }

    /// Records a part and its sources; its images are counted when everything is read.
    pub(super) fn part(&mut self, part: &'static str, slot: Slot, from: Vec<String>, why: impl Into<String>) {
        self.parts.push(Part { part, from, why: why.into(), images: 0, slot });
    }

    /// Adds the report about the path called `name` to this one.
    pub(super) fn absorb(&mut self, other: Found, name: &str) {
        self.files += other.files;
        for (kind, group) in other.not_read {
            let of = self.not_read.entry(kind).or_default();
            of.count += group.count;
            of.first.extend(group.first.iter().map(|first| format!("{name}/{first}")));
            of.first.truncate(SHOWN);
        }
        self.notes.extend(other.notes.into_iter().map(|note| match note.strip_prefix(WARNING) {
            Some(rest) => format!("{WARNING}{name}: {rest}"),
            None => format!("{name}: {note}"),
        }));
        self.untrainable = self.untrainable.take().or(other.untrainable);
    }

    /// The number of files that were not read.
    pub fn unread(&self) -> usize {
        self.not_read.values().map(|group| group.count).sum()
    }

    /// One line about the files that were not read; none if all were read.
    pub fn unread_line(&self) -> Option<String> {
        let unread = self.unread();
        let kinds: Vec<String> = self
            .not_read
            .iter()
            .map(|(kind, group)| {
                // A kind is an extension, or a noun with what distinguishes it.
                let number = match kind.split_once(' ') {
                    Some(("image" | "table" | "row" | "file" | "link", _)) => count(group.count, kind),
                    _ => format!("{} {kind}", thousands(group.count)),
                };
                format!("{number} ({})", some(&group.first, group.count))
            })
            .collect();
        let is = if unread == 1 { "is" } else { "are" };
        let line = format!("{} of {} {is} not read: {}", thousands(unread), count(self.files, "file"), kinds.join("; "));
        let hint = match self.not_read.keys().any(|kind| PHONES.contains(&kind.as_str())) {
            true => ". Convert heic, heif and avif to JPEG or PNG to use them, or build ctk with --features heif",
            false => "",
        };
        (unread > 0).then(|| line + hint)
    }

    /// A warning about unread files, if they are more than 1 % of all; printed at the start and at the end.
    pub fn warning(&self) -> Option<String> {
        let much = self.unread() as f64 > UNREAD * self.files as f64;
        self.unread_line().filter(|_| much)
    }

    /// One line about images that were left out because they cannot be read.
    pub fn skipped_line(&self) -> Option<String> {
        skipped_line(&self.skipped)
    }

    /// Kinds and their counts, for `--json`.
    pub fn not_read_json(&self) -> Value {
        self.not_read.iter().map(|(kind, group)| (kind.clone(), json!(group.count))).collect::<serde_json::Map<_, _>>().into()
    }
}

/// Image formats of phones that are not decoded.
const PHONES: [&str; 3] = ["heic", "heif", "avif"];

impl Splits {
    /// The number of images that were read, in all parts.
    pub fn images(&self) -> usize {
        self.all().len()
    }

    /// Images of the part `name`: `train`, `val`, `test` or `unlabelled`.
    pub fn count(&self, name: &str) -> usize {
        self.found.parts.iter().filter(|part| part.part == name).map(|part| part.images).sum()
    }

    /// Each class's name and its number of images over all parts, in the order of the class numbers.
    pub fn class_counts(&self) -> Vec<(String, usize)> {
        let mut counts = vec![0; self.train.classes().len()];
        for images in [Some(&self.train), self.val.as_ref(), self.test.as_ref()].into_iter().flatten() {
            images.each_label().flatten().for_each(|label| counts[label as usize] += 1);
        }
        self.train.classes().iter().cloned().zip(counts).collect()
    }

    /// The number of images with a class.
    pub fn labelled_images(&self) -> usize {
        self.class_counts().iter().map(|(_, count)| count).sum()
    }

    /// The report in sentences, one on each line: images and classes, parts and why, what was not read, what was guessed.
    pub fn lines(&self) -> Vec<String> {
        let classes = self.class_counts();
        let mut lines = vec![match classes.len() {
            0 => format!("{}, without labels", count(self.images(), "image")),
            number => {
                let each: Vec<String> = classes.iter().map(|(name, count)| format!("{name} {}", thousands(*count))).collect();
                let tail = if number > CLASSES { ", …" } else { "" };
                let shown = each[..number.min(CLASSES)].join(", ");
                format!("{} in {}: {shown}{tail}", count(self.images(), "image"), count(number, "class"))
            }
        }];
        for part in &self.found.parts {
            let from = match part.from.is_empty() {
                true => String::new(),
                false => format!(" from {}", some(&part.from, part.from.len())),
            };
            lines.push(format!("{}: {}{from}: {}", part.part, count(part.images, "image"), part.why));
        }
        lines.extend(self.found.sizes.map(|sizes| sizes.line()));
        lines.extend(self.found.warning().map(|line| format!("{WARNING}{line}")).or_else(|| self.found.unread_line()));
        lines.extend(self.found.skipped_line());
        lines.extend(self.found.notes.iter().cloned());
        lines
    }

    /// The images of a part.
    pub fn of_part(&self, part: &Part) -> Option<&Images> {
        match part.slot {
            Slot::Train => Some(&self.train),
            Slot::Val => self.val.as_ref(),
            Slot::Test => self.test.as_ref(),
            Slot::Unlabelled => self.unlabelled.as_ref(),
            Slot::Apart(place) => self.apart.get(place),
        }
    }

    /// Images that cannot be read and were left out, before training and during it.
    pub fn skipped(&self) -> Vec<Bad> {
        let met = [Some(&self.train), self.val.as_ref(), self.test.as_ref(), self.unlabelled.as_ref()].into_iter().flatten();
        // Parts made from the same images record the same ones.
        let mut named = HashSet::new();
        let all = self.found.skipped.iter().cloned().chain(met.flat_map(Images::skipped));
        all.filter(|bad| named.insert(bad.path.clone())).collect()
    }

    /// What a user of a trained model should know of the data that it has read: images that were left out and, of `other` data than the
    /// model's own, what was not read, guessed or repaired.
    pub fn told(&self, other: bool) -> Vec<String> {
        let unread = self.found.warning().map(|line| format!("warning: {line}")).filter(|_| other);
        let notes = self.found.notes.iter().filter(|_| other).cloned();
        let skipped = skipped_line(&self.skipped()).map(|line| format!("warning: {line}"));
        skipped.into_iter().chain(unread).chain(notes).collect()
    }

    /// Counts the images of the recorded parts; if none were recorded, records the parts that exist.
    pub(super) fn finish(mut self) -> Splits {
        let mut found = (*self.found).clone();
        let said = |slot: Slot| found.parts.iter().any(|part| part.slot == slot);
        let others: Vec<Part> = [
            ("train", Slot::Train, "trained on"),
            ("val", Slot::Val, "measured on while training"),
            ("test", Slot::Test, "used for evaluation, never for training"),
            ("unlabelled", Slot::Unlabelled, "trained on too, without labels"),
        ]
        .into_iter()
        .filter(|(_, slot, _)| !said(*slot))
        .map(|(part, slot, why)| Part { part, from: Vec::new(), why: why.into(), images: 0, slot })
        .collect();
        found.parts.extend(others);
        for part in &mut found.parts {
            part.images = self.of_part(part).map_or(0, |images| images.len());
        }
        found.parts.retain(|part| part.images > 0 || !part.from.is_empty());
        if found.files == 0 {
            found.files = self.all().containers();
        }
        self.found = found.into();
        self
    }
}

/// One line about images that were left out because they cannot be read.
pub fn skipped_line(skipped: &[Bad]) -> Option<String> {
    let shown: Vec<String> = skipped.iter().take(SHOWN).map(|bad| format!("{} ({})", bad.path, bad.why)).collect();
    let line = || format!("{} left out: {}", count(skipped.len(), "image that cannot be read"), some(&shown, skipped.len()));
    (!skipped.is_empty()).then(line)
}

/// `n` with thousands separators.
pub fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 image`, `4,317 images`, `2 classes`, `3 images that cannot be read`.
pub fn count(n: usize, what: &str) -> String {
    let (noun, rest) = what.split_once(' ').map_or((what, String::new()), |(noun, rest)| (noun, format!(" {rest}")));
    let (noun, ending) = match (n, noun.strip_suffix('y')) {
        (1, _) => (noun, ""),
        (_, Some(stem)) => (stem, "ies"),
        (_, None) if noun.ends_with('s') => (noun, "es"),
        (_, None) => (noun, "s"),
    };
    let rest = if n == 1 { rest } else { rest.replace("that is ", "that are ") };
    format!("{} {noun}{ending}{rest}", thousands(n))
}

/// The first of `names`, and `…` if there are more.
pub(crate) fn some(names: &[String], of: usize) -> String {
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if of > SHOWN { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_is_counted_named_and_a_warning_above_one_percent() {
        let mut found = Found { files: 400, ..Found::default() };
        assert_eq!((found.unread_line(), found.warning()), (None, None));
        for name in ["a.txt", "b.txt", "c.txt", "d.txt"] {
            found.pass_over("txt", name);
        }
        let line = "4 of 400 files are not read: 4 txt (a.txt, b.txt, c.txt, …)";
        assert_eq!((found.unread_line().as_deref(), found.warning()), (Some(line), None), "1 % is no warning");
        found.pass_over("heic", "x.HEIC");
        let line = found.warning().unwrap();
        assert!(
            line.starts_with("5 of 400 files are not read: 1 heic (x.HEIC); 4 txt") && line.contains("Convert heic"),
            "{line}"
        );
        assert_eq!(found.not_read_json(), json!({"heic": 1, "txt": 4}));
    }

    #[test]
    fn numbers_and_nouns() {
        assert_eq!([count(1, "class"), count(2, "class"), count(4317, "image")], ["1 class", "2 classes", "4,317 images"]);
        assert_eq!(count(3, "image that cannot be read"), "3 images that cannot be read");
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
