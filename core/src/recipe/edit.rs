//! Changes of a recipe's text that keep everything else of it: setting and removing keys, and copying sections.

use std::path::Path;

use super::Recipe;
use crate::error::{Error, Result};

/// Sections that choose one of several subsections by its name, at the top or in another section (`image.encoder`).
const CHOICES: [&str; 4] = ["encoder", "loss", "optimizer", "task"];

impl Recipe {
    /// Sets `path` (such as `train.batch`) to `value`, which is parsed as TOML or else taken as a string; missing tables are created. In a
    /// section that is a choice, such as `loss`, naming another subsection replaces the choice: `loss.infonce={}`.
    ///
    /// # Errors
    /// `path` is not a key, or the recipe is not TOML.
    pub fn set(&mut self, path: &str, value: &str) -> Result<()> {
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        let (tables, key) = match path.rsplit_once('.') {
            Some((tables, key)) => (tables.split('.').collect(), key),
            None => (Vec::new(), path),
        };
        let bad = || {
            Error::usage(format!("`{path}` is not a config key"))
                .hint("write it as section.key=value, as in --set train.batch=256")
        };
        if key.is_empty() {
            return Err(bad());
        }
        let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
        let parts: Vec<&str> = path.split('.').collect();
        let chooses = parts.iter().take(2).position(|part| CHOICES.contains(part));
        if let Some((at, choice)) = chooses.and_then(|at| Some((at, *parts.get(at + 1)?)))
            && let Some(first) = table.get_mut(parts[0])
            && let Some(section) = if at == 0 { Some(first) } else { below(first, parts[1]) }
            && let Some(chosen) = section.as_table_like_mut()
        {
            let others: Vec<String> = chosen.iter().map(|(name, _)| name.to_string()).filter(|name| name != choice).collect();
            others.iter().for_each(|name| drop(chosen.remove(name)));
        }
        let (count, mut inline) = (tables.len(), false);
        for (place, name) in tables.into_iter().enumerate() {
            let entry = table.entry(name).or_insert_with(|| match inline {
                true => toml_edit::value(toml_edit::InlineTable::new()),
                false => {
                    let mut made = toml_edit::Table::new();
                    made.set_implicit(true);
                    toml_edit::Item::Table(made)
                }
            });
            if let (Some(plain), true) = (entry.as_table_mut(), place + 1 == count) {
                plain.set_implicit(false);
            }
            inline = entry.is_inline_table();
            table = entry.as_table_like_mut().ok_or_else(bad)?;
        }
        let parsed = value.parse::<toml_edit::Value>().unwrap_or_else(|_| value.into());
        table.insert(key, toml_edit::value(parsed));
        self.text = document.to_string();
        Ok(())
    }

    /// Sets `path` to `value` unless it is written already.
    ///
    /// # Errors
    /// As for [`set`](Recipe::set).
    pub fn set_absent(&mut self, path: &str, value: &str) -> Result<()> {
        if self.span_of(path).is_some() { Ok(()) } else { self.set(path, value) }
    }

    /// Sets `path` to a file or folder, as a string, even if its name looks like a number.
    ///
    /// # Errors
    /// As for [`set`](Recipe::set).
    pub fn set_path(&mut self, path: &str, file: &Path) -> Result<()> {
        self.set(path, &serde_json::Value::String(file.display().to_string()).to_string())
    }

    /// Removes `path`, a key or a whole section, if it is there.
    ///
    /// # Errors
    /// The recipe is not TOML.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        let mut parts: Vec<&str> = path.split('.').collect();
        let key = parts.pop().unwrap_or_default();
        let table = parts.into_iter().try_fold(document.as_item_mut(), below);
        if let Some(table) = table.and_then(toml_edit::Item::as_table_like_mut) {
            table.remove(key);
        }
        self.text = document.to_string();
        Ok(())
    }

    /// Copies `path`, a key or a whole section, from `other`; if `other` does not have it, it is removed.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    pub fn take(&mut self, path: &str, other: &Recipe) -> Result<()> {
        self.take_from(path, other, path)
    }

    /// The same, for a key or section that `other` has as `theirs`.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    pub fn take_from(&mut self, path: &str, other: &Recipe, theirs: &str) -> Result<()> {
        self.remove(path)?;
        let document: toml_edit::DocumentMut =
            other.text.parse().map_err(|e: toml_edit::TomlError| other.syntax(e.message(), e.span()))?;
        let item = theirs.split('.').try_fold(document.as_item(), |item, part| item.get(part));
        match item.cloned() {
            Some(toml_edit::Item::Table(table)) => self.insert(path, table),
            Some(item) => item.into_value().map_or(Ok(()), |value| self.set(path, value.to_string().trim())),
            None => Ok(()),
        }
    }

    /// Adds a whole section.
    fn insert(&mut self, path: &str, mut section: toml_edit::Table) -> Result<()> {
        self.set(path, "{}")?;
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        if let Some(item) = path.split('.').try_fold(document.as_item_mut(), below) {
            unplaced(&mut section);
            *item = toml_edit::Item::Table(section);
        }
        self.text = document.to_string();
        Ok(())
    }
}

