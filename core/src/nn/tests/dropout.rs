//! Dropout: kernels and reference drop the same values, gradients equal finite differences, and parts of a step drop what the whole drops.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use ctk_kernels::{Cpu, Device, Map};

use super::{emulated, noise, relative};
use crate::nn::cases::{NORMAL, conv};
use crate::nn::flow::{Activation, Behaviour, Chain as _, Context, backward};
use crate::nn::params::{ParamKind, Params};
use crate::nn::pass::Statistics::Hold;
use crate::nn::rows::Rows;
use crate::nn::{Dropout, Layer, Linear, Residual, tensors};
use crate::rng::Key;

/// Rows of so many samples in two views, one view after the other.
fn rows(samples: u32) -> Rows {
    Rows::new(0..samples, &[0, 1], 0..samples)
}

fn behaviour(rows: Rows, step: u64) -> Behaviour {
    Behaviour { statistics: Hold, rows, key: Some(Key::new(5).at(step)) }
}

fn network() -> (Vec<Layer>, Params) {
    let mut params = Params::new();
    let mut root = params.root();
    let drop = |name| Layer::Dropout(Dropout::new(name, 0.4).unwrap());
    let body = vec![conv([3, 3], 3, 1, 1, root.sub("a")), drop("body")];
    let layers = vec![
        Layer::Residual(Residual::new(body, vec![])),
        drop("maps"),
        Layer::GlobalAverage,
        Layer::Linear(Linear::new([5, 3], true, ParamKind::Weight, NORMAL, root.sub("b"))),
        drop("features"),
    ];
    params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
    (layers, params)
}

struct Outcome {
    y: Tensor,
    dx: Tensor,
}

fn run<D: Device>(
    device: &D,
    (layers, params): &(Vec<Layer>, Params),
    x: &Tensor,
    behaviour: Behaviour,
    recompute: bool,
) -> Outcome {
    let context = Context { device: device.clone(), store: params.gradient_store(), behaviour, keep: true, recompute };
    let input: Map<D, f64> = tensors::to_map(x, device).unwrap();
    let (y, tape) = layers.forward(Activation::from(Arc::new(input)), &context).unwrap();
    let y = y.plain();
    let dy = Map::store(y.shape(), &vec![1.0; y.rows() * y.c], device);
    let dx = backward(tape.unwrap(), Arc::new(dy), true).unwrap().unwrap();
    let tensor = |map: &Map<D, f64>| tensors::from_vec(map.load(), &map.shape()[..]).unwrap();
    Outcome { y: tensor(&y), dx: tensor(&dx) }
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn all_roads_drop_the_same_numbers() {
    let (net, x) = (network(), noise(&[6, 4, 5, 3], Key::new(2)));
    let here = run(&Cpu::default(), &net, &x, behaviour(rows(3), 0), false);
    let oracle = net.0.reference(&x, &behaviour(rows(3), 0)).unwrap();
    assert!(relative(&here.y, &oracle) < 1e-12);
    assert_eq!(numbers(&here.y).iter().filter(|v| **v == 0.0).count(), numbers(&oracle).iter().filter(|v| **v == 0.0).count());
    for (device, recompute) in [(emulated(), false), (emulated(), true)] {
        let there = run(&device, &net, &x, behaviour(rows(3), 0), recompute);
        assert!(relative(&here.y, &there.y) < 1e-12 && relative(&here.dx, &there.dx) < 1e-12);
        let dropped = |y: &Tensor| numbers(y).iter().map(|v| *v == 0.0).collect::<Vec<_>>();
        assert_eq!((dropped(&here.y), dropped(&here.dx)), (dropped(&there.y), dropped(&there.dx)));
    }
    // Another step drops other values; without draws nothing is dropped.
    let next = run(&Cpu::default(), &net, &x, behaviour(rows(3), 1), false);
    assert_ne!(numbers(&here.y), numbers(&next.y));
    let all = run(&Cpu::default(), &net, &x, Behaviour { key: None, ..behaviour(rows(3), 0) }, false);
    assert!(numbers(&all.y).iter().all(|&v| v != 0.0));
    net.1.gradient_store().drain();
}

#[test]
fn its_gradient_is_finite_differences() {
    let (net, x) = (network(), noise(&[4, 3, 3, 3], Key::new(3)));
    let outcome = run(&Cpu::default(), &net, &x, behaviour(rows(2), 0), false);
    let (before, gradient) = (numbers(&x), numbers(&outcome.dx));
    for i in (0..before.len()).step_by(7) {
        let at = |step: f64| {
            let mut moved = before.clone();
            moved[i] += step;
            let x = Tensor::from_vec(moved, x.dims(), x.device()).unwrap();
            numbers(&run(&Cpu::default(), &net, &x, behaviour(rows(2), 0), false).y).iter().sum::<f64>()
        };
        let numeric = (at(1e-6) - at(-1e-6)) / 2e-6;
        assert!((numeric - gradient[i]).abs() < 1e-6 * (1.0 + numeric.abs()), "{i}: {numeric} and {}", gradient[i]);
    }
    net.1.gradient_store().drain();
}

#[test]
fn parts_of_a_step_drop_what_the_whole_drops() {
    let (net, x, all) = (network(), noise(&[8, 4, 4, 3], Key::new(4)), rows(4));
    let whole = run(&Cpu::default(), &net, &x, behaviour(all.clone(), 0), false);
    let parts: [&[u32]; 4] = [&[7, 0], &[1, 6, 5], &[2], &[4, 3]];
    for part in parts {
        let which = Tensor::from_slice(part, part.len(), x.device()).unwrap();
        let own = |t: &Tensor| numbers(&t.index_select(&which, 0).unwrap());
        let outcome = run(&Cpu::default(), &net, &x.index_select(&which, 0).unwrap(), behaviour(all.pick(part), 0), false);
        assert_eq!((numbers(&outcome.y), numbers(&outcome.dx)), (own(&whole.y), own(&whole.dx)));
    }
    net.1.gradient_store().drain();
}

#[test]
fn rows_that_nobody_knows_are_an_error() {
    assert!(Dropout::new("a", 1.0).is_err() && Dropout::new("a", -0.1).is_err() && Dropout::new("a", f64::NAN).is_err());
    let (layers, params) = network();
    let context = Context {
        device: Cpu::default(),
        store: params.gradient_store(),
        behaviour: behaviour(rows(2), 0),
        keep: false,
        recompute: false,
    };
    let input: Map<Cpu, f64> = Map::store([3, 1, 1, 3], &[0.0; 9], &context.device);
    let error = layers.forward(Activation::from(Arc::new(input)), &context).err().unwrap().to_string();
    assert!(error.contains("4 are known"), "{error}");
}
