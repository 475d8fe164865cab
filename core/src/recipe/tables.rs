//! Checks of the schema that serde does not make. Serde would also read a table from a list of its values in order, would ignore the rest of
//! a list that is too long, and would name only the first of several unknown keys.

use serde_json::Value;
use toml_edit::Item;

use super::{EVERY_KEY, Recipe, near, words};
use crate::error::{Error, Result, short};

impl Recipe {
    /// Refuses a list where the recipe's JSON schema has a table of keys, a list that is longer than the schema says, and several unknown
    /// keys.
    ///
    /// # Errors
    /// The first such list, with its line; all unknown keys, if there are several; a single one that another choice of the same section has,
    /// as another loss. Any other single one, and a recipe that is not TOML, are left to [`parse`](Recipe::parse).
    pub fn tables(&self, schema: &Value) -> Result<()> {
        let Ok(document) = toml_edit::Document::parse(self.text.clone()) else { return Ok(()) };
        let mut unknown = Vec::new();
        unknown_keys(schema, schema, &[], document.as_item(), "", &mut unknown);
        match &unknown[..] {
            [Unknown { key, beside, .. }] if !beside.is_empty() => {
                let (table, wrong) = key.rsplit_once('.').unwrap_or(("", key));
                let what = format!("[{table}] has no `{wrong}`; it belongs to {}", tables_of(beside));
                return Err(self.error(key, what).hint("choose one of these in its place, or leave the key out"));
            }
            [first, _, ..] => {
                let each = unknown.iter().map(|Unknown { key, known, beside }| {
                    let wrong = key.rsplit('.').next().unwrap_or(key);
                    let meant = match beside.is_empty() {
                        true => near(wrong, known.iter().map(String::as_str)).map(|meant| format!(" (did you mean `{meant}`?)")),
                        false => Some(format!(" (it belongs to {})", tables_of(beside))),
                    };
                    format!("`{}`{}", short(key, words::LONGEST), meant.unwrap_or_default())
                });
                let what = format!("{} keys are not known: {}", unknown.len(), each.collect::<Vec<_>>().join(", "));
                return Err(Error::usage(what).at(self.place_of(&first.key)).hint(EVERY_KEY));
            }
            _ => {}
        }
        self.walk(schema, schema, document.as_item(), "")
    }

    fn walk(&self, root: &Value, node: &Value, item: &Item, key: &str) -> Result<()> {
        let choices = choices(root, node);
        let tables = choices.iter().all(|choice| choice["properties"].is_object() || choice["type"] == "object");
        self.require(
            !tables || !(item.is_array() || item.is_array_of_tables()),
            key,
            "this is a list, and has to be a table of keys",
        )?;
        // Values after the last one that is read would be ignored.
        let most = choices.iter().filter_map(|choice| choice["maxItems"].as_u64()).max();
        let (length, most) = (item.as_array().map_or(0, toml_edit::Array::len), most.map_or(usize::MAX, |most| most as usize));
        self.require(length <= most, key, format!("must be {most} values, and has {length}"))?;
        for (name, below) in item.as_table_like().into_iter().flat_map(|table| table.iter()) {
            let node = choices.iter().find_map(|choice| choice["properties"].get(name));
            let key = if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
            node.map_or(Ok(()), |node| self.walk(root, node, below, &key))?;
        }
        Ok(())
    }
}

/// A key that the schema does not have.
struct Unknown {
    key: String,
    /// The names that the schema has in its place.
    known: Vec<String>,
    /// Other choices of the same section, as other losses, that have a key of this name.
    beside: Vec<String>,
}

/// Sections as a recipe writes them, for people.
fn tables_of(names: &[String]) -> String {
    names.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ")
}

