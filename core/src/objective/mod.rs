//! Losses: one file each, with its recipe, its derivation, its value and its gradient, and one line in the list below. A loss owns its
//! state (a queue, a centre) and its parameters (a learned temperature).
//!
//! Losses here derive their gradient in closed form and [`attach`] it to their inputs, so that the value is computed in a
//! numerically safe form, no large intermediate enters candle's graph, and the same code serves one rank or many.

mod contrast;
mod cross_entropy;
#[macro_use]
mod list;
mod negative_sampling;
mod predict;
mod queue;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::embeddings::{EmbeddedGradient, Embeddings, ViewSet};
use crate::nn::params::Param;
use crate::store::checkpoint::{Reader, Writer};
use crate::world::Collective;

pub use cross_entropy::{CrossEntropy, Distillation, UNLABELLED};
pub use negative_sampling::NegativeSampling;
pub use queue::Queue;

losses! {
    ntxent NtXent(NtXentRecipe) "nt-xent" "SimCLR's normalised temperature-scaled cross entropy, with `memory` SimCLRv2's.";
    moco Moco(MocoRecipe) "moco" "MoCo v2: a momentum encoder's keys in a queue.";
    supcon Supcon(SupconRecipe) "supcon" "Supervised contrast: all images of a class are positives. Needs labels.";
    dcl Dcl(DclRecipe) "dcl" "Decoupled contrastive learning: NT-Xent with negatives alone in the denominator.";
    infonce Infonce(InfonceRecipe) "infonce" "InfoNCE both ways: the other side's rows are the candidates, as in CLIP.";
    barlow_twins BarlowTwins(BarlowTwinsRecipe) "barlow-twins" "Barlow Twins: the views' cross-correlation shall be the identity.";
    vicreg Vicreg(VicregRecipe) "vicreg" "VICReg: variance, invariance, covariance.";
    simsiam Simsiam(SimsiamRecipe) "simsiam" "SimSiam: a predictor and a stopped gradient. Needs a `[predictor]`.";
    byol Byol(ByolRecipe) "byol" "BYOL: a predictor against a momentum copy. Needs a `[predictor]`.";
}

/// What a loss has to say of a batch.
pub struct Terms {
    /// The scalar to minimise, without a graph.
    pub loss: Tensor,
    /// Scalars to look at; read back only when logged.
    pub extras: Vec<(&'static str, Tensor)>,
    /// The gradient of every view's embeddings of this rank, by the views' numbers.
    pub gradients: Vec<EmbeddedGradient>,
    /// The gradients of the loss's own parameters, over the batches of all ranks.
    pub parameters: Vec<(Arc<Param>, Tensor)>,
    /// The embeddings of the first view, where the loss compares embeddings: whether they collapse is watched.
    pub embeddings: Option<Tensor>,
    /// Whether nothing was learned of this step, since its loss or a gradient was not finite.
    pub left_out: bool,
}

impl Terms {
    /// Of a learner that differentiates by itself.
    pub fn of(loss: Tensor) -> Terms {
        Terms { loss, extras: Vec::new(), gradients: Vec::new(), parameters: Vec::new(), embeddings: None, left_out: false }
    }
}

/// What a loss is computed from.
pub struct Inputs<'a> {
    /// The online towers' embeddings: leaves of a graph, should the loss be written in candle's operations.
    pub online: &'a Embeddings,
    /// Those of their momentum copy, which no gradient flows to, where a method has one.
    pub target: Option<&'a Embeddings>,
    /// Classes of the samples, where all have one.
    pub labels: Option<&'a [u32]>,
    /// How much of the run lies behind this step, 0 to 1.
    pub progress: f64,
    /// The other ranks.
    pub world: &'a dyn Collective,
}

impl<'a> Inputs<'a> {
    /// The momentum copy's embeddings.
    ///
    /// # Errors
    /// Where the learner has no copy.
    pub fn target(&self) -> Result<&'a Embeddings> {
        self.target.ok_or_else(|| {
            Error::usage("this loss compares with a momentum encoder's keys, and the learner has none")
                .hint("give it a Dense::target")
        })
    }

    /// The terms of `loss`, a scalar whose graph begins at the online embeddings and at the variables of the loss's own
    /// `parameters`: candle differentiates it.
    ///
    /// # Errors
    /// Of candle.
    pub fn terms(&self, loss: &Tensor, parameters: &[&Arc<Param>], extras: Vec<(&'static str, Tensor)>) -> Result<Terms> {
        let store = loss.backward()?;
        let gradient = |of: &Tensor| store.get(of).map(Tensor::detach);
        let mut gradients = vec![EmbeddedGradient::default(); self.online.len()];
        for (number, view) in self.online.views() {
            let key = if view.key.id() == view.query.id() { None } else { gradient(&view.key) };
            gradients[number] = EmbeddedGradient { query: gradient(&view.query), key };
        }
        let own = parameters.iter().filter_map(|param| Some(((*param).clone(), gradient(param.var().as_tensor())?)));
        Ok(Terms { extras, gradients, parameters: own.collect(), ..Terms::of(loss.detach()) })
    }
}

/// Which views a loss reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Of the online towers.
    pub online: ViewSet,
    /// Of the target.
    pub target: ViewSet,
}

/// A loss over the embeddings of a batch.
pub trait Objective {
    /// The loss, the gradient of every embedding and those of the loss's own parameters.
    ///
    /// # Errors
    /// Embeddings, labels or a target that it needs and has not.
    fn loss(&self, inputs: &Inputs) -> Result<Terms>;

    /// Whether it compares embeddings, which may then collapse; a classifier's logits do not.
    fn compares(&self) -> bool {
        true
    }

    /// Which views it reads.
    fn reads(&self) -> Reads {
        Reads::default()
    }

    /// After the optimizer's step: enqueue, move a centre, clamp the loss's own parameters.
    ///
    /// # Errors
    /// A target that it needs and has not.
    fn after_step(&mut self, _: &Inputs) -> Result<()> {
        Ok(())
    }

    /// Saves the state that the loss owns; its parameters are saved with all others.
    ///
    /// # Errors
    /// Of writing.
    fn save(&self, _: &mut Writer) -> Result<()> {
        Ok(())
    }

    /// Restores what [`save`](Objective::save) wrote.
    ///
    /// # Errors
    /// Of reading, and a state of another shape.
    fn load(&mut self, _: &Reader) -> Result<()> {
        Ok(())
    }
}

/// A scalar tensor with the value of `value` and, for each `(x, g)`, the gradient g with respect to x.
///
/// Σ x·g has gradient g; its value is subtracted again, so candle's backward delivers exactly the derived gradient.
pub fn attach(value: &Tensor, gradients: &[(&Tensor, Tensor)]) -> Result<Tensor> {
    let mut out = value.detach();
    for (x, g) in gradients {
        let dot = (*x * g.detach())?.sum_all()?;
        out = (out + (&dot - dot.detach())?)?;
    }
    Ok(out)
}

/// Rows of `x` (n, d) scaled to length 1; a zero row stays finite.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    // The floor keeps √ differentiable at 0; it is far below any row that carries a direction.
    let square = x.sqr()?.sum_keepdim(1)?;
    Ok(x.broadcast_div(&(square + 1e-24)?.sqrt()?)?)
}
