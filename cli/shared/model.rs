//! Opens the trained model that the arguments name.

use std::borrow::Cow;
use std::path::Path;

use ctk_core::error::{Error, Result};
use ctk_core::eval::is_features;
use ctk_core::modality::{Model, Query};
use ctk_core::opened;
use ctk_core::store::checkpoint::Checkpoint;

use super::args::ModelArgs;
use super::stored::Stored;
use super::{device, output};
use crate::Modalities;

/// The kinds of model that a path may name.
const KNOWN: &str = "give the folder that `ctk train` printed as `run`, or vectors as word2vec, fastText (.bin, .vec), GloVe or \
                     `ctk export` write them, or features as `ctk embed` does, or the folder of an encoder of sentences, of \
                     CLIP, or of SigLIP";

/// Opens the model that `args` names: a run, or a file of another program, on this machine or on the hub. Every verb but `train` uses this.
pub fn open(args: &ModelArgs, modalities: Modalities) -> Result<Box<dyn Model>> {
    let mut model = opened_at(args, modalities)?;
    model.compute_in(args.compute.into()).map_err(|e| e.at("--compute"))?;
    model.notes().iter().filter(|_| !args.show.quiet).for_each(|note| output::note(note));
    Ok(model)
}

fn opened_at(args: &ModelArgs, modalities: Modalities) -> Result<Box<dyn Model>> {
    // A modality itself knows which files of a repository it needs.
    let repository = ctk_hub::is_repository(&args.run);
    let file = if repository { Cow::Borrowed(args.run.as_path()) } else { ctk_hub::local(&args.run)? };
    if !repository {
        if !file.exists() {
            return Err(Error::usage("there is no run and no file here").at(args.run.display()).hint(KNOWN));
        }
        opened::check(&file)?;
    }
    if is_features(&file) {
        return Ok(Box::new(Stored::open(&file)?));
    }
    if let Some(model) = foreign(&file, args, modalities)? {
        return Ok(model);
    }
    if file.is_file() || repository {
        return Err(Error::usage("this is neither a file of vectors nor an encoder that ctk knows")
            .at(args.run.display())
            .hint(KNOWN));
    }
    let checkpoint = Checkpoint::open(&args.run)?;
    let modality = crate::modality(modalities, &checkpoint.manifest().modality)?;
    modality.open(&checkpoint, &device::open(&args.device.device, modality, args.show.quiet)?)
}

/// The query for the samples that `args` names, with the defaults for everything else.
pub fn query(args: &ModelArgs) -> Query {
    Query { data: args.data.clone(), ..Query::default() }
}

/// The model that another program wrote into `path`, if a modality reads such a file or folder.
fn foreign(path: &Path, args: &ModelArgs, modalities: Modalities) -> Result<Option<Box<dyn Model>>> {
    for modality in modalities {
        let device = || device::open(&args.device.device, *modality, args.show.quiet);
        if let Some(model) = modality.open_file(path, &device)? {
            return Ok(Some(model));
        }
    }
    Ok(None)
}
