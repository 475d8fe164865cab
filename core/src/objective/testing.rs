//! Helpers of the losses' tests: rows, finite differences, and ranks that are threads.

use std::sync::{Arc, Barrier, Mutex};

use candle_core::{DType, Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};

use super::{Inputs, Objective, Terms, attach};
use crate::data::known::Known;
use crate::error::Result;
use crate::model::embeddings::{EmbeddedGradient, Embeddings};
use crate::rng::Key;
use crate::world::{Collective, Gathered, Solo};

/// Normal values (n, d).
pub fn random(seed: u64, n: usize, d: usize) -> Tensor {
    let values: Vec<f64> = StandardNormal.sample_iter(Key::new(seed).of("test rows").rng()).take(n * d).collect();
    Tensor::from_vec(values, (n, d), &Device::Cpu).unwrap()
}

/// sin(i·f + .4) in rows (n, d): values that other programs can reproduce.
pub fn wave(n: usize, d: usize, f: f64) -> Tensor {
    let values: Vec<f64> = (0..n * d).map(|i| (i as f64 * f + 0.4).sin()).collect();
    Tensor::from_vec(values, (n, d), &Device::Cpu).unwrap()
}

/// sin(m·k) in rows (4, 4), k the number of the value from 1 on: the matrices of the goldens of losses for texts.
pub fn sines(m: u32) -> Tensor {
    let values: Vec<f64> = (1..=16).map(|k| f64::from(m * k).sin()).collect();
    Tensor::from_vec(values, (4, 4), &Device::Cpu).unwrap()
}

/// The length of all values as one vector.
pub fn length(x: &Tensor) -> f64 {
    x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// Points of the unit circle at angles in degrees.
pub fn angles(degrees: &[f64]) -> Tensor {
    let values: Vec<f64> = degrees.iter().flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()]).collect();
    Tensor::from_vec(values, (degrees.len(), 2), &Device::Cpu).unwrap()
}

/// Two views without a predictor.
pub fn two(first: &Tensor, second: &Tensor) -> Embeddings {
    Embeddings::of_two(first.clone(), second.clone())
}

/// The terms of an objective for these views.
pub fn terms(
    of: &dyn Objective,
    online: &Embeddings,
    target: Option<&Embeddings>,
    labels: Option<&[u32]>,
    world: &dyn Collective,
) -> Result<Terms> {
    terms_on(&crate::Device::Cpu, of, online, target, labels, world)
}

/// The same with similarities computed on `device`.
pub fn terms_on(
    device: &crate::Device,
    of: &dyn Objective,
    online: &Embeddings,
    target: Option<&Embeddings>,
    labels: Option<&[u32]>,
    world: &dyn Collective,
) -> Result<Terms> {
    let known = Known { labels: labels.map(<[u32]>::to_vec), ..Known::default() };
    terms_of(device, of, online, target, &known, world)
}

/// The terms on the CPU, of a loss without a momentum copy, of samples of which this is known.
pub fn terms_known(of: &dyn Objective, online: &Embeddings, known: &Known, world: &dyn Collective) -> Result<Terms> {
    terms_of(&crate::Device::Cpu, of, online, None, known, world)
}

fn terms_of(
    device: &crate::Device,
    of: &dyn Objective,
    online: &Embeddings,
    target: Option<&Embeddings>,
    known: &Known,
    world: &dyn Collective,
) -> Result<Terms> {
    of.loss(&Inputs { online: &online.leaves()?, target, known, progress: 0.0, device, world })
}

/// The loss with its gradients, as a tensor of a graph that begins at `online`.
pub fn loss(
    of: &dyn Objective,
    online: &Embeddings,
    target: Option<&Embeddings>,
    labels: Option<&[u32]>,
    world: &dyn Collective,
) -> Tensor {
    as_graph(&terms(of, online, target, labels, world).unwrap(), online)
}

/// The same for samples of which this is known, without a momentum copy.
pub fn loss_known(of: &dyn Objective, online: &Embeddings, known: &Known, world: &dyn Collective) -> Tensor {
    as_graph(&terms_known(of, online, known, world).unwrap(), online)
}

fn as_graph(terms: &Terms, online: &Embeddings) -> Tensor {
    let mut gradients = Vec::new();
    for (number, view) in online.views() {
        let EmbeddedGradient { query, key } = &terms.gradients[number];
        gradients.extend(query.clone().map(|g| (&view.query, g)));
        gradients.extend(key.clone().map(|g| (&view.key, g)));
    }
    attach(&terms.loss, &gradients).unwrap()
}

/// The loss of two views on one rank.
pub fn loss_of(of: &dyn Objective, first: &Tensor, second: &Tensor) -> Tensor {
    loss(of, &two(first, second), None, None, &Solo)
}

/// Runs `after_step` with this target.
pub fn after_step(of: &mut dyn Objective, target: Option<&Embeddings>, world: &dyn Collective) -> Result<()> {
    of.after_step(&Inputs {
        online: &Embeddings::default(),
        target,
        known: &Known::default(),
        progress: 0.0,
        device: &crate::Device::Cpu,
        world,
    })
}

/// The gradient of `loss` at `x`; zeros if the loss does not depend on it.
pub fn gradient(x: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let x = Var::from_tensor(x).unwrap();
    let store = loss(&x).backward().unwrap();
    store.get(&x).cloned().unwrap_or_else(|| x.zeros_like().unwrap())
}

