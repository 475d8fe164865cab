//! The steps of optimizers: new values from old ones, in place, in one pass each: a network has millions of parameters, and the speed of a
//! step is limited by memory. They are computed in f64 for every type, except Adam's, whose root and quotient cost too much in f64.

use rayon::prelude::*;

use super::blocks::BLOCK;
use super::element::{Real, zero};
use super::elementwise::squares;
use crate::wide;

/// What a step of an optimizer does to a parameter w with its gradient g. A step of a moving average is one, too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// w ← w·`keep` + g·`add`
    Blend {
        /// The factor of w.
        keep: f64,
        /// The factor of g.
        add: f64,
    },
    /// One state, the velocity.
    Momentum(Momentum),
    /// One state, the velocity.
    Lars(Lars),
    /// Two states, the moving averages of g and g².
    Adam(Adam),
}

/// A step of LARS. With trust r = `trust`·‖w‖/‖x‖, or 1 if either norm is 0 or there is no `trust`:
///
/// - the classic form: x = g + `decay`·w, v ← `momentum`·v + `rate`·r·x, w ← w − v;
/// - the popular form: v ← `momentum`·v + g + `decay`·w, x = v, w ← w − `rate`·r·v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lars {
    /// The factor of v.
    pub momentum: f64,
    /// The weight decay.
    pub decay: f64,
    /// The learning rate.
    pub rate: f64,
    /// The trust coefficient; none for a parameter that is not scaled.
    pub trust: Option<f64>,
    /// Whether it is the popular form.
    pub popular: bool,
}

/// A step of Adam: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w·`keep` − `rate`·m / (√v·`root` + `eps`), computed in the type of
/// the values. Averages that are too small for a normal number become 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// β₁ and β₂.
    pub betas: [f64; 2],
    /// The factor of w.
    pub keep: f64,
    /// The factor of m.
    pub rate: f64,
    /// The factor of √v.
    pub root: f64,
    /// Added below the line.
    pub eps: f64,
}

/// Takes a step with the gradient g·`scale`; `state` are the states that it names. All slices have the same length. A factor of 1 changes no
/// bit.
pub fn step<R: Real>(step: &Step, w: &mut [R], state: &mut [&mut [R]], g: &[R], scale: f64) {
    match (*step, state) {
        (Step::Blend { keep, add }, []) => linear([keep, add * scale, 0.0], w, g, g),
        (Step::Momentum(Momentum { velocity: [a, b, c], weight: [d, e, f] }), [v]) => {
            momentum(Momentum { velocity: [a, b * scale, c], weight: [d, e * scale, f] }, w, v, g);
        }
        (Step::Lars(step), [v]) => lars(step, w, v, g, scale),
        (Step::Adam(step), [first, second]) => adam(&step, w, first, second, g, scale),
        (step, state) => panic!("{step:?} with {} states", state.len()),
    }
}

fn lars<R: Real>(step: Lars, w: &mut [R], v: &mut [R], g: &[R], scale: f64) {
    let Lars { momentum, decay, rate, trust, popular } = step;
    let ratio = |w: &[R], x: f64| {
        let Some(trust) = trust else { return 1.0 };
        let weight = squares(w, w, 0.0).sqrt();
        if weight > 0.0 && x > 0.0 { trust * weight / x } else { 1.0 }
    };
    if popular {
        linear([momentum, scale, decay], v, g, w);
        let x = if trust.is_some() { squares(v, v, 0.0).sqrt() } else { 0.0 };
        let scaled = rate * ratio(w, x);
        linear([1.0, -scaled, 0.0], w, v, v);
    } else {
        // ‖scale·g + decay·w‖
        let x = if trust.is_some() { scale * squares(g, w, decay / scale).sqrt() } else { 0.0 };
        let scaled = rate * ratio(w, x);
        let velocity = [momentum, scaled * scale, scaled * decay];
        self::momentum(Momentum { velocity, weight: [1.0, 0.0, -1.0] }, w, v, g);
    }
}

/// Adam's factors in the type of the values.
#[derive(Clone, Copy)]
pub(crate) struct Factors<R> {
    betas: [R; 2],
    of_gradient: [R; 2],
    keep: R,
    rate: R,
    root: R,
    eps: R,
}

impl<R: Real> Factors<R> {
    /// The gradient is multiplied by `scale`.
    pub(crate) fn new(step: &Adam, scale: f64) -> Factors<R> {
        let Adam { betas: [b1, b2], keep, rate, root, eps } = *step;
        Factors {
            betas: [R::of(b1), R::of(b2)],
            of_gradient: [R::of((1.0 - b1) * scale), R::of((1.0 - b2) * scale * scale)],
            keep: R::of(keep),
            rate: R::of(rate),
            root: R::of(root),
            eps: R::of(eps),
        }
    }

