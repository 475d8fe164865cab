//! Nearest neighbours of words, or of sums of words; and the word that does not belong with the others.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::Table;
use super::words::{Words, unknown, values};
use crate::error::{Error, Result};
use ctk_kernels::wide;

/// A sum of words, each scaled to length 1: `king + woman − man`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum<'a> {
    /// What is added.
    pub positive: Vec<&'a str>,
    /// What is subtracted.
    pub negative: Vec<&'a str>,
}

/// The `count` rows nearest by cosine to the sum of `positive` minus the sum of `negative`, where every vector is scaled to length 1. The
/// rows of these words are left out. Returns names and cosines, nearest first; of equal ones the first row.
///
/// # Errors
/// See [`search`].
pub fn neighbors(table: &dyn Table, positive: &[&str], negative: &[&str], count: usize) -> Result<Vec<(String, f32)>> {
    let sum = Sum { positive: positive.to_vec(), negative: negative.to_vec() };
    Ok(search(table, &[sum], count)?.remove(0))
}

/// [`neighbors`] of several sums, in one pass over the table. It computes what gensim's `most_similar` does: with `positive` b and c and
/// `negative` a it is 3CosAdd (Mikolov et al. 2013).
///
/// # Errors
/// A name without a row or a composed vector (names are looked up as written, and then lower-cased); an empty sum; a table that cannot be
/// read.
pub fn search(table: &dyn Table, sums: &[Sum], count: usize) -> Result<Vec<Vec<(String, f32)>>> {
    let asked = sums.iter().flat_map(|sum| sum.positive.iter().chain(&sum.negative).copied());
    let words = Words::find(table, table.len(), asked);
    let targets = sums.iter().map(|sum| target(table, &words, sum)).collect::<Result<Vec<Target>>>()?;
    let width = table.width();
    let count = count.min(table.len());
    let empty = || vec![BinaryHeap::new(); targets.len()];
    let found = table
        .blocks()
        .into_par_iter()
        .map_init(Vec::new, |room, range| {
            let from = range.start;
            let mut best = empty();
            for (row, values) in table.block(range, room)?.chunks_exact(width.max(1)).enumerate() {
                let row = from + row;
                let length = norm(values);
                for (target, best) in targets.iter().zip(&mut best) {
                    if !target.asked.contains(&row) {
                        keep(best, Near { score: cosine(values, length, &target.unit), row }, count);
                    }
                }
            }
            Ok::<_, Error>(best)
        })
        .try_reduce(empty, |mut all, best| {
            for (all, best) in all.iter_mut().zip(best) {
                best.into_iter().for_each(|near| keep(all, near, count));
            }
            Ok(all)
        })?;
    let named = |near: Near| (table.name(near.row).to_string(), near.score);
    Ok(found.into_iter().map(|best| best.into_sorted_vec().into_iter().map(named).collect()).collect())
}

/// The word that does not belong with the others: the one with the smallest cosine with the mean of all, where every vector is scaled to
/// length 1 (gensim's `doesnt_match`). Returns its place in `words`, and the cosine of each.
///
/// # Errors
/// Fewer than two words, or a word without a vector.
pub fn doesnt_match(table: &dyn Table, words: &[&str]) -> Result<(usize, Vec<f32>)> {
    if words.len() < 2 {
        return Err(Error::usage("one word alone cannot be compared with others").hint("name two words or more"));
    }
    let found = Words::find(table, table.len(), words.iter().copied());
    let rows = words.iter().map(|word| Ok(known(table, &found, word)?.1)).collect::<Result<Vec<_>>>()?;
    let mean = unit_sum(rows.iter().map(|row| (1.0, row.as_slice())), table.width());
    let cosines: Vec<f32> = rows.iter().map(|row| cosine(row, norm(row), &mean)).collect();
    let least = (0..cosines.len()).min_by(|&a, &b| cosines[a].total_cmp(&cosines[b])).expect("two words or more");
    Ok((least, cosines))
}

struct Target {
    unit: Vec<f32>,
    asked: Vec<usize>,
}

fn target(table: &dyn Table, words: &Words, sum: &Sum) -> Result<Target> {
    let (mut asked, mut rows) = (Vec::new(), Vec::new());
    for (names, sign) in [(&sum.positive, 1.0), (&sum.negative, -1.0)] {
        for name in names {
            let (row, values) = known(table, words, name)?;
            asked.extend(row);
            rows.push((sign, values));
        }
    }
    if rows.is_empty() {
        return Err(Error::usage("no word was asked for"));
    }
    Ok(Target { unit: unit_sum(rows.iter().map(|(sign, row)| (*sign, row.as_slice())), table.width()), asked })
}

