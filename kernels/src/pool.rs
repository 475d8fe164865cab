//! Pooling over windows and over whole images, with an image for each task.

use num_traits::Float as _;
use rayon::prelude::*;

use super::blocks::accumulate;
use super::element::{Element, Real, zero};

/// The shapes of a pooling: h × w × c images to oh × ow × c; windows begin `top` rows and `left` columns outside the image.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Height of the input.
    pub h: usize,
    /// Width of the input.
    pub w: usize,
    /// Channels.
    pub c: usize,
    /// Height of the output.
    pub oh: usize,
    /// Width of the output.
    pub ow: usize,
    /// A window's side.
    pub kernel: usize,
    /// Pixels from window to window.
    pub stride: usize,
    /// Rows above the image that the first window covers.
    pub top: usize,
    /// Columns to the left of the image that the first window covers.
    pub left: usize,
    /// Whether what lies outside the image counts (as zeros) in a mean.
    pub count_outside: bool,
}

impl Windows {
    /// The pixels of one window that are inside the image, in reading order.
    fn pixels(&self, oy: usize, ox: usize) -> impl Iterator<Item = usize> + use<> {
        let clip = |o: usize, before: usize, size: usize| {
            let from = (o * self.stride).saturating_sub(before);
            from..(o * self.stride + self.kernel).saturating_sub(before).min(size).max(from)
        };
        let (rows, columns, w) = (clip(oy, self.top, self.h), clip(ox, self.left, self.w), self.w);
        rows.flat_map(move |y| columns.clone().map(move |x| y * w + x))
    }

    fn outputs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let ow = self.ow;
        (0..self.oh).flat_map(move |oy| (0..ow).map(move |ox| (oy, ox)))
    }

    fn share<R: Real>(&self, oy: usize, ox: usize) -> R {
        let count = if self.count_outside { self.kernel * self.kernel } else { self.pixels(oy, ox).count().max(1) };
        R::of(1.0 / count as f64)
    }
}

/// The maximum of each window (of equal values the first), and its pixel in the image. NaN wins.
pub fn max<T: Element>(g: &Windows, x: &[T], y: &mut [T], winners: &mut [u32]) {
    let (input, output) = (g.h * g.w * g.c, g.oh * g.ow * g.c);
    let images = y.par_chunks_mut(output).zip(winners.par_chunks_mut(output)).zip(x.par_chunks(input));
    images.for_each(|((y, winners), x)| {
        for (((oy, ox), y), winners) in g.outputs().zip(y.chunks_exact_mut(g.c)).zip(winners.chunks_exact_mut(g.c)) {
            winners.fill(u32::MAX);
            for pixel in g.pixels(oy, ox) {
                for (i, &v) in x[pixel * g.c..][..g.c].iter().enumerate() {
                    if winners[i] == u32::MAX || v.up() > y[i].up() || v.up().is_nan() {
                        (y[i], winners[i]) = (v, pixel as u32);
                    }
                }
            }
        }
    });
}

/// dx of [`max`]: each output's gradient is added to its winner.
pub(crate) fn max_gradient<T: Element>(g: &Windows, dy: &[T], winners: &[u32], dx: &mut [T]) {
    let (input, output) = (g.h * g.w * g.c, g.oh * g.ow * g.c);
    let images = dx.par_chunks_mut(input).zip(dy.par_chunks(output)).zip(winners.par_chunks(output));
    images.for_each(|((dx, dy), winners)| {
        dx.fill(T::zeroed());
        for (dy, winners) in dy.chunks_exact(g.c).zip(winners.chunks_exact(g.c)) {
            for (i, (&d, &pixel)) in dy.iter().zip(winners).enumerate() {
                let dx = &mut dx[pixel as usize * g.c + i];
                *dx = T::down(dx.up() + d.up());
            }
        }
    });
}

/// The mean of each window.
pub fn mean<T: Element>(g: &Windows, x: &[T], y: &mut [T]) {
    let images = y.par_chunks_mut(g.oh * g.ow * g.c).zip(x.par_chunks(g.h * g.w * g.c));
    images.for_each(|(y, x)| {
        for ((oy, ox), y) in g.outputs().zip(y.chunks_exact_mut(g.c)) {
            let mut sums = vec![zero::<T>(); g.c];
            for pixel in g.pixels(oy, ox) {
                sums.iter_mut().zip(&x[pixel * g.c..]).for_each(|(sum, v)| *sum += v.up());
            }
            let share = g.share::<T::Real>(oy, ox);
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::down(sum * share));
        }
    });
}

/// dx of [`mean`].
pub(crate) fn mean_gradient<T: Element>(g: &Windows, dy: &[T], dx: &mut [T]) {
    let images = dx.par_chunks_mut(g.h * g.w * g.c).zip(dy.par_chunks(g.oh * g.ow * g.c));
    images.for_each(|(dx, dy)| {
        dx.fill(T::zeroed());
        for ((oy, ox), dy) in g.outputs().zip(dy.chunks_exact(g.c)) {
            let share = g.share::<T::Real>(oy, ox);
            for pixel in g.pixels(oy, ox) {
                dx[pixel * g.c..].iter_mut().zip(dy).for_each(|(x, d)| *x = T::down(x.up() + d.up() * share));
            }
        }
    });
}

