//! Embedding tables: looking up rows by number, and the gradient of a table as rows instead of a whole table.

use std::ops::Range;

use bytemuck::Zeroable as _;
use rayon::prelude::*;

use crate::blocks::block_rows;
use crate::element::{Element, Real, zero};
use crate::wide;

/// Which rows of a batch look up the same row of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The row numbers that occur, each once, ascending.
    pub ids: Vec<u32>,
    /// The batch's rows, those of the first id first, ascending for each id.
    pub order: Vec<u32>,
    /// The start of each id's rows in `order`, and the total.
    pub starts: Vec<u32>,
}

impl Groups {
    /// The groups of `ids`, which a batch's rows look up.
    ///
    /// # Panics
    /// If there are more rows than a u32 can number.
    pub fn new(ids: &[u32]) -> Groups {
        let rows = u32::try_from(ids.len()).expect("a batch's rows are numbered in 32 bits");
        // Sorted by counting: a table has a row for each number, so numbers are small.
        let mut next = vec![0u32; ids.iter().max().map_or(0, |last| *last as usize + 1)];
        ids.iter().for_each(|id| next[*id as usize] += 1);
        let mut groups = Groups { order: vec![0; ids.len()], ..Groups::default() };
        let mut start = 0;
        for (id, next) in next.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
            groups.ids.push(id as u32);
            groups.starts.push(start);
            start += std::mem::replace(next, start);
        }
        groups.starts.push(start);
        for (row, id) in (0..rows).zip(ids) {
            let next = &mut next[*id as usize];
            groups.order[*next as usize] = row;
            *next += 1;
        }
        groups
    }
}

/// Rows `ids` of a table with rows of `width` values.
///
/// # Panics
/// If the table has no such row.
pub fn gather<T: Element>(table: &[T::Real], width: usize, ids: &[u32], y: &mut [T]) {
    let block = block_rows(width);
    y.par_chunks_mut(block * width).zip(ids.par_chunks(block)).for_each(|(y, ids)| {
        for (y, &id) in y.chunks_exact_mut(width).zip(ids) {
            let row = &table[id as usize * width..][..width];
            y.iter_mut().zip(row).for_each(|(y, &v)| *y = T::down(v));
        }
    });
}

/// For each group the sum of its rows of dy, in the batch's order, added in f64: the gradient of the looked-up rows.
pub fn sum_groups<T: Element>(dy: &[T], width: usize, order: &[u32], starts: &[u32]) -> Vec<T::Real> {
    let groups = starts.len().saturating_sub(1);
    let mut sums = vec![T::Real::zeroed(); groups * width];
    sums.par_chunks_mut(width.max(1)).enumerate().for_each(|(group, sums)| {
        let rows: Range<usize> = starts[group] as usize..starts[group + 1] as usize;
        let mut wide = vec![0.0; width];
        for &row in &order[rows] {
            let dy = &dy[row as usize * width..][..width];
            wide.iter_mut().zip(dy).for_each(|(sum, d)| *sum += d.up().wide());
        }
        sums.iter_mut().zip(wide).for_each(|(sum, wide)| *sum = T::Real::of(wide));
    });
    sums
}

/// Texts whose rows are computed as one task.
const TEXTS: usize = 16;

/// The mean of the rows `ids` of a table with rows of `width` values for each text, whose ids lie between two offsets; an empty text has
/// zeros. The bits are those of [`gather`] and [`means`](crate::texts::means).
///
/// # Panics
/// If the table has no such row.
pub fn gather_means<T: Element>(table: &[T::Real], width: usize, ids: &[u32], offsets: &[u32], y: &mut [T]) {
    y.par_chunks_mut(TEXTS * width).enumerate().for_each(|(block, y)| {
        wide!({
            let mut sums = vec![zero::<T>(); width];
            for (y, ends) in y.chunks_exact_mut(width).zip(offsets[block * TEXTS..].windows(2)) {
                sums.fill(zero::<T>());
                for id in &ids[ends[0] as usize..ends[1] as usize] {
                    let row = &table[*id as usize * width..][..width];
                    sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += T::down(*v).up());
                }
                let count = T::Real::of(f64::from((ends[1] - ends[0]).max(1)));
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = T::down(*sum / count));
            }
        });
    });
}

