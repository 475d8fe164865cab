//! Opens what fine-tuning begins with: the encoder of a run, that of another program's folder, or a fresh network like either.

use std::path::Path;

use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Result};

use super::super::folder;
use super::super::learner::DESCRIPTION;
use super::super::network::{Described, Network};
use super::super::recipe::SentencesRecipe;
use super::super::start::Start;
use super::recipe::FinetuneRecipe;

/// Whether the encoder at `from` is a static embedding. Of a run only its description is read.
///
/// # Errors
/// There is neither a run of sentences nor an encoder's folder.
pub(super) fn is_table(from: &Path) -> Result<bool> {
    let place = folder::local(from)?;
    let described = match folder::is_folder(&place) {
        true => Start::of(from).at(from.display())?.described,
        false => Described::from_bytes(&Checkpoint::open(&place)?.reader().bytes(DESCRIPTION)?).at(from.display())?,
    };
    Ok(matches!(described.network, Network::Table(_)))
}

/// The encoder that `task` begins with. `texts` are all training texts, on which a fresh tokenizer is trained.
///
/// # Errors
/// There is neither a run of sentences nor an encoder's folder; a length that the network cannot read.
pub(super) fn start<'t>(
    recipe: &SentencesRecipe,
    text: &Recipe,
    task: &FinetuneRecipe,
    texts: impl FnOnce() -> Vec<&'t str>,
) -> Result<Start> {
    let Some(from) = &task.from else { return Start::new(recipe, text, texts) };
    let start = Start::of(from).at(from.display())?;
    let tensors = start.tensors.filter(|_| !task.scratch);
    Start { tensors, ..start }.with_length(recipe, text)
}
