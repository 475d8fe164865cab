//! Networks of texts: kernels and reference agree, with dropout and on every device; a text is the same alone and among others; errors.

use candle_core::{DType, Tensor};

use super::{emulated, noise, relative};
use crate::device::Device;
use crate::nn::cases::NORMAL;
use crate::nn::params::{ParamKind, Params, Scope};
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::{AddedRow, Attention, Dropout, Embedding, Gelu, Layer, LayerNorm, Linear, Nonlinearity, Residual, Sequential};
use crate::rng::Key;
use crate::world::solo;

const IDS: [u32; 9] = [4, 1, 4, 0, 1, 4, 2, 5, 3];
const OFFSETS: [u32; 5] = [0, 2, 3, 7, 9];

/// A transformer of one block, like BERT's, over a vocabulary of six tokens.
fn layers(mut root: Scope, pooling: Layer, causal: bool) -> Vec<Layer> {
    let linear = |shape, scope: Scope| Layer::Linear(Linear::new(shape, true, ParamKind::Weight, NORMAL, scope));
    let norm = |scope: Scope| Layer::LayerNorm(LayerNorm::new(6, 1e-12, scope));
    let drop = |name: &str| Dropout::new(name, 0.3).unwrap();
    let attention = Attention::new(2).dropout(drop("attention"));
    let attention = Layer::Attention(if causal { attention.causal() } else { attention });
    let body = vec![linear([18, 6], root.sub("qkv")), attention, linear([6, 6], root.sub("mix")), Layer::Dropout(drop("mixed"))];
    let mlp = vec![linear([11, 6], root.sub("in")), Layer::Gelu(Gelu::Erf), linear([6, 11], root.sub("out"))];
    let block = |body, after| Layer::Residual(Residual::new(body, vec![]).with(Nonlinearity::None).normalise_after(vec![after]));
    vec![
        Layer::Embedding(Embedding::new([6, 6], NORMAL, root.sub("words"))),
        Layer::AddedRow(AddedRow::by_position([7, 6], 2, NORMAL, root.sub("positions"))),
        Layer::AddedRow(AddedRow::always([2, 6], 0, NORMAL, root.sub("types"))),
        norm(root.sub("first")),
        Layer::Dropout(drop("words")),
        block(body, norm(root.sub("second"))),
        block(mlp, norm(root.sub("third"))),
        pooling,
        linear([3, 6], root.sub("head")),
        Layer::Dropout(drop("pooled")),
    ]
}

fn ids(ids: &[u32]) -> Tensor {
    Tensor::new(ids, &candle_core::Device::Cpu).unwrap()
}

/// The outputs, and the gradients of all parameters, of one pass in training.
fn run(pooling: &Layer, causal: bool, device: Option<&Device>, recompute: bool) -> Vec<(String, Tensor)> {
    let mut params = Params::new();
    let net = Sequential::new(layers(params.root(), pooling.clone(), causal), params.gradient_store());
    params.materialise(Key::new(1), DType::F64, device.unwrap_or(&Device::Cpu)).unwrap();
    let net = if device.is_none() { net.reference() } else { net };
    let rows = Rows::alone(4).with_offsets(OFFSETS.to_vec());
    let pass = Pass { recompute, ..Pass::train(Key::new(7), &solo()) };
    let (y, tape) = net.forward(&ids(&IDS), &rows, &pass).unwrap();
    assert_eq!(y.dims(), [4, 3]);
    assert!(tape.play(&noise(&[4, 3], Key::new(2)), true).unwrap().is_none());
    let gradients = params.iter().zip(params.gradients().unwrap());
    let gradients = gradients.map(|(p, g)| (p.name().to_string(), g.unwrap().dense(p.dims()).unwrap()));
    [("output".to_string(), y)].into_iter().chain(gradients).collect()
}

#[test]
fn kernels_and_graph_agree_on_every_device() {
    let all = [(Layer::GlobalAverage, false), (Layer::First, false), (Layer::GlobalAverage, true), (Layer::Last, true)];
    for (pooling, causal) in all {
        let graph = run(&pooling, causal, None, false);
        for device in [Device::Cpu, Device::Cuda(emulated())] {
            let whole = run(&pooling, causal, Some(&device), false);
            for ((name, found), (_, exact)) in whole.iter().zip(&graph) {
                assert!(relative(found, exact) < 1e-9, "{name} on {device}, causal {causal}: {:e}", relative(found, exact));
            }
            let again = run(&pooling, causal, Some(&device), true);
            assert!(whole.iter().zip(&again).all(|(a, b)| relative(&a.1, &b.1) == 0.0), "recomputed on {device}");
        }
    }
}

