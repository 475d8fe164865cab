//! The output rows that a word is trained against: the centre word and negatives (negative sampling), or the inner nodes of the centre
//! word's path in a Huffman tree (hierarchical softmax).
//!
//! The kernel updates up to [`OUTPUTS`] output rows at once, which is called a step here. The rows of a step are:
//!
//! - Negatives `shared` or `per-pair`: the centre and up to five negatives. Further negatives follow in steps of up to five.
//! - Negatives `grouped`: two neighbouring centres and four negatives, in a single step.
//! - Hierarchical softmax: up to six nodes of the path, from the root down.
//!
//! A negative that equals a centre of its step is skipped. A negative that is drawn twice in a step has twice the weight. With `shared` and
//! `grouped`, several windows use the same negatives (see [`USES`]).

use ctk_texts::vocabulary::Vocabulary;

use super::frequency::{self, Alias};
use super::huffman::Tree;
use super::recipe::{Contrast, Negatives};
use super::rows::step::{GROUP, NONE, OUTPUTS, OutputWeights, labels};
use super::windows::{Block, Window};

/// The largest number of negatives in a step with one centre.
const NOISE: usize = OUTPUTS - 1;

/// The number of windows (for `grouped`, of groups) that use the same negatives, [`APART`] windows apart. Reuse is faster, because rows that
/// were used recently are still in the cache. Consecutive windows have nearly the same contexts, which would be pushed away from the same
/// few rows again and again: there a second use cost a point of analogy accuracy, 16 windows apart it cost none.
const USES: usize = 4;
/// More than the reach of two windows of usual size, and less than what a core's own cache holds.
const APART: usize = 16;

/// What words are contrasted with.
pub enum Targets {
    /// `negatives` draws for each pair, shared as `sharing` says.
    Noise {
        /// The noise distribution.
        noise: Alias,
        /// Draws for each pair.
        negatives: usize,
        /// Which pairs share them.
        sharing: Negatives,
    },
    /// The turns of the centre's path.
    Tree(Tree),
}

impl Targets {
    /// Which pairs share a step's outputs.
    pub fn sharing(&self) -> Negatives {
        match self {
            Targets::Noise { sharing, .. } => *sharing,
            Targets::Tree(_) => Negatives::Shared,
        }
    }

    /// Draws for each pair.
    pub fn negatives(&self) -> usize {
        match self {
            Targets::Noise { negatives, .. } => *negatives,
            Targets::Tree(_) => 0,
        }
    }

    /// Output rows that a table needs for `words` words.
    pub fn rows(&self, words: usize) -> usize {
        match self {
            Targets::Noise { .. } => words,
            Targets::Tree(tree) => tree.nodes(),
        }
    }

    /// Steps that train one pair with the centre `centre`.
    #[inline]
    pub fn steps(&self, centre: u32) -> usize {
        match self {
            Targets::Noise { sharing: Negatives::Grouped, .. } => 1,
            Targets::Noise { negatives, .. } => negatives.div_ceil(NOISE),
            Targets::Tree(tree) => tree.path(centre).0.len().div_ceil(OUTPUTS),
        }
    }

