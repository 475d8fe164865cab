//! Skip-gram with negative sampling on one block of text: draws negatives and trains window after window.
//!
//! The loss of one pair and its gradient are derived in [`ctk_core::objective::NegativeSampling`]. As in word2vec.c and gensim,
//! v is the INPUT row of a context word and u the OUTPUT row of the centre word; summed over a text this is skip-gram with the
//! roles read the other way round.
//!
//! A window's negatives are shared by its contexts ([`Negatives::Shared`]) or drawn for each of them
//! ([`Negatives::PerPair`], as in word2vec.c). Either way all gradients are taken before any row moves (see
//! [`rows::step`](super::rows::step)). A draw that equals the centre is skipped, one that was drawn before counts again.

use ctk_core::rng::Stream;

use super::recipe::Negatives;
use super::rows::Rows;
use super::rows::step::{NONE, OUTPUTS, Stepper};
use super::windows::Block;
use crate::vocabulary::Alias;

/// Negatives of one step.
const NOISE: usize = OUTPUTS - 1;

/// Windows between drawing the negatives of one and training it: as long as a row needs to arrive.
const AHEAD: usize = 2;

/// What a table of rows is trained with.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// The vectors that are published.
    pub input: &'a Rows,
    /// The vectors they are contrasted with.
    pub output: &'a Rows,
    /// Where negatives come from.
    pub noise: &'a Alias,
    /// Negatives a pair.
    pub negatives: usize,
    /// Who shares them: the contexts of a window, or nobody.
    pub sharing: Negatives,
    /// The loss is taken of one window in so many.
    pub sample: usize,
}

/// Sums over the pairs whose loss was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the pairs' losses.
    pub loss: f64,
    /// Number of pairs.
    pub pairs: u64,
}

/// The outputs of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outputs {
    /// The centre, or [`NONE`] in all but the first of a pair's steps, and negatives.
    pub ids: [u32; OUTPUTS],
    /// How often each counts.
    pub weights: [f32; OUTPUTS],
}

/// One thread's way to train.
pub struct Worker<'a> {
    kernel: Kernel<'a>,
    stepper: Stepper<'a>,
    drawn: Vec<Outputs>,
}

impl<'a> Worker<'a> {
    /// Trains by the widest vectors that the machine has.
    pub fn new(kernel: Kernel<'a>) -> Worker<'a> {
        let stepper = Stepper::new(kernel.input, kernel.output, ctk_core::device::isa());
        Worker { kernel, stepper, drawn: Vec::new() }
    }

    /// Trains one block at learning rate `rate`.
    pub fn block(&mut self, block: &Block, rate: f32) -> Sum {
        let Worker { kernel, stepper, drawn } = self;
        drawn.clear();
        kernel.draw(block, |outputs| drawn.push(outputs));
        let ids = &block.ids;
        let ahead = AHEAD * kernel.steps();
        // What the first windows need; from then on, each asks for what a later one will.
        ids.iter().take(block.reach + AHEAD).for_each(|&id| kernel.input.prefetch(id));
        drawn.iter().take(ahead).for_each(|outputs| kernel.fetch(outputs));

        let (mut sum, mut next) = (Sum::default(), 0);
        for (index, window) in block.windows().enumerate() {
            if let Some(&id) = ids.get(window.centre + block.reach + AHEAD) {
                kernel.input.prefetch(id);
            }
            let mut loss = index.is_multiple_of(kernel.sample).then_some(0.0);
            let mut train = |words: &[u32], centre: usize| {
                for _ in 0..kernel.steps() {
                    if let Some(outputs) = drawn.get(next + ahead) {
                        kernel.fetch(outputs);
                    }
                    stepper.window(&drawn[next].ids, &drawn[next].weights, rate, words, centre, loss.as_mut());
                    next += 1;
                }
            };
            match kernel.sharing {
                Negatives::Shared => train(&ids[window.words.clone()], window.centre - window.words.start),
                Negatives::PerPair => window.contexts().for_each(|at| train(&[ids[at], ids[window.centre]], 1)),
            }
            if let Some(loss) = loss {
                sum.loss += loss;
                sum.pairs += window.pairs() as u64;
            }
        }
        sum
    }
}

impl Kernel<'_> {
    /// Steps that train one word against all of its negatives.
    fn steps(&self) -> usize {
        self.negatives.div_ceil(NOISE)
    }

    fn fetch(&self, outputs: &Outputs) {
        outputs.ids.iter().filter(|&&id| id != NONE).for_each(|&id| self.output.prefetch(id));
    }

    /// The outputs of each step of a block, in order.
    pub fn draw(&self, block: &Block, mut into: impl FnMut(Outputs)) {
        let mut stream = block.negatives.stream();
        for window in block.windows() {
            let turns = if self.sharing == Negatives::Shared { 1 } else { window.pairs() };
            for _ in 0..turns {
                for step in 0..self.steps() {
                    into(self.outputs(block.ids[window.centre], step, &mut stream));
                }
            }
        }
    }

    #[inline]
    fn outputs(&self, centre: u32, step: usize, stream: &mut Stream) -> Outputs {
        let mut ids = [centre; OUTPUTS];
        let count = (self.negatives - step * NOISE).min(NOISE);
        ids[1..=count].fill_with(|| self.noise.draw(stream));
        // Nearly always all six differ, and then there is nothing to do. Without a branch for each pair of them.
        let mut equal = step > 0;
        for i in 1..OUTPUTS {
            for j in 0..i {
                equal |= ids[i] == ids[j];
            }
        }
        if equal { merge(ids, step == 0) } else { Outputs { ids, weights: [1.0; OUTPUTS] } }
    }
}

/// Skips draws that equal output 0, counts equal ones together, and drops output 0 itself unless it is `wanted`.
#[cold]
fn merge(mut ids: [u32; OUTPUTS], wanted: bool) -> Outputs {
    let centre = ids[0];
    let mut weights = [1.0; OUTPUTS];
    for j in 1..OUTPUTS {
        let first = ids[1..j].iter().position(|&id| id == ids[j]);
        if let Some(first) = first {
            weights[1 + first] += 1.0;
        }
        if first.is_some() || ids[j] == centre {
            (ids[j], weights[j]) = (NONE, 0.0);
        }
    }
    if !wanted {
        (ids[0], weights[0]) = (NONE, 0.0);
    }
    Outputs { ids, weights }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_that_equal_the_centre_are_skipped_and_equal_ones_counted_together() {
        let merged = merge([3, 7, 3, 8, 7, 7], true);
        assert_eq!(merged.ids, [3, 7, NONE, 8, NONE, NONE]);
        assert_eq!(merged.weights, [1.0, 3.0, 0.0, 1.0, 0.0, 0.0]);
        let later = merge([3, 7, 3, 8, 3, 3], false);
        assert_eq!((later.ids[0], later.weights[0]), (NONE, 0.0));
        assert_eq!(later.weights, [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]);
    }
}
