//! Encoders: uploaded views in, one representation a row out.

use candle_core::Tensor;

use crate::data::pair::HostBatch;
use crate::error::Result;
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::tape::Tape;

/// What turns views into representations h (the `f` of SimCLR, Chen et al. 2020a, §2.1).
///
/// An encoder is a [`Sequential`](crate::nn::Sequential), or is written in candle's operations with its own variables: then its
/// tape is [`Tape::of_graph`].
pub trait Encoder {
    /// The host rows it reads.
    type Views: HostBatch;

    /// Width of a representation.
    fn width(&self) -> usize;

    /// `(n, width)` representations of n uploaded rows, without a graph, and the way back. `rows` says who they are.
    ///
    /// # Errors
    /// Rows that it cannot read.
    fn encode(&self, x: &<Self::Views as HostBatch>::On, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)>;
}

impl<E: Encoder + ?Sized> Encoder for Box<E> {
    type Views = E::Views;

    fn width(&self) -> usize {
        (**self).width()
    }

    fn encode(&self, x: &<Self::Views as HostBatch>::On, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        (**self).encode(x, rows, pass)
    }
}
