//! Elementwise passes, in place.

use rayon::prelude::*;

use super::{BLOCK, wide};
use crate::nn::map::Real;

/// x = max(x, 0). Not-a-number passes, so that a network that diverged is seen.
pub fn relu<T: Real>(x: &mut [T]) {
    let zero = <T as num_traits::Zero>::zero();
    x.par_chunks_mut(BLOCK).for_each(|x| wide(|| x.iter_mut().for_each(|x| *x = if *x < zero { zero } else { *x })));
}

/// dy = 0 wherever y, the output of a ReLU, is 0.
pub fn mask<T: Real>(dy: &mut [T], y: &[T]) {
    let zero = <T as num_traits::Zero>::zero();
    both(dy, y, |d, y| if y > zero { d } else { zero });
}

/// x += y.
pub fn add<T: Real>(x: &mut [T], y: &[T]) {
    both(x, y, |x, y| x + y);
}

fn both<T: Real>(x: &mut [T], y: &[T], one: impl Fn(T, T) -> T + Sync) {
    x.par_chunks_mut(BLOCK)
        .zip(y.par_chunks(BLOCK))
        .for_each(|(x, y)| wide(|| x.iter_mut().zip(y).for_each(|(x, &y)| *x = one(*x, y))));
}
