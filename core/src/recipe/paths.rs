//! Paths in a recipe: relative paths are relative to the recipe's file, and a run stores absolute paths, so that it opens from any folder.

use std::path::{Path, PathBuf};

use toml_edit::{Item, TableLike, Value};

use super::Recipe;
use crate::error::Result;

impl Recipe {
    /// Makes relative paths at `keys` (each a string or a list of strings; of a list of tables, in each table) relative to the recipe's own file. A path that exists only in
    /// the current folder is left unchanged, with a note. Addresses (`hf://…`) and `-` are not paths. Returns the notes.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    pub fn beside_its_file(&mut self, keys: &[&str]) -> Result<Vec<String>> {
        let Some(folder) = self.folder.clone() else { return Ok(Vec::new()) };
        let mut told = Vec::new();
        self.each_path(keys, |path| {
            let beside = folder.join(path);
            if names_something(&beside) {
                return Some(beside);
            }
            // A value that names no file in either place may be a word.
            names_something(path).then(|| {
                told.push(format!("{} is not beside the recipe; the one in the current folder is taken", path.display()))
            });
            None
        })?;
        Ok(told)
    }

    /// Makes relative paths at `keys` absolute, so that the stored recipe means the same from any folder.
    ///
    /// # Errors
    /// A recipe that is not TOML.
    pub fn absolute(&mut self, keys: &[&str]) -> Result<()> {
        self.each_path(keys, |path| std::path::absolute(path).ok().filter(|whole| names_something(whole)))
    }

    /// Replaces each relative path at `keys` by the result of `change`, if there is one.
    fn each_path(&mut self, keys: &[&str], mut change: impl FnMut(&Path) -> Option<PathBuf>) -> Result<()> {
        let mut document: toml_edit::DocumentMut =
            self.text.parse().map_err(|e: toml_edit::TomlError| self.syntax(e.message(), e.span()))?;
        let mut changed = false;
        let mut new = |value: &mut Value| {
            let Some(written) = value.as_str() else { return };
            let path = Path::new(written);
            if written.is_empty() || written == "-" || written.contains("://") || path.is_absolute() {
                return;
            }
            if let Some(path) = change(path).filter(|new| new.to_str().is_some()) {
                let decor = value.decor().clone();
                *value = path.display().to_string().into();
                *value.decor_mut() = decor;
                changed = true;
            }
        };
        for key in keys {
            each_value(document.as_table_mut(), &key.split('.').collect::<Vec<_>>(), &mut new);
        }
        if changed {
            self.text = document.to_string();
        }
        Ok(())
    }
}

/// Calls `each` for the value at `key` below `table`, or for each value of a list there. Of a list of tables all are looked into.
fn each_value(table: &mut dyn TableLike, key: &[&str], each: &mut dyn FnMut(&mut Value)) {
    let Some((item, rest)) = key.split_first().and_then(|(first, rest)| Some((table.get_mut(first)?, rest))) else { return };
    match item {
        Item::Value(Value::Array(list)) if rest.is_empty() => list.iter_mut().for_each(each),
        Item::Value(value) if rest.is_empty() => each(value),
        Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| each_value(table, rest, each)),
        Item::Value(Value::Array(list)) => {
            list.iter_mut().filter_map(Value::as_inline_table_mut).for_each(|table| each_value(table, rest, each));
        }
        other => other.as_table_like_mut().into_iter().for_each(|table| each_value(table, rest, each)),
    }
}

/// Whether there is such a file or folder or, for a pattern, the folder that it searches.
fn names_something(path: &Path) -> bool {
    let plain = |part: &std::path::Component| !part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let fixed: PathBuf = path.components().take_while(plain).collect();
    !fixed.as_os_str().is_empty() && fixed.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["data.path", "data.tokens", "train.init"];

    #[test]
    fn relative_paths_are_beside_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["photos", "a.txt", "with space"] {
            std::fs::write(at(name), "").unwrap();
        }
        let text = "[data]\npath = [\n  \"a.txt\", # the first\n  \"hf://x/y\",\n  \"with space\",\n]\ntokens = \"whitespace\"\n";
        std::fs::write(at("recipe.toml"), text).unwrap();
        let mut recipe = Recipe::read(&at("recipe.toml")).unwrap();
        assert!(recipe.beside_its_file(&KEYS).unwrap().is_empty());
        let here = |name: &str| at(name).display().to_string();
        assert!(recipe.text().contains(&here("a.txt")) && recipe.text().contains(&here("with space")), "{}", recipe.text());
        assert!(
            recipe.text().contains("# the first")
                && recipe.text().contains("\"hf://x/y\"")
                && recipe.text().contains("\"whitespace\"")
        );
        assert_eq!(recipe.text().lines().count(), text.lines().count(), "lines stay where they are");
        let before = recipe.text().to_string();
        // A key that is not written stays unwritten.
        recipe.absolute(&["data.path", "task.finetune.from", "train.init"]).unwrap();
        assert_eq!(recipe.text(), before);
    }

    #[test]
    fn paths_in_lists_of_tables_are_paths_too() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        ["a.tsv", "b.tsv", "c.tsv"].iter().for_each(|name| std::fs::write(at(name), "").unwrap());
        let text = "[[data.source]]\npath = \"a.tsv\"\n[[data.source]]\nweight = -1\npath = \"b.tsv\"\n";
        for text in [text, "[data]\nsource = [{ path = \"a.tsv\" }, { weight = -1, path = \"b.tsv\" }]\n"] {
            std::fs::write(at("recipe.toml"), text).unwrap();
            let mut recipe = Recipe::read(&at("recipe.toml")).unwrap();
            assert!(recipe.beside_its_file(&["data.source.path"]).unwrap().is_empty());
            assert!(["a.tsv", "b.tsv"].iter().all(|name| recipe.text().contains(&at(name).display().to_string())));
            let place = recipe.place_of("data.source.1.weight");
            assert!(place.contains("recipe.toml:") && place.contains("weight = -1"), "{place}");
            assert!(!recipe.states("data.source.2.weight"));
        }
    }

    #[test]
    fn what_lies_in_the_current_folder_alone_is_told_and_stored_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipe.toml");
        // Tests run in the crate's folder, which has a manifest.
        std::fs::write(&file, "[data]\npath = \"Cargo.toml\"\n[train]\ninit = \"no/such/run\"\n").unwrap();
        let mut recipe = Recipe::read(&file).unwrap();
        let told = recipe.beside_its_file(&KEYS).unwrap();
        assert!(told.len() == 1 && told[0].contains("Cargo.toml") && told[0].contains("current folder"), "{told:?}");
        recipe.absolute(&KEYS).unwrap();
        let whole = std::path::absolute("Cargo.toml").unwrap();
        assert!(
            recipe.text().contains(&whole.display().to_string()) && recipe.text().contains("\"no/such/run\""),
            "{}",
            recipe.text()
        );
    }
}
