//! The steps of optimizers: new values from old ones, in place, computed in f64 for every type.
//!
//! A ResNet-18 has 11 million parameters, and the speed of an SGD step is limited by memory: work is divided into blocks over all threads,
//! and [`momentum`] updates velocity and weight in one pass.

use rayon::prelude::*;

use super::blocks::BLOCK;
use super::element::Real;
use super::elementwise::squares;
use super::simd::wide;

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

/// A step of Adam: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w·`keep` − `rate`·m / (√v·`root` + `eps`).
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
        (Step::Blend { keep, add }, []) => update(Update::Linear(keep, add * scale, 0.0), w, g, g),
        (Step::Momentum(Momentum { velocity: [a, b, c], weight: [d, e, f] }), [v]) => {
            momentum(Momentum { velocity: [a, b * scale, c], weight: [d, e * scale, f] }, w, v, g);
        }
        (Step::Lars(step), [v]) => lars(step, w, v, g, scale),
        (Step::Adam(Adam { betas: [b1, b2], keep, rate, root, eps }), [first, second]) => {
            update(Update::Linear(b1, (1.0 - b1) * scale, 0.0), first, g, g);
            update(Update::Product(b2, (1.0 - b2) * scale * scale), second, g, g);
            update(Update::Adaptive { keep, rate, root, eps }, w, first, second);
        }
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
        update(Update::Linear(momentum, scale, decay), v, g, w);
        let x = if trust.is_some() { squares(v, v, 0.0).sqrt() } else { 0.0 };
        let scaled = rate * ratio(w, x);
        update(Update::Linear(1.0, -scaled, 0.0), w, v, v);
    } else {
        // ‖scale·g + decay·w‖
        let x = if trust.is_some() { scale * squares(g, w, decay / scale).sqrt() } else { 0.0 };
        let scaled = rate * ratio(w, x);
        let velocity = [momentum, scaled * scale, scaled * decay];
        self::momentum(Momentum { velocity, weight: [1.0, 0.0, -1.0] }, w, v, g);
    }
}

/// A new value of d from d, x and y, elementwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Update {
    /// d ← d·`.0` + x·`.1` + y·`.2`
    Linear(f64, f64, f64),
    /// d ← d·`.0` + x·y·`.1`
    Product(f64, f64),
    /// d ← d·`keep` − `rate`·x / (√y·`root` + `eps`)
    Adaptive {
        /// d's factor.
        keep: f64,
        /// x's factor.
        rate: f64,
        /// √y's factor.
        root: f64,
        /// Added below the line.
        eps: f64,
    },
}

/// v ← v·`velocity[0]` + g·`velocity[1]` + w·`velocity[2]`, then w ← w·`weight[0]` + g·`weight[1]` + v·`weight[2]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// Factors of v, g and w.
    pub velocity: [f64; 3],
    /// Factors of w, g and the new v.
    pub weight: [f64; 3],
}

/// Updates d. All three have the same length.
pub(crate) fn update<R: Real>(update: Update, d: &mut [R], x: &[R], y: &[R]) {
    match update {
        Update::Linear(a, b, c) => zip(d, x, y, |d, x, y| d * a + x * b + y * c),
        Update::Product(a, b) => zip(d, x, y, |d, x, y| d * a + x * y * b),
        Update::Adaptive { keep, rate, root, eps } => zip(d, x, y, |d, x, y| d * keep - rate * x / (y.sqrt() * root + eps)),
    }
}

fn zip<R: Real>(d: &mut [R], x: &[R], y: &[R], f: impl Fn(f64, f64, f64) -> f64 + Sync) {
    d.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK))).for_each(|(d, (x, y))| {
        wide(
            #[inline(always)]
            || {
                for (d, (x, y)) in d.iter_mut().zip(x.iter().zip(y)) {
                    *d = R::of(f(d.wide(), x.wide(), y.wide()));
                }
            },
        );
    });
}

/// Updates w and v. All three have the same length. Each value is rounded as by two [updates](update), so the bits are the same.
fn momentum<R: Real>(step: Momentum, w: &mut [R], v: &mut [R], g: &[R]) {
    let Momentum { velocity: [a, b, c], weight: [d, e, f] } = step;
    w.par_chunks_mut(BLOCK).zip(v.par_chunks_mut(BLOCK)).zip(g.par_chunks(BLOCK)).for_each(|((w, v), g)| {
        wide(
            #[inline(always)]
            || {
                for ((w, v), g) in w.iter_mut().zip(v).zip(g) {
                    let (old, g) = (w.wide(), g.wide());
                    *v = R::of(v.wide() * a + g * b + old * c);
                    *w = R::of(old * d + g * e + v.wide() * f);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave<R: Real>(n: usize, f: f64) -> Vec<R> {
        (0..n).map(|i| R::of((i as f64 * f).sin())).collect()
    }

    fn bits<R: Real>(numbers: &[R]) -> Vec<u64> {
        numbers.iter().map(|v| v.wide().to_bits()).collect()
    }

    fn updates_are_their_formula<R: Real>() {
        let n = BLOCK * 2 + 17;
        let (x, y): (Vec<R>, Vec<R>) = (wave(n, 0.3), wave::<R>(n, 0.7).into_iter().map(|v| v.abs()).collect());
        type Formula = fn(f64, f64, f64) -> f64;
        let updates: [(Update, Formula); 3] = [
            (Update::Linear(0.9, 0.5, -0.25), |d, x, y| d * 0.9 + x * 0.5 + y * -0.25),
            (Update::Product(0.9, 0.1), |d, x, y| d * 0.9 + x * y * 0.1),
            (Update::Adaptive { keep: 0.99, rate: 0.1, root: 1.5, eps: 1e-8 }, |d, x, y| {
                d * 0.99 - 0.1 * x / (y.sqrt() * 1.5 + 1e-8)
            }),
        ];
        for (rule, plain) in updates {
            let mut d: Vec<R> = wave(n, 0.1);
            let expected: Vec<f64> = (0..n).map(|i| plain(d[i].wide(), x[i].wide(), y[i].wide())).collect();
            let mut alone = d.clone();
            update(rule, &mut d, &x, &y);
            for (found, expected) in d.iter().zip(&expected) {
                // A fused product, where a machine has one, is more precise by a bit.
                let bound = if R::KIND == crate::Kind::F64 { 1e-14 } else { 1e-6 };
                assert!(
                    (found.wide() - expected).abs() <= bound * expected.abs().max(1.0),
                    "{rule:?}: {} {expected}",
                    found.wide()
                );
            }
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            one.install(|| update(rule, &mut alone, &x, &y));
            assert_eq!(bits(&alone), bits(&d), "{rule:?}: threads");
        }
    }

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
            update(Update::Linear(velocity[0], velocity[1], velocity[2]), &mut v2, &g, &w2);
            update(Update::Linear(weight[0], weight[1], weight[2]), &mut w2, &g, &v2);
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
    fn updates_do_what_they_say_on_any_number_of_threads() {
        updates_are_their_formula::<f32>();
        updates_are_their_formula::<f64>();
    }

    #[test]
    fn velocity_and_weight_move_in_one_pass_as_in_two() {
        one_pass_gives_the_bits_of_two::<f32>();
        one_pass_gives_the_bits_of_two::<f64>();
    }
}
