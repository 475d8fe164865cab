//! Builds the recipe of a command from its arguments.
//!
//! The recipe is read from `--config`, or else is the modality's default for the data. Then `--data`, `--fast`, `--method` and `--set`
//! change it, in this order. A `--set` key that the modality's recipe does not have is an error that suggests similar keys.

use std::path::PathBuf;

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;

use super::args::RecipeArgs;
use super::{keys, output};

/// The recipe of `--config`, or the default, changed as the arguments say.
pub fn recipe(args: &RecipeArgs, modality: &dyn Modality) -> Result<Recipe> {
    let recipe = match &args.config {
        Some(file) => {
            let mut recipe = Recipe::read(file)?;
            // Relative paths in a recipe are relative to its folder; notes name those that exist only below the current folder.
            recipe.beside_its_file(&modality.paths())?.iter().for_each(|told| output::say(format!("note: {told}")));
            recipe
        }
        None => Recipe::new(
            format!("the default {} recipe", modality.name()),
            modality.recipe(args.data.first().map(PathBuf::as_path))?,
        ),
    };
    changed(recipe, args, modality)
}

/// `recipe` with the changes of `--data`, `--fast`, `--method` and `--set`.
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
    if let Some(method) = &args.method {
        modality.set_method(&mut recipe, method)?;
    }
    known(&args.set, modality)?;
    set(&mut recipe, &args.set)?;
    Ok(recipe)
}

/// Checks that the modality's recipe has the key of each `--set`; all that it has not are named at once. A choice, such as that of a loss,
/// is left to the recipe's own check.
fn known(assignments: &[String], modality: &dyn Modality) -> Result<()> {
    let all = keys::keys(modality);
    let below = |table: &str, name: &str| name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    let mut wrong = Vec::new();
    for key in assignments.iter().filter_map(|assignment| Some(assignment.split_once('=')?.0.trim())) {
        let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
        let beside = all.iter().filter(|known| below(table, &known.name)).map(|known| (&known.name[table.len() + 1..], known));
        let is_table = |(name, known): (&str, &keys::Key)| name.contains('.') || known.holds.ends_with("table");
        let choice = beside.clone().next().is_some() && beside.clone().all(is_table);
        if choice || all.iter().any(|known| known.name == key || below(key, &known.name) || below(&known.name, key)) {
            continue;
        }
        let spelled = |(name, _): &(&str, &keys::Key)| !name.contains('.') && strsim::jaro_winkler(name, last) > 0.75;
        let like = beside.filter(spelled).map(|(_, known)| known.name.clone());
        let mut meant: Vec<String> = like.collect();
        if meant.is_empty() {
            meant = keys::meant(modality, key);
        }
        wrong.push((key, meant));
    }
    let Some((first, _)) = wrong.first() else { return Ok(()) };
    let named: Vec<String> = wrong.iter().map(|(key, _)| format!("--set {key}")).collect();
    let keys = if wrong.len() == 1 { "key" } else { "keys" };
    let error = Error::usage(format!("{}: a recipe of {} has no such {keys}", named.join(", "), modality.name()));
    let meant: Vec<String> = wrong.iter().flat_map(|(_, meant)| meant.clone()).collect();
    let table = first.split('.').next().filter(|table| all.iter().any(|known| below(table, &known.name)));
    Err(match meant.is_empty() {
        true => error.hint(format!(
            "`ctk config keys {}{}` prints every key",
            modality.name(),
            table.map_or(String::new(), |table| format!(" {table}"))
        )),
        false => error.hint(format!("did you mean {}?", meant.join(" or "))),
    })
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
