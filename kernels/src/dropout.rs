//! Dropout (Srivastava et al. 2014) whose draws depend on a value's identity and not on when it is drawn.
//!
//! Whether a value is kept is a hash of (seed of the step and the layer, the row's place in the step's batch, its view, the position in the
//! row, the channel). So the same values are dropped if a step is made in one part or four, on one rank or two, and when a block is
//! recomputed in the backward pass. The hash is SplitMix64's finaliser (Steele, Lea and Flood 2014) over a counter, applied once for a row,
//! once for a position and once for a channel: each level is an independent stream of 64-bit numbers derived from the one before.

use rayon::prelude::*;

use crate::element::{Element, Real};
use crate::wide;

/// The identity of a map's rows within the step.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Each row's place in the step's batch.
    pub places: &'a [u32],
    /// Each row's view of its sample.
    pub views: &'a [u16],
    /// The start of each row's tokens, and the total number; none if all rows have equally many positions.
    pub offsets: Option<&'a [u32]>,
}

impl Identity<'_> {
    /// The range of positions of row `row`, which has `each` positions if there are no offsets.
    pub(crate) fn positions(&self, row: usize, each: usize) -> std::ops::Range<usize> {
        match self.offsets {
            Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            None => row * each..(row + 1) * each,
        }
    }
}

/// The dropout of one layer in one step.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Drawn from the step's key and the layer's name.
    pub seed: u64,
    /// The number of dropped values among 2³².
    pub threshold: u32,
    /// The factor of values that are kept: 1 / (1 − p).
    pub scale: f64,
}

/// Number `at` of SplitMix64's stream `seed`.
#[inline(always)]
fn draw(seed: u64, at: u64) -> u64 {
    let z = seed.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout {
    /// Drops each value with probability `rate`, 0 ≤ rate < 1.
    pub fn new(seed: u64, rate: f64) -> Self {
        // In units of 2⁻³². A float's cast saturates, so a rate below 1 never drops everything.
        Dropout { seed, threshold: (rate * 4_294_967_296.0).round() as u32, scale: 1.0 / (1.0 - rate) }
    }

    /// The stream of a position in a row.
    #[inline(always)]
    pub(crate) fn stream(&self, place: u32, view: u16, position: u32) -> u64 {
        draw(draw(self.seed, u64::from(place) << 16 | u64::from(view)), u64::from(position))
    }

    /// Whether a channel at such a position is kept.
    #[inline(always)]
    pub(crate) fn keeps(&self, stream: u64, channel: usize) -> bool {
        (draw(stream, channel as u64) >> 32) as u32 >= self.threshold
    }

    /// Whether a value is kept.
    pub fn keep(&self, place: u32, view: u16, position: u32, channel: u32) -> bool {
        self.keeps(self.stream(place, view, position), channel as usize)
    }

    /// Sets dropped values of x to 0 in place and scales the rest; used forward, and backward for the gradient. Rows have `each` positions
    /// of `c` channels, or as many as their offsets say.
    ///
    /// # Panics
    /// If the rows, positions and channels do not give the number of values in x.
    pub fn apply<T: Element>(&self, rows: Identity, each: usize, c: usize, x: &mut [T]) {
        assert_eq!(rows.places.len(), rows.views.len(), "a view for every place");
        let scale = T::Real::of(self.scale);
        let (mut tasks, mut rest) = (Vec::with_capacity(rows.places.len()), x);
        for row in 0..rows.places.len() {
            let (own, others) = rest.split_at_mut(rows.positions(row, each).len() * c);
            tasks.push((row, own));
            rest = others;
        }
        assert!(rest.is_empty(), "more values than rows and positions");
        tasks.into_par_iter().for_each(|(row, x)| {
            wide!(for (position, x) in x.chunks_exact_mut(c).enumerate() {
                let stream = self.stream(rows.places[row], rows.views[row], position as u32);
                for (channel, x) in x.iter_mut().enumerate() {
                    *x = if self.keeps(stream, channel) { T::down(x.up() * scale) } else { T::zeroed() };
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_in_every_direction() {
        let dropout = Dropout::new(7, 0.3);
        let kept = |pick: &dyn Fn(u32) -> bool| (0..20_000).filter(|&i| pick(i)).count() as f64 / 20_000.0;
        let directions: [(&str, &dyn Fn(u32) -> bool); 4] = [
            ("places", &|i| dropout.keep(i, 1, 5, 9)),
            ("views", &|i| dropout.keep(3, i as u16, 5, 9)),
            ("positions", &|i| dropout.keep(3, 1, i, 9)),
            ("channels", &|i| dropout.keep(3, 1, 5, i)),
        ];
        for (name, pick) in directions {
            // Four standard deviations.
            assert!((kept(pick) - 0.7).abs() < 4.0 * (0.21f64 / 20_000.0).sqrt(), "{name}: {}", kept(pick));
        }
        // Neighbours in any direction are independent: both are kept in a fraction .49 of all cases.
        let both = kept(&|i| dropout.keep(i, 0, 5, 9) && dropout.keep(i + 1, 0, 5, 9));
        assert!((both - 0.49).abs() < 4.0 * (0.25f64 / 20_000.0).sqrt(), "{both}");
        let crossed = kept(&|i| dropout.keep(i, 0, 5, 9) && dropout.keep(i, 0, 9, 5));
        assert!((crossed - 0.49).abs() < 4.0 * (0.25f64 / 20_000.0).sqrt(), "{crossed}");
        assert!((0..1000).all(|i| Dropout::new(1, 0.0).keep(i, 0, 0, 0)));
    }

    #[test]
    fn parts_and_orders_drop_the_same_numbers() {
        let dropout = Dropout::new(3, 0.5);
        let of = |places: &[u32], views: &[u16], offsets: Option<&[u32]>, each: usize, count: usize| {
            let mut x = vec![1f32; count * 5];
            dropout.apply(Identity { places, views, offsets }, each, 5, &mut x);
            x
        };
        let whole = of(&[0, 1, 2, 3], &[0, 0, 1, 1], None, 3, 12);
        assert_eq!(whole[30..].to_vec(), of(&[2, 3], &[1, 1], None, 3, 6));
        let turned = of(&[3, 2, 1, 0], &[1, 1, 0, 0], None, 3, 12);
        assert_eq!(whole[15..30], turned[30..45]);
        // Rows of various lengths: the first tokens of a row are dropped as in a longer row.
        let tokens = of(&[0, 1, 2], &[0, 0, 1], Some(&[0, 3, 4, 6]), 0, 6);
        assert_eq!(tokens[..15], whole[..15]);
        assert_eq!(tokens[15..20], whole[15..20]);
        assert_eq!(tokens[20..], whole[30..40]);
        assert!(whole.iter().all(|&v| v == 0.0 || v == 2.0));
    }
}
