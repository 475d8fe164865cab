//! The training step in AVX-512 with products of bf16 (AVX512-BF16): one instruction multiplies and adds two values in each lane instead of
//! one.
//!
//! Rows and sums stay f32; the factors of products are rounded to bf16, 8 bits of precision. That changes scores by half a percent, about
//! as much as word2vec.c's table of σ, and the changes of rows as well; small changes are not lost, because they are added in f32. The
//! vectors are as good (see `configs/word2vec/news.toml`).
//!
//! The two products of a lane are added, so both values in a lane must belong to one sum. For scores these are two values of a row; for
//! changes of an output the same value of two contexts, for changes of a context the same value of two outputs.

#![allow(clippy::needless_range_loop, reason = "vectors of several rows")]

use std::arch::asm;
use std::arch::x86_64::*;

use super::step::{CONTEXTS, OUTPUTS, Step, StepFn, Ways, by_count, by_width};
use super::x86::{self, Vector, ask};
use super::{LANES, Line};

/// A vector whose lanes can hold two bf16 values each.
trait Pairs: Vector {
    type Packed: Copy;

    /// The bf16 halves of both, those of `high` in the upper half of each lane.
    unsafe fn pack(high: Self, low: Self) -> Self::Packed;
    /// sum + a·b, over both halves.
    unsafe fn dot(self, a: Self::Packed, b: Self::Packed) -> Self;
    /// The same two halves in every lane, loaded each time: keeping them would take more registers than there are.
    unsafe fn spread(pair: &u32) -> Self::Packed;
}

macro_rules! pairs {
    ($vector:ident, $features:literal, $register:ident, $shift:ident, $blend:ident, $to:ident, $set:ident, $dot:ident, $packed:ident, $half:ident) => {
        impl Pairs for $vector {
            type Packed = $packed;

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn pack(high: Self, low: Self) -> $packed {
                let low = $shift::<16>($to(low));
                // (high and mask) or low.
                $blend::<0xea>($to(high), $set(0xffff_0000_u32 as i32), low)
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn dot(self, a: $packed, b: $packed) -> Self {
                // SAFETY: both types are bits of the same size, and any bits are valid.
                unsafe { $dot(self, std::mem::transmute::<$packed, $half>(a), std::mem::transmute::<$packed, $half>(b)) }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn spread(pair: &u32) -> $packed {
                let out;
                // SAFETY: `pair` is a reference, so its four bytes may be read.
                unsafe {
                    asm!(
                        "vpbroadcastd {}, dword ptr [{}]", out($register) out, in(reg) pair,
                        options(nostack, preserves_flags, readonly),
                    )
                };
                out
            }
        }
    };
}

pairs!(
    __m512,
    "avx512f,avx512bf16",
    zmm_reg,
    _mm512_srli_epi32,
    _mm512_ternarylogic_epi32,
    _mm512_castps_si512,
    _mm512_set1_epi32,
    _mm512_dpbf16_ps,
    __m512i,
    __m512bh
);
pairs!(
    __m256,
    "avx512f,avx512vl,avx512bf16,avx2",
    ymm_reg,
    _mm256_srli_epi32,
    _mm256_ternarylogic_epi32,
    _mm256_castps_si256,
    _mm256_set1_epi32,
    _mm256_dpbf16_ps,
    __m256i,
    __m256bh
);

const BYTES: usize = size_of::<__m512>();

/// Both phases for `M` contexts and rows of `HALVES` half lines, or as many as the step says.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn both<const M: usize, const HALVES: usize>(step: &mut Step) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows of `halves` half lines, and `contexts` has at least
    // `M`; loops stay within the arrays' `M` contexts and `OUTPUTS` outputs.
    unsafe {
        let halves = if HALVES > 0 { HALVES } else { step.halves };
        let (whole, rest) = (halves / 2, halves % 2 == 1);
        // Outputs are used with every context, so they are packed once.
        let outputs = *step.outputs;
        for (at, packed) in step.packed.iter_mut().enumerate().take(whole / 2) {
            for (packed, row) in packed.iter_mut().zip(outputs) {
                *packed = by_places(row, at);
            }
        }
        // The sums of a block of contexts are computed while the slopes of the one before wait for each other.
        for block in 0..M / 4 {
            sum::<4, HALVES>(step, 4 * block);
        }
        match M % 4 {
            1 => sum::<1, HALVES>(step, M / 4 * 4),
            2 => sum::<2, HALVES>(step, M / 4 * 4),
            3 => sum::<3, HALVES>(step, M / 4 * 4),
            _ => {}
        }
        let (later, input) = (*step.later, step.later_input);
        let later = |line: usize| {
            ask(&later[M.div_ceil(2)..], line * BYTES);
            ask(&[input], line * BYTES);
        };
        for at in 0..whole / 2 {
            later(2 * at);
            later(2 * at + 1);
            update::<__m512, M, 2>(step, &outputs, 2 * at * BYTES);
        }
        if whole % 2 == 1 {
            later(whole - 1);
            update::<__m512, M, 1>(step, &outputs, (whole - 1) * BYTES);
        }
        if rest {
            later(whole);
            update::<__m256, M, 1>(step, &outputs, whole * BYTES);
        }
    }
}

/// Vectors 2·`at` and 2·`at` + 1 of a row, packed into one.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn by_places(row: *const Line, at: usize) -> __m512i {
    // SAFETY: the caller passes a live row that has both vectors, and the machine has AVX512-BF16.
    unsafe { __m512::pack(Vector::load(row, 2 * at * BYTES), Vector::load(row, (2 * at + 1) * BYTES)) }
}