/// Adds every key below `item` that the schema does not have. `key` is the name of `item`, and `siblings` are the names and schemas of the
/// other choices in its place.
fn unknown_keys(root: &Value, node: &Value, siblings: &[(String, &Value)], item: &Item, key: &str, found: &mut Vec<Unknown>) {
    let choices = choices(root, node);
    let known: Vec<&serde_json::Map<String, Value>> =
        choices.iter().filter_map(|choice| choice["properties"].as_object()).collect();
    if known.is_empty() {
        return;
    }
    for (name, below) in item.as_table_like().into_iter().flat_map(|table| table.iter()) {
        let full = if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
        match known.iter().find_map(|names| names.get(name)) {
            Some(node) => {
                // Each choice is a table with one key, its name.
                let others = known.iter().filter(|names| names.len() == 1 && !names.contains_key(name));
                let siblings: Vec<(String, &Value)> = others
                    .flat_map(|names| names.iter())
                    .map(|(other, node)| (if key.is_empty() { other.clone() } else { format!("{key}.{other}") }, node))
                    .collect();
                unknown_keys(root, node, &siblings, below, &full, found);
            }
            None => {
                let has = |node: &Value| self::choices(root, node).iter().any(|choice| !choice["properties"][name].is_null());
                found.push(Unknown {
                    key: full,
                    known: known.iter().flat_map(|names| names.keys().cloned()).collect(),
                    beside: siblings.iter().filter(|(_, node)| has(node)).map(|(name, _)| name.clone()).collect(),
                });
            }
        }
    }
}

/// The alternatives that the schema allows at `node`, with references resolved.
fn choices<'a>(root: &'a Value, node: &'a Value) -> Vec<&'a Value> {
    if let Some(of) = node["$ref"].as_str() {
        return choices(root, &root["$defs"][of.rsplit('/').next().unwrap_or_default()]);
    }
    match node["anyOf"].as_array().or(node["oneOf"].as_array()) {
        Some(all) => all.iter().filter(|choice| choice["type"] != "null").flat_map(|choice| choices(root, choice)).collect(),
        None => vec![node],
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;

    use super::*;
    use crate::recipe::{EvalRecipe, OptimizerRecipe, TrainRecipe};

    #[derive(JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Small {
        train: TrainRecipe,
        optimizer: OptimizerRecipe,
        eval: Option<EvalRecipe>,
        paths: Vec<String>,
        pair: Option<[f64; 2]>,
    }

    #[test]
    fn a_list_is_no_section_and_no_longer_than_it_may_be() {
        let schema = schemars::schema_for!(Small).to_value();
        let said = |text: &str| Recipe::new("a.toml", text).tables(&schema).err().map(|e| e.to_string());
        for fine in [
            "",
            "paths = [\"a\"]\npair = [1, 2]\n[train]\nepochs = 1\n[optimizer.sgd]\n[eval.knn]\n",
            "[optimizer]\nsgd = {}\n",
            "[other]\nx = []\ny = 1\n",
            "= no TOML",
        ] {
            assert_eq!(said(fine), None, "{fine}");
        }
        let two = said("[train]\nepoch = 1\n[optimizer.sgd]\nnonsense = 1\n[evl]\n").unwrap();
        assert!(
            two.starts_with("3 keys are not known: `train.epoch` (did you mean `epochs`?), `optimizer.sgd.nonsense`, `evl` (did"),
            "{two}"
        );
        assert!(two.contains("--> a.toml:2:"), "{two}");
        let other = said("[optimizer.lars]\nrate = 0.1\nbeta1 = 0.9\n").unwrap();
        assert!(
            other.starts_with("optimizer.lars.beta1: [optimizer.lars] has no `beta1`; it belongs to [optimizer.adamw]"),
            "{other}"
        );
        assert!(other.contains("--> a.toml:3:"), "{other}");
        let long = said("pair = [1, 2, 3]\n").unwrap();
        assert!(long.starts_with("pair: must be 2 values, and has 3\n  --> a.toml:1:"), "{long}");
        for (wrong, key) in [
            ("train = [1, 2]\n", "train"),
            ("[optimizer]\nsgd = [0.1]\n", "optimizer.sgd"),
            ("[[train]]\nepochs = 1\n", "train"),
            ("[eval]\nknn = []\n", "eval.knn"),
        ] {
            let said = said(wrong).unwrap();
            assert!(said.starts_with(&format!("{key}: this is a list, and has to be a table of keys\n  --> a.toml")), "{said}");
        }
    }
}
