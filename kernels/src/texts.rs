//! Rows of texts: one row for each text from the rows of its tokens, which lie between two offsets.

use rayon::prelude::*;

use crate::element::{Element, Real, zero};
use crate::wide;

/// The mean of each text's rows of `c` channels; an empty text has zeros.
pub fn means<T: Element>(x: &[T], offsets: &[u32], c: usize, y: &mut [T]) {
    y.par_chunks_exact_mut(c).zip(offsets.par_windows(2)).for_each(|(y, ends)| {
        wide!({
            let mut sums = vec![zero::<T>(); c];
            for x in x[ends[0] as usize * c..ends[1] as usize * c].chunks_exact(c) {
                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x.up());
            }
            let count = T::Real::of(f64::from((ends[1] - ends[0]).max(1)));
            y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = T::down(*sum / count));
        });
    });
}

/// The gradient dx of [`means`].
pub fn means_gradient<T: Element>(dy: &[T], offsets: &[u32], c: usize, dx: &mut [T]) {
    let mut rest = dx;
    let mut tasks = Vec::with_capacity(offsets.len());
    for (text, ends) in offsets.windows(2).enumerate() {
        let (own, others) = rest.split_at_mut((ends[1] - ends[0]) as usize * c);
        tasks.push((own, &dy[text * c..][..c]));
        rest = others;
    }
    tasks.into_par_iter().for_each(|(dx, dy)| {
        wide!({
            let share = T::Real::of(1.0) / T::Real::of(((dx.len() / c).max(1)) as f64);
            dx.chunks_exact_mut(c).for_each(|dx| dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = T::down(dy.up() * share)));
        });
    });
}

/// The rows of numbers `at`.
pub fn pick<T: Element>(x: &[T], at: &[u32], c: usize, y: &mut [T]) {
    y.par_chunks_exact_mut(c).zip(at).for_each(|(y, at)| y.copy_from_slice(&x[*at as usize * c..][..c]));
}

/// The gradient dx of [`pick`], whose numbers are different: zeros elsewhere.
pub fn pick_gradient<T: Element>(dy: &[T], at: &[u32], c: usize, dx: &mut [T]) {
    dx.par_chunks_mut(1 << 14).for_each(|dx| dx.fill(T::zeroed()));
    dy.chunks_exact(c).zip(at).for_each(|(dy, at)| dx[*at as usize * c..][..c].copy_from_slice(dy));
}
