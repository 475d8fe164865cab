//! What follows from word counts: the probability of keeping a word (subsampling), and the noise distribution of negatives.

use ctk_texts::vocabulary::Vocabulary;

use rand::RngCore;

/// The probability that an occurrence of each word is kept with threshold `t`, a fraction of the text: (√(f/t) + 1)·t/f, at most 1, where f
/// is the word's relative frequency (word2vec.c; Mikolov et al. 2013, §2.3, have 1 − √(t/f)). 0 keeps everything.
pub fn keep(vocabulary: &Vocabulary, t: f64) -> Vec<f64> {
    let total = vocabulary.total() as f64;
    let share = |&count: &u64| count as f64 / total / t;
    let kept = |count| if t > 0.0 { ((share(count).sqrt() + 1.0) / share(count)).min(1.0) } else { 1.0 };
    vocabulary.counts().iter().map(kept).collect()
}

/// The distribution that negatives are drawn from: proportional to count^`power` (.75 in Mikolov et al. 2013, §2.2). A word with count 0 is
/// never drawn.
pub fn noise(vocabulary: &Vocabulary, power: f64) -> Alias {
    let weight = |&count: &u64| if count == 0 { 0.0 } else { (count as f64).powf(power) };
    Alias::new(&vocabulary.counts().iter().map(weight).collect::<Vec<_>>())
}

/// Draws numbers with given weights in constant time (Walker 1977; Vose 1991).
#[derive(Clone, Debug)]
pub struct Alias {
    // A slot is drawn uniformly; the low half of the draw then decides between the slot itself and its alias.
    slots: Vec<(u32, u32)>,
}

impl Alias {
    /// A table for `weights`, at least one of which must be above 0.
    pub fn new(weights: &[f64]) -> Alias {
        let sum: f64 = weights.iter().sum();
        assert!(sum > 0.0 && sum.is_finite(), "weights must have a positive, finite sum");
        let mut share: Vec<f64> = weights.iter().map(|w| w / sum * weights.len() as f64).collect();
        let mut slots: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|&i| share[i] < 1.0);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            slots[poor] = ((share[poor] * 2f64.powi(32)) as u32, rich as u32);
            share[rich] -= 1.0 - share[poor];
            if share[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Alias { slots }
    }

    /// One draw.
    #[inline]
    pub fn draw(&self, rng: &mut impl RngCore) -> u32 {
        let bits = rng.next_u64();
        let slot = (((bits >> 32) * self.slots.len() as u64) >> 32) as u32;
        let (threshold, other) = self.slots[slot as usize];
        // Chance decides, so a branch would be mispredicted half of the time, which took a tenth of all training.
        std::hint::select_unpredictable((bits as u32) < threshold, slot, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_core::rng::Key;

    fn zipf(n: usize) -> Vocabulary {
        Vocabulary::new((0..n).map(|i| format!("w{i}")).collect(), (0..n).map(|i| 100_000 / (i as u64 + 1)).collect())
    }

    #[test]
    fn negatives_follow_counts_to_the_power() {
        let vocabulary = zipf(60);
        let alias = noise(&vocabulary, 0.75);
        let mut rng = Key::new(1).of("noise").rng();
        let draws = 1_000_000;
        let mut seen = vec![0f64; 60];
        (0..draws).for_each(|_| seen[alias.draw(&mut rng) as usize] += 1.0);
        let weights: Vec<f64> = vocabulary.counts().iter().map(|&c| (c as f64).powf(0.75)).collect();
        let sum: f64 = weights.iter().sum();
        let chi: f64 =
            seen.iter().zip(&weights).map(|(s, w)| (s - w / sum * draws as f64).powi(2) / (w / sum * draws as f64)).sum();
        // 59 degrees of freedom: the 99.9th percentile is 98.3.
        assert!(chi < 98.3, "chi-square {chi}");
    }

    #[test]
    fn one_word_and_equal_weights() {
        let mut rng = Key::new(2).rng();
        assert_eq!(Alias::new(&[3.0]).draw(&mut rng), 0);
        let alias = Alias::new(&[0.0, 1.0, 0.0]);
        assert!((0..1000).all(|_| alias.draw(&mut rng) == 1));
        let absent = Vocabulary::new(["a", "b", "c"].map(String::from).to_vec(), vec![3, 1, 0]);
        for power in [-1.0, 0.0, 0.75] {
            let drawn = noise(&absent, power);
            assert!((0..1000).all(|_| drawn.draw(&mut rng) < 2), "power {power}");
        }
    }

    #[test]
    fn frequent_words_are_thinned() {
        let vocabulary = Vocabulary::new(vec!["the".into(), "cat".into()], vec![9_999, 1]);
        let kept = keep(&vocabulary, 1e-3);
        let f = 0.9999;
        assert!((kept[0] - ((f / 1e-3f64).sqrt() + 1.0) * 1e-3 / f).abs() < 1e-12);
        assert_eq!(kept[1], 1.0);
        assert_eq!(keep(&vocabulary, 0.0), [1.0, 1.0]);
    }
}
