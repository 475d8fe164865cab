//! One step of negative sampling on shared rows: up to ten input rows against six output rows, all gradients before any move.
//!
//! ```text
//! sᵢⱼ = vᵢ·uⱼ      gᵢⱼ = rateⱼ (yⱼ − σ(sᵢⱼ))      vᵢ += Σⱼ gᵢⱼ uⱼ      uⱼ += Σᵢ gᵢⱼ vᵢ
//! ```
//!
//! with y₀ = 1 and the other yⱼ = 0: output 0 is the word that was seen, the rest are noise. This is the window step of
//! HogBatch (Ji et al. 2016, "Parallelizing Word2Vec in Shared and Distributed Memory"): a small product of matrices where
//! word2vec.c has many dot products. `x86` has it in vectors; [`portable`] is the same in plain Rust, which Miri accepts.

use std::ops::Range;

use super::{LANES, Lane, Line, Row, Rows};

/// Input rows a step at most: the contexts of a window of five to each side.
pub const CONTEXTS: usize = 10;
/// Output rows a step: the centre and five negatives.
pub const OUTPUTS: usize = 6;
/// Stands for no output row: a row of zeros that nobody shares.
pub const NONE: u32 = u32::MAX;

/// Lanes of numbers that belong to two contexts: `OUTPUTS` each, the rest unused.
pub(super) type Two = [f32; LANES];

/// yⱼ for two contexts.
pub(super) static LABELS: Aligned<Two> = Aligned([1., 0., 0., 0., 0., 0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 0.]);

#[repr(align(64))]
#[derive(Clone, Copy)]
pub(super) struct Aligned<T>(pub(super) T);

/// What a step reads and leaves behind.
#[repr(C, align(64))]
pub(super) struct Step {
    /// rateⱼ for two contexts.
    pub rates: Two,
    /// sᵢⱼ, two contexts a line.
    pub scores: [Two; CONTEXTS / 2],
    /// gᵢⱼ, two contexts a line.
    pub slopes: [Two; CONTEXTS / 2],
    /// The first `count` are in use; the rest is room to copy into.
    pub contexts: [*const Line; 2 * CONTEXTS],
    pub outputs: [*const Line; OUTPUTS],
    /// 1 to [`CONTEXTS`].
    pub count: usize,
    /// Half lines (8 floats) of a row that hold values.
    pub halves: usize,
    local: Vec<Lane>,
}

/// # Safety
/// `contexts[..count]` and all `outputs` point to rows of `halves` half lines, live and touched by atomics (or by what is
/// modelled as such) alone; `count` is 1 to [`CONTEXTS`]; the machine has the instructions that the function is made of.
pub(super) type Run = unsafe fn(&mut Step);

/// The outputs of a step: the word that was seen, then noise, and how often each counts.
#[derive(Clone, Copy)]
pub struct Outputs<'a> {
    rows: [Row<'a>; OUTPUTS],
    weights: [f32; OUTPUTS],
    // Whether all weights are 1.
    plain: bool,
    lanes: usize,
}

/// Input rows, in the order of a text.
#[derive(Default)]
pub struct Inputs<'a> {
    rows: Vec<Row<'a>>,
    lanes: usize,
}

/// Steps on two tables of rows, at one rate; one for each thread.
pub struct Stepper<'a> {
    input: &'a Rows,
    output: &'a Rows,
    none: &'a Rows,
    rate: f32,
    step: Box<Step>,
    run: Run,
}

