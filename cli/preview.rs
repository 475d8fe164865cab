//! `ctk preview`: a picture of the pairs a recipe makes.

use ctk_core::error::Result;

use crate::args::Preview;
use crate::{Modalities, modality, output, train};

pub fn run(args: Preview, modalities: Modalities) -> Result<()> {
    let modality = modality(modalities, &args.modality)?;
    let recipe = train::recipe(&args.recipe, modality)?;
    modality.plan(&recipe)?;
    modality.preview(&recipe, &args.out)?;
    output::line(args.out.display())
}
