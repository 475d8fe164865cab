//! The linear probe: how well a linear classifier on frozen features does.
//!
//! By default it is multinomial logistic regression on standardised features, fitted to its optimum by L-BFGS. Its L2 strength is chosen on
//! held-out TRAINING rows, and the classifier is then fitted again on all training rows. It is deterministic, has no learning rate to tune,
//! and comes close to the best that a linear classifier can do. [`Solver::Sgd`] is the protocol of SimCLR's code. [`Classifier::fit`] never
//! sees a test row.

use candle_core::{Device, Tensor};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::classify::{Classes, Hits, rank};
use super::cross_entropy::into_gradient;
use super::lbfgs::{Stop, minimise};
use crate::data::feed::Order;
use crate::error::Result;
use crate::eval::Features;
use crate::optim::Schedule;
use crate::recipe::{Decay, Length, Scaling, ScheduleRecipe};
use crate::rng::Key;

/// L2 strengths that are tried, strongest first; each fit starts from the one before.
const STRENGTHS: [f64; 7] = [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];

/// How the classifier is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Solver {
    /// L-BFGS on standardised features: mean cross entropy + strength/2 · ‖W‖². `None` chooses the strength on held-out rows.
    Lbfgs {
        /// L2 strength.
        strength: Option<f64>,
    },
    /// SimCLR's linear evaluation on CIFAR-10: SGD on the features as they are, Nesterov momentum .9, batches of 512, learning rate
    /// .1·B/256 with cosine decay, weights from zero, no weight decay.
    Sgd {
        /// Epochs over the training rows; 100 in SimCLR.
        epochs: usize,
    },
}

/// Options of the probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How the classifier is fitted.
    pub method: Solver,
    /// Folds of the training rows that are held out in turn to choose the L2 strength (cross-validation); 1: one tenth is held out once.
    pub folds: usize,
    /// Seed of the held-out rows and of SGD's order.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { method: Solver::Lbfgs { strength: None }, folds: 1, seed: 0 }
    }
}

/// The results of a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Probe {
    /// Fraction of test rows whose class comes first, 0 to 1.
    pub top1: f64,
    /// Fraction of test rows whose class is among the first five, 0 to 1; `None` if there are five classes or fewer.
    pub top5: Option<f64>,
    /// Training rows.
    pub train: usize,
    /// Test rows.
    pub test: usize,
    /// Classes in the training rows.
    pub classes: usize,
    /// The L2 strength used; `None` with SGD, which has none.
    pub regularisation: Option<f64>,
}

/// Fits on `train` and evaluates on `test`. A test class that is not in `train` counts as wrong.
///
/// # Errors
/// There are no labels, only one class, an empty part, different widths, or values that are not finite.
pub fn linear_probe(train: &Features, test: &Features, options: &Options) -> Result<Probe> {
    Classifier::fit(train, options)?.judge(test)
}

/// A linear classifier of features as they are, without their standardisation: logits = W·x + b.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// The number of each class in the labels that it was fitted on, ascending.
    pub classes: Vec<u32>,
    /// W, row-major, (classes, width).
    pub weight: Vec<f32>,
    /// b, a value for each class.
    pub bias: Vec<f32>,
}

/// A linear classifier over features.
pub struct Classifier {
    classes: Classes,
    width: usize,
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
    /// `(width + 1, classes)`, for standardised features; the last row holds the intercepts.
    weights: Vec<f64>,
    strength: Option<f64>,
}

impl Classifier {
    /// Fits a classifier on all rows of `train`.
    ///
    /// # Errors
    /// There are no rows, no labels, only one class, or values that are not finite.
    pub fn fit(train: &Features, options: &Options) -> Result<Self> {
        let classes = Classes::new(train)?;
        let (width, count) = (train.width, classes.count());
        let (mean, inverse_deviation) = match options.method {
            Solver::Lbfgs { .. } => moments(train),
            Solver::Sgd { .. } => (vec![0.0; width], vec![1.0; width]),
        };
        let mut fitted =
            Classifier { classes, width, mean, inverse_deviation, weights: vec![0.0; (width + 1) * count], strength: None };
        let data = Data { x: fitted.standardise(train)?, y: fitted.classes.of.clone(), classes: count };
        let key = Key::new(options.seed).of("linear probe");
        match options.method {
            Solver::Sgd { epochs } => fitted.weights = sgd(&data, epochs, key)?,
            Solver::Lbfgs { strength } => {
                let strength = match strength {
                    Some(strength) => strength,
                    None => pick(&data, options.folds, key, &mut fitted.weights)?,
                };
                minimise(&mut fitted.weights, &Stop { gradient: 1e-5, iterations: 500 }, |w| data.loss(w, strength))?;
                fitted.strength = Some(strength);
            }
        }
        Ok(fitted)
    }

