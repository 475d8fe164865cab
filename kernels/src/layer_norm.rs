//! Layer normalisation (Ba, Kiros & Hinton 2016): y = (x − mean)/√(variance + ε)·γ + β, with mean and biased variance of each row.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector, and channels of several rows")]

use rayon::prelude::*;

use crate::blocks::{block_rows, total};
use crate::element::{Element, Real, zero};
use crate::folds::Folds;
use crate::wide;

/// Rows summed in the working precision before the sum is added in f64.
const RUN: usize = 16;

/// Normalises rows of as many channels as γ has. `statistics` is set to the mean and 1/√(variance + ε) of each row.
pub fn forward<T: Element>(x: &[T], gamma: &[T::Real], beta: &[T::Real], epsilon: f64, y: &mut [T], statistics: &mut [T::Real]) {
    let c = gamma.len();
    let rows = block_rows(c);
    let blocks = y.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).zip(statistics.par_chunks_mut(2 * rows));
    let beta = &beta[..c];
    blocks.for_each(|((y, x), statistics)| {
        wide!({
            let (n, mut row) = (T::Real::of(c as f64), vec![zero::<T>(); c]);
            for ((y, x), statistics) in y.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(statistics.chunks_exact_mut(2)) {
                let row = &mut row[..c];
                for i in 0..c {
                    row[i] = x[i].up();
                }
                let mean = T::Real::sum(row) / n;
                for value in row.iter_mut() {
                    *value = *value - mean;
                }
                let variance = T::Real::dot(row, row) / n;
                let inverse = T::Real::of(1.0) / num_traits::Float::sqrt(variance + T::Real::of(epsilon));
                for i in 0..c {
                    y[i] = T::down(row[i] * inverse * gamma[i] + beta[i]);
                }
                statistics.copy_from_slice(&[mean, inverse]);
            }
        });
    });
}

/// Computes dx, and returns dγ and dβ. With x̂ the normalised x and g = dy·γ,
///
/// ```text
/// dx = (g − mean(g) − x̂·mean(g·x̂))/√(variance + ε),   dγ = Σ dy·x̂,   dβ = Σ dy
/// ```
pub fn backward<T: Element>(x: &[T], statistics: &[T::Real], gamma: &[T::Real], dy: &[T], dx: &mut [T]) -> [Vec<T::Real>; 2] {
    let c = gamma.len();
    let rows = block_rows(c);
    let one = |dx: &mut [T], x: &[T], dy: &[T], statistics: &[T::Real]| {
        wide!({
            let mut sums = vec![0.0; 2 * c];
            let zero = zero::<T>();
            let n = T::Real::of(c as f64);
            let [mut normal, mut g] = [(); 2].map(|()| vec![zero; c]);
            let mut short = vec![zero; 2 * c];
            let runs = dx.chunks_mut(RUN * c).zip(x.chunks(RUN * c)).zip(dy.chunks(RUN * c).zip(statistics.chunks(2 * RUN)));
            for ((dx, x), (dy, statistics)) in runs {
                short.fill(zero);
                let (of_gamma, of_beta) = short.split_at_mut(c);
                let rows = dx.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(dy.chunks_exact(c).zip(statistics.chunks_exact(2)));
                for ((dx, x), (dy, statistics)) in rows {
                    let (mean, inverse) = (statistics[0], statistics[1]);
                    let (normal, g) = (&mut normal[..c], &mut g[..c]);
                    for i in 0..c {
                        let d = dy[i].up();
                        normal[i] = (x[i].up() - mean) * inverse;
                        g[i] = d * gamma[i];
                        of_gamma[i] += d * normal[i];
                        of_beta[i] += d;
                    }
                    let plain = T::Real::sum(g) / n;
                    let along = T::Real::dot(g, normal) / n;
                    for i in 0..c {
                        dx[i] = T::down((g[i] - plain - normal[i] * along) * inverse);
                    }
                }
                sums.iter_mut().zip(&short).for_each(|(sum, short)| *sum += short.wide());
            }
            sums
        })
    };
    let blocks = dx.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c));
    let blocks = blocks.zip(dy.par_chunks(rows * c).zip(statistics.par_chunks(2 * rows)));
    let blocks: Vec<Vec<f64>> = blocks.map(|((dx, x), (dy, statistics))| one(dx, x, dy, statistics)).collect();
    let mut sums = total(&blocks, 2 * c);
    let beta = sums.split_off(c);
    [sums, beta].map(|sums| sums.into_iter().map(T::Real::of).collect())
}
