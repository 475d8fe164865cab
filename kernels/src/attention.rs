//! Multi-head attention (Vaswani et al. 2017, equation 1) within each row of tokens: a text, or the patches of an image.
//!
//! The input has a query, a key and a value for each token, (tokens, 3·width): first all heads' queries. With s = scale·q·k, P = softmax(s)
//! over the keys of the same row and D = Σ dy·y of a head,
//!
//! ```text
//! y = P·v,   dv = Pᵀ·dy,   dP = dy·vᵀ,   ds = scale·P∘(dP − D),   dq = ds·k,   dk = dsᵀ·q
//! ```
//!
//! Rows have their own lengths, and no padding is computed. Only the scores of a block of queries are in memory at a time; the backward pass
//! computes them again from the logarithm of each sum, which the forward pass keeps. Where causal, a token attends to itself and to those
//! before it. With dropout, P is dropped before it meets the values; draws are keyed by the row, the query's position, head and key.

#![allow(clippy::needless_range_loop, reason = "lanes of a vector")]

use std::ops::Range;

use rayon::prelude::*;

use crate::dropout::{Dropout, Identity};
use crate::element::{Bf16, Element};
use crate::fast::{Fast, Interleave};
use crate::folds::{Folds, dot};
use crate::geometry::Geometry;
use crate::math::Functions;
use crate::micro::panel_width;
use crate::panels::{Weights, widths};
use crate::products::{add_turned, depth, times};
use crate::scratch::Scratch;
use crate::simd::{lanes, run};
use crate::wide;

/// What attends to what.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The rows of tokens.
    pub rows: Identity<'a>,
    /// Tokens of each row, if the rows have no offsets.
    pub each: usize,
    /// Heads, which divide the width.
    pub heads: usize,
    /// Values of a token in all heads.
    pub width: usize,
    /// The factor of the scores.
    pub scale: f64,
    /// Whether a token attends to none that follow it.
    pub causal: bool,
    /// Dropout of the probabilities, in training.
    pub dropout: Option<Dropout>,
}

/// Queries at once.
const BLOCK: usize = 64;

/// Rows of scores are filled up to a multiple.
const LANES: usize = 16;

impl Attention<'_> {
    /// The channel by which dropout draws for a head's key.
    pub fn channel(head: usize, key: usize) -> usize {
        head << 20 | key
    }

    /// Values of a head.
    fn head(&self) -> usize {
        self.width / self.heads
    }

    /// Keys of the query at a position of a row of `count` tokens.
    fn keys(&self, query: usize, count: usize) -> usize {
        if self.causal { query + 1 } else { count }
    }

    /// The factor of a probability: 0 where it is dropped.
    fn factors(&self, row: usize, query: usize, head: usize) -> impl Fn(usize) -> f64 {
        let drawn = self.dropout.map(|dropout| {
            let stream = dropout.stream(self.rows.places[row], self.rows.views[row], query as u32);
            (dropout, stream)
        });
        move |key| match &drawn {
            None => 1.0,
            Some((dropout, stream)) if dropout.keeps(*stream, Attention::channel(head, key)) => dropout.scale,
            Some(_) => 0.0,
        }
    }

    /// The factors of a query's probabilities in f32, for a line of keys.
    fn kept(&self, row: usize, query: usize, head: usize, to: &mut [f32]) {
        let Some(dropout) = self.dropout else {
            to.fill(1.0);
            return;
        };
        let (stream, scale) = (dropout.stream(self.rows.places[row], self.rows.views[row], query as u32), dropout.scale as f32);
        wide!(to.iter_mut().enumerate().for_each(|(key, to)| {
            *to = if dropout.keeps(stream, Attention::channel(head, key)) { scale } else { 0.0 };
        }));
    }
}

/// A number type for which there is attention.
pub trait Attend: Element {
    /// Computes y, (tokens, width), and for each token and head log Σ exp s.
    fn attention(of: &Attention, x: &[Self], y: &mut [Self], sums: &mut [Self::Real]);

    /// Computes dx from x, y, the sums and dy.
    fn attention_gradient(of: &Attention, from: [&[Self]; 3], sums: &[Self::Real], dx: &mut [Self]);
}

