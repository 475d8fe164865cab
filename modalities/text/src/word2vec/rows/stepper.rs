//! Goes through a block of text step by step: finds the rows that each [`Step`] reads, asks for those that later ones will, and puts
//! together and takes apart what is no row of the table.

use std::ops::Range;

use super::super::windows::Window;
use super::step::{Aligned, CONTEXTS, GROUP, NONE, OUTPUTS, OutputWeights, Step, Two, Ways, choose, labels, two};
use super::{LANES, Line, Rows};

/// Steps on two tables of rows, at one rate, through one block of text after another; one for each thread.
pub struct Stepper<'a> {
    tables: Tables<'a>,
    rate: f32,
    labels: [f32; OUTPUTS],
    step: Box<Step>,
    ways: Ways,
    // Rows that are nobody else's: pairs of a mean and what it became.
    own: Vec<Line>,
    // The input rows of the block's words; behind them some more, since windows are copied whole.
    inputs: Vec<*const Line>,
    // The output rows of its steps, in order, by number and where they are.
    ids: Vec<[u32; OUTPUTS]>,
    outputs: Vec<[*const Line; OUTPUTS]>,
    // Those of which not all count alike, with their place.
    odd: Vec<(usize, OutputWeights)>,
    odd_next: usize,
    // The contexts of a step where they are not in a row, and what is nowhere else.
    gathered: Box<[*const Line; CONTEXTS]>,
    // Rates of two contexts by which of the group's windows they are in: one bit a window, the first context's bits low.
    shares: Box<Aligned<[Two; 1 << (2 * GROUP)]>>,
}

/// What steps are made on: three tables with rows of one width.
#[derive(Clone, Copy)]
pub struct Tables<'a> {
    /// The vectors that are published, or their parts.
    pub input: &'a Rows,
    /// The vectors they are contrasted with.
    pub output: &'a Rows,
    /// One row that stands for an output that is none, and stays 0.
    pub none: &'a Rows,
}

impl<'a> Stepper<'a> {
    /// Steps at rate `rate` with outputs of which the first `seen` are words that were seen, by the instructions `isa` (see
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

    /// The same, whose noise counts for as much as `negatives` draws a pair where a [group](Self::group) shares a step.
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

    /// Goes to a block of the words `ids`, whose steps are then [pushed](Self::push).
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
        // Here, so that the steps need not ask again.
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

    /// The output rows of all steps of the block, one after another; [`NONE`] among them.
    pub fn outputs(&self) -> &[u32] {
        self.ids.as_flattened()
    }

    /// Asks for the rows of the first steps: the inputs of `words` words, and the outputs of `steps` steps.
    pub fn fetch(&self, words: usize, steps: usize) {
        let Tables { input, output, .. } = self.tables;
        self.inputs.iter().take(words).for_each(|row| input.prefetch(*row));
        self.outputs.iter().take(steps).flatten().for_each(|row| output.prefetch(*row));
    }

