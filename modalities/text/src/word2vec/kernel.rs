//! Skip-gram and CBOW with negative sampling on one block of text: draws negatives and trains window after window.
//!
//! The loss of one pair and its gradient are derived in [`ctk_core::objective::NegativeSampling`]. As in word2vec.c and gensim,
//! v is the INPUT row of a context word and u the OUTPUT row of the centre word; summed over a text this is skip-gram with the
//! roles read the other way round.
//!
//! A window's negatives are shared by its contexts ([`Negatives::Shared`]) or drawn for each of them
//! ([`Negatives::PerPair`], as in word2vec.c). Either way all gradients are taken before any row moves (see
//! [`rows::step`](super::rows::step)). A draw that equals the centre is skipped, one that was drawn before counts again.

use std::ops::Range;

use ctk_core::rng::Stream;

use super::recipe::{Architecture, Negatives};
use super::rows::step::{NONE, OUTPUTS, Stepper, Tables};
use super::windows::Block;
use crate::vocabulary::Alias;

/// Negatives of one step.
const NOISE: usize = OUTPUTS - 1;

/// Windows between drawing the negatives of one and training it: as long as a row needs to arrive.
const AHEAD: usize = 2;

/// How words are paired.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// Negatives a pair.
    pub negatives: usize,
    /// What is trained against them: each context, or their mean.
    pub architecture: Architecture,
    /// Whether a mean's gradient goes to its words divided by their number, as it is.
    pub exact: bool,
    /// Who shares negatives: the contexts of a window, or nobody.
    pub sharing: Negatives,
}

/// What a table of rows is trained with.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// The rows.
    pub tables: Tables<'a>,
    /// Where negatives come from.
    pub noise: &'a Alias,
    /// What it is trained on.
    pub pairs: Pairs,
    /// The loss is taken of one window in so many, a power of two.
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

/// Who is told of rows before they are trained.
pub trait Touch {
    /// The input row of `id` will be.
    fn input(&mut self, id: u32);
    /// The output row of `id` will be.
    fn output(&mut self, id: u32);
}

/// Nobody.
pub struct Untold;

impl Touch for Untold {
    fn input(&mut self, _: u32) {}
    fn output(&mut self, _: u32) {}
}

/// One thread's way to train.
pub struct Worker<'a, T> {
    kernel: Kernel<'a>,
    stepper: Stepper<'a>,
    touch: T,
}

impl<'a, T: Touch> Worker<'a, T> {
    /// Trains at learning rate `rate`, by the widest vectors that the machine has.
    pub fn new(kernel: Kernel<'a>, touch: T, rate: f32) -> Worker<'a, T> {
        Worker { kernel, stepper: Stepper::new(kernel.tables, rate, ctk_core::device::isa()), touch }
    }

    /// Trains one block.
    pub fn block(&mut self, block: &Block) -> Sum {
        let Worker { kernel, stepper, touch } = self;
        block.ids.iter().for_each(|&id| touch.input(id));
        stepper.block(&block.ids);
        kernel.draw(block, |ids, weights| {
            ids.iter().filter(|&&id| weights.is_none() || id != NONE).for_each(|&id| touch.output(id));
            stepper.push(ids, weights);
        });
        // What the first windows need; from then on, each asks for what a later one will.
        let steps = kernel.steps();
        stepper.fetch(block.reach + AHEAD, AHEAD * steps);

        let (mut sum, mut next) = (Sum::default(), 0);
        for (index, window) in block.windows().enumerate() {
            let word = window.centre + block.reach + AHEAD;
            let mut loss = (index & (kernel.sample - 1) == 0).then_some(0.0);
            let mut train = |words: Range<usize>| {
                for step in next..next + steps {
                    let (centre, later, loss) = (window.centre, (word, step + AHEAD * steps), loss.as_mut());
                    match kernel.pairs.architecture {
                        Architecture::SkipGram => stepper.step(step, words.clone(), centre, later, loss),
                        Architecture::Cbow => stepper.bag(step, words.clone(), centre, kernel.pairs.exact, later, loss),
                    }
                }
                next += steps;
            };
            match kernel.pairs.sharing {
                Negatives::Shared => train(window.words.clone()),
                Negatives::PerPair => window.contexts().for_each(|at| train(at..at + 1)),
            }
            if let Some(loss) = loss {
                sum.loss += loss;
                sum.pairs += match kernel.pairs.architecture {
                    Architecture::SkipGram => window.pairs() as u64,
                    Architecture::Cbow => window.pairs().min(1) as u64,
                };
            }
        }
        sum
    }
}

impl Kernel<'_> {
    /// Steps that train one word against all of its negatives.
    fn steps(&self) -> usize {
        self.pairs.negatives.div_ceil(NOISE)
    }

    /// The outputs of each step of a block, in order: the centre, or [`NONE`] in all but the first of a pair's steps, and
    /// negatives, with how often each counts, unless that is once.
    pub fn draw(&self, block: &Block, mut into: impl FnMut([u32; OUTPUTS], Option<[f32; OUTPUTS]>)) {
        let mut stream = block.negatives.stream();
        for window in block.windows() {
            let turns = if self.pairs.sharing == Negatives::Shared { 1 } else { window.pairs() };
            for _ in 0..turns {
                for step in 0..self.steps() {
                    let ids = self.draw_step(block.ids[window.centre], step, &mut stream);
                    // Nearly always all six differ, and then there is nothing to do. Without a branch for each pair of them.
                    let mut equal = step > 0;
                    for i in 1..OUTPUTS {
                        for j in 0..i {
                            equal |= ids[i] == ids[j];
                        }
                    }
                    if equal {
                        let (ids, weights) = merge(ids, step == 0);
                        into(ids, Some(weights));
                    } else {
                        into(ids, None);
                    }
                }
            }
        }
    }

    #[inline]
    fn draw_step(&self, centre: u32, step: usize, stream: &mut Stream) -> [u32; OUTPUTS] {
        let mut ids = [centre; OUTPUTS];
        let count = (self.pairs.negatives - step * NOISE).min(NOISE);
        ids[1..=count].fill_with(|| self.noise.draw(stream));
        ids
    }
}

/// Skips draws that equal output 0, counts equal ones together, and drops output 0 itself unless it is `wanted`.
#[cold]
fn merge(mut ids: [u32; OUTPUTS], wanted: bool) -> ([u32; OUTPUTS], [f32; OUTPUTS]) {
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
    (ids, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_that_equal_the_centre_are_skipped_and_equal_ones_counted_together() {
        assert_eq!(merge([3, 7, 3, 8, 7, 7], true), ([3, 7, NONE, 8, NONE, NONE], [1.0, 3.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(merge([3, 7, 3, 8, 3, 3], false), ([NONE, 7, NONE, 8, NONE, NONE], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]));
    }
}