    /// The new m and v.
    #[inline(always)]
    pub(crate) fn averages(&self, [m, v]: [R; 2], g: R) -> [R; 2] {
        let normal = |x: R| if x.abs() < R::min_positive_value() { zero::<R>() } else { x };
        [normal(m * self.betas[0] + g * self.of_gradient[0]), normal(v * self.betas[1] + g * g * self.of_gradient[1])]
    }

    /// The new w, m and v.
    #[inline(always)]
    pub(crate) fn step(&self, [w, m, v]: [R; 3], g: R) -> [R; 3] {
        let [m, v] = self.averages([m, v], g);
        [w * self.keep - self.rate * m / (v.sqrt() * self.root + self.eps), m, v]
    }
}

/// A step of Adam; all slices have the same length.
pub(crate) fn adam<R: Real>(step: &Adam, w: &mut [R], m: &mut [R], v: &mut [R], g: &[R], scale: f64) {
    let factors = Factors::<R>::new(step, scale);
    let states = m.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK));
    w.par_chunks_mut(BLOCK).zip(states).zip(g.par_chunks(BLOCK)).for_each(|((w, (m, v)), g)| {
        wide!({
            for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
                [*w, *m, *v] = factors.step([*w, *m, *v], *g);
            }
        });
    });
}

/// v ← v·`velocity[0]` + g·`velocity[1]` + w·`velocity[2]`, then w ← w·`weight[0]` + g·`weight[1]` + v·`weight[2]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// Factors of v, g and w.
    pub velocity: [f64; 3],
    /// Factors of w, g and the new v.
    pub weight: [f64; 3],
}

/// d ← d·a + x·b + y·c. All three have the same length.
pub(crate) fn linear<R: Real>([a, b, c]: [f64; 3], d: &mut [R], x: &[R], y: &[R]) {
    d.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK))).for_each(|(d, (x, y))| {
        wide!({
            for (d, (x, y)) in d.iter_mut().zip(x.iter().zip(y)) {
                *d = R::of(d.wide() * a + x.wide() * b + y.wide() * c);
            }
        });
    });
}

