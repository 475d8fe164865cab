//! `ctk export`: the representation in a file that other programs read.

use ctk_core::error::{Error, Result};

use crate::args::{Export, ModelArgs};
use crate::{Modalities, output};

pub fn run(args: Export, modalities: Modalities) -> Result<()> {
    let model = open(&args.model, modalities)?;
    if !model.formats().contains(&args.format.as_str()) {
        return Err(Error::usage(format!("this model cannot be exported as `{}`", args.format))
            .hint(format!("it can be exported as {}", model.formats().join(", "))));
    }
    model.export(&args.format, &args.out)?;
    output::line(args.out.display())
}

/// The trained model that `args` means: how every verb but `train` gets one.
pub fn open(args: &ModelArgs, modalities: Modalities) -> Result<Box<dyn ctk_core::modality::Model>> {
    let checkpoint = ctk_core::checkpoint::Checkpoint::open(&args.run)?;
    let modality = crate::modality(modalities, &checkpoint.manifest().modality)?;
    modality.open(&checkpoint, &ctk_core::device::device(&args.device.device)?)
}
