//! The recipe that arguments mean.

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;

use super::args::RecipeArgs;

/// The recipe that the arguments mean.
pub fn recipe(args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    let recipe = match &args.config {
        Some(file) => Recipe::read(file)?,
        None => Recipe::new(format!("the default {} recipe", modality.name()), modality.recipe(args.data.as_deref())?),
    };
    changed(recipe, args, modality)
}

/// `recipe` with the changes that the arguments ask for.
pub fn changed(mut recipe: Recipe, args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    if let Some(data) = &args.data {
        modality.set_data(&mut recipe, data)?;
    }
    if args.fast {
        if modality.fast().is_empty() {
            return Err(Error::usage(format!("{} has no faster way to train", modality.name())).hint("leave out --fast"));
        }
        modality.fast().iter().try_for_each(|(key, value)| recipe.set(key, value))?;
    }
    set(&mut recipe, &args.set)?;
    Ok(recipe)
}

/// Carries out `--set`s.
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
