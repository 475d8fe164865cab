//! Who else trains this model: one process today, many later.

use candle_core::Tensor;

use crate::error::Result;

/// The other ranks of a data-parallel run. Every rank calls the same methods in the same order.
pub trait Collective: Send + Sync {
    /// This process's number, `0..world()`.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// The rows of every rank, in rank order: `(n, d)` → `(world · n, d)`. Carries no gradient: losses derive theirs in
    /// closed form over all rows and keep their own.
    fn gather(&self, rows: &Tensor) -> Result<Tensor>;

    /// The elementwise sum over ranks.
    fn sum(&self, tensor: &Tensor) -> Result<Tensor>;
}

/// One process alone.
pub struct Solo;

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(rows.clone())
    }

    fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }
}
