//! What the losses' tests share: rows, finite differences, and ranks that are threads.

use std::sync::{Barrier, Mutex};

use candle_core::{DType, Device, Tensor, Var};
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::model::tower::Side;
use crate::nn::pass::Pass;
use crate::rng::Key;
use crate::world::Collective;

/// Normal values (n, d).
pub fn random(seed: u64, n: usize, d: usize) -> Tensor {
    let values: Vec<f64> = StandardNormal.sample_iter(Key::new(seed).of("test rows").rng()).take(n * d).collect();
    Tensor::from_vec(values, (n, d), &Device::Cpu).unwrap()
}

/// sin(i·f + .4) in rows (n, d): numbers that any program can make again.
pub fn wave(n: usize, d: usize, f: f64) -> Tensor {
    let values: Vec<f64> = (0..n * d).map(|i| (i as f64 * f + 0.4).sin()).collect();
    Tensor::from_vec(values, (n, d), &Device::Cpu).unwrap()
}

/// Points of the unit circle at angles in degrees.
pub fn angles(degrees: &[f64]) -> Tensor {
    let values: Vec<f64> = degrees.iter().flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()]).collect();
    Tensor::from_vec(values, (degrees.len(), 2), &Device::Cpu).unwrap()
}

/// A side without a predictor.
pub fn side(rows: Tensor) -> Side {
    Side { query: rows.clone(), key: rows }
}

/// The gradient of `loss` at `x`; zeros where it does not depend on it.
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

/// [`finite_difference`] of a loss of two sides, by either of them.
pub fn both_differences(left: &Tensor, right: &Tensor, loss: impl Fn(&Tensor, &Tensor) -> Tensor) {
    finite_difference(left, |x| loss(x, right));
    finite_difference(right, |x| loss(left, x));
}

/// Asserts that two ranks with three pairs each have the gradient of one with all six, within `tolerance`.
pub fn two_ranks_are_one(tolerance: f64, loss: impl Fn(&Tensor, &Tensor, &Pass) -> Tensor + Sync) {
    let (left, right) = (random(1, 6, 3), random(2, 6, 3));
    let found = ranks(2, |world| {
        let own = |t: &Tensor| t.narrow(0, 3 * world.rank(), 3).unwrap();
        gradient(&own(&left), |x| loss(x, &own(&right), &Pass::train(Key::new(0), world)))
    });
    let whole = gradient(&left, |x| loss(x, &right, &Pass::eval()));
    assert!(distance(&Tensor::cat(&found, 0).unwrap(), &whole) < tolerance);
}

/// The largest difference between two tensors' values.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// What every rank's `work` gives, in rank order; ranks are threads that meet at a barrier.
pub fn ranks<T: Send>(world: usize, work: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    let meeting = Meeting { barrier: Barrier::new(world), slots: Mutex::new(vec![None; world]) };
    std::thread::scope(|scope| {
        let (meeting, work) = (&meeting, &work);
        let threads: Vec<_> = (0..world).map(|rank| scope.spawn(move || work(&Rank { rank, world, meeting }))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

struct Meeting {
    barrier: Barrier,
    slots: Mutex<Vec<Option<Tensor>>>,
}

struct Rank<'a> {
    rank: usize,
    world: usize,
    meeting: &'a Meeting,
}

impl Rank<'_> {
    fn exchange(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        self.meeting.slots.lock().unwrap()[self.rank] = Some(tensor.detach().copy()?);
        self.meeting.barrier.wait();
        let all = self.meeting.slots.lock().unwrap().iter().flatten().cloned().collect();
        self.meeting.barrier.wait();
        Ok(all)
    }
}

impl Collective for Rank<'_> {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(&self.exchange(rows)?, 0)?)
    }

    fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
        let all = self.exchange(tensor)?;
        all[1..].iter().try_fold(all[0].clone(), |sum, t| Ok((sum + t)?))
    }
}
