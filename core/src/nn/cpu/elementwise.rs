//! Elementwise passes, in place.

use rayon::prelude::*;

use super::BLOCK;
use crate::nn::map::Real;

/// x = max(x, 0). Not-a-number passes, so that a network that diverged is seen.
pub fn relu<T: Real>(x: &mut [T]) {
    let zero = <T as num_traits::Zero>::zero();
    x.par_chunks_mut(BLOCK).for_each(|x| x.iter_mut().for_each(|x| *x = if *x < zero { zero } else { *x }));
}

/// dy = 0 wherever y, the output of a ReLU, is 0.
pub fn mask<T: Real>(dy: &mut [T], y: &[T]) {
    let zero = <T as num_traits::Zero>::zero();
    let blocks = dy.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK));
    blocks.for_each(|(dy, y)| dy.iter_mut().zip(y).for_each(|(d, &y)| *d = if y > zero { *d } else { zero }));
}

/// x += y.
pub fn add<T: Real>(x: &mut [T], y: &[T]) {
    let blocks = x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK));
    blocks.for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, &y)| *x += y));
}

/// x = max(x + y, 0), as [`relu`].
pub fn add_relu<T: Real>(x: &mut [T], y: &[T]) {
    let zero = <T as num_traits::Zero>::zero();
    let one = |(x, &y): (&mut T, &T)| {
        let sum = *x + y;
        *x = if sum < zero { zero } else { sum };
    };
    x.par_chunks_mut(BLOCK).zip(y.par_chunks(BLOCK)).for_each(|(x, y)| x.iter_mut().zip(y).for_each(one));
}