/// A block of tokens of a row: the row, all of its tokens, the block's first one, and its parts of two slices.
type Task<'a, A, B> = (usize, Range<usize>, usize, &'a mut [A], &'a mut [B]);

/// Blocks of at most `block` tokens, with their parts of slices that have so many values for each token.
fn tasks<'a, A, B>(
    of: &Attention,
    block: usize,
    [a_width, b_width]: [usize; 2],
    mut a: &'a mut [A],
    mut b: &'a mut [B],
) -> Vec<Task<'a, A, B>> {
    let mut all = Vec::new();
    for row in 0..of.rows.places.len() {
        let tokens = of.rows.positions(row, of.each);
        for first in tokens.clone().step_by(block) {
            let count = block.min(tokens.end - first);
            let (own_a, rest_a) = a.split_at_mut(count * a_width);
            let (own_b, rest_b) = b.split_at_mut(count * b_width);
            all.push((row, tokens.clone(), first, own_a, own_b));
            (a, b) = (rest_a, rest_b);
        }
    }
    assert!(a.is_empty() && b.is_empty(), "more values than tokens");
    all
}

/// In f64: plain loops.
impl Attend for f64 {
    fn attention(of: &Attention, x: &[f64], y: &mut [f64], sums: &mut [f64]) {
        let (c, d) = (of.width, of.head());
        tasks(of, usize::MAX, [c, of.heads], y, sums).into_par_iter().for_each(|(row, tokens, _, y, sums)| {
            y.fill(0.0);
            for (query, head) in (0..tokens.len()).flat_map(|query| (0..of.heads).map(move |head| (query, head))) {
                let part = |token: usize, which: usize| &x[((tokens.start + token) * 3 + which) * c + head * d..][..d];
                let scores: Vec<f64> = (0..of.keys(query, tokens.len()))
                    .map(|key| of.scale * part(query, 0).iter().zip(part(key, 1)).map(|(q, k)| q * k).sum::<f64>())
                    .collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = top + scores.iter().map(|s| (s - top).exp()).sum::<f64>().ln();
                sums[query * of.heads + head] = sum;
                let factor = of.factors(row, query, head);
                for (key, score) in scores.iter().enumerate() {
                    let p = (score - sum).exp() * factor(key);
                    y[query * c + head * d..][..d].iter_mut().zip(part(key, 2)).for_each(|(y, v)| *y += p * v);
                }
            }
        });
    }

    fn attention_gradient(of: &Attention, [x, y, dy]: [&[f64]; 3], sums: &[f64], dx: &mut [f64]) {
        let (c, d) = (of.width, of.head());
        tasks(of, usize::MAX, [3 * c, 0], dx, &mut [0u8; 0]).into_par_iter().for_each(|(row, tokens, _, dx, _)| {
            dx.fill(0.0);
            for (query, head) in (0..tokens.len()).flat_map(|query| (0..of.heads).map(move |head| (query, head))) {
                let part = |token: usize, which: usize| &x[((tokens.start + token) * 3 + which) * c + head * d..][..d];
                let own = |values: &[f64]| values[(tokens.start + query) * c + head * d..][..d].to_vec();
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                let (y, dy) = (own(y), own(dy));
                let total = dot(&y, &dy);
                let factor = of.factors(row, query, head);
                for key in 0..of.keys(query, tokens.len()) {
                    let p = (of.scale * dot(part(query, 0), part(key, 1)) - sums[(tokens.start + query) * of.heads + head]).exp();
                    let ds = of.scale * p * (dot(&dy, part(key, 2)) * factor(key) - total);
                    let mut add = |token: usize, which: usize, by: f64, values: &[f64]| {
                        let to = &mut dx[(token * 3 + which) * c + head * d..][..d];
                        to.iter_mut().zip(values).for_each(|(to, v)| *to += by * v);
                    };
                    add(query, 0, ds, part(key, 1));
                    add(key, 1, ds, part(query, 0));
                    add(key, 2, p * factor(key), &dy);
                }
            }
        });
    }
}

