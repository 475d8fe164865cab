//! Rows of similarities with candidates, of which one is right: the softmax over those that count, or the sigmoid of each, and the loss.
//!
//! A block of rows is computed at once: the products, the softmax or sigmoid in place, and the products of the gradient. Work is divided by rows, so
//! results do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::element::{Real, zero};
use crate::math::sigmoid_and_softplus;
use crate::wide;

/// Rows of a product that are computed as one task.
const ROWS: usize = 128;
/// Values that fill whole vectors.
const LANES: usize = 16;

/// Some of the candidates of a block of anchors. Anchors and candidates are rows of one matrix z.
#[derive(Clone, Debug)]
pub struct Candidates {
    /// The row of z that is the first anchor's.
    pub anchors: usize,
    /// The rows of z that are candidates.
    pub rows: Range<usize>,
    /// The first anchor's own candidate, counted from the first candidate; the next anchor's is one further, and every `period` candidates
    /// there is another one of the same sample.
    pub own: usize,
    /// Whether an anchor's own candidates are left out. Otherwise only the first is its own, and it always counts.
    pub others: bool,
}

/// How an anchor's candidates are judged. s are dot products divided by the temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judge {
    /// All at once: log Σ exp s − s of the right one.
    Softmax,
    /// Each by itself: −log σ(s + bias) of the right one, and −log σ(−s − bias) of the others.
    Sigmoid {
        /// What is added to every s.
        bias: f64,
    },
}

/// Anchors against their candidates.
pub struct Ranks<'a, R> {
    /// All rows, of `width` values.
    pub z: &'a [R],
    /// Values of a row.
    pub width: usize,
    /// Anchors of the block.
    pub count: usize,
    /// The parts of each anchor's softmax. The own candidate of the first part is the right one, and always counts.
    pub parts: &'a [Candidates],
    /// Samples: after so many rows of z the next view begins.
    pub period: usize,
    /// What dot products are divided by.
    pub temperature: f64,
    /// What each row of z shows, or nothing: candidates are left out that show one of the two things which their anchor must not meet.
    pub contents: &'a [u32],
    /// These two things, for each anchor of the block.
    pub shown: [&'a [u32]; 2],
    /// Candidates are left out whose dot product is larger than the right one's by more than this.
    pub margin: Option<f64>,
    /// How candidates are judged.
    pub judge: Judge,
    /// The factor of the gradient.
    pub factor: f64,
}

/// What was found for a block of anchors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranked {
    /// The sum of the losses.
    pub loss: f64,
    /// Its derivative with respect to the bias, if there is one.
    pub bias: f64,
    /// The sum of s of the right ones.
    pub right: f64,
    /// Candidates that are not an anchor's own.
    pub candidates: f64,
    /// Those of them that were left out.
    pub masked: f64,
}

impl std::ops::AddAssign for Ranked {
    fn add_assign(&mut self, more: Ranked) {
        self.loss += more.loss;
        self.bias += more.bias;
        self.right += more.right;
        self.candidates += more.candidates;
        self.masked += more.masked;
    }
}

