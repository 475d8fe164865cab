//! The number types that the vectorised (SIMD) kernels work on, f32 and bf16: how a vector of them is loaded, stored and multiplied. A
//! multiplication takes one f32 a lane, or two neighbouring bf16 values a lane, whose products are added to an f32 sum.

use bytemuck::{Pod, Zeroable};
use pulp::bytemuck::{bytes_of, cast_slice, cast_slice_mut, pod_read_unaligned};

use super::simd::{Simd, WithSimd, mul_add, narrow, widen, widened};
use super::winograd::transform::{F2, F4, Form};
use crate::element::{Bf16, Element};

/// A number type that the vectorised kernels read and write.
pub trait Fast: Element<Real = f32> {
    /// What one lane multiplies: one f32, or a pair of bf16.
    type Factor: Factor;

    /// The Winograd form whose error this type tolerates.
    type Form: Form;

    /// Loads a whole vector from `x[at..]`.
    fn load<S: Simd>(simd: S, x: &[Self], at: usize) -> S::f32s;

    /// Stores a whole vector to `y[at..]`. `NATIVE` as in [`MixedKernel`](super::simd::MixedKernel).
    fn store<S: Simd, const NATIVE: bool>(simd: S, y: &mut [Self], at: usize, v: S::f32s);

    /// Loads a whole vector from `x`.
    ///
    /// # Safety
    /// `x` must be valid for reading a vector's number of values.
    #[inline(always)]
    unsafe fn read<S: Simd>(simd: S, x: *const Self) -> S::f32s {
        // SAFETY: the caller promises that a whole vector may be read at `x`.
        Self::load(simd, unsafe { std::slice::from_raw_parts(x, S::F32_LANES) }, 0)
    }

    /// Stores a whole vector to `y`. `NATIVE` as in [`MixedKernel`](super::simd::MixedKernel).
    ///
    /// # Safety
    /// `y` must be valid for writing a vector's number of values, and nothing else may access them meanwhile.
    #[inline(always)]
    unsafe fn write<S: Simd, const NATIVE: bool>(simd: S, y: *mut Self, v: S::f32s) {
        // SAFETY: the caller promises that a whole vector may be written at `y`.
        Self::store::<S, NATIVE>(simd, unsafe { std::slice::from_raw_parts_mut(y, S::F32_LANES) }, 0, v);
    }

    /// Loads the first `count` values of a vector from `x[at..]`; the rest are zeros.
    fn load_some<S: Simd>(simd: S, x: &[Self], at: usize, count: usize) -> S::f32s;

    /// Stores the first `count` values of a vector to `y[at..]`.
    fn store_some<S: Simd, const NATIVE: bool>(simd: S, y: &mut [Self], at: usize, count: usize, v: S::f32s);

    /// Combines as many rows as a factor is deep into factors; a missing row counts as zeros.
    fn interleave(rows: [Option<&[Self]>; 2], to: &mut [Self::Factor]);
}

/// A factor: 32 bits that one multiplication takes from each side. It is one value, or two whose products are added.
pub trait Factor: Pod + Send + Sync {
    /// The number of values in a factor.
    const DEPTH: usize;

    /// The factor of values number 0, 1, …
    fn of(number: impl Fn(usize) -> f32) -> Self;

    /// Combines vectors of values number 0, 1, … into factors at `to[at..]`.
    fn join<S: Simd, const NATIVE: bool>(simd: S, to: &mut [Self], at: usize, numbers: [S::f32s; 2]);

    /// Sixteen factors of consecutive values.
    fn row<S: Simd, const NATIVE: bool>(simd: S, numbers: &[f32], to: &mut [Self; 16]);

    /// The factor in all lanes of a vector.
    fn splat<S: Simd>(self, simd: S) -> S::f32s;

    /// a·b + sum in every lane. `NATIVE` as in [`MixedKernel`](super::simd::MixedKernel).
    fn multiply<S: Simd, const NATIVE: bool>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s;
}

impl Fast for f32 {
    type Factor = f32;
    type Form = F4;

    #[inline(always)]
    fn load<S: Simd>(_: S, x: &[f32], at: usize) -> S::f32s {
        pod_read_unaligned(cast_slice(&x[at..at + S::F32_LANES]))
    }

    #[inline(always)]
    fn store<S: Simd, const NATIVE: bool>(_: S, y: &mut [f32], at: usize, v: S::f32s) {
        cast_slice_mut(&mut y[at..at + S::F32_LANES]).copy_from_slice(bytes_of(&v));
    }

    #[inline(always)]
    fn load_some<S: Simd>(simd: S, x: &[f32], at: usize, count: usize) -> S::f32s {
        if count >= S::F32_LANES { Self::load(simd, x, at) } else { simd.partial_load_f32s(&x[at..at + count]) }
    }

    #[inline(always)]
    fn store_some<S: Simd, const NATIVE: bool>(simd: S, y: &mut [f32], at: usize, count: usize, v: S::f32s) {
        if count >= S::F32_LANES {
            Self::store::<S, NATIVE>(simd, y, at, v)
        } else {
            simd.partial_store_f32s(&mut y[at..at + count], v)
        }
    }

    #[inline(always)]
    fn interleave(rows: [Option<&[f32]>; 2], to: &mut [f32]) {
        match rows[0] {
            Some(row) => to.copy_from_slice(row),
            None => to.fill(0.0),
        }
    }
}

impl Factor for f32 {
    const DEPTH: usize = 1;

    #[inline(always)]
    fn of(number: impl Fn(usize) -> f32) -> f32 {
        number(0)
    }

    #[inline(always)]
    fn join<S: Simd, const NATIVE: bool>(simd: S, to: &mut [f32], at: usize, numbers: [S::f32s; 2]) {
        f32::store::<S, false>(simd, to, at, numbers[0]);
    }

