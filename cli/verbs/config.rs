//! `ctk config`: checks, prints and describes recipes.

use std::path::{Path, PathBuf};

use ctk_core::error::{Error, Result};
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use serde_json::json;

use crate::shared::args::Config;
use crate::shared::{keys, output, recipe};
use crate::{Modalities, modality};

pub fn run(args: Config, modalities: Modalities) -> Result<()> {
    match args {
        Config::Check { modality: name, files, data, json } => check(modality(modalities, &name)?, &files, data.as_deref(), json),
        Config::Show { modality: name, recipe: args } => {
            let modality = modality(modalities, &name)?;
            let recipe = recipe::recipe(&args, modality)?;
            modality.plan(&recipe)?;
            output::bytes(recipe.text().as_bytes())
        }
        Config::Keys { modality: name, prefix, json } => {
            print(modality(modalities, &name)?, prefix.as_deref().unwrap_or(""), json)
        }
        Config::Schema { modality: name } => output::line(serde_json::to_string_pretty(&modality(modalities, &name)?.schema())?),
    }
}

/// Prints the keys that begin with `prefix`: a line with name, type and default, and the description below.
fn print(modality: &dyn Modality, prefix: &str, json: bool) -> Result<()> {
    let chosen: Vec<_> = keys::keys(modality).into_iter().filter(|key| key.name.starts_with(prefix)).collect();
    if chosen.is_empty() {
        let hint = match keys::meant(modality, prefix) {
            meant if meant.is_empty() => "without a prefix all keys are printed".to_string(),
            meant => format!("there is {}", meant.join(", ")),
        };
        return Err(Error::usage(format!("no key of {} begins with `{prefix}`", modality.name())).hint(hint));
    }
    if json {
        let of = |key: &keys::Key| json!({ "key": key.name, "holds": key.holds, "default": key.default, "meaning": key.meaning });
        return output::line(json!({ "keys": chosen.iter().map(of).collect::<Vec<_>>() }));
    }
    for key in chosen {
        let default = if key.default.is_null() { String::new() } else { format!(", by default {}", key.default) };
        output::line(format!("{}: {}{default}", key.name, key.holds))?;
        if !key.meaning.is_empty() {
            output::line(format!("    {}", key.meaning))?;
        }
    }
    Ok(())
}

/// Checks each recipe; with `data` it also says what a run by it would be.
fn check(modality: &dyn Modality, files: &[PathBuf], data: Option<&Path>, json: bool) -> Result<()> {
    let mut told = Vec::new();
    for file in files {
        let mut recipe = Recipe::read(file)?;
        modality.plan(&recipe)?;
        let mut about = Vec::new();
        if let Some(data) = data {
            recipe.beside_its_file(&modality.paths())?;
            modality.set_data(&mut recipe, data)?;
            modality.complete(&mut recipe)?;
            about = modality.about(&recipe)?;
        }
        if !json {
            output::line(format!("{}: ok", file.display()))?;
            about.iter().try_for_each(|line| output::line(format!("  {line}")))?;
        }
        told.push(json!({ "file": file.display().to_string(), "about": about }));
    }
    if json { output::line(json!({ "recipes": told })) } else { Ok(()) }
}
