//! The network of a recipe, and the learner that trains it.

use candle_core::DType;
use ctk_core::model::tower::{Siamese, Tower};
use ctk_core::nn::params::Params;
use ctk_core::rng::Key;
use ctk_core::train::dense::Dense;
use ctk_core::train::method::Method;
use ctk_core::{Device, Result};

use crate::encoder::{Architecture, ImageEncoder};
use crate::init;
use crate::recipe::VisionRecipe;

/// Any encoder, with its head and predictor.
pub(crate) type ImageTower = Tower<Box<dyn ImageEncoder>>;

/// The tower of a recipe and its parameters, with the values that training starts from: fresh ones drawn from the recipe's seed, and those
/// of the encoder's weights file if the recipe names one.
pub(crate) fn build(recipe: &VisionRecipe, device: &Device) -> Result<(Params, ImageTower)> {
    let mut params = Params::new();
    let encoder = recipe.encoder.architecture();
    let tower = declared(encoder, recipe, &mut params)?;
    params.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
    begun(encoder, recipe, &params)?;
    Ok((params, tower))
}

/// The tower of a recipe with zeros in place of values, which are loaded next.
pub(crate) fn blank(recipe: &VisionRecipe, device: &Device) -> Result<(Params, ImageTower)> {
    let mut params = Params::new();
    let tower = declared(recipe.encoder.architecture(), recipe, &mut params)?;
    params.blank(DType::F32, device)?;
    Ok((params, tower))
}

/// Gives parameters the values of the weights that the recipe names, if it names any.
fn begun(encoder: &dyn Architecture, recipe: &VisionRecipe, params: &Params) -> Result<()> {
    encoder.weights().map_or(Ok(()), |file| encoder.load(file, params))?;
    recipe.train.init.as_ref().map_or(Ok(()), |run| init::begin(recipe, run, params))
}

/// The sections of the recipe that describe its method.
pub(crate) fn method(recipe: &VisionRecipe) -> Method<'_> {
    let VisionRecipe { head, loss, optimizer, train, .. } = recipe;
    Method { head, predictor: recipe.predictor.as_ref(), loss, optimizer, train }
}

/// `encoder` with the recipe's head and predictor (if it has one), declared in `params`.
pub(crate) fn declared(encoder: &dyn Architecture, recipe: &VisionRecipe, params: &mut Params) -> Result<ImageTower> {
    method(recipe).tower(|scope| encoder.build(scope), params)
}

/// The learner of `ctk train vision`.
pub(crate) type Learner = Dense<Siamese<Box<dyn ImageEncoder>>>;

/// The learner of a recipe, before its first step.
pub(crate) fn learner(recipe: &VisionRecipe, device: &Device) -> Result<Learner> {
    learner_of(recipe.encoder.architecture(), recipe, device)
}

/// The learner of a recipe with `encoder` in place of the recipe's own.
pub(crate) fn learner_of(encoder: &dyn Architecture, recipe: &VisionRecipe, device: &Device) -> Result<Learner> {
    method(recipe).learner(|scope| encoder.build(scope), |params| begun(encoder, recipe, params), device)
}
