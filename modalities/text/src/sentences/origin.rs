//! What is at a path that names an encoder: another program's folder, a run of sentences, or word vectors.

use std::borrow::Cow;
use std::path::Path;

use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Error, Result};

use super::NAME;
use super::folder;
use super::learner::DESCRIPTION;
use super::network::{Described, Network};
use crate::{vectors, word2vec};

/// What is at a path.
pub enum Origin<'a> {
    /// The local folder of another program's encoder.
    Folder(Cow<'a, Path>),
    /// A run of sentences.
    Run(Checkpoint),
    /// A file of word vectors, by its first bytes.
    Vectors(Cow<'a, Path>),
    /// A run of word2vec.
    Words(Checkpoint),
}

/// Whether another program's encoder of texts is at `path`, which a task may begin with.
///
/// # Errors
/// A file of word vectors, which no task trains; files that cannot be downloaded.
pub fn is_foreign(path: &Path) -> Result<bool> {
    if folder::at(path)?.is_some() {
        return Ok(true);
    }
    // Networks of other modalities are safetensors, too.
    match path.is_file().then(|| vectors::look(path)).transpose()?.flatten() {
        None | Some(vectors::Format::Safetensors) => Ok(false),
        Some(_) => Err(Error::usage("word vectors have no network that could be fine-tuned or distilled")
            .at(path.display())
            .hint("`ctk train sentences --init` begins with them, and makes a run of a static embedding")),
    }
}

const KNOWN: &str = "give a run of sentences, the folder of an encoder (sentence-transformers, transformers, open_clip, model2vec), or word vectors";

impl<'a> Origin<'a> {
    /// Looks at `path`, which may be on the hub.
    ///
    /// # Errors
    /// There is none of these; files that cannot be downloaded; a damaged checkpoint.
    pub fn of(path: &'a Path) -> Result<Origin<'a>> {
        if let Some(folder) = folder::at(path)? {
            return Ok(Origin::Folder(folder));
        }
        let file = ctk_hub::local(path)?;
        if file.is_file() {
            return match vectors::look(&file)? {
                Some(_) => Ok(Origin::Vectors(file)),
                None => Err(Error::usage("this is no file of word vectors").at(path.display()).hint(KNOWN)),
            };
        }
        if file.is_dir() && !Checkpoint::is_at(&file) {
            return Err(Error::usage("this folder has neither an encoder of texts nor a checkpoint")
                .at(path.display())
                .hint(KNOWN));
        }
        let checkpoint = Checkpoint::open(&file)?;
        match checkpoint.manifest().modality.as_str() {
            NAME => Ok(Origin::Run(checkpoint)),
            word2vec::NAME => Ok(Origin::Words(checkpoint)),
            of => Err(Error::usage(format!("this is a run of {of}, not of {NAME}")).at(path.display())),
        }
    }

    /// Whether the encoder is a static embedding. Only a description is read: weights are not.
    ///
    /// # Errors
    /// A damaged file.
    pub fn is_table(&self) -> Result<bool> {
        match self {
            Origin::Folder(folder) => folder::Folder::is_table(folder),
            Origin::Run(checkpoint) => {
                let described = Described::from_bytes(&checkpoint.reader().bytes(DESCRIPTION)?)?;
                Ok(matches!(described.network, Network::Table(_)))
            }
            Origin::Vectors(_) | Origin::Words(_) => Ok(true),
        }
    }
}
