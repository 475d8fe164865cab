//! `ctk preview`: draws the pairs of views that a recipe makes, or writes views for other programs.

use ctk_core::error::Result;

use crate::shared::args::Preview;
use crate::shared::{output, progress, recipe, run};
use crate::{Modalities, modality};

pub fn run(args: Preview, modalities: Modalities) -> Result<()> {
    args.out.iter().try_for_each(|out| args.over.allows(out))?;
    let modality = modality(modalities, &args.modality)?;
    let recipe = recipe::recipe(&args.recipe, modality)?;
    let recipe = run::completed(modality, &recipe)?;
    if let Some(folder) = &args.export {
        let _progress = progress::of_samples(false);
        modality.export_views(&recipe, usize::from(args.views), folder)?;
        return output::line(folder.display());
    }
    let Some(out) = &args.out else { return Ok(()) };
    modality.preview(&recipe, out)?.iter().for_each(|note| output::say(format!("warning: {note}")));
    output::line(out.display())
}
