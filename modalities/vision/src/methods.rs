//! Methods by their names, for `--method`. A method takes its loss, head, predictor and optimizer from its recipe in `configs/vision`.

use ctk_core::recipe::Recipe;
use ctk_core::{Error, Result};

/// The names, and the recipe of each.
const METHODS: [(&str, &str); 10] = [
    ("simclr", include_str!("../../../configs/vision/cifar10.toml")),
    ("simclrv2", include_str!("../../../configs/vision/simclrv2-cifar10.toml")),
    ("moco", include_str!("../../../configs/vision/moco-cifar10.toml")),
    ("byol", include_str!("../../../configs/vision/byol-cifar10.toml")),
    ("simsiam", include_str!("../../../configs/vision/simsiam-cifar10.toml")),
    ("barlow-twins", include_str!("../../../configs/vision/barlow-twins-cifar10.toml")),
    ("vicreg", include_str!("../../../configs/vision/vicreg-cifar10.toml")),
    ("dcl", include_str!("../../../configs/vision/dcl-cifar10.toml")),
    ("infonce", include_str!("../../../configs/vision/infonce-cifar10.toml")),
    ("supcon", include_str!("../../../configs/vision/supcon-cifar10.toml")),
];

/// The sections that make a method.
const TAKEN: [&str; 4] = ["loss", "head", "predictor", "optimizer"];

/// Makes `recipe` train by the method `name`.
///
/// # Errors
/// There is no method of this name; or the recipe is not TOML.
pub(crate) fn set(recipe: &mut Recipe, name: &str) -> Result<()> {
    let plain = name.to_lowercase().replace(['_', ' '], "-");
    let Some((name, text)) = METHODS.iter().find(|(known, _)| *known == plain || known.replace('-', "") == plain) else {
        let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        return Err(Error::usage(format!("--method {name}: vision has no method of this name"))
            .hint(format!("it has {}", names.join(", "))));
    };
    let method = Recipe::new(format!("the recipe of {name}"), *text);
    TAKEN.iter().try_for_each(|section| recipe.take(section, &method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{DEFAULT, check};

    #[test]
    fn every_method_changes_any_recipe_into_one_that_is_sound() {
        let configs = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/vision")).unwrap();
        let texts: Vec<String> = configs.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        for (name, own) in METHODS {
            for text in texts.iter().map(String::as_str).chain([DEFAULT]) {
                let mut recipe = Recipe::new("test", text);
                set(&mut recipe, name).unwrap();
                let (found, wanted) = (check(&recipe).unwrap().recipe, check(&Recipe::new("own", own)).unwrap().recipe);
                assert_eq!((found.loss, found.head, found.predictor), (wanted.loss, wanted.head, wanted.predictor), "{name}");
                assert_eq!((found.encoder, found.pairs), {
                    let before = check(&Recipe::new("before", text)).unwrap().recipe;
                    (before.encoder, before.pairs)
                });
            }
        }
        let mut recipe = Recipe::new("test", DEFAULT);
        set(&mut recipe, "Barlow_Twins").unwrap();
        assert_eq!(check(&recipe).unwrap().recipe.loss.name(), "barlow-twins");
        let error = set(&mut recipe, "mocov3").unwrap_err().to_string();
        assert!(error.contains("`mocov3`") || error.contains("mocov3") && error.contains("it has simclr, "), "{error}");
    }
}