    /// Weights of the standardised features, `(width + 1, classes)`, row by row; the last row holds the intercepts.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The same classifier for features that are not standardised.
    pub fn linear(&self) -> Linear {
        let (classes, width) = (self.classes.count(), self.width);
        let mut weight = vec![0.0; classes * width];
        let mut bias: Vec<f64> = self.weights[width * classes..].to_vec();
        for (j, row) in self.weights[..width * classes].chunks_exact(classes).enumerate() {
            let (mean, inverse) = (f64::from(self.mean[j]), f64::from(self.inverse_deviation[j]));
            for (k, w) in row.iter().enumerate() {
                weight[k * width + j] = (w * inverse) as f32;
                bias[k] -= w * inverse * mean;
            }
        }
        Linear { classes: self.classes.numbers().to_vec(), weight, bias: bias.into_iter().map(|b| b as f32).collect() }
    }

    /// The L2 strength that was used; none with SGD.
    pub fn strength(&self) -> Option<f64> {
        self.strength
    }

    /// Classifies the rows of `test`.
    ///
    /// # Errors
    /// There are no rows or no labels, the width differs from training's, or a value is not finite.
    pub fn judge(&self, test: &Features) -> Result<Probe> {
        let truth = self.classes.truth(test, self.width)?;
        let classes = self.classes.count();
        let scores = scores(&self.standardise(test)?, &self.weights, classes)?;
        let of_row = |(scores, truth): (&[f32], &Option<usize>)| {
            let scores: Vec<f64> = scores.iter().map(|s| f64::from(*s)).collect();
            rank(&scores, *truth)
        };
        let ranks: Vec<usize> = scores.chunks_exact(classes).zip(&truth).map(of_row).collect();
        let Hits { top1, top5 } = Hits::new(&ranks, classes);
        Ok(Probe { top1, top5, train: self.classes.of.len(), test: test.len(), classes, regularisation: self.strength })
    }

    fn standardise(&self, features: &Features) -> Result<Tensor> {
        let mut rows = features.rows.clone();
        rows.par_chunks_exact_mut(self.width).for_each(|row| {
            for ((v, m), s) in row.iter_mut().zip(&self.mean).zip(&self.inverse_deviation) {
                *v = (*v - m) * s;
            }
        });
        Ok(Tensor::from_vec(rows, (features.len(), self.width), &Device::Cpu)?)
    }
}

/// Mean and 1 / standard deviation of each feature; a constant feature is left at 0.
fn moments(features: &Features) -> (Vec<f32>, Vec<f32>) {
    let (n, width) = (features.len() as f64, features.width);
    let sum = |f: &dyn Fn(usize, f32) -> f64| {
        let mut sums = vec![0.0; width];
        for row in features.rows.chunks_exact(width) {
            sums.iter_mut().zip(row).enumerate().for_each(|(j, (s, v))| *s += f(j, *v));
        }
        sums
    };
    let mean: Vec<f64> = sum(&|_, v| f64::from(v)).into_iter().map(|s| s / n).collect();
    let variance = sum(&|j, v| (f64::from(v) - mean[j]).powi(2));
    // A constant feature has a tiny deviation left by rounding.
    let inverse = |(v, m): (f64, &f64)| {
        let deviation = (v / n).sqrt();
        if deviation > 1e-6 * m.abs() { (1.0 / deviation) as f32 } else { 0.0 }
    };
    let inverse_deviation = variance.into_iter().zip(&mean).map(inverse).collect();
    (mean.into_iter().map(|m| m as f32).collect(), inverse_deviation)
}

/// Labelled rows.
struct Data {
    x: Tensor,
    y: Vec<u32>,
    classes: usize,
}

impl Data {
    fn select(&self, rows: &[u32]) -> Result<Data> {
        let x = self.x.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?;
        Ok(Data { x, y: rows.iter().map(|r| self.y[*r as usize]).collect(), classes: self.classes })
    }

