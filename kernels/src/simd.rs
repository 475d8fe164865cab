//! The instruction set of this machine, and the few vector operations that the kernels are written in.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for AVX-512, for AVX2 + FMA, and portably. The environment variable
//! `CTK_ISA` (`avx512`, `avx2`, `portable`), read once, selects less than the machine has: tests run every path, and two machines can be
//! made to give the same bits. `avx512` excludes the bf16 products of AVX512-BF16, which are otherwise used on machines that have them.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector")]

use std::any::TypeId;
use std::sync::OnceLock;

pub use pulp::{Simd, WithSimd};

/// An instruction set of this machine.
#[derive(Clone, Copy, Debug)]
enum Isa {
    /// AVX-512, with products of bf16 or without.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4, bool),
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    Portable,
}

#[cfg(target_arch = "x86_64")]
fn detect(wish: Option<&str>) -> Isa {
    let pairs = wish.is_none() && is_x86_feature_detected!("avx512bf16");
    let (wide, narrow) = (pulp::x86::V4::try_new().map(|v| Isa::Avx512(v, pairs)), pulp::x86::V3::try_new().map(Isa::Avx2));
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

fn chosen() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| detect(std::env::var("CTK_ISA").ok().as_deref()))
}

/// The instruction set that kernels use, in the terms of `CTK_ISA`; `avx512bf16` is AVX-512 with products of bf16.
pub fn isa() -> &'static str {
    match chosen() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_, true) => "avx512bf16",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(_, false) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2(_) => "avx2",
        Isa::Portable => "portable",
    }
}

/// Whether values in cache are multiplied faster in bf16 than in f32. AMD's cores multiply a vector of pairs in the time of one of f32.
/// Intel's take twice that, so nothing is gained, and the conversion to pairs costs time (a quarter of the speed of word2vec's steps on a
/// Xeon of the sixth generation).
pub fn quick_pairs() -> bool {
    // Determined once: in a virtual machine the question for the processor's maker is slow.
    static QUICK: OnceLock<bool> = OnceLock::new();
    *QUICK.get_or_init(|| isa() == "avx512bf16" && !is_intel())
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    raw_cpuid::CpuId::new().get_vendor_info().is_some_and(|vendor| vendor.as_str() == "GenuineIntel")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_intel() -> bool {
    false
}

/// Runs a kernel compiled for the widest vectors that this machine has and `CTK_ISA` allows.
pub fn run<K: WithSimd>(kernel: K) -> K::Output {
    match chosen() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(simd, _) => Simd::vectorize(simd, kernel),
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

/// A kernel that multiplies or stores bf16; `NATIVE` is true if the machine has AVX512-BF16.
pub trait MixedKernel {
    fn with<S: Simd, const NATIVE: bool>(self, simd: S);
}

/// Runs a kernel as [`run`] does, with the machine's own instructions for bf16 if it has them.
pub(crate) fn run_mixed<K: MixedKernel>(kernel: K) {
    struct Emulated<K>(K);
    impl<K: MixedKernel> WithSimd for Emulated<K> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            self.0.with::<S, false>(simd);
        }
    }
    #[cfg(target_arch = "x86_64")]
    if let Isa::Avx512(simd, true) = chosen() {
        // SAFETY: `chosen` has found AVX512-BF16, and the value `simd` proves that AVX-512 is there.
        return unsafe { with_bf16(simd, kernel) };
    }
    run(Emulated(kernel));
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt,sse4.2,fxsr")]
fn with_bf16<K: MixedKernel>(simd: pulp::x86::V4, kernel: K) {
    kernel.with::<pulp::x86::V4, true>(simd);
}

/// a·b + sum of pairs of bf16, by the machine's own instruction.
///
/// # Safety
/// S must be AVX-512, and the machine must have AVX512-BF16; both are true inside a [`MixedKernel`] whose `NATIVE` is true.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) unsafe fn multiply_pairs<S: Simd>(a: S::f32s, b: S::f32s, sum: S::f32s) -> S::f32s {
    use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps};
    use std::mem::transmute_copy;
    // SAFETY: with AVX-512 all these types are 64 bytes and valid with any bits; the caller promises that the machine has the instruction.
    unsafe {
        let (a, b): (__m512bh, __m512bh) = (transmute_copy(&a), transmute_copy(&b));
        transmute_copy(&_mm512_dpbf16_ps(transmute_copy(&sum), a, b))
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

/// Runs plain loops compiled for the instruction set in use; the arithmetic, and so the result, is the same with all of them.
///
/// A macro, because the loops' closure has to be inlined: otherwise they are compiled for the oldest machines, several times slower.
#[macro_export]
macro_rules! wide {
    ($loops:expr) => {
        $crate::run_wide(
            #[inline(always)]
            || $loops,
        )
    };
}

/// What [`wide!`] calls.
#[doc(hidden)]
#[inline(always)]
pub fn run_wide<R>(block: impl FnOnce() -> R) -> R {
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

/// a·b + c, rounded once if the machine has an instruction for that. Portably it is two operations, because pulp would call a function of
/// the C library, which is fifty times slower.
#[inline(always)]
pub fn mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
    if TypeId::of::<S>() == TypeId::of::<pulp::Scalar128b>() {
        simd.add_f32s(simd.mul_f32s(a, b), c)
    } else {
        simd.mul_add_e_f32s(a, b, c)
    }
}

/// Bf16 values as floats: the first vector of `x`.
///
/// # Panics
/// If `x` is shorter than a vector.
#[inline(always)]
pub fn widen<S: Simd>(simd: S, x: &[u16]) -> S::f32s {
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        if TypeId::of::<S>() == TypeId::of::<V4>() {
            let x: &[u16; 16] = x.first_chunk().expect("a whole vector");
            // SAFETY: S is AVX-512, which `simd` proves; 32 bytes are read from sixteen values of two bytes, and both types of the last
            // step are 64 bytes and valid with any bits.
            return unsafe {
                let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast())));
                transmute_copy(&bits)
            };
        }
        if TypeId::of::<S>() == TypeId::of::<V3>() {
            let x: &[u16; 8] = x.first_chunk().expect("a whole vector");
            // SAFETY: S is AVX2, which `simd` proves; 16 bytes are read from eight values of two bytes, and both types of the last step are
            // 32 bytes and valid with any bits.
            return unsafe {
                let bits = _mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().cast())));
                transmute_copy(&bits)
            };
        }
    }
    let _ = simd;
    let (x, mut bits) = (&x[..S::F32_LANES], [0u32; 16]);
    for i in 0..S::F32_LANES {
        bits[i] = u32::from(x[i]) << 16;
    }
    pulp::bytemuck::pod_read_unaligned(pulp::bytemuck::cast_slice(&bits[..S::F32_LANES]))
}

