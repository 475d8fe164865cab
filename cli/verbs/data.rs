//! `ctk data check`: reports what a dataset holds and what is wrong with it.

use ctk_core::error::Result;

use crate::shared::args::{Data, RecipeArgs};
use crate::shared::{output, recipe, run};
use crate::{Modalities, modality};

pub fn run(args: Data, modalities: Modalities) -> Result<()> {
    let Data::Check { paths, modality: name, config, set, json } = args;
    let modality = modality(modalities, &name)?;
    let args = RecipeArgs { config, data: paths, set, ..RecipeArgs::default() };
    let found = modality.check_data(&run::completed(modality, &recipe::recipe(&args, modality)?)?)?;
    match json {
        true => output::line(found.figures),
        false => found.lines.iter().try_for_each(output::line),
    }
}
