//! Encoders of sentences.
//!
//! - [`encoder`] is one as it is used, [`tokenizing`] how texts become tokens, `model` what verbs know of it.
//! - [`folder`] opens the folders that sentence-transformers, transformers and model2vec write; [`table`] is static embeddings.

pub mod encoder;
pub mod folder;
mod model;
pub mod table;
#[cfg(test)]
mod tests;
pub mod tokenizing;

use std::path::Path;

use ctk_core::modality::{Job, Modality};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Device, Error, Result, modality};

use folder::Folder;
use model::Model;

/// `ctk train sentences`.
pub struct Sentences;

impl Modality for Sentences {
    fn name(&self) -> &'static str {
        "sentences"
    }

    fn recipe(&self, _data: Option<&Path>) -> Result<String> {
        Err(Error::new("not yet"))
    }

    fn schema(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn plan(&self, _recipe: &Recipe) -> Result<Box<dyn Job>> {
        Err(Error::new("not yet"))
    }

    fn open(&self, _from: &Checkpoint, _device: &Device) -> Result<Box<dyn modality::Model>> {
        Err(Error::new("not yet"))
    }

    fn open_file(&self, path: &Path, device: &dyn Fn() -> Result<Device>) -> Result<Option<Box<dyn modality::Model>>> {
        if !path.is_dir() || !folder::is_folder(path) {
            return Ok(None);
        }
        let mut folder = Folder::read(path)?;
        let encoder = folder.encoder(&device()?).at(path.display())?;
        Ok(Some(Box::new(Model { encoder, notes: std::mem::take(&mut folder.notes) })))
    }
}
