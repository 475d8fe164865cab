//! One step of negative sampling on shared rows: up to ten input rows against six output rows, all gradients before any move.
//!
//! ```text
//! sᵢⱼ = vᵢ·uⱼ      gᵢⱼ = rateⱼ (yⱼ − σ(sᵢⱼ))      vᵢ += Σⱼ gᵢⱼ uⱼ      uⱼ += Σᵢ gᵢⱼ vᵢ
//! ```
//!
//! with y₀ = 1 and the other yⱼ = 0: output 0 is the word that was seen, the rest are noise. This is the window step of
//! HogBatch (Ji et al. 2016, "Parallelizing Word2Vec in Shared and Distributed Memory"): a small product of matrices where
//! word2vec.c has many dot products. `x86` has it in vectors; [`portable`] is the same in plain Rust, which Miri accepts.
//!
//! A bag of words (CBOW) is one input row made for the moment, the mean of its words' rows. It takes the same step, and what it
//! has moved by then goes back to the words.

use std::ops::Range;

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
    /// The first `count` are in use; the rest is room to copy into.
    pub contexts: [*const Line; 2 * CONTEXTS],
    pub outputs: [*const Line; OUTPUTS],
    /// Rows that a later step will need, to be asked for at the start of this one.
    pub later: [*const Line; OUTPUTS + 1],
    /// 1 to [`CONTEXTS`].
    pub count: usize,
    /// Half lines (8 floats) of a row that hold values.
    pub halves: usize,
    /// The words of a bag.
    pub words: Vec<*const Line>,
    /// What each of a bag's words moves by, as a share of what their mean moves by.
    pub back: f32,
    /// Where the mean of a bag is kept, and where it is trained: two rows that nobody shares.
    pub bag: [*const Line; 2],
    local: Vec<Lane>,
}

/// # Safety
/// `contexts[..count]`, all `outputs`, `words` and `bag` point to rows of `halves` half lines, live and touched by atomics (or by
/// what is modelled as such) alone; `count` is 1 to [`CONTEXTS`]; the machine has the instructions that the function is made of.
pub(super) type Run = unsafe fn(&mut Step);

/// The two kinds of step: of each context by itself, and of a bag of them.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    pub contexts: Run,
    pub bag: Run,
}

/// Steps on two tables of rows, at one rate, through one block of text after another; one for each thread.
pub struct Stepper<'a> {
    tables: Tables<'a>,
    rate: f32,
    step: Box<Step>,
    ways: Ways,
    // The rows of `Step::bag`.
    _bag: Vec<Line>,
    // The input rows of the block's words; behind them some more, since windows are copied whole.
    inputs: Vec<*const Line>,
    // The output rows of its steps, by number, in order.
    outputs: Vec<[u32; OUTPUTS]>,
    // Those of which not all count once, with their place; in them a row may be `NONE`.
    odd: Vec<(usize, [f32; OUTPUTS])>,
    odd_next: usize,
}

/// What steps are made on: three tables with rows of one width.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    /// The vectors that are published.
    pub input: &'a Rows,
    /// The vectors they are contrasted with.
    pub output: &'a Rows,
    /// One row that stands for an output that is none, and stays 0.
    pub none: &'a Rows,
}

