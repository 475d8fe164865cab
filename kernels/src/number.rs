//! The number types that devices compute with: a closed set, each with kernels of its own.

use crate::attention::Attend;
use crate::conv::Convolve;
use crate::element::Bf16;

/// A number that every device has kernels for: f32, f64 or [`Bf16`].
pub trait Number: Convolve + Attend {}

impl Number for f32 {}
impl Number for f64 {}
impl Number for Bf16 {}
