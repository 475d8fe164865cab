//! Tests of batches without duplicates against the definition of a conflict, on random samples with planted duplicates.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng as _;
use rand::seq::SliceRandom;

use super::*;
use crate::data::feed::Order;
use crate::data::source::Source;
use crate::error::Result;
use crate::rng::Key;

/// Samples with their contents.
struct Samples {
    cells: Vec<u32>,
    columns: usize,
    distinct: Distinct,
}

impl Samples {
    fn new(cells: Vec<u32>, columns: usize) -> Samples {
        let contents = cells.iter().max().map_or(0, |most| *most as usize + 1);
        Samples { distinct: Distinct::new(&cells, columns, contents), cells, columns }
    }

    fn row(&self, sample: u32) -> &[u32] {
        &self.cells[sample as usize * self.columns..][..self.columns]
    }

    fn len(&self) -> usize {
        self.cells.len() / self.columns
    }

    /// The conflicts of the batches of `order`, by the definition.
    fn conflicts(&self, order: &[u32], batch: usize) -> usize {
        let mut positives: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        if self.columns > 1 {
            self.cells.chunks_exact(self.columns).filter(|row| row[0] != row[1]).for_each(|row| {
                positives.entry(row[0]).or_default().insert(row[1]);
            });
        }
        let known = |of: &[u32], in_other: &[u32]| {
            positives.get(&of[0]).is_some_and(|known| in_other.iter().any(|content| known.contains(content)))
        };
        let conflict = |a: &[u32], b: &[u32]| a.iter().any(|content| b.contains(content)) || known(a, b) || known(b, a);
        let of_batch = |batch: &[u32]| {
            let rows: Vec<&[u32]> = batch.iter().map(|sample| self.row(*sample)).collect();
            (0..rows.len()).filter(|&i| (0..i).any(|j| conflict(rows[i], rows[j]))).count()
        };
        order.chunks(batch).map(of_batch).sum()
    }

    /// Samples that cannot be placed in so many batches, because one of their contents is in more of them.
    fn crowded(&self, batches: usize) -> usize {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for sample in 0..self.len() {
            let contents: BTreeSet<u32> = self.row(sample as u32).iter().copied().collect();
            contents.into_iter().for_each(|content| *counts.entry(content).or_default() += 1);
        }
        counts.values().map(|count| count.saturating_sub(batches)).sum()
    }

    /// A shuffled order, and the same one arranged.
    fn arranged(&self, batch: usize, seed: u64) -> (Vec<u32>, Vec<u32>, Arranged) {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.shuffle(&mut Key::new(seed).rng());
        let before = order.clone();
        let arranged = self.distinct.arrange(&self.cells, &mut order, batch, |entry| entry as usize);
        (before, order, arranged)
    }
}

impl Source for Samples {
    type Batch = Vec<u32>;

    fn len(&self) -> usize {
        self.len()
    }

    fn arrange(&self, order: &mut Vec<u32>, batch: usize, _: usize) -> Arranged {
        self.distinct.arrange(&self.cells, order, batch, |entry| entry as usize)
    }

    fn draw(&self, samples: &[u32], _: Key) -> Result<Vec<u32>> {
        Ok(samples.to_vec())
    }
}

/// Samples of `columns` contents; `share` of them repeat a content of an earlier sample in some column, and so anchors have several
/// positives.
fn random(count: usize, columns: usize, share: f64, seed: u64) -> Samples {
    let mut rng = Key::new(seed).of("samples").rng();
    let mut cells: Vec<u32> = (0..(count * columns) as u32).collect();
    for at in columns..cells.len() {
        if rng.random_bool(share) {
            cells[at] = cells[rng.random_range(0..at / columns * columns)];
        }
    }
    Samples::new(cells, columns)
}

fn sorted(order: &[u32]) -> Vec<u32> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted
}

#[test]
fn no_batch_has_a_conflict_and_no_sample_is_lost() {
    let mut conflicts = 0;
    for seed in 0..40 {
        for (count, columns, batch, share) in
            [(300, 2, 16, 0.1), (301, 2, 16, 0.2), (400, 3, 10, 0.1), (250, 4, 8, 0.05), (200, 1, 20, 0.3)]
        {
            let samples = random(count, columns, share, seed);
            let (before, order, arranged) = samples.arranged(batch, seed);
            let case = format!("seed {seed}, {count} samples of {columns} in batches of {batch}");
            let there = samples.conflicts(&before, batch);
            // A content of more samples than there are batches must stand twice in some of them.
            let must = samples.crowded(count.div_ceil(batch));
            assert_eq!((samples.conflicts(&order, batch), arranged.unplaced), (must, must), "{case}");
            assert_eq!(arranged.moved > 0, there > 0, "{case}");
            conflicts += there;
            assert_eq!(sorted(&order), sorted(&before), "{case}");
            assert_eq!(samples.arranged(batch, seed).1, order, "{case}: the same again");
        }
    }
    assert!(conflicts > 1000, "there was something to do: {conflicts}");
}

