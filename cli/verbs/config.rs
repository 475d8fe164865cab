//! `ctk config`: recipes checked, shown, described.

use ctk_core::error::Result;
use ctk_core::recipe::Recipe;

use crate::shared::args::Config;
use crate::shared::{output, recipe};
use crate::{Modalities, modality};

pub fn run(args: Config, modalities: Modalities) -> Result<()> {
    match args {
        Config::Check { modality: name, files } => {
            let modality = modality(modalities, &name)?;
            for file in files {
                modality.plan(&Recipe::read(&file)?)?;
                output::line(format!("{}: ok", file.display()))?;
            }
            Ok(())
        }
        Config::Show { modality: name, recipe: args } => {
            let modality = modality(modalities, &name)?;
            let recipe = recipe::recipe(&args, modality)?;
            modality.plan(&recipe)?;
            output::bytes(recipe.text().as_bytes())
        }
        Config::Schema { modality: name } => output::line(serde_json::to_string_pretty(&modality(modalities, &name)?.schema())?),
    }
}
