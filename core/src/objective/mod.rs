//! Losses: one file each, with its derivation, its value and its gradient. A loss owns its state (a queue, a centre).
//!
//! Losses here derive their gradient in closed form and [`attach`] it to their inputs, so that the value is computed in a
//! numerically safe form, no large intermediate enters candle's graph, and the same code serves one rank or many.

mod barlow_twins;
mod byol;
mod contrast;
mod cross_entropy;
mod dcl;
mod infonce;
mod method;
mod negative_sampling;
mod ntxent;
mod predict;
mod queue;
mod simsiam;
mod supcon;
#[cfg(test)]
mod testing;
mod vicreg;

use candle_core::Tensor;

use crate::error::Result;
use crate::model::tower::Side;
use crate::nn::pass::{Pass, Sides};
use crate::store::checkpoint::{Reader, Writer};

pub use barlow_twins::BarlowTwins;
pub use byol::Byol;
pub use cross_entropy::{CrossEntropy, Distillation, UNLABELLED};
pub use dcl::Dcl;
pub use infonce::InfoNce;
pub use method::Method;
pub use negative_sampling::NegativeSampling;
pub use ntxent::NtXent;
pub use queue::{Moco, Queue};
pub use simsiam::SimSiam;
pub use supcon::{Positives, SupCon};
pub use vicreg::VicReg;

/// What a loss has to say of a batch.
pub struct Terms {
    /// The scalar to minimise.
    pub loss: Tensor,
    /// Scalars to watch; read back only when logged.
    pub watch: Vec<(&'static str, Tensor)>,
}

/// A loss over both sides' embeddings.
pub trait Objective {
    /// The loss of the online towers' embeddings against the target towers' (where a method has them).
    fn loss(&self, online: &(Side, Side), target: Option<&(Side, Side)>, labels: Option<&[u32]>, pass: &Pass) -> Result<Terms>;

    /// Which sides it reads: of the online towers, and of the target.
    fn sides(&self) -> (Sides, Sides) {
        (Sides::Both, Sides::Both)
    }

    /// After the optimizer's step: enqueue, move a centre.
    fn settle(&mut self, _target: Option<&(Side, Side)>, _pass: &Pass) -> Result<()> {
        Ok(())
    }

    /// Saves what the loss owns.
    fn save(&self, _: &mut Writer) -> Result<()> {
        Ok(())
    }

    /// Restores what the loss owns.
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
