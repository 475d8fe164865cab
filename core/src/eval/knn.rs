//! Weighted k-nearest-neighbour classification on frozen features: nothing is trained (Wu et al. 2018, §3.4; DINO, SimSiam).
//!
//! The k training rows most similar to a test row by cosine s vote with weight exp(s/T). Of equal similarities the earlier training row
//! wins, of equal votes the smaller class, so that the result does not depend on the threads.

use std::cmp::Ordering;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::classify::{Classes, Hits, rank};
use crate::error::{Error, Result};
use crate::eval::Features;
use crate::process::Stop;

/// Test rows in a block, and training rows compared with them at once: 8 MB of similarities for each thread.
const TEST_BLOCK: usize = 256;
const TRAIN_BLOCK: usize = 8192;

/// Options of the vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Neighbours that vote. `None`: 200, or a fifth of the smallest class if that is less.
    pub k: Option<usize>,
    /// The temperature T of the weights exp(s/T).
    pub temperature: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { k: None, temperature: 0.1 }
    }
}

/// The results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knn {
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
    /// Neighbours that voted.
    pub k: usize,
}

/// Classifies the rows of `test` by their neighbours in `train`. A test class that is not in `train` counts as wrong.
///
/// # Errors
/// There are no labels, only one class, an empty part, different widths, values that are not finite, or k = 0.
pub fn knn(train: &Features, test: &Features, options: &Options) -> Result<Knn> {
    let classes = Classes::new(train)?;
    let truth = classes.truth(test, train.width)?;
    if options.k == Some(0) || options.temperature.is_nan() || options.temperature <= 0.0 {
        return Err(Error::usage("the vote needs k of 1 or more and a temperature above 0"));
    }
    let k = options.k.unwrap_or_else(|| (classes.smallest() / 5).clamp(1, 200)).min(train.len());
    let matrix = |f: &Features| Tensor::from_vec(f.normalised().rows, (f.len(), f.width), &Device::Cpu);
    let (keys, queries) = (matrix(train)?, matrix(test)?);
    let starts: Vec<usize> = (0..test.len()).step_by(TEST_BLOCK).collect();
    let stop = Stop::here();
    let block = |from: &usize| -> Result<Vec<usize>> {
        stop.check()?;
        let count = TEST_BLOCK.min(test.len() - from);
        let nearest = nearest(&queries.narrow(0, *from, count)?, &keys, k)?;
        let vote = |(neighbours, truth): (&Vec<(f32, u32)>, &Option<usize>)| {
            let mut votes = vec![0.0; classes.count()];
            for (s, row) in neighbours {
                votes[classes.of[*row as usize] as usize] += (f64::from(*s) / options.temperature).exp();
            }
            // A class without a vote is never predicted, however few classes have votes.
            truth.filter(|t| votes[*t] > 0.0).map_or(usize::MAX, |t| rank(&votes, Some(t)))
        };
        Ok(nearest.iter().zip(&truth[*from..]).map(vote).collect())
    };
    let ranks: Vec<usize> = starts.par_iter().map(block).collect::<Result<Vec<_>>>()?.concat();
    let Hits { top1, top5 } = Hits::new(&ranks, classes.count());
    Ok(Knn { top1, top5, train: train.len(), test: test.len(), classes: classes.count(), k })
}

/// The k largest products of each query with the keys, and the keys' row numbers, best first.
fn nearest(queries: &Tensor, keys: &Tensor, k: usize) -> Result<Vec<Vec<(f32, u32)>>> {
    let (rows, all) = (queries.dim(0)?, keys.dim(0)?);
    let mut best: Vec<Vec<(f32, u32)>> = vec![Vec::new(); rows];
    for from in (0..all).step_by(TRAIN_BLOCK) {
        let count = TRAIN_BLOCK.min(all - from);
        let similarities = queries.matmul(&keys.narrow(0, from, count)?.t()?)?.flatten_all()?.to_vec1::<f32>()?;
        for (best, similarities) in best.iter_mut().zip(similarities.chunks_exact(count)) {
            // Only larger products than the k-th so far matter; an equal one comes later and loses.
            let floor = if best.len() == k { best.iter().map(|b| b.0).fold(f32::INFINITY, f32::min) } else { f32::NEG_INFINITY };
            best.extend((from as u32..).zip(similarities).filter(|(_, s)| **s > floor).map(|(row, s)| (*s, row)));
            if best.len() > k {
                best.select_nth_unstable_by(k - 1, closer);
                best.truncate(k);
            }
        }
    }
    best.iter_mut().for_each(|b| b.sort_unstable_by(closer));
    Ok(best)
}