impl<'a> Stepper<'a> {
    /// Steps on `input` and `output` by the instructions `isa` (see [`ctk_core::device::isa`]). All three tables have rows of
    /// one width; `none`'s only row stands for an output that is none, and stays 0.
    pub fn new(input: &'a Rows, output: &'a Rows, none: &'a Rows, rate: f32, isa: &str) -> Stepper<'a> {
        assert!(input.width() == output.width() && input.width() == none.width(), "all tables have rows of one width");
        let nothing = none.row(0);
        let step = Step {
            rates: two([rate; OUTPUTS]),
            scores: [[0.0; LANES]; CONTEXTS / 2],
            slopes: [[0.0; LANES]; CONTEXTS / 2],
            contexts: [nothing.pointer(); 2 * CONTEXTS],
            outputs: [nothing.pointer(); OUTPUTS],
            count: 0,
            halves: input.width().div_ceil(LANES / 2),
            local: Vec::new(),
        };
        Stepper { input, output, none, rate, run: choose(isa, step.halves), step: Box::new(step) }
    }

    /// Outputs by their numbers, of which all but the first may be [`NONE`].
    #[inline]
    pub fn outputs(&self, ids: &[u32; OUTPUTS], weights: [f32; OUTPUTS]) -> Outputs<'a> {
        let rows = ids.map(|id| if id == NONE { self.none.row(0) } else { self.output.row(id) });
        Outputs { rows, weights, plain: weights == [1.0; OUTPUTS], lanes: self.output.lanes() }
    }

    /// Asks for the rows of `outputs` to be brought near.
    #[inline]
    pub fn fetch(&self, outputs: &Outputs) {
        outputs.rows.iter().for_each(|row| self.output.prefetch(*row));
    }

    /// The rows of `ids`.
    pub fn inputs(&self, ids: &[u32], into: &mut Inputs<'a>) {
        into.lanes = self.input.lanes();
        into.rows.clear();
        into.rows.extend(ids.iter().map(|&id| self.input.row(id)));
        // Windows are copied whole, so there must be something behind the last.
        into.rows.extend(std::iter::repeat_n(self.none.row(0), 2 * CONTEXTS));
    }

    /// Asks for one of `inputs` to be brought near, if there are as many.
    #[inline]
    pub fn fetch_input(&self, inputs: &Inputs, at: usize) {
        inputs.rows.get(at).into_iter().for_each(|row| self.input.prefetch(*row));
    }

    /// Trains the rows `words` of `inputs`, but for the one at `without`, against `outputs`. More than [`CONTEXTS`] are taken in
    /// turns of as many. Their loss is added to `loss`, if that is asked for.
    ///
    /// A row that is twice in one turn is moved twice. By vectors, its second occurrence moves the outputs by where its first
    /// has brought it.
    #[inline]
    pub fn window(
        &mut self,
        outputs: &Outputs<'a>,
        inputs: &Inputs<'a>,
        words: Range<usize>,
        without: usize,
        mut loss: Option<&mut f64>,
    ) {
        let lanes = self.input.lanes();
        assert!(inputs.lanes == lanes && outputs.lanes == lanes, "rows of other tables");
        let (step, inputs) = (&mut *self.step, &inputs.rows[..]);
        step.outputs = outputs.rows.map(Row::pointer);
        if !outputs.plain {
            step.rates = two(outputs.weights.map(|weight| weight * self.rate));
        }
        let mut at = words.start;
        while at + usize::from(at == without) < words.end {
            // Always as many, of which some are not used: copies of one length are ones that the machine can foresee.
            let inside = (at..words.end.min(at + CONTEXTS)).contains(&without);
            copy(&inputs[at..], &mut step.contexts);
            if inside {
                copy(&inputs[without + 1..], &mut step.contexts[without - at..]);
            }
            let end = words.end.min(at + CONTEXTS + usize::from(inside));
            step.count = end - at - usize::from(inside);
            // SAFETY: the pointers are of rows of tables that live for `'a`, with `lanes` lines each, as asserted; lines are
            // atomics; `count` is 1 to `CONTEXTS`, since something is left; `choose` gave `run`.
            unsafe { (self.run)(step) };
            if let Some(loss) = loss.as_deref_mut() {
                *loss += step.loss(&outputs.weights);
            }
            at = end;
        }
        if !outputs.plain {
            step.rates = two([self.rate; OUTPUTS]);
        }
    }
}

