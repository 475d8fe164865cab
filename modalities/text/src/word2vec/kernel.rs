//! Skip-gram and CBOW on one block of text: draws what it is contrasted with and trains window after window.
//!
//! The loss of one pair and its gradient are derived in [`ctk_core::objective::NegativeSampling`]. As in word2vec.c and gensim,
//! v is the INPUT row of a context word and u the OUTPUT row of the centre word; summed over a text this is skip-gram with the
//! roles read the other way round.
//!
//! A window's [`Targets`] are shared by its contexts ([`Negatives::Shared`]), by those of two neighbouring centres
//! ([`Negatives::Grouped`]), or by nobody ([`Negatives::PerPair`], as in word2vec.c). Either way all gradients are taken before any
//! row moves (see [`rows::step`](super::rows::step)).
//!
//! With subwords a word's vector is the mean of its own row and those of its n-grams (fastText). It is put together as the word
//! comes into a window's reach, and what it has moved by goes back to its parts as it leaves: once an occurrence, where fastText does
//! both for each pair.

use std::ops::Range;

use super::parts::Parts;
use super::recipe::{Architecture, Negatives};
use super::rows::step::GROUP;
#[cfg(doc)]
use super::rows::step::NONE;
use super::rows::stepper::{Stepper, Tables};
use super::targets::Targets;
use super::windows::{Block, Window};

/// Windows between drawing the targets of one and training it: as long as a row needs to arrive.
const AHEAD: usize = 2;

/// Words between asking for a word's parts and putting it together.
const PARTS_AHEAD: usize = 3;

/// How words are paired.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    /// What is trained against a centre's targets: each context, or their mean.
    pub architecture: Architecture,
    /// Whether a mean's gradient goes to its words divided by their number, as it is.
    pub exact: bool,
}

/// What a table of rows is trained with.
#[derive(Clone, Copy)]
pub struct Kernel<'a> {
    /// The rows.
    pub tables: Tables<'a>,
    /// The input rows that each word is made of, if not its own alone.
    pub parts: Option<&'a Parts>,
    /// What words are contrasted with.
    pub targets: &'a Targets,
    /// What it is trained on.
    pub pairs: Pairs,
    /// The loss is taken of one window in so many, a power of two.
    pub sample: usize,
    /// By which instructions (see [`ctk_core::device::isa`]).
    pub isa: &'static str,
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
    /// The input rows `ids` will be.
    fn inputs(&mut self, ids: &[u32]);
    /// The output rows `ids` will be, but for [`NONE`].
    fn outputs(&mut self, ids: &[u32]);
}

/// Nobody.
pub struct NoUsageCounts;

impl Touch for NoUsageCounts {
    fn inputs(&mut self, _: &[u32]) {}
    fn outputs(&mut self, _: &[u32]) {}
}

/// One thread's way to train.
pub struct Worker<'a, T> {
    kernel: Kernel<'a>,
    stepper: Stepper<'a>,
    touch: T,
}

impl<'a, T: Touch> Worker<'a, T> {
    /// Trains at learning rate `rate`.
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
        // What the first windows need; from then on, each asks for what a later one will.
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

/// The words of a block that are put together at the moment: those within reach of a window.
struct Made<'a> {
    parts: &'a Parts,
    ids: &'a [u32],
    places: usize,
    // From, and up to, which word.
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

    /// Puts together all words up to and with `last`.
    fn reach(&mut self, stepper: &mut Stepper, last: usize) {
        while self.to < self.ids.len().min(last + 1) {
            if let Some(&id) = self.ids.get(self.to + PARTS_AHEAD) {
                stepper.fetch_parts(self.parts.of(id));
            }
            stepper.compose(self.to, self.to % self.places, self.parts.of(self.ids[self.to]));
            self.to += 1;
        }
    }

    /// Gives back what the words before `first` have moved by.
    fn leave(&mut self, stepper: &mut Stepper, first: usize) {
        while self.from < first.min(self.to) {
            stepper.release(self.from % self.places, self.parts.of(self.ids[self.from]));
            self.from += 1;
        }
    }
}
