//! What maps are stored in, and what their arithmetic runs in.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use candle_core::WithDType;
use num_traits::Float;

use super::cpu::conv::{self, Geometry};
use super::cpu::im2col;
use super::cpu::norm::{Affine, BlockMoments};
use super::layer::Sums;
use super::map::Pool;

/// What sums, statistics and parameters are computed in: f32, or f64 for oracles.
pub(crate) trait Real: Cell<Real = Self> + Float + WithDType + std::ops::AddAssign + std::ops::MulAssign {
    /// From a statistic.
    fn of(v: f64) -> Self;
    /// To a statistic.
    fn wide(self) -> f64;
}

impl Real for f32 {
    fn of(v: f64) -> Self {
        v as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    fn of(v: f64) -> Self {
        v
    }

    fn wide(self) -> f64 {
        self
    }
}

/// The upper half of an f32: 8 bits of exponent, 7 of fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Bf16(pub u16);

/// Maps' numbers and a normalisation that is still to be done to them.
pub(crate) type Read<'a, T> = (&'a [T], Option<&'a Affine<<T as Cell>::Real>>);

/// A number in memory, and which kernels convolve maps of it. Rows of f32 and bf16 are for the fast kernels; f64 goes by im2col.
pub(crate) trait Cell: Pod + Send + Sync {
    /// What it is computed with.
    type Real: Real;

    /// To compute with.
    fn up(self) -> Self::Real;

    /// To be stored: the nearest one, of two the even one.
    fn down(v: Self::Real) -> Self;

    /// Whether this convolution can normalise its input as it reads it.
    fn normalises(g: &Geometry) -> bool;

    /// Y from X, normalised on the way if it [can be](Cell::normalises), and the weight (OIHW). Y is written whole. With `watch`,
    /// the moments of Y's blocks, if they come cheaply.
    fn convolve(
        g: &Geometry,
        x: Read<Self>,
        weight: &[Self::Real],
        y: &mut [Self],
        watch: bool,
        pool: &Arc<Pool>,
    ) -> Option<Vec<BlockMoments>>;

    /// dX from dY and the weight, plus what is `beside` it. dX is written whole. If X came from a normalisation, of `before`, the
    /// sums that its step back begins with, if they come cheaply.
    fn input_gradient(
        g: &Geometry,
        dy: &[Self],
        weight: &[Self::Real],
        dx: &mut [Self],
        beside: Option<&[Self]>,
        before: Option<(&[Self], &Affine<Self::Real>)>,
        pool: &Arc<Pool>,
    ) -> Option<Sums>;

    /// dW in OIHW from X, normalised on the way if it [can be](Cell::normalises), and dY.
    fn weight_gradient(g: &Geometry, x: Read<Self>, dy: &[Self], pool: &Arc<Pool>) -> Vec<Self::Real>;

    /// Rows, mean and summed squared deviations of a block of `c` columns.
    fn moments(block: &[Self], c: usize) -> BlockMoments;

    /// Σ dy and Σ dy·(x − mean) per channel of a block, one after the other, dy masked by the normalisation's ReLU.
    fn gradient_sums(x: &[Self], dy: &[Self], affine: &Affine<Self::Real>) -> Vec<f64>;
}

impl Cell for f64 {
    type Real = f64;

    fn up(self) -> f64 {
        self
    }

    fn down(v: f64) -> f64 {
        v
    }

    fn normalises(_: &Geometry) -> bool {
        false
    }

    fn convolve(
        g: &Geometry,
        x: Read<f64>,
        weight: &[f64],
        y: &mut [f64],
        _: bool,
        pool: &Arc<Pool>,
    ) -> Option<Vec<BlockMoments>> {
        im2col::forward(g, x.0, &im2col::pack(weight, g), y, pool);
        None
    }

    fn input_gradient(
        g: &Geometry,
        dy: &[f64],
        weight: &[f64],
        dx: &mut [f64],
        beside: Option<&[f64]>,
        _: Option<(&[f64], &Affine<f64>)>,
        pool: &Arc<Pool>,
    ) -> Option<Sums> {
        im2col::input_gradient(g, dy, &im2col::pack(weight, g), dx, pool);
        if let Some(beside) = beside {
            super::cpu::elementwise::add(dx, beside);
        }
        None
    }

