//! Which samples an epoch meets, by the weights of their sources.
//!
//! A source of n samples with weight w gives m = round(w · n) samples to each epoch. The epochs walk through a fixed random order of the
//! source, one behind the other, and begin it again at its end. So over the epochs all samples of a source are met equally often. A sample
//! that an epoch meets several times has as many indices.

use ctk_core::rng::Key;
use ctk_core::{Error, Result};
use rand::seq::SliceRandom;

/// The samples of all sources by index.
pub(super) struct Weights {
    sources: Vec<Source>,
    len: usize,
    per_epoch: usize,
}

struct Source {
    /// Its first index, and its first sample.
    index: usize,
    first: usize,
    /// Number of its samples.
    samples: usize,
    /// How many samples an epoch has of it.
    met: usize,
}

impl Weights {
    /// Sources by the end of their samples, and their weights.
    ///
    /// # Errors
    /// More indices than 32-bit numbers.
    pub fn new(ends: &[(usize, f64)]) -> Result<Weights> {
        let mut weights = Weights { sources: Vec::new(), len: 0, per_epoch: 0 };
        let mut first = 0;
        for (end, weight) in ends {
            let samples = end - first;
            if samples > 0 {
                let met = ((samples as f64 * weight).round() as usize).max(1);
                weights.sources.push(Source { index: weights.len, first, samples, met });
                weights.len += samples * met.div_ceil(samples);
                weights.per_epoch += met;
            }
            first = *end;
        }
        match u32::try_from(weights.len) {
            Ok(_) => Ok(weights),
            Err(_) => {
                Err(Error::usage("the weights of the sources make more than 4294967295 samples").hint("give lower weights"))
            }
        }
    }

    /// Number of indices.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of samples of an epoch.
    pub fn per_epoch(&self) -> usize {
        self.per_epoch
    }

    /// The sample of `index`, below [`len`](Weights::len).
    pub fn sample(&self, index: usize) -> usize {
        let at = self.sources.partition_point(|source| source.index <= index).saturating_sub(1);
        self.sources.get(at).map_or(index, |source| source.first + (index - source.index) % source.samples)
    }

    /// Keeps those of all indices that epoch `epoch` meets, in their order.
    pub fn select(&self, order: &mut Vec<u32>, epoch: usize) {
        if self.len == self.per_epoch {
            return;
        }
        let mut kept = vec![true; self.len];
        for (number, source) in self.sources.iter().enumerate() {
            let Source { index, samples, met, .. } = *source;
            let (whole, part) = (met / samples, met % samples);
            if part == 0 {
                continue;
            }
            let mut walk: Vec<u32> = (0..samples as u32).collect();
            walk.shuffle(&mut Key::new(0).of("weights").at(number as u64).rng());
            // epoch · part may be large; only its remainder matters.
            let start = (epoch as u128 * part as u128 % samples as u128) as usize;
            let rest = &mut kept[index + whole * samples..][..samples];
            rest.fill(false);
            (0..part).for_each(|step| rest[walk[(start + step) % samples] as usize] = true);
        }
        order.retain(|index| kept[*index as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_meets_each_source_by_its_weight_and_all_samples_equally_often() {
        // 10 samples of weight 1, 6 of 0.5, none, 5 of 2.4, 3 of 2.
        let ends = [(10, 1.0), (16, 0.5), (16, 3.0), (21, 2.4), (24, 2.0)];
        let weights = Weights::new(&ends).unwrap();
        assert_eq!((weights.per_epoch(), weights.len()), (10 + 3 + 12 + 6, 10 + 6 + 15 + 6));
        let mut met = [0usize; 24];
        for epoch in 0..10 {
            let mut order: Vec<u32> = (0..weights.len() as u32).rev().collect();
            weights.select(&mut order, epoch);
            assert_eq!(order.len(), weights.per_epoch());
            assert!(order.is_sorted_by(|a, b| a > b), "the order stays");
            let mut now = [0usize; 24];
            order.iter().for_each(|index| now[weights.sample(*index as usize)] += 1);
            assert!(now[..10].iter().all(|count| *count == 1) && now[21..].iter().all(|count| *count == 2));
            assert_eq!((now[10..16].iter().sum::<usize>(), now[16..21].iter().sum::<usize>()), (3, 12));
            assert!(now[16..21].iter().all(|count| (2..=3).contains(count)));
            (0..24).for_each(|sample| met[sample] += now[sample]);
            if epoch == 1 {
                assert!(met[10..16].iter().all(|count| *count == 1), "the second epoch has the other half");
            }
        }
        assert!(met[10..16].iter().all(|count| *count == 5) && met[16..21].iter().all(|count| *count == 24), "{met:?}");
    }

    #[test]
    fn without_weights_an_index_is_its_sample() {
        let weights = Weights::new(&[(3, 1.0), (7, 1.0)]).unwrap();
        let mut order = vec![4, 0, 6, 1, 2, 3, 5];
        weights.select(&mut order, 3);
        assert_eq!((order, weights.len(), weights.per_epoch()), (vec![4, 0, 6, 1, 2, 3, 5], 7, 7));
        assert!((0..7).all(|index| weights.sample(index) == index));
        assert!(Weights::new(&[(1 << 30, 1000.0)]).is_err());
        assert_eq!(Weights::new(&[(3, 0.001)]).unwrap().per_epoch(), 1, "an epoch has one sample of a source at least");
    }
}
