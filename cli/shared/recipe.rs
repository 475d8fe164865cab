//! The recipe that the arguments name, with the changes that they make.

use std::path::PathBuf;

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;

use super::args::RecipeArgs;
use super::{keys, output};

/// The recipe that the arguments name, changed as they say.
pub fn recipe(args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    let recipe = match &args.config {
        Some(file) => {
            let mut recipe = Recipe::read(file)?;
            recipe.beside_its_file(modality.paths())?.iter().for_each(|told| output::say(format!("note: {told}")));
            recipe
        }
        None => Recipe::new(
            format!("the default {} recipe", modality.name()),
            modality.recipe(args.data.first().map(PathBuf::as_path))?,
        ),
    };
    changed(recipe, args, modality)
}

/// `recipe` with the changes of `--set`, `--fast` and `--data`.
pub fn changed(mut recipe: Recipe, args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    if let [data, more @ ..] = &args.data[..] {
        modality.set_data(&mut recipe, data)?;
        if !more.is_empty() {
            let all: Vec<String> = args.data.iter().map(|path| path.display().to_string()).collect();
            recipe.set("data.path", &serde_json::json!(all).to_string())?;
        }
    }
    if args.fast {
        if modality.fast().is_empty() {
            return Err(Error::usage(format!("{} has no faster way to train", modality.name())).hint("leave out --fast"));
        }
        modality.fast().iter().try_for_each(|(key, value)| recipe.set(key, value))?;
    }
    known(&args.set, modality)?;
    set(&mut recipe, &args.set)?;
    Ok(recipe)
}

/// Checks that each `--set` begins with a section that the modality's recipe has.
fn known(assignments: &[String], modality: &dyn Modality) -> Result<()> {
    let schema = modality.schema();
    let has = |section: &str| schema["properties"].get(section).is_some();
    for key in assignments.iter().filter_map(|assignment| Some(assignment.split_once('=')?.0.trim())) {
        if has(key.split('.').next().unwrap_or_default()) {
            continue;
        }
        let error = Error::usage(format!("--set {key}: a recipe of {} has no such key", modality.name()));
        return Err(match keys::meant(modality, key) {
            meant if meant.is_empty() => error.hint(format!("`ctk config keys {}` prints every key", modality.name())),
            meant => error.hint(format!("did you mean {}?", meant.join(" or "))),
        });
    }
    Ok(())
}

/// Applies the `--set` arguments.
pub fn set(recipe: &mut Recipe, assignments: &[String]) -> Result<()> {
    for assignment in assignments {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            Error::usage(format!("--set {assignment}: there is no `=`"))
                .hint("write it as section.key=value, as in --set train.batch=256")
        })?;
        recipe.set(key.trim(), value.trim())?;
    }
    Ok(())
}
