//! Which vector instructions this machine has, and the few vector operations that the kernels are written in.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for AVX-512, for AVX2 + FMA, and portably. `CTK_ISA` (`avx512`,
//! `avx2`, `portable`), read once, asks for less than the machine has: tests run every path, and two machines can be made to
//! give the same bits.

use std::any::TypeId;
use std::sync::OnceLock;

pub use pulp::{Simd, WithSimd};

/// An instruction set that this machine has.
#[derive(Clone, Copy, Debug)]
enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Portable,
}

#[cfg(target_arch = "x86_64")]
fn detect(wish: Option<&str>) -> Isa {
    let (wide, narrow) = (pulp::x86::V4::try_new().map(Isa::Avx512), pulp::x86::V3::try_new().map(Isa::Avx2));
    match wish {
        Some("portable") => Isa::Portable,
        Some("avx2") => narrow.unwrap_or(Isa::Portable),
        _ => wide.or(narrow).unwrap_or(Isa::Portable),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect(_: Option<&str>) -> Isa {
    Isa::Portable
}

/// Runs a kernel compiled for the widest vectors that this machine has, or that `CTK_ISA` allows.
pub fn run<K: WithSimd>(kernel: K) -> K::Output {
    static ISA: OnceLock<Isa> = OnceLock::new();
    match *ISA.get_or_init(|| detect(std::env::var("CTK_ISA").ok().as_deref())) {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd) => Simd::vectorize(simd, kernel),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(simd) => Simd::vectorize(simd, kernel),
        #[cfg(target_arch = "aarch64")]
        Isa::Portable if pulp::aarch64::Neon::is_available() => match pulp::aarch64::Neon::try_new() {
            Some(simd) => Simd::vectorize(simd, kernel),
            None => kernel.with_simd(pulp::Scalar128b),
        },
        Isa::Portable => kernel.with_simd(pulp::Scalar128b),
    }
}

/// Floats in a vector of the instruction set in use.
pub fn lanes() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    run(Lanes)
}

/// Runs a plain loop compiled for the instruction set in use; the arithmetic, and so the result, is the same everywhere.
#[inline(always)]
pub fn wide<R>(block: impl FnOnce() -> R) -> R {
    struct Wide<F>(F);
    impl<R, F: FnOnce() -> R> WithSimd for Wide<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    run(Wide(block))
}

/// a·b + c, rounded once where the machine has an instruction for that. Portably it is two operations: pulp would call a
/// function of the C library, fifty times slower.
#[inline(always)]
pub fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<pulp::Scalar128b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_e_f32s(a, b, c)
    }
}

/// A whole vector from `x[at..]`.
#[inline(always)]
pub fn load<S: Simd>(simd: S, x: &[f32], at: usize) -> S::f32s {
    let _ = simd;
    pulp::bytemuck::pod_read_unaligned(pulp::bytemuck::cast_slice(&x[at..at + S::F32_LANES]))
}

/// The first `count` floats of a vector from `x[at..]`, the rest zeros.
#[inline(always)]
pub fn load_some<S: Simd>(simd: S, x: &[f32], at: usize, count: usize) -> S::f32s {
    if count >= S::F32_LANES { load(simd, x, at) } else { simd.partial_load_f32s(&x[at..at + count]) }
}

/// A whole vector to `y[at..]`.
#[inline(always)]
pub fn store<S: Simd>(simd: S, y: &mut [f32], at: usize, v: S::f32s) {
    let _ = simd;
    pulp::bytemuck::cast_slice_mut(&mut y[at..at + S::F32_LANES]).copy_from_slice(pulp::bytemuck::bytes_of(&v));
}

/// The first `count` floats of a vector to `y[at..]`.
#[inline(always)]
pub fn store_some<S: Simd>(simd: S, y: &mut [f32], at: usize, count: usize, v: S::f32s) {
    if count >= S::F32_LANES { store(simd, y, at, v) } else { simd.partial_store_f32s(&mut y[at..at + count], v) }
}