impl<R: Real> Ranks<'_, R> {
    /// The sum of the losses of the block; adds its gradient with respect to z to `gradient`, times the factor.
    pub fn run(&self, gradient: &mut [R]) -> Ranked {
        let (width, total) = (self.width, self.parts.iter().map(|part| part.rows.len()).sum::<usize>());
        // Lines whose distance is a power of two would share few places of a cache.
        let line = total.next_multiple_of(LANES) + LANES;
        let rows = |rows: Range<usize>| &self.z[rows.start * width..rows.end * width];
        let anchors = |part: &Candidates| rows(part.anchors..part.anchors + self.count);
        let mut s = vec![zero::<R>(); self.count * line];
        let candidates: Vec<_> = self.parts.iter().map(|part| R::turned(rows(part.rows.clone()), width)).collect();
        let block = |(block, s): (usize, &mut [R])| {
            let (first, count, mut from) = (block * ROWS, s.len() / line, 0);
            for (part, candidates) in self.parts.iter().zip(&candidates) {
                R::times(&anchors(part)[first * width..], [count, width], candidates, (&mut s[from..], line, false));
                from += part.rows.len();
            }
            let mut ranked = Ranked::default();
            wide!(for (at, s) in s.chunks_exact_mut(line).enumerate() {
                ranked += match self.judge {
                    Judge::Softmax => self.softmax(first + at, &mut s[..total]),
                    Judge::Sigmoid { bias } => self.sigmoid(first + at, R::of(bias), &mut s[..total]),
                };
            });
            ranked
        };
        let ranked: Vec<Ranked> = s.par_chunks_mut(ROWS * line).enumerate().map(block).collect();
        let mut from = 0;
        for part in self.parts {
            let (d, candidates, right) = (&s[from..], R::right(rows(part.rows.clone()), width), R::right(anchors(part), width));
            let of_anchors = &mut gradient[part.anchors * width..][..self.count * width];
            of_anchors.par_chunks_mut(ROWS * width).enumerate().for_each(|(block, y)| {
                R::times(&d[block * ROWS * line..], [y.len() / width, line], &candidates, (y, width, true));
            });
            let of_candidates = &mut gradient[part.rows.start * width..part.rows.end * width];
            of_candidates.par_chunks_mut(ROWS * width).enumerate().for_each(|(block, y)| {
                R::add_turned(&d[block * ROWS..], [self.count, line], &right, (y, width));
            });
            from += part.rows.len();
        }
        let mut sum = Ranked::default();
        ranked.into_iter().for_each(|block| sum += block);
        sum
    }

    /// Dot products of anchor number `at` are divided by the temperature; −∞ takes the place of those that are left out. Returns the counts,
    /// and s of the right one.
    #[inline(always)]
    fn kept(&self, at: usize, s: &mut [R]) -> (Ranked, R) {
        let (sharp, nothing) = (R::of(1.0 / self.temperature), R::neg_infinity());
        let right = self.parts[0].own + at;
        let positive = s[right] * sharp;
        let limit = self.margin.map_or(R::infinity(), |margin| positive + R::of(margin / self.temperature));
        let (mut from, mut ranked) = (0, Ranked::default());
        for part in self.parts {
            let s = &mut s[from..][..part.rows.len()];
            from += s.len();
            let own = (part.own + at..s.len()).step_by(if part.others { self.period } else { s.len() });
            let kept = s[part.own + at] * sharp;
            let mut masked = 0u32;
            if self.contents.is_empty() {
                for s in s.iter_mut() {
                    *s *= sharp;
                    masked += u32::from(*s > limit);
                    *s = if *s > limit { nothing } else { *s };
                }
            } else {
                let [one, other] = self.shown.map(|shown| shown[at]);
                for (s, content) in s.iter_mut().zip(&self.contents[part.rows.clone()]) {
                    *s *= sharp;
                    let out = (*content == one) | (*content == other) | (*s > limit);
                    masked += u32::from(out);
                    *s = if out { nothing } else { *s };
                }
            }
            ranked.candidates += s.len() as f64;
            ranked.masked += f64::from(masked);
            for own in own {
                ranked.candidates -= 1.0;
                ranked.masked -= f64::from(u8::from(s[own] == nothing));
                s[own] = if part.others { nothing } else { kept };
            }
        }
        (ranked, positive)
    }

    /// Dot products of anchor number `at` become the loss's derivative with respect to them: σ of each, less 1 for the right one.
    #[inline(always)]
    fn sigmoid(&self, at: usize, bias: R, s: &mut [R]) -> Ranked {
        let (ranked, positive) = self.kept(at, s);
        let right = self.parts[0].own + at;
        let mut sums = [zero::<R>(); LANES];
        let mut lanes = |s: &mut [R]| {
            for (s, sum) in s.iter_mut().zip(&mut sums) {
                let [share, log] = sigmoid_and_softplus(*s + bias);
                *sum += log;
                *s = share;
            }
        };
        let mut chunks = s.chunks_exact_mut(LANES);
        chunks.by_ref().for_each(&mut lanes);
        lanes(chunks.into_remainder());
        s[right] = s[right] - R::of(1.0);
        let slope = R::sum(s).wide();
        let factor = R::of(self.factor / self.temperature);
        s.iter_mut().for_each(|s| *s *= factor);
        // −log σ(x) = log(1 + eˣ) − x.
        let loss = sums.iter().map(|sum| sum.wide()).sum::<f64>() - (positive + bias).wide();
        Ranked { loss, bias: slope, right: positive.wide(), ..ranked }
    }

    /// Dot products of anchor number `at` become the loss's derivative with respect to them: the softmax's probabilities, less 1 for the
    /// right one.
    #[inline(always)]
    fn softmax(&self, at: usize, s: &mut [R]) -> Ranked {
        let (ranked, positive) = self.kept(at, s);
        let right = self.parts[0].own + at;
        let (top, lowest) = (R::largest(s), R::of(-1e30));
        s.iter_mut().for_each(|s| *s = if *s < lowest { zero::<R>() } else { (*s - top).exponential() });
        let sum = R::sum(s).wide();
        // ∂s/∂z has the temperature's inverse.
        let factor = self.factor / self.temperature;
        let share = R::of(factor / sum);
        s.iter_mut().for_each(|s| *s *= share);
        s[right] = s[right] - R::of(factor);
        Ranked { loss: sum.ln() + top.wide() - positive.wide(), right: positive.wide(), ..ranked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave<R: Real>(n: usize) -> Vec<R> {
        (0..n).map(|i| R::of((i as f64 * 0.37 + 0.1).sin())).collect()
    }

    /// Loss, gradient and counts in plain loops in f64.
    fn plain(of: &Ranks<f64>) -> (Vec<f64>, Ranked) {
        let (mut gradient, mut found) = (vec![0.0; of.z.len()], Ranked::default());
        let row = |at: usize| &of.z[at * of.width..][..of.width];
        for at in 0..of.count {
            let dot = |a: usize, b: usize| row(a).iter().zip(row(b)).map(|(x, y)| x * y).sum::<f64>() / of.temperature;
            let first = &of.parts[0];
            let pair = [first.anchors + at, first.rows.start + first.own + at];
            let positive = dot(pair[0], pair[1]);
            let mut terms = Vec::new();
            for part in of.parts {
                for candidate in part.rows.clone() {
                    let place = candidate - part.rows.start;
                    let own = if part.others { place % of.period == (part.own + at) % of.period } else { place == part.own + at };
                    let s = dot(part.anchors + at, candidate);
                    let shows = !of.contents.is_empty() && of.shown.iter().any(|shown| shown[at] == of.contents[candidate]);
                    let out = !own && (shows || of.margin.is_some_and(|margin| s > positive + margin / of.temperature));
                    found.candidates += f64::from(u8::from(!own));
                    found.masked += f64::from(u8::from(out));
                    if !(out || own && part.others) {
                        terms.push((part.anchors + at, candidate, s));
                    }
                }
            }
            let sum: f64 = terms.iter().map(|(_, _, s)| s.exp()).sum();
            let share = |s: f64| match of.judge {
                Judge::Softmax => s.exp() / sum,
                Judge::Sigmoid { bias } => 1.0 / (1.0 + (-s - bias).exp()),
            };
            found.right += positive;
            match of.judge {
                Judge::Softmax => found.loss += sum.ln() - positive,
                Judge::Sigmoid { bias } => {
                    found.loss += terms.iter().map(|(_, _, s)| (1.0 + (s + bias).exp()).ln()).sum::<f64>() - positive - bias;
                    found.bias += terms.iter().map(|(_, _, s)| share(*s)).sum::<f64>() - 1.0;
                }
            }
            let mut add = |a: usize, b: usize, d: f64| {
                let d = d * of.factor / of.temperature;
                for k in 0..of.width {
                    gradient[a * of.width + k] += d * row(b)[k];
                    gradient[b * of.width + k] += d * row(a)[k];
                }
            };
            terms.iter().for_each(|(a, b, s)| add(*a, *b, share(*s)));
            add(pair[0], pair[1], -1.0);
        }
        (gradient, found)
    }

    #[test]
    fn a_block_is_its_definition() {
        let (n, views, width) = (70, 3, 5);
        let z: Vec<f64> = wave(n * views * width);
        let contents: Vec<u32> = (0..n as u32 * 3).map(|i| i * 7 % 50).collect();
        let (first, count) = (2, 67);
        let forth = Candidates { anchors: first, rows: n..views * n, own: first, others: false };
        let back = Candidates { anchors: n + first, rows: 0..n, own: first, others: false };
        let same = Candidates { anchors: first, rows: 0..n, own: first, others: true };
        let docs = Candidates { anchors: n + first, rows: n..views * n, own: first, others: true };
        for parts in [vec![forth.clone()], vec![back.clone()], vec![forth, same, back, docs]] {
            for (contents, margin) in [(&[][..], None), (&contents[..], None), (&[], Some(0.1)), (&contents, Some(-0.2))] {
                for judge in [Judge::Softmax, Judge::Sigmoid { bias: -0.4 }] {
                    let shown = if contents.is_empty() { [&[][..]; 2] } else { [&contents[first..], &contents[n + first..]] };
                    let parts = &parts[..];
                    let of = Ranks {
                        z: &z,
                        width,
                        count,
                        parts,
                        period: n,
                        temperature: 0.7,
                        contents,
                        shown,
                        margin,
                        judge,
                        factor: 0.3,
                    };
                    let (expected, counts) = plain(&of);
                    let mut gradient = vec![0.0; z.len()];
                    let found = of.run(&mut gradient);
                    assert!((found.loss - counts.loss).abs() < 1e-10, "{found:?} {counts:?}");
                    assert!((found.right - counts.right).abs() < 1e-10, "{found:?} {counts:?}");
                    assert!((found.bias - counts.bias).abs() < 1e-10, "{found:?} {counts:?}");
                    assert_eq!((found.candidates, found.masked), (counts.candidates, counts.masked));
                    assert!(gradient.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-11), "{margin:?}");
                    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                    let mut alone = vec![0.0; z.len()];
                    assert_eq!(one.install(|| of.run(&mut alone)), found);
                    assert_eq!(alone, gradient, "threads");
                    // The same in f32.
                    let z: Vec<f32> = z.iter().map(|z| *z as f32).collect();
                    let of = Ranks {
                        z: &z,
                        width,
                        count,
                        parts,
                        period: n,
                        temperature: 0.7,
                        contents,
                        shown,
                        margin,
                        judge,
                        factor: 0.3,
                    };
                    let mut near = vec![0.0; z.len()];
                    assert!((of.run(&mut near).loss - counts.loss).abs() < 1e-3);
                    assert!(near.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-4));
                }
            }
        }
    }
}
