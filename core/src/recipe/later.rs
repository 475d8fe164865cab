//! Which recipe keys may change when a run is resumed, and how two recipes differ.

use std::collections::BTreeMap;
use std::fmt;

use super::Recipe;
use crate::error::Result;

/// Keys that may change when a run is resumed: the run's length, and keys that do not change what is learned. `*` stands for a whole
/// section.
pub const MAY_CHANGE: [&str; 9] = [
    "train.epochs",
    "train.max_steps",
    "train.loaders",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "checkpoint.*",
    "data.cache",
    "eval.*",
];

/// Whether `key` may change when a run is resumed.
pub fn may_change(key: &str) -> bool {
    let below = |may: &str| may.strip_suffix(".*").is_some_and(|section| key.split('.').next() == Some(section));
    MAY_CHANGE.iter().any(|may| key == *may || below(may))
        // Which labels are held back decides what is learned.
        && key != "checkpoint.keep_best"
}

/// A key that differs between two recipes.
pub(crate) struct Change {
    /// The key, `section.key`.
    pub key: String,
    was: Option<String>,
    is: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_string());
        write!(f, "{} from {} to {}", self.key, value(&self.was), value(&self.is))
    }
}

/// The keys that are written differently in `was` and `is`.
///
/// # Errors
/// A recipe that is not TOML.
pub(crate) fn changes(was: &Recipe, is: &Recipe) -> Result<Vec<Change>> {
    let [mut was, is] = [keys(was)?, keys(is)?];
    let mut changes = Vec::new();
    for (key, value) in is {
        match was.remove(&key) {
            Some(before) if before == value => {}
            before => changes.push(Change { key, was: before, is: Some(value) }),
        }
    }
    changes.extend(was.into_iter().map(|(key, before)| Change { key, was: Some(before), is: None }));
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(changes)
}

/// Every key that is written, with its value.
fn keys(recipe: &Recipe) -> Result<BTreeMap<String, String>> {
    fn put(at: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
        match value {
            toml::Value::Table(table) if !table.is_empty() => {
                let dot = if at.is_empty() { "" } else { "." };
                table.iter().for_each(|(name, value)| put(&format!("{at}{dot}{name}"), value, into));
            }
            // An empty section is a choice too, such as `[loss.dcl]`.
            toml::Value::Table(_) => drop(into.insert(at.to_string(), "chosen".to_string())),
            value => drop(into.insert(at.to_string(), value.to_string())),
        }
    }
    let mut keys = BTreeMap::new();
    put("", &toml::Value::Table(recipe.parse()?), &mut keys);
    keys.remove("");
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_lists_and_choices_are_compared_by_their_values() {
        let recipe = |text: &str| Recipe::new("r", text);
        let was = recipe("[data]\npath = [\"a\", \"b\"]\n[loss.dcl]\n[pairs]\nsize = 32\n");
        let same = recipe("pairs = { size = 32 }\nloss = { dcl = {} }\n[data]\npath = [\n  \"a\",\n  \"b\",\n]\n");
        assert!(changes(&was, &same).unwrap().is_empty());
        let other = recipe("[data]\npath = [\"a\"]\n[loss.byol]\n[pairs]\nsize = 32\n");
        let told: Vec<String> = changes(&was, &other).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["data.path from [\"a\", \"b\"] to [\"a\"]", "loss.byol from nothing to chosen", "loss.dcl from chosen to nothing"]
        );
        assert!(changes(&recipe(""), &recipe("")).unwrap().is_empty() && changes(&was, &recipe("[")).is_err());
    }

    #[test]
    fn what_changes_what_is_learned_may_not_change() {
        assert!(["train.epochs", "eval", "eval.knn.every", "checkpoint.every", "checkpoint.keep"].into_iter().all(may_change));
        assert!(!["train.seed", "checkpoint.keep_best", "train", "evals", "data.path"].into_iter().any(may_change));
    }
}
