//! Every layer against two judges: the same layer in candle's operations (all gradients, f64), and finite differences.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use rand::Rng as _;

use super::*;
use crate::nn::params::{Init, Kind, Params, Scope};
use crate::nn::pass::Statistics::{self, Frozen, Hold, Update};
use crate::rng::Key;
use crate::world::Solo;

const NORMAL: Init = Init::Normal { std: 0.5 };

/// A network and an input to judge it on.
struct Case {
    name: &'static str,
    build: fn(Scope) -> Vec<Layer>,
    input: &'static [usize],
}

fn conv([o, i]: [usize; 2], kernel: usize, stride: usize, padding: usize, scope: Scope) -> Layer {
    Layer::Conv2d(Conv2d::new([o, i], kernel, stride, padding, NORMAL, scope))
}

fn cases() -> Vec<Case> {
    let case = |name, input, build| Case { name, build, input };
    vec![
        case("conv 3×3", &[2, 5, 4, 3], |mut s| vec![conv([5, 3], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, odd", &[2, 7, 5, 3], |mut s| vec![conv([4, 3], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, even", &[3, 6, 8, 2], |mut s| vec![conv([4, 2], 3, 2, 1, s.sub("a"))]),
        case("conv 1×1", &[3, 4, 5, 6], |mut s| vec![conv([2, 6], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 stride 2", &[2, 5, 4, 3], |mut s| vec![conv([4, 3], 1, 2, 0, s.sub("a"))]),
        case("conv 7×7 stride 2 of a small image", &[1, 3, 2, 3], |mut s| vec![conv([4, 3], 7, 2, 3, s.sub("a"))]),
        case("conv 3×3 of one pixel", &[1, 1, 1, 2], |mut s| vec![conv([3, 2], 3, 1, 1, s.sub("a"))]),
        case("conv 2×2, padding as wide as the kernel", &[1, 3, 3, 2], |mut s| vec![conv([2, 2], 2, 1, 2, s.sub("a"))]),
        case("conv of many blocks", &[2, 40, 41, 2], |mut s| vec![conv([3, 2], 3, 1, 1, s.sub("a"))]),
        case("winograd of odd maps", &[2, 9, 13, 24], |mut s| vec![conv([40, 24], 3, 1, 1, s.sub("a"))]),
        case("winograd of one image", &[1, 16, 16, 80], |mut s| vec![conv([72, 80], 3, 1, 1, s.sub("a"))]),
        case("winograd of many bands", &[3, 40, 41, 8], |mut s| vec![conv([17, 8], 3, 1, 1, s.sub("a"))]),
        case("winograd with large weights", &[1, 12, 13, 160], |mut s| vec![conv([192, 160], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 of 2×2 maps", &[5, 2, 2, 24], |mut s| vec![conv([80, 24], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 of pixels", &[3, 1, 1, 20], |mut s| vec![conv([33, 20], 3, 1, 1, s.sub("a"))]),
        case("conv 3×3 stride 2, wide", &[3, 9, 7, 40], |mut s| vec![conv([72, 40], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 2 of many blocks", &[2, 40, 38, 9], |mut s| vec![conv([136, 9], 3, 2, 1, s.sub("a"))]),
        case("conv 3×3 stride 3, no padding", &[2, 11, 8, 5], |mut s| vec![conv([4, 5], 3, 3, 0, s.sub("a"))]),
        case("conv 5×5", &[2, 6, 5, 7], |mut s| vec![conv([9, 7], 5, 1, 2, s.sub("a"))]),
        case("conv 7×7 stride 2", &[2, 19, 17, 3], |mut s| vec![conv([24, 3], 7, 2, 3, s.sub("a"))]),
        case("conv 1×1 of few pixels", &[2, 3, 3, 40], |mut s| vec![conv([136, 40], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 of many pixels", &[3, 20, 31, 24], |mut s| vec![conv([72, 24], 1, 1, 0, s.sub("a"))]),
        case("conv 1×1 stride 2, wide", &[3, 15, 15, 24], |mut s| vec![conv([72, 24], 1, 2, 0, s.sub("a"))]),
        case("linear", &[4, 3], |mut s| vec![Layer::Linear(Linear::new([5, 3], true, Kind::Weight, NORMAL, s.sub("a")))]),
        case("linear of one row", &[1, 3], |mut s| {
            vec![Layer::Linear(Linear::new([2, 3], false, Kind::Weight, NORMAL, s.sub("a")))]
        }),
        case("norm", &[2, 3, 2, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::new(3, 1.5, s.sub("a")))]),
        case("norm + relu", &[3, 3, 2, 5], |mut s| vec![Layer::BatchNorm(BatchNorm::new(5, 0.7, s.sub("a")).relu())]),
        case("norm of many blocks", &[2, 70, 80, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("a")).relu())]),
        case("norm of features, no bias", &[4, 3], |mut s| vec![Layer::BatchNorm(BatchNorm::without_bias(3, s.sub("a")))]),
        case("relu", &[2, 3, 3, 2], |_| vec![Layer::Relu]),
        case("max-pool 3/2", &[2, 7, 6, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1)))]),
        case("max-pool 3/2 same", &[2, 6, 5, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Same))]),
        case("max-pool 2/2", &[1, 4, 5, 3], |_| vec![Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))]),
        case("max-pool of one pixel", &[1, 1, 1, 2], |_| vec![Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1)))]),
        case("mean-pool 2/2, padded below", &[2, 5, 4, 2], |_| vec![Layer::AvgPool(AvgPool::new(2, 2, Padding::After(1), true))]),
        case("mean-pool 2/1 same", &[2, 4, 3, 2], |_| vec![Layer::AvgPool(AvgPool::new(2, 1, Padding::Same, false))]),
        case("global average", &[2, 3, 5, 4], |_| vec![Layer::GlobalAverage]),
        case("select", &[3, 2, 3, 8], |mut s| vec![select(4, s.sub("gate"))]),
        case("identity block", &[2, 3, 3, 3], |mut s| {
            let body = vec![conv([3, 3], 3, 1, 1, s.sub("a")), Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("b")))];
            vec![Layer::Residual(Residual { body, shortcut: vec![] })]
        }),
        case("tiles and norms", &[3, 11, 9, 9], |mut s| {
            let body = vec![
                conv([24, 9], 3, 1, 1, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("b")).relu()),
                conv([17, 24], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(17, 0.5, s.sub("d"))),
            ];
            let shortcut = vec![conv([17, 9], 1, 1, 0, s.sub("e")), Layer::BatchNorm(BatchNorm::new(17, 1.0, s.sub("f")))];
            vec![
                Layer::Residual(Residual { body, shortcut }),
                conv([16, 17], 3, 1, 1, s.sub("g")),
                Layer::BatchNorm(BatchNorm::without_bias(16, s.sub("h"))),
                conv([8, 16], 3, 1, 1, s.sub("i")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("j")).relu()),
            ]
        }),
        case("bottleneck", &[2, 8, 9, 24], |mut s| {
            let body = vec![
                conv([8, 24], 1, 1, 0, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("b")).relu()),
                conv([8, 8], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("d")).relu()),
                conv([24, 8], 1, 1, 0, s.sub("e")),
                Layer::BatchNorm(BatchNorm::new(24, 0.5, s.sub("f"))),
            ];
            vec![
                Layer::Residual(Residual { body, shortcut: vec![] }),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("g")).relu()),
                Layer::BatchNorm(BatchNorm::new(24, 1.0, s.sub("h"))),
                Layer::Relu,
                Layer::GlobalAverage,
            ]
        }),
        case("small network", &[3, 9, 8, 3], |mut s| {
            let mut layers = vec![
                conv([4, 3], 3, 1, 1, s.sub("stem")),
                Layer::BatchNorm(BatchNorm::new(4, 1.0, s.sub("bn")).relu()),
                Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1))),
            ];
            let body = vec![
                conv([6, 4], 3, 2, 1, s.sub("a")),
                Layer::BatchNorm(BatchNorm::new(6, 1.0, s.sub("b")).relu()),
                conv([6, 6], 3, 1, 1, s.sub("c")),
                Layer::BatchNorm(BatchNorm::new(6, 0.5, s.sub("d"))),
            ];
            let shortcut = vec![conv([6, 4], 1, 2, 0, s.sub("e")), Layer::BatchNorm(BatchNorm::new(6, 1.0, s.sub("f")))];
            layers.push(Layer::Residual(Residual { body, shortcut }));
            layers.push(Layer::Residual(Residual { body: vec![conv([6, 6], 3, 1, 1, s.sub("g"))], shortcut: vec![] }));
            layers.push(Layer::GlobalAverage);
            layers.push(Layer::Linear(Linear::new([3, 6], true, Kind::Weight, NORMAL, s.sub("h"))));
            layers
        }),
    ]
}

