//! The Gaussian error linear unit (Hendrycks & Gimpel 2016) in its three forms, and their derivatives.

use rayon::prelude::*;

use crate::blocks::BLOCK;
use crate::element::{Element, Real};
use crate::math::sigmoid;
use crate::passes::{Alone, Apply, Op, pass};
use crate::wide;

/// The form of a GELU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x), by the error function. BERT, ViT.
    Erf,
    /// x·σ(1.5957691·(x + .044715·x³)), by tanh. SigLIP, GPT-2.
    Tanh,
    /// x·σ(1.702·x). OpenAI's CLIP.
    Quick,
}

/// 2·√(2/π).
const STEEP: f64 = 1.595_769_121_605_730_8;
const CUBIC: f64 = 0.044_715;
const QUICK: f64 = 1.702;

#[derive(Clone, Copy)]
struct Erf;
#[derive(Clone, Copy)]
struct Tanh;
#[derive(Clone, Copy)]
struct Quick;

/// A function and its derivative.
trait Smooth<R>: Alone<R> {
    fn derivative(&self, x: R) -> R;
}

impl<R: Real> Alone<R> for Erf {
    #[inline(always)]
    fn of(&self, _: usize, x: R) -> R {
        x * x.normal()[0]
    }
}

impl<R: Real> Smooth<R> for Erf {
    #[inline(always)]
    fn derivative(&self, x: R) -> R {
        let [probability, density] = x.normal();
        probability + x * density
    }
}

impl<R: Real> Alone<R> for Tanh {
    #[inline(always)]
    fn of(&self, _: usize, x: R) -> R {
        x * sigmoid(R::of(STEEP) * (x + R::of(CUBIC) * x * x * x))
    }
}

impl<R: Real> Smooth<R> for Tanh {
    #[inline(always)]
    fn derivative(&self, x: R) -> R {
        let s = sigmoid(R::of(STEEP) * (x + R::of(CUBIC) * x * x * x));
        s + x * s * (R::of(1.0) - s) * R::of(STEEP) * (R::of(1.0) + R::of(3.0 * CUBIC) * x * x)
    }
}

impl<R: Real> Alone<R> for Quick {
    #[inline(always)]
    fn of(&self, _: usize, x: R) -> R {
        x * sigmoid(R::of(QUICK) * x)
    }
}

impl<R: Real> Smooth<R> for Quick {
    #[inline(always)]
    fn derivative(&self, x: R) -> R {
        let s = sigmoid(R::of(QUICK) * x);
        s + R::of(QUICK) * x * s * (R::of(1.0) - s)
    }
}

/// y · f'(x).
#[derive(Clone, Copy)]
struct Chain<F>(F);

impl<R: Real, F: Smooth<R>> Op<R> for Chain<F> {
    #[inline(always)]
    fn at(&self, _: usize, y: R, x: R, _: R) -> R {
        y * self.0.derivative(x)
    }
}

fn each<T: Element>(y: &mut [T], x: &[T], op: impl Op<T::Real> + Sync) {
    y.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(y, x)| pass(y, x, x, x.len(), op));
}

fn alone<T: Element>(x: &mut [T], f: impl Alone<T::Real>) {
    wide!(x.iter_mut().for_each(|x| *x = T::down(f.of(0, x.up()))));
}

impl Gelu {
    /// y = f(x).
    pub fn forward<T: Element>(self, x: &[T], y: &mut [T]) {
        match self {
            Gelu::Erf => each(y, x, Apply(Erf)),
            Gelu::Tanh => each(y, x, Apply(Tanh)),
            Gelu::Quick => each(y, x, Apply(Quick)),
        }
    }

    /// x becomes f(x), on one thread.
    pub(crate) fn in_place<T: Element>(self, x: &mut [T]) {
        match self {
            Gelu::Erf => alone(x, Erf),
            Gelu::Tanh => alone(x, Tanh),
            Gelu::Quick => alone(x, Quick),
        }
    }

    /// dy becomes dx = dy·f'(x), in place.
    pub fn backward<T: Element>(self, x: &[T], dy: &mut [T]) {
        match self {
            Gelu::Erf => each(dy, x, Chain(Erf)),
            Gelu::Tanh => each(dy, x, Chain(Tanh)),
            Gelu::Quick => each(dy, x, Chain(Quick)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Gelu; 3] = [Gelu::Erf, Gelu::Tanh, Gelu::Quick];

    fn of<T: Element>(f: Gelu, x: &[f64]) -> [Vec<f64>; 2] {
        let x: Vec<T> = x.iter().map(|x| T::down(T::Real::of(*x))).collect();
        let (mut y, mut dx) = (x.clone(), vec![T::down(T::Real::of(1.0)); x.len()]);
        f.forward(&x, &mut y);
        f.backward(&x, &mut dx);
        [y, dx].map(|values| values.into_iter().map(|v| v.up().wide()).collect())
    }

    #[test]
    fn goldens_and_differences() {
        // PyTorch's gelu(x), gelu(x, "tanh") and x·sigmoid(1.702x) at 1 and −2.
        let goldens =
            [[0.841_344_746_1, -0.045_500_263_9], [0.841_191_990_6, -0.045_402_305_9], [0.845_795_765_9, -0.064_341_376_9]];
        for (f, golden) in ALL.into_iter().zip(goldens) {
            let [found, _] = of::<f64>(f, &[1.0, -2.0]);
            assert!(found.iter().zip(golden).all(|(f, g)| (f - g).abs() < 1e-9), "{f:?}: {found:?}");
            let x: Vec<f64> = (-60..60).map(|i| f64::from(i) / 10.0 + 0.03).collect();
            let moved = |h: f64| of::<f64>(f, &x.iter().map(|x| x + h).collect::<Vec<_>>())[0].clone();
            let (up, down, [_, slopes]) = (moved(1e-5), moved(-1e-5), of::<f64>(f, &x));
            for i in 0..x.len() {
                let difference = (up[i] - down[i]) / 2e-5;
                assert!((slopes[i] - difference).abs() < 1e-9, "{f:?} at {}: {}, {difference}", x[i], slopes[i]);
            }
        }
    }

    #[test]
    fn single_precision_follows_double() {
        let x: Vec<f64> = (-900..900).map(|i| f64::from(i as f32 / 100.0)).collect();
        for f in ALL {
            let (exact, found) = (of::<f64>(f, &x), of::<f32>(f, &x));
            for (exact, found) in exact.iter().zip(&found) {
                assert!(exact.iter().zip(found).all(|(e, f)| (e - f).abs() <= 2e-6 * e.abs().max(0.1)), "{f:?}");
            }
        }
    }
}
