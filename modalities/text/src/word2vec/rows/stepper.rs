//! Goes through a block of text step by step: finds the rows of each [`Step`], prefetches those of later steps, and composes words and bags
//! and gives their changes back.

use std::ops::Range;

use super::super::windows::Window;
use super::step::{Aligned, CONTEXTS, GROUP, NONE, OUTPUTS, OutputWeights, Step, Two, Ways, choose, labels, two};
use super::{LANES, Line, Rows};

/// Runs steps on two tables of rows, at one rate, through one block of text after another; one for each thread.
pub struct Stepper<'a> {
    tables: Tables<'a>,
    rate: f32,
    labels: [f32; OUTPUTS],
    step: Box<Step>,
    ways: Ways,
    // Private rows: pairs of a mean and its trained copy.
    own: Vec<Line>,
    // The input rows of the block's words, and some more at the end, because windows are copied whole.
    inputs: Vec<*const Line>,
    // The output rows of the block's steps in order, as numbers and as pointers.
    ids: Vec<[u32; OUTPUTS]>,
    outputs: Vec<[*const Line; OUTPUTS]>,
    // Weights of the steps whose outputs do not all count once, with the steps' numbers.
    odd: Vec<(usize, OutputWeights)>,
    odd_next: usize,
    // The contexts of a step that are not consecutive rows.
    gathered: Box<[*const Line; CONTEXTS]>,
    // Rates of two contexts by the group's windows that they are in: one bit for each window, the first context's bits low.
    shares: Box<Aligned<[Two; 1 << (2 * GROUP)]>>,
}

/// The tables that steps work on, all of one width.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    /// The input table: the vectors that are published, or their parts.
    pub input: &'a Rows,
    /// The output table: the vectors that they are contrasted with.
    pub output: &'a Rows,
    /// A single row that stands for no output, and stays 0.
    pub none: &'a Rows,
}

impl<'a> Stepper<'a> {
    /// Steps at rate `rate` whose first `seen` outputs are words that were seen, with the instructions `isa` (see
    /// [`ctk_core::device::isa`]).
    pub fn new(tables: Tables<'a>, rate: f32, seen: usize, isa: &str) -> Stepper<'a> {
        let Tables { input, output, none } = tables;
        assert!(input.width() == output.width() && input.width() == none.width(), "all tables have rows of one width");
        let nothing = none.row(0);
        let step = Step::new(none, rate, seen);
        let ways = choose(isa, step.halves);
        let (inputs, ids, outputs, odd) = Default::default();
        let shares = Box::new(Aligned([[0.0; LANES]; 1 << (2 * GROUP)]));
        let labels = labels(seen);
        let mut stepper = Stepper {
            tables,
            rate,
            labels,
            step: Box::new(step),
            ways,
            own: Vec::new(),
            inputs,
            ids,
            outputs,
            odd,
            odd_next: 0,
            gathered: Box::new([nothing; CONTEXTS]),
            shares,
        };
        stepper.make_room(0);
        stepper
    }

    /// The same, with noise weighted like `negatives` draws for each pair where a [group](Self::group) shares a step.
    pub fn sharing(mut self, negatives: usize) -> Stepper<'a> {
        let noise = negatives as f32 / (OUTPUTS - GROUP) as f32;
        for (bits, line) in self.shares.0.iter_mut().enumerate() {
            for (lane, rate) in line.iter_mut().enumerate().take(2 * OUTPUTS) {
                let windows = bits >> (lane / OUTPUTS * GROUP) & ((1 << GROUP) - 1);
                let times = match lane % OUTPUTS {
                    j if j < GROUP => (windows >> j & 1) as f32,
                    _ => windows.count_ones() as f32 * noise,
                };
                *rate = times * self.rate;
            }
        }
        self
    }

    /// Begins a block of the words `ids`, whose steps are then [pushed](Self::push).
    pub fn block(&mut self, ids: &[u32]) {
        let input = self.tables.input;
        self.inputs.clear();
        self.inputs.extend(ids.iter().map(|&id| input.line(id as usize).as_ptr()));
        self.ids.clear();
        self.outputs.clear();
        self.odd.clear();
        self.odd_next = 0;
    }

    /// Adds a step's outputs: the words that were seen, then noise. All count once, or as `odd` says.
    #[inline]
    pub fn push(&mut self, ids: [u32; OUTPUTS], odd: Option<OutputWeights>) {
        // Checked here, so that the steps need not check again.
        let rows = self.tables.output.len();
        let wrong = |id: u32| id as usize >= rows && (odd.is_none() || id != NONE);
        assert!(!ids.into_iter().fold(false, |any, id| any | wrong(id)), "a word out of the table's range");
        let Tables { output, none, .. } = self.tables;
        let mut found = ids.map(|id| output.row(id));
        if let Some(odd) = odd {
            self.odd.push((self.outputs.len(), odd));
            found.iter_mut().zip(ids).filter(|(_, id)| *id == NONE).for_each(|(row, _)| *row = none.row(0));
        }
        self.ids.push(ids);
        self.outputs.push(found);
    }