/// Updates w and v. All three have the same length. Each value is rounded as by two calls of [`linear`], so the bits are the same.
fn momentum<R: Real>(step: Momentum, w: &mut [R], v: &mut [R], g: &[R]) {
    let Momentum { velocity: [a, b, c], weight: [d, e, f] } = step;
    w.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)).zip(g.par_chunks(BLOCK)).for_each(|((w, v), g)| {
        wide!({
            for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                let (old, g) = (w.wide(), g.wide());
                *v = R::of(v.wide() * a + g * b + old * c);
                *w = R::of(old * d + g * e + v.wide() * f);
            }
        });
    });
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn wave<R: Real>(n: usize, f: f64) -> Vec<R> {
        (0..n).map(|i| R::of((i as f64 * f).sin())).collect()
    }

    pub(crate) fn bits<R: Real>(numbers: &[R]) -> Vec<u64> {
        numbers.iter().map(|v| v.wide().to_bits()).collect()
    }

    /// A value that was computed in R, and the same computed in f64.
    fn near<R: Real>(found: R, exact: f64) -> bool {
        let bound = if R::KIND == crate::Kind::F64 { 1e-14 } else { 1e-6 };
        (found.wide() - exact).abs() <= bound * exact.abs().max(1.0)
    }

    fn sums_are_their_formula<R: Real>() {
        let n = BLOCK * 2 + 17;
        let (x, y, d): (Vec<R>, Vec<R>, Vec<R>) = (wave(n, 0.3), wave(n, 0.7), wave(n, 0.1));
        let (mut found, mut alone) = (d.clone(), d.clone());
        linear([0.9, 0.5, -0.25], &mut found, &x, &y);
        for i in 0..n {
            assert!(near(found[i], d[i].wide() * 0.9 + x[i].wide() * 0.5 + y[i].wide() * -0.25), "{i}");
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        one.install(|| linear([0.9, 0.5, -0.25], &mut alone, &x, &y));
        assert_eq!(bits(&alone), bits(&found), "threads");
    }

    /// The `number`th of some steps of Adam.
    fn step_of_adam(number: usize) -> Adam {
        let taken = number as f64 + 1.0;
        let root = 1.0 / (1.0 - 0.99f64.powf(taken)).sqrt();
        Adam { betas: [0.9, 0.99], keep: 0.999, rate: 0.1 / taken, root, eps: 1e-8 }
    }

    fn adam_is_its_formula<R: Real>() {
        let n = BLOCK * 2 + 17;
        let (g, start): (Vec<R>, [Vec<R>; 3]) = (wave(n, 0.3), [wave(n, 0.1), wave(n, 0.5), wave(n, 0.7)]);
        let [w, m, mut v] = start;
        v.iter_mut().for_each(|v| *v = v.abs());
        let Adam { betas: [b1, b2], keep, rate, root, eps } = step_of_adam(3);
        let run = || {
            let mut new = [w.clone(), m.clone(), v.clone()];
            let [w, m, v] = &mut new;
            adam(&step_of_adam(3), w, m, v, &g, 0.5);
            new
        };
        let new = run();
        for i in 0..n {
            let g = 0.5 * g[i].wide();
            let (m, v) = (b1 * m[i].wide() + (1.0 - b1) * g, b2 * v[i].wide() + (1.0 - b2) * g * g);
            let w = w[i].wide() * keep - rate * m / (v.sqrt() * root + eps);
            assert!([w, m, v].iter().zip(&new).all(|(exact, found)| near(found[i], *exact)), "{i}");
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(run).map(|x| bits(&x)), new.map(|x| bits(&x)), "threads");
    }

    /// Rows that take their steps late have the bits of whole steps, whenever they catch up and on any number of threads.
    fn one_pass_gives_the_bits_of_two<R: Real>() {
        let n = BLOCK + 19;
        let steps = [
            ([0.9, 1.0, 1e-4], [1.0, 0.0, -0.05]),
            ([0.9, 1.0, 1e-4], [1.0 - 5e-6, -0.05, -0.045]),
            ([0.9, 0.3, 0.0], [1.0, 0.0, -1.0]),
        ];
        for (velocity, weight) in steps {
            let [mut w, mut v, g] = [0.1, 0.3, 0.7].map(|f| wave::<R>(n, f));
            let (mut w2, mut v2) = (w.clone(), v.clone());
            momentum(Momentum { velocity, weight }, &mut w, &mut v, &g);
            linear([velocity[0], velocity[1], velocity[2]], &mut v2, &g, &w2);
            linear([weight[0], weight[1], weight[2]], &mut w2, &g, &v2);
            assert_eq!((bits(&w), bits(&v)), (bits(&w2), bits(&v2)), "{velocity:?}");
        }
    }

    fn a_scale_is_that_of_the_gradient<R: Real>() {
        let lars = |trust, popular| Step::Lars(Lars { momentum: 0.9, decay: 1e-2, rate: 0.1, trust, popular });
        let steps = [
            (Step::Blend { keep: 0.99, add: -0.1 }, 0),
            (Step::Momentum(Momentum { velocity: [0.9, 1.0, 1e-2], weight: [0.99, -0.05, -0.045] }), 1),
            (lars(Some(0.01), false), 1),
            (lars(None, false), 1),
            (lars(Some(0.01), true), 1),
            (Step::Adam(Adam { betas: [0.9, 0.99], keep: 0.99, rate: 0.1, root: 1.5, eps: 1e-2 }), 2),
        ];
        let n = BLOCK + 19;
        let g: Vec<R> = wave(n, 0.7);
        let quarter: Vec<R> = g.iter().map(|g| R::of(0.25 * g.wide())).collect();
        for (step, states) in steps {
            let take = |g: &[R], scale: f64| {
                let mut all = [0.1, 0.3, 0.5].map(|f| wave::<R>(n, f));
                all[2].iter_mut().for_each(|v| *v = v.abs());
                let [w, first, second] = &mut all;
                super::step(&step, w, &mut [&mut first[..], &mut second[..]][..states], g, scale);
                all.concat()
            };
            // A quarter of a gradient is exact; only the norms of LARS are rounded otherwise.
            for (a, b) in take(&g, 0.25).iter().zip(take(&quarter, 1.0)) {
                assert!((a.wide() - b.wide()).abs() <= 1e-6 * b.wide().abs().max(1.0), "{step:?}: {} {}", a.wide(), b.wide());
            }
            assert_ne!(bits(&take(&g, 0.25)), bits(&take(&g, 1.0)), "{step:?}");
        }
    }

    #[test]
    fn the_factor_of_a_gradient_scales_it_in_every_step() {
        a_scale_is_that_of_the_gradient::<f32>();
        a_scale_is_that_of_the_gradient::<f64>();
    }

    #[test]
    fn steps_are_their_formula_on_any_number_of_threads() {
        sums_are_their_formula::<f32>();
        sums_are_their_formula::<f64>();
        adam_is_its_formula::<f32>();
        adam_is_its_formula::<f64>();
    }

    #[test]
    fn averages_end_at_zero() {
        let mut all = [[1.0f32], [1e-30], [1e-30]];
        let [w, m, v] = &mut all;
        (0..2000).for_each(|_| adam(&step_of_adam(0), w, m, v, &[0.0], 1.0));
        assert_eq!([m[0], v[0]], [0.0; 2], "and not at a subnormal number, which is slow");
    }

    #[test]
    fn velocity_and_weight_move_in_one_pass_as_in_two() {
        one_pass_gives_the_bits_of_two::<f32>();
        one_pass_gives_the_bits_of_two::<f64>();
    }
}
