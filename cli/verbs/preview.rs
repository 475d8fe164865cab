//! `ctk preview`: draws the pairs of views that a recipe makes.

use ctk_core::error::Result;

use crate::shared::args::Preview;
use crate::shared::{output, recipe, run};
use crate::{Modalities, modality};

pub fn run(args: Preview, modalities: Modalities) -> Result<()> {
    args.over.allows(&args.out)?;
    let modality = modality(modalities, &args.modality)?;
    let recipe = recipe::recipe(&args.recipe, modality)?;
    let recipe = run::completed(modality, &recipe)?;
    modality.preview(&recipe, &args.out)?.iter().for_each(|note| output::say(format!("warning: {note}")));
    output::line(args.out.display())
}
