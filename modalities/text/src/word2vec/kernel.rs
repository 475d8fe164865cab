//! Trains skip-gram or CBOW on one block of text: draws the targets, and trains window after window.
//!
//! The loss of one pair and its gradient are derived in [`ctk_core::objective::NegativeSampling`]. As in word2vec.c and gensim, v is the
//! INPUT row of a context word and u the OUTPUT row of the centre word. Summed over a text this is skip-gram with the two roles exchanged.
//!
//! A window's [`Targets`] are shared by its contexts ([`Negatives::Shared`]), by those of two neighbouring centres
//! ([`Negatives::Grouped`]), or not shared ([`Negatives::PerPair`], as in word2vec.c). In every case all gradients are computed before any
//! row changes (see [`rows::step`](super::rows::step)).
//!
//! With subwords a word's vector is the mean of its own row and those of its n-grams (fastText). It is composed when the word comes within
//! reach of a window, and its change is given back to the parts when the word leaves: once for each occurrence, where fastText does both
//! for each pair.

use std::ops::Range;

use super::parts::Parts;
use super::recipe::{Architecture, Negatives};
use super::rows::step::GROUP;
#[cfg(doc)]
use super::rows::step::NONE;
use super::rows::stepper::{Stepper, Tables};
use super::targets::Targets;
use super::windows::{Block, Window};

/// Windows between drawing a window's targets and training it: as long as a row needs to arrive in cache.
const AHEAD: usize = 2;

/// Words between prefetching a word's parts and composing it.
const PARTS_AHEAD: usize = 3;

/// How words are paired.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// What is trained against a centre's targets: each context, or the mean of the contexts.
    pub architecture: Architecture,
    /// Whether a mean's gradient is divided by the number of its words, which is the exact gradient.
    pub exact: bool,
}

/// The tables and settings that are trained with.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// The rows.
    pub tables: Tables<'a>,
    /// The input rows that each word is composed of, with subwords.
    pub parts: Option<&'a Parts>,
    /// The targets that words are contrasted with.
    pub targets: &'a Targets,
    /// How words are paired.
    pub pairs: Pairs,
    /// The loss is computed for one window in so many, a power of two.
    pub sample: usize,
    /// The vector instructions to use (see [`ctk_core::device::isa`]).
    pub isa: &'static str,
}

/// Sums over the pairs whose loss was computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the pairs' losses.
    pub loss: f64,
    /// Number of pairs.
    pub pairs: u64,
}

/// Is told which rows are about to be trained.
pub trait Touch {
    /// The input rows `ids` will be trained.
    fn inputs(&mut self, ids: &[u32]);
    /// The output rows `ids` will be trained, except [`NONE`].
    fn outputs(&mut self, ids: &[u32]);
}

/// Counts nothing.
pub struct NoUsageCounts;

impl Touch for NoUsageCounts {
    fn inputs(&mut self, _: &[u32]) {}
    fn outputs(&mut self, _: &[u32]) {}
}

/// The training state of one thread.
pub struct Worker<'a, T> {
    kernel: Kernel<'a>,
    stepper: Stepper<'a>,
    touch: T,
}

