//! Losses over similarities on the emulated device, beside their definition in f64 and its finite differences.

use std::ops::Range;

use ctk_cuda::{Contrast, Cuda, Denominator, Emulated, Limits, NO_LABEL};
use ctk_kernels::Real;

const ALL: [Denominator; 4] = [Denominator::All, Denominator::Negatives, Denominator::Each, Denominator::Unlabelled];

/// Values in [−1, 1), of a linear congruential generator.
fn values(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The loss as the documentation of [`Cuda::contrast`] defines it.
fn defined(of: &Contrast, rows: &[f64], memory: &[f64]) -> f64 {
    let width = of.width;
    let row = |all: &[f64], i: usize| all[i * width..(i + 1) * width].to_vec();
    let mut loss = 0.0;
    for (anchors, candidates) in of.sides {
        for anchor in anchors.clone() {
            let own = row(rows, anchor);
            let near = candidates.clone().filter(|j| *j != anchor).map(|j| (of.labels[j], row(rows, j)));
            let far = of.memory.iter().enumerate().map(|(j, name)| (*name, row(memory, j)));
            let all: Vec<(u32, f64)> = near
                .chain(far)
                .map(|(name, row)| (name, own.iter().zip(&row).map(|(a, b)| a * b).sum::<f64>() / of.temperature))
                .collect();
            let positive = |name: u32| name == of.labels[anchor] && name != NO_LABEL;
            let counts = |name: u32| match of.denominator {
                Denominator::All => true,
                Denominator::Negatives | Denominator::Each => !positive(name),
                Denominator::Unlabelled => positive(name) || name == NO_LABEL,
            };
            let sum: f64 = all.iter().filter(|(name, _)| counts(*name)).map(|(_, s)| s.exp()).sum();
            for (_, s) in all.iter().filter(|(name, _)| positive(*name)) {
                loss += of.weights[anchor]
                    * match of.denominator {
                        Denominator::Each => (1.0 + sum / s.exp()).ln(),
                        _ => sum.ln() - s,
                    };
            }
        }
    }
    loss
}

fn device() -> Cuda {
    Cuda::new(Emulated::new(Limits::default()))
}

fn of<R: Real>(device: &Cuda, of: &Contrast, rows: &[f64], memory: &[f64]) -> (f64, Vec<f64>) {
    let [rows, memory] = [rows, memory].map(|values| values.iter().map(|v| R::of(*v)).collect::<Vec<R>>());
    let (loss, gradient) = device.contrast(of, &rows, &memory);
    (loss, gradient.into_iter().map(Real::wide).collect())
}

/// Compares loss and gradient with the definition and its finite differences at `places` values.
fn check(what: &Contrast, rows: &[f64], memory: &[f64], places: usize) {
    let expected = defined(what, rows, memory);
    let name = format!("{:?} of {} rows, sides {:?}", what.denominator, what.labels.len(), what.sides);
    let (loss, gradient) = of::<f64>(&device(), what, rows, memory);
    assert!((loss - expected).abs() <= 1e-11 * expected.abs().max(1.0), "{name}: {loss}, not {expected}");
    for place in (0..rows.len()).step_by(rows.len().div_ceil(places)) {
        let at = |h: f64| {
            let mut moved = rows.to_vec();
            moved[place] += h;
            defined(what, &moved, memory)
        };
        let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
        // The difference is rounded like the loss.
        let bound = 1e-7 * (1.0 + difference.abs()) + 5e-9 * expected.abs();
        let found = gradient[place];
        assert!((found - difference).abs() < bound, "{name}: value {place} is {found}, by difference {difference}");
    }
    let (single, rounded) = of::<f32>(&device(), what, rows, memory);
    assert!((single - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{name} in f32: {single}, not {expected}");
    let largest = gradient.iter().fold(1e-3f64, |largest, v| largest.max(v.abs()));
    assert!(rounded.iter().zip(&gradient).all(|(f, g)| (f - g).abs() <= 1e-4 * largest), "{name}: the gradient in f32");
}

#[test]
fn losses_and_gradients_are_as_defined() {
    for denominator in ALL {
        for (m, k, width, classes) in [(2, 0, 1, 1), (7, 0, 3, 2), (9, 5, 4, 3), (6, 300, 2, 6)] {
            // Unlabelled needs an unlabelled candidate for every anchor without a positive, and Negatives another class.
            let labels: Vec<u32> = (0..m as u32).map(|i| i % classes).collect();
            let memory_labels: Vec<u32> = (0..k as u32).map(|j| if j % 2 == 0 { NO_LABEL } else { j % classes }).collect();
            if denominator == Denominator::Negatives && classes == 1 {
                continue;
            }
            let weights: Vec<f64> = values(1, m).into_iter().map(|w| w + 1.5).collect();
            let (rows, memory) = (values(2, m * width), values(3, k * width));
            let whole = [(0..m, 0..m)];
            let halves = [(0..m / 2, m / 2..m), (m / 2..m, 0..m / 2)];
            for sides in [&whole[..], &halves[..]] {
                let what = Contrast {
                    labels: &labels,
                    memory: &memory_labels,
                    weights: &weights,
                    width,
                    temperature: 0.3,
                    sides,
                    denominator,
                };
                check(&what, &rows, &memory, 12);
            }
        }
    }
}

/// A contrast of `m` rows of two classes with themselves.
fn two_classes<'a>(labels: &'a [u32], weights: &'a [f64], sides: &'a [(Range<usize>, Range<usize>)]) -> Contrast<'a> {
    Contrast { labels, memory: &[], weights, width: 2, temperature: 0.5, sides, denominator: Denominator::All }
}

#[test]
fn blocks_of_anchors_add_up_in_any_order_of_threads() {
    let m = 530;
    let (labels, weights): (Vec<u32>, Vec<f64>) = (0..m as u32).map(|i| (i % 2, 1e-3)).unzip();
    let sides = [(0..m, 0..m)];
    let (what, rows) = (two_classes(&labels, &weights, &sides), values(4, 2 * m));
    check(&what, &rows, &[], 6);
    let device = device();
    let [once, again] = [(); 2].map(|()| of::<f32>(&device, &what, &rows, &[]));
    assert_eq!((once.0.to_bits(), once.1), (again.0.to_bits(), again.1));
}

#[test]
fn sharp_temperatures_and_anchors_without_candidates_stay_finite() {
    let rows = [1.0, 0.0, 1.0, 1e-6, -1.0, 0.0, 0.6, 0.8];
    for (denominator, labels) in ALL.into_iter().zip([[0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]) {
        let sides = [(0..4, 0..4)];
        let what = Contrast { temperature: 0.005, denominator, ..two_classes(&labels, &[1.0; 4], &sides) };
        let (loss, gradient) = of::<f32>(&device(), &what, &rows, &[]);
        assert!(loss.is_finite() && gradient.iter().all(|g| g.is_finite()), "{denominator:?}: {loss} {gradient:?}");
    }
    // Nobody has a positive.
    let (labels, sides) = ([0, 1, NO_LABEL, NO_LABEL], [(0..4, 0..4)]);
    let (loss, gradient) = of::<f32>(&device(), &two_classes(&labels, &[1.0; 4], &sides), &rows, &[]);
    assert!(loss == 0.0 && gradient.iter().all(|g| *g == 0.0));
}
