//! `ctk export`: the representation in a file that other programs read.

use ctk_core::error::{Error, Result};

use crate::Modalities;
use crate::shared::args::Export;
use crate::shared::{model, output};

pub fn run(args: Export, modalities: Modalities) -> Result<()> {
    let model = model::open(&args.model, modalities)?;
    if !model.formats().contains(&args.format.as_str()) {
        return Err(Error::usage(format!("this model cannot be exported as `{}`", args.format))
            .hint(format!("it can be exported as {}", model.formats().join(", "))));
    }
    model.export(&args.format, &args.out)?;
    output::line(args.out.display())
}