/// The scores of `N` contexts from number `first` on, two contexts in a vector.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn sum<const N: usize, const HALVES: usize>(step: &mut Step, first: usize) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows of `halves` half lines; the caller passes `first` and
    // `N` so that these contexts exist.
    unsafe {
        let halves = if HALVES > 0 { HALVES } else { step.halves };
        let (whole, rest) = (halves / 2, halves % 2 == 1);
        let (contexts, outputs): ([*const Line; N], _) = (std::array::from_fn(|i| *step.contexts.add(first + i)), *step.outputs);
        let later: [*const Line; 2] = std::array::from_fn(|pair| (*step.later)[first / 2 + pair]);
        let later = &later[..N.div_ceil(2)];
        let mut sums = [[_mm512_setzero_ps(); OUTPUTS]; N];
        // A value without a partner is multiplied alone.
        if rest {
            let at = whole * BYTES;
            ask(later, at);
            let inputs: [__m256; N] = std::array::from_fn(|i| Vector::load(contexts[i], at));
            for j in 0..OUTPUTS {
                let output = Vector::load(outputs[j], at);
                for i in 0..N {
                    sums[i][j] = Vector::widen(Vector::mul(inputs[i], output));
                }
            }
        }
        if whole % 2 == 1 {
            let at = (whole - 1) * BYTES;
            ask(later, at);
            let inputs: [__m512; N] = std::array::from_fn(|i| Vector::load(contexts[i], at));
            for j in 0..OUTPUTS {
                let output = Vector::load(outputs[j], at);
                for i in 0..N {
                    sums[i][j] = inputs[i].mul_add(output, sums[i][j]);
                }
            }
        }
        for at in 0..whole / 2 {
            ask(later, 2 * at * BYTES);
            ask(later, (2 * at + 1) * BYTES);
            let inputs: [__m512i; N] = std::array::from_fn(|i| by_places(contexts[i], at));
            let packed = step.packed.get_unchecked(at);
            for j in 0..OUTPUTS {
                for i in 0..N {
                    sums[i][j] = sums[i][j].dot(inputs[i], packed[j]);
                }
            }
        }
        for pair in 0..N.div_ceil(2) {
            // If there is no second context, the first is repeated.
            let scores = x86::lanes([&sums[2 * pair], &sums[(2 * pair + 1).min(N - 1)]]);
            slopes(step, first / 2 + pair, scores);
        }
    }
}

/// σ with four digits: the products are not more precise.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn sigmoid(score: __m512) -> __m512 {
    // 1 / (1 + 2^(n + f)), n + f = −x log₂ e and 0 ≤ f < 1; where 2^n is infinite it is 0.
    let t = _mm512_mul_ps(score, _mm512_set1_ps(-std::f32::consts::LOG2_E));
    let f = _mm512_reduce_ps::<1>(t);
    let square = _mm512_mul_ps(f, f);
    let line = |a: f32, b: f32| _mm512_fmadd_ps(_mm512_set1_ps(a), f, _mm512_set1_ps(b));
    let [five, four, three, two, one, zero] = POWER;
    let power = _mm512_fmadd_ps(_mm512_fmadd_ps(line(five, four), square, line(three, two)), square, line(one, zero));
    _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1.0), _mm512_scalef_ps(power, t)))
}

/// 2^f on [0, 1], highest power first: the minimax polynomial of degree 5.
const POWER: [f32; 6] = [0.001_867_14, 0.009_017_01, 0.055_799_93, 0.240_164_45, 0.693_151_3, 1.0];