    #[inline(always)]
    fn row<S: Simd, const NATIVE: bool>(_: S, numbers: &[f32], to: &mut [f32; 16]) {
        to.copy_from_slice(numbers);
    }

    #[inline(always)]
    fn splat<S: Simd>(self, simd: S) -> S::f32s {
        simd.splat_f32s(self)
    }

    #[inline(always)]
    fn multiply<S: Simd, const NATIVE: bool>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        mul_add(simd, a, b, sum)
    }
}

impl Fast for Bf16 {
    type Factor = Pair;
    type Form = F2;

    #[inline(always)]
    fn load<S: Simd>(simd: S, x: &[Bf16], at: usize) -> S::f32s {
        widen(simd, cast_slice(&x[at..at + S::F32_LANES]))
    }

    #[inline(always)]
    fn store<S: Simd, const NATIVE: bool>(simd: S, y: &mut [Bf16], at: usize, v: S::f32s) {
        narrow::<S, NATIVE>(simd, v, cast_slice_mut(&mut y[at..at + S::F32_LANES]));
    }

    #[inline(always)]
    fn load_some<S: Simd>(simd: S, x: &[Bf16], at: usize, count: usize) -> S::f32s {
        if count >= S::F32_LANES {
            return Self::load(simd, x, at);
        }
        let mut some = [Bf16(0); 16];
        some[..count].copy_from_slice(&x[at..at + count]);
        Self::load(simd, &some, 0)
    }

    #[inline(always)]
    fn store_some<S: Simd, const NATIVE: bool>(simd: S, y: &mut [Bf16], at: usize, count: usize, v: S::f32s) {
        if count >= S::F32_LANES {
            return Self::store::<S, NATIVE>(simd, y, at, v);
        }
        let mut some = [Bf16(0); 16];
        Self::store::<S, NATIVE>(simd, &mut some, 0, v);
        y[at..at + count].copy_from_slice(&some[..count]);
    }

    #[inline(always)]
    fn interleave(rows: [Option<&[Bf16]>; 2], to: &mut [Pair]) {
        match rows.into() {
            (Some(a), Some(b)) => to.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (&a, &b))| *to = Pair([a, b])),
            (Some(a), None) => to.iter_mut().zip(a).for_each(|(to, &a)| *to = Pair([a, Bf16(0)])),
            (None, Some(b)) => to.iter_mut().zip(b).for_each(|(to, &b)| *to = Pair([Bf16(0), b])),
            (None, None) => to.fill(Pair::zeroed()),
        }
    }
}

/// Two values, whose products with two others are added.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Pair([Bf16; 2]);

impl Factor for Pair {
    const DEPTH: usize = 2;

    #[inline(always)]
    fn of(number: impl Fn(usize) -> f32) -> Pair {
        Pair([Bf16::down(number(0)), Bf16::down(number(1))])
    }

    #[inline(always)]
    fn join<S: Simd, const NATIVE: bool>(simd: S, to: &mut [Pair], at: usize, numbers: [S::f32s; 2]) {
        let bits = [widened::<S, NATIVE>(simd, numbers[0]), widened::<S, NATIVE>(simd, numbers[1])];
        let upper = simd.wrapping_dyn_shl_u32s(bits[1], simd.splat_u32s(16));
        let pairs = simd.or_u32s(bits[0], upper);
        cast_slice_mut::<Pair, [u8; 4]>(&mut to[at..at + S::F32_LANES]).copy_from_slice(cast_slice(&[pairs]));
    }

    #[inline(always)]
    fn row<S: Simd, const NATIVE: bool>(simd: S, numbers: &[f32], to: &mut [Pair; 16]) {
        let to: &mut [Bf16] = cast_slice_mut(to);
        for at in (0..to.len()).step_by(S::F32_LANES) {
            Bf16::store::<S, NATIVE>(simd, to, at, f32::load(simd, numbers, at));
        }
    }

    #[inline(always)]
    fn splat<S: Simd>(self, simd: S) -> S::f32s {
        simd.transmute_f32s_u32s(simd.splat_u32s(bytemuck::cast(self.0)))
    }

    #[inline(always)]
    fn multiply<S: Simd, const NATIVE: bool>(simd: S, a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
        #[cfg(target_arch = "x86_64")]
        if NATIVE {
            // SAFETY: `NATIVE` is true only in kernels that `run_mixed` runs with AVX-512 and AVX512-BF16.
            return unsafe { super::simd::multiply_pairs::<S>(a, b, sum) };
        }
        // Without the instruction, both halves are multiplied one after the other, each as an f32 with zeros below.
        let (sixteen, upper) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
        let bits = |v| simd.transmute_u32s_f32s(v);
        let first = |v| simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(bits(v), sixteen));
        let second = |v| simd.transmute_f32s_u32s(simd.and_u32s(bits(v), upper));
        mul_add(simd, second(a), second(b), mul_add(simd, first(a), first(b), sum))
    }
}

/// Combines rows of `width` values, which begin at `at` or are missing, to rows of factors at distance `line`, padded with zeros.
pub struct Interleave<'a, T: Fast> {
    pub rows: &'a [T],
    pub at: &'a [Option<usize>],
    pub width: usize,
    pub line: usize,
    pub to: &'a mut [T::Factor],
}

impl<T: Fast> WithSimd for Interleave<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Interleave { rows, at, width, line, to } = self;
        for (to, at) in to.chunks_exact_mut(line).zip(at.chunks(T::Factor::DEPTH)) {
            let row = |k: usize| Some(&rows[(*at.get(k)?)?..][..width]);
            T::interleave([row(0), row(1)], &mut to[..width]);
            to[width..].fill(T::Factor::zeroed());
        }
    }
}
