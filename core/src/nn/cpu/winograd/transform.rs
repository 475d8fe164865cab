//! The transforms of F(4×4, 3×3) (Lavin & Gray 2016) on vectors of channels: points 0, ±1, ±2, ∞.
//!
//! A 4 × 4 tile of Y is Aᵀ[(G·g·Gᵀ) ∘ (Bᵀ·d·B)]A of a 6 × 6 patch d of X and a 3 × 3 kernel g; the kernel's gradient is
//! Gᵀ[(Bᵀ·d·B) ∘ (A·dY·Aᵀ)]G.

use crate::nn::cpu::simd::{Simd, mul_add};

/// a·b + c with a constant.
#[inline(always)]
fn fma<S: Simd>(s: S, a: f32, b: S::f32s, c: S::f32s) -> S::f32s {
    mul_add(s, s.splat_f32s(a), b, c)
}

#[inline(always)]
fn mul<S: Simd>(s: S, a: f32, b: S::f32s) -> S::f32s {
    s.mul_f32s(s.splat_f32s(a), b)
}

/// Bᵀ·d.
#[inline(always)]
pub fn input<S: Simd>(s: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
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

/// Aᵀ·m.
#[inline(always)]
pub fn output<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
    let (a, b) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
    let (c, d) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
    [s.add_f32s(m[0], s.add_f32s(a, c)), fma(s, 2.0, d, b), fma(s, 4.0, c, a), s.add_f32s(fma(s, 8.0, d, b), m[5])]
}

/// A·y.
#[inline(always)]
pub fn gradient<S: Simd>(s: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
    let (even, odd) = (s.add_f32s(y[0], y[2]), s.add_f32s(y[1], y[3]));
    let (even2, odd2) = (fma(s, 4.0, y[2], y[0]), fma(s, 2.0, y[1], mul(s, 8.0, y[3])));
    [y[0], s.add_f32s(even, odd), s.sub_f32s(even, odd), s.add_f32s(even2, odd2), s.sub_f32s(even2, odd2), y[3]]
}

/// G·g.
#[inline(always)]
pub fn kernel<S: Simd>(s: S, g: [S::f32s; 3]) -> [S::f32s; 6] {
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

/// Gᵀ·m.
#[inline(always)]
pub fn kernel_gradient<S: Simd>(s: S, m: [S::f32s; 6]) -> [S::f32s; 3] {
    let (a, b) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
    let (c, d) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
    let sixth = mul(s, -1.0 / 6.0, a);
    [
        fma(s, 0.25, m[0], fma(s, 1.0 / 24.0, c, sixth)),
        fma(s, -1.0 / 6.0, b, mul(s, 1.0 / 12.0, d)),
        s.add_f32s(fma(s, 1.0 / 6.0, c, sixth), m[5]),
    ]
}

/// A transform along both axes of a matrix: `|i| row` gives its rows, and `|k, v| put` gets the result's k-th element, counted
/// row by row of `n` columns. A macro, not a function of closures: those may stay calls, which vector registers do not survive.
macro_rules! tile {
    ($s:expr, $along:path, [$($f:literal)*] => $n:literal [$($t:literal)*], |$i:ident| $row:expr, |$k:ident, $v:ident| $put:expr) => {{
        let half = [$({ let $i: usize = $f; $along($s, $row) }),*];
        tile!(@columns $s, $along, half, [$($f)*], $n, [$($t)*], [$($t)*], $k, $v, $put);
    }};
    (@columns $s:expr, $along:path, $half:ident, $from:tt, $n:literal, [$($j:literal)*], $to:tt, $k:ident, $v:ident, $put:expr) => {
        $( tile!(@column $s, $along, $half, $from, $n, $j, $to, $k, $v, $put); )*
    };
    (@column $s:expr, $along:path, $half:ident, [$($f:literal)*], $n:literal, $j:literal, [$($t:literal)*], $k:ident, $v:ident, $put:expr) => {
        let column = $along($s, [$($half[$f][$j]),*]);
        $({ let $k: usize = $t * $n + $j; let $v = column[$t]; $put; })*
    };
}
pub(super) use tile;