/// The rounded gᵢⱼ of two contexts, in the layout that `update` reads: both contexts for each output, then both outputs for each context.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bf16")]
unsafe fn slopes(step: &mut Step, pair: usize, scores: __m512) {
    // SAFETY: `labels` and each of `rates`, `scores`, `slopes` and `pairs` are arrays of sixteen values aligned to 64 bytes in `Step`, and
    // the caller passes a `pair` below their number.
    unsafe {
        let (labels, rates) = (_mm512_load_ps(step.labels.as_ptr()), _mm512_load_ps(step.rates.get_unchecked(pair).as_ptr()));
        let slopes = _mm512_mul_ps(rates, _mm512_sub_ps(labels, sigmoid(scores)));
        let rounded = _mm512_add_epi32(_mm512_castps_si512(slopes), _mm512_set1_epi32(0x8000));
        let of = |lanes| __m512::pack(_mm512_castsi512_ps(rounded), _mm512_castsi512_ps(lanes));
        _mm512_store_ps(step.scores.get_unchecked_mut(pair).as_mut_ptr(), scores);
        let [across, along] = step.pairs.get_unchecked_mut(pair);
        _mm512_store_si512(across.as_mut_ptr().cast(), of(_mm512_alignr_epi32::<{ OUTPUTS as i32 }>(rounded, rounded)));
        _mm512_store_si512(along.as_mut_ptr().cast(), of(_mm512_alignr_epi32::<1>(rounded, rounded)));
    }
}

/// Changes `N` vectors, from byte `at` on, of all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn update<V: Pairs, const M: usize, const N: usize>(step: &Step, rows: &[*const Line; OUTPUTS], at: usize) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows, which the caller says have `N` vectors at byte `at`;
    // loops stay within the arrays' `M` contexts and `OUTPUTS` outputs.
    unsafe {
        let load = |row: *const Line| -> [V; N] { std::array::from_fn(|v| V::load(row, at + v * V::BYTES)) };
        let mut moved: [[V; N]; OUTPUTS] = std::array::from_fn(|j| load(rows[j]));
        let outputs: [[V::Packed; N]; OUTPUTS / 2] =
            std::array::from_fn(|j| std::array::from_fn(|v| V::pack(moved[2 * j][v], moved[2 * j + 1][v])));
        for pair in 0..M.div_ceil(2) {
            // The last of an odd number of contexts has no partner.
            let both = 2 * pair + 1 < M;
            let [across, along] = step.pairs.get_unchecked(pair);
            let (a, b) = (*step.contexts.add(2 * pair), *step.contexts.add(2 * pair + usize::from(both)));
            let mut to_x = load(a);
            let y = if both { load(b) } else { [V::zero(); N] };
            let inputs: [V::Packed; N] = std::array::from_fn(|v| V::pack(to_x[v], y[v]));
            for j in 0..OUTPUTS {
                let slope = V::spread(&across[j]);
                for v in 0..N {
                    moved[j][v] = moved[j][v].dot(inputs[v], slope);
                }
            }
            let mut by_y = [V::zero(); N];
            for j in 0..OUTPUTS / 2 {
                let (g, h) = (V::spread(&along[2 * j]), V::spread(&along[OUTPUTS + 2 * j]));
                for v in 0..N {
                    to_x[v] = to_x[v].dot(outputs[j][v], g);
                    by_y[v] = by_y[v].dot(outputs[j][v], h);
                }
            }
            for v in 0..N {
                to_x[v].store(a, at + v * V::BYTES);
                if both {
                    // Both may be the same row, so the second is read again.
                    V::load(b, at + v * V::BYTES).add(by_y[v]).store(b, at + v * V::BYTES);
                }
            }
        }
        for j in 0..OUTPUTS {
            for v in 0..N {
                moved[j][v].store(rows[j], at + v * V::BYTES);
            }
        }
    }
}

/// The step for rows of `halves` half lines, compiled for that number if it is a usual one.
pub(super) fn ways(halves: usize) -> Ways {
    let contexts: StepFn = by_width!(halves, WIDTH => contexts::<WIDTH>);
    Ways { contexts, ..x86::avx512(halves) }
}

#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bf16,avx2,fma")]
unsafe fn contexts<const HALVES: usize>(step: &mut Step) {
    // SAFETY: the caller keeps the contract of `StepFn`; each arm is compiled for exactly `count` contexts.
    unsafe { by_count!(step.count, M => both::<M, HALVES>(step)) }
}

const _: () = assert!(LANES * size_of::<f32>() == BYTES && OUTPUTS.is_multiple_of(2) && CONTEXTS / 2 < OUTPUTS + 1);
