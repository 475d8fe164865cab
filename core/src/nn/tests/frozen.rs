//! Frozen layers: computed as in evaluation, without gradients and without a backward pass; what is behind them learns as before.

use candle_core::{DType, Tensor};

use super::{emulated, noise, relative};
use crate::device::Device;
use crate::nn::cases::NORMAL;
use crate::nn::params::{Init, Learning, ParamKind, Params};
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::{BatchNorm, Dropout, Embedding, Gelu, Layer, Linear, Nonlinearity, Residual, Sequential};
use crate::optim::Optimizer;
use crate::recipe::{AdamwRecipe, OptimizerRecipe};
use crate::rng::Key;
use crate::world::solo;

/// A chain of three blocks of depths 1 to 3, of which those below `from` are frozen, and a head.
fn network(from: usize, device: &Device) -> (Params, Sequential) {
    let mut params = Params::new();
    let mut root = params.root().learning(Learning { rate: 0.5, from });
    let mut layers = Vec::new();
    for depth in 1..4 {
        let mut scope = root.sub(depth).depth(depth);
        let linear = Linear::new([5, 5], true, ParamKind::Weight, NORMAL, scope.sub("linear"));
        let norm = BatchNorm::new(5, 1.0, scope.sub("norm"));
        let body = vec![Layer::Linear(linear), Layer::BatchNorm(norm)];
        layers.push(Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None)));
        layers.push(Layer::Gelu(Gelu::Erf));
        layers.push(Layer::Dropout(Dropout::new(format!("{depth}"), 0.3).unwrap()));
    }
    layers.push(Layer::Linear(Linear::new([2, 5], true, ParamKind::Weight, NORMAL, root.sub("head"))));
    let net = Sequential::new(layers, params.gradient_store());
    params.materialise(Key::new(1), DType::F64, device).unwrap();
    for p in params.iter().filter(|p| p.name().ends_with("running_mean")) {
        p.set(&noise(p.dims(), Key::new(5))).unwrap();
    }
    (params, net)
}

fn train() -> Pass {
    Pass::train(Key::new(7), &solo())
}

/// Output, gradients by name, and running statistics behind a pass in training.
fn passed(params: &Params, net: &Sequential) -> Vec<(String, Option<Tensor>)> {
    let (y, tape) = net.forward(&noise(&[6, 5], Key::new(3)), &Rows::alone(6), &train()).unwrap();
    let dx = tape.play(&noise(&[6, 2], Key::new(2)), true).unwrap();
    let mut all = vec![("output".to_string(), Some(y)), ("input".to_string(), dx)];
    for (p, g) in params.iter().zip(params.gradients().unwrap()) {
        let value =
            if p.kind().trained() { g.map(|g| g.dense(p.dims()).unwrap()) } else { Some(p.tensor().unwrap().copy().unwrap()) };
        all.push((p.name().to_string(), value));
    }
    all
}

#[test]
fn frozen_layers_are_those_of_evaluation_and_the_others_learn_as_before() {
    for from in 0..5 {
        let (reference, net) = network(from, &Device::Cpu);
        let exact = passed(&reference, &net.reference());
        for device in [Device::Cpu, Device::Cuda(emulated())] {
            let (params, net) = network(from, &device);
            for ((name, found), (_, exact)) in passed(&params, &net).into_iter().zip(&exact) {
                let block = name.chars().next().and_then(|first| first.to_digit(10));
                let frozen = block.is_some_and(|block| (block as usize) < from);
                match (found, exact) {
                    (Some(found), Some(exact)) => {
                        assert!(!frozen || name.contains("running"), "{name} learns from {from}");
                        assert!(relative(&found, exact) < 1e-9, "{name} from {from} on {device}");
                    }
                    (None, None) => assert!(frozen || name == "input" && from > 1, "{name} from {from}"),
                    _ => panic!("{name} from {from}: one road has a gradient and the other none"),
                }
            }
        }
        // Running statistics of what is frozen stay; others move.
        let (before, _) = network(from, &Device::Cpu);
        for (p, old) in reference.iter().zip(before.iter()).filter(|(p, _)| p.name().ends_with("running_mean")) {
            let block = p.name()[..1].parse::<usize>().unwrap();
            let moved = relative(&p.tensor().unwrap(), &old.tensor().unwrap()) > 0.0;
            assert_eq!(moved, block >= from, "{} from {from}", p.name());
        }
    }
}

