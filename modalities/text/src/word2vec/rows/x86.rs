//! The training step in AVX-512, and in AVX2 with FMA.
//!
//! A row's values are loaded and stored by one assembly instruction each. To the compiler that is neither a plain access, which would be
//! undefined behaviour with other threads, nor an atomic one, which it would not turn into vector instructions. The machine treats it like
//! relaxed atomics of its 4-byte parts.
//!
//! Scores are computed for two contexts by six outputs at a time, with twelve sums in registers, which are reduced to one vector of lanes,
//! so that one exponential serves all twelve. Then rows are changed vector by vector, each read and written once.

use std::arch::asm;
use std::arch::x86_64::*;

use super::step::{OUTPUTS, Step, Two, Ways, by_count, by_width};
use super::{LANES, Lane, Line};

/// The values of a line, by instructions that every such machine has.
#[inline]
pub(super) fn get(line: &Line) -> Lane {
    let mut parts = [[0.0f32; 4]; LANES / 4];
    for (at, part) in parts.iter_mut().enumerate() {
        let out: __m128;
        // SAFETY: reads 16 of the 64 bytes of a live line, which is aligned to 64 bytes; any bits are four floats.
        unsafe {
            asm!(
                "movaps {}, [{} + {}]", out(xmm_reg) out, in(reg) line.0.as_ptr(), in(reg) 16 * at,
                options(nostack, preserves_flags, readonly),
            );
            *part = std::mem::transmute::<__m128, [f32; 4]>(out);
        }
    }
    // SAFETY: both types are sixteen floats in the same order.
    unsafe { std::mem::transmute::<[[f32; 4]; LANES / 4], Lane>(parts) }
}

