//! The transforms of Winograd convolutions (Lavin & Gray 2016) on vectors of channels.
//!
//! A tile of Y is Aᵀ[(G·g·Gᵀ) ∘ (Bᵀ·d·B)]A for a patch d of X, wider than the tile by two, and a 3 × 3 kernel g; the kernel's gradient is
//! Gᵀ[(Bᵀ·d·B) ∘ (A·dY·Aᵀ)]G. Each transform is applied along both axes.

use crate::simd::{Simd, mul_add};

/// One column or row of a matrix to be transformed; its first few vectors are used.
pub type Side<S> = [<S as Simd>::f32s; 6];

/// F(m×m, 3×3), m the tile's side.
pub trait Form: Copy + Send + Sync + 'static {
    /// Output pixels along a tile's side.
    const TILE: usize;
    /// Input pixels along a patch's side.
    const PATCH: usize = Self::TILE + 2;
    /// Products in a tile.
    const PLANES: usize = Self::PATCH * Self::PATCH;

    /// Bᵀ·d.
    fn input<S: Simd>(s: S, d: Side<S>) -> Side<S>;
    /// Aᵀ·m.
    fn output<S: Simd>(s: S, m: Side<S>) -> Side<S>;
    /// A·y.
    fn gradient<S: Simd>(s: S, y: Side<S>) -> Side<S>;
    /// G·g.
    fn kernel<S: Simd>(s: S, g: Side<S>) -> Side<S>;
    /// Gᵀ·m.
    fn kernel_gradient<S: Simd>(s: S, m: Side<S>) -> Side<S>;
}

/// a·b + c with a constant.
#[inline(always)]
fn fma<S: Simd>(s: S, a: f32, b: S::f32s, c: S::f32s) -> S::f32s {
    mul_add(s, s.splat_f32s(a), b, c)
}

#[inline(always)]
fn mul<S: Simd>(s: S, a: f32, b: S::f32s) -> S::f32s {
    s.mul_f32s(s.splat_f32s(a), b)
}

/// F(4×4, 3×3), with the points 0, ±1, ±2, ∞: a quarter of the direct products, at an error that f32 tolerates.
#[derive(Clone, Copy)]
pub struct F4;