fn closer(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::super::classify::tests::features;
    use super::*;
    use crate::rng::Key;
    use rand_distr::{Distribution, StandardNormal};

    /// Rows around one centre for each class.
    fn clouds(seed: u64, n: usize, width: usize, classes: u32, spread: f32) -> Features {
        let normal = |key: Key, count| StandardNormal.sample_iter(key.rng()).take(count).collect::<Vec<f32>>();
        let centres = normal(Key::new(77), classes as usize * width);
        let labels: Vec<u32> = (0..n as u32).map(|i| (i * 7) % classes).collect();
        let noise = normal(Key::new(seed), n * width);
        let rows = noise.iter().enumerate().map(|(at, v)| centres[labels[at / width] as usize * width + at % width] + spread * v);
        features(rows.collect(), width, &labels)
    }

    fn brute_force(train: &Features, test: &Features, k: usize, temperature: f64, classes: usize) -> (f64, f64) {
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let mut hits = [0, 0];
        for i in 0..test.len() {
            let mut all: Vec<(f64, usize)> = (0..train.len()).map(|j| (cosine(test.row(i), train.row(j)), j)).collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut votes = vec![0.0; classes];
            all[..k].iter().for_each(|(s, j)| votes[train.labels.as_ref().unwrap()[*j] as usize] += (s / temperature).exp());
            let truth = test.labels.as_ref().unwrap()[i] as usize;
            let before = votes.iter().filter(|v| **v > votes[truth]).count();
            hits[0] += usize::from(votes[truth] > 0.0 && before == 0);
            hits[1] += usize::from(votes[truth] > 0.0 && before < 5);
        }
        (hits[0] as f64 / test.len() as f64, hits[1] as f64 / test.len() as f64)
    }

    #[test]
    fn is_brute_force() {
        // Enough rows for several blocks of both kinds.
        let (train, test) = (clouds(1, 9000, 6, 8, 1.0), clouds(2, 300, 6, 8, 1.0));
        for (k, temperature) in [(1, 0.1), (20, 0.1), (150, 0.5)] {
            let found = knn(&train, &test, &Options { k: Some(k), temperature }).unwrap();
            assert_eq!((found.top1, found.top5.unwrap()), brute_force(&train, &test, k, temperature, 8), "k {k}");
            assert!(found.top1 > 0.3 && found.top1 < 0.99);
        }
    }

    #[test]
    fn k_follows_the_smallest_class() {
        let of = |n, classes| knn(&clouds(1, n, 4, classes, 0.1), &clouds(2, 50, 4, classes, 0.1), &Options::default()).unwrap();
        assert_eq!(of(3000, 2).k, 200);
        assert_eq!(of(100, 2).k, 10);
        let small = of(6, 3);
        assert_eq!((small.k, small.top1, small.top5, small.train, small.test, small.classes), (1, 1.0, None, 6, 50, 3));
        let all = Options { k: Some(1000), temperature: 0.1 };
        assert_eq!(knn(&clouds(1, 10, 4, 2, 0.1), &clouds(2, 5, 4, 2, 0.1), &all).unwrap().k, 10);
    }

    #[test]
    fn ties_go_to_the_first_row_and_the_smaller_class() {
        let train = features([1.0, 0.0].repeat(4), 2, &[5, 3, 3, 5]);
        let ask = |label, k| {
            knn(&train, &features(vec![2.0, 0.0], 2, &[label]), &Options { k: Some(k), temperature: 0.1 }).unwrap().top1
        };
        assert_eq!((ask(5, 1), ask(3, 1)), (1.0, 0.0));
        assert_eq!((ask(3, 4), ask(5, 4)), (1.0, 0.0));
        assert_eq!((ask(3, 3), ask(4, 4)), (1.0, 0.0));
    }

    #[test]
    fn threads_do_not_change_the_votes_and_bad_options_are_errors() {
        let (train, test) = (clouds(1, 3000, 6, 8, 1.0), clouds(2, 600, 6, 8, 1.0));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| knn(&train, &test, &Options::default()).unwrap())
        };
        assert_eq!(run(1), run(3));
        for (k, temperature) in [(Some(0), 0.1), (None, 0.0), (None, f64::NAN)] {
            assert_eq!(knn(&train, &test, &Options { k, temperature }).unwrap_err().exit_code(), 2);
        }
        assert!(knn(&train, &Features::default(), &Options::default()).is_err());
    }
}