    /// Mean cross entropy + strength/2 · ‖W‖² (intercepts are not penalised) and its gradient. Rows are processed in blocks, whose sums are
    /// added in order.
    fn loss(&self, weights: &[f64], strength: f64) -> Result<(f64, Vec<f64>)> {
        let n = self.y.len();
        let (w, b) = split(weights, self.classes)?;
        // At most 32 blocks, because each has a gradient of its own.
        let block = n.div_ceil(32).max(1024);
        let starts: Vec<usize> = (0..n).step_by(block).collect();
        let parts: Vec<(f64, Vec<f32>, Vec<f64>)> =
            starts.par_iter().map(|from| self.block(*from, block.min(n - from), &w, &b)).collect::<Result<_>>()?;
        let mut value = 0.0;
        let mut gradient = vec![0.0; weights.len()];
        let (of_weights, of_intercepts) = gradient.split_at_mut(weights.len() - self.classes);
        for (loss, w, b) in &parts {
            value += loss;
            of_weights.iter_mut().zip(w).for_each(|(g, p)| *g += f64::from(*p));
            of_intercepts.iter_mut().zip(b).for_each(|(g, p)| *g += p);
        }
        value /= n as f64;
        gradient.iter_mut().for_each(|g| *g /= n as f64);
        for (g, w) in gradient.iter_mut().zip(&weights[..weights.len() - self.classes]) {
            *g += strength * w;
            value += 0.5 * strength * w * w;
        }
        Ok((value, gradient))
    }

    /// The sums of the loss and of its gradients over some rows.
    fn block(&self, from: usize, count: usize, w: &Tensor, b: &[f32]) -> Result<(f64, Vec<f32>, Vec<f64>)> {
        let x = self.x.narrow(0, from, count)?;
        let mut p = x.matmul(w)?.flatten_all()?.to_vec1::<f32>()?;
        let mut loss = 0.0;
        let mut of_intercepts = vec![0.0; self.classes];
        for (row, y) in p.chunks_exact_mut(self.classes).zip(&self.y[from..]) {
            row.iter_mut().zip(b).for_each(|(s, b)| *s += b);
            loss += into_gradient(row, *y as usize);
            of_intercepts.iter_mut().zip(&*row).for_each(|(g, r)| *g += f64::from(*r));
        }
        let p = Tensor::from_vec(p, (count, self.classes), &Device::Cpu)?;
        Ok((loss, x.t()?.matmul(&p)?.flatten_all()?.to_vec1()?, of_intercepts))
    }
}

/// Weights (width, classes) and intercepts in f32.
fn split(weights: &[f64], classes: usize) -> Result<(Tensor, Vec<f32>)> {
    let mut w: Vec<f32> = weights.iter().map(|v| *v as f32).collect();
    let b = w.split_off(weights.len() - classes);
    Ok((Tensor::from_vec(w, (weights.len() / classes - 1, classes), &Device::Cpu)?, b))
}

/// x·W + b, row by row.
fn scores(x: &Tensor, weights: &[f64], classes: usize) -> Result<Vec<f32>> {
    let (w, b) = split(weights, classes)?;
    let mut scores = x.matmul(&w)?.flatten_all()?.to_vec1::<f32>()?;
    scores.chunks_exact_mut(classes).for_each(|row| row.iter_mut().zip(&b).for_each(|(s, b)| *s += b));
    Ok(scores)
}

/// The strength with the best accuracy on held-out rows (of equal ones the strongest); leaves its weights in `weights`. Held out are
/// `folds` parts in turn, or one tenth.
fn pick(data: &Data, folds: usize, key: Key, weights: &mut Vec<f64>) -> Result<f64> {
    let n = data.y.len();
    let mut order: Vec<u32> = (0..n as u32).collect();
    order.shuffle(&mut key.of("held out").rng());
    let folds = folds.min(n);
    let mut hits = [0; STRENGTHS.len()];
    let mut paths = Vec::new();
    for fold in 0..folds.max(1) {
        let held = if folds < 2 { 0..(n / 10).clamp(1, 10_000) } else { n * fold / folds..n * (fold + 1) / folds };
        let rest = data.select(&[&order[..held.start], &order[held.end..]].concat())?;
        let held = data.select(&order[held])?;
        let mut path = vec![0.0; weights.len()];
        paths.clear();
        for (hits, strength) in hits.iter_mut().zip(STRENGTHS) {
            minimise(&mut path, &Stop { gradient: 1e-4, iterations: 100 }, |w| rest.loss(w, strength))?;
            let scores = scores(&held.x, &path, data.classes)?;
            let hit = |(s, y): &(&[f32], &u32)| {
                let s: Vec<f64> = s.iter().map(|v| f64::from(*v)).collect();
                rank(&s, Some(**y as usize)) == 0
            };
            *hits += scores.chunks_exact(data.classes).zip(&held.y).filter(hit).count();
            paths.push(path.clone());
        }
    }
    let best = (1..hits.len()).fold(0, |best, i| if hits[i] > hits[best] { i } else { best });
    *weights = paths.swap_remove(best);
    Ok(STRENGTHS[best])
}

