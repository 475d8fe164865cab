//! The fused update of skip-gram with negative sampling: value, gradient and step in one pass over a few rows.
//!
//! The loss of one pair and its gradient are derived in [`ctk_core::objective::NegativeSampling`]:
//!
//! ```text
//! ℓ = −log σ(u·v) − Σₖ log σ(−uₖ·v)        with g₀ = σ(u·v) − 1 and gₖ = σ(uₖ·v):
//! ∂ℓ/∂v = g₀u + Σ gₖuₖ     ∂ℓ/∂u = g₀v     ∂ℓ/∂uₖ = gₖv
//! ```
//!
//! As in word2vec.c and gensim, v is the INPUT row of a context word and u the OUTPUT row of the centre word; summed over
//! a text this is skip-gram with the roles read the other way round. All of a pair's gradients are taken before any of its
//! rows moves, and a negative that was drawn twice counts twice, so a pair's update is exactly its gradient.

use ctk_core::rng::Rng;

use super::rows::{LANES, Lane, Rows};
use crate::vocabulary::Alias;

/// What a table of rows is trained with.
pub struct Kernel<'a> {
    /// The vectors that are published.
    pub input: &'a Rows,
    /// The vectors they are contrasted with.
    pub output: &'a Rows,
    /// Where negatives come from.
    pub noise: &'a Alias,
    /// Negatives a pair; one that equals the centre is skipped.
    pub negatives: usize,
}

/// Sums over some pairs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Sum of the pairs' losses.
    pub loss: f64,
    /// Number of pairs.
    pub pairs: u64,
}

/// One thread's local rows.
pub struct Scratch {
    input: Vec<Lane>,
    error: Vec<Lane>,
    outputs: Vec<Lane>,     // the centre's row, then the negatives'
    drawn: Vec<(u32, f32)>, // this pair's negatives and how often each was drawn
    next: Vec<(u32, f32)>,  // the next pair's
    slopes: Vec<f32>,
}

impl Scratch {
    /// Room for one pair of `kernel`.
    pub fn new(kernel: &Kernel) -> Scratch {
        let lanes = kernel.input.lanes();
        let row = || vec![[0.0; LANES]; lanes];
        let count = 1 + kernel.negatives;
        Scratch {
            input: row(),
            error: row(),
            outputs: vec![[0.0; LANES]; lanes * count],
            drawn: Vec::with_capacity(count),
            next: Vec::with_capacity(count),
            slopes: Vec::with_capacity(count),
        }
    }
}

impl Kernel<'_> {
    /// Trains one centre word with its contexts, one after another.
    pub fn window(&self, centre: u32, contexts: [&[u32]; 2], rng: &mut Rng, rate: f32, scratch: &mut Scratch) -> Sum {
        let mut sum = Sum::default();
        let lanes = self.output.lanes();
        let pairs = contexts[0].len() + contexts[1].len();
        if pairs == 0 {
            return sum;
        }
        self.draw(centre, rng, &mut scratch.next);
        // No negative is ever the centre, so its row can stay here for the whole window.
        self.output.read(centre, &mut scratch.outputs[..lanes]);
        for &context in contexts.into_iter().flatten() {
            // One pair ahead: by the time it is trained, its rows have arrived.
            std::mem::swap(&mut scratch.drawn, &mut scratch.next);
            if sum.pairs + 1 < pairs as u64 {
                self.draw(centre, rng, &mut scratch.next);
            }
            sum.loss += f64::from(self.pair(context, rate, scratch));
            sum.pairs += 1;
        }
        self.output.write(centre, &scratch.outputs[..lanes]);
        sum
    }

    fn draw(&self, centre: u32, rng: &mut Rng, into: &mut Vec<(u32, f32)>) {
        draw(self.noise, self.negatives, centre, rng, into);
        into.iter().for_each(|(id, _)| self.output.prefetch(*id));
    }

    /// One pair; the centre's row is at home in `scratch`.
    fn pair(&self, context: u32, rate: f32, scratch: &mut Scratch) -> f32 {
        let lanes = self.output.lanes();
        let Scratch { input, error, outputs, drawn, slopes, .. } = scratch;
        self.input.read(context, input);
        let (centre, noise) = outputs.split_at_mut(lanes);
        for ((id, _), row) in drawn.iter().zip(noise.chunks_exact_mut(lanes)) {
            self.output.read(*id, row);
        }
        slopes.clear();
        let (slope, mut loss, mut tail) = point(-dot(input, centre));
        slopes.push(-slope);
        for ((_, times), row) in drawn.iter().zip(noise.chunks_exact(lanes)) {
            let (slope, value, rest) = point(dot(input, row));
            slopes.push(slope * times);
            loss += value * times;
            // (1 + e)^times: almost always once.
            (0..*times as u32).for_each(|_| tail *= rest);
        }
        error.fill([0.0; LANES]);
        for (slope, row) in slopes.iter().zip(outputs.chunks_exact_mut(lanes)) {
            step(-rate * slope, input, row, error);
        }
        for (x, e) in input.as_flattened_mut().iter_mut().zip(error.as_flattened()) {
            *x += e;
        }
        self.input.write(context, input);
        for ((id, _), row) in drawn.iter().zip(outputs[lanes..].chunks_exact(lanes)) {
            self.output.write(*id, row);
        }
        loss + tail.ln()
    }
}

