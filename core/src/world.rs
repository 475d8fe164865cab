//! Who else trains this model: the ranks of a data-parallel run, and what they exchange.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;

/// The other ranks of a data-parallel run. Every rank calls the same methods in the same order.
pub trait Collective: Send + Sync {
    /// This process's number, `0..world()`.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// The rows (n, …) of every rank, in rank order, in any type of number. Ranks may have different numbers of rows, or none.
    /// Carries no gradient: losses derive theirs in closed form over all rows and keep their own.
    ///
    /// # Errors
    /// Of the exchange.
    fn gather(&self, rows: &Tensor) -> Result<Gathered>;

    /// The elementwise sum over ranks of tensors of one shape, in rank order; f32 and f64.
    ///
    /// # Errors
    /// Of the exchange.
    fn sum(&self, tensor: &Tensor) -> Result<Tensor>;
}

/// The rows of all ranks.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// All of them, in rank order.
    pub rows: Tensor,
    /// Where this rank's own begin.
    pub first: usize,
}

impl Gathered {
    /// Those of `rows`, which has a row for each that was gathered, that are of this rank's own `count`.
    ///
    /// # Errors
    /// Where there are fewer.
    pub fn own(&self, rows: &Tensor, count: usize) -> Result<Tensor> {
        Ok(rows.narrow(0, self.first, count)?)
    }
}

/// One process alone.
pub struct Solo;

/// One process alone, as whoever holds a world wants it.
pub fn solo() -> Arc<dyn Collective> {
    Arc::new(Solo)
}

impl Collective for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn gather(&self, rows: &Tensor) -> Result<Gathered> {
        Ok(Gathered { rows: rows.clone(), first: 0 })
    }

    fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.clone())
    }
}
