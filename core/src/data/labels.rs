//! Few labels: which samples keep their labels, and how these samples are split into folds.
//!
//! A subset is a pure function of (seed, names, classes, amount). The seed and the samples' names order each class's samples; a subset is
//! the beginning of each class's order. So subsets are nested (1 % lies inside 10 %), they do not depend on the order of the files or on
//! other classes, and every method that is given the same data and seed gets the same labels.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, short};
use crate::rng::Key;

/// How many samples keep their labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Amount {
    /// A percentage of each class, rounded, at least one sample.
    Percent(f64),
    /// A number of samples of each class, or all of a smaller class.
    PerClass(usize),
}

impl Default for Amount {
    fn default() -> Self {
        Amount::Percent(100.0)
    }
}

impl Amount {
    /// How many samples of a class of `count` keep their labels.
    pub fn of(self, count: usize) -> usize {
        let wanted = match self {
            Amount::Percent(percent) => (percent / 100.0 * count as f64).round() as usize,
            Amount::PerClass(wanted) => wanted,
        };
        wanted.max(1).min(count)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Amount::Percent(percent) => write!(f, "{percent}%"),
            Amount::PerClass(count) => write!(f, "{count}-per-class"),
        }
    }
}

impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let percent = text.strip_suffix('%').and_then(|p| p.trim().parse().ok()).filter(|p| *p > 0.0 && *p <= 100.0);
        let count = text.strip_suffix("-per-class").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        percent.map(Amount::Percent).or(count.map(Amount::PerClass)).ok_or_else(|| {
            Error::usage(format!("`{text}` is not an amount of labels"))
                .hint("write a share above 0 and up to 100, as in 1%, or a number, as in 5-per-class")
        })
    }
}

impl TryFrom<String> for Amount {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> String {
        amount.to_string()
    }
}

impl schemars::JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^([0-9.]+%|[0-9]+-per-class)$" })
    }
}

/// The samples that keep their labels, as stored in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// The amount that was asked for.
    pub labels: Amount,
    /// The seed of the draw.
    pub seed: u64,
    /// Names of the classes by number; empty if they have none.
    pub classes: Vec<String>,
    /// Names of the samples, sorted.
    pub names: Vec<String>,
}

impl Subset {
    /// Draws `labels` of samples with these `names` and classes (`of`, one for each name). Also returns their indices, ascending.
    pub fn draw(names: &[String], of: &[u32], classes: &[String], labels: Amount, seed: u64) -> (Subset, Vec<usize>) {
        let mut chosen: Vec<usize> = ranked(names, of, Key::new(seed).of("labels"))
            .into_values()
            .flat_map(|order| {
                let keep = labels.of(order.len());
                order.into_iter().take(keep)
            })
            .collect();
        chosen.sort_unstable();
        let mut sorted: Vec<String> = chosen.iter().map(|&i| names[i].clone()).collect();
        sorted.sort_unstable();
        (Subset { labels, seed, classes: classes.to_vec(), names: sorted }, chosen)
    }

    /// Classes that have fewer samples than labels were asked for, as a sentence; `of` has the class of each sample of the data.
    pub fn fewer(&self, of: &[u32]) -> Option<String> {
        let Amount::PerClass(wanted) = self.labels else { return None };
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        of.iter().for_each(|class| *counts.entry(*class).or_default() += 1);
        let name = |class: u32| self.classes.get(class as usize).map_or_else(|| class.to_string(), |name| short(name, 40).into());
        let short: Vec<String> = counts
            .iter()
            .filter(|(_, count)| **count < wanted)
            .map(|(class, count)| format!("{} ({count})", name(*class)))
            .collect();
        let more = if short.len() > 5 { ", …" } else { "" };
        (!short.is_empty()).then(|| {
            format!(
                "{} of {} classes have fewer than {wanted}, and keep all: {}{more}",
                short.len(),
                counts.len(),
                short[..short.len().min(5)].join(", ")
            )
        })
    }

    /// One line about the subset, to print.
    pub fn line(&self, of: usize) -> String {
        format!("{} of {of} labels ({}, seed {}), by class", self.names.len(), self.labels, self.seed)
    }
}

/// The fold in which each sample is held out, `0..folds`, with the classes spread evenly. None for the only sample of its class, which must
/// be trained on. A pure function, like a subset.
pub fn folds(names: &[String], of: &[u32], folds: usize, seed: u64) -> Vec<Option<usize>> {
    let mut fold = vec![None; names.len()];
    for (class, order) in ranked(names, of, Key::new(seed).of("folds")).into_values().enumerate() {
        if order.len() > 1 {
            // Small classes begin at different folds; otherwise the last folds could be empty.
            order.iter().enumerate().for_each(|(j, &i)| fold[i] = Some((class + j) % folds.max(1)));
        }
    }
    fold
}

