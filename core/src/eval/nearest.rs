//! The rows of a table that are nearest to each of many rows, by cosine: exactly, in blocks that fit into a core's cache.
//!
//! Of equal cosines the row with the smaller number comes first, so that the result is unique and does not depend on the threads.

use std::collections::BinaryHeap;

use rayon::prelude::*;

use super::neighbors::{Near, dot, keep};
use super::{Features, normalise};
use crate::error::Result;
use crate::process::Stop;

/// Rows that are asked for at once, and rows of a block that they are compared with.
const ASKED: usize = 64;
const BLOCK: usize = 128;

/// Rows of length 1.
pub(super) struct Units {
    width: usize,
    rows: Vec<f32>,
}

impl Units {
    /// The rows of `features`, cut to their first `truncate` values, if given, and scaled to length 1.
    ///
    /// # Errors
    /// Rows have fewer values, or one that is not finite.
    pub fn of(features: &Features, truncate: Option<usize>) -> Result<Units> {
        let kept = features.kept(truncate)?;
        features.finite()?;
        let mut rows: Vec<f32> = if kept == features.width {
            features.rows.clone()
        } else {
            features.rows.chunks_exact(features.width).flat_map(|row| &row[..kept]).copied().collect()
        };
        normalise(&mut rows, kept);
        Ok(Units { width: kept, rows })
    }

    /// Row `number`.
    fn row(&self, number: usize) -> &[f32] {
        &self.rows[number * self.width..][..self.width]
    }

    /// The cosine of row `number` and row `other` of `others`.
    pub fn cosine(&self, number: usize, others: &Units, other: usize) -> f32 {
        cosine(self.row(number), others.row(other))
    }

    /// The first `count` rows alone.
    pub fn first(mut self, count: usize) -> Units {
        self.rows.truncate(count * self.width);
        self
    }
}

/// The cosine of rows of length 1. 0.0 instead of -0.0: the sign of zero must not order rows.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    dot(b, a) as f32 + 0.0
}

/// The `count` rows of `all` that are nearest to each row of `asked` that `which` names, nearest first. `without` has for each row of `asked`
/// the rows of `all` that it does not find. Both tables have the same width.
///
/// # Errors
/// The process was asked to end.
pub(super) fn nearest(
    asked: &Units,
    all: &Units,
    which: &[usize],
    without: &[Vec<usize>],
    count: usize,
) -> Result<Vec<Vec<Near>>> {
    let count = count.min(all.rows.len() / all.width.max(1));
    let stop = Stop::here();
    let block = |block: &[usize]| -> Result<Vec<Vec<Near>>> {
        stop.check()?;
        let mut best = vec![BinaryHeap::new(); block.len()];
        for (number, rows) in all.rows.chunks(BLOCK * all.width).enumerate() {
            for (query, best) in block.iter().zip(&mut best) {
                let unit = asked.row(*query);
                for (at, row) in rows.chunks_exact(all.width).enumerate() {
                    let near = Near { score: cosine(unit, row), row: number * BLOCK + at };
                    if !without[*query].contains(&near.row) {
                        keep(best, near, count);
                    }
                }
            }
        }
        Ok(best.into_iter().map(BinaryHeap::into_sorted_vec).collect())
    };
    Ok(which.par_chunks(ASKED).map(block).collect::<Result<Vec<_>>>()?.concat())
}
