//! The start of training: fresh weights, the network of another run, or another program's encoder.

use std::path::Path;

use ctk_core::nn::params::{HEAD, MODEL, Params};
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::{Context, Error, Result};

use crate::encoder;
use crate::import::Found;
use crate::recipe::{VisionRecipe, check};
use crate::tower::PREPARATION;

/// Makes `recipe` begin with another program's weights in `file`. With `adopt` the recipe's encoder and its image preparation become those
/// of the file.
///
/// # Errors
/// Weights of a network that ctk does not have.
pub(crate) fn set_weights(recipe: &mut Recipe, file: &Path, adopt: bool) -> Result<()> {
    let meant = Found::open(file)?.recipe()?;
    if adopt {
        ["encoder"].iter().chain(PREPARATION).try_for_each(|key| recipe.take(key, &meant))?;
    }
    let encoder = check(&meant)?.recipe.encoder;
    recipe.set_path(&encoder.key("weights"), file)
}

/// The recipe of a resumed run, without the run or file that it began with, which need not exist any more.
pub(crate) fn without(recipe: &VisionRecipe) -> VisionRecipe {
    let mut recipe = recipe.clone();
    recipe.train.init = None;
    recipe.encoder = recipe.encoder.without_weights();
    recipe
}

/// Notes about the run, or the other program's weights, that `recipe` begins with, if it names one.
///
/// # Errors
/// There is no such run, or it has another network; or the weights are of no known network.
pub(crate) fn notes(recipe: &VisionRecipe) -> Result<Vec<String>> {
    let mut notes = match recipe.encoder.architecture().weights() {
        Some(file) => encoder::recognise(file)?.1.notes(),
        None => Vec::new(),
    };
    let Some(run) = &recipe.train.init else { return Ok(notes) };
    let (_, head) = opened(recipe, run)?;
    let head = if head {
        "its encoder and projection head"
    } else {
        "its encoder; the projection head is new, because its shape differs"
    };
    notes.push(format!("the network begins as that of {}: {head}", run.display()));
    Ok(notes)
}

/// Sets the parameters that `recipe` declared to the values of `run`: the encoder, and the head if it has the same shape.
///
/// # Errors
/// As for [`notes`].
pub(crate) fn begin(recipe: &VisionRecipe, run: &Path, params: &Params) -> Result<()> {
    let (checkpoint, head) = opened(recipe, run)?;
    let place = checkpoint.folder().display();
    params.load_section("encoder", &checkpoint.reader().tensors(MODEL)?).at(&place)?;
    if head { params.load_section("head", &checkpoint.reader().tensors(HEAD)?).at(&place) } else { Ok(()) }
}

/// The checkpoint of `run`, and whether its head has the recipe's shape.
fn opened(recipe: &VisionRecipe, run: &Path) -> Result<(Checkpoint, bool)> {
    let checkpoint = Checkpoint::open(run)?;
    let of = &checkpoint.manifest().modality;
    if of != "vision" {
        return Err(Error::usage(format!("this is a run of {of}, not of vision")).at(run.display()));
    }
    let of = check(&checkpoint.recipe())?.recipe;
    if of.encoder.without_weights() != recipe.encoder.clone().without_weights() {
        return Err(Error::usage("this run has another encoder than the recipe")
            .at(run.display())
            .hint("leave [encoder] as the run has it, or leave out --init"));
    }
    let same = of.task.is_none() && of.head == recipe.head && of.predictor == recipe.predictor;
    Ok((checkpoint, same))
}
