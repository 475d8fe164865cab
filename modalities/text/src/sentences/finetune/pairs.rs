//! SetFit's pairs of labelled texts (Tunstall et al. 2022): pairs of one class have the score 1, pairs of two classes 0.
//!
//! Pairs are i ≤ j, so a text with itself is one, which dropout alone tells apart. Of both kinds there are equally many: the rarer one's
//! pairs are repeated. There are at most so many of a kind for each text; then a seeded choice of them is taken. Batches take both kinds in
//! turn.

use std::collections::BTreeMap;

use ctk_core::Result;
use ctk_core::data::distinct::Arranged;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::rng::Key;
use rand::seq::index;

use crate::tokens::Tokens;

/// Pairs of labelled texts.
pub struct LabelledPairs<'a> {
    /// The tokens of each labelled text.
    texts: &'a [Vec<u32>],
    /// Pairs of one class, then as many of two classes.
    pairs: Vec<[u32; 2]>,
}

impl<'a> LabelledPairs<'a> {
    /// The pairs of `texts`, whose classes are `labels`; at most `most` of each kind for a text. Without two classes there are none.
    pub fn new(texts: &'a [Vec<u32>], labels: &[u32], most: usize, seed: u64) -> LabelledPairs<'a> {
        let mut classes: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        labels.iter().zip(0..).for_each(|(label, text)| classes.entry(*label).or_default().push(text));
        let classes: Vec<Vec<u32>> = classes.into_values().collect();
        // Pairs are numbered class by class, or pair of classes by pair of classes; each entry has the number of the first pair behind it.
        let mut same: Vec<(usize, usize)> = Vec::new();
        let mut other: Vec<(usize, [usize; 2])> = Vec::new();
        let (mut of_same, mut of_other) = (0, 0);
        for (at, class) in classes.iter().enumerate() {
            of_same += class.len() * (class.len() + 1) / 2;
            same.push((of_same, at));
            for (before, others) in classes[..at].iter().enumerate() {
                of_other += class.len() * others.len();
                other.push((of_other, [before, at]));
            }
        }
        if of_other == 0 {
            return LabelledPairs { texts, pairs: Vec::new() };
        }
        let wanted = of_same.max(of_other).min(most.saturating_mul(labels.len()));
        let drawn = |kind: &str, all: usize| {
            let mut rng = Key::new(seed).of("pairs of labelled texts").of(kind).rng();
            index::sample(&mut rng, all, wanted.min(all)).into_vec()
        };
        let mut pairs: Vec<[u32; 2]> = Vec::with_capacity(2 * wanted);
        let chosen = drawn("one class", of_same);
        for number in chosen.iter().cycle().take(wanted) {
            let entry = same.partition_point(|(end, _)| end <= number);
            let class = &classes[same[entry].1];
            let [i, j] = triangle(number - if entry == 0 { 0 } else { same[entry - 1].0 });
            pairs.push([class[i], class[j]]);
        }
        let chosen = drawn("two classes", of_other);
        for number in chosen.iter().cycle().take(wanted) {
            let entry = other.partition_point(|(end, _)| end <= number);
            let (first, second) = (&classes[other[entry].1[0]], &classes[other[entry].1[1]]);
            let within = number - if entry == 0 { 0 } else { other[entry - 1].0 };
            pairs.push([first[within / second.len()], second[within % second.len()]]);
        }
        LabelledPairs { texts, pairs }
    }

    /// Pairs of each kind.
    pub fn each(&self) -> usize {
        self.pairs.len() / 2
    }
}

/// Pair `number` of the pairs i ≤ j, in the order of j: (0, 0), (0, 1), (1, 1), (0, 2), …
fn triangle(number: usize) -> [usize; 2] {
    let mut j = (((8.0 * number as f64 + 1.0).sqrt() - 1.0) / 2.0) as usize;
    // The root is rounded.
    while j * (j + 1) / 2 > number {
        j -= 1;
    }
    while (j + 1) * (j + 2) / 2 <= number {
        j += 1;
    }
    [number - j * (j + 1) / 2, j]
}

impl Source for LabelledPairs<'_> {
    type Batch = Batch<Tokens, ()>;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Both kinds in turn, each in the order that was drawn.
    fn arrange(&self, order: &mut Vec<u32>, _: usize, _: usize) -> Arranged {
        let each = self.each() as u32;
        let (same, other): (Vec<u32>, Vec<u32>) = order.iter().partition(|pair| **pair < each);
        order.clear();
        order.extend(same.into_iter().zip(other).flat_map(|(same, other)| [same, other]));
        Arranged::default()
    }

