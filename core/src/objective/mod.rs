//! Losses: one file for each, with its recipe, derivation, value and gradient, and one line in the list below. A loss owns its state (a
//! queue, a centre) and its parameters (a learned temperature).
//!
//! Most losses derive their gradient in closed form and [`attach`] it to their inputs. So the value is computed in a numerically safe form,
//! no large intermediate enters candle's graph, and the same code serves one rank or many.

mod contrast;
mod cross_entropy;
#[macro_use]
mod list;
mod matryoshka;
mod negative_sampling;
mod predict;
mod queue;
mod sharpness;
pub mod spec;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Tensor};
use ctk_kernels::Real;

use crate::data::known::Known;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::embeddings::{EmbeddedGradient, Embeddings, ViewSet};
use crate::nn::params::Param;
use crate::nn::tensors;
use crate::store::checkpoint::{Reader, Writer};
use crate::world::Collective;

pub use cross_entropy::{CrossEntropy, Distillation, UNLABELLED};
pub use matryoshka::MatryoshkaRecipe;
pub use negative_sampling::NegativeSampling;
pub use queue::Queue;

losses! {
    ntxent NtXent(NtXentRecipe) "nt-xent" "SimCLR's normalised temperature-scaled cross entropy, with `memory` SimCLRv2's.";
    moco Moco(MocoRecipe) "moco" "MoCo v2: a momentum encoder's keys in a queue.";
    supcon Supcon(SupconRecipe) "supcon" "Supervised contrast: all images of a class are positives. Needs labels.";
    dcl Dcl(DclRecipe) "dcl" "Decoupled contrastive learning: NT-Xent with only negatives in the denominator.";
    infonce Infonce(InfonceRecipe) "infonce" "InfoNCE both ways: the other side's rows are the candidates, as in CLIP.";
    siglip Siglip(SiglipRecipe) "siglip" "SigLIP: each pair of the batch is judged by itself, by a sigmoid.";
    ranking Ranking(RankingRecipe) "ranking" "Multiple negatives ranking: the positive among all candidates, with hard negatives.";
    cosent Cosent(CosentRecipe) "cosent" "CoSENT: pairs with higher scores should be more similar. Needs scores.";
    cosine_similarity CosineSimilarity(CosineSimilarityRecipe) "cosine-similarity" "The cosine of a pair should be its score. Needs scores.";
    mse Mse(MseRecipe) "mse" "Distillation: the squared distance to a teacher's embeddings.";
    kl Kl(KlRecipe) "kl" "Distillation: similarities like those of a teacher's embeddings.";
    barlow_twins BarlowTwins(BarlowTwinsRecipe) "barlow-twins" "Barlow Twins: the cross-correlation of the views should be the identity.";
    vicreg Vicreg(VicregRecipe) "vicreg" "VICReg: variance, invariance, covariance.";
    simsiam Simsiam(SimsiamRecipe) "simsiam" "SimSiam: a predictor and a stopped gradient. Needs a `[predictor]`.";
    byol Byol(ByolRecipe) "byol" "BYOL: a predictor against a momentum copy. Needs a `[predictor]`.";
}

/// The value of a loss on a batch, and its gradients.
pub struct Terms {
    /// The scalar to minimise, without a graph.
    pub loss: Tensor,
    /// Scalars to log; they are read back only when they are logged.
    pub extras: Vec<(&'static str, Tensor)>,
    /// The gradient of the embeddings of every view on this rank, in the order of the views.
    pub gradients: Vec<EmbeddedGradient>,
    /// The gradients of the loss's own parameters, summed over the batches of all ranks.
    pub parameters: Vec<(Arc<Param>, Tensor)>,
    /// The embeddings of the first view, if the loss compares embeddings; they are watched for collapse.
    pub embeddings: Option<Tensor>,
    /// Whether the step was skipped because its loss or a gradient was not finite.
    pub left_out: bool,
}

impl Terms {
    /// The terms of a learner that differentiates by itself.
    pub fn of(loss: Tensor) -> Terms {
        Terms { loss, extras: Vec::new(), gradients: Vec::new(), parameters: Vec::new(), embeddings: None, left_out: false }
    }
}

/// The inputs of a loss.
pub struct Inputs<'a> {
    /// The online towers' embeddings; leaves of a graph if the loss is written in candle's operations.
    pub online: &'a Embeddings,
    /// The momentum copy's embeddings, which get no gradient; only for methods with a momentum copy.
    pub target: Option<&'a Embeddings>,
    /// What is known of this rank's samples: their classes, scores and contents.
    pub known: &'a Known,
    /// The fraction of the run that is done before this step, 0 to 1.
    pub progress: f64,
    /// Where similarities of many rows are computed.
    pub device: &'a Device,
    /// The other ranks.
    pub world: &'a dyn Collective,
}