    fn weight_gradient(g: &Geometry, x: Read<f64>, dy: &[f64], pool: &Arc<Pool>) -> Vec<f64> {
        im2col::weight_gradient(g, x.0, dy, pool)
    }

    fn moments(block: &[f64], c: usize) -> BlockMoments {
        super::cpu::norm::block_moments(block, c)
    }

    fn gradient_sums(x: &[f64], dy: &[f64], affine: &Affine<f64>) -> Vec<f64> {
        affine.block_sums(x, dy)
    }
}

/// 0, to compute with.
#[inline(always)]
pub(crate) fn zero<T: Cell>() -> T::Real {
    <T::Real as num_traits::Zero>::zero()
}

/// f32 and bf16 share their kernels.
macro_rules! fast_cell {
    ($cell:ty, |$self:ident| $up:expr, |$v:ident| $down:expr) => {
        impl Cell for $cell {
            type Real = f32;

            #[inline(always)]
            fn up($self) -> f32 {
                $up
            }

            #[inline(always)]
            fn down($v: f32) -> Self {
                $down
            }

            fn normalises(g: &Geometry) -> bool {
                conv::normalises::<Self>(g)
            }

            fn convolve(
                g: &Geometry,
                x: Read<Self>,
                weight: &[f32],
                y: &mut [Self],
                watch: bool,
                pool: &Arc<Pool>,
            ) -> Option<Vec<BlockMoments>> {
                conv::forward(g, x, weight, y, watch, pool)
            }

            fn input_gradient(
                g: &Geometry,
                dy: &[Self],
                weight: &[f32],
                dx: &mut [Self],
                beside: Option<&[Self]>,
                before: Option<(&[Self], &Affine<f32>)>,
                pool: &Arc<Pool>,
            ) -> Option<Sums> {
                conv::input_gradient(g, dy, weight, dx, beside, before, pool)
            }

            fn weight_gradient(g: &Geometry, x: Read<Self>, dy: &[Self], pool: &Arc<Pool>) -> Vec<f32> {
                conv::weight_gradient(g, x, dy, pool)
            }

            fn moments(block: &[Self], c: usize) -> BlockMoments {
                conv::moments(block, c)
            }

            fn gradient_sums(x: &[Self], dy: &[Self], affine: &Affine<f32>) -> Vec<f64> {
                conv::gradient_sums(x, dy, affine)
            }
        }
    };
}

fast_cell!(f32, |self| self, |v| v);
fast_cell!(Bf16, |self| f32::from_bits(u32::from(self.0) << 16), |v| {
    let bits = v.to_bits();
    // Not-a-number stays one: rounding could carry it over into a number.
    Bf16(if bits & 0x7fff_ffff > 0x7f80_0000 {
        (bits >> 16) as u16 | 0x40
    } else {
        ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
    })
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_the_nearest_and_of_two_to_the_even() {
        let next = f32::from_bits(0x3f81_0000);
        let middle = f32::from_bits(0x3f80_8000);
        assert_eq!(Bf16::down(1.0).0, 0x3f80);
        assert_eq!(Bf16::down(middle).0, 0x3f80);
        assert_eq!(Bf16::down(f32::from_bits(0x3f80_8001)).0, 0x3f81);
        assert_eq!(Bf16::down(f32::from_bits(0x3f81_8000)).0, 0x3f82);
        assert_eq!(Bf16::down(-next).up(), -next);
        assert_eq!(Bf16::down(f32::MAX).up(), f32::INFINITY);
        assert_eq!(Bf16::down(f32::NEG_INFINITY).up(), f32::NEG_INFINITY);
        assert!(Bf16::down(f32::NAN).up().is_nan() && Bf16::down(f32::from_bits(0xffff_ffff)).up().is_nan());
        for bits in (0..=u16::MAX).filter(|bits| bits & 0x7f80 != 0x7f80) {
            assert_eq!(Bf16::down(Bf16(bits).up()).0, bits);
        }
    }
}