/// The outputs and the gradients of a table whose texts' means are taken, with a layer behind.
fn means(device: Option<&Device>) -> Vec<(String, Tensor)> {
    let mut params = Params::new();
    let mut root = params.root();
    let layers = vec![
        Layer::Embedding(Embedding::new([6, 5], NORMAL, root.sub("words"))),
        Layer::GlobalAverage,
        Layer::Linear(Linear::new([3, 5], true, ParamKind::Weight, NORMAL, root.sub("head"))),
        Layer::Dropout(Dropout::new("pooled", 0.3).unwrap()),
    ];
    let net = Sequential::new(layers, params.gradient_store());
    params.materialise(Key::new(1), DType::F64, device.unwrap_or(&Device::Cpu)).unwrap();
    let net = if device.is_none() { net.reference() } else { net };
    // The third text is empty.
    let rows = Rows::alone(5).with_offsets(vec![0, 2, 3, 3, 7, 9]);
    let (y, tape) = net.forward(&ids(&IDS), &rows, &Pass::train(Key::new(7), &solo())).unwrap();
    assert!(tape.play(&noise(&[5, 3], Key::new(2)), true).unwrap().is_none());
    let gradients = params.iter().zip(params.gradients().unwrap());
    let gradients = gradients.map(|(p, g)| (p.name().to_string(), g.unwrap().dense(p.dims()).unwrap()));
    [("output".to_string(), y)].into_iter().chain(gradients).collect()
}

#[test]
fn means_of_rows_and_graph_agree_on_every_device() {
    let graph = means(None);
    for device in [Device::Cpu, Device::Cuda(emulated())] {
        for ((name, found), (_, exact)) in means(Some(&device)).iter().zip(&graph) {
            assert!(relative(found, exact) < 1e-12, "{name} on {device}: {:e}", relative(found, exact));
        }
    }
}

#[test]
fn a_network_reads_no_row_that_is_late() {
    use crate::optim::Optimizer;
    use crate::recipe::{AdamwRecipe, OptimizerRecipe};
    // Two networks take the same steps; the table of one is read as a whole after each, so that no row of it is ever late.
    let run = |whole: bool| {
        let mut params = Params::new();
        let table = Layer::Embedding(Embedding::new([40, 3], NORMAL, params.root().sub("words")));
        let net = Sequential::new(vec![table, Layer::GlobalAverage], params.gradient_store());
        params.materialise(Key::new(1), DType::F32, &Device::Cpu).unwrap();
        let mut optimizer = Optimizer::new(&OptimizerRecipe::Adamw(AdamwRecipe::default()));
        let mut outputs = Vec::new();
        for step in 0..60u32 {
            let some: Vec<u32> = (0..6).map(|i| (step * step + i * i * 7) % 40).collect();
            let rows = Rows::alone(2).with_offsets(vec![0, 4, 6]);
            let (y, tape) = net.forward(&ids(&some), &rows, &Pass::train(Key::new(7), &solo())).unwrap();
            outputs.push(y.to_vec2::<f32>().unwrap());
            tape.play(&noise(&[2, 3], Key::new(2)).to_dtype(DType::F32).unwrap(), false).unwrap();
            optimizer.step(&params, &params.gradients().unwrap(), 0.05).unwrap();
            if whole {
                params.section("").unwrap();
            }
        }
        let table = params.iter().next().unwrap().tensor().unwrap().to_vec2::<f32>().unwrap();
        (outputs, table)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_text_is_the_same_alone_and_among_others() {
    let mut params = Params::new();
    let net = Sequential::new(layers(params.root(), Layer::GlobalAverage, false), params.gradient_store());
    params.materialise(Key::new(1), DType::F32, &Device::Cpu).unwrap();
    for pass in [Pass::eval(), Pass::train(Key::new(7), &solo())] {
        let of = |places: std::ops::Range<u32>| {
            let ends = &OFFSETS[places.start as usize..=places.end as usize];
            let own = &IDS[ends[0] as usize..ends[ends.len() - 1] as usize];
            let rows = Rows::new(places, &[0], 0..4).with_offsets(ends.iter().map(|end| end - ends[0]).collect());
            net.forward(&ids(own), &rows, &pass).unwrap().0.to_vec2::<f32>().unwrap()
        };
        let whole = of(0..4);
        assert_eq!([of(0..1), of(1..3), of(3..4)].concat(), whole);
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let mut params = Params::new();
    let net = Sequential::new(layers(params.root(), Layer::First, false), params.gradient_store());
    params.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
    let error = |tokens: &[u32], offsets: &[u32]| {
        let rows = Rows::alone(offsets.len() - 1).with_offsets(offsets.to_vec());
        net.forward(&ids(tokens), &rows, &Pass::eval()).err().unwrap().to_string()
    };
    let long = error(&IDS, &[0, 9]);
    assert!(long.contains("a text of 9 tokens for a table of 7 rows") && long.contains("positions"), "{long}");
    assert!(error(&IDS, &[0, 2, 2, 7, 9]).contains("text 1 has no token"));
    assert!(error(&IDS, &[0, 5, 3, 9]).contains("cannot be added"));
    let heads = Layer::Attention(Attention::new(4));
    let net = Sequential::new(vec![heads], params.gradient_store());
    let wrong = net.forward(&noise(&[2, 18], Key::new(1)), &Rows::alone(2), &Pass::eval()).err().unwrap().to_string();
    assert!(wrong.contains("18 channels are no queries, keys and values of 4 heads"), "{wrong}");
}