/// Floats rounded to bf16, as by [`Bf16::down`](crate::element::Element::down), written to the first vector of `y`. With `NATIVE`, by the
/// machine's own instruction, which treats subnormal floats as zeros.
///
/// # Panics
/// If `y` is shorter than a vector.
#[inline(always)]
pub fn narrow<S: Simd, const NATIVE: bool>(simd: S, v: S::f32s, y: &mut [u16]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        if TypeId::of::<S>() == TypeId::of::<pulp::x86::V4>() {
            let y: &mut [u16; 16] = y.first_chunk_mut().expect("a whole vector");
            // SAFETY: S is AVX-512, which `simd` proves, and with `NATIVE` the machine has AVX512-BF16; 32 bytes are written to sixteen
            // values of two bytes.
            unsafe {
                let half: __m256i = if NATIVE {
                    transmute_copy(&_mm512_cvtneps_pbh(transmute_copy(&v)))
                } else {
                    _mm512_cvtepi32_epi16(transmute_copy(&rounded(simd, v)))
                };
                _mm256_storeu_si256(y.as_mut_ptr().cast(), half);
            }
            return;
        }
    }
    let (y, bits) = (&mut y[..S::F32_LANES], rounded(simd, v));
    for (y, bits) in y.iter_mut().zip(pulp::bytemuck::cast_slice::<S::u32s, u32>(&[bits])) {
        *y = *bits as u16;
    }
}

/// The bits of floats rounded to bf16, each as a 32-bit integer. `NATIVE` as in [`narrow`].
#[inline(always)]
pub fn widened<S: Simd, const NATIVE: bool>(simd: S, v: S::f32s) -> S::u32s {
    #[cfg(target_arch = "x86_64")]
    if NATIVE {
        use std::arch::x86_64::*;
        use std::mem::transmute_copy;
        // SAFETY: with `NATIVE` S is AVX-512 and the machine has AVX512-BF16; the types have equal sizes at every step.
        return unsafe {
            let half: __m256i = transmute_copy(&_mm512_cvtneps_pbh(transmute_copy(&v)));
            transmute_copy(&_mm512_cvtepu16_epi32(half))
        };
    }
    rounded(simd, v)
}

/// The upper half of every float's bits, rounded, as an integer.
#[inline(always)]
fn rounded<S: Simd>(simd: S, v: S::f32s) -> S::u32s {
    let bits = simd.transmute_u32s_f32s(v);
    let upper = simd.wrapping_dyn_shr_u32s(bits, simd.splat_u32s(16));
    let odd = simd.and_u32s(upper, simd.splat_u32s(1));
    let sum = simd.add_u32s(bits, simd.add_u32s(odd, simd.splat_u32s(0x7fff)));
    let number = simd.equal_f32s(v, v);
    let up = simd.wrapping_dyn_shr_u32s(sum, simd.splat_u32s(16));
    simd.select_u32s(number, up, simd.or_u32s(upper, simd.splat_u32s(0x40)))
}