fn known(table: &dyn Table, words: &Words, word: &str) -> Result<(Option<usize>, Vec<f32>)> {
    values(table, words, word)?.ok_or_else(|| unknown(table, word))
}

/// The signed sum of rows, each scaled to length 1; the sum is scaled to length 1, or is zero if nothing is left.
fn unit_sum<'a>(rows: impl Iterator<Item = (f64, &'a [f32])>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; width];
    for (sign, row) in rows {
        let scale = sign / norm(row).max(TINY);
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += scale * f64::from(*v));
    }
    let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt().max(TINY);
    sum.into_iter().map(|v| (v / length) as f32).collect()
}

/// A row and its cosine. The greatest is the worst one, so that the top of a heap is the one to remove.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub score: f32,
    pub row: usize,
}

impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        // Ties are broken by row, so that the answer is unique.
        other.score.total_cmp(&self.score).then(self.row.cmp(&other.row))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Adds `near` to the best `count`, if it is one of them.
pub(super) fn keep(best: &mut BinaryHeap<Near>, near: Near, count: usize) {
    if best.len() < count {
        best.push(near);
    } else if best.peek().is_some_and(|worst| near < *worst) {
        best.pop();
        best.push(near);
    }
}

// A zero row has no direction; its cosines are 0.
const TINY: f64 = 1e-30;

/// The cosine of a row of length `length` with a row of length 1.
fn cosine(row: &[f32], length: f64, unit: &[f32]) -> f32 {
    let product = if plain(length) { dot(row, unit) } else { exact(row, unit) };
    // 0.0 instead of -0.0: the sign of zero must not order rows.
    (product / length.max(TINY)) as f32 + 0.0
}

fn norm(row: &[f32]) -> f64 {
    let length = dot(row, row).sqrt();
    if plain(length) { length } else { exact(row, row).sqrt() }
}

/// Whether products with a row of this length neither overflow nor vanish in f32 (false for NaN).
fn plain(length: f64) -> bool {
    (1e-12..1e15).contains(&length)
}

/// The product, in lanes that a compiler keeps in vector registers.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    wide!({
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut lanes = [0.0f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for i in 0..LANES {
                lanes[i] += a[i] * b[i];
            }
        }
        lanes.iter().map(|l| f64::from(*l)).sum::<f64>() + exact(a_rest, b_rest)
    })
}

// Two vectors of AVX-512, four of AVX2: sums that do not wait for each other.
const LANES: usize = 32;