impl<'a> Stepper<'a> {
    /// Steps by the instructions `isa` (see [`ctk_core::device::isa`]).
    pub fn new(tables: Tables<'a>, rate: f32, isa: &str) -> Stepper<'a> {
        let Tables { input, output, none } = tables;
        assert!(input.width() == output.width() && input.width() == none.width(), "all tables have rows of one width");
        let nothing = none.row(0);
        let lanes = input.lanes();
        let bag: Vec<Line> = (0..2 * lanes).map(|_| Line::default()).collect();
        let step = Step {
            rates: two([rate; OUTPUTS]),
            scores: [[0.0; LANES]; CONTEXTS / 2],
            slopes: [[0.0; LANES]; CONTEXTS / 2],
            contexts: [nothing; 2 * CONTEXTS],
            outputs: [nothing; OUTPUTS],
            later: [nothing; OUTPUTS + 1],
            count: 0,
            halves: input.width().div_ceil(LANES / 2),
            words: Vec::new(),
            back: 1.0,
            bag: [bag.as_ptr(), bag[lanes..].as_ptr()],
            local: Vec::new(),
        };
        let ways = choose(isa, step.halves);
        let (inputs, outputs, odd) = Default::default();
        Stepper { tables, rate, step: Box::new(step), ways, _bag: bag, inputs, outputs, odd, odd_next: 0 }
    }

    /// Goes to a block of the words `ids`, whose steps are then [pushed](Self::push).
    pub fn block(&mut self, ids: &[u32]) {
        let Tables { input, none, .. } = self.tables;
        self.inputs.clear();
        self.inputs.extend(ids.iter().map(|&id| input.line(id as usize).as_ptr()));
        self.inputs.extend(std::iter::repeat_n(none.row(0), 2 * CONTEXTS));
        self.outputs.clear();
        self.odd.clear();
        self.odd_next = 0;
    }

    /// Adds a step's outputs: the word that was seen, then noise. Each counts once, or as `weights` say; then some may be [`NONE`].
    #[inline]
    pub fn push(&mut self, ids: [u32; OUTPUTS], weights: Option<[f32; OUTPUTS]>) {
        // Here, so that the steps need not ask again.
        let last = ids.iter().filter(|&&id| weights.is_none() || id != NONE).max();
        assert!(last.is_none_or(|&id| (id as usize) < self.tables.output.len()), "a word out of the table's range");
        if let Some(weights) = weights {
            self.odd.push((self.outputs.len(), weights));
        }
        self.outputs.push(ids);
    }

    /// Asks for the rows of the first steps: the inputs of `words` words, and the outputs of `steps` steps.
    pub fn fetch(&self, words: usize, steps: usize) {
        let Tables { input, output, .. } = self.tables;
        self.inputs.iter().take(words).for_each(|row| input.prefetch(*row));
        self.outputs.iter().take(steps).flatten().for_each(|&id| output.prefetch(output.row(id)));
    }

    /// Makes step `step`: trains the block's words `words`, but for the one at `without`. More than [`CONTEXTS`] are taken in
    /// turns of as many. Their loss is added to `loss`, if that is asked for. A block's steps are made in order. Meanwhile the
    /// rows of word `later.0` and step `later.1` are asked for.
    ///
    /// A word that is twice in one turn is moved twice. By vectors, its second occurrence moves the outputs by where its first
    /// has brought it.
    #[inline]
    pub fn step(&mut self, step: usize, words: Range<usize>, without: usize, later: (usize, usize), mut loss: Option<&mut f64>) {
        let weights = self.begin(step, later);
        let (state, inputs) = (&mut *self.step, &self.inputs[..]);
        let mut at = words.start;
        while at + usize::from(at == without) < words.end {
            // Always as many, of which some are not used: copies of one length are ones that the machine can foresee.
            let inside = (at..words.end.min(at + CONTEXTS)).contains(&without);
            state.contexts[..CONTEXTS].copy_from_slice(&inputs[at..][..CONTEXTS]);
            if inside {
                state.contexts[without - at..][..CONTEXTS].copy_from_slice(&inputs[without + 1..][..CONTEXTS]);
            }
            let end = words.end.min(at + CONTEXTS + usize::from(inside));
            state.count = end - at - usize::from(inside);
            // SAFETY: the pointers are of rows of the tables: the contexts' were found by `line`, the outputs' numbers were held
            // against the table's length by `push`; rows have `halves` half lines and live for `'a`; lines are atomics; `count`
            // is 1 to `CONTEXTS`, since something is left; `choose` gave `ways`.
            unsafe { (self.ways.contexts)(state) };
            if let Some(loss) = loss.as_deref_mut() {
                *loss += state.loss(&weights.unwrap_or([1.0; OUTPUTS]));
            }
            at = end;
        }
        self.end(weights);
    }

    /// As [`step`](Self::step), but that the words are one bag: their mean is trained, and each moves by what that has moved, or,
    /// if `exact`, by its share of it, which is the gradient (word2vec.c and gensim do the former).
    #[inline]
    pub fn bag(
        &mut self,
        step: usize,
        words: Range<usize>,
        without: usize,
        exact: bool,
        later: (usize, usize),
        loss: Option<&mut f64>,
    ) {
        let weights = self.begin(step, later);
        let state = &mut *self.step;
        state.words.clear();
        state.words.extend_from_slice(&self.inputs[words.start..without]);
        state.words.extend_from_slice(&self.inputs[without + 1..words.end]);
        if !state.words.is_empty() {
            state.back = if exact { 1.0 / state.words.len() as f32 } else { 1.0 };
            (state.contexts[0], state.count) = (state.bag[1], 1);
            // SAFETY: as above; `bag` is of two rows of `lanes` lines that are this stepper's own.
            unsafe { (self.ways.bag)(state) };
            if let Some(loss) = loss {
                *loss += state.loss(&weights.unwrap_or([1.0; OUTPUTS]));
            }
        }
        self.end(weights);
    }

    /// Goes to a step's outputs; says how often each counts, if not once.
    #[inline]
    fn begin(&mut self, step: usize, later: (usize, usize)) -> Option<[f32; OUTPUTS]> {
        let output = self.tables.output;
        let ids = self.outputs[step];
        let row = |id: u32| output.row(id);
        let state = &mut *self.step;
        state.outputs = ids.map(row);
        // At a block's end there is nothing more to ask for: what was asked for last then comes again.
        if let Some(ids) = self.outputs.get(later.1) {
            state.later[..OUTPUTS].copy_from_slice(&ids.map(row));
        }
        if let Some(input) = self.inputs.get(later.0) {
            state.later[OUTPUTS] = *input;
        }
        let (_, weights) = self.odd.get(self.odd_next).filter(|(at, _)| *at == step)?;
        self.odd_next += 1;
        let none = self.tables.none.row(0);
        (0..OUTPUTS).filter(|&j| ids[j] == NONE).for_each(|j| state.outputs[j] = none);
        state.rates = two(weights.map(|weight| weight * self.rate));
        Some(*weights)
    }

    #[inline]
    fn end(&mut self, weights: Option<[f32; OUTPUTS]>) {
        if weights.is_some() {
            self.step.rates = two([self.rate; OUTPUTS]);
        }
    }
}

fn two(rates: [f32; OUTPUTS]) -> Two {
    std::array::from_fn(|lane| if lane < 2 * OUTPUTS { rates[lane % OUTPUTS] } else { 0.0 })
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
fn choose(isa: &str, halves: usize) -> Ways {
    // Asked again, since a name alone must not lead to instructions that the machine has not.
    let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let wide =
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl");
    if isa.starts_with("avx512") && narrow && wide {
        return super::x86::avx512(halves);
    }
    if isa.starts_with("avx") && narrow {
        return super::x86::avx2(halves);
    }
    PORTABLE
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn choose(_: &str, _: usize) -> Ways {
    PORTABLE
}

const PORTABLE: Ways = Ways { contexts: portable, bag: portable_bag };

/// A bag's step in plain Rust.
unsafe fn portable_bag(step: &mut Step) {
    let lanes = step.halves.div_ceil(2);
    // SAFETY: the caller's promise; `lanes` lines hold `halves` half lines.
    let row = |pointer: *const Line| unsafe { std::slice::from_raw_parts(pointer, lanes) };
    let (mut word, mut mean) = (vec![[0.0; LANES]; lanes], vec![[0.0; LANES]; lanes]);
    let share = 1.0 / step.words.len() as f32;
    for &pointer in &step.words {
        Line::read(row(pointer), &mut word);
        add(share, &word, &mut mean);
    }
    step.bag.iter().for_each(|pointer| Line::write(row(*pointer), &mean));
    // SAFETY: the caller's promise.
    unsafe { portable(step) };
    let mut moved = vec![[0.0; LANES]; lanes];
    Line::read(row(step.bag[1]), &mut word);
    add(step.back, &word, &mut moved);
    add(-step.back, &mean, &mut moved);
    step.words.iter().for_each(|pointer| Line::add(row(*pointer), &moved));
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
