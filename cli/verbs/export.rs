//! `ctk export`: writes a trained model in a format that other programs read.

use ctk_core::error::{Error, Result};

use crate::Modalities;
use crate::shared::args::Export;
use crate::shared::{model, output};

pub fn run(args: Export, modalities: Modalities) -> Result<()> {
    args.over.allows(&args.out)?;
    if args.model.compute.stated().is_some() {
        return Err(Error::usage("--compute: an export has the weights as they are, and computes nothing").hint("leave it out"));
    }
    let model = model::open(&args.model, modalities)?;
    if !model.formats().contains(&args.format.as_str()) {
        let error = Error::usage(format!("this model cannot be exported as `{}`", args.format));
        return Err(match model.formats() {
            [] => {
                error.hint("of a file of features, give the run that they come from; of a run, its checkpoint holds the tensors")
            }
            formats => error.hint(format!("it can be exported as {}", formats.join(", "))),
        });
    }
    model.exported(&args.format, &args.out).iter().try_for_each(|out| args.over.allows(out))?;
    let notes = match args.encoder_only {
        true => model.export_encoder(&args.format, &args.out)?,
        false => model.export(&args.format, &args.out)?,
    };
    notes.iter().for_each(|note| output::say(format!("note: {note}")));
    output::line(args.out.display())
}
