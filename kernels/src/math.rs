//! Functions of single numbers in forms that become vector instructions: no branches, no tables, no calls. In f64, which only oracles use,
//! they are exact to rounding.

use crate::element::Real;

/// Functions that layers are made of.
pub trait Functions: Sized {
    /// eˣ. In f32 x is clamped to [−87.3, 88.3], so the result is never 0 or infinite; the relative error is below 2·10⁻⁷.
    fn exponential(self) -> Self;

    /// ln(1 + x) for 0 ≤ x ≤ 1. In f32 the relative error is below 3·10⁻⁷.
    fn log_one_plus(self) -> Self;

    /// The standard normal distribution's probability below x, Φ(x), and its density φ(x). In f32 the relative error of both is below
    /// 10⁻⁶ for |x| ≤ 5.
    fn normal(self) -> [Self; 2];
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid<R: Real>(x: R) -> R {
    let one = R::of(1.0);
    one / (one + (-x).exponential())
}

/// σ(x) = 1/(1 + e⁻ˣ) and ln(1 + eˣ), of one exponential. Both are near for every x: neither e⁻ˣ nor eˣ is ever large.
#[inline(always)]
pub fn sigmoid_and_softplus<R: Real>(x: R) -> [R; 2] {
    let (zero, one) = (R::of(0.0), R::of(1.0));
    let e = (-x.abs()).exponential();
    let share = one / (one + e);
    [if x < zero { e * share } else { share }, if x < zero { zero } else { x } + e.log_one_plus()]
}

impl Functions for f32 {
    #[inline(always)]
    fn exponential(self) -> f32 {
        // x = n·ln 2 + r with |r| ≤ ½ ln 2. Adding 1.5·2²³ rounds to a whole number, which the sum's lowest bits then are.
        const ROUND: f32 = 12_582_912.0;
        let x = self.clamp(-87.3, 88.3);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        // ln 2 in two parts, of which the first has few bits.
        let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
        // 1 + r + r²·(a polynomial, fitted to a relative error of 3·10⁻⁹).
        let p = 0.499_999_94 + r * (0.166_665_21 + r * (0.041_668_39 + r * (0.008_368_745 + r * 0.001_381_454)));
        let p = 1.0 + r * (1.0 + r * p);
        // 2ⁿ: n + 127 in the place of an exponent.
        p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
    }

    #[inline(always)]
    fn log_one_plus(self) -> f32 {
        // ln(1 + x) = 2·artanh(z) with z = x/(2 + x) ≤ 1/3, by its series up to z¹³.
        let z = self / (2.0 + self);
        let q = z * z;
        let mut p = 2.0 / 13.0;
        for odd in [11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            p = p * q + 2.0 / odd;
        }
        z * p
    }

    #[inline(always)]
    fn normal(self) -> [f32; 2] {
        // Φ(−t) = e^(−t²/2)·Q(t), with Q a polynomial in u = 1/(1 + .305·t) without constant term, fitted to a relative error of 10⁻⁷.
        const Q: [f32; 8] =
            [0.121_639_74, 0.122_466_72, 0.103_421_32, 0.121_020_49, -0.037_975_06, 0.185_715_38, -0.152_987_6, 0.036_699_055];
        let t = self.abs();
        let u = 1.0 / (1.0 + 0.305 * t);
        let mut q = Q[7];
        for k in (0..7).rev() {
            q = q * u + Q[k];
        }
        let e = (-0.5 * t * t).exponential();
        let tail = e * (q * u);
        [if self < 0.0 { tail } else { 1.0 - tail }, e * 0.398_942_3]
    }
}

impl Functions for f64 {
    #[inline(always)]
    fn exponential(self) -> f64 {
        self.exp()
    }

    #[inline(always)]
    fn log_one_plus(self) -> f64 {
        self.ln_1p()
    }

    fn normal(self) -> [f64; 2] {
        let x = self;
        let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let t = x.abs();
        let tail = if t < 5.0 {
            // Φ(t) = ½ + φ(t)·(t + t³/3 + t⁵/(3·5) + …).
            let (mut term, mut sum, mut k) = (t, t, 1.0);
            while term > 1e-18 * sum {
                k += 2.0;
                term *= t * t / k;
                sum += term;
            }
            0.5 - density * sum
        } else {
            // Φ(−t) = φ(t)/(t + 1/(t + 2/(t + 3/(t + …)))).
            density / (1..60).rev().fold(t, |below, k| t + f64::from(k) / below)
        };
        [if x < 0.0 { tail } else { 1.0 - tail }, density]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_near() {
        let worst = (-87_000..88_000).map(|i| i as f32 / 1000.0).map(|x| {
            let exact = f64::from(x).exp();
            (f64::from(x.exponential()) - exact).abs() / exact
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 2e-7, "{worst:e}");
        assert!(f32::NAN.exponential().is_nan());
        assert!(f32::NEG_INFINITY.exponential() > 0.0 && f32::INFINITY.exponential().is_finite());
        assert_eq!(0f32.exponential(), 1.0);
    }

    #[test]
    fn sigmoids_and_logarithms_are_near() {
        let worst = (0..=100_000).map(|i| (i as f32 / 100_000.0).powi(3)).map(|x| {
            let exact = f64::from(x).ln_1p();
            (f64::from(x.log_one_plus()) - exact).abs() / exact.max(1e-30)
        });
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst:e}");
        for x in (-80_000..80_000).step_by(7).map(|i| i as f32 / 1000.0) {
            let (found, exact) = (sigmoid_and_softplus(x), sigmoid_and_softplus(f64::from(x)));
            for (found, exact) in found.into_iter().zip(exact) {
                let off = (f64::from(found) - exact).abs() / exact;
                assert!(off < 1e-6, "{x}: {found}, not {exact}");
            }
        }
        let [share, log] = sigmoid_and_softplus(-3f64);
        assert!((share - 1.0 / (1.0 + 3f64.exp())).abs() < 1e-15 && (log - (1.0 + (-3f64).exp()).ln()).abs() < 1e-15);
        assert!(sigmoid_and_softplus(f32::NEG_INFINITY).iter().all(|value| *value < 1e-37));
    }

    #[test]
    fn normal_probabilities_are_near() {
        // Φ at some places, to sixteen digits.
        for (x, exact) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_542_9),
            (-1.0, 0.158_655_253_931_457_07),
            (-3.0, 1.349_898_031_630_095e-3),
            (-5.5, 1.898_956_246_588_771_6e-8),
            (-8.0, 6.220_960_574_271_785e-16),
        ] {
            let [found, density] = f64::normal(x);
            assert!((found - exact).abs() < 3e-16 + 1e-12 * exact, "{x}: {found}, not {exact}");
            assert!((density - (-0.5 * x * x).exp() * 0.398_942_280_401_432_7).abs() < 1e-16);
        }
        let mut worst = [0f64; 2];
        for x in (-5_000..5_000).map(|i| i as f32 / 1000.0) {
            let (found, exact) = (x.normal(), f64::from(x).normal());
            for k in 0..2 {
                worst[k] = worst[k].max((f64::from(found[k]) - exact[k]).abs() / exact[k]);
            }
        }
        assert!(worst[0] < 1e-6 && worst[1] < 1e-6, "{worst:?}");
        assert!(f32::NAN.normal()[0].is_nan());
        assert_eq!((sigmoid(0f32), sigmoid(0f64)), (0.5, 0.5));
    }
}
