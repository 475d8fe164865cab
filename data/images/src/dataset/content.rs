//! From the content of parts to splits: which labels are used, which part is measured on during training or evaluated on, and notes about
//! it.

use std::collections::{BTreeMap, HashSet};

use ctk_core::data::dataset::Dataset as _;

use super::report::{Found, Slot, count, some};
use super::tree::Leaf;
use super::{Images, Item, Splits};

/// If at most this fraction of the images has no class, the other labels are used.
const STRAY: f64 = 0.01;

/// Images of a test part whose class the training part does not have.
const UNKNOWN: &str = "image without a class of the training part";

/// The images of each class, by its name.
pub(super) type Classes = BTreeMap<String, Vec<Leaf>>;

/// How labels are decided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// Used if they are clear.
    Found,
    /// Used because the recipe or a column of a table says so.
    Forced,
}

/// The splits of train, val, test and unlabelled parts below `base`; `by` says how the parts were recognised.
pub(super) fn splits(base: &str, of: [Content; 4], labels: Labels, by: &str, mut found: Found) -> Splits {
    let [mut train, val, test, more] = of;
    let train_from = std::mem::take(&mut train.from);
    let (train, loose) = train.trained(base, labels, &mut found);
    found.part("train", Slot::Train, train_from, format!("trained on, {by}"));
    let mut apart = Vec::new();
    let mut judged = |content: Content, name: &'static str, found: &mut Found| {
        let from = content.from.clone();
        let content = (!content.is_empty()).then_some(content)?;
        let images = content.judged(base, name, train.classes(), found);
        let images = images.map_err(|without| {
            let why = "used neither for training nor for evaluation: none of its images has a class of the training part";
            found.part(name, Slot::Apart(apart.len()), from.clone(), why);
            apart.push(without);
        });
        Some((images.ok()?, from))
    };
    let val = judged(val, "val", &mut found);
    let test = judged(test, "test", &mut found);
    if val.is_none() && test.is_none() && !apart.is_empty() {
        found.note("no part that is held back has labels of the training part's classes: one is drawn from the training part");
    }
    // A val part alone has the role that a test part would have.
    let (val, test) = match (val, test) {
        (Some((val, from)), None) => {
            let why = format!("measured during training and used for evaluation, {by}: there is no test part");
            found.part("val", Slot::Test, from, why);
            (None, Some(val))
        }
        (val, test) => {
            let val = val.map(|(images, from)| {
                found.part("val", Slot::Val, from, format!("measured on while training, {by}"));
                images
            });
            let test = test.map(|(images, from)| {
                found.part("test", Slot::Test, from, format!("used for evaluation, never for training, {by}"));
                images
            });
            (val, test)
        }
    };
    let more_from = more.from.clone();
    let more: Vec<Item> = more.leaves().into_iter().map(|leaf| leaf.item(base, None)).collect();
    if !more.is_empty() {
        found.part("unlabelled", Slot::Unlabelled, more_from, "trained on too, without labels");
    }
    let more = (!more.is_empty()).then(|| Images::new(more, Vec::new()));
    let unlabelled = match (loose, more) {
        (Some(loose), Some(more)) => Some(more.and(&loose)),
        (loose, more) => more.or(loose),
    };
    if let Some(test) = test.as_ref().filter(|test| !train.classes().is_empty() && !test.classes().is_empty()) {
        missing(test, train.classes(), &mut found);
    }
    Splits { val, test, unlabelled, apart, found: found.into(), ..Splits::of(train) }
}

/// Notes classes without an image in the test part.
fn missing(test: &Images, classes: &[String], found: &mut Found) {
    let there: HashSet<u32> = test.each_label().flatten().collect();
    let without: Vec<String> =
        classes.iter().zip(0..).filter(|(_, label)| !there.contains(label)).map(|(name, _)| format!("`{name}`")).collect();
    if !without.is_empty() {
        let has = if without.len() == 1 { "has" } else { "have" };
        let which = some(&without, without.len());
        found.note(format!("{} of {} {has} no test image: {which}", without.len(), count(classes.len(), "class")));
    }
}

/// The content of one part.
#[derive(Default)]
pub(super) struct Content {
    /// The folders or files that make up the part.
    pub from: Vec<String>,
    /// Images without a class.
    pub loose: Vec<Leaf>,
    /// The classes in order, with their images.
    pub classes: Vec<(String, Vec<Leaf>)>,
}

impl Content {
    fn is_empty(&self) -> bool {
        self.loose.is_empty() && self.classes.is_empty()
    }

    /// Classes in the order of their names; in numerical order if all names are numbers.
    pub fn sorted(classes: Classes, loose: Vec<Leaf>) -> Content {
        let mut classes: Vec<(String, Vec<Leaf>)> = classes.into_iter().collect();
        let number = |(name, _): &(String, Vec<Leaf>)| name.parse::<i64>().ok();
        if classes.iter().all(|class| number(class).is_some()) {
            classes.sort_by_key(number);
        }
        Content { from: Vec::new(), loose, classes }
    }

