//! Tests of each implementation of the step against f64.

use ctk_core::rng::Key;

use super::*;

/// The instruction sets that can be requested.
const ISAS: [&str; 4] = ["avx512bf16", "avx512", "avx2", "portable"];

/// The tolerance relative to the largest value: products of bf16 have two digits, on machines that have them.
fn tolerance(isa: &str) -> f64 {
    if isa == "avx512bf16" { 1e-2 } else { 2e-6 }
}

fn table(count: usize, width: usize, name: &str) -> Rows {
    // Scores of a few units, so that σ is not linear.
    let rows = Rows::uniform(count, width, Key::new(1).of(name)).unwrap();
    let scale = 2.0 * (width as f32).sqrt();
    let values: Vec<f32> = rows.to_vec().iter().map(|v| v * scale).collect();
    values.chunks_exact(width).enumerate().for_each(|(row, values)| rows.set(row, values));
    rows
}

struct Exact {
    input: Vec<f64>,
    output: Vec<f64>,
    loss: f64,
}

/// The same window in f64, twelve words at a time.
fn exact(input: &Rows, output: &Rows, outputs: &[u32; OUTPUTS], weights: &[f32; OUTPUTS], rate: f32, contexts: &[u32]) -> Exact {
    let d = input.width();
    let wide = |rows: &Rows| rows.to_vec().into_iter().map(f64::from).collect::<Vec<f64>>();
    let (mut v, mut u, mut loss) = (wide(input), wide(output), 0.0);
    for contexts in contexts.chunks(CONTEXTS) {
        let (before_v, before_u) = (v.clone(), u.clone());
        for &c in contexts {
            for (j, (&o, &weight)) in outputs.iter().zip(weights).enumerate().filter(|(_, (o, _))| **o != NONE) {
                let (c, o) = (c as usize * d, o as usize * d);
                let score: f64 = (0..d).map(|k| before_v[c + k] * before_u[o + k]).sum();
                let (label, weight) = (f64::from(u8::from(j == 0)), f64::from(weight));
                let slope = f64::from(rate) * weight * (label - 1.0 / (1.0 + (-score).exp()));
                loss += weight * if j == 0 { (-score).exp().ln_1p() } else { score.exp().ln_1p() };
                for k in 0..d {
                    v[c + k] += slope * before_u[o + k];
                    u[o + k] += slope * before_v[c + k];
                }
            }
        }
    }
    Exact { input: v, output: u, loss }
}

fn close(isa: &str, rows: &Rows, exact: &[f64], what: &str) {
    let largest = exact.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (ours, exact) in rows.to_vec().into_iter().zip(exact) {
        assert!((f64::from(ours) - exact).abs() <= tolerance(isa) * largest, "{what}: {ours} for {exact}");
    }
}

/// One window of all `words`, whose centre is in the middle.
fn train(on: Tables, isa: &str, rate: f32, outputs: (&[u32; OUTPUTS], [f32; OUTPUTS]), words: &[u32], loss: Option<&mut f64>) {
    let mut stepper = Stepper::new(on, rate, 1, isa);
    stepper.block(words);
    stepper.push(*outputs.0, (outputs.1 != [1.0; OUTPUTS]).then_some(OutputWeights { weights: outputs.1, labels: labels(1) }));
    stepper.step(0, 0..words.len(), words.len() / 2, (1, 1), loss);
}

