//! Tests of the layers: each against the same layer in candle's operations (all gradients, f64) and against finite differences; that threads,
//! instruction sets and recomputation do not change results; running statistics, ties, NaN, groups, and errors.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use rand::Rng as _;

use super::*;
use crate::nn::cases::{Case, biased, cases, conv, select};
use crate::nn::params::{Init, ParamKind, Params};
use crate::nn::pass::Statistics::{self, Frozen, Hold, Update};
use crate::rng::Key;
use crate::world::solo;

mod devices;
mod dropout;
mod embedding;
mod frozen;
mod texts;

fn noise(dims: &[usize], key: Key) -> Tensor {
    let mut rng = key.rng();
    let values: Vec<f64> = (0..dims.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

struct Outcome {
    y: Tensor,
    /// Gradients of the input and of every trained parameter, and the running statistics afterwards.
    named: HashMap<String, Tensor>,
}

/// The network by its kernels, or its reference.
fn road(net: Sequential, exact: bool) -> Sequential {
    if exact { net.reference() } else { net }
}

/// One forward and backward pass of Σ y·weights, in `dtype`, by the kernels or by candle.
fn run(case: &Case, dtype: DType, exact: bool, statistics: Statistics) -> Outcome {
    run_at(case, dtype, exact, statistics, Precision::F32)
}

fn run_at(case: &Case, dtype: DType, exact: bool, statistics: Statistics, precision: Precision) -> Outcome {
    pass(case, dtype, exact, Pass::train(Key::new(0), &solo()).with(statistics).at(precision))
}

fn pass(case: &Case, dtype: DType, exact: bool, pass: Pass) -> Outcome {
    let ((params, net), x) = materials(case, dtype, &crate::Device::Cpu);
    outcome(&params, &road(net, exact), &x, &pass)
}

fn outcome(params: &Params, net: &Sequential, x: &Tensor, pass: &Pass) -> Outcome {
    let dtype = x.dtype();
    let (y, tape) = net.forward(x, &of_input(x), pass).unwrap();
    let weights = noise(y.dims(), Key::new(2)).to_dtype(dtype).unwrap();
    let mut named = HashMap::from([("input".to_string(), tape.play(&weights, true).unwrap().unwrap())]);
    for (p, g) in params.iter().zip(params.gradients().unwrap()) {
        let value = if p.kind().trained() {
            g.unwrap_or_else(|| panic!("{} has no gradient", p.name())).dense(p.dims()).unwrap()
        } else {
            p.tensor().unwrap()
        };
        assert_eq!(value.dims(), p.dims());
        named.insert(p.name().to_string(), value);
    }
    Outcome { y, named }
}

/// The rows of an input that is a batch of its own.
fn of_input(x: &Tensor) -> Rows {
    Rows::alone(x.dims().first().copied().unwrap_or(0))
}

/// The emulated CUDA device.
fn emulated() -> ctk_cuda::Cuda {
    ctk_cuda::Cuda::new(ctk_cuda::Emulated::new(ctk_cuda::Limits::default()))
}

/// The case's network with random parameters (also where the initial values are constants) on a device, and its input.
fn materials(case: &Case, dtype: DType, device: &device::Device) -> ((Params, Sequential), Tensor) {
    let mut params = Params::new();
    let layers = (case.build)(params.root());
    let net = Sequential::new(layers, params.gradient_store());
    params.materialise(Key::new(1), DType::F64, &crate::Device::Cpu).unwrap();
    for p in params.iter() {
        let change = (noise(p.dims(), Key::new(3).of(p.name())) * 0.3).unwrap();
        p.var().set(&(p.var().as_tensor() + change).unwrap()).unwrap();
    }
    let values: HashMap<_, _> = params.iter().map(|p| (p.name().to_string(), p.var().as_tensor().copy().unwrap())).collect();
    // The same values in the requested type.
    let mut typed = Params::new();
    let layers = (case.build)(typed.root());
    drop(net);
    let net = Sequential::new(layers, typed.gradient_store());
    typed.materialise(Key::new(1), dtype, device).unwrap();
    for p in typed.iter() {
        p.set(&values[p.name()]).unwrap();
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

/// A bias moves the means that the convolution's kernel has computed.
#[test]
fn a_normalisation_behind_a_bias_sees_the_bias() {
    let case = Case {
        name: "bias and norm",
        input: &[2, 9, 8, 9],
        build: |mut s| {
            let norm = Layer::BatchNorm(BatchNorm::new(12, 1.0, s.sub("b")).relu());
            vec![biased([12, 9], 3, 1, 1, s.sub("a")), norm]
        },
    };
    for statistics in [Update, Hold, Frozen] {
        let [here, there] = [false, true].map(|exact| run(&case, DType::F32, exact, statistics));
        assert!(relative(&here.y, &there.y) < 1e-5);
        for name in ["b.weight", "b.running_mean", "b.running_var"] {
            assert!(relative(&here.named[name], &there.named[name]) < 1e-5, "{name} with {statistics:?}");
        }
    }
}

#[test]
fn blocks_that_run_once_more_give_the_same_bits() {
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for case in cases() {
        for precision in [Precision::F32, Precision::Bf16] {
            for statistics in [Update, Hold, Frozen] {
                let once = Pass::train(Key::new(0), &solo()).with(statistics).at(precision);
                let (kept, again) = (pass(&case, DType::F32, false, once.clone()), Pass { recompute: true, ..once });
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
        // In a chain, a ReLU may cut a value near 0 on the other side, and the gradient behind it then differs much.
        let bound = match case.name {
            "tiles and norms" | "bottleneck" | "small network" => 0.4,
            // Ten layers, each of which rounds.
            "transformer block" => 5e-2,
            _ => 2e-2,
        };
        for statistics in [Update, Frozen] {
            let graph = run(&case, DType::F64, true, statistics);
            let mixed = run_at(&case, DType::F32, false, statistics, Precision::Bf16);
            assert!(relative(&mixed.y, &graph.y) <= 2e-2, "{}: output off by {:e}", case.name, relative(&mixed.y, &graph.y));
            for (name, value) in &mixed.named {
                let off = relative(value, &graph.named[name]);
                assert!(off <= bound, "{}: {name} off by {off:e}", case.name);
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

/// Finite differences for a few values of the input and of every parameter.
fn check_differences(case: &Case, statistics: Statistics) {
    let analytic = run(case, DType::F64, false, statistics);
    let ((params, net), x) = materials(case, DType::F64, &crate::Device::Cpu);
    // Finite differences need a function without side effects.
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
                let y = net.forward(x.as_tensor(), &of_input(&x), &pass).unwrap().0;
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
                    Layer::Residual(Residual::new(body, shortcut)),
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

/// Runs this program's tests again with other instruction sets, which are chosen once in a process.
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
    let net = Sequential::new(vec![Layer::BatchNorm(norm)], params.gradient_store());
    params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
    let x = Tensor::new(&[[1f64], [2.0], [6.0]], &Device::Cpu).unwrap();
    let running = || {
        ["running_mean", "running_var"].map(|n| params.iter().find(|p| p.name() == n).unwrap().var().to_vec1::<f64>().unwrap()[0])
    };
    // A calibrating pass keeps no tape and updates the statistics. Mean 3, unbiased variance (4 + 1 + 9) / 2 = 7.
    let (y, tape) = net.forward(&x, &of_input(&x), &Pass::eval().with(Update)).unwrap();
    assert!(!y.track_op() && !tape.is_kept());
    let [mean, variance] = running();
    assert!((mean - 0.3).abs() < 1e-15 && (variance - (0.9 + 0.7)).abs() < 1e-15);
    net.forward(&x, &of_input(&x), &Pass::eval().with(Hold)).unwrap();
    net.forward(&x, &of_input(&x), &Pass::eval()).unwrap();
    assert_eq!(running(), [mean, variance]);
    net.forward(&x, &of_input(&x), &Pass::train(Key::new(0), &solo())).unwrap();
    let [mean, variance] = running();
    assert!((mean - 0.57).abs() < 1e-15 && (variance - (1.44 + 0.7)).abs() < 1e-15);
}

#[test]
fn statistics_keep_their_digits_far_from_zero() {
    let mut params = Params::new();
    let net = Sequential::new(vec![Layer::BatchNorm(BatchNorm::new(2, 1.0, params.root()))], params.gradient_store());
    params.materialise(Key::new(0), DType::F32, &crate::Device::Cpu).unwrap();
    let x = (noise(&[5000, 2], Key::new(1)).to_dtype(DType::F32).unwrap() + 1000.0).unwrap();
    let y = net.forward(&x, &of_input(&x), &Pass::eval().with(Hold)).unwrap().0.to_dtype(DType::F64).unwrap();
    let mean = y.mean(0).unwrap();
    let variance = y.broadcast_sub(&mean).unwrap().sqr().unwrap().mean(0).unwrap();
    for (mean, variance) in mean.to_vec1::<f64>().unwrap().into_iter().zip(variance.to_vec1::<f64>().unwrap()) {
        assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "{mean} {variance}");
    }
}

#[test]
fn equal_maxima_give_the_first_the_gradient() {
    for exact in [false, true] {
        let layers = vec![Layer::Relu, Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))];
        let net = road(Sequential::new(layers, Params::new().gradient_store()), exact);
        let x = Tensor::new(&[[[[3f64], [3.0]], [[3.0], [1.0]]], [[[0.0], [-1.0]], [[-2.0], [0.0]]]], &Device::Cpu).unwrap();
        let (y, tape) = net.forward(&x, &of_input(&x), &Pass::train(Key::new(0), &solo())).unwrap();
        let dx = tape.play(&y.ones_like().unwrap(), true).unwrap().unwrap().flatten_all().unwrap();
        // The second image's maximum is relu(0), whose derivative is 0.
        assert_eq!(dx.to_vec1::<f64>().unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}

#[test]
fn misuse_is_an_error() {
    let mut params = Params::new();
    let mut root = params.root();
    let layers = vec![conv([2, 3], 3, 1, 1, root.sub("a")), Layer::BatchNorm(BatchNorm::new(2, 1.0, root.sub("b")))];
    let net = Sequential::new(layers, params.gradient_store());
    params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
    let train = Pass::train(Key::new(0), &solo());
    let of = |dims: &[usize], pass: &Pass| net.forward(&noise(dims, Key::new(0)), &Rows::alone(dims[0]), pass);
    let what = |dims: &[usize], pass: &Pass| of(dims, pass).err().unwrap().to_string();
    assert!(what(&[1, 4, 4, 2], &train).contains("a.weight"));
    assert!(what(&[1, 1, 1, 3], &train).contains("more than one value"));
    assert!(what(&[3], &train).contains("(n, h, w, c)"));
    assert!(what(&[0, 4, 4, 3], &train).contains("empty"));
    let (y, tape) = of(&[1, 1, 1, 3], &Pass::eval()).unwrap();
    assert!(tape.play(&y, true).unwrap_err().to_string().contains("kept nothing"));
    let rows = net.forward(&noise(&[2, 2, 2, 3], Key::new(0)), &Rows::alone(3), &train);
    assert!(rows.err().unwrap().to_string().contains("for 3 rows"));
}

#[test]
fn a_network_that_diverged_is_seen() {
    let net =
        Sequential::new(vec![Layer::Relu, Layer::MaxPool(MaxPool::new(2, 2, Padding::Both(0)))], Params::new().gradient_store());
    let x = Tensor::new(&[[[[1f32], [f32::NAN]], [[2.0], [3.0]]]], &Device::Cpu).unwrap();
    assert!(
        net.forward(&x, &of_input(&x), &Pass::eval()).unwrap().0.flatten_all().unwrap().to_vec1::<f32>().unwrap()[0].is_nan()
    );
}

#[test]
fn groups_run_as_if_each_were_alone() {
    use crate::nn::pass::Groups;
    let mut params = Params::new();
    let net = Sequential::new(vec![Layer::BatchNorm(BatchNorm::new(3, 1.0, params.root()))], params.gradient_store());
    params.materialise(Key::new(0), DType::F64, &crate::Device::Cpu).unwrap();
    let x = noise(&[24, 3], Key::new(1));
    // Two views of twelve samples, each in two groups.
    let who = Rows::new(0..12, &[0, 1], 0..12);
    let pass = Pass { groups: Groups::Each(2), ..Pass::train(Key::new(0), &solo()).with(Hold) };
    let rows = |x: &Tensor, from| x.narrow(0, from, 6).unwrap();
    let alone = |x: &Tensor| net.forward(x, &of_input(x), &Pass::eval().with(Hold)).unwrap().0;
    let expected = Tensor::cat(&[0, 6, 12, 18].map(|from| alone(&rows(&x, from))), 0).unwrap();
    let difference = |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    assert_eq!(difference(&net.forward(&x, &who, &pass).unwrap().0, &expected), 0.0);

    // With a permutation rows are grouped with others and come back to their places, and no statistic mixes the views.
    let shuffled = Pass { shuffled: true, ..pass.clone() };
    let (y, _) = net.forward(&x, &who, &shuffled).unwrap();
    assert!(difference(&y, &expected) > 0.01);
    let order = shuffled.split(&who).unwrap().order.unwrap();
    let members = |group: usize| Tensor::from_slice(&order[6 * group..6 * group + 6], 6, &Device::Cpu).unwrap();
    let of_group = |t: &Tensor, group: usize| t.index_select(&members(group), 0).unwrap();
    for group in 0..4 {
        assert_eq!(difference(&of_group(&y, group), &alone(&of_group(&x, group))), 0.0, "group {group}");
    }

    // The gradient of a group is that of a pass of its own.
    let pull = noise(&[24, 3], Key::new(2));
    let slope = |x: &Tensor, who: &Rows, pull: &Tensor, pass: &Pass| {
        let dx = net.forward(x, who, pass).unwrap().1.play(pull, true).unwrap().unwrap();
        drop(params.gradients().unwrap());
        dx
    };
    let one = Pass { groups: Groups::Together, ..pass.clone() };
    let whole = slope(&x, &who, &pull, &pass);
    assert!(difference(&rows(&whole, 6), &slope(&rows(&x, 6), &Rows::alone(6), &rows(&pull, 6), &one)) < 1e-15);
    let whole = slope(&x, &who, &pull, &shuffled);
    let own = slope(&of_group(&x, 1), &Rows::alone(6), &of_group(&pull, 1), &one);
    assert!(difference(&of_group(&whole, 1), &own) < 1e-15, "of a permuted group, too");
}

#[test]
fn a_pass_uses_the_buffers_of_the_one_before() {
    let mut params = Params::new();
    let mut linear = |shape, name: &str| {
        let mut root = params.root();
        let scope = root.sub(name);
        Layer::Linear(Linear::new(shape, true, ParamKind::Weight, Init::Normal { std: 1.0 }, scope))
    };
    let [first, second] = [linear([64, 32], "encoder"), linear([16, 64], "head")];
    let [encoder, head] = [vec![first, Layer::Relu], vec![second]].map(|layers| Sequential::new(layers, params.gradient_store()));
    params.materialise(Key::new(0), DType::F32, &crate::Device::Cpu).unwrap();
    let x = noise(&[100, 32], Key::new(1)).to_dtype(DType::F32).unwrap();
    let held = || {
        // Both chains run as one, and its buffers are the first one's.
        let (y, tape) = encoder.through(&head, &x, &Rows::alone(100), &Pass::train(Key::new(0), &solo())).unwrap();
        assert!(encoder.cpu.pool().held()[0] > 0, "the tape keeps maps");
        tape.play(&y.ones_like().unwrap(), false).unwrap();
        params.gradients().unwrap();
        encoder.cpu.pool().held()
    };
    // On one thread: on several, tasks that happen to overlap use one more buffer.
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(|| {
        let [used, free] = held();
        assert!(used == 0 && free > 100 * 64 * 4, "{used} bytes in use, {free} free");
        assert_eq!((held(), held()), ([0, free], [0, free]));
    });
}