/// The classifier of SimCLR's linear evaluation.
fn sgd(data: &Data, epochs: usize, key: Key) -> Result<Vec<f64>> {
    let (n, width) = data.x.dims2()?;
    let order = Order::new(n, 512, 512, true, true, key);
    let schedule = ScheduleRecipe { warmup: 0.0, decay: Decay::Cosine, scaling: Scaling::Linear, length: Length::Samples };
    let rates = Schedule::new(&schedule, 0.1).over(n, 512, epochs, order.steps());
    let mut weights = vec![0.0; (width + 1) * data.classes];
    let mut momentum = weights.clone();
    for epoch in 0..epochs {
        for step in 0..order.steps() {
            let rate = rates.at(epoch * order.steps() + step);
            let (_, gradient) = data.select(&order.samples(epoch, step, 0))?.loss(&weights, 0.0)?;
            for ((w, v), g) in weights.iter_mut().zip(&mut momentum).zip(gradient) {
                *v = 0.9 * *v + g;
                *w -= rate * (g + 0.9 * *v);
            }
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::super::classify::tests::features;
    use super::*;
    use rand_distr::{Distribution, StandardNormal};

    fn normal(seed: u64, count: usize) -> Vec<f32> {
        StandardNormal.sample_iter(Key::new(seed).rng()).take(count).collect()
    }

    /// Rows whose class is the largest of `classes` planted linear scores, some with noise; the columns have very different scales.
    fn planted(seed: u64, n: usize, width: usize, classes: usize, noise: f32) -> Features {
        let planted = normal(1000, width * classes);
        let (mut rows, more) = (normal(seed, n * width), normal(seed + 1, n * classes));
        let label = |(i, row): (usize, &[f32])| {
            let score = |c: usize| row.iter().enumerate().map(|(j, v)| v * planted[j * classes + c]).sum::<f32>();
            let noisy: Vec<f32> = (0..classes).map(|c| score(c) + noise * more[i * classes + c]).collect();
            (0..classes).max_by(|a, b| noisy[*a].total_cmp(&noisy[*b])).unwrap() as u32
        };
        let labels: Vec<u32> = rows.chunks_exact(width).enumerate().map(label).collect();
        for row in rows.chunks_exact_mut(width) {
            row.iter_mut().enumerate().for_each(|(j, v)| *v = *v * 10f32.powi(j as i32 % 5 - 2) + j as f32);
        }
        features(rows, width, &labels)
    }

    #[test]
    fn recovers_a_planted_linear_model() {
        let (train, test) = (planted(1, 2000, 12, 7, 0.0), planted(2, 500, 12, 7, 0.0));
        let probe = linear_probe(&train, &test, &Options::default()).unwrap();
        assert!(probe.top1 > 0.95 && probe.top5.unwrap() > 0.999, "{probe:?}");
        assert_eq!((probe.train, probe.test, probe.classes), (2000, 500, 7));
        assert!(probe.regularisation.unwrap() < 1e-3, "clean labels want little: {probe:?}");
        let folded = Options { folds: 5, ..Options::default() };
        let picked = linear_probe(&train, &test, &folded).unwrap();
        assert!(picked.top1 > 0.95 && picked.regularisation.unwrap() < 1e-3, "{picked:?}");
        let noise = features(normal(3, 600 * 40), 40, &(0..600).map(|i| i % 2).collect::<Vec<_>>());
        let strong = Classifier::fit(&noise, &Options::default()).unwrap();
        let weak = Classifier::fit(&planted(1, 2000, 12, 7, 0.0), &Options::default()).unwrap();
        assert!(strong.strength > weak.strength, "labels without sense want more");
    }

    #[test]
    fn sgd_learns_the_same_model() {
        let unscaled = |f: Features| {
            let rows =
                f.rows.iter().enumerate().map(|(at, v)| (v - (at % 12) as f32) / 10f32.powi((at % 12) as i32 % 5 - 2)).collect();
            Features { rows, ..f }
        };
        let (train, test) = (unscaled(planted(1, 3000, 12, 4, 0.0)), unscaled(planted(2, 500, 12, 4, 0.0)));
        let probe = linear_probe(&train, &test, &Options { method: Solver::Sgd { epochs: 30 }, ..Options::default() }).unwrap();
        assert!(probe.top1 > 0.93, "{probe:?}");
        assert_eq!((probe.top5, probe.regularisation), (None, None));
    }

    #[test]
    fn is_the_optimum_of_the_f64_objective() {
        let (n, d, c, strength) = (400, 6, 3, 1e-2);
        let train = planted(5, n, d, c, 2.0);
        let fitted =
            Classifier::fit(&train, &Options { method: Solver::Lbfgs { strength: Some(strength) }, ..Options::default() })
                .unwrap();
        let column = |j: usize| (0..n).map(move |i| i * d + j);
        let mut x = vec![0.0; n * d];
        for j in 0..d {
            let mean = column(j).map(|at| f64::from(train.rows[at])).sum::<f64>() / n as f64;
            let deviation = (column(j).map(|at| (f64::from(train.rows[at]) - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            column(j).for_each(|at| x[at] = (f64::from(train.rows[at]) - mean) / deviation);
        }
        let w = fitted.weights();
        let mut gradient: Vec<f64> = w.iter().enumerate().map(|(at, w)| if at < d * c { strength * w } else { 0.0 }).collect();
        for i in 0..n {
            let score = |k: usize| w[d * c + k] + (0..d).map(|j| x[i * d + j] * w[j * c + k]).sum::<f64>();
            let e: Vec<f64> = (0..c).map(|k| score(k).exp()).collect();
            for k in 0..c {
                let truth = f64::from(u8::from(train.labels.as_ref().unwrap()[i] as usize == k));
                let r = (e[k] / e.iter().sum::<f64>() - truth) / n as f64;
                (0..d).for_each(|j| gradient[j * c + k] += r * x[i * d + j]);
                gradient[d * c + k] += r;
            }
        }
        assert!(gradient.iter().all(|g| g.abs() < 2e-5), "{gradient:?}");
        assert!(w.iter().any(|w| w.abs() > 0.1));
    }

    #[test]
    fn the_same_classifier_reads_features_as_they_are() {
        let (train, test) = (planted(1, 300, 5, 3, 0.5), planted(2, 50, 5, 3, 0.5));
        let fitted = Classifier::fit(&train, &Options::default()).unwrap();
        let Linear { classes, weight, bias } = fitted.linear();
        let expected = scores(&fitted.standardise(&test).unwrap(), fitted.weights(), 3).unwrap();
        for (row, expected) in test.rows.chunks_exact(5).zip(expected.chunks_exact(3)) {
            for k in 0..3 {
                let found = bias[k] + row.iter().zip(&weight[k * 5..]).map(|(x, w)| x * w).sum::<f32>();
                assert!((found - expected[k]).abs() < 1e-3 * (1.0 + expected[k].abs()), "{found} {}", expected[k]);
            }
        }
        assert_eq!(classes, [0, 1, 2]);
        let gaps = features(vec![1.0, 2.0, 3.0, 4.0], 1, &[7, 3, 7, 3]);
        assert_eq!(Classifier::fit(&gaps, &Options::default()).unwrap().linear().classes, [3, 7]);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let train = planted(5, 2500, 9, 6, 1.0);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let bits = |c: Classifier| c.weights().iter().map(|w| w.to_bits()).collect::<Vec<_>>();
            pool.install(|| bits(Classifier::fit(&train, &Options::default()).unwrap()))
        };
        assert_eq!(fit(1), fit(3));
    }

    #[test]
    fn odd_features_do_no_harm() {
        // A constant column, a test class that is not in training, two rows.
        let train = features(vec![1.0, 5.0, 2.0, 5.0], 2, &[3, 9]);
        let test = features(vec![1.0, 5.0, 2.0, 5.0, 2.0, 6.0], 2, &[3, 9, 4]);
        let fixed = Options { method: Solver::Lbfgs { strength: Some(1e-3) }, ..Options::default() };
        let probe = linear_probe(&train, &test, &fixed).unwrap();
        assert!((probe.top1 - 2.0 / 3.0).abs() < 1e-12);
        for folds in [0, 1, 5] {
            let options = Options { folds, ..Options::default() };
            assert!(linear_probe(&train, &test, &options).unwrap().top1.is_finite(), "{folds} folds of two rows");
        }
        assert!(linear_probe(&train, &features(vec![1.0], 1, &[3]), &fixed).is_err());
        assert!(linear_probe(&train, &Features::default(), &fixed).is_err());
    }
}