impl<'a> Inputs<'a> {
    /// The momentum copy's embeddings.
    ///
    /// # Errors
    /// The learner has no momentum copy.
    pub fn target(&self) -> Result<&'a Embeddings> {
        self.target.ok_or_else(|| {
            Error::usage("this loss compares with a momentum encoder's keys, and the learner has none")
                .hint("give it a Dense::target")
        })
    }

    /// The samples' classes, if all samples have one.
    pub fn labels(&self) -> Option<&'a [u32]> {
        self.known.labels.as_deref()
    }

    /// The terms of `loss`, a scalar that depends through candle's graph on the online embeddings and the variables of the loss's own
    /// `parameters`; candle differentiates it.
    ///
    /// # Errors
    /// An error of candle.
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
    /// Views that go through the online towers.
    pub online: ViewSet,
    /// Views that go through the momentum copy.
    pub target: ViewSet,
}

/// A loss over the embeddings of a batch.
pub trait Objective {
    /// The loss, the gradient of every embedding, and those of the loss's own parameters.
    ///
    /// # Errors
    /// Embeddings, labels or a momentum copy that the loss needs are missing.
    fn loss(&self, inputs: &Inputs) -> Result<Terms>;

    /// Whether the loss compares embeddings, which can collapse; a classifier's logits cannot.
    fn compares(&self) -> bool {
        true
    }

    /// Which views the loss reads.
    fn reads(&self) -> Reads {
        Reads::default()
    }

    /// Runs after the optimizer's step: enqueues keys, moves a centre, clamps the loss's own parameters.
    ///
    /// # Errors
    /// A momentum copy that the loss needs is missing.
    fn after_step(&mut self, _: &Inputs) -> Result<()> {
        Ok(())
    }

    /// Saves the state that the loss owns; its parameters are saved with all others.
    ///
    /// # Errors
    /// A file cannot be written.
    fn save(&self, _: &mut Writer) -> Result<()> {
        Ok(())
    }

    /// Restores what [`save`](Objective::save) wrote.
    ///
    /// # Errors
    /// A file cannot be read, or the state has another shape.
    fn load(&mut self, _: &Reader) -> Result<()> {
        Ok(())
    }
}

/// A scalar tensor with the value of `value` and, for each `(x, g)`, the gradient g with respect to x.
///
/// Σ x·g has the gradient g; its value is subtracted again, so that candle's backward pass gives exactly the derived gradient.
///
/// # Errors
/// An error of candle.
pub fn attach(value: &Tensor, gradients: &[(&Tensor, Tensor)]) -> Result<Tensor> {
    let mut out = value.detach();
    for (x, g) in gradients {
        let dot = (*x * g.detach())?.sum_all()?;
        out = (out + (&dot - dot.detach())?)?;
    }
    Ok(out)
}

/// Rows scaled to length 1, as by [`normalise`] but outside of a graph, and the way back through that.
pub(crate) struct Unit {
    /// The rows (n, d).
    pub rows: Tensor,
    /// What each row was multiplied by (n).
    inverse: Tensor,
}

impl Unit {
    /// The rows of `x` (n, d).
    ///
    /// # Errors
    /// An error of candle.
    pub fn new(x: &Tensor) -> Result<Unit> {
        fn of<R: Real>(x: &Tensor) -> Result<Unit> {
            let (n, width) = x.dims2()?;
            let (mut z, mut inverse) = (vec![R::of(0.0); n * width], vec![R::of(0.0); n]);
            tensors::read(x, |x| ctk_kernels::unit_rows(x, width, &mut z, &mut inverse))?;
            Ok(Unit { rows: tensors::from_vec(z, (n, width))?, inverse: tensors::from_vec(inverse, n)? })
        }
        match x.dtype() {
            DType::F64 => of::<f64>(x),
            _ => of::<f32>(x),
        }
    }

    /// The gradient with respect to x of what has the gradient `of_rows` (n, d) with respect to the rows.
    ///
    /// # Errors
    /// An error of candle.
    pub fn back(&self, of_rows: &Tensor) -> Result<Tensor> {
        fn of<R: Real>(unit: &Unit, of_rows: &Tensor) -> Result<Tensor> {
            let mut dz: Vec<R> = tensors::read(of_rows, <[R]>::to_vec)?;
            let width = of_rows.dim(1)?;
            tensors::read(&unit.rows, |z| {
                tensors::read(&unit.inverse, |inverse| ctk_kernels::unit_rows_gradient(z, inverse, width, &mut dz))
            })??;
            tensors::from_vec(dz, of_rows.shape())
        }
        match of_rows.dtype() {
            DType::F64 => of::<f64>(self, of_rows),
            _ => of::<f32>(self, of_rows),
        }
    }
}

/// The rows of `x` (n, d) scaled to length 1; a zero row stays finite.
///
/// # Errors
/// An error of candle.
pub fn normalise(x: &Tensor) -> Result<Tensor> {
    // The floor keeps √ differentiable at 0; it is far below any row that has a direction.
    let square = x.sqr()?.sum_keepdim(1)?;
    Ok(x.broadcast_div(&(square + 1e-24)?.sqrt()?)?)
}