/// Draws a pair's negatives: `count` draws, of which those that equal `centre` are skipped and equal ones are merged.
pub fn draw(noise: &Alias, count: usize, centre: u32, rng: &mut Rng, into: &mut Vec<(u32, f32)>) {
    into.clear();
    for _ in 0..count {
        let id = noise.draw(rng);
        if id == centre {
            continue;
        }
        match into.iter_mut().find(|(other, _)| *other == id) {
            Some((_, times)) => *times += 1.0,
            None => into.push((id, 1.0)),
        }
    }
}

/// σ(x), max(x, 0) and 1 + e^−|x|: the loss log(1 + eˣ) is the second plus the third's logarithm. One exponential serves
/// all, and a pair needs one logarithm: of the product of its thirds, each at most 2.
#[inline]
fn point(x: f32) -> (f32, f32, f32) {
    let e = (-x.abs()).exp();
    let positive = 1.0 / (1.0 + e);
    (if x >= 0.0 { positive } else { e * positive }, x.max(0.0), 1.0 + e)
}

#[inline]
fn dot(a: &[Lane], b: &[Lane]) -> f32 {
    let mut sums = [0.0; LANES];
    for (x, y) in a.iter().zip(b) {
        sums = std::array::from_fn(|i| sums[i] + x[i] * y[i]);
    }
    // Halves, not left to right: that is the order vectors can keep.
    let eight: [f32; 8] = std::array::from_fn(|i| sums[i] + sums[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// error += g·row, row += g·input.
#[inline]
fn step(g: f32, input: &[Lane], row: &mut [Lane], error: &mut [Lane]) {
    for ((x, row), error) in input.iter().zip(row).zip(error) {
        // Whole copies: the compiler then need not prove that no two of the three overlap, and makes vectors.
        let (x, mut u, mut e) = (*x, *row, *error);
        for i in 0..LANES {
            e[i] += g * u[i];
            u[i] += g * x[i];
        }
        (*row, *error) = (u, e);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::rng::Key;

    #[test]
    fn the_point_agrees_with_f64_at_both_ends() {
        for x in [-80f32, -9.0, -1e-3, 0.0, 0.4, 12.0, 80.0] {
            let (slope, value, rest) = point(x);
            let exact = f64::from(x);
            assert!((f64::from(slope) - 1.0 / (1.0 + (-exact).exp())).abs() < 1e-7);
            assert!((f64::from(value + rest.ln()) - (exact.max(0.0) + (-exact.abs()).exp().ln_1p())).abs() < 1e-6);
        }
    }

    #[test]
    fn negatives_skip_the_centre_and_merge() {
        let noise = Alias::new(&[1.0, 1.0]);
        let mut rng = Key::new(0).rng();
        let mut drawn = Vec::new();
        let mut times = 0.0;
        for _ in 0..1000 {
            draw(&noise, 5, 0, &mut rng, &mut drawn);
            assert!(drawn.len() <= 1 && drawn.iter().all(|(id, _)| *id == 1));
            times += drawn.iter().map(|(_, t)| t).sum::<f32>();
        }
        assert!((2350.0..2650.0).contains(&times), "half of 5,000 draws, got {times}");
    }
}