fn select(f: usize, mut s: Scope) -> Layer {
    let gate = vec![
        conv([3, f], 1, 1, 0, s.sub("a")),
        Layer::BatchNorm(BatchNorm::new(3, 1.0, s.sub("b")).relu()),
        conv([2 * f, 3], 1, 1, 0, s.sub("c")),
    ];
    Layer::Select(Select { gate })
}

fn noise(dims: &[usize], key: Key) -> Tensor {
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

struct Outcome {
    y: Tensor,
    /// Of the input, of every trained parameter, and the running statistics afterwards.
    named: HashMap<String, Tensor>,
}

/// One forward and backward of Σ y·weights, in `dtype`, by the kernels or by the graph.
fn run(case: &Case, dtype: DType, exact: bool, statistics: Statistics) -> Outcome {
    run_at(case, dtype, exact, statistics, Precision::F32)
}

fn run_at(case: &Case, dtype: DType, exact: bool, statistics: Statistics, precision: Precision) -> Outcome {
    pass(case, dtype, exact, Pass::train(Key::new(0), &Solo).with(statistics).at(precision))
}

fn pass(case: &Case, dtype: DType, exact: bool, pass: Pass) -> Outcome {
    let (params, x) = materials(case, dtype);
    let net = params.1.exact(exact);
    let (params, x) = (params.0, Var::from_tensor(&x).unwrap());
    let y = net.forward(x.as_tensor(), &pass).unwrap();
    let weights = noise(y.dims(), Key::new(2)).to_dtype(dtype).unwrap();
    let store = (&y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    let mut named = HashMap::from([("input".to_string(), store.get(x.as_tensor()).unwrap().clone())]);
    for (p, g) in params.iter().zip(params.gradients(&store).unwrap()) {
        let value = if p.kind().trained() {
            g.unwrap_or_else(|| panic!("{} has no gradient", p.name()))
        } else {
            p.var().as_detached_tensor()
        };
        assert_eq!(value.dims(), p.dims());
        named.insert(p.name().to_string(), value);
    }
    Outcome { y, named }
}

/// The case's network with random parameters (also where the initial values are constants), and its input.
fn materials(case: &Case, dtype: DType) -> ((Params, Sequential), Tensor) {
    let mut params = Params::new();
    let layers = (case.build)(params.root());
    let net = Sequential::new(layers, params.sink());
    params.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
    for p in params.iter() {
        let change = (noise(p.dims(), Key::new(3).of(p.name())) * 0.3).unwrap();
        p.var().set(&(p.var().as_tensor() + change).unwrap()).unwrap();
    }
    let values: HashMap<_, _> = params.iter().map(|p| (p.name().to_string(), p.var().as_tensor().copy().unwrap())).collect();
    // The same numbers, in the type that was asked for.
    let mut typed = Params::new();
    let layers = (case.build)(typed.root());
    drop(net);
    let net = Sequential::new(layers, typed.sink());
    typed.materialise(Key::new(1), dtype, &Device::Cpu).unwrap();
    for p in typed.iter() {
        p.var().set(&values[p.name()].to_dtype(dtype).unwrap()).unwrap();
    }
    ((typed, net), noise(case.input, Key::new(4)).to_dtype(dtype).unwrap())
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let norm = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    assert_eq!(a.dims(), b.dims());
    norm((wide(a) - wide(b)).unwrap()) / (norm(wide(b)) + 1e-3)
}

fn assert_close(case: &Case, a: &Outcome, b: &Outcome, tolerance: f64) {
    assert!(relative(&a.y, &b.y) <= tolerance, "{}: output off by {:e}", case.name, relative(&a.y, &b.y));
    for (name, value) in &a.named {
        let off = relative(value, &b.named[name]);
        assert!(off <= tolerance, "{}: {name} off by {off:e}", case.name);
    }
}

#[test]
fn kernels_and_graph_agree() {
    for case in cases() {
        for statistics in [Update, Hold, Frozen] {
            let graph = run(&case, DType::F64, true, statistics);
            assert_close(&case, &run(&case, DType::F64, false, statistics), &graph, 1e-9);
            assert_close(&case, &run(&case, DType::F32, false, statistics), &graph, 1e-5);
        }
    }
}

#[test]
fn blocks_that_run_once_more_give_the_same_bits() {
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for case in cases() {
        for precision in [Precision::F32, Precision::Bf16] {
            for statistics in [Update, Hold, Frozen] {
                let once = Pass::train(Key::new(0), &Solo).with(statistics).at(precision);
                let (kept, again) = (pass(&case, DType::F32, false, once), Pass { recompute: true, ..once });
                let again = pass(&case, DType::F32, false, again);
                assert_eq!(bits(&kept.y), bits(&again.y), "{}: output", case.name);
                for (name, value) in &kept.named {
                    assert_eq!(bits(value), bits(&again.named[name]), "{}: {name}", case.name);
                }
            }
        }
    }
}

#[test]
fn mixed_precision_is_near() {
    for case in cases() {
        // In a chain, ReLUs of values near 0 fall on the other side, and what comes back through them is not near.
        let chain = ["tiles and norms", "bottleneck", "small network"].contains(&case.name);
        for statistics in [Update, Frozen] {
            let graph = run(&case, DType::F64, true, statistics);
            let mixed = run_at(&case, DType::F32, false, statistics, Precision::Bf16);
            assert!(relative(&mixed.y, &graph.y) <= 2e-2, "{}: output off by {:e}", case.name, relative(&mixed.y, &graph.y));
            for (name, value) in &mixed.named {
                let off = relative(value, &graph.named[name]);
                assert!(off <= if chain { 0.4 } else { 2e-2 }, "{}: {name} off by {off:e}", case.name);
            }
        }
    }
}

#[test]
fn gradients_are_finite_differences() {
    for case in cases().iter().filter(|c| c.input.iter().product::<usize>() < 1000) {
        for statistics in [Update, Hold, Frozen] {
            check_differences(case, statistics);
        }
    }
}

/// Moves each of a few numbers of the input and of every parameter a little both ways.
fn check_differences(case: &Case, statistics: Statistics) {
    let analytic = run(case, DType::F64, false, statistics);
    let ((params, net), x) = materials(case, DType::F64);
    // Differences are taken of a function without side effects.
    let pass = Pass::eval().with(if statistics == Update { Hold } else { statistics });
    let x = Var::from_tensor(&x).unwrap();
    let mut places: Vec<(String, Var)> = vec![("input".into(), x.clone())];
    places.extend(params.iter().filter(|p| p.kind().trained()).map(|p| (p.name().to_string(), p.var().clone())));
    for (name, var) in places {
        let before = var.as_tensor().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let gradient = analytic.named[&name].flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for i in (0..before.len()).step_by(before.len().div_ceil(12)) {
            let at = |step: f64| {
                let mut moved = before.clone();
                moved[i] += step;
                var.set(&Tensor::from_vec(moved, var.dims(), &Device::Cpu).unwrap()).unwrap();
                let y = net.forward(x.as_tensor(), &pass).unwrap();
                let weights = noise(y.dims(), Key::new(2));
                (y * weights).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let step = 1e-6;
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            at(0.0);
            let off = (numeric - gradient[i]).abs() / (1.0 + numeric.abs());
            assert!(off < 1e-6, "{} ({statistics:?}): d/d{name}[{i}] is {} and should be {numeric}", case.name, gradient[i]);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let cases = [
        Case {
            name: "wide",
            input: &[3, 17, 15, 24],
            build: |mut s| {
                let body = vec![
                    conv([40, 24], 3, 2, 1, s.sub("a")),
                    Layer::BatchNorm(BatchNorm::new(40, 1.0, s.sub("b")).relu()),
                    conv([40, 40], 3, 1, 1, s.sub("c")),
                    Layer::BatchNorm(BatchNorm::new(40, 1.0, s.sub("d"))),
                ];
                let shortcut = vec![conv([40, 24], 1, 2, 0, s.sub("e")), Layer::BatchNorm(BatchNorm::new(40, 1.0, s.sub("f")))];
                vec![
                    Layer::Residual(Residual { body, shortcut }),
                    Layer::MaxPool(MaxPool::new(3, 2, Padding::Both(1))),
                    Layer::GlobalAverage,
                ]
            },
        },
        Case {
            name: "tiles",
            input: &[9, 17, 15, 40],
            build: |mut s| {
                vec![
                    conv([72, 40], 3, 1, 1, s.sub("a")),
                    conv([160, 72], 1, 1, 0, s.sub("b")),
                    conv([192, 160], 3, 1, 1, s.sub("c")),
                    Layer::BatchNorm(BatchNorm::new(192, 1.0, s.sub("d")).relu()),
                ]
            },
        },
        Case {
            name: "long",
            input: &[4, 60, 61, 5],
            build: |mut s| {
                vec![
                    conv([8, 5], 3, 1, 1, s.sub("a")),
                    Layer::BatchNorm(BatchNorm::new(8, 1.0, s.sub("b")).relu()),
                    select(4, s.sub("c")),
                ]
            },
        },
    ];
    for case in cases {
        let bits = |threads, precision| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let outcome = pool.install(|| run_at(&case, DType::F32, false, Update, precision));
            let mut all: Vec<(String, Vec<u32>)> = outcome.named.iter().map(|(n, t)| (n.clone(), to_bits(t))).collect();
            all.push(("output".into(), to_bits(&outcome.y)));
            all.sort();
            all
        };
        for precision in [Precision::F32, Precision::Bf16] {
            let one = bits(1, precision);
            for threads in [2, 3, 8] {
                assert_eq!(one, bits(threads, precision), "{} with {threads} threads in {precision:?}", case.name);
            }
        }
    }
}

/// Runs this program's tests again with other vector instructions: they are chosen once a process.
#[test]
fn every_instruction_set_agrees() {
    for isa in ["avx512", "avx2", "portable"] {
        let tests = [
            "kernels_and_graph_agree",
            "mixed_precision_is_near",
            "threads_do_not_change_a_bit",
            "a_network_that_diverged_is_seen",
        ];
        let names = tests.map(|name| format!("nn::tests::{name}"));
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        let output = program.args(names).arg("--exact").env("CTK_ISA", isa).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("4 passed"), "{isa}: {said}");
    }
}

fn to_bits(t: &Tensor) -> Vec<u32> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

#[test]
fn running_statistics_are_pytorchs() {
    let mut params = Params::new();
    let norm = BatchNorm::new(1, 1.0, params.root());
    let net = Sequential::new(vec![Layer::BatchNorm(norm)], params.sink());
    params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
    let x = Tensor::new(&[[1f64], [2.0], [6.0]], &Device::Cpu).unwrap();
    let running = || {
        ["running_mean", "running_var"].map(|n| params.iter().find(|p| p.name() == n).unwrap().var().to_vec1::<f64>().unwrap()[0])
    };
    // A calibrating pass: no tape, but the statistics move. Mean 3, unbiased variance (4 + 1 + 9) / 2 = 7.
    let y = net.forward(&x, &Pass::eval().with(Update)).unwrap();
    assert!(!y.track_op());
    let [mean, variance] = running();
    assert!((mean - 0.3).abs() < 1e-15 && (variance - (0.9 + 0.7)).abs() < 1e-15);
    net.forward(&x, &Pass::eval().with(Hold)).unwrap();
    net.forward(&x, &Pass::eval()).unwrap();
    assert_eq!(running(), [mean, variance]);
    net.forward(&x, &Pass::train(Key::new(0), &Solo)).unwrap();
    let [mean, variance] = running();
    assert!((mean - 0.57).abs() < 1e-15 && (variance - (1.44 + 0.7)).abs() < 1e-15);
}

#[test]
fn statistics_keep_their_digits_far_from_zero() {
    let mut params = Params::new();
    let net = Sequential::new(vec![Layer::BatchNorm(BatchNorm::new(2, 1.0, params.root()))], params.sink());
    params.materialise(Key::new(0), DType::F32, &Device::Cpu).unwrap();
    let x = (noise(&[5000, 2], Key::new(1)).to_dtype(DType::F32).unwrap() + 1000.0).unwrap();
    let y = net.forward(&x, &Pass::eval().with(Hold)).unwrap().to_dtype(DType::F64).unwrap();
    let mean = y.mean(0).unwrap();
    let variance = y.broadcast_sub(&mean).unwrap().sqr().unwrap().mean(0).unwrap();
    for (mean, variance) in mean.to_vec1::<f64>().unwrap().into_iter().zip(variance.to_vec1::<f64>().unwrap()) {
        assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }
}

#[test]
fn equal_maxima_give_the_first_the_gradient() {
    for exact in [false, true] {
        let net = Sequential::new(vec![Layer::Relu, Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))], Params::new().sink())
            .exact(exact);
        let x = Var::new(&[[[[3f64], [3.0]], [[3.0], [1.0]]], [[[0.0], [-1.0]], [[-2.0], [0.0]]]], &Device::Cpu).unwrap();
        let y = net.forward(x.as_tensor(), &Pass::train(Key::new(0), &Solo)).unwrap();
        let dx = y.sum_all().unwrap().backward().unwrap().get(x.as_tensor()).unwrap().flatten_all().unwrap();
        // The second image's maximum is relu(0), whose derivative is 0.
        assert_eq!(dx.to_vec1::<f64>().unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn misuse_is_an_error() {
    let mut params = Params::new();
    let mut root = params.root();
    let layers = vec![conv([2, 3], 3, 1, 1, root.sub("a")), Layer::BatchNorm(BatchNorm::new(2, 1.0, root.sub("b")))];
    let net = Sequential::new(layers, params.sink());
    params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
    let train = Pass::train(Key::new(0), &Solo);
    let what = |dims: &[usize], pass: &Pass| net.forward(&noise(dims, Key::new(0)), pass).unwrap_err().to_string();
    assert!(what(&[1, 4, 4, 2], &train).contains("a.weight"));
    assert!(what(&[1, 1, 1, 3], &train).contains("more than one value"));
    assert!(what(&[3], &train).contains("(n, h, w, c)"));
    assert!(what(&[0, 4, 4, 3], &train).contains("empty"));
    assert!(net.forward(&noise(&[1, 1, 1, 3], Key::new(0)), &Pass::eval()).is_ok());
    let y = net.forward(&noise(&[2, 2, 2, 3], Key::new(0)), &train).unwrap().sum_all().unwrap();
    assert!(y.backward().is_ok());
    assert!(y.backward().unwrap_err().to_string().contains("twice"));
}

#[test]
fn a_network_that_diverged_is_seen() {
    let net = Sequential::new(vec![Layer::Relu, Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))], Params::new().sink());
    let x = Tensor::new(&[[[[1f32], [f32::NAN]], [[2.0], [3.0]]]], &Device::Cpu).unwrap();
    assert!(net.forward(&x, &Pass::eval()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].is_nan());
}

#[test]
fn groups_run_as_if_each_were_alone() {
    use crate::nn::pass::{Groups, Sides};
    let mut params = Params::new();
    let net = Sequential::new(vec![Layer::BatchNorm(BatchNorm::new(3, 1.0, params.root()))], params.sink());
    params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
    let x = noise(&[24, 3], Key::new(1));
    let pass = Pass { groups: Groups::Each(2), ..Pass::train(Key::new(0), &Solo).with(Hold) };
    let rows = |x: &Tensor, from| x.narrow(0, from, 6).unwrap();
    let alone = |x: &Tensor| net.forward(x, &Pass::eval().with(Hold)).unwrap();
    let expected = Tensor::cat(&[0, 6, 12, 18].map(|from| alone(&rows(&x, from))), 0).unwrap();
    let difference = |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    assert_eq!(difference(&net.forward(&x, &pass).unwrap(), &expected), 0.0);

    // By a permutation rows meet others, come back to their places, and no statistic mixes the sides.
    let shuffled = Pass { shuffled: true, train: false, ..pass };
    let y = net.forward(&x, &shuffled).unwrap();
    assert!(difference(&y, &expected) > 0.01);
    let order = shuffled.split(24).unwrap().order.unwrap();
    for (group, from) in [(0, 0), (1, 6), (2, 12), (3, 18)] {
        let members = Tensor::from_vec(order[from..from + 6].to_vec(), 6, &Device::Cpu).unwrap();
        let own = |t: &Tensor| t.index_select(&members, 0).unwrap();
        assert_eq!(difference(&own(&y), &alone(&own(&x))), 0.0, "group {group}");
    }

    // The gradient of a group is that of a pass of its own.
    let var = Var::from_tensor(&x).unwrap();
    let pull = noise(&[24, 3], Key::new(2));
    let slope = |x: &Tensor, pull: &Tensor, pass: &Pass| (net.forward(x, pass).unwrap() * pull).unwrap().sum_all().unwrap();
    let whole = slope(&var, &pull, &pass).backward().unwrap().get(&var).unwrap().clone();
    let left = Var::from_tensor(&rows(&x, 6)).unwrap();
    let one = Pass { groups: Groups::Together, ..pass }.of(Sides::Left);
    let own = slope(&left, &rows(&pull, 6), &one).backward().unwrap().get(&left).unwrap().clone();
    assert!(difference(&rows(&whole, 6), &own) < 1e-15);
    drop(params.sink().drain());
}
