//! Embedding tables: looking up rows by number, and the gradient of a table as rows instead of a whole table.

use std::ops::Range;

use bytemuck::Zeroable as _;
use rayon::prelude::*;

use crate::blocks::block_rows;
use crate::element::{Element, Real};

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
        let mut order: Vec<u32> = (0..rows).collect();
        order.sort_by_key(|&row| ids[row as usize]);
        let mut groups = Groups::default();
        for (at, &row) in order.iter().enumerate() {
            if groups.ids.last() != Some(&ids[row as usize]) {
                groups.ids.push(ids[row as usize]);
                groups.starts.push(at as u32);
            }
        }
        groups.starts.push(rows);
        Groups { order, ..groups }
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn rows_are_looked_up() {
        let table: Vec<f32> = (0..8).map(|v| v as f32).collect();
        let mut y = [0f32; 6];
        gather(&table, 2, &[3, 0, 3], &mut y);
        assert_eq!(y, [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
    }
}