#[test]
fn an_order_without_a_conflict_stays_as_it_is() {
    let samples = random(200, 3, 0.0, 1);
    let (before, order, arranged) = samples.arranged(16, 1);
    assert_eq!((order, arranged), (before, Arranged::default()));
    // The two samples with the same anchor are in different batches already.
    let mut order = vec![0, 1, 2, 3];
    let samples = Samples::new(vec![0, 1, 2, 3, 0, 4, 5, 6], 2);
    assert_eq!(samples.distinct.arrange(&samples.cells, &mut order, 2, |entry| entry as usize), Arranged::default());
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn a_content_that_every_batch_must_have_once_is_in_every_batch() {
    // As many samples of one content as there are batches: the batches that lack it have to be found.
    for seed in 0..30 {
        let (batches, batch) = (12, 8);
        let mut cells: Vec<u32> = (0..batches * batch * 2).collect();
        (0..batches as usize).for_each(|sample| cells[sample * 2 + 1] = 1);
        let samples = Samples::new(cells, 2);
        let (_, order, arranged) = samples.arranged(batch as usize, seed);
        assert_eq!((samples.conflicts(&order, batch as usize), arranged.unplaced), (0, 0), "seed {seed}");
    }
}

#[test]
fn known_positives_of_an_anchor_are_kept_apart() {
    // Sample 2 has the second positive of sample 0's anchor as its own anchor, sample 3 has it as its negative.
    let rows = [[0, 1, 10], [0, 2, 11], [2, 3, 12], [4, 5, 2], [6, 7, 13], [8, 9, 14]];
    let samples = Samples::new(rows.concat(), 3);
    for (a, b, together) in [(0, 1, false), (0, 2, false), (0, 3, false), (0, 4, true), (2, 4, true), (1, 3, false)] {
        assert_eq!(samples.conflicts(&[a, b], 2) == 0, together, "{a} and {b}");
        assert_eq!(samples.distinct.conflict(samples.row(a), samples.row(b)), !together, "{a} and {b}");
        assert_eq!(samples.distinct.conflict(samples.row(b), samples.row(a)), !together, "{b} and {a}");
    }
    // Anchors and positives of every degree: marks, comparisons and the definition agree.
    let mut rng = Key::new(3).rng();
    let cells: Vec<u32> = (0..600).map(|_| (rng.random_range(0.0f64..1.0).powi(3) * 60.0) as u32).collect();
    let samples = Samples::new(cells, 3);
    assert!(!samples.distinct.positives.numbers.is_empty() && !samples.distinct.anchors.numbers.is_empty());
    for (a, b) in (0..200).flat_map(|a| (0..200).map(move |b| (a, b))).filter(|(a, b)| a != b) {
        let defined = samples.conflicts(&[a, b], 2) > 0;
        assert_eq!(samples.distinct.conflict(samples.row(a), samples.row(b)), defined, "{a} and {b}");
        let mut marks = Marks::new(samples.distinct.contents);
        marks.now = 1;
        samples.distinct.mark(&mut marks, samples.row(a));
        assert_eq!(samples.distinct.obstacle(&marks, samples.row(b)).is_some(), defined, "{a} and {b}");
    }
}

#[test]
fn what_cannot_be_kept_apart_is_counted_and_batches_stay_full() {
    let equal = Samples::new(vec![0; 50], 2);
    let (before, order, arranged) = equal.arranged(5, 0);
    // Of each batch of five the first one conflicts with nothing; but for the very first one, these had to wait.
    assert_eq!((arranged, sorted(&order)), (Arranged { moved: 4, unplaced: 20 }, sorted(&before)));
    // Three different positives in batches of six: at most three of each batch can be without a conflict, and each stands twice.
    let cells: Vec<u32> = (0..60).flat_map(|sample| [3 + sample, sample % 3]).collect();
    let classes = Samples::new(cells, 2);
    let (before, order, arranged) = classes.arranged(6, 0);
    assert_eq!((arranged.unplaced, classes.conflicts(&order, 6), sorted(&order)), (30, 30, sorted(&before)));
    for batch in order.chunks(6) {
        let positives: BTreeSet<u32> = batch.iter().map(|sample| classes.row(*sample)[1]).collect();
        assert_eq!(positives.len(), 3, "the classes of a batch are mixed: {batch:?}");
    }
}

#[test]
fn batches_of_ranks_and_parts_are_those_of_the_whole() {
    let samples = random(203, 2, 0.2, 9);
    let new = |part: usize| Order::new(203, 14, part, true, false, Key::new(5)).arranged_by(&samples);
    let whole = new(14);
    let of =
        |order: &Order, step: usize| -> Vec<u32> { (0..order.parts()).flat_map(|part| order.samples(1, step, part)).collect() };
    let all: Vec<u32> = (0..whole.steps()).flat_map(|step| of(&whole, step)).collect();
    assert_eq!((samples.conflicts(&all, 14), sorted(&all)), (0, (0..203).collect()));
    assert!(whole.arranged().moved > 0 && whole.arranged().unplaced == 0);
    for (world, part) in [(1, 3), (2, 14), (3, 2)] {
        let ranks: Vec<Order> = (0..world).map(|rank| new(part).of_rank(rank, world)).collect();
        for step in 0..whole.steps() {
            assert_eq!(ranks.iter().flat_map(|rank| of(rank, step)).collect::<Vec<u32>>(), of(&whole, step));
        }
    }
    // Epochs differ, and what is reported belongs to the latest one.
    whole.samples(0, 0, 0);
    let latest = whole.arranged();
    assert_ne!(whole.samples(0, 0, 0), whole.samples(1, 0, 0));
    assert_eq!(latest, whole.arranged());
    // A source that arranges nothing leaves the shuffle as it is.
    struct Plain;
    impl Source for Plain {
        type Batch = ();

        fn len(&self) -> usize {
            203
        }

        fn draw(&self, _: &[u32], _: Key) -> Result<()> {
            Ok(())
        }
    }
    let plain = Order::new(203, 14, 14, true, false, Key::new(5));
    let same = Order::new(203, 14, 14, true, false, Key::new(5)).arranged_by(&Plain);
    assert!((0..plain.steps()).all(|step| of(&plain, step) == of(&same, step)));
}
