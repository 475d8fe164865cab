//! What a word is contrasted with: noise (negative sampling), or the turns of a path through a tree (hierarchical softmax).
//!
//! Either way it comes in steps of [`OUTPUTS`] output rows. Negative sampling has the centre and up to five negatives in the first,
//! up to five more in each other one. A draw that equals a centre is skipped, one that was drawn before counts again. A path's
//! inner nodes come six a step, from the root.

use ctk_core::rng::Stream;

use super::huffman::Tree;
use super::recipe::Negatives;
use super::rows::step::{GROUP, NONE, OUTPUTS, Odd, labels};
use super::windows::{Block, Window};
use crate::vocabulary::Alias;

/// Negatives of one step.
const NOISE: usize = OUTPUTS - 1;

/// What words are contrasted with.
pub enum Targets {
    /// `negatives` draws a pair, and which pairs share them.
    Noise {
        /// Where they come from.
        noise: Alias,
        /// How many.
        negatives: usize,
        /// For whom.
        sharing: Negatives,
    },
    /// The turns of the centre's path.
    Tree(Tree),
}

impl Targets {
    /// Who shares a step's outputs.
    pub fn sharing(&self) -> Negatives {
        match self {
            Targets::Noise { sharing, .. } => *sharing,
            Targets::Tree(_) => Negatives::Shared,
        }
    }

    /// Draws a pair.
    pub fn negatives(&self) -> usize {
        match self {
            Targets::Noise { negatives, .. } => *negatives,
            Targets::Tree(_) => 0,
        }
    }

    /// Output rows that a table must have for `words` words.
    pub fn rows(&self, words: usize) -> usize {
        match self {
            Targets::Noise { .. } => words,
            Targets::Tree(tree) => tree.nodes(),
        }
    }

    /// Steps that train one pair whose centre is `centre`.
    #[inline]
    pub fn steps(&self, centre: u32) -> usize {
        match self {
            Targets::Noise { sharing: Negatives::Grouped, .. } => 1,
            Targets::Noise { negatives, .. } => negatives.div_ceil(NOISE),
            Targets::Tree(tree) => tree.path(centre).0.len().div_ceil(OUTPUTS),
        }
    }

    /// The outputs of each step of a block, in the order they are made in, and how they count, unless all count once.
    pub fn draw(&self, block: &Block, mut into: impl FnMut([u32; OUTPUTS], Option<Odd>)) {
        let mut stream = block.negatives.stream();
        match self {
            Targets::Noise { noise, sharing: Negatives::Grouped, .. } => {
                for group in block.groups() {
                    let mut ids = [block.ids[group[0].centre]; OUTPUTS];
                    ids[GROUP - 1] = block.ids[group[group.len() - 1].centre];
                    ids[GROUP..].fill_with(|| noise.draw(&mut stream));
                    push(ids, GROUP, true, &mut into);
                }
            }
            Targets::Noise { noise, negatives, sharing } => {
                for window in block.windows() {
                    let turns = if *sharing == Negatives::Shared { 1 } else { window.pairs() };
                    for _ in 0..turns {
                        let mut left = *negatives;
                        while left > 0 {
                            let ids = draw(noise, block.ids[window.centre], left.min(NOISE), &mut stream);
                            push(ids, 1, left == *negatives, &mut into);
                            left -= left.min(NOISE);
                        }
                    }
                }
            }
            Targets::Tree(tree) => {
                for Window { centre, .. } in block.windows() {
                    let (nodes, turns) = tree.path(block.ids[centre]);
                    for (nodes, turns) in nodes.chunks(OUTPUTS).zip(turns.chunks(OUTPUTS)) {
                        let (mut ids, mut odd) = ([NONE; OUTPUTS], Odd { weights: [0.0; OUTPUTS], labels: [0.0; OUTPUTS] });
                        for (j, (node, right)) in nodes.iter().zip(turns).enumerate() {
                            (ids[j], odd.weights[j], odd.labels[j]) = (*node, 1.0, f32::from(u8::from(!right)));
                        }
                        into(ids, Some(odd));
                    }
                }
            }
        }
    }
}

#[inline]
fn draw(noise: &Alias, centre: u32, count: usize, stream: &mut Stream) -> [u32; OUTPUTS] {
    let mut ids = [centre; OUTPUTS];
    ids[1..=count].fill_with(|| noise.draw(stream));
    ids
}

/// Gives a step's outputs, of which the first `seen` are centres, if `wanted`, on.
#[inline]
fn push(ids: [u32; OUTPUTS], seen: usize, wanted: bool, into: &mut impl FnMut([u32; OUTPUTS], Option<Odd>)) {
    // Nearly always all six differ, and then there is nothing to do. Without a branch for each pair of them.
    let mut equal = !wanted;
    for i in 1..OUTPUTS {
        for j in 0..i {
            equal |= ids[i] == ids[j];
        }
    }
    if equal {
        let (ids, weights) = merge(ids, seen, wanted);
        into(ids, Some(Odd { weights, labels: labels(seen) }));
    } else {
        into(ids, None);
    }
}

/// Skips draws that equal a centre, counts equal ones together, and drops the centres themselves unless they are `wanted`.
#[cold]
fn merge(mut ids: [u32; OUTPUTS], seen: usize, wanted: bool) -> ([u32; OUTPUTS], [f32; OUTPUTS]) {
    let drawn = ids;
    let mut weights = [1.0; OUTPUTS];
    for j in 1..OUTPUTS {
        let first = drawn[..j].iter().position(|&id| id == drawn[j]);
        match first {
            Some(first) if first >= seen => weights[first] += 1.0,
            _ => {}
        }
        if first.is_some() {
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
    fn draws_that_equal_a_centre_are_skipped_and_equal_ones_counted_together() {
        assert_eq!(merge([3, 7, 3, 8, 7, 7], 1, true), ([3, 7, NONE, 8, NONE, NONE], [1.0, 3.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(merge([3, 7, 3, 8, 3, 3], 1, false), ([NONE, 7, NONE, 8, NONE, NONE], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(merge([3, 7, 7, 8, 3, 8], 2, true), ([3, 7, NONE, 8, NONE, NONE], [1.0, 1.0, 0.0, 2.0, 0.0, 0.0]));
        assert_eq!(merge([3, 3, 4, 5, 6, 7], 2, true), ([3, NONE, 4, 5, 6, 7], [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
    }
}