/// Asserts that the gradient of `loss` at `x` (f64) is its central difference.
pub fn finite_difference(x: &Tensor, loss: impl Fn(&Tensor) -> Tensor) {
    let found = gradient(x, &loss).flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let start = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let at = |i: usize, h: f64| {
        let mut moved = start.clone();
        moved[i] += h;
        loss(&Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap()).to_scalar::<f64>().unwrap()
    };
    for (i, g) in found.iter().enumerate() {
        let h = 1e-5;
        let expected = (at(i, h) - at(i, -h)) / (2.0 * h);
        assert!((g - expected).abs() < 1e-7 * (1.0 + expected.abs()), "value {i}: {g}, by difference {expected}");
    }
}

/// [`finite_difference`] of a loss of two sides, with respect to each of them.
pub fn both_differences(left: &Tensor, right: &Tensor, loss: impl Fn(&Tensor, &Tensor) -> Tensor) {
    finite_difference(left, |x| loss(x, right));
    finite_difference(right, |x| loss(left, x));
}

/// Asserts that two ranks give the gradient of one rank with all six pairs, within `tolerance`, also for unequal shares.
pub fn two_ranks_are_one(tolerance: f64, loss: impl Fn(&Tensor, &Tensor, &dyn Collective) -> Tensor + Sync) {
    let (left, right) = (random(1, 6, 3), random(2, 6, 3));
    let whole = gradient(&left, |x| loss(x, &right, &Solo));
    // Ranks of three and three, and of four and two.
    for cut in [3, 4] {
        let found = ranks(2, |world| {
            let own = |t: &Tensor| if world.rank() == 0 { t.narrow(0, 0, cut) } else { t.narrow(0, cut, 6 - cut) };
            gradient(&own(&left).unwrap(), |x| loss(x, &own(&right).unwrap(), world))
        });
        assert!(distance(&Tensor::cat(&found, 0).unwrap(), &whole) < tolerance, "cut at {cut}");
    }
}

/// Asserts that two ranks have the loss and the gradients of one rank with all six rows of each of `views`, of which `known` is known.
pub fn two_ranks_of_views_are_one(tolerance: f64, of: &(impl Objective + Sync), views: &[Tensor], known: &Known) {
    let embeddings =
        |of: &dyn Fn(&Tensor) -> Tensor| Embeddings::new(views.len(), views.iter().map(|view| Some(of(view).into())).collect());
    let whole = terms_known(of, &embeddings(&Tensor::clone), known, &Solo).unwrap();
    for cut in [3, 4] {
        let found = ranks(2, |world| {
            let own = [0..cut, cut..6][world.rank()].clone();
            let rows = embeddings(&|view| view.narrow(0, own.start, own.len()).unwrap());
            let known = Known {
                labels: known.labels.as_ref().map(|labels| labels[own.clone()].to_vec()),
                scores: known.scores.as_ref().map(|scores| scores[own.clone()].to_vec()),
                contents: known.contents.iter().map(|view| view[own.clone()].to_vec()).collect(),
            };
            let terms = terms_known(of, &rows, &known, world).unwrap();
            (terms.loss, terms.gradients.into_iter().map(|view| view.query.unwrap()).collect::<Vec<_>>())
        });
        assert!(found.iter().all(|(loss, _)| distance(loss, &whole.loss) < tolerance), "cut at {cut}");
        for view in 0..views.len() {
            let all = Tensor::cat(&[&found[0].1[view], &found[1].1[view]], 0).unwrap();
            let off = distance(&all, whole.gradients[view].query.as_ref().unwrap());
            assert!(off < tolerance, "cut at {cut}, view {view}: {off:e}");
        }
    }
}

/// The largest difference between two tensors' values.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// The results of every rank's `work`, in rank order; ranks are threads that meet at a barrier.
pub fn ranks<T: Send>(world: usize, work: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    ranks_of_process(world, |world| work(&*world))
}

/// The same for work that keeps its world.
pub fn ranks_of_process<T: Send>(world: usize, work: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let meeting = Arc::new(Meeting { barrier: Barrier::new(world), slots: Mutex::new(vec![None; world]) });
    std::thread::scope(|scope| {
        let (meeting, work) = (&meeting, &work);
        let spawn = |rank| scope.spawn(move || work(Arc::new(Rank { rank, world, meeting: meeting.clone() })));
        let threads: Vec<_> = (0..world).map(spawn).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

struct Meeting {
    barrier: Barrier,
    slots: Mutex<Vec<Option<Tensor>>>,
}

struct Rank {
    rank: usize,
    world: usize,
    meeting: Arc<Meeting>,
}

impl Rank {
    fn exchange(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        self.meeting.slots.lock().unwrap()[self.rank] = Some(tensor.detach().copy()?);
        self.meeting.barrier.wait();
        let all = self.meeting.slots.lock().unwrap().iter().flatten().cloned().collect();
        self.meeting.barrier.wait();
        Ok(all)
    }
}

impl Collective for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn gather(&self, rows: &Tensor) -> Result<Gathered> {
        let all = self.exchange(rows)?;
        let first = all[..self.rank].iter().map(|rows| rows.dims()[0]).sum();
        Ok(Gathered { rows: Tensor::cat(&all, 0)?, first })
    }

    fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
        let all = self.exchange(tensor)?;
        all[1..].iter().try_fold(all[0].clone(), |sum, t| Ok((sum + t)?))
    }
}