#[inline(always)]
fn exact(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::with_threads;
    use crate::eval::Features;
    use crate::rng::Key;
    use rand_distr::{Distribution, StandardNormal};

    fn some() -> Features {
        let names = ["north", "east", "northeast", "south", "nowhere"].map(str::to_string).to_vec();
        Features { rows: vec![0.0, 2.0, 3.0, 0.0, 1.0, 1.0, 0.0, -1.0, 0.0, 0.0], width: 2, names, ..Features::default() }
    }

    fn many(count: usize, width: usize) -> Features {
        let rows: Vec<f32> = StandardNormal.sample_iter(Key::new(7).rng()).take(count * width).collect();
        Features { rows, width, names: (0..count).map(|i| format!("w{i}")).collect(), ..Features::default() }
    }

    #[test]
    fn the_nearest_come_first_and_length_does_not_matter() {
        let near = neighbors(&some(), &["north"], &[], 2).unwrap();
        assert_eq!(near[0].0, "northeast");
        assert!((near[0].1 - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(near[1], ("east".to_string(), 0.0), "of equal cosines the first row");
        assert_eq!(neighbors(&some(), &["North", "east"], &[], 1).unwrap()[0].0, "northeast");
        assert_eq!(neighbors(&some(), &["northeast"], &["east"], 9).unwrap()[0].0, "north");
        assert_eq!(neighbors(&some(), &["north"], &[], usize::MAX).unwrap().len(), 4);
        assert_eq!(neighbors(&some(), &["north"], &[], 0).unwrap(), []);
        // An empty sum has no direction: every cosine is 0.
        assert!(neighbors(&some(), &["east"], &["east"], 9).unwrap().iter().all(|(_, cosine)| *cosine == 0.0));
    }

    #[test]
    fn the_scan_agrees_with_sorting_every_cosine_whatever_the_threads() {
        // Several blocks, a remainder beside the lanes, equal rows far apart, rows of extreme and of zero length.
        let mut table = many(5_000, 45);
        let width = table.width;
        for copy in [4_999, 2_500] {
            table.rows.copy_within(17 * width..18 * width, copy * width);
        }
        table.rows[3 * width..4 * width].iter_mut().for_each(|v| *v *= 1e30);
        table.rows[4 * width..5 * width].iter_mut().for_each(|v| *v *= 1e-30);
        table.rows[5 * width..6 * width].fill(0.0);
        let unit = |row: usize| -> Vec<f64> {
            let row: Vec<f64> = table.row(row).iter().map(|v| f64::from(*v)).collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.into_iter().map(|v| if length > 0.0 { v / length } else { 0.0 }).collect()
        };
        let sums = [
            Sum { positive: vec!["w17"], negative: vec![] },
            Sum { positive: vec!["w3", "w4"], negative: vec!["w2500", "w9"] },
            Sum { positive: vec!["w5"], negative: vec![] },
        ];
        let found = search(&table, &sums, 12).unwrap();
        for (sum, found) in sums.iter().zip(&found) {
            let number = |name: &&str| name[1..].parse::<usize>().unwrap();
            let (add, take): (Vec<_>, Vec<_>) =
                (sum.positive.iter().map(number).collect(), sum.negative.iter().map(number).collect());
            let target: Vec<f64> = (0..width)
                .map(|d| add.iter().map(|&r| unit(r)[d]).sum::<f64>() - take.iter().map(|&r| unit(r)[d]).sum::<f64>())
                .collect();
            let length = target.iter().map(|v| v * v).sum::<f64>().sqrt().max(TINY);
            let cosine = |row: usize| unit(row).iter().zip(&target).map(|(a, b)| a * b).sum::<f64>() / length;
            let mut all: Vec<(usize, f64)> =
                (0..5_000).filter(|r| !add.contains(r) && !take.contains(r)).map(|r| (r, cosine(r))).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            for ((name, score), (row, expected)) in found.iter().zip(&all) {
                assert_eq!(name, &format!("w{row}"));
                assert!((f64::from(*score) - expected).abs() < 1e-6, "{name} {score} {expected}");
            }
        }
        assert_eq!(found[0][0].0, "w2500", "its copies lie nearest, the first of them first");
        assert_eq!(found[0][1].0, "w4999");
        for threads in [1, 3] {
            assert_eq!(with_threads(threads, || search(&table, &sums, 12)).unwrap().unwrap(), found);
        }
    }

    #[test]
    fn the_odd_one_out_is_farthest_from_the_mean() {
        let (odd, cosines) = doesnt_match(&some(), &["north", "northeast", "South"]).unwrap();
        assert_eq!(odd, 2);
        // The mean of (0, 1), (√½, √½) and (0, −1) points to the northeast.
        let half = 0.5f32.sqrt();
        cosines.iter().zip([half, 1.0, -half]).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{cosines:?}"));
        assert_eq!(doesnt_match(&some(), &["north"]).unwrap_err().exit_code(), 2);
        assert!(doesnt_match(&some(), &["north", "noth"]).is_err());
    }

    #[test]
    fn an_unknown_word_is_an_error_with_a_suggestion_unless_the_table_makes_its_row() {
        let error = neighbors(&some(), &["noth"], &[], 1).unwrap_err().to_string();
        assert!(error.contains("`noth`") && error.contains("did you mean `north`"), "{error}");
        assert!(neighbors(&some(), &[], &[], 1).is_err());

        struct Parts(Features);
        impl Table for Parts {
            fn len(&self) -> usize {
                self.0.len()
            }
            fn width(&self) -> usize {
                self.0.width
            }
            fn name(&self, row: usize) -> &str {
                &self.0.names[row]
            }
            fn block<'a>(&'a self, range: std::ops::Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
                self.0.block(range, room)
            }
            fn unseen(&self, name: &str) -> Option<Vec<f32>> {
                name.starts_with("east").then(|| vec![1.0, 0.0])
            }
        }
        assert_eq!(neighbors(&Parts(some()), &["easterly"], &[], 1).unwrap()[0].0, "east");
        assert!(neighbors(&Parts(some()), &["westerly"], &[], 1).is_err());
    }
}