impl<'a, T: Touch> Worker<'a, T> {
    /// A thread's state for training at learning rate `rate`.
    pub fn new(kernel: Kernel<'a>, touch: T, rate: f32) -> Worker<'a, T> {
        let grouped = kernel.targets.sharing() == Negatives::Grouped;
        let seen = if grouped { GROUP } else { 1 };
        let stepper = Stepper::new(kernel.tables, rate, seen, kernel.isa).sharing(kernel.targets.negatives());
        Worker { kernel, stepper, touch }
    }

    /// Trains one block.
    pub fn block(&mut self, block: &Block) -> Sum {
        let Worker { kernel, stepper, touch } = self;
        stepper.block(&block.ids);
        kernel.targets.draw(block, |ids, odd| stepper.push(ids, odd));
        match kernel.parts {
            Some(parts) => block.ids.iter().for_each(|&id| touch.inputs(parts.of(id))),
            None => touch.inputs(&block.ids),
        }
        touch.outputs(stepper.outputs());
        let mut made = kernel.parts.map(|parts| Made::new(parts, block, stepper));
        // Prefetches for the first windows; from then on each window prefetches for a later one.
        stepper.fetch(block.reach + AHEAD, AHEAD * kernel.targets.steps(0));

        let (mut sum, mut next) = (Sum::default(), 0);
        let mut train = |index: usize, group: &[Window]| {
            let Some(window) = group.first() else { return };
            if let Some(made) = &mut made {
                made.reach(stepper, group[group.len() - 1].centre + block.reach);
            }
            let steps = kernel.targets.steps(block.ids[window.centre]);
            let word = window.centre + block.reach + AHEAD * group.len();
            let mut loss = (index & (kernel.sample - 1) == 0).then_some(0.0);
            let mut each = |words: Range<usize>| {
                for step in next..next + steps {
                    let (centre, later, loss) = (window.centre, (word, step + AHEAD * steps), loss.as_mut());
                    match kernel.pairs.architecture {
                        Architecture::SkipGram => stepper.step(step, words.clone(), centre, later, loss),
                        Architecture::Cbow => stepper.bag(step, words.clone(), centre, kernel.pairs.exact, later, loss),
                    }
                }
                next += steps;
            };
            match kernel.targets.sharing() {
                Negatives::Shared => each(window.words.clone()),
                Negatives::PerPair => window.contexts().for_each(|at| each(at..at + 1)),
                Negatives::Grouped => {
                    stepper.group(next, group, (word, next + AHEAD), loss.as_mut());
                    next += 1;
                }
            }
            if let Some(loss) = loss {
                sum.loss += loss;
                sum.pairs += match kernel.pairs.architecture {
                    Architecture::SkipGram => group.iter().map(|window| window.pairs() as u64).sum(),
                    Architecture::Cbow => window.pairs().min(1) as u64,
                };
            }
            if let Some(made) = &mut made {
                made.leave(stepper, (group[group.len() - 1].centre + 1).saturating_sub(block.reach));
            }
        };
        if kernel.targets.sharing() == Negatives::Grouped {
            block.groups().enumerate().for_each(|(index, group)| train(index, &group));
        } else {
            block.windows().enumerate().for_each(|(index, window)| train(index, &[window]));
        }
        if let Some(made) = &mut made {
            made.leave(stepper, block.ids.len());
        }
        sum
    }
}

/// The composed words of a block: those within reach of a window.
struct Made<'a> {
    parts: &'a Parts,
    ids: &'a [u32],
    places: usize,
    // The first composed word, and the one after the last.
    from: usize,
    to: usize,
}

impl<'a> Made<'a> {
    fn new(parts: &'a Parts, block: &'a Block, stepper: &mut Stepper) -> Made<'a> {
        // The reach to both sides of a group's centres.
        let places = (2 * block.reach + GROUP).next_power_of_two();
        stepper.make_room(places);
        block.ids.iter().take(PARTS_AHEAD).for_each(|&id| stepper.fetch_parts(parts.of(id)));
        Made { parts, ids: &block.ids, places, from: 0, to: 0 }
    }

    /// Composes all words up to and including `last`.
    fn reach(&mut self, stepper: &mut Stepper, last: usize) {
        while self.to < self.ids.len().min(last + 1) {
            if let Some(&id) = self.ids.get(self.to + PARTS_AHEAD) {
                stepper.fetch_parts(self.parts.of(id));
            }
            stepper.compose(self.to, self.to % self.places, self.parts.of(self.ids[self.to]));
            self.to += 1;
        }
    }

    /// Gives the changes of the words before `first` back to their parts.
    fn leave(&mut self, stepper: &mut Stepper, first: usize) {
        while self.from < first.min(self.to) {
            stepper.release(self.from % self.places, self.parts.of(self.ids[self.from]));
            self.from += 1;
        }
    }
}