    fn draw(&self, samples: &[u32], _: Key) -> Result<Self::Batch> {
        let mut left = vec![Tokens::default(); 2];
        for sample in samples {
            let pair = self.pairs[*sample as usize];
            left.iter_mut().zip(pair).for_each(|(view, text)| view.push(&self.texts[text as usize]));
        }
        let score = |sample: &u32| if (*sample as usize) < self.each() { 1.0 } else { 0.0 };
        let known = Known { scores: Some(samples.iter().map(score).collect()), ..Known::default() };
        Ok(Batch { left, right: Vec::new(), samples: samples.to_vec(), known })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn pairs(labels: &[u32], most: usize, seed: u64) -> Vec<([u32; 2], bool)> {
        let texts: Vec<Vec<u32>> = (0..labels.len() as u32).map(|text| vec![text]).collect();
        let of = LabelledPairs::new(&texts, labels, most, seed);
        let mut order: Vec<u32> = (0..of.len() as u32).collect();
        of.arrange(&mut order, 4, 0);
        let batch = of.draw(&order, Key::new(0)).unwrap();
        assert!(batch.known.scores.unwrap().iter().zip(0..).all(|(score, at)| (*score == 1.0) == (at % 2 == 0)), "in turn");
        order.iter().map(|pair| (of.pairs[*pair as usize], (*pair as usize) < of.each())).collect()
    }

    #[test]
    fn all_pairs_are_there_and_the_fewer_are_repeated() {
        let labels = [7, 3, 7, 3, 7, 9];
        let found = pairs(&labels, 20, 1);
        let of = |same: bool| found.iter().filter(|(_, of)| *of == same).map(|(pair, _)| *pair).collect::<Vec<_>>();
        let different = |pairs: &[[u32; 2]]| pairs.iter().map(|[a, b]| [*a.min(b), *a.max(b)]).collect::<HashSet<_>>();
        // One class: 6 + 3 + 1; two classes: 3·2 + 3·1 + 2·1.
        assert_eq!((of(true).len(), of(false).len()), (11, 11));
        assert_eq!((different(&of(true)).len(), different(&of(false)).len()), (10, 11));
        for ([a, b], same) in &found {
            assert_eq!(labels[*a as usize] == labels[*b as usize], *same, "{a} {b}");
        }
        assert!((0..6).all(|text| of(true).contains(&[text, text])), "a text with itself");
        assert_eq!(found, pairs(&labels, 20, 1));
        assert_ne!(found, pairs(&labels, 20, 2));
    }

    #[test]
    fn many_labels_have_a_part_of_their_pairs() {
        let labels: Vec<u32> = (0..3000).map(|text| text % 7).collect();
        let found = pairs(&labels, 5, 0);
        assert_eq!(found.len(), 2 * 5 * 3000);
        let texts: HashSet<u32> = found.iter().flat_map(|(pair, _)| *pair).collect();
        assert!(texts.len() > 2990, "all texts take part: {}", texts.len());
        let different: HashSet<[u32; 2]> = found.iter().map(|(pair, _)| *pair).collect();
        assert_eq!(different.len(), found.len(), "where there are enough none is repeated");
        for ([a, b], same) in found {
            assert_eq!(labels[a as usize] == labels[b as usize], same);
        }
        assert!(pairs(&[4, 4, 4], 20, 0).is_empty(), "one class has nothing to tell apart");
    }

    #[test]
    fn numbers_of_pairs_are_unfolded() {
        let first: Vec<[usize; 2]> = (0..6).map(triangle).collect();
        assert_eq!(first, [[0, 0], [0, 1], [1, 1], [0, 2], [1, 2], [2, 2]]);
        for j in [1000, 94_906_265] {
            let number = j * (j + 1) / 2;
            assert_eq!([triangle(number - 1), triangle(number), triangle(number + j)], [[j - 1, j - 1], [0, j], [j, j]]);
        }
    }
}