    /// The output rows of all steps of the block, one after another; [`NONE`] may be among them.
    pub fn outputs(&self) -> &[u32] {
        self.ids.as_flattened()
    }

    /// Prefetches for the first steps: the input rows of `words` words, and the output rows of `steps` steps.
    pub fn fetch(&self, words: usize, steps: usize) {
        let Tables { input, output, .. } = self.tables;
        self.inputs.iter().take(words).for_each(|row| input.prefetch(*row));
        self.outputs.iter().take(steps).flatten().for_each(|row| output.prefetch(*row));
    }

    /// Prefetches the input rows `ids`.
    #[inline]
    pub(crate) fn fetch_parts(&self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.tables.input.prefetch(self.tables.input.row(id)));
    }

    /// Until [`release`](Self::release), the block's word at `at` is the mean of the input rows `ids`, in private row number `place` of
    /// [`make_room`](Self::make_room).
    pub(crate) fn compose(&mut self, at: usize, place: usize, ids: &[u32]) {
        self.take(1 + place, ids);
        self.inputs[at] = self.step.bag[1];
        // SAFETY: `words` were found by `line`, so they are rows of the table; `bag` is two private rows of this stepper; all live for the
        // call and are accessed by atomics; `choose` picked functions that this machine can run.
        unsafe { (self.ways.gather)(&mut self.step) };
    }

    /// Gives the change of the word at `place` back to the input rows `ids`.
    pub fn release(&mut self, place: usize, ids: &[u32]) {
        self.take(1 + place, ids);
        self.step.back = 1.0;
        // SAFETY: `words` were found by `line`, so they are rows of the table; `bag` is two private rows of this stepper; all live for the
        // call and are accessed by atomics; `choose` picked functions that this machine can run.
        unsafe { (self.ways.scatter)(&mut self.step) };
    }

    /// Allocates private rows for `places` composed words, numbered from 0; there must be no composed word at the time.
    pub(crate) fn make_room(&mut self, places: usize) {
        // And for a bag, which comes first.
        let lines = 2 * (1 + places) * self.tables.input.lanes();
        if self.own.len() < lines {
            self.own = (0..lines).map(|_| Line::default()).collect();
        }
    }

    fn place(&self, place: usize) -> [*const Line; 2] {
        let lanes = self.tables.input.lanes();
        let rows = &self.own[2 * place * lanes..][..2 * lanes];
        [rows.as_ptr(), rows[lanes..].as_ptr()]
    }

    fn take(&mut self, place: usize, ids: &[u32]) {
        let input = self.tables.input;
        self.step.bag = self.place(place);
        self.step.words.clear();
        self.step.words.extend(ids.iter().map(|&id| input.line(id as usize).as_ptr()));
    }

    /// Runs step `step`: trains the block's words `words`, except the one at `without`. More than [`CONTEXTS`] are trained in several
    /// turns. Their loss is added to `loss`, if it is given. A block's steps are run in order. Meanwhile the rows of word `later.0` and
    /// step `later.1` are prefetched.
    ///
    /// A word that occurs twice in one turn is changed twice. With vector instructions, its second occurrence changes the outputs by the
    /// value that the first has left.
    #[inline]
    pub fn step(&mut self, step: usize, words: Range<usize>, without: usize, later: (usize, usize), mut loss: Option<&mut f64>) {
        let odd = self.begin(step, later);
        if let Some(odd) = odd {
            self.step.rates = [two(odd.weights.map(|weight| weight * self.rate)); CONTEXTS / 2];
        }
        // The word that is left out is moved to the front for the time, so that the others are consecutive.
        let inside = words.contains(&without);
        if inside {
            self.inputs.swap(words.start, without);
        }
        for at in (words.start + usize::from(inside)..words.end).step_by(CONTEXTS) {
            let contexts = &self.inputs[at..words.end.min(at + CONTEXTS)];
            (self.step.contexts, self.step.count) = (contexts.as_ptr(), contexts.len());
            self.run(loss.as_deref_mut());
        }
        if inside {
            self.inputs.swap(words.start, without);
        }
        if odd.is_some() {
            self.end();
        }
    }

    /// As [`step`](Self::step), for neighbours that share a step: output j is the centre of window j, and is trained with that window's
    /// words alone; noise is trained with all words, as often as each is in a window. `later.0` is the first of two words to prefetch.
    #[inline]
    pub fn group(&mut self, step: usize, windows: &[Window], later: (usize, usize), mut loss: Option<&mut f64>) {
        let odd = self.begin(step, later);
        if let Some(input) = self.inputs.get(later.0 + 1) {
            self.tables.input.prefetch(*input);
        }
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return };
        let (start, end) = (first.words.start.min(last.words.start), first.words.end.max(last.words.end));
        for from in (start..end).step_by(u64::BITS as usize) {
            // The windows that each word is in.
            let mut within = [0; GROUP];
            within.iter_mut().zip(windows).for_each(|(bits, window)| *bits = window.contexts_from(from));
            let mut left = within.iter().fold(0, |all, bits| all | bits);
            while left != 0 {
                let (state, inputs) = (&mut *self.step, &self.inputs[from..]);
                let mut bits = [0u8; CONTEXTS];
                state.count = 0;
                while left != 0 && state.count < CONTEXTS {
                    let at = left.trailing_zeros();
                    left &= left - 1;
                    self.gathered[state.count] = inputs[at as usize];
                    bits[state.count] = (0..GROUP).fold(0, |of, j| of | ((within[j] >> at & 1) as u8) << j);
                    state.count += 1;
                }
                state.contexts = self.gathered.as_ptr();
                for (line, bits) in state.rates.iter_mut().zip(bits.as_chunks::<2>().0) {
                    *line = self.shares.0[usize::from(bits[0] | bits[1] << GROUP)];
                }
                if let Some(odd) = odd {
                    let times = two(odd.weights);
                    state.rates.iter_mut().for_each(|line| *line = std::array::from_fn(|lane| line[lane] * times[lane]));
                }
                self.run(loss.as_deref_mut());
            }
        }
        if odd.is_some() {
            self.step.labels = two(self.labels);
        }
    }

    /// As [`step`](Self::step), but the words are one bag: their mean is trained, and each word gets the mean's change or, if `exact`, the
    /// change divided by the number of words, which is the gradient (word2vec.c and gensim do the former).
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
        let odd = self.begin(step, later);
        if let Some(odd) = odd {
            self.step.rates[0] = two(odd.weights.map(|weight| weight * self.rate));
        }
        let bag = self.place(0);
        let state = &mut *self.step;
        state.words.clear();
        state.words.extend_from_slice(&self.inputs[words.start..without]);
        state.words.extend_from_slice(&self.inputs[without + 1..words.end]);
        if !state.words.is_empty() {
            state.back = if exact { 1.0 / state.words.len() as f32 } else { 1.0 };
            self.gathered[0] = bag[1];
            (state.bag, state.contexts, state.count) = (bag, self.gathered.as_ptr(), 1);
            // SAFETY: the pointers in `inputs`, and so in `words`, were made by `line` and `place`: they are rows of the tables, or private
            // rows of composed words. `bag` is two private rows of this stepper. `choose` picked functions that this machine can run.
            unsafe { (self.ways.gather)(state) };
            self.run(loss);
            // SAFETY: `words` and `bag` are unchanged since `gather`: rows of the tables and private rows, all live; `choose` picked
            // functions that this machine can run.
            unsafe { (self.ways.scatter)(&mut self.step) };
        }
        if odd.is_some() {
            self.end();
        }
    }

    /// Trains the contexts that the caller has set.
    #[inline]
    fn run(&mut self, loss: Option<&mut f64>) {
        // SAFETY: `begin` and the caller set the three arrays to places in `inputs`, `gathered` and `outputs`, which do not move before the
        // step is over. The pointers in them point to rows: the contexts' were found by `line` or are private, and `push` compared the
        // outputs' numbers with the table's length. Rows have `halves` half lines and live for `'a`, or as long as `own`; lines are
        // atomics. `count` is 1 to `CONTEXTS`, because callers check that a word is left. `choose` picked functions that this machine can
        // run.
        unsafe { (self.ways.contexts)(&mut self.step) };
        if let Some(loss) = loss {
            *loss += self.step.loss(self.rate);
        }
    }

    /// Sets a step's outputs; returns their weights, if they do not all count once.
    #[inline]
    fn begin(&mut self, step: usize, later: (usize, usize)) -> Option<OutputWeights> {
        let state = &mut *self.step;
        state.outputs = &raw const self.outputs[step];
        // At a block's end nothing more is to be prefetched, so the last rows are prefetched again.
        state.later = self.outputs.get(later.1).map_or(state.outputs, |rows| &raw const *rows);
        if let Some(input) = self.inputs.get(later.0) {
            state.later_input = *input;
        }
        let (_, odd) = *self.odd.get(self.odd_next).filter(|(at, _)| *at == step)?;
        self.odd_next += 1;
        state.labels = two(odd.labels);
        Some(odd)
    }

    /// Restores the usual rates and labels.
    #[inline]
    fn end(&mut self) {
        self.step.rates = [two([self.rate; OUTPUTS]); CONTEXTS / 2];
        self.step.labels = two(self.labels);
    }
}

#[cfg(test)]
mod tests;