/// Makes a section of another recipe print where it is inserted, without that recipe's comments.
fn unplaced(section: &mut toml_edit::Table) {
    section.set_position(None);
    section.decor_mut().clear();
    section.iter_mut().filter_map(|(_, item)| item.as_table_mut()).for_each(unplaced);
}

/// The entry `key` of a table; `Item::get_mut` would create an empty table if there is none.
fn below<'a>(item: &'a mut toml_edit::Item, key: &str) -> Option<&'a mut toml_edit::Item> {
    item.as_table_like_mut()?.get_mut(key)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::objective::{LossRecipe, NtXentRecipe};
    use crate::recipe::TrainRecipe;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Small {
        #[serde(default)]
        train: TrainRecipe,
        #[serde(default)]
        loss: LossRecipe,
    }

    #[test]
    fn set_edits_the_text_and_keeps_the_rest() {
        let mut recipe = Recipe::new("a.toml", "# mine\n[train]\nepochs = 3 # few\n");
        recipe.set("train.epochs", "5").unwrap();
        recipe.set("loss.nt-xent.temperature", "0.1").unwrap();
        let small: Small = recipe.parse().unwrap();
        assert_eq!(small.train.epochs, 5);
        assert_eq!(small.loss, LossRecipe::NtXent(NtXentRecipe { temperature: 0.1, ..NtXentRecipe::default() }));
        assert!(recipe.text().contains("# mine"));
        recipe.set("loss.negative-sampling", "{}").unwrap();
        assert!(!recipe.text().contains("nt-xent"), "another choice takes its place");
        recipe.set("loss.nt-xent.temperature", "0.2").unwrap();
        assert!(recipe.text().contains("# mine") && recipe.parse::<Small>().is_ok(), "{}", recipe.text());
        assert!(recipe.error("train.epochs", "no").to_string().contains("a.toml:3:10"), "{}", recipe.error("train.epochs", "no"));
        recipe.remove("loss.nt-xent.temperature").unwrap();
        recipe.remove("eval").unwrap();
        assert!(recipe.text().contains("nt-xent") && !recipe.text().contains("temperature"), "{}", recipe.text());
        recipe.remove("loss").unwrap();
        assert!(!recipe.text().contains("nt-xent") && recipe.text().contains("# mine"), "{}", recipe.text());
        assert!(recipe.set("train", "1").is_ok() && recipe.set("train.x", "1").is_err());
    }

    #[test]
    fn a_section_of_another_recipe_can_be_changed_further() {
        let other =
            Recipe::new("b.toml", "# theirs\n[train]\nepochs = 9\n\n# about the loss\n[loss.nt-xent]\ntemperature = 0.3\n");
        for text in ["# mine\n[loss.infonce]\n\n[train]\nepochs = 3\n", "loss = { infonce = {} }\n", ""] {
            let mut recipe = Recipe::new("a.toml", text);
            recipe.take("loss", &other).unwrap();
            assert!(!recipe.text().contains("infonce") && !recipe.text().contains("about"), "{}", recipe.text());
            recipe.set("loss.nt-xent.scale", "2.0").unwrap();
            let NtXentRecipe { temperature, scale, .. } = match recipe.parse::<Small>().unwrap().loss {
                LossRecipe::NtXent(loss) => loss,
                other => panic!("{other:?}"),
            };
            assert_eq!((temperature, scale), (0.3, 2.0), "{}", recipe.text());
        }
        // Tables in a line are changed as well.
        let mut inline = Recipe::new("a.toml", "loss = { nt-xent = { temperature = 0.3 } }\n");
        inline.set("loss.nt-xent.temperature", "0.4").unwrap();
        assert!(inline.text().contains("0.4") && inline.parse::<Small>().is_ok(), "{}", inline.text());
        inline.set("loss.infonce", "{}").unwrap();
        assert!(!inline.text().contains("nt-xent"), "{}", inline.text());
    }
}
