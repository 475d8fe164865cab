//! Sets of images that belong together, found from what they have in common (a union-find forest).

use std::collections::HashMap;
use std::hash::Hash;

/// Elements `0..count` in sets; at first each is alone. Each element points to an earlier one of its set, or to itself.
pub struct Sets(Vec<usize>);

impl Sets {
    /// So many elements, each in a set of its own.
    pub fn new(count: usize) -> Sets {
        Sets((0..count).collect())
    }

    /// The first element of the set of `at`.
    pub fn first(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    /// Joins the sets of two elements.
    pub fn join(&mut self, one: usize, other: usize) {
        let (a, b) = (self.first(one), self.first(other));
        self.0[a.max(b)] = a.min(b);
    }

    /// Puts `at` into the set of the element that had `key` before it; `seen` has the first element of each key.
    pub fn join_alike<K: Eq + Hash>(&mut self, seen: &mut HashMap<K, usize>, key: K, at: usize) {
        let other = *seen.entry(key).or_insert(at);
        self.join(at, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_alike_in_any_way_is_one_set() {
        let mut sets = Sets::new(6);
        let (mut letters, mut numbers) = (HashMap::new(), HashMap::new());
        for (at, (letter, number)) in [('a', 1), ('b', 2), ('c', 1), ('b', 3), ('d', 4), ('c', 5)].into_iter().enumerate() {
            sets.join_alike(&mut letters, letter, at);
            sets.join_alike(&mut numbers, number, at);
        }
        assert_eq!((0..6).map(|at| sets.first(at)).collect::<Vec<_>>(), [0, 1, 0, 1, 4, 0]);
    }
}
