//! Clipping by the global norm is a plain loop over all gradients: whole, in parts, on several ranks, with a table of embeddings whose gradient is
//! rows, and on the emulated CUDA device.

use ctk_cuda::{Cuda, Emulated, Limits};

use super::*;
use crate::data::known::Known;
use crate::model::tower::Towers;
use crate::nn::Embedding;
use crate::objective::testing::ranks_of_process;

/// Gradient descent without momentum and decay: at rate 1 a step subtracts the gradient.
fn descent() -> Optimizer {
    Optimizer::new(&OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() }))
}

fn flat(params: &Params) -> Vec<f64> {
    params.iter().flat_map(|p| p.tensor().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()).collect()
}

/// Compares a clipped step at rate 1 with the plain rule on the gradient of a step that is not clipped.
fn check<T: Towers>(what: &str, make: impl Fn(Option<f64>) -> Dense<T>, step: impl Fn(&mut Dense<T>) -> Terms) {
    let mut open = make(None);
    let before = flat(&open.params);
    assert!(step(&mut open).extras.is_empty(), "{what}: the norm is told only where gradients are clipped");
    let gradient: Vec<f64> = before.iter().zip(flat(&open.params)).map(|(before, after)| before - after).collect();
    let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
    assert!(norm > 1e-3, "{what}: {norm}");
    for most in [norm / 3.0, 2.0 * norm] {
        let mut dense = make(Some(most));
        let terms = step(&mut dense);
        let (name, told) = &terms.extras[0];
        let told = told.to_scalar::<f64>().unwrap();
        assert!(*name == "gradient_norm" && (told - norm).abs() < 1e-9 * norm, "{what}: {name} {told}, not {norm}");
        let factor = (most / (norm + 1e-6)).min(1.0);
        for ((start, g), after) in before.iter().zip(&gradient).zip(flat(&dense.params)) {
            assert!((start - factor * g - after).abs() < 1e-9, "{what}, clipped to {most}: {start} {g} {after}");
        }
    }
}

#[test]
fn clipping_is_a_plain_loop_whole_in_parts_and_on_ranks() {
    let make = |clip, world| Dense { clip, world, optimizer: descent(), ..learned(With::Nothing) };
    for part in [7, 3, 1] {
        check(&format!("parts of {part}"), |clip| make(clip, solo()), |dense| terms(dense, part, 1.0));
    }
    for (world, part) in [(2, 7), (3, 2)] {
        let what = format!("{world} ranks, parts of {part}");
        ranks_of_process(world, |world| check(&what, |clip| make(clip, world.clone()), |dense| terms(dense, part, 1.0)));
    }
}

/// One token of each sample.
#[derive(Clone, Default)]
struct Ids(Vec<u32>);

impl HostBatch for Ids {
    type Stacked = Tensor;

    fn stack(views: &[&Self]) -> Result<Tensor> {
        let ids: Vec<u32> = views.iter().flat_map(|view| view.0.iter().copied()).collect();
        let count = ids.len();
        Ok(Tensor::from_vec(ids, count, &Device::Cpu)?)
    }
}

struct Words(Sequential);

impl Encoder for Words {
    type Views = Ids;

    fn width(&self) -> usize {
        4
    }

    fn encode(&self, x: &Tensor, rows: &Rows, pass: &Pass) -> Result<(Tensor, Tape)> {
        self.0.forward(x, rows, pass)
    }
}

fn words(device: &crate::Device, clip: Option<f64>) -> Dense<Siamese<Words>> {
    let mut params = Params::new();
    let mut root = params.root();
    let mut scope = root.sub("encoder");
    let init = Init::Normal { std: 0.5 };
    let layers = vec![
        Layer::Embedding(Embedding::new([9, 4], init, scope.sub("words"))),
        Layer::GlobalAverage,
        Layer::Linear(Linear::new([4, 4], true, ParamKind::Weight, init, scope.sub("linear"))),
    ];
    let encoder = Words(Sequential::new(layers, scope.gradient_store()));
    let none = HeadRecipe { layers: 0, width: 4, ..HeadRecipe::default() };
    let head = ProjectionHead::new(&none, 4, params.root().sub("head"));
    let scale = params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
    params.materialise(Key::new(3), DType::F64, device).unwrap();
    let towers = Siamese { tower: Tower { encoder, head, predictor: None } };
    Dense { clip, ..Dense::new(towers, Box::new(Learned(scale)), params, descent()) }
}

/// A step on five samples in parts of three; words are met twice, and some never.
fn look_up(dense: &mut Dense<Siamese<Words>>) -> Terms {
    let draw = |part: usize| {
        let samples: Vec<u32> = (0..5).skip(3 * part).take(3).collect();
        let left = [[1, 2, 1, 7, 3], [4, 2, 8, 7, 1]]
            .map(|of: [u32; 5]| Ids(samples.iter().map(|sample| of[*sample as usize]).collect()))
            .to_vec();
        Ok(Batch { left, right: Vec::<()>::new(), samples, known: Known::default() })
    };
    dense.step(&Feed::new(2, 5, Key::new(0), &draw), 1.0).unwrap()
}

#[test]
fn rows_are_clipped_with_all_other_gradients_on_every_device() {
    check("on the CPU", |clip| words(&crate::Device::Cpu, clip), look_up);
    let cuda = || crate::Device::Cuda(Cuda::new(Emulated::new(Limits::default())));
    check("on a CUDA device", |clip| words(&cuda(), clip), look_up);
}

#[test]
fn a_gradient_that_is_not_finite_is_an_error_or_leaves_the_step_out() {
    let broken = |leaves_out| {
        let dense = Dense { clip: Some(1.0), leaves_out, ..words(&crate::Device::Cpu, None) };
        let weight = dense.params.iter().find(|p| p.name().ends_with("linear.weight")).unwrap();
        weight.set(&Tensor::full(f64::NAN, (4, 4), &Device::Cpu).unwrap()).unwrap();
        dense
    };
    let draw = |_: usize| {
        let left = [[1, 2], [3, 4]].map(|of: [u32; 2]| Ids(of.to_vec())).to_vec();
        Ok(Batch { left, right: Vec::<()>::new(), samples: vec![0, 1], known: Known::default() })
    };
    let feed = Feed::new(1, 2, Key::new(0), &draw);
    let error = broken(false).step(&feed, 1.0).err().unwrap().to_string();
    assert!(error.contains("gradient is no longer a finite number"), "{error}");
    let terms = broken(true).step(&feed, 1.0).unwrap();
    assert!(terms.left_out && terms.extras.is_empty());
}
