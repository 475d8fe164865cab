//! The training step in plain Rust, on local copies of its rows: for machines without supported vector instructions, for Miri, and as the
//! reference of the other implementations.

use super::step::{OUTPUTS, Step, Ways};
use super::{LANES, Lane, Line};

/// The functions for rows of any width.
pub(super) const WAYS: Ways = Ways { contexts, gather, scatter };

/// # Safety
/// `pointer` must point to a row of `lanes` lines that lives as long as its step, and that is accessed only by atomics.
unsafe fn row<'a>(pointer: *const Line, lanes: usize) -> &'a [Line] {
    // SAFETY: the caller passes a pointer to `lanes` live lines, and lines are atomics, so shared references to them are valid.
    unsafe { std::slice::from_raw_parts(pointer, lanes) }
}

/// Writes the mean of `words` to both rows of `bag`.
unsafe fn gather(step: &mut Step) {
    let lanes = step.lanes();
    let (mut word, mut mean) = (vec![[0.0; LANES]; lanes], vec![[0.0; LANES]; lanes]);
    let share = 1.0 / step.words.len() as f32;
    for &pointer in &step.words {
        // SAFETY: by the contract of `StepFn`, `words` point to live rows of `halves` half lines, which are `lanes` lines.
        Line::read(unsafe { row(pointer, lanes) }, &mut word);
        add(share, &word, &mut mean);
    }
    for pointer in step.bag {
        // SAFETY: by the contract of `StepFn`, `bag` points to live rows of `halves` half lines, which are `lanes` lines.
        Line::write(unsafe { row(pointer, lanes) }, &mean);
    }
}

/// Adds the change of the second row of `bag` to each of `words`.
unsafe fn scatter(step: &mut Step) {
    let lanes = step.lanes();
    let (mut from, mut moved) = (vec![[0.0; LANES]; lanes], vec![[0.0; LANES]; lanes]);
    for (pointer, sign) in step.bag.into_iter().zip([-1.0, 1.0]) {
        // SAFETY: by the contract of `StepFn`, `bag` points to live rows of `halves` half lines, which are `lanes` lines.
        Line::read(unsafe { row(pointer, lanes) }, &mut from);
        add(sign * step.back, &from, &mut moved);
    }
    for &pointer in &step.words {
        // SAFETY: by the contract of `StepFn`, `words` point to live rows of `halves` half lines, which are `lanes` lines.
        Line::add(unsafe { row(pointer, lanes) }, &moved);
    }
}

/// Trains each of `contexts` against all `outputs`.
unsafe fn contexts(step: &mut Step) {
    let (count, lanes) = (step.count, step.lanes());
    let mut local = std::mem::take(&mut step.local);
    local.clear();
    local.resize((count + 2 * OUTPUTS + 1) * lanes, [0.0; LANES]);
    let (inputs, rest) = local.split_at_mut(count * lanes);
    let (outputs, rest) = rest.split_at_mut(OUTPUTS * lanes);
    let (moves, moved) = rest.split_at_mut(OUTPUTS * lanes);
    // SAFETY: by the contract of `StepFn`, `contexts` points to `count` pointers and `outputs` to a live array.
    let (names, outputs_at) = unsafe { (std::slice::from_raw_parts(step.contexts, step.count), *step.outputs) };
    for (pointer, local) in names.iter().zip(inputs.chunks_exact_mut(lanes)) {
        // SAFETY: by the contract of `StepFn`, each of `contexts` points to a live row of `lanes` lines.
        Line::read(unsafe { row(*pointer, lanes) }, local);
    }
    for (pointer, local) in outputs_at.iter().zip(outputs.chunks_exact_mut(lanes)) {
        // SAFETY: by the contract of `StepFn`, each of `outputs` points to a live row of `lanes` lines.
        Line::read(unsafe { row(*pointer, lanes) }, local);
    }
    for (i, input) in inputs.chunks_exact(lanes).enumerate() {
        moved.fill([0.0; LANES]);
        for (j, output) in outputs.chunks_exact(lanes).enumerate() {
            let at = i % 2 * OUTPUTS + j;
            let score = dot(input, output);
            let slope = step.rates[i / 2][at] * (step.labels[at] - sigmoid(score));
            (step.scores[i / 2][at], step.slopes[i / 2][at]) = (score, slope);
            add(slope, output, moved);
            add(slope, input, &mut moves[j * lanes..][..lanes]);
        }
        // SAFETY: by the contract of `StepFn`, each of `contexts` points to a live row of `lanes` lines. The row is read again, because it
        // may have been changed as another context.
        Line::add(unsafe { row(names[i], lanes) }, moved);
    }
    for (pointer, moves) in outputs_at.iter().zip(moves.chunks_exact(lanes)) {
        // SAFETY: by the contract of `StepFn`, each of `outputs` points to a live row of `lanes` lines.
        Line::add(unsafe { row(*pointer, lanes) }, moves);
    }
    step.local = local;
}

fn dot(a: &[Lane], b: &[Lane]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, y) in a.iter().zip(b) {
        sums = std::array::from_fn(|i| sums[i] + x[i] * y[i]);
    }
    // In halves, not left to right: the order that vector instructions use.
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// onto += g·row.
fn add(g: f32, row: &[Lane], onto: &mut [Lane]) {
    for (x, y) in row.iter().zip(onto) {
        *y = std::array::from_fn(|i| y[i] + g * x[i]);
    }
}

/// Never raises e to a positive power.
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    let positive = 1.0 / (1.0 + e);
    if x >= 0.0 { positive } else { e * positive }
}
