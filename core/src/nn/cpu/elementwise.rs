//! Elementwise passes over whole maps, in place.

use rayon::prelude::*;

use super::passes::{Add, Mask, Op, pass};
use super::{BLOCK, wide};
use crate::nn::cell::{Cell, zero};

/// x = max(x, 0). Not-a-number passes, so that a network that diverged is seen.
pub fn relu<T: Cell>(x: &mut [T]) {
    let zero = zero::<T>();
    x.par_chunks_mut(BLOCK).for_each(|x| wide(|| x.iter_mut().for_each(|x| *x = if x.up() < zero { T::zeroed() } else { *x })));
}

/// dy = 0 wherever y, the output of a ReLU, is 0.
pub fn mask<T: Cell>(dy: &mut [T], y: &[T]) {
    both(dy, y, Mask);
}

/// x += y.
pub fn add<T: Cell>(x: &mut [T], y: &[T]) {
    both(x, y, Add);
}

fn both<T: Cell>(x: &mut [T], y: &[T], op: impl Op<T::Real> + Sync) {
    x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| pass(x, y, y, y.len(), op));
}
