//! How the learning rate runs: batch scaling, linear warm-up, decay (SimCLR, `model_util.py`: `learning_rate_schedule`).

use std::f64::consts::PI;

use crate::recipe::{Decay, Scaling, ScheduleRecipe};

/// A schedule before the length of the run is known.
#[derive(Clone, Debug)]
pub struct Schedule {
    recipe: ScheduleRecipe,
    peak: f64,
}

impl Schedule {
    /// `peak` is the optimizer's rate, before batch scaling.
    pub fn new(recipe: &ScheduleRecipe, peak: f64) -> Self {
        Schedule { recipe: recipe.clone(), peak }
    }

    /// The rates of a run of `epochs` over `samples` samples in batches of `batch`, which is never more than there are.
    ///
    /// The lengths are Google's, to the step: warm-up is round(epochs·samples // batch) steps, the whole samples·epochs // batch + 1.
    pub fn over(&self, samples: usize, batch: usize, epochs: usize) -> Rates {
        let batch = batch.clamp(1, samples.max(1));
        let size = batch as f64;
        let peak = match self.recipe.scaling {
            Scaling::None => self.peak,
            Scaling::Linear => self.peak * size / 256.0,
            Scaling::SquareRoot => self.peak * size.sqrt(),
        };
        let warmup = (self.recipe.warmup * samples as f64 / size).floor().max(0.0) as usize;
        Rates { peak, warmup, total: samples * epochs / batch + 1, decay: self.recipe.decay }
    }
}

/// The rate of every step of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The highest rate, after batch scaling.
    pub peak: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// Steps until the rate has fallen to 0.
    pub total: usize,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Rates {
    /// The rate of step `step`, counted from 0. With warm-up the first step has rate 0, as in Google's code: it moves only
    /// the statistics of batch normalisation.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let length = self.total.saturating_sub(self.warmup).max(1);
        let done = ((step - self.warmup) as f64 / length as f64).min(1.0);
        match self.decay {
            Decay::Cosine => self.peak * 0.5 * (1.0 + (PI * done).cos()),
            Decay::Linear => self.peak * (1.0 - done),
            Decay::Constant => self.peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(warmup: f64, decay: Decay, scaling: Scaling, peak: f64, run: [usize; 3]) -> Rates {
        Schedule::new(&ScheduleRecipe { warmup, decay, scaling }, peak).over(run[0], run[1], run[2])
    }

    #[test]
    fn published_runs() {
        let cifar = rates(10.0, Decay::Cosine, Scaling::Linear, 1.0, [50_000, 512, 1000]);
        assert_eq!((cifar.peak, cifar.warmup, cifar.total), (2.0, 976, 97_657));
        assert_eq!(cifar.at(0), 0.0);
        assert!((cifar.at(1) - 0.002049).abs() < 5e-7);
        assert_eq!(cifar.at(976), 2.0);
        assert!(cifar.at(97_657).abs() < 1e-12 && cifar.at(97_656) > 0.0);
        let middle = 976 + (97_657 - 976) / 2;
        assert!((cifar.at(middle) - 1.0).abs() < 1e-4);

        let imagenet = rates(10.0, Decay::Cosine, Scaling::SquareRoot, 0.075, [1_281_167, 4096, 100]);
        assert_eq!((imagenet.warmup, imagenet.total), (3127, 31_279));
        assert!((imagenet.peak - 4.8).abs() < 1e-12);
        let v2 = rates(40.0, Decay::Cosine, Scaling::SquareRoot, 0.1, [1_281_167, 4096, 800]);
        assert!((v2.peak - 6.4).abs() < 1e-12);
    }

    #[test]
    fn every_decay_starts_at_the_peak_and_keeps_its_promise() {
        for decay in [Decay::Cosine, Decay::Linear, Decay::Constant] {
            let r = rates(0.5, decay, Scaling::None, 0.3, [1000, 10, 4]);
            assert_eq!((r.warmup, r.total, r.at(50)), (50, 401, 0.3));
            assert!((50..500).all(|s| r.at(s + 1) <= r.at(s) && r.at(s) >= 0.0));
            assert_eq!(r.at(10_000), if decay == Decay::Constant { 0.3 } else { 0.0 });
        }
        assert!((rates(0.0, Decay::Linear, Scaling::None, 1.0, [100, 10, 1]).at(1) - (1.0 - 1.0 / 11.0)).abs() < 1e-15);
    }

    #[test]
    fn odd_runs_stay_finite() {
        let small = rates(0.0, Decay::Cosine, Scaling::Linear, 1.0, [64, 512, 2]);
        assert_eq!((small.peak, small.total), (0.25, 3), "a batch is never larger than the data");
        let long = rates(20.0, Decay::Linear, Scaling::None, 1.0, [10, 5, 3]);
        assert!((0..100).all(|s| long.at(s).is_finite()));
        assert!(rates(1.0, Decay::Cosine, Scaling::None, 1.0, [0, 0, 0]).at(0).is_finite());
    }
}