    /// The outputs of each step of a block, in the order in which they are run, and their weights, unless all count once.
    pub fn draw(&self, block: &Block, mut into: impl FnMut([u32; OUTPUTS], Option<OutputWeights>)) {
        let mut stream = block.negatives.stream();
        match self {
            Targets::Noise { noise, negatives, sharing: Negatives::Shared } => {
                let centres = block.ids.iter().map(|&id| [id; GROUP]);
                shared::<1>(|| noise.draw(&mut stream), centres, *negatives, &mut into);
            }
            Targets::Noise { noise, sharing: Negatives::Grouped, .. } => {
                let centres = block.groups().map(|group| [&group[0], &group[group.len() - 1]].map(|w| block.ids[w.centre]));
                shared::<GROUP>(|| noise.draw(&mut stream), centres, OUTPUTS - GROUP, &mut into);
            }
            Targets::Noise { noise, negatives, sharing: Negatives::PerPair } => {
                for window in block.windows() {
                    for _ in 0..window.pairs() {
                        for first in (0..*negatives).step_by(NOISE) {
                            let mut ids = [block.ids[window.centre]; OUTPUTS];
                            ids[1..].iter_mut().take(negatives - first).for_each(|id| *id = noise.draw(&mut stream));
                            push(ids, 1, first == 0, repeats(&ids), &mut into);
                        }
                    }
                }
            }
            Targets::Tree(tree) => {
                for Window { centre, .. } in block.windows() {
                    let (nodes, turns) = tree.path(block.ids[centre]);
                    for (nodes, turns) in nodes.chunks(OUTPUTS).zip(turns.chunks(OUTPUTS)) {
                        let (mut ids, mut odd) =
                            ([NONE; OUTPUTS], OutputWeights { weights: [0.0; OUTPUTS], labels: [0.0; OUTPUTS] });
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

/// The outputs of windows that share `negatives` draws each, in steps of `SEEN` centres and noise; see [`USES`].
#[inline]
fn shared<const SEEN: usize>(
    mut draw: impl FnMut() -> u32,
    centres: impl Iterator<Item = [u32; GROUP]>,
    negatives: usize,
    into: &mut impl FnMut([u32; OUTPUTS], Option<OutputWeights>),
) {
    let steps = negatives.div_ceil(OUTPUTS - SEEN);
    // Includes the centres; the second value is whether a draw is repeated.
    let mut drawn = vec![([0; OUTPUTS], false); APART * steps];
    for (window, centres) in centres.enumerate() {
        for (step, (ids, repeated)) in drawn[window % APART * steps..][..steps].iter_mut().enumerate() {
            let end = OUTPUTS.min(SEEN + negatives - step * (OUTPUTS - SEEN));
            if (window / APART).is_multiple_of(USES) {
                ids[SEEN..end].fill_with(&mut draw);
                *repeated = repeats(&ids[SEEN..end]);
            }
            ids[..SEEN].copy_from_slice(&centres[..SEEN]);
            // Unused places count as draws that equal a centre.
            ids[end..].fill(centres[0]);
            let mut equal = *repeated;
            for centre in 0..SEEN {
                equal |= ids[centre + 1..].iter().fold(false, |any, &id| any | (id == ids[centre]));
            }
            push(*ids, SEEN, step == 0, equal, into);
        }
    }
}

/// Whether an id occurs twice. Written without a branch for each pair of ids.
#[inline]
fn repeats(ids: &[u32]) -> bool {
    let mut equal = false;
    for i in 1..ids.len() {
        for j in 0..i {
            equal |= ids[i] == ids[j];
        }
    }
    equal
}

/// Passes a step's outputs on. The first `seen` are centres, which are dropped unless `wanted`; some may be `equal`.
#[inline]
fn push(
    ids: [u32; OUTPUTS],
    seen: usize,
    wanted: bool,
    equal: bool,
    into: &mut impl FnMut([u32; OUTPUTS], Option<OutputWeights>),
) {
    // Nearly always all six differ, and nothing needs to be merged.
    if equal || !wanted {
        let (ids, weights) = merge(ids, seen, wanted);
        into(ids, Some(OutputWeights { weights, labels: labels(seen) }));
    } else {
        into(ids, None);
    }
}

/// Skips draws that equal a centre, counts equal ones together, and drops the centres unless they are `wanted`.
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

impl Contrast {
    /// The targets of the words of `vocabulary`.
    pub fn targets(self, vocabulary: &Vocabulary) -> Targets {
        match self {
            Contrast::Noise { negatives, power, sharing } => {
                Targets::Noise { noise: frequency::noise(vocabulary, power), negatives, sharing }
            }
            Contrast::Tree => Targets::Tree(Tree::new(vocabulary.counts())),
        }
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::rng::Key;
    use ctk_texts::corpus::{Corpus, Limits};

    use super::*;

    /// A thousand equally frequent words, and a block in which each is a centre.
    fn words() -> (Corpus, Block) {
        let text: String = (0..1000).map(|word| format!("w{word} ")).collect();
        let corpus = Corpus::from_text(&text, Limits { min_count: 1, max_size: None }).unwrap();
        let ids: Vec<u32> = (0..1000).collect();
        let key = Key::new(1).of("negatives");
        (
            corpus,
            Block { radii: vec![2; ids.len()], lines: std::iter::once(0..ids.len()).collect(), ids, reach: 2, negatives: key },
        )
    }

    fn drawn(corpus: &Corpus, block: &Block, negatives: usize, sharing: Negatives) -> Vec<[u32; OUTPUTS]> {
        let mut all = Vec::new();
        Targets::Noise { noise: frequency::noise(corpus.vocabulary(), 0.75), negatives, sharing }
            .draw(block, |ids, _| all.push(ids));
        all
    }

    #[test]
    fn shared_noise_comes_again_at_a_distance_and_is_never_a_neighbours() {
        let (corpus, block) = words();
        for (negatives, sharing, seen) in [(5, Negatives::Shared, 1), (12, Negatives::Shared, 1), (5, Negatives::Grouped, GROUP)]
        {
            let all = drawn(&corpus, &block, negatives, sharing);
            let steps = if seen == GROUP { 1 } else { negatives.div_ceil(NOISE) };
            let windows: Vec<&[[u32; OUTPUTS]]> = all.chunks(steps).collect();
            assert_eq!(windows.len(), 1000 / seen);
            // The draws that equal no centre; few differ by one that did.
            let noise = |window: usize| -> Vec<u32> {
                windows[window].iter().flat_map(|ids| &ids[seen..]).copied().filter(|&id| id != NONE).collect()
            };
            let common = |a: usize, b: usize| noise(a).iter().filter(|id| noise(b).contains(id)).count();
            let (mut again, mut uses) = (0, std::collections::HashMap::new());
            for window in 0..windows.len() {
                noise(window).into_iter().for_each(|id| *uses.entry(id).or_insert(0) += 1);
                for apart in 1..APART.min(windows.len() - window) {
                    assert!(common(window, window + apart) <= negatives / 2, "{apart} apart");
                }
                if window + APART < windows.len() && !(window / APART + 1).is_multiple_of(USES) {
                    assert!(common(window, window + APART) + 1 >= noise(window).len());
                    again += 1;
                }
            }
            assert!(again > windows.len() / 2);
            let sum: usize = uses.values().sum();
            assert!(sum + windows.len() / 20 > windows.len() * if seen == GROUP { OUTPUTS - GROUP } else { negatives });
        }
    }

    #[test]
    fn negatives_of_a_pair_are_its_own() {
        let (corpus, block) = words();
        let all = drawn(&corpus, &block, 5, Negatives::PerPair);
        let pairs: usize = block.windows().map(|window| window.pairs()).sum();
        assert_eq!(all.len(), pairs);
        let repeated = all.windows(2).filter(|two| two[0][1..].iter().filter(|id| two[1][1..].contains(id)).count() > 2).count();
        assert_eq!(repeated, 0);
    }

    #[test]
    fn draws_that_equal_a_centre_are_skipped_and_equal_ones_counted_together() {
        assert_eq!(merge([3, 7, 3, 8, 7, 7], 1, true), ([3, 7, NONE, 8, NONE, NONE], [1.0, 3.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(merge([3, 7, 3, 8, 3, 3], 1, false), ([NONE, 7, NONE, 8, NONE, NONE], [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(merge([3, 7, 7, 8, 3, 8], 2, true), ([3, 7, NONE, 8, NONE, NONE], [1.0, 1.0, 0.0, 2.0, 0.0, 0.0]));
        assert_eq!(merge([3, 3, 4, 5, 6, 7], 2, true), ([3, NONE, 4, 5, 6, 7], [1.0, 0.0, 1.0, 1.0, 1.0, 1.0]));
    }
}