impl Form for F4 {
    const TILE: usize = 4;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: Side<S>) -> Side<S> {
        let (p, q) = (fma(s, -4.0, d[2], d[4]), fma(s, -4.0, d[1], d[3]));
        let (r, t) = (s.sub_f32s(d[4], d[2]), s.sub_f32s(d[3], d[1]));
        [
            fma(s, 4.0, d[0], fma(s, -5.0, d[2], d[4])),
            s.add_f32s(p, q),
            s.sub_f32s(p, q),
            fma(s, 2.0, t, r),
            fma(s, -2.0, t, r),
            fma(s, 4.0, d[1], fma(s, -5.0, d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Side<S>) -> Side<S> {
        let (a, b) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
        let (c, d) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
        let last = s.add_f32s(fma(s, 8.0, d, b), m[5]);
        [s.add_f32s(m[0], s.add_f32s(a, c)), fma(s, 2.0, d, b), fma(s, 4.0, c, a), last, last, last]
    }

    #[inline(always)]
    fn gradient<S: Simd>(s: S, y: Side<S>) -> Side<S> {
        let (even, odd) = (s.add_f32s(y[0], y[2]), s.add_f32s(y[1], y[3]));
        let (even2, odd2) = (fma(s, 4.0, y[2], y[0]), fma(s, 2.0, y[1], mul(s, 8.0, y[3])));
        [y[0], s.add_f32s(even, odd), s.sub_f32s(even, odd), s.add_f32s(even2, odd2), s.sub_f32s(even2, odd2), y[3]]
    }

    #[inline(always)]
    fn kernel<S: Simd>(s: S, g: Side<S>) -> Side<S> {
        let (even, even2, odd2) = (s.add_f32s(g[0], g[2]), fma(s, 4.0, g[2], g[0]), mul(s, 2.0, g[1]));
        [
            mul(s, 0.25, g[0]),
            mul(s, -1.0 / 6.0, s.add_f32s(even, g[1])),
            mul(s, -1.0 / 6.0, s.sub_f32s(even, g[1])),
            mul(s, 1.0 / 24.0, s.add_f32s(even2, odd2)),
            mul(s, 1.0 / 24.0, s.sub_f32s(even2, odd2)),
            g[2],
        ]
    }

    #[inline(always)]
    fn kernel_gradient<S: Simd>(s: S, m: Side<S>) -> Side<S> {
        let (a, b) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
        let (c, d) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
        let sixth = mul(s, -1.0 / 6.0, a);
        let last = s.add_f32s(fma(s, 1.0 / 6.0, c, sixth), m[5]);
        let first = fma(s, 0.25, m[0], fma(s, 1.0 / 24.0, c, sixth));
        [first, fma(s, -1.0 / 6.0, b, mul(s, 1.0 / 12.0, d)), last, last, last, last]
    }
}

/// F(2×2, 3×3), with the points 0, ±1, ∞: four ninths of the direct products, at an error that bf16 tolerates.
#[derive(Clone, Copy)]
pub struct F2;

impl Form for F2 {
    const TILE: usize = 2;

    #[inline(always)]
    fn input<S: Simd>(s: S, d: Side<S>) -> Side<S> {
        let last = s.sub_f32s(d[1], d[3]);
        [s.sub_f32s(d[0], d[2]), s.add_f32s(d[1], d[2]), s.sub_f32s(d[2], d[1]), last, last, last]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: Side<S>) -> Side<S> {
        let last = s.sub_f32s(s.sub_f32s(m[1], m[2]), m[3]);
        [s.add_f32s(m[0], s.add_f32s(m[1], m[2])), last, last, last, last, last]
    }

    #[inline(always)]
    fn gradient<S: Simd>(s: S, y: Side<S>) -> Side<S> {
        let last = s.neg_f32s(y[1]);
        [y[0], s.add_f32s(y[0], y[1]), s.sub_f32s(y[0], y[1]), last, last, last]
    }

    #[inline(always)]
    fn kernel<S: Simd>(s: S, g: Side<S>) -> Side<S> {
        let (even, odd) = (mul(s, 0.5, s.add_f32s(g[0], g[2])), mul(s, 0.5, g[1]));
        [g[0], s.add_f32s(even, odd), s.sub_f32s(even, odd), g[2], g[2], g[2]]
    }

    #[inline(always)]
    fn kernel_gradient<S: Simd>(s: S, m: Side<S>) -> Side<S> {
        let (even, odd) = (mul(s, 0.5, s.add_f32s(m[1], m[2])), mul(s, 0.5, s.sub_f32s(m[1], m[2])));
        let last = s.add_f32s(even, m[3]);
        [s.add_f32s(m[0], even), odd, last, last, last, last]
    }
}

/// Transforms a matrix of `from` × `from` vectors along both axes to one of `to` × `to`: `|i, j| vector` gives its elements, and `|k, v|
/// put` gets element k of the result, counted row by row. It is a macro and not a function with closures, because these may be compiled to
/// calls, which spill vector registers.
macro_rules! tile {
    ($s:expr, $along:path, $from:expr => $to:expr, |$i:ident, $j:ident| $get:expr, |$k:ident, $v:ident| $put:expr) => {{
        let zero = $s.splat_f32s(0.0);
        let mut half = [[zero; 6]; 6];
        for $i in 0..$from {
            let mut row = [zero; 6];
            for $j in 0..$from {
                row[$j] = $get;
            }
            half[$i] = $along($s, row);
        }
        for j in 0..$to {
            let mut column = [zero; 6];
            for i in 0..$from {
                column[i] = half[i][j];
            }
            let column = $along($s, column);
            for i in 0..$to {
                let ($k, $v) = (i * $to + j, column[i]);
                $put;
            }
        }
    }};
}
pub(super) use tile;