/// The mean of each channel of each image of `pixels` pixels.
pub fn global_mean<T: Element>(x: &[T], pixels: usize, c: usize, y: &mut [T]) {
    y.par_chunks_mut(c).zip(x.par_chunks(pixels * c)).for_each(|(y, x)| {
        let mut sums = vec![0.0; c];
        accumulate(x, c, &mut sums);
        y.iter_mut().zip(sums).for_each(|(y, s)| *y = T::down(T::Real::of(s / pixels as f64)));
    });
}

/// dx of [`global_mean`].
pub fn global_mean_gradient<T: Element>(dy: &[T], pixels: usize, c: usize, dx: &mut [T]) {
    let share = T::Real::of(1.0 / pixels as f64);
    dx.par_chunks_mut(pixels * c).zip(dy.par_chunks(c)).for_each(|(dx, dy)| {
        dx.chunks_exact_mut(c).for_each(|dx| dx.iter_mut().zip(dy).for_each(|(x, d)| *x = T::down(d.up() * share)));
    });
}

/// The input of a selective kernel's gate: the mean over the image of the sum of two streams of `f` channels side by side.
pub fn stream_mean<T: Element>(x: &[T], pixels: usize, f: usize, y: &mut [T]) {
    let mut both = vec![T::zeroed(); 2 * y.len()];
    global_mean(x, pixels, 2 * f, &mut both);
    for (y, both) in y.chunks_exact_mut(f.max(1)).zip(both.chunks_exact(2 * f.max(1))) {
        (0..f).for_each(|i| y[i] = T::down(both[i].up() + both[f + i].up()));
    }
}

/// Selective kernels: x has two streams of `f` channels side by side, and `gate` two logits for each channel of an image; y is the sum of
/// the streams weighted by the softmax of these. `weight` is set to the first stream's weight.
pub fn select<T: Element>(x: &[T], gate: &[T], pixels: usize, f: usize, y: &mut [T], weight: &mut [T]) {
    let one = <T::Real as num_traits::One>::one();
    weight.iter_mut().zip(gate.chunks_exact(2 * f).flat_map(|g| g[..f].iter().zip(&g[f..]))).for_each(|(w, (a, b))| {
        *w = T::down(one / (one + (b.up() - a.up()).exp()));
    });
    y.par_chunks_mut(pixels * f).zip(x.par_chunks(pixels * 2 * f)).zip(weight.par_chunks(f)).for_each(|((y, x), weight)| {
        for (y, x) in y.chunks_exact_mut(f).zip(x.chunks_exact(2 * f)) {
            for i in 0..f {
                let share = weight[i].up();
                y[i] = T::down(share * x[i].up() + (one - share) * x[f + i].up());
            }
        }
    });
}

/// The gradients of [`select`]: with respect to the streams, through the weighted sum only, and to the gate's logits.
pub fn select_gradient<T: Element>(x: &[T], weight: &[T], dy: &[T], pixels: usize, f: usize, dx: &mut [T], dgate: &mut [T]) {
    let one = <T::Real as num_traits::One>::one();
    let images = dx.par_chunks_mut(pixels * 2 * f).zip(dgate.par_chunks_mut(2 * f)).zip(x.par_chunks(pixels * 2 * f));
    images.zip(weight.par_chunks(f)).zip(dy.par_chunks(pixels * f)).for_each(|((((dx, dgate), x), weight), dy)| {
        let mut sums = vec![0.0; f];
        for ((dx, x), dy) in dx.chunks_exact_mut(2 * f).zip(x.chunks_exact(2 * f)).zip(dy.chunks_exact(f)) {
            for i in 0..f {
                let (share, d) = (weight[i].up(), dy[i].up());
                dx[i] = T::down(d * share);
                dx[f + i] = T::down(d * (one - share));
                sums[i] += (d * (x[i].up() - x[f + i].up())).wide();
            }
        }
        for i in 0..f {
            let share = weight[i].up();
            let d = T::Real::of(sums[i]) * share * (one - share);
            (dgate[i], dgate[f + i]) = (T::down(d), T::down(-d));
        }
    });
}

/// The gradient of the mean of the sum, for both streams: dx += dy / pixels.
pub(crate) fn add_stream_gradient<T: Element>(dy: &[T], pixels: usize, f: usize, dx: &mut [T]) {
    let share = T::Real::of(1.0 / pixels as f64);
    dx.par_chunks_mut(pixels * 2 * f).zip(dy.par_chunks(f)).for_each(|(dx, dy)| {
        dx.chunks_exact_mut(f).for_each(|dx| dx.iter_mut().zip(dy).for_each(|(x, d)| *x = T::down(x.up() + d.up() * share)));
    });
}