    /// Asks for the input rows `ids`.
    #[inline]
    pub(crate) fn fetch_parts(&self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.tables.input.prefetch(self.tables.input.row(id)));
    }

    /// From here to [`release`](Self::release), the block's word at `at` is the mean of the input rows `ids`, in a row of its own:
    /// place `place` of [`make_room`](Self::make_room)'s.
    pub(crate) fn compose(&mut self, at: usize, place: usize, ids: &[u32]) {
        self.take(1 + place, ids);
        self.inputs[at] = self.step.bag[1];
        // SAFETY: `take` found rows of the table by `line` and two of this stepper's own; `choose` gave `ways`.
        unsafe { (self.ways.gather)(&mut self.step) };
    }

    /// What the word at `place` has moved by goes to the input rows `ids`.
    pub fn release(&mut self, place: usize, ids: &[u32]) {
        self.take(1 + place, ids);
        self.step.back = 1.0;
        // SAFETY: as of `compose`.
        unsafe { (self.ways.scatter)(&mut self.step) };
    }

    /// Room for `places` composed words, numbered from 0; not while there are any.
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

    /// Makes step `step`: trains the block's words `words`, but for the one at `without`. More than [`CONTEXTS`] are taken in
    /// turns of as many. Their loss is added to `loss`, if that is asked for. A block's steps are made in order. Meanwhile the
    /// rows of word `later.0` and step `later.1` are asked for.
    ///
    /// A word that is twice in one turn is moved twice. By vectors, its second occurrence moves the outputs by where its first
    /// has brought it.
    #[inline]
    pub fn step(&mut self, step: usize, words: Range<usize>, without: usize, later: (usize, usize), mut loss: Option<&mut f64>) {
        let odd = self.begin(step, later);
        if let Some(odd) = odd {
            self.step.rates = [two(odd.weights.map(|weight| weight * self.rate)); CONTEXTS / 2];
        }
        // The one that is left out goes to the front for so long, so that the others are in a row.
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

    /// As [`step`](Self::step), for neighbours that share one: output j is the centre of window j, and trained with that window's
    /// words alone; noise is trained with all of them, as often as each is in a window. `later.0` is the first of two words that
    /// are asked for.
    #[inline]
    pub fn group(&mut self, step: usize, windows: &[Window], later: (usize, usize), mut loss: Option<&mut f64>) {
        let odd = self.begin(step, later);
        if let Some(input) = self.inputs.get(later.0 + 1) {
            self.tables.input.prefetch(*input);
        }
        let (Some(first), Some(last)) = (windows.first(), windows.last()) else { return };
        let (start, end) = (first.words.start.min(last.words.start), first.words.end.max(last.words.end));
        for from in (start..end).step_by(u64::BITS as usize) {
            // Which of so many words are in which window.
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
            // SAFETY: `words` are rows of the tables, or composed ones, of which `inputs` has pointers from `line` and `place` alone;
            // `bag` is of two rows of this stepper's own; `choose` gave `ways`.
            unsafe { (self.ways.gather)(state) };
            self.run(loss);
            // SAFETY: as above.
            unsafe { (self.ways.scatter)(&mut self.step) };
        }
        if odd.is_some() {
            self.end();
        }
    }

    /// Trains what was put down in `contexts`.
    #[inline]
    fn run(&mut self, loss: Option<&mut f64>) {
        // SAFETY: `begin` and the caller set the three arrays to places in `inputs`, `gathered` and `outputs`, which nobody moves
        // before the step is over. The pointers in them are of rows: the contexts' were found by `line` or are this stepper's own,
        // the outputs' numbers were held against the table's length by `push`; rows have `halves` half lines and live for `'a`, or
        // as long as `own`; lines are atomics; `count` is 1 to `CONTEXTS`, since callers see that something is left; `choose` gave
        // `ways`.
        unsafe { (self.ways.contexts)(&mut self.step) };
        if let Some(loss) = loss {
            *loss += self.step.loss(self.rate);
        }
    }

    /// Goes to a step's outputs; says how each counts, if not once.
    #[inline]
    fn begin(&mut self, step: usize, later: (usize, usize)) -> Option<OutputWeights> {
        let state = &mut *self.step;
        state.outputs = &raw const self.outputs[step];
        // At a block's end there is nothing more to ask for: what was asked for last then comes again.
        state.later = self.outputs.get(later.1).map_or(state.outputs, |rows| &raw const *rows);
        if let Some(input) = self.inputs.get(later.0) {
            state.later_input = *input;
        }
        let (_, odd) = *self.odd.get(self.odd_next).filter(|(at, _)| *at == step)?;
        self.odd_next += 1;
        state.labels = two(odd.labels);
        Some(odd)
    }

    /// Goes back to what is usual.
    #[inline]
    fn end(&mut self) {
        self.step.rates = [two([self.rate; OUTPUTS]); CONTEXTS / 2];
        self.step.labels = two(self.labels);
    }
}

#[cfg(test)]
mod tests;
