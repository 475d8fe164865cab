//! Builds what a method trains, from its sections of a recipe: encoder, head, predictor, loss, momentum copy, optimizer.

use candle_core::DType;

use super::dense::Dense;
use crate::device::Device;
use crate::error::Result;
use crate::model::encoder::Encoder;
use crate::model::head::ProjectionHead;
use crate::model::target::Target;
use crate::model::tower::{Siamese, Tower, Towers};
use crate::nn::params::{Params, Scope};
use crate::nn::pass::Groups;
use crate::objective::LossRecipe;
use crate::objective::spec::EmbeddingSpace;
use crate::optim::Optimizer;
use crate::recipe::{DenseTrainRecipe, HeadRecipe, OnNonfinite, OptimizerRecipe, PredictorRecipe, Recipe};
use crate::rng::Key;

/// The sections of a recipe that describe a method.
#[derive(Clone, Copy)]
pub struct Method<'a> {
    /// `[head]`.
    pub head: &'a HeadRecipe,
    /// `[predictor]`, for BYOL and SimSiam.
    pub predictor: Option<&'a PredictorRecipe>,
    /// `[loss.*]`.
    pub loss: &'a LossRecipe,
    /// `[optimizer.*]`.
    pub optimizer: &'a OptimizerRecipe,
    /// `[train]`.
    pub train: &'a DenseTrainRecipe,
}

impl Method<'_> {
    /// Checks every setting of head, predictor, loss and optimizer; errors point at its line in `text`.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self, text: &Recipe) -> Result<()> {
        self.head.check(text)?;
        self.predictor.map_or(Ok(()), |predictor| predictor.check(text))?;
        self.loss.check(self.predictor.is_some(), text)?;
        self.optimizer.check(text)
    }

    /// `encoder`, declared in the scope that it is given, with the recipe's head and predictor; all declared in `params`.
    ///
    /// # Errors
    /// Those of `encoder`.
    pub fn tower<E: Encoder>(&self, encoder: impl FnOnce(Scope) -> Result<E>, params: &mut Params) -> Result<Tower<E>> {
        ["encoder", "head"].into_iter().for_each(|section| params.declare(section));
        let encoder = encoder(params.root().sub("encoder"))?;
        let head = ProjectionHead::new(self.head, encoder.width(), params.root().sub("head"));
        let width = head.width();
        let predictor = self
            .predictor
            .map(|predictor| ProjectionHead::new(&predictor.head(width), width, params.root().sub("head.predictor")));
        Ok(Tower { encoder, head, predictor })
    }

    /// The learner before its first step: one encoder for all views. Its values are fresh ones from the recipe's seed, then changed by
    /// `begin`, for weights that a run begins with; a momentum copy begins with the same values.
    ///
    /// # Errors
    /// Those of `encoder` and `begin`; a state of the loss that cannot be made; an optimizer that cannot train this encoder.
    pub fn learner<E: Encoder>(
        &self,
        encoder: impl Fn(Scope) -> Result<E>,
        begin: impl FnOnce(&Params) -> Result<()>,
        device: &Device,
    ) -> Result<Dense<Siamese<E>>> {
        self.learner_of(encoder, |tower| Siamese { tower }, begin, device)
    }

    /// The same, whose batches go through the towers that `towers` makes of the tower.
    ///
    /// # Errors
    /// As [`learner`](Self::learner).
    pub fn learner_of<E: Encoder, T: Towers>(
        &self,
        encoder: impl Fn(Scope) -> Result<E>,
        towers: impl Fn(Tower<E>) -> T,
        begin: impl FnOnce(&Params) -> Result<()>,
        device: &Device,
    ) -> Result<Dense<T>> {
        let of = |method: &Method, params: &mut Params| {
            let tower = method.tower(&encoder, params)?;
            let width = tower.head.width();
            Ok((towers(tower), width))
        };
        self.learner_by(of, begin, device)
    }

    /// The same for any towers: `declare` declares them, and says how wide an embedding is. The method that it is given has no predictor if
    /// these are the towers of a momentum copy.
    ///
    /// # Errors
    /// As [`learner`](Self::learner).
    pub fn learner_by<T: Towers>(
        &self,
        declare: impl Fn(&Method, &mut Params) -> Result<(T, usize)>,
        begin: impl FnOnce(&Params) -> Result<()>,
        device: &Device,
    ) -> Result<Dense<T>> {
        let (seed, device) = (Key::new(self.train.seed), &device.by(self.train.rules()));
        let mut params = Params::new();
        let (towers, width) = declare(self, &mut params)?;
        let space = EmbeddingSpace { width, dtype: DType::F32 };
        let objective = self.loss.build(&space, params.root().sub("loss"))?;
        let optimizer = Optimizer::new(self.optimizer);
        optimizer.check(&params)?;
        params.materialise(seed, DType::F32, device)?;
        begin(&params)?;
        let needs = self.loss.needs();
        let copy = |momentum| {
            // Nothing is predicted from the copy's embeddings.
            let mut own = Params::new();
            let (towers, _) = declare(&Method { predictor: None, ..*self }, &mut own)?;
            own.materialise(seed, DType::F32, device)?;
            Target::new(towers, own, momentum, &params)
        };
        let target = needs.momentum.map(copy).transpose()?;
        Ok(Dense {
            precision: self.train.precision,
            recompute: self.train.recompute,
            groups: self.train.bn_groups.map_or(needs.groups, Groups::Each),
            leaves_out: self.train.on_nonfinite == OnNonfinite::Skip,
            clip: self.train.clip,
            target,
            ..Dense::new(towers, objective, params, optimizer)
        })
    }
}