/// Each class's samples in the order drawn by the key.
fn ranked(names: &[String], of: &[u32], key: Key) -> BTreeMap<u32, Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<(u64, &str, usize)>> = BTreeMap::new();
    for (i, (name, &class)) in names.iter().zip(of).enumerate() {
        classes.entry(class).or_default().push((key.of(name).rng().next_u64(), name, i));
    }
    let sorted = |mut ranks: Vec<(u64, &str, usize)>| {
        ranks.sort_unstable();
        ranks.into_iter().map(|(.., i)| i).collect()
    };
    classes.into_iter().map(|(class, ranks)| (class, sorted(ranks))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// 100 of class 0, 40 of class 1, 3 of class 2.
    fn data() -> (Vec<String>, Vec<u32>) {
        let of: Vec<u32> = [(0, 100), (1, 40), (2, 3)].iter().flat_map(|&(class, n)| vec![class; n]).collect();
        ((0..of.len()).map(|i| format!("{i:03}.png")).collect(), of)
    }

    fn names(amount: &str, seed: u64) -> BTreeSet<String> {
        let (names, of) = data();
        Subset::draw(&names, &of, &[], amount.parse().unwrap(), seed).0.names.into_iter().collect()
    }

    #[test]
    fn every_class_keeps_its_share_and_at_least_one() {
        let (all, of) = data();
        let counts = |amount: &str| {
            let (subset, chosen) = Subset::draw(&all, &of, &[], amount.parse().unwrap(), 3);
            assert_eq!(chosen.iter().map(|&i| all[i].clone()).collect::<Vec<_>>(), subset.names, "both ascend");
            [0, 1, 2].map(|class| chosen.iter().filter(|&&i| of[i] == class).count())
        };
        assert_eq!(counts("10%"), [10, 4, 1]);
        assert_eq!(counts("1%"), [1, 1, 1]);
        assert_eq!(counts("5-per-class"), [5, 5, 3]);
        assert_eq!(counts("100%"), [100, 40, 3]);
    }

    #[test]
    fn subsets_are_nested_and_seeded() {
        let nested = ["1%", "2-per-class", "10%", "50%", "100%"].map(|amount| names(amount, 7));
        // For the class of three, two samples are more than 10 %; each other pair of subsets is nested.
        for (a, b) in [(0, 1), (0, 2), (2, 3), (1, 3), (3, 4)] {
            assert!(nested[a].is_subset(&nested[b]), "{a} in {b}");
        }
        assert_eq!(names("10%", 7), names("10%", 7));
        assert_ne!(names("10%", 7), names("10%", 8));
    }

    #[test]
    fn order_and_other_classes_do_not_matter() {
        let (all, of) = data();
        let turned: (Vec<String>, Vec<u32>) = all.iter().cloned().zip(of.clone()).rev().unzip();
        let subset = Subset::draw(&all, &of, &[], Amount::Percent(10.0), 1).0;
        assert_eq!(Subset::draw(&turned.0, &turned.1, &[], Amount::Percent(10.0), 1).0, subset);
        let fewer = Subset::draw(&all[..140], &of[..140], &[], Amount::Percent(10.0), 1).0;
        assert!(fewer.names.iter().all(|name| subset.names.contains(name)));
    }

    #[test]
    fn folds_hold_each_sample_out_once_and_never_a_whole_class() {
        let (mut names, mut of) = data();
        names.push("lone.png".to_string());
        of.push(3);
        let fold = folds(&names, &of, 5, 0);
        assert_eq!(fold[143], None, "the only one of its class is always trained on");
        assert!(fold[..143].iter().all(Option::is_some));
        for k in 0..5 {
            let held = |class| (0..144).filter(|&i| fold[i] == Some(k) && of[i] == class).count();
            assert_eq!((held(0), held(1)), (20, 8));
            assert!(held(2) <= 1);
        }
        assert_eq!(fold, folds(&names, &of, 5, 0));
        assert_ne!(fold, folds(&names, &of, 5, 1));
    }

    #[test]
    fn classes_with_fewer_samples_are_named() {
        let (all, of) = data();
        let said = |amount: &str| {
            let classes = ["a", "b", "c"].map(String::from);
            Subset::draw(&all, &of, &classes, amount.parse().unwrap(), 0).0.fewer(&of)
        };
        assert_eq!((said("3-per-class"), said("1%")), (None, None));
        assert_eq!(said("5-per-class").unwrap(), "1 of 3 classes have fewer than 5, and keep all: c (3)");
    }

    #[test]
    fn amounts_are_read_and_written() {
        for text in ["1%", "0.5%", "100%", "3-per-class"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        for text in ["", "10", "0%", "101%", "-1%", "NaN%", "0-per-class", "x-per-class", "10 %%"] {
            let error = text.parse::<Amount>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("hint"), "{text}");
        }
        let stored =
            serde_json::to_string(&Subset { labels: Amount::Percent(1.0), seed: 2, classes: vec![], names: vec![] }).unwrap();
        assert!(stored.contains("\"1%\"") && serde_json::from_str::<Subset>(&stored).is_ok(), "{stored}");
    }
}
