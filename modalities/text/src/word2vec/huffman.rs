//! The tree of hierarchical softmax: a Huffman code of the vocabulary, in which frequent words have short paths.
//!
//! p(w | v) = Π σ(±v·uₙ) over the inner nodes n of w's path, + where it turns left (Morin & Bengio 2005; Mikolov et al. 2013, "Efficient
//! Estimation of Word Representations in Vector Space"). As in word2vec.c, a turn to the heavier of two children (of equal ones the one
//! made later) is a right turn (1), whose label is 0. Inner nodes are numbered from the root down, so that those of all paths come first.

/// The paths of all words.
pub struct Tree {
    nodes: Vec<u32>,
    turns: Vec<bool>,
    // The start of each word's path in both lists, and the end of the last one.
    starts: Vec<usize>,
}

impl Tree {
    /// The tree of words with `counts`, which descend.
    pub fn new(counts: &[u64]) -> Tree {
        let words = counts.len();
        // Two sorted queues: words from the rarest on, and inner nodes as they are made (word2vec.c; linear in time).
        let mut weights: Vec<u128> = counts.iter().map(|&count| u128::from(count)).collect();
        let mut parents = vec![(0usize, false); (2 * words).saturating_sub(1)];
        let (mut word, mut node) = (words, words);
        while weights.len() + 1 < 2 * words {
            let mut lighter = |weights: &[u128]| {
                // Of equal weights a node is taken first, as in word2vec.c.
                if word > 0 && (node >= weights.len() || weights[word - 1] < weights[node]) {
                    word -= 1;
                    word
                } else {
                    node += 1;
                    node - 1
                }
            };
            let (first, second) = (lighter(&weights), lighter(&weights));
            let made = weights.len();
            (parents[first], parents[second]) = ((made, false), (made, true));
            weights.push(weights[first] + weights[second]);
        }
        let root = weights.len() - 1;
        let mut tree = Tree { nodes: Vec::new(), turns: Vec::new(), starts: vec![0] };
        let mut path = Vec::new();
        for word in 0..words {
            path.clear();
            let mut at = word;
            while at != root {
                let (parent, right) = parents[at];
                path.push(((root - parent) as u32, right));
                at = parent;
            }
            tree.nodes.extend(path.iter().rev().map(|(node, _)| node));
            tree.turns.extend(path.iter().rev().map(|(_, right)| right));
            tree.starts.push(tree.nodes.len());
        }
        tree
    }

    /// Number of inner nodes; at least one, so that there is a table.
    pub(crate) fn nodes(&self) -> usize {
        (self.starts.len() - 1).saturating_sub(1).max(1)
    }

    /// The inner nodes on the way from the root to `word`, and whether it turns right at each.
    #[inline]
    pub fn path(&self, word: u32) -> (&[u32], &[bool]) {
        let path = self.starts[word as usize]..self.starts[word as usize + 1];
        (&self.nodes[path.clone()], &self.turns[path])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_have_short_paths_and_no_code_begins_another() {
        // The example of every textbook: 45 13 12 16 9 5, in falling order.
        let tree = Tree::new(&[45, 16, 13, 12, 9, 5]);
        let lengths: Vec<usize> = (0..6).map(|w| tree.path(w).0.len()).collect();
        assert_eq!(lengths, [1, 3, 3, 3, 4, 4]);
        assert_eq!(tree.nodes(), 5);
        for word in 0..6 {
            let (nodes, turns) = tree.path(word);
            assert_eq!(nodes[0], 0, "the root");
            for other in (0..6).filter(|other| *other != word) {
                assert!(!tree.path(other).1.starts_with(turns));
                // Two paths that meet at a node have the same turns up to it.
                let (theirs, their_turns) = tree.path(other);
                let shared = nodes.iter().zip(theirs).take_while(|(a, b)| a == b).count();
                assert_eq!(turns[..shared - 1], their_turns[..shared - 1]);
                assert_ne!(turns[shared - 1], their_turns[shared - 1]);
            }
        }
    }

    #[test]
    fn its_length_is_within_a_bit_of_the_entropy() {
        let counts: Vec<u64> = (1..=5000).map(|rank| 1_000_000 / rank).collect();
        let tree = Tree::new(&counts);
        let total = counts.iter().sum::<u64>() as f64;
        let (mut mean, mut entropy) = (0.0, 0.0);
        for (word, count) in counts.iter().enumerate() {
            let share = *count as f64 / total;
            mean += share * tree.path(word as u32).0.len() as f64;
            entropy -= share * share.log2();
        }
        assert!(mean >= entropy && mean < entropy + 1.0, "{mean} bits, entropy {entropy}");
        let kraft: f64 = (0..5000).map(|w| 0.5f64.powi(tree.path(w).0.len() as i32)).sum();
        assert!((kraft - 1.0).abs() < 1e-9);
    }

    #[test]
    fn one_word_and_two() {
        assert_eq!((Tree::new(&[3]).path(0).0.len(), Tree::new(&[3]).nodes()), (0, 1));
        let two = Tree::new(&[3, 2]);
        assert_eq!((two.path(0), two.path(1)), ((&[0][..], &[true][..]), (&[0][..], &[false][..])));
    }
}