/// Overwrites a line.
#[inline]
pub(super) fn set(line: &Line, values: Lane) {
    for (at, part) in values.as_chunks::<4>().0.iter().enumerate() {
        // SAFETY: writes 16 of the 64 bytes of a live line, which is aligned to 64 bytes and consists of atomics, so it may be written
        // through a shared reference.
        unsafe {
            let part = std::mem::transmute::<[f32; 4], __m128>(*part);
            asm!(
                "movaps [{} + {}], {}", in(reg) line.0.as_ptr(), in(reg) 16 * at, in(xmm_reg) part,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// A vector of floats. All functions require that the machine has its instructions; `load` and `store` also that the bytes lie within a
/// live row, as [`StepFn`](super::step::StepFn) demands.
pub(super) trait Vector: Copy {
    /// The type for a half line that is left over at a row's end.
    type Rest: Vector<Rest = Self::Rest>;
    /// Half lines in a vector.
    const HALVES: usize;
    const BYTES: usize = 32 * Self::HALVES;

    unsafe fn load(row: *const Line, at: usize) -> Self;
    unsafe fn store(self, row: *const Line, at: usize);
    unsafe fn zero() -> Self;
    unsafe fn splat(x: &f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self·by + to.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// A rest in the first lanes of a vector, and zeros in the others.
    unsafe fn widen(rest: Self::Rest) -> Self;
    /// Reduces the lanes of six vectors, twice: to `scores`, and as slopes to `slopes`.
    unsafe fn finish(sums: &[[Self; OUTPUTS]; 2], rates: &Two, labels: &Two, scores: &mut Two, slopes: &mut Two);
}

/// The functions that differ between vector types only in names of instructions.
macro_rules! plain {
    ($features:literal, $register:ident, $zero:ident, $splat:ident, $add:ident, $mul:ident, $mul_add:ident) => {
        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn load(row: *const Line, at: usize) -> Self {
            let out;
            // SAFETY: the caller passes a live row that has these bytes; rows are aligned to 64 bytes, so the vector is aligned.
            unsafe {
                asm!(
                    "vmovaps {}, [{} + {}]", out($register) out, in(reg) row, in(reg) at,
                    options(nostack, preserves_flags, readonly),
                )
            };
            out
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn store(self, row: *const Line, at: usize) {
            // SAFETY: the caller passes a live row that has these bytes; rows are aligned to 64 bytes and consist of atomics, so they may
            // be written through a shared pointer.
            unsafe {
                asm!(
                    "vmovaps [{} + {}], {}", in(reg) row, in(reg) at, in($register) self,
                    options(nostack, preserves_flags),
                )
            };
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn zero() -> Self {
            $zero()
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn splat(x: &f32) -> Self {
            $splat(*x)
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn add(self, other: Self) -> Self {
            $add(self, other)
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn mul(self, other: Self) -> Self {
            $mul(self, other)
        }

        #[inline]
        #[target_feature(enable = $features)]
        unsafe fn mul_add(self, by: Self, to: Self) -> Self {
            $mul_add(self, by, to)
        }
    };
}

impl Vector for __m512 {
    type Rest = __m256;
    const HALVES: usize = 2;

    plain!("avx512f", zmm_reg, _mm512_setzero_ps, _mm512_set1_ps, _mm512_add_ps, _mm512_mul_ps, _mm512_fmadd_ps);

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn widen(rest: __m256) -> Self {
        _mm512_zextps256_ps512(rest)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn finish([a, b]: &[[Self; OUTPUTS]; 2], rates: &Two, labels: &Two, scores: &mut Two, slopes: &mut Two) {
        let score = lanes([a, b]);
        // σ(x) = 1 / (1 + 2^(n + f)) with n + f = −x log₂ e: a polynomial for 2^f, the exponent bits for 2^n.
        let x = _mm512_min_ps(_mm512_max_ps(score, _mm512_set1_ps(-FAR)), _mm512_set1_ps(FAR));
        let t = _mm512_mul_ps(x, _mm512_set1_ps(-std::f32::consts::LOG2_E));
        let n = _mm512_roundscale_ps::<8>(t);
        let f = _mm512_sub_ps(t, n);
        let mut power = _mm512_set1_ps(POWER[0]);
        for c in &POWER[1..] {
            power = _mm512_fmadd_ps(power, f, _mm512_set1_ps(*c));
        }
        let one = _mm512_set1_ps(1.0);
        let sigmoid = _mm512_div_ps(one, _mm512_add_ps(one, _mm512_scalef_ps(power, n)));
        // SAFETY: all four are arrays of sixteen floats that are aligned to 64 bytes in `Step`.
        unsafe {
            let slope = _mm512_mul_ps(_mm512_load_ps(rates.as_ptr()), _mm512_sub_ps(_mm512_load_ps(labels.as_ptr()), sigmoid));
            _mm512_store_ps(scores.as_mut_ptr(), score);
            _mm512_store_ps(slopes.as_mut_ptr(), slope);
        }
    }
}

/// Sums the lanes of twelve vectors, six for each context, into one lane each.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes([a, b]: [&[__m512; OUTPUTS]; 2]) -> __m512 {
    // Each quarter of `four` has the sums of that quarter of its four arguments, in order.
    let four = |a, b, c, d| {
        let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
        _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)), _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)))
    };
    // The quarters of both, added in pairs.
    let halve = |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
    let (x, y, z) = (four(a[0], a[1], a[2], a[3]), four(a[4], a[5], b[0], b[1]), four(b[2], b[3], b[4], b[5]));
    halve(halve(x, y), halve(z, z))
}

impl Vector for __m256 {
    type Rest = __m256;
    const HALVES: usize = 1;

    plain!("avx2,fma", ymm_reg, _mm256_setzero_ps, _mm256_set1_ps, _mm256_add_ps, _mm256_mul_ps, _mm256_fmadd_ps);

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn widen(rest: __m256) -> Self {
        rest
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn finish([a, b]: &[[Self; OUTPUTS]; 2], rates: &Two, labels: &Two, scores: &mut Two, slopes: &mut Two) {
        let four = |a, b, c, d| {
            let halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves))
        };
        let (x, y, z) = (four(a[0], a[1], a[2], a[3]), four(a[4], a[5], b[0], b[1]), four(b[2], b[3], b[4], b[5]));
        let one = _mm256_set1_ps(1.0);
        for (at, score) in [_mm256_set_m128(y, x), _mm256_set_m128(z, z)].into_iter().enumerate() {
            // As with 512 bits, except that the exponent is assembled by integer instructions.
            let x = _mm256_min_ps(_mm256_max_ps(score, _mm256_set1_ps(-FAR)), _mm256_set1_ps(FAR));
            let t = _mm256_mul_ps(x, _mm256_set1_ps(-std::f32::consts::LOG2_E));
            let n = _mm256_round_ps::<8>(t);
            let f = _mm256_sub_ps(t, n);
            let mut power = _mm256_set1_ps(POWER[0]);
            for c in &POWER[1..] {
                power = _mm256_fmadd_ps(power, f, _mm256_set1_ps(*c));
            }
            let exponent = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            let power = _mm256_mul_ps(power, _mm256_castsi256_ps(exponent));
            let sigmoid = _mm256_div_ps(one, _mm256_add_ps(one, power));
            // SAFETY: all four are arrays of sixteen floats that are aligned to 64 bytes in `Step`, of which 8·`at` is within.
            unsafe {
                let (rate, label) = (_mm256_load_ps(rates.as_ptr().add(8 * at)), _mm256_load_ps(labels.as_ptr().add(8 * at)));
                _mm256_store_ps(scores.as_mut_ptr().add(8 * at), score);
                _mm256_store_ps(slopes.as_mut_ptr().add(8 * at), _mm256_mul_ps(rate, _mm256_sub_ps(label, sigmoid)));
            }
        }
    }
}

/// Beyond this σ is 0 or 1 in f32, and e^x is still finite.
const FAR: f32 = 80.0;

/// 2^f on [−½, ½], highest power first (Taylor, degree 6: exact to 1.2e-7).
const POWER: [f32; 7] = [0.000_154_035_3, 0.001_333_355_8, 0.009_618_129, 0.055_504_11, 0.240_226_5, std::f32::consts::LN_2, 1.0];

/// Both phases for `M` contexts and rows of `halves` half lines.
#[inline(always)]
unsafe fn both<V: Vector, const M: usize>(step: &mut Step, halves: usize) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows of `halves` half lines, and `contexts` has `M`; loops
    // stay within the arrays' `M` contexts and `OUTPUTS` outputs.
    unsafe {
        let (whole, rest) = (halves / V::HALVES, !halves.is_multiple_of(V::HALVES));
        for pair in 0..M / 2 {
            scores::<V, 2>(step, pair, whole, rest);
        }
        if M % 2 == 1 {
            scores::<V, 1>(step, M / 2, whole, rest);
        }
        // Copies, because the compiler assumes that every store to a row may change `step`.
        let (outputs, later, input) = (*step.outputs, *step.later, step.later_input);
        for at in 0..whole {
            ask(&later[M.div_ceil(2)..], at * V::BYTES);
            ask(&[input], at * V::BYTES);
            update::<V, M>(step, &outputs, at * V::BYTES);
        }
        if rest {
            ask(&later[M.div_ceil(2)..], whole * V::BYTES);
            ask(&[input], whole * V::BYTES);
            update::<V::Rest, M>(step, &outputs, whole * V::BYTES);
        }
    }
}

/// Prefetches the line of each row at byte `at` for writing: without that intent, a line in another core's cache would be requested twice,
/// for reading and for owning it. It is a hint that reads and writes nothing, whatever the address; processors that do not know it ignore
/// it.
///
/// A few rows at a time between the sums, not all at a step's start: a core waits for only so many lines at once, and further requests
/// block what follows (a quarter of a thread's time on Zen 4).
#[inline(always)]
pub(super) fn ask(rows: &[*const Line], at: usize) {
    for row in rows {
        // SAFETY: the instruction is a hint, which reads and writes nothing and is allowed for any address.
        unsafe { asm!("prefetchw [{}]", in(reg) row.wrapping_byte_add(at), options(nostack, preserves_flags, readonly)) };
    }
}

/// The scores and slopes of context 2·`pair` and, if `N` is 2, the next.
#[inline(always)]
unsafe fn scores<V: Vector, const N: usize>(step: &mut Step, pair: usize, whole: usize, rest: bool) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows of `halves` half lines; the caller passes `pair` and
    // `N` so that these contexts exist, and `whole` and `rest` from `halves`.
    unsafe {
        let (outputs, later) = (*step.outputs, [(*step.later)[pair]]);
        let contexts: [*const Line; N] = std::array::from_fn(|i| *step.contexts.add(2 * pair + i));
        let mut sums = [[V::zero(); OUTPUTS]; 2];
        if rest {
            let at = whole * V::BYTES;
            ask(&later, at);
            let inputs: [V::Rest; N] = std::array::from_fn(|i| V::Rest::load(contexts[i], at));
            for j in 0..OUTPUTS {
                let output = V::Rest::load(outputs[j], at);
                for i in 0..N {
                    sums[i][j] = V::widen(inputs[i].mul(output));
                }
            }
        }
        for at in 0..whole {
            let at = at * V::BYTES;
            ask(&later, at);
            let inputs: [V; N] = std::array::from_fn(|i| V::load(contexts[i], at));
            for j in 0..OUTPUTS {
                let output = V::load(outputs[j], at);
                for i in 0..N {
                    sums[i][j] = inputs[i].mul_add(output, sums[i][j]);
                }
            }
        }
        let (scores, slopes) = (step.scores.get_unchecked_mut(pair), step.slopes.get_unchecked_mut(pair));
        V::finish(&sums, step.rates.get_unchecked(pair), &step.labels, scores, slopes);
    }
}

/// Changes one vector, at byte `at`, of all rows.
#[inline(always)]
unsafe fn update<V: Vector, const M: usize>(step: &Step, rows: &[*const Line; OUTPUTS], at: usize) {
    // SAFETY: by the contract of `StepFn` the pointers of the step are of live rows, which the caller says have a vector at byte `at`;
    // loops stay within the arrays' `M` contexts and `OUTPUTS` outputs.
    unsafe {
        let outputs: [V; OUTPUTS] = std::array::from_fn(|j| V::load(rows[j], at));
        let mut moved = outputs;
        for pair in 0..M / 2 {
            let slopes = step.slopes.get_unchecked(pair);
            let (a, b) = (*step.contexts.add(2 * pair), *step.contexts.add(2 * pair + 1));
            let (x, y) = (V::load(a, at), V::load(b, at));
            let (mut to_x, mut by_y) = (x, V::zero());
            for j in 0..OUTPUTS {
                let (g, h) = (V::splat(&slopes[j]), V::splat(&slopes[OUTPUTS + j]));
                moved[j] = h.mul_add(y, g.mul_add(x, moved[j]));
                to_x = g.mul_add(outputs[j], to_x);
                by_y = h.mul_add(outputs[j], by_y);
            }
            to_x.store(a, at);
            // Both may be the same row, so the second is read again.
            V::load(b, at).add(by_y).store(b, at);
        }
        if M % 2 == 1 {
            let (slopes, a) = (step.slopes.get_unchecked(M / 2), *step.contexts.add(M - 1));
            let x = V::load(a, at);
            let mut to_x = x;
            for j in 0..OUTPUTS {
                let g = V::splat(&slopes[j]);
                moved[j] = g.mul_add(x, moved[j]);
                to_x = g.mul_add(outputs[j], to_x);
            }
            to_x.store(a, at);
        }
        for j in 0..OUTPUTS {
            moved[j].store(rows[j], at);
        }
    }
}

/// `mean` or `give_back`, vector by vector.
macro_rules! whole_rows {
    ($name:ident, $part:ident) => {
        #[inline(always)]
        unsafe fn $name<V: Vector>(step: &mut Step, halves: usize) {
            // SAFETY: the caller keeps the contract of `StepFn`, and passes its `halves`, so each vector lies within the rows.
            unsafe {
                let whole = halves / V::HALVES;
                // Loops instead of closures: a closure that is not inlined is compiled without the vector instructions.
                for at in 0..whole {
                    $part::<V>(step, at * V::BYTES);
                }
                if !halves.is_multiple_of(V::HALVES) {
                    $part::<V::Rest>(step, whole * V::BYTES);
                }
            }
        }
    };
}

whole_rows!(gather, mean);
whole_rows!(scatter, give_back);

#[inline(always)]
unsafe fn mean<V: Vector>(step: &Step, at: usize) {
    // SAFETY: by the contract of `StepFn`, `words` and `bag` point to live rows, which the caller says have a vector at byte `at`.
    unsafe {
        let mut sum = V::zero();
        for &word in &step.words {
            sum = sum.add(V::load(word, at));
        }
        let mean = sum.mul(V::splat(&(1.0 / step.words.len() as f32)));
        mean.store(step.bag[0], at);
        mean.store(step.bag[1], at);
    }
}

#[inline(always)]
unsafe fn give_back<V: Vector>(step: &Step, at: usize) {
    // SAFETY: by the contract of `StepFn`, `words` and `bag` point to live rows, which the caller says have a vector at byte `at`.
    unsafe {
        let back = V::splat(&step.back);
        let moved = V::load(step.bag[1], at).mul(back);
        let moved = V::load(step.bag[0], at).mul_add(V::splat(&-step.back), moved);
        for &word in &step.words {
            V::load(word, at).add(moved).store(word, at);
        }
    }
}

macro_rules! compiled {
    ($pick:ident, $step:ident, $gather:ident, $scatter:ident, $vector:ty, $features:literal) => {
        /// The step for rows of `halves` half lines, compiled for that number if it is a usual one.
        pub(super) fn $pick(halves: usize) -> Ways {
            by_width!(halves, WIDTH => Ways { contexts: $step::<WIDTH>, gather: $gather::<WIDTH>, scatter: $scatter::<WIDTH> })
        }

        #[target_feature(enable = $features)]
        unsafe fn $gather<const HALVES: usize>(step: &mut Step) {
            let halves = if HALVES > 0 { HALVES } else { step.halves };
            // SAFETY: the caller keeps the contract of `StepFn`; the enclosing function is compiled for this vector's instructions.
            unsafe { gather::<$vector>(step, halves) }
        }

        #[target_feature(enable = $features)]
        unsafe fn $scatter<const HALVES: usize>(step: &mut Step) {
            let halves = if HALVES > 0 { HALVES } else { step.halves };
            // SAFETY: the caller keeps the contract of `StepFn`; the enclosing function is compiled for this vector's instructions.
            unsafe { scatter::<$vector>(step, halves) }
        }

        #[target_feature(enable = $features)]
        unsafe fn $step<const HALVES: usize>(step: &mut Step) {
            let halves = if HALVES > 0 { HALVES } else { step.halves };
            // SAFETY: the caller keeps the contract of `StepFn`; each arm is compiled for exactly `count` contexts.
            unsafe {
                by_count!(step.count, M => both::<$vector, M>(step, halves))
            }
        }
    };
}

compiled!(avx512, step512, gather512, scatter512, __m512, "avx512f,avx512dq,avx512vl,avx2,fma");
compiled!(avx2, step256, gather256, scatter256, __m256, "avx2,fma");

const _: () = assert!(2 * OUTPUTS <= LANES);
