//! Embedding tables: the rows that are looked up, and their gradient as rows and as a whole table.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use ctk_kernels::{Cpu, Device, Map};

use super::{emulated, noise};
use crate::nn::cases::NORMAL;
use crate::nn::embedding::row_gradient;
use crate::nn::flow::{Behaviour, Context};
use crate::nn::params::{ParamKind, Params};
use crate::nn::pass::Pass;
use crate::nn::pass::Statistics::Hold;
use crate::nn::rows::Rows;
use crate::nn::{Embedding, Layer, Linear, Sequential, tensors};
use crate::rng::Key;
use crate::world::solo;

const IDS: [u32; 7] = [4, 1, 4, 0, 1, 4, 2];

fn table() -> (Embedding, Params) {
    let mut params = Params::new();
    let table = Embedding::new([6, 3], NORMAL, params.root());
    params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
    (table, params)
}

fn numbers(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// The rows looked up, and the table's gradient for `dy`.
fn run<D: Device>(device: &D, (table, params): &(Embedding, Params), dy: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let behaviour = Behaviour { statistics: Hold, rows: Rows::alone(IDS.len()), key: None };
    let context = Context { device: device.clone(), store: params.gradient_store(), behaviour, keep: true, recompute: false };
    let (y, back) = table.forward::<D, f64>(&IDS, &context).unwrap();
    assert!(back.unwrap()(Arc::new(tensors::to_map(dy, device).unwrap()), true).unwrap().is_none());
    (y.load(), numbers(&params.gradient_store().drain()["weight"].dense(&[6, 3]).unwrap()))
}

#[test]
fn a_tables_gradient_is_candles_on_every_device() {
    let (table, dy) = (table(), noise(&[7, 3], Key::new(2)));
    let oracle = table.0.reference(&IDS).unwrap().flatten_from(1).unwrap();
    let store = (&oracle * &dy).unwrap().sum_all().unwrap().backward().unwrap();
    let dense = numbers(store.get(table.1.iter().next().unwrap().var().as_tensor()).unwrap());
    let here = run(&Cpu::default(), &table, &dy);
    assert_eq!(here.0, numbers(&oracle));
    assert!(here.1.iter().zip(&dense).all(|(a, b)| (a - b).abs() < 1e-14), "{:?} {dense:?}", here.1);
    assert_eq!(here, run(&emulated(), &table, &dy));
    assert!(table.0.reference(&[6]).is_err());
}

#[test]
fn rows_are_unique_ascending_and_summed_in_order() {
    let cpu = Cpu::default();
    let dy: Map<Cpu, f64> = tensors::to_map(&noise(&[7, 3], Key::new(2)), &cpu).unwrap();
    let gradient = row_gradient(&IDS, &dy).unwrap();
    assert_eq!((gradient.ids(), gradient.values().dims()), (&[0, 1, 2, 4][..], &[4, 3][..]));
    let all = dy.load();
    let sum = |rows: &[usize], i: usize| rows.iter().fold(0.0, |sum, row| sum + all[row * 3 + i]);
    let uses: [&[usize]; 4] = [&[3], &[1, 4], &[6], &[0, 2, 5]];
    let expected: Vec<f64> = uses.iter().flat_map(|rows| (0..3).map(|i| sum(rows, i))).collect();
    assert_eq!(numbers(gradient.values()), expected);
    // The number of threads does not change a bit.
    let one = crate::device::with_threads(1, || row_gradient(&IDS, &dy).unwrap()).unwrap();
    assert_eq!(numbers(one.values()), expected);
}

#[test]
fn a_network_reads_ids_as_rows_of_tokens() {
    let mut params = Params::new();
    let mut root = params.root();
    let layers = vec![
        Layer::Embedding(Embedding::new([6, 3], NORMAL, root.sub("table"))),
        Layer::Linear(Linear::new([2, 3], true, ParamKind::Weight, NORMAL, root.sub("linear"))),
    ];
    params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
    let network = || Sequential::new(layers.clone(), params.gradient_store());
    let (fast, oracle) = (network(), network().reference());
    let ids = Tensor::new(&IDS, &candle_core::Device::Cpu).unwrap();
    let rows = Rows::alone(3).with_offsets(vec![0, 2, 3, 7]);
    let run = |net: &Sequential| {
        let (y, tape) = net.forward(&ids, &rows, &Pass::train(Key::new(0), &solo())).unwrap();
        assert!(tape.play(&noise(&[7, 2], Key::new(4)), true).unwrap().is_none());
        let left = params.gradient_store().drain();
        let gradients = params.iter().flat_map(|p| numbers(&left[p.name()].dense(p.dims()).unwrap())).collect::<Vec<f64>>();
        (numbers(&y), gradients)
    };
    let (fast, oracle) = (run(&fast), run(&oracle));
    let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(near(&fast.0, &oracle.0) && near(&fast.1, &oracle.1), "{fast:?} {oracle:?}");
    // Ids where features are read, and the other way round.
    let wrong = Sequential::new(layers[1..].to_vec(), params.gradient_store());
    assert!(wrong.forward(&ids, &rows, &Pass::eval()).is_err());
    let features = noise(&[7, 3], Key::new(5));
    assert!(Sequential::new(layers, params.gradient_store()).forward(&features, &rows, &Pass::eval()).is_err());
}