macro_rules! fast {
    ($number:ty) => {
        impl Attend for $number {
            fn attention(of: &Attention, x: &[Self], y: &mut [Self], sums: &mut [f32]) {
                forward(of, x, y, sums);
            }

            fn attention_gradient(of: &Attention, from: [&[Self]; 3], sums: &[f32], dx: &mut [Self]) {
                backward(of, from, sums, dx);
            }
        }
    };
}

fast!(f32);
fast!(Bf16);

/// Some rows of a head. As factors they are left sides of products.
struct Head<'a, T: Fast> {
    /// From the first row on, unless they had to be copied.
    map: &'a [T],
    copy: Option<Scratch<T>>,
    count: usize,
    width: usize,
    /// Values from row to row.
    line: usize,
}

impl<'a, T: Fast> Head<'a, T> {
    /// `count` rows of `width` values, which are `stride` apart from `at` on. They are read where they are, unless a factor would go beyond a
    /// row or begin within another one: then they are copied, with zeros up to a whole number of factors.
    fn new(x: &'a [T], at: usize, stride: usize, [count, width]: [usize; 2]) -> Head<'a, T> {
        let map = &x[at..];
        let whole = [stride, width].iter().all(|n| n.is_multiple_of(depth::<T>()));
        if whole && map.as_ptr().cast::<T::Factor>().is_aligned() {
            return Head { map, copy: None, count, width, line: stride };
        }
        let line = width.next_multiple_of(depth::<T>());
        let mut rows = Scratch::new(count * line);
        for (i, to) in rows.chunks_exact_mut(line).enumerate() {
            to[..width].copy_from_slice(&map[i * stride..][..width]);
            to[width..].fill(T::zeroed());
        }
        Head { map, copy: Some(rows), count, width, line }
    }

    fn rows(&self) -> &[T] {
        let rows = self.copy.as_deref().unwrap_or(self.map);
        // Whole factors: what follows the last row is not read.
        &rows[..rows.len() / depth::<T>() * depth::<T>()]
    }

    /// As the right side of a product over tokens, with zeros up to `tokens` of them: rows of factors of as many tokens as a factor is deep, in
    /// panels.
    fn right(&self, tokens: usize) -> Scratch<T::Factor> {
        let cells = tokens.div_ceil(depth::<T>());
        let mut to = Scratch::new(cells * self.width.next_multiple_of(lanes()));
        let mut offset = 0;
        for (j, (width, line)) in widths(self.width).enumerate() {
            let start = |row: usize| (row < self.count).then(|| row * self.line + j * panel_width());
            let at: Vec<Option<usize>> = (0..cells * depth::<T>()).map(start).collect();
            run(Interleave { rows: self.rows(), at: &at, width, line, to: &mut to[offset..][..cells * line] });
            offset += cells * line;
        }
        to
    }

    /// As the right side of a product over the head's values, turned: its columns are tokens.
    fn turned(&self) -> Scratch<T::Factor> {
        let (rows, mut numbers) = (self.rows(), Scratch::<f32>::new(self.count * self.width));
        wide!(for (i, to) in numbers.chunks_exact_mut(self.width).enumerate() {
            to.iter_mut().zip(&rows[i * self.line..][..self.width]).for_each(|(to, v)| *to = v.up());
        });
        let of = Geometry { n: 1, h: 1, w: 1, c: self.width, o: self.count, oh: 1, ow: 1, kernel: 1, stride: 1, padding: 0 };
        let weights = Weights::forward(&numbers, &of);
        let rows = weights.depth::<T::Factor>();
        let mut to = Scratch::new(rows * self.count.next_multiple_of(lanes()));
        let mut offset = 0;
        for (j, (_, line)) in widths(self.count).enumerate() {
            weights.panel(j, &mut to[offset..][..rows * line]);
            offset += rows * line;
        }
        to
    }

    /// The products of every row with the columns of `right`, of which there are `columns`: row i from `to[i·line]` on.
    fn times<C: Fast>(&self, right: &[T::Factor], columns: usize, to: &mut [C], line: usize) {
        let inner = self.width.next_multiple_of(depth::<T>());
        times::<T, C>(self.rows(), [self.count, self.line, inner], right, columns, (to, line, false));
    }
}

fn forward<T: Fast>(of: &Attention, x: &[T], y: &mut [T], sums: &mut [f32]) {
    let (c, d) = (of.width, of.head());
    let one = |(row, tokens, first, y, sums): Task<T, f32>| {
        let (count, before) = (y.len() / c, first - tokens.start);
        let keys = of.keys(before + count - 1, tokens.len());
        let line = keys.next_multiple_of(LANES);
        let mut scores = Scratch::<f32>::new(count * line);
        let mut p = Scratch::<T>::new(count * line);
        let mut kept = Scratch::<f32>::new(if of.dropout.is_some() { line } else { 0 });
        for head in 0..of.heads {
            let part = |which: usize, from: usize, rows: usize| Head::new(x, (from * 3 + which) * c + head * d, 3 * c, [rows, d]);
            let queries = part(0, first, count);
            queries.times(&part(1, tokens.start, keys).turned(), keys, &mut scores, line);
            wide!(for i in 0..count {
                let n = of.keys(before + i, tokens.len());
                let (scores, p) = (&mut scores[i * line..][..line], &mut p[i * line..][..line]);
                sums[i * of.heads + head] = soften(of.scale as f32, scores, n, p);
            });
            if of.dropout.is_some() {
                for (i, p) in p.chunks_exact_mut(line).enumerate() {
                    of.kept(row, before + i, head, &mut kept);
                    wide!(p.iter_mut().zip(kept.iter()).for_each(|(p, kept)| *p = T::down(p.up() * kept)));
                }
            }
            let values = part(2, tokens.start, keys).right(line);
            times::<T, T>(&p, [count, line, line], &values, d, (&mut y[head * d..], c, false));
        }
    };
    tasks(of, BLOCK, [c, of.heads], y, sums).into_par_iter().for_each(one);
}

/// Writes softmax(scale·scores) of the first `n` scores to p, zeros behind them; returns log Σ exp(scale·score).
#[inline(always)]
fn soften<T: Fast>(scale: f32, scores: &mut [f32], n: usize, p: &mut [T]) -> f32 {
    // Whole vectors are computed, so that no loop has a rest: behind the last score stands what is far below all.
    scores[n..].fill(f32::MIN);
    let top = scale * f32::largest(scores);
    for chunk in scores.chunks_exact_mut(LANES) {
        for lane in 0..LANES {
            chunk[lane] = (scale * chunk[lane] - top).exponential();
        }
    }
    // What stands behind the last score has added nothing that counts: each is below 10⁻³⁷.
    let sum = f32::sum(scores);
    let inverse = 1.0 / sum;
    for (p, e) in p.chunks_exact_mut(LANES).zip(scores.chunks_exact(LANES)) {
        for lane in 0..LANES {
            p[lane] = T::down(e[lane] * inverse);
        }
    }
    p[n..].fill(T::zeroed());
    top + sum.ln()
}

fn backward<T: Fast>(of: &Attention, [x, y, dy]: [&[T]; 3], sums: &[f32], dx: &mut [T]) {
    let (c, d) = (of.width, of.head());
    let stride = d.next_multiple_of(lanes());
    let one = |(row, tokens, _, dx, _): Task<T, u8>| {
        let (length, most) = (tokens.len(), BLOCK.min(tokens.len()));
        let line = length.next_multiple_of(LANES);
        let [mut scores, mut dp] = [(); 2].map(|()| Scratch::<f32>::new(most * line));
        let [mut p, mut ds] = [(); 2].map(|()| Scratch::<T>::new(most * line));
        let mut kept = Scratch::<f32>::new(line);
        of.kept(row, 0, 0, &mut kept);
        let [mut dk, mut dv] = [(); 2].map(|()| Scratch::<f32>::new(length * stride));
        for head in 0..of.heads {
            let part = |which: usize, from: usize, rows: usize| Head::new(x, (from * 3 + which) * c + head * d, 3 * c, [rows, d]);
            let (k, v) = (part(1, tokens.start, length), part(2, tokens.start, length));
            let (k_turned, v_turned) = (k.turned(), v.turned());
            let k_right = k.right(line);
            dk.fill(0.0);
            dv.fill(0.0);
            for before in (0..length).step_by(BLOCK) {
                let (first, count) = (tokens.start + before, BLOCK.min(length - before));
                let q = part(0, first, count);
                let from_above = Head::new(dy, first * c + head * d, c, [count, d]);
                q.times(&k_turned, length, &mut scores, line);
                from_above.times(&v_turned, length, &mut dp, line);
                for i in 0..count {
                    let (n, at) = (of.keys(before + i, length), i * line);
                    let own = (first + i) * c + head * d;
                    let total = dot(&y[own..][..d], &dy[own..][..d]);
                    let (scores, dp) = (&mut scores[at..][..line], &mut dp[at..][..line]);
                    let (p, ds) = (&mut p[at..][..line], &mut ds[at..][..line]);
                    let sum = sums[(first + i) * of.heads + head];
                    if of.dropout.is_some() {
                        of.kept(row, before + i, head, &mut kept);
                    }
                    wide!(soften_gradient(of.scale as f32, [sum, total], [scores, dp, &kept], p, ds));
                    p[n..].fill(T::zeroed());
                    ds[n..].fill(T::zeroed());
                }
                times::<T, T>(&ds, [count, line, line], &k_right, d, (&mut dx[before * 3 * c + head * d..], 3 * c, false));
                add_turned(&ds, [count, line], length, &q.right(count), &mut dk, [d, stride]);
                add_turned(&p, [count, line], length, &from_above.right(count), &mut dv, [d, stride]);
            }
            wide!(for (which, from) in [(1, &dk), (2, &dv)] {
                for (token, from) in from.chunks_exact(stride).enumerate() {
                    let to = &mut dx[(token * 3 + which) * c + head * d..][..d];
                    to.iter_mut().zip(from).for_each(|(to, v)| *to = T::down(*v));
                }
            });
        }
    };
    tasks(of, usize::MAX, [3 * c, 0], dx, &mut [0u8; 0]).into_par_iter().for_each(one);
}

/// p = e·kept and ds = scale·e·(dp·kept − total), where e = exp(scale·score − sum), for whole vectors.
#[inline(always)]
fn soften_gradient<T: Fast>(scale: f32, [sum, total]: [f32; 2], [scores, dp, kept]: [&[f32]; 3], p: &mut [T], ds: &mut [T]) {
    let from = scores.chunks_exact(LANES).zip(dp.chunks_exact(LANES)).zip(kept.chunks_exact(LANES));
    for (((scores, dp), kept), (p, ds)) in from.zip(p.chunks_exact_mut(LANES).zip(ds.chunks_exact_mut(LANES))) {
        for lane in 0..LANES {
            let e = (scale * scores[lane] - sum).exponential();
            p[lane] = T::down(e * kept[lane]);
            ds[lane] = T::down(scale * e * (dp[lane] * kept[lane] - total));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Real;

    /// sin of a quadratic: values that repeat nowhere.
    fn values(n: usize, seed: f64) -> Vec<f64> {
        (0..n).map(|i| (0.37 * (i as f64 + 1.0) + 0.011 * ((i * i) % 7919) as f64 + seed).sin()).collect()
    }

    struct Case {
        offsets: Vec<u32>,
        heads: usize,
        width: usize,
        causal: bool,
        dropout: Option<Dropout>,
    }

    impl Case {
        fn run<T: Attend>(&self, x: &[f64], dy: &[f64]) -> [Vec<f64>; 2] {
            let n = self.offsets.len() - 1;
            let (places, views): (Vec<u32>, Vec<u16>) = (0..n as u32).map(|row| (row, 1)).unzip();
            let rows = Identity { places: &places, views: &views, offsets: Some(&self.offsets) };
            let scale = 1.0 / ((self.width / self.heads) as f64).sqrt();
            let (heads, width, causal, dropout) = (self.heads, self.width, self.causal, self.dropout);
            let of = Attention { rows, each: 0, heads, width, scale, causal, dropout };
            let tokens = self.offsets[n] as usize;
            let down = |values: &[f64]| values.iter().map(|v| T::down(T::Real::of(*v))).collect::<Vec<T>>();
            let (x, dy) = (down(x), down(dy));
            let (mut y, mut sums) = (down(&vec![f64::NAN; tokens * width]), vec![T::Real::of(0.0); tokens * heads]);
            let mut dx = down(&vec![f64::NAN; 3 * tokens * width]);
            T::attention(&of, &x, &mut y, &mut sums);
            T::attention_gradient(&of, [&x, &y, &dy], &sums, &mut dx);
            [y, dx].map(|values| values.into_iter().map(|v| v.up().wide()).collect())
        }
    }

    fn cases() -> Vec<Case> {
        let case = |offsets: &[u32], heads, width, causal, rate: f64| Case {
            offsets: offsets.to_vec(),
            heads,
            width,
            causal,
            dropout: (rate > 0.0).then(|| Dropout::new(3, rate)),
        };
        vec![
            case(&[0, 1, 4, 9], 2, 6, false, 0.0),
            case(&[0, 5, 5, 7], 1, 5, true, 0.0),
            case(&[0, 70, 83], 3, 12, false, 0.3),
            case(&[0, 150], 2, 64, true, 0.2),
            case(&[0, 17, 48, 200], 2, 140, false, 0.0),
        ]
    }

    #[test]
    fn the_gradient_is_the_difference_in_f64() {
        for case in cases().into_iter().take(3) {
            let tokens = *case.offsets.last().unwrap() as usize;
            let (x, dy) = (values(3 * tokens * case.width, 0.0), values(tokens * case.width, 1.0));
            let [_, dx] = case.run::<f64>(&x, &dy);
            for at in (0..x.len()).step_by(x.len().div_ceil(40)) {
                let loss = |h: f64| {
                    let mut moved = x.clone();
                    moved[at] += h;
                    case.run::<f64>(&moved, &dy)[0].iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
                };
                let difference = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                assert!((dx[at] - difference).abs() < 1e-8, "value {at}: {}, by difference {difference}", dx[at]);
            }
        }
    }

    #[test]
    fn fast_types_follow_f64() {
        for (number, case) in cases().iter().enumerate() {
            let tokens = *case.offsets.last().unwrap() as usize;
            let bf16 = |values: Vec<f64>| values.into_iter().map(|v| f64::from(Bf16::down(v as f32).up())).collect::<Vec<_>>();
            let (x, dy) = (bf16(values(3 * tokens * case.width, 0.0)), bf16(values(tokens * case.width, 1.0)));
            let exact = case.run::<f64>(&x, &dy);
            let near = |found: [Vec<f64>; 2], bound: f64| {
                for (what, (exact, found)) in ["y", "dx"].iter().zip(exact.iter().zip(&found)) {
                    let largest = exact.iter().fold(1.0f64, |largest, v| largest.max(v.abs()));
                    for (at, (e, f)) in exact.iter().zip(found).enumerate() {
                        assert!((e - f).abs() <= bound * largest, "case {number}: {what}[{at}] is {f}, not {e}");
                    }
                }
            };
            near(case.run::<f32>(&x, &dy), 2e-6);
            near(case.run::<Bf16>(&x, &dy), 2e-2);
        }
    }

    #[test]
    fn a_row_is_the_same_alone_and_on_any_number_of_threads() {
        let case = &cases()[4];
        let tokens = *case.offsets.last().unwrap() as usize;
        let (x, dy) = (values(3 * tokens * case.width, 0.0), values(tokens * case.width, 1.0));
        let run = || case.run::<f32>(&x, &dy);
        let whole = run();
        for threads in [1, 2, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(run) == whole, "{threads} threads");
        }
        let (c, first, last) = (case.width, 17, 48);
        let alone = Case { offsets: vec![0, last - first], heads: 2, width: c, causal: false, dropout: None };
        let cut = |values: &[f64], each: usize| values[first as usize * each..last as usize * each].to_vec();
        let [y, dx] = alone.run::<f32>(&cut(&x, 3 * c), &cut(&dy, c));
        assert!(y == cut(&whole[0], c) && dx == cut(&whole[1], 3 * c));
    }
}