    fn leaves(self) -> Vec<Leaf> {
        let mut all = self.loose;
        all.extend(self.classes.into_iter().flat_map(|(_, leaves)| leaves));
        all
    }

    /// The images to train on, with labels if these are clear; and the images beside the class folders.
    pub fn trained(mut self, base: &str, labels: Labels, found: &mut Found) -> (Images, Option<Images>) {
        let (loose, inside) = (self.loose.len(), self.classes.iter().map(|(_, leaves)| leaves.len()).sum::<usize>());
        let forced = labels == Labels::Forced;
        let few = loose as f64 <= STRAY * (loose + inside) as f64;
        match self.classes.len() {
            0 => {}
            1 if loose == 0 => {
                let name = &self.classes[0].0;
                found.note(format!("there is only one class, `{name}`, and labels need two: the images go without labels"));
            }
            number if number > 1 && (few || forced) => {
                let beside = std::mem::take(&mut self.loose);
                if !beside.is_empty() {
                    let has = if loose == 1 { "has" } else { "have" };
                    let first = beside[0].path.clone();
                    found.note(format!("{} {has} no class ({first}): trained on without", count(loose, "image")));
                }
                let (names, classes): (Vec<String>, Vec<Vec<Leaf>>) = self.classes.into_iter().unzip();
                let label = |(label, leaves): (u32, Vec<Leaf>)| leaves.into_iter().map(move |leaf| leaf.item(base, Some(label)));
                let items = (0..).zip(classes).flat_map(label).collect();
                return (Images::new(items, names), (!beside.is_empty()).then(|| unlabelled(base, beside)));
            }
            number => {
                let folders = if number == 1 { "one folder".to_string() } else { count(number, "folder") };
                found.warn(format!(
                    "{} beside {folders} ({}), so folders are not classes: all go without labels. To use labels, move every image \
                     into a class folder, or set data.format = \"folder\"",
                    count(loose, "image"),
                    self.loose[0].path
                ));
            }
        }
        (unlabelled(base, self.leaves()), None)
    }

    /// The images of the part `name`, with those classes that are `known` from training.
    ///
    /// # Errors
    /// Returns all of the images if none has such a class.
    fn judged(self, base: &str, name: &str, known: &[String], found: &mut Found) -> Result<Images, Images> {
        if known.is_empty() {
            return Ok(unlabelled(base, self.leaves()));
        }
        let place = |class: &str| {
            let same = |known: &String| known.eq_ignore_ascii_case(class);
            known.iter().position(|known| known == class).or_else(|| known.iter().position(same)).map(|place| place as u32)
        };
        let captioned = |leaf: &Leaf| leaf.captions.is_some();
        if self.classes.iter().all(|(class, _)| place(class).is_none()) {
            // Pairs of an image and its caption are evaluated without labels.
            if self.loose.iter().chain(self.classes.iter().flat_map(|(_, leaves)| leaves)).any(captioned) {
                return Ok(unlabelled(base, self.leaves()));
            }
            let number = self.classes.len();
            let what = match number {
                0 => "has no labels".to_string(),
                _ => format!("has {} that the training part does not have (`{}`)", count(number, "class"), self.classes[0].0),
            };
            let images = unlabelled(base, self.leaves());
            found.note(format!(
                "the {name} part {what}: its {} are used neither for evaluation nor for training",
                count(images.len(), "image")
            ));
            return Err(images);
        }
        let (mut items, mut strange) = (Vec::new(), Vec::new());
        let mut left_out = self.loose;
        for (class, leaves) in self.classes {
            match place(&class) {
                Some(label) => items.extend(leaves.into_iter().map(|leaf| leaf.item(base, Some(label)))),
                None => {
                    strange.push(format!("`{class}`"));
                    left_out.extend(leaves);
                }
            }
        }
        let (kept, left_out): (Vec<Leaf>, Vec<Leaf>) = left_out.into_iter().partition(captioned);
        items.extend(kept.into_iter().map(|leaf| leaf.item(base, None)));
        if !strange.is_empty() {
            let (is, has) = if strange.len() == 1 { ("class", "has") } else { ("classes", "have") };
            let which = some(&strange, strange.len());
            found.note(format!(
                "{} {is} of the {name} part {has} no training image and cannot be evaluated: {which}. {} left out",
                strange.len(),
                count(left_out.len(), "image")
            ));
        }
        left_out.iter().for_each(|leaf| found.pass_over(UNKNOWN, &leaf.path));
        Ok(Images::new(items, known.to_vec()))
    }
}

/// The images without labels.
pub(super) fn unlabelled(base: &str, leaves: Vec<Leaf>) -> Images {
    Images::new(leaves.into_iter().map(|leaf| leaf.item(base, None)).collect(), Vec::new())
}