fn two(rates: [f32; OUTPUTS]) -> Two {
    std::array::from_fn(|lane| if lane < 2 * OUTPUTS { rates[lane % OUTPUTS] } else { 0.0 })
}

#[inline]
fn copy(from: &[Row], to: &mut [*const Line]) {
    let from: &[Row; CONTEXTS] = from[..CONTEXTS].try_into().expect("as many were asked for");
    to[..CONTEXTS].copy_from_slice(&from.map(Row::pointer));
}

impl Step {
    /// −Σ log σ(±s) of the step that was run, output j counted `weights[j]` times.
    fn loss(&self, weights: &[f32; OUTPUTS]) -> f64 {
        // log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|), and one logarithm serves: of the product, whose factors are at most 2.
        let (mut sum, mut product) = (0.0, 1.0);
        for i in 0..self.count {
            let scores = &self.scores[i / 2][i % 2 * OUTPUTS..][..OUTPUTS];
            for (j, (score, weight)) in scores.iter().zip(weights).enumerate() {
                let against = if j == 0 { -score } else { *score };
                sum += weight * against.max(0.0);
                product *= f64::from(1.0 + (-against.abs()).exp()).powi(*weight as i32);
            }
        }
        f64::from(sum) + product.ln()
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn choose(isa: &str, halves: usize) -> Run {
    // Asked again, since a name alone must not lead to instructions that the machine has not.
    if isa.starts_with("avx512") && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
        return super::x86::avx512(halves);
    }
    if isa.starts_with("avx") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return super::x86::avx2(halves);
    }
    portable
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn choose(_: &str, _: usize) -> Run {
    portable
}

/// A step in plain Rust, on local copies of its rows.
unsafe fn portable(step: &mut Step) {
    let (count, lanes) = (step.count, step.halves.div_ceil(2));
    let mut local = std::mem::take(&mut step.local);
    local.clear();
    local.resize((count + 2 * OUTPUTS + 1) * lanes, [0.0; LANES]);
    let (inputs, rest) = local.split_at_mut(count * lanes);
    let (outputs, rest) = rest.split_at_mut(OUTPUTS * lanes);
    let (moves, moved) = rest.split_at_mut(OUTPUTS * lanes);
    // SAFETY: the caller's promise; `lanes` lines hold `halves` half lines.
    let row = |pointer: *const Line| unsafe { std::slice::from_raw_parts(pointer, lanes) };
    for (pointer, local) in step.contexts.iter().zip(inputs.chunks_exact_mut(lanes)) {
        Line::read(row(*pointer), local);
    }
    for (pointer, local) in step.outputs.iter().zip(outputs.chunks_exact_mut(lanes)) {
        Line::read(row(*pointer), local);
    }
    for (i, input) in inputs.chunks_exact(lanes).enumerate() {
        moved.fill([0.0; LANES]);
        for j in 0..OUTPUTS {
            let (score, label) = (dot(input, &outputs[j * lanes..][..lanes]), LABELS.0[j]);
            let slope = step.rates[j] * (label - sigmoid(score));
            (step.scores[i / 2][i % 2 * OUTPUTS + j], step.slopes[i / 2][i % 2 * OUTPUTS + j]) = (score, slope);
            add(slope, &outputs[j * lanes..][..lanes], moved);
            add(slope, input, &mut moves[j * lanes..][..lanes]);
        }
        // Read again: the same row may have been moved as another context.
        Line::add(row(step.contexts[i]), moved);
    }
    for (pointer, moves) in step.outputs.iter().zip(moves.chunks_exact(lanes)) {
        Line::add(row(*pointer), moves);
    }
    step.local = local;
}

fn dot(a: &[Lane], b: &[Lane]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, y) in a.iter().zip(b) {
        sums = std::array::from_fn(|i| sums[i] + x[i] * y[i]);
    }
    // Halves, not left to right: that is the order vectors can keep.
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

/// Never takes e to a positive power.
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    let positive = 1.0 / (1.0 + e);
    if x >= 0.0 { positive } else { e * positive }
}

#[cfg(test)]
mod tests;
