//! `ctk export`: the representation in a file that other programs read.

use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::modality::{Model, Query};

use crate::args::{Export, ModelArgs};
use crate::{Modalities, output};

/// What a model can be given as.
const KNOWN: &str = "give the folder that `ctk train` printed as `run`, or vectors as word2vec, fastText (.bin, .vec), GloVe or \
                     `ctk export` write them";

pub fn run(args: Export, modalities: Modalities) -> Result<()> {
    let model = open(&args.model, modalities)?;
    if !model.formats().contains(&args.format.as_str()) {
        return Err(Error::usage(format!("this model cannot be exported as `{}`", args.format))
            .hint(format!("it can be exported as {}", model.formats().join(", "))));
    }
    model.export(&args.format, &args.out)?;
    output::line(args.out.display())
}

/// The model that `args` means, trained by ctk or in a file of another program, here or on the hub: how every verb but `train` gets one.
pub fn open(args: &ModelArgs, modalities: Modalities) -> Result<Box<dyn Model>> {
    let file = ctk_hub::local(&args.run)?;
    if !file.exists() {
        return Err(Error::usage("there is no run and no file here").at(args.run.display()).hint(KNOWN));
    }
    if file.is_file() {
        return foreign(&file, args, modalities);
    }
    let checkpoint = ctk_core::store::checkpoint::Checkpoint::open(&args.run)?;
    let modality = crate::modality(modalities, &checkpoint.manifest().modality)?;
    modality.open(&checkpoint, &ctk_core::device::device(&args.device.device)?)
}

/// What `args` asks of it, if nothing else is said.
pub fn query(args: &ModelArgs) -> Query {
    Query { data: args.data.clone(), ..Query::default() }
}

fn foreign(file: &Path, args: &ModelArgs, modalities: Modalities) -> Result<Box<dyn Model>> {
    for modality in modalities {
        if let Some(model) = modality.open_file(file)? {
            if !args.show.quiet {
                model.notes().iter().for_each(|note| output::say(format!("note: {note}")));
            }
            return Ok(model);
        }
    }
    Err(Error::usage("this is no file of vectors that ctk knows").at(args.run.display()).hint(KNOWN))
}
