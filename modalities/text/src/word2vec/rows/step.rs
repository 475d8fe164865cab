//! One step of negative sampling on shared rows: up to ten input rows against six output rows, all gradients before any move.
//!
//! ```text
//! sᵢⱼ = vᵢ·uⱼ      gᵢⱼ = rateⱼ (yⱼ − σ(sᵢⱼ))      vᵢ += Σⱼ gᵢⱼ uⱼ      uⱼ += Σᵢ gᵢⱼ vᵢ
//! ```
//!
//! with y₀ = 1 and the other yⱼ = 0: output 0 is the word that was seen, the rest are noise. This is the window step of
//! HogBatch (Ji et al. 2016, "Parallelizing Word2Vec in Shared and Distributed Memory"): a small product of matrices where
//! word2vec.c has many dot products. `x86` has it in vectors; [`portable`] is the same in plain Rust, which Miri accepts.

use super::{LANES, Lane, Line, Rows};

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
    pub contexts: [*const Line; CONTEXTS],
    pub outputs: [*const Line; OUTPUTS],
    /// Contexts in use, 1 to [`CONTEXTS`].
    pub count: usize,
    /// Half lines (8 floats) of a row that hold values.
    pub halves: usize,
    local: Vec<Lane>,
}

/// # Safety
/// `contexts[..count]` and all `outputs` point to rows of `halves` half lines, live and touched by atomics (or by what is
/// modelled as such) alone; `count` is 1 to [`CONTEXTS`]; the machine has the instructions that the function is made of.
pub(super) type Run = unsafe fn(&mut Step);

/// Steps on two tables of rows; one for each thread.
pub struct Stepper<'a> {
    input: &'a Rows,
    output: &'a Rows,
    none: Vec<Line>,
    step: Box<Step>,
    run: Run,
}

impl<'a> Stepper<'a> {
    /// Steps on `input` and `output`, which have rows of one width, by the instructions `isa` (see
    /// [`ctk_core::device::isa`]).
    pub fn new(input: &'a Rows, output: &'a Rows, isa: &str) -> Stepper<'a> {
        assert_eq!(input.width(), output.width(), "both tables have rows of one width");
        let nothing: *const Line = std::ptr::null();
        let step = Step {
            rates: [0.0; LANES],
            scores: [[0.0; LANES]; CONTEXTS / 2],
            slopes: [[0.0; LANES]; CONTEXTS / 2],
            contexts: [nothing; CONTEXTS],
            outputs: [nothing; OUTPUTS],
            count: 0,
            halves: input.width().div_ceil(LANES / 2),
            local: Vec::new(),
        };
        let none = (0..input.lanes()).map(|_| Line::default()).collect();
        Stepper { input, output, none, run: choose(isa, step.halves), step: Box::new(step) }
    }

    /// Trains the words of `ids`, except the one at `centre`, against `outputs`, where output j (which may be [`NONE`]) counts
    /// `weights[j]` times. More than [`CONTEXTS`] words are taken in turns of as many. Their loss is added to `loss`, if that is
    /// asked for.
    ///
    /// A word that is twice in one turn is moved twice. By vectors, its second occurrence moves the outputs by where its first
    /// has brought it.
    #[inline]
    pub fn window(
        &mut self,
        outputs: &[u32; OUTPUTS],
        weights: &[f32; OUTPUTS],
        rate: f32,
        ids: &[u32],
        centre: usize,
        mut loss: Option<&mut f64>,
    ) {
        assert!(centre < ids.len(), "the centre is one of the words");
        for (pointer, &id) in self.step.outputs.iter_mut().zip(outputs) {
            *pointer = if id == NONE { self.none.as_ptr() } else { self.output.line(id as usize).as_ptr() };
        }
        for (j, weight) in weights.iter().enumerate() {
            self.step.rates[j] = weight * rate;
            self.step.rates[OUTPUTS + j] = weight * rate;
        }
        let (mut done, last) = (0, ids.len() - 1);
        while done < last {
            // Always ten pointers, of which some are not used: a loop of one length is one the machine can foresee.
            for (i, pointer) in self.step.contexts.iter_mut().enumerate() {
                let at = done + i;
                let at = (at + usize::from(at >= centre)).min(last);
                *pointer = self.input.line(ids[at] as usize).as_ptr();
            }
            self.step.count = (last - done).min(CONTEXTS);
            // SAFETY: each pointer is that of a row of one of the tables or of `none`, which have rows of `halves` half lines and
            // outlive the step; lines are atomics; `count` is above 0, since `done` is below `last`; `choose` gave `run`.
            unsafe { (self.run)(&mut self.step) };
            if let Some(loss) = loss.as_deref_mut() {
                *loss += self.step.loss(weights);
            }
            done += CONTEXTS;
        }
    }
}

impl Step {
    /// −Σ log σ(±s) of the step that was run, output j counted `weights[j]` times.
    fn loss(&self, weights: &[f32; OUTPUTS]) -> f64 {
        let mut loss = 0.0;
        for i in 0..self.count {
            let scores = &self.scores[i / 2][i % 2 * OUTPUTS..][..OUTPUTS];
            for (j, (score, weight)) in scores.iter().zip(weights).enumerate() {
                let against = f64::from(if j == 0 { -score } else { *score });
                loss += f64::from(*weight) * (against.max(0.0) + (-against.abs()).exp().ln_1p());
            }
        }
        loss
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