/// The gradient of the rows that [`gather_means`] looked up: for each group the sum over its tokens, which are numbered over all texts, of
/// the token's share of its text's dy. The bits are those of [`means_gradient`](crate::texts::means_gradient) and [`sum_groups`].
pub fn sum_shares<T: Element>(dy: &[T], width: usize, offsets: &[u32], order: &[u32], starts: &[u32]) -> Vec<T::Real> {
    let text_of = |(ends, text): (&[u32], u32)| std::iter::repeat_n(text, (ends[1] - ends[0]) as usize);
    let texts: Vec<u32> = offsets.windows(2).zip(0..).flat_map(text_of).collect();
    let groups = starts.len().saturating_sub(1);
    let mut sums = vec![T::Real::zeroed(); groups * width];
    sums.par_chunks_mut(TEXTS * width.max(1)).enumerate().for_each(|(block, sums)| {
        wide!({
            let mut total = vec![0.0; width];
            for (sums, ends) in sums.chunks_exact_mut(width).zip(starts[block * TEXTS..].windows(2)) {
                total.fill(0.0);
                for token in &order[ends[0] as usize..ends[1] as usize] {
                    let text = texts[*token as usize] as usize;
                    let share = T::Real::of(1.0) / T::Real::of(f64::from(offsets[text + 1] - offsets[text]));
                    let dy = &dy[text * width..][..width];
                    total.iter_mut().zip(dy).for_each(|(sum, d)| *sum += T::down(d.up() * share).up().wide());
                }
                sums.iter_mut().zip(&total).for_each(|(sum, total)| *sum = T::Real::of(*total));
            }
        });
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Bf16;
    use crate::texts::{means, means_gradient};

    #[test]
    fn equal_numbers_are_one_group_in_the_batchs_order() {
        let groups = Groups::new(&[7, 2, 7, 0, 2, 7]);
        assert_eq!(groups.ids, [0, 2, 7]);
        assert_eq!(groups.order, [3, 1, 4, 0, 2, 5]);
        assert_eq!(groups.starts, [0, 1, 3, 6]);
        assert_eq!(Groups::new(&[]), Groups { starts: vec![0], ..Groups::default() });
        let dy: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(sum_groups(&dy, 2, &groups.order, &groups.starts), [6.0, 7.0, 10.0, 12.0, 14.0, 17.0]);
    }

    fn one_pass_is_two<T: Element + std::fmt::Debug + PartialEq>() {
        let (width, rows) = (67, 50);
        let wave = |n: usize, f: f64| (0..n).map(move |i| (i as f64 * f).sin());
        let table: Vec<T::Real> = wave(rows * width, 0.3).map(T::Real::of).collect();
        let offsets: Vec<u32> = [0, 3, 3, 4].into_iter().chain((1..40).map(|i| 4 + i * 5)).collect();
        let texts = offsets.len() - 1;
        let ids: Vec<u32> = (0..offsets[texts]).map(|i| i * i * 7 % 43).collect();
        let (mut looked_up, mut two, mut one) =
            (vec![T::zeroed(); ids.len() * width], vec![T::zeroed(); texts * width], vec![T::zeroed(); texts * width]);
        gather(&table, width, &ids, &mut looked_up);
        means(&looked_up, &offsets, width, &mut two);
        gather_means(&table, width, &ids, &offsets, &mut one);
        assert_eq!(one, two);
        let dy: Vec<T> = wave(texts * width, 0.7).map(|v| T::down(T::Real::of(v))).collect();
        let groups = Groups::new(&ids);
        means_gradient(&dy, &offsets, width, &mut looked_up);
        let two = sum_groups(&looked_up, width, &groups.order, &groups.starts);
        let run = || sum_shares(&dy, width, &offsets, &groups.order, &groups.starts);
        let bits = |numbers: &[T::Real]| numbers.iter().map(|v| v.wide().to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&run()), bits(&two));
        let three = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(bits(&three.install(run)), bits(&two));
    }

    #[test]
    fn means_of_rows_need_no_rows_in_between() {
        one_pass_is_two::<f32>();
        one_pass_is_two::<f64>();
        one_pass_is_two::<Bf16>();
    }

    #[test]
    fn rows_are_looked_up() {
        let table: Vec<f32> = (0..8).map(|v| v as f32).collect();
        let mut y = [0f32; 6];
        gather(&table, 2, &[3, 0, 3], &mut y);
        assert_eq!(y, [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
    }
}
