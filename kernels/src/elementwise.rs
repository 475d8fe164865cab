//! Simple parallel kernels over whole arrays: ReLU and its gradient, adding, adding a bias (all in place), conversion to the stored type, a sum
//! of squares, and a table of equal labels.

use rayon::prelude::*;

use super::blocks::{BLOCK, block_rows};
use super::element::{Element, Real, zero};
use super::passes::{Add, Mask, Op, pass};
use crate::wide;

/// x = max(x, 0). NaN stays NaN, so that a diverged network is noticed.
pub fn relu<T: Element>(x: &mut [T]) {
    let zero = zero::<T>();
    x.par_chunks_mut(BLOCK).for_each(|x| wide!(x.iter_mut().for_each(|x| *x = if x.up() < zero { T::zeroed() } else { *x })));
}

/// dy = 0 wherever y, the output of a ReLU, is 0.
pub fn mask<T: Element>(dy: &mut [T], y: &[T]) {
    both(dy, y, Mask);
}

/// x += y.
pub fn add<T: Element>(x: &mut [T], y: &[T]) {
    both(x, y, Add);
}

/// Every row of y += bias.
pub fn add_bias<T: Element>(y: &mut [T], bias: &[T::Real]) {
    y.par_chunks_mut(block_rows(bias.len()) * bias.len()).for_each(|y| add_bias_here(y, bias));
}

/// The same on one thread.
pub(crate) fn add_bias_here<T: Element>(y: &mut [T], bias: &[T::Real]) {
    wide!({
        for row in y.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, &b)| *y = T::down(y.up() + b));
        }
    });
}

/// Converts values to the stored type.
pub fn store<T: Element>(from: &[T::Real], to: &mut [T]) {
    let blocks = to.par_chunks_mut(BLOCK).zip(from.par_chunks(BLOCK));
    blocks.for_each(|(to, from)| wide!(to.iter_mut().zip(from).for_each(|(to, &v)| *to = T::down(v))));
}

/// Σ (x + y·scale)².
pub fn squares<R: Real>(x: &[R], y: &[R], scale: f64) -> f64 {
    let block = |(x, y): (&[R], &[R])| x.iter().zip(y).map(|(x, y)| (x.wide() + y.wide() * scale).powi(2)).sum::<f64>();
    let sums: Vec<f64> = x.par_chunks(BLOCK).zip(y.par_chunks(BLOCK)).map(block).collect();
    sums.iter().sum()
}

/// A matrix with a row for each of `rows` and a column for each of `columns`: `equal` where both labels are equal, `other` elsewhere.
pub fn compare<R: Real>(rows: &[u32], columns: &[u32], [equal, other]: [R; 2], to: &mut [R]) {
    let lines = to.par_chunks_mut(columns.len().max(1)).zip(rows);
    lines.for_each(|(to, row)| {
        to.iter_mut().zip(columns).for_each(|(to, column)| *to = if row == column { equal } else { other })
    });
}

fn both<T: Element>(x: &mut [T], y: &[T], op: impl Op<T::Real> + Sync) {
    x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| pass(x, y, y, y.len(), op));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_are_summed_in_f64_and_in_order() {
        let count = 2 * BLOCK + 17;
        let x: Vec<f32> = (0..count).map(|i| (i % 13) as f32 - 6.0).collect();
        let y: Vec<f32> = (0..count).map(|i| (i % 7) as f32).collect();
        let plain: f64 = x.iter().zip(&y).map(|(x, y)| (f64::from(*x) + 0.5 * f64::from(*y)).powi(2)).sum();
        assert_eq!(squares(&x, &y, 0.5), plain, "numbers that f64 holds exactly");
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| squares(&x, &y, 0.1)), squares(&x, &y, 0.1));
    }

    #[test]
    fn labels_are_compared_row_by_column() {
        let mut to = [f64::NAN; 6];
        compare(&[1, 4], &[4, 1, 1], [f64::NEG_INFINITY, 0.0], &mut to);
        assert_eq!(to, [0.0, f64::NEG_INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0, 0.0]);
        compare::<f64>(&[], &[], [1.0, 0.0], &mut []);
    }

    #[test]
    fn a_bias_is_added_to_every_row() {
        let mut y = [1f32, 2.0, 3.0, 4.0];
        add_bias(&mut y, &[10.0, 20.0]);
        assert_eq!(y, [11.0, 22.0, 13.0, 24.0]);
    }
}