#[test]
fn a_chain_that_is_frozen_whole_equals_its_evaluation() {
    let (params, net) = network(9, &Device::Cpu);
    let x = noise(&[6, 5], Key::new(3));
    // The head has no depth, and so it learns; frozen are the layers in front of it.
    let (y, _) = net.forward(&x, &Rows::alone(6), &train()).unwrap();
    let (evaluated, _) = net.forward(&x, &Rows::alone(6), &Pass::eval()).unwrap();
    assert_eq!(relative(&y, &evaluated), 0.0, "no dropout, and running statistics");
    assert_eq!(params.iter().filter(|p| p.trained()).map(|p| p.name()).collect::<Vec<_>>(), ["head.weight", "head.bias"]);

    let mut all = Params::new();
    let mut root = all.root().learning(Learning::FROZEN);
    let mut scope = root.sub("encoder");
    let linear = Layer::Linear(Linear::new([2, 5], true, ParamKind::Weight, NORMAL, scope.sub("linear")));
    let net = Sequential::new(vec![linear, Layer::Dropout(Dropout::new("all", 0.5).unwrap())], all.gradient_store());
    all.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
    let (y, tape) = net.forward(&x, &Rows::alone(6), &train()).unwrap();
    assert!(tape.play(&y, true).unwrap().is_none() && all.gradients().unwrap().iter().all(Option::is_none));
    assert_eq!(relative(&y, &net.forward(&x, &Rows::alone(6), &Pass::eval()).unwrap().0), 0.0);
}

#[test]
fn a_frozen_table_is_looked_up_and_its_head_learns() {
    let run = |reference: bool| {
        let mut params = Params::new();
        let table = Embedding::new([6, 4], NORMAL, params.root().sub("text").learning(Learning::FROZEN));
        let head = Linear::new([3, 4], false, ParamKind::Weight, NORMAL, params.root().sub("head"));
        let net =
            Sequential::new(vec![Layer::Embedding(table), Layer::GlobalAverage, Layer::Linear(head)], params.gradient_store());
        params.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
        let net = if reference { net.reference() } else { net };
        let ids = Tensor::new(&[4u32, 1, 4, 0, 5], &candle_core::Device::Cpu).unwrap();
        let rows = Rows::alone(2).with_offsets(vec![0, 3, 5]);
        let (y, tape) = net.forward(&ids, &rows, &train()).unwrap();
        tape.play(&noise(&[2, 3], Key::new(2)), false).unwrap();
        let gradients = params.gradients().unwrap();
        assert!(gradients[0].is_none());
        (y, gradients[1].clone().unwrap().dense(&[3, 4]).unwrap())
    };
    let ((y, head), (exact, exact_head)) = (run(false), run(true));
    assert!(relative(&y, &exact) < 1e-12 && relative(&head, &exact_head) < 1e-12);
}

#[test]
fn a_scope_has_a_rate_of_its_own_and_what_is_frozen_has_no_state() {
    let mut params = Params::new();
    let one = Init::Constant(1.0);
    let mut root = params.root();
    root.sub("still").learning(Learning::FROZEN).param("w", 2, ParamKind::Weight, one);
    root.sub("slow").learning(Learning { rate: 0.25, from: 0 }).param("w", 2, ParamKind::Weight, one);
    root.sub("usual").param("w", 2, ParamKind::Weight, one);
    params.materialise(Key::new(0), DType::F64, &Device::Cpu).unwrap();
    let recipe = OptimizerRecipe::Adamw(AdamwRecipe { decay: 0.0, ..AdamwRecipe::default() });
    let mut optimizer = Optimizer::new(&recipe);
    let ones =
        params.iter().map(|p| Some(Tensor::ones(p.dims(), DType::F64, &candle_core::Device::Cpu).unwrap().into())).collect();
    optimizer.step(&params, &ones, 0.1).unwrap();
    let moved: Vec<f64> = params.iter().map(|p| 1.0 - p.var().to_vec1::<f64>().unwrap()[0]).collect();
    assert!(moved[0] == 0.0 && (moved[1] - 0.025).abs() < 1e-9 && (moved[2] - 0.1).abs() < 1e-9, "{moved:?}");
    let state = optimizer.state(&params).unwrap();
    assert!(state.iter().all(|(name, _)| !name.starts_with("still")), "a frozen parameter needs no moments");
    let mut again = Optimizer::new(&recipe);
    again.restore(&params, &state.into_iter().collect()).unwrap();
}
