//! The types in which maps are stored, and the types in which they are computed with.

use bytemuck::{Pod, Zeroable};
use num_traits::Float;

use crate::folds::Folds;
use crate::math::Functions;
use crate::products::Products;

/// The number types, for code that chooses by a value instead of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
    /// The upper half of 32 bits.
    Bf16,
}

/// A number as it is stored.
pub trait Element: Pod + Send + Sync {
    /// The type's kind.
    const KIND: Kind;

    /// The type in which it is computed with.
    type Real: Real;

    /// Converts to the type for computing.
    fn up(self) -> Self::Real;

    /// Converts to the stored type: the nearest value, of two the even one.
    fn down(v: Self::Real) -> Self;
}

/// The type of sums, statistics and parameters: f32, or f64 for oracles.
pub trait Real: Element<Real = Self> + Float + Folds + Functions + Products + std::ops::AddAssign + std::ops::MulAssign {
    /// Converts from a statistic.
    fn of(v: f64) -> Self;

    /// Converts to a statistic.
    fn wide(self) -> f64;
}

/// 0 in the type for computing.
#[inline(always)]
pub fn zero<T: Element>() -> T::Real {
    <T::Real as num_traits::Zero>::zero()
}

impl Element for f32 {
    const KIND: Kind = Kind::F32;
    type Real = f32;

    #[inline(always)]
    fn up(self) -> f32 {
        self
    }

    #[inline(always)]
    fn down(v: f32) -> f32 {
        v
    }
}

impl Real for f32 {
    #[inline(always)]
    fn of(v: f64) -> Self {
        v as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Element for f64 {
    const KIND: Kind = Kind::F64;
    type Real = f64;

    #[inline(always)]
    fn up(self) -> f64 {
        self
    }

    #[inline(always)]
    fn down(v: f64) -> f64 {
        v
    }
}

impl Real for f64 {
    #[inline(always)]
    fn of(v: f64) -> Self {
        v
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }
}

/// The upper half of an f32: 8 bits of exponent, 7 of fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bf16(
    /// Its bits.
    pub u16,
);

impl Element for Bf16 {
    const KIND: Kind = Kind::Bf16;
    type Real = f32;

    #[inline(always)]
    fn up(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn down(v: f32) -> Bf16 {
        let bits = v.to_bits();
        // NaN stays NaN: rounding could turn it into a number.
        Bf16(if bits & 0x7fff_ffff > 0x7f80_0000 {
            (bits >> 16) as u16 | 0x40
        } else {
            ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
        })
    }
}

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
