//! The ranks of a data-parallel run, and how they exchange data.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::Result;

/// The communication with the other ranks of a data-parallel run. Every rank calls the same methods in the same order.
pub trait Collective: Send + Sync {
    /// The number of this rank, `0..world()`.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world(&self) -> usize;

    /// Gathers the rows (n, …) of every rank, in rank order, of any number type. Ranks may have different numbers of rows, or none. The
    /// result carries no gradient: losses derive theirs in closed form over all rows and keep their own part.
    ///
    /// # Errors
    /// The communication fails.
    fn gather(&self, rows: &Tensor) -> Result<Gathered>;

    /// The elementwise sum over ranks of tensors of one shape, added in rank order; f32 and f64.
    ///
    /// # Errors
    /// The communication fails.
    fn sum(&self, tensor: &Tensor) -> Result<Tensor>;
}

/// The rows of all ranks.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// All rows, in rank order.
    pub rows: Tensor,
    /// The number of this rank's first row.
    pub first: usize,
}

impl Gathered {
    /// This rank's `count` rows of `rows`, which has a row for each gathered one.
    ///
    /// # Errors
    /// There are fewer rows.
    pub fn own(&self, rows: &Tensor, count: usize) -> Result<Tensor> {
        Ok(rows.narrow(0, self.first, count)?)
    }
}

/// A single process.
pub struct Solo;

/// A single process, as a shared [`Collective`].
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
