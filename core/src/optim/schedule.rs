//! The learning rate's schedule: batch scaling, linear warm-up, decay (SimCLR, `model_util.py`: `learning_rate_schedule`).

use std::f64::consts::PI;

use crate::recipe::{Decay, Length, Scaling, ScheduleRecipe};

/// Below this rate a step is lost in rounding when it is added to a weight of usual size in f32.
const LEAST: f64 = 1e-10;

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

    /// The rates of a run of `epochs` over `samples` samples in batches of `batch` (at most `samples`), with `steps` steps in an epoch.
    ///
    /// With [`Length::Steps`] the total is epochs·steps + 1 and the warm-up ⌊warmup·steps⌋, so that the last step has the last rate above
    /// 0. With [`Length::Samples`] they are those of Google's code, to the step: epochs·samples // batch + 1 and ⌊warmup·samples / batch⌋.
    pub fn over(&self, samples: usize, batch: usize, epochs: usize, steps: usize) -> Rates {
        let batch = batch.clamp(1, samples.max(1));
        let size = batch as f64;
        let peak = match self.recipe.scaling {
            Scaling::None => self.peak,
            Scaling::Linear => self.peak * size / 256.0,
            Scaling::SquareRoot => self.peak * size.sqrt(),
        };
        let (warmup, whole) = match self.recipe.length {
            Length::Steps => (self.recipe.warmup * steps as f64, epochs * steps),
            Length::Samples => (self.recipe.warmup * samples as f64 / size, samples * epochs / batch),
        };
        Rates { peak, warmup: warmup.floor().max(0.0) as usize, total: whole + 1, decay: self.recipe.decay }
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
    /// Warnings about these rates in a run of `steps` steps, as sentences.
    pub fn oddities(&self, steps: usize) -> Vec<String> {
        let mut said = Vec::new();
        if self.warmup >= steps && self.warmup > 0 {
            let what = format!("the warm-up of {} steps is not over when the run ends after {steps}", self.warmup);
            let highest = self.at(steps.saturating_sub(1));
            let share = 100.0 * highest / self.peak;
            said.push(format!("{what}: the rate gets no higher than {share:.0} % of its peak (shorten schedule.warmup)"));
        }
        if self.peak < LEAST {
            let what = format!("a learning rate of {:.1e} moves no weight", self.peak);
            said.push(format!("{what}: f32 rounds such steps away (raise optimizer.*.rate)"));
        }
        said
    }

    /// The rate of step `step`, counted from 0. With warm-up the first step has rate 0, as in Google's code: it updates only the statistics
    /// of batch normalisation.
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
        by(Length::Samples, warmup, decay, scaling, peak, run)
    }

    fn by(length: Length, warmup: f64, decay: Decay, scaling: Scaling, peak: f64, [samples, batch, epochs]: [usize; 3]) -> Rates {
        let recipe = ScheduleRecipe { warmup, decay, scaling, length };
        let steps = samples / batch.clamp(1, samples.max(1));
        Schedule::new(&recipe, peak).over(samples, batch, epochs, steps)
    }

    #[test]
    fn a_schedule_by_steps_ends_with_the_run() {
        // The first three values of each are the total, the warm-up and the last step's rate. Google's schedule stopped at .605 of the
        // peak.
        for (run, warmup, [total, warm], last, (at, rate)) in [
            ([511, 256, 20], 2.0, [21, 2], 0.027091379, (10, 0.622742744)),
            ([1279, 256, 200], 10.0, [801, 40], 0.000017042, (400, 0.542263995)),
        ] {
            let r = by(Length::Steps, warmup, Decay::Cosine, Scaling::None, 1.0, run);
            assert_eq!((r.total, r.warmup), (total, warm));
            assert!((r.at(total - 2) - last).abs() < 1e-9 && (r.at(at) - rate).abs() < 1e-9, "{} {}", r.at(total - 2), r.at(at));
            assert!(r.oddities(total - 1).is_empty());
        }
        let old = rates(2.0, Decay::Cosine, Scaling::None, 1.0, [511, 256, 20]);
        assert_eq!((old.total, old.warmup), (40, 3));
        assert!((old.at(19) - 0.605339635).abs() < 1e-9 && (old.at(10) - 0.914254825).abs() < 1e-9);
        let both = [Length::Steps, Length::Samples].map(|l| by(l, 3.0, Decay::Linear, Scaling::Linear, 1.0, [512, 64, 7]));
        assert_eq!(both[0], both[1], "where batches divide the data");
    }

    #[test]
    fn a_warm_up_that_never_ends_and_a_rate_that_moves_nothing_are_said() {
        let long = by(Length::Steps, 10.0, Decay::Cosine, Scaling::None, 0.5, [100, 10, 2]);
        let said = long.oddities(20).join("\n");
        assert!(said.contains("warm-up of 100 steps") && said.contains("after 20") && said.contains("schedule.warmup"), "{said}");
        let small = by(Length::Steps, 0.0, Decay::Cosine, Scaling::None, 1e-40, [100, 10, 2]);
        assert!(small.oddities(20)[0].contains("1.0e-40"), "{:?}", small.oddities(20));
        assert!(by(Length::Steps, 1.0, Decay::Cosine, Scaling::None, 1e-5, [100, 10, 2]).oddities(20).is_empty());
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
