//! A row's sum, its product with another row, and its largest value. In f32 and bf16 four vectors of partial results are kept side by side,
//! because each addition waits for the one before it.

use num_traits::Float;

use crate::fast::Fast;
use crate::simd::{Simd, WithSimd, mul_add, run};

/// What a row of numbers is reduced to.
pub trait Folds: Sized {
    /// Σ x.
    fn sum(x: &[Self]) -> Self;

    /// The dot product of two rows. If one is longer, its last values are left out.
    fn dot(a: &[Self], b: &[Self]) -> Self;

    /// The largest value, −∞ of none. A row that has NaNs may give any of its values.
    fn largest(x: &[Self]) -> Self;
}

impl Folds for f32 {
    fn sum(x: &[f32]) -> f32 {
        run(Sum(x))
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        dot(a, b)
    }

    fn largest(x: &[f32]) -> f32 {
        run(Largest(x))
    }
}

impl Folds for f64 {
    fn sum(x: &[f64]) -> f64 {
        x.iter().sum()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn largest(x: &[f64]) -> f64 {
        x.iter().copied().fold(f64::neg_infinity(), f64::max)
    }
}

/// Σ a·b in f32.
pub(crate) fn dot<T: Fast>(a: &[T], b: &[T]) -> f32 {
    let n = a.len().min(b.len());
    run(Dot(&a[..n], &b[..n]))
}

struct Sum<'a>(&'a [f32]);
struct Largest<'a>(&'a [f32]);
struct Dot<'a, T>(&'a [T], &'a [T]);

/// Combines the vectors of a row of so many values: `$next` gives the new partial result of an old one and of the values from a place on.
macro_rules! fold {
    ($simd:expr, $n:expr, $start:expr, |$part:ident, $at:ident, $count:ident| $next:expr, $join:ident) => {{
        let (lanes, n, mut first) = (S::F32_LANES, $n, 0);
        let mut parts = [$start; 4];
        while first + 4 * lanes <= n {
            for (k, part) in parts.iter_mut().enumerate() {
                let ($part, $at, $count) = (*part, first + k * lanes, lanes);
                *part = $next;
            }
            first += 4 * lanes;
        }
        while first < n {
            let ($part, $at, $count) = (parts[0], first, lanes.min(n - first));
            parts[0] = $next;
            first += lanes;
        }
        $simd.$join($simd.$join(parts[0], parts[1]), $simd.$join(parts[2], parts[3]))
    }};
}

impl WithSimd for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (x, zero) = (self.0, simd.splat_f32s(0.0));
        let next = fold!(simd, x.len(), zero, |sum, at, count| simd.add_f32s(sum, f32::load_some(simd, x, at, count)), add_f32s);
        simd.reduce_sum_f32s(next)
    }
}

impl WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (x, lowest) = (self.0, simd.splat_f32s(f32::NEG_INFINITY));
        // Without the last values, beside which a vector would have zeros.
        let whole = x.len() / S::F32_LANES * S::F32_LANES;
        let top = fold!(simd, whole, lowest, |top, at, count| simd.max_f32s(top, f32::load_some(simd, x, at, count)), max_f32s);
        x[whole..].iter().fold(simd.reduce_max_f32s(top), |top, x| if *x > top { *x } else { top })
    }
}

impl<T: Fast> WithSimd for Dot<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (Dot(a, b), zero) = (self, simd.splat_f32s(0.0));
        let next = fold!(
            simd,
            a.len(),
            zero,
            |sum, at, count| mul_add(simd, T::load_some(simd, a, at, count), T::load_some(simd, b, at, count), sum),
            add_f32s
        );
        simd.reduce_sum_f32s(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::{Bf16, Element};

    #[test]
    fn rows_of_every_length_follow_f64() {
        for n in (0..140).chain([384, 1000]) {
            let [a, b] = [0.3, 0.7].map(|step| (0..n).map(|i| (i as f64 * step + 0.1).sin()).collect::<Vec<f64>>());
            let down = |x: &[f64]| x.iter().map(|x| *x as f32).collect::<Vec<_>>();
            let (near, bound) = (|found: f32, exact: f64| (f64::from(found) - exact).abs(), 1e-6 * (n as f64).max(1.0));
            assert!(near(f32::sum(&down(&a)), f64::sum(&a)) <= bound, "sum of {n}");
            assert!(near(f32::dot(&down(&a), &down(&b)), f64::dot(&a, &b)) <= bound, "product of {n}");
            assert_eq!(f32::largest(&down(&a)), f64::largest(&a) as f32, "largest of {n}");
            let half = |x: &[f64]| x.iter().map(|x| Bf16::down(*x as f32)).collect::<Vec<_>>();
            let wide = |x: &[Bf16]| x.iter().map(|x| f64::from(x.up())).collect::<Vec<_>>();
            let (a, b) = (half(&a), half(&b));
            assert!(near(dot(&a, &b), f64::dot(&wide(&a), &wide(&b))) <= bound, "product of {n} in bf16");
        }
        assert_eq!(f32::largest(&[-3.0; 21]), -3.0);
    }
}
