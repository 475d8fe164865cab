//! Encoders: uploaded views in, one representation a row out.

use candle_core::Tensor;

use crate::data::pair::Views;
use crate::error::Result;
use crate::nn::pass::Pass;

/// What turns one side's views into representations h (the `f` of SimCLR, Chen et al. 2020a, §2.1).
pub trait Encoder {
    /// The host rows it reads.
    type Views: Views;

    /// Width of a representation.
    fn width(&self) -> usize;

    /// `(n, width)` representations of n uploaded rows.
    fn encode(&self, x: &<Self::Views as Views>::On, pass: &Pass) -> Result<Tensor>;
}