#[test]
fn every_way_agrees_with_f64_at_every_width_and_number_of_contexts() {
    let (widths, counts): (&[usize], &[usize]) = if cfg!(miri) {
        (&[1, 20], &[1, 2, 13])
    } else {
        (&[1, 7, 8, 9, 16, 17, 24, 25, 100, 128, 200, 256, 300], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 23])
    };
    for isa in ISAS {
        for &width in widths {
            for &count in counts {
                let (input, output) = (table(40, width, "input"), table(40, width, "output"));
                let words: Vec<u32> = (0..=count as u32).collect();
                let centre = words.len() / 2;
                let contexts: Vec<u32> = words.iter().copied().filter(|w| *w != centre as u32).collect();
                for (outputs, weights) in [
                    ([centre as u32, 30, 31, 32, 33, 34], [1.0; OUTPUTS]),
                    ([centre as u32, 30, NONE, 32, NONE, 34], [1.0, 2.0, 0.0, 1.0, 0.0, 1.0]),
                    ([NONE, 30, 31, NONE, NONE, NONE], [0.0, 1.0, 3.0, 0.0, 0.0, 0.0]),
                ] {
                    let expected = exact(&input, &output, &outputs, &weights, 0.3, &contexts);
                    let mut loss = 0.0;
                    let none = Rows::zeros(1, width).unwrap();
                    train(
                        Tables { input: &input, output: &output, none: &none },
                        isa,
                        0.3,
                        (&outputs, weights),
                        &words,
                        Some(&mut loss),
                    );
                    let what = format!("{isa}, {width} values, {count} contexts");
                    close(isa, &input, &expected.input, &what);
                    close(isa, &output, &expected.output, &what);
                    assert!(
                        (loss / expected.loss - 1.0).abs() < 1e-5f64.max(tolerance(isa)),
                        "{what}: loss {loss} for {}",
                        expected.loss
                    );
                    assert!(none.to_vec().iter().all(|v| *v == 0.0), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_word_that_is_twice_in_a_window_moves_twice() {
    // If outputs do not change, both ways of treating a repeated word agree with f64.
    for isa in ISAS {
        let (input, output) = (table(8, 20, "input"), table(8, 20, "output"));
        let words = [1, 1, 0, 1, 2];
        let small = 1e-4;
        let expected = exact(&input, &output, &[0, 3, 4, 5, 6, 7], &[1.0; OUTPUTS], small, &[1, 1, 1, 2]);
        let none = Rows::zeros(1, 20).unwrap();
        let tables = Tables { input: &input, output: &output, none: &none };
        train(tables, isa, small, (&[0, 3, 4, 5, 6, 7], [1.0; OUTPUTS]), &words, None);
        close(isa, &input, &expected.input, isa);
        close(isa, &output, &expected.output, isa);
    }
}

#[test]
fn a_word_made_of_parts_is_their_mean_and_gives_back_what_it_moved_by() {
    let widths: &[usize] = if cfg!(miri) { &[20] } else { &[7, 16, 24, 100, 300] };
    for (isa, &width) in ISAS.into_iter().flat_map(|isa| widths.iter().map(move |width| (isa, width))) {
        let (input, output, none) = (table(40, width, "input"), table(40, width, "output"), Rows::zeros(1, width).unwrap());
        let before: Vec<f64> = input.to_vec().into_iter().map(f64::from).collect();
        let parts: [&[u32]; 2] = [&[0, 10, 11, 12], &[2, 12, 13]];
        let (outputs, small) = ([1, 30, 31, 32, 33, 34], 1e-3);
        // The same step on a table whose rows 0 and 2 are the means.
        let made = table(40, width, "input");
        for parts in parts {
            let mean = |k| parts.iter().map(|&p| before[p as usize * width + k]).sum::<f64>() / parts.len() as f64;
            made.set(parts[0] as usize, &(0..width).map(|k| mean(k) as f32).collect::<Vec<_>>());
        }
        let expected = exact(&made, &output, &outputs, &[1.0; OUTPUTS], small, &[0, 2]);
        let mut moved = before.clone();
        for parts in parts {
            let row = parts[0] as usize * width;
            for (k, &part) in (0..width).flat_map(|k| parts.iter().map(move |part| (k, part))) {
                moved[part as usize * width + k] += expected.input[row + k] - f64::from(made.to_vec()[row + k]);
            }
        }

        let mut stepper = Stepper::new(Tables { input: &input, output: &output, none: &none }, small, 1, isa);
        stepper.make_room(2);
        stepper.block(&[0, 1, 2]);
        stepper.push(outputs, None);
        [0, 2].into_iter().zip(parts).enumerate().for_each(|(place, (at, parts))| stepper.compose(at, place, parts));
        stepper.step(0, 0..3, 1, (3, 1), None);
        parts.into_iter().enumerate().for_each(|(place, parts)| stepper.release(place, parts));
        close(isa, &input, &moved, &format!("{isa}, {width} values"));
        close(isa, &output, &expected.output, &format!("{isa}, {width} values"));
    }
}

#[test]
fn scores_far_from_zero_stay_finite() {
    for isa in ISAS {
        let (input, output) = (Rows::zeros(2, 16).unwrap(), Rows::zeros(6, 16).unwrap());
        input.set(0, &[30.0; 16]);
        (0..6).for_each(|row| output.set(row, &[if row % 2 == 0 { -30.0 } else { 30.0 }; 16]));
        let mut loss = 0.0;
        let none = Rows::zeros(1, 16).unwrap();
        let tables = Tables { input: &input, output: &output, none: &none };
        train(tables, isa, 0.1, (&[0, 1, 2, 3, 4, 5], [1.0; OUTPUTS]), &[0, 1], Some(&mut loss));
        assert!(input.to_vec().iter().chain(&output.to_vec()).all(|v| v.is_finite()), "{isa}");
        assert!((loss / (14_400.0 * 4.0) - 1.0).abs() < 1e-6, "{isa}: {loss}");
    }
}

#[test]
#[should_panic(expected = "range")]
fn a_word_that_is_in_no_table_is_refused() {
    let (input, output) = (table(3, 8, "input"), table(3, 8, "output"));
    let none = Rows::zeros(1, 8).unwrap();
    let tables = Tables { input: &input, output: &output, none: &none };
    train(tables, "portable", 0.1, (&[0, 1, 2, 0, 1, 2], [1.0; OUTPUTS]), &[0, 3], None);
}

#[test]
fn a_bag_moves_as_its_mean_does() {
    let (widths, counts): (&[usize], &[usize]) =
        if cfg!(miri) { (&[20], &[1, 3]) } else { (&[7, 16, 24, 100, 300], &[1, 2, 5, 10, 17]) };
    for (isa, exact) in ISAS.into_iter().flat_map(|isa| [(isa, false), (isa, true)]) {
        for (&width, &count) in widths.iter().flat_map(|width| counts.iter().map(move |count| (width, count))) {
            let (input, output, none) = (table(40, width, "input"), table(40, width, "output"), Rows::zeros(1, width).unwrap());
            let (outputs, weights, rate) = ([0, 30, 31, 32, NONE, 34], [1.0, 1.0, 2.0, 1.0, 0.0, 1.0], 0.3f32);
            let words: Vec<u32> = (0..=count as u32).collect();

            let (mut v, mut u, mut expected) = (input.to_vec(), output.to_vec(), 0.0);
            let mean: Vec<f64> =
                (0..width).map(|k| (1..=count).map(|c| f64::from(v[c * width + k])).sum::<f64>() / count as f64).collect();
            let mut moved = vec![0.0; width];
            for (j, (&o, weight)) in outputs.iter().zip(weights).enumerate().filter(|(_, (o, _))| **o != NONE) {
                let row = &mut u[o as usize * width..][..width];
                let score: f64 = row.iter().zip(&mean).map(|(u, m)| f64::from(*u) * m).sum();
                let (label, weight) = (f64::from(u8::from(j == 0)), f64::from(weight));
                let slope = f64::from(rate) * weight * (label - 1.0 / (1.0 + (-score).exp()));
                expected += weight * if j == 0 { (-score).exp().ln_1p() } else { score.exp().ln_1p() };
                for (k, u) in row.iter_mut().enumerate() {
                    moved[k] += slope * f64::from(*u);
                    *u = (f64::from(*u) + slope * mean[k]) as f32;
                }
            }
            let share = if exact { 1.0 / count as f64 } else { 1.0 };
            for (at, v) in v.iter_mut().enumerate().filter(|(at, _)| (1..=count).contains(&(at / width))) {
                *v = (f64::from(*v) + share * moved[at % width]) as f32;
            }

            let mut stepper = Stepper::new(Tables { input: &input, output: &output, none: &none }, rate, 1, isa);
            stepper.block(&words);
            stepper.push(outputs, Some(OutputWeights { weights, labels: labels(1) }));
            let mut loss = 0.0;
            stepper.bag(0, 0..words.len(), 0, exact, (1, 1), Some(&mut loss));
            let what = format!("{isa}, {width} values, {count} words");
            close(isa, &input, &v.into_iter().map(f64::from).collect::<Vec<_>>(), &what);
            close(isa, &output, &u.into_iter().map(f64::from).collect::<Vec<_>>(), &what);
            assert!((loss / expected - 1.0).abs() < 1e-5f64.max(tolerance(isa)), "{what}: loss {loss} for {expected}");
        }
    }
}
