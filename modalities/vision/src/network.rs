//! The network of a recipe, and the learner that trains it.

use candle_core::DType;
use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::head::ProjectionHead;
use ctk_core::model::target::Target;
use ctk_core::model::tower::{Siamese, Tower};
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Groups;
use ctk_core::objective::Objective;
use ctk_core::objective::spec::EmbeddingSpace;
use ctk_core::optim::Optimizer;
use ctk_core::recipe::OnNonfinite;
use ctk_core::rng::Key;
use ctk_core::train::dense::Dense;
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
    started(encoder, recipe, &params, device)?;
    Ok((params, tower))
}

/// The tower of a recipe with fresh values, even if the recipe names weights.
pub(crate) fn fresh(recipe: &VisionRecipe, device: &Device) -> Result<(Params, ImageTower)> {
    let mut params = Params::new();
    let tower = declared(recipe.encoder.architecture(), recipe, &mut params)?;
    params.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
    Ok((params, tower))
}

/// Gives every declared parameter its initial value.
fn started(encoder: &dyn Architecture, recipe: &VisionRecipe, params: &Params, device: &Device) -> Result<()> {
    params.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
    encoder.weights().map_or(Ok(()), |file| encoder.load(file, params))?;
    recipe.train.init.as_ref().map_or(Ok(()), |run| init::begin(recipe, run, params))
}

/// `encoder` with the recipe's head and predictor (if it has one), declared in `params`.
pub(crate) fn declared(encoder: &dyn Architecture, recipe: &VisionRecipe, params: &mut Params) -> Result<ImageTower> {
    ["encoder", "head"].into_iter().for_each(|section| params.declare(section));
    let encoder = encoder.build(params.root().sub("encoder"))?;
    let head = ProjectionHead::new(&recipe.head, encoder.width(), params.root().sub("head"));
    let predictor = recipe.predictor.as_ref().map(|predictor| {
        let width = head.width();
        ProjectionHead::new(&predictor.head(width), width, params.root().sub("head.predictor"))
    });
    Ok(Tower { encoder, head, predictor })
}

/// The learner of `ctk train vision`.
pub(crate) type Learner = Dense<Siamese<Box<dyn ImageEncoder>>>;

/// The learner of a recipe, before its first step.
pub(crate) fn learner(recipe: &VisionRecipe, device: &Device) -> Result<Learner> {
    learner_of(recipe.encoder.architecture(), recipe, device)
}

/// The learner of a recipe with `encoder` in place of the recipe's own.
pub(crate) fn learner_of(encoder: &dyn Architecture, recipe: &VisionRecipe, device: &Device) -> Result<Learner> {
    let device = &device.by(recipe.train.rules());
    let mut params = Params::new();
    let tower = declared(encoder, recipe, &mut params)?;
    let objective = objective(recipe, tower.head.width(), &mut params)?;
    started(encoder, recipe, &params, device)?;
    let needs = recipe.loss.needs();
    let siamese = |tower| Siamese { tower };
    let copy = |momentum| {
        // The momentum copy needs no predictor.
        let mut own = Params::new();
        let tower = declared(encoder, &VisionRecipe { predictor: None, ..recipe.clone() }, &mut own)?;
        own.materialise(Key::new(recipe.train.seed), DType::F32, device)?;
        Target::new(siamese(tower), own, momentum, &params)
    };
    let target = needs.momentum.map(copy).transpose()?;
    let groups = recipe.train.bn_groups.map_or(needs.groups, Groups::Each);
    let learner = Dense::new(siamese(tower), objective, params, Optimizer::new(&recipe.optimizer));
    let leaves_out = recipe.train.on_nonfinite == OnNonfinite::Skip;
    Ok(Dense { precision: recipe.train.precision, recompute: recipe.train.recompute, groups, target, leaves_out, ..learner })
}

/// The recipe's loss over embeddings of `width` values; its own parameters, if it has any, are declared in `params`.
fn objective(recipe: &VisionRecipe, width: usize, params: &mut Params) -> Result<Box<dyn Objective>> {
    let space = EmbeddingSpace { width, dtype: DType::F32 };
    recipe.loss.build(&space, params.root().sub("loss"))
}
