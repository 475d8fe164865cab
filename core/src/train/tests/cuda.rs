//! A learner on the emulated CUDA device: the CPU's values up to rounding, checkpoints that go on on either, and an error wherever its memory
//! ends.

use ctk_cuda::{Cuda, Emulated, Limits};

use super::*;
use crate::device::Device;
use crate::model::target::{Momentum, Target};
use crate::recipe::{AdamwRecipe, LarsForm, LarsRecipe};

fn emulated(limits: Limits) -> Cuda {
    Cuda::new(Emulated::new(limits))
}

/// A learner with a momentum copy; all of its parameters except the loss's are on `device`.
fn on(device: &Device, optimizer: &OptimizerRecipe) -> Dense<Siamese<Net>> {
    made(device, optimizer).unwrap()
}

fn made(device: &Device, optimizer: &OptimizerRecipe) -> Result<Dense<Siamese<Net>>> {
    let (mut params, online) = towers(With::Norm);
    let (own, copy) = towers(With::Norm);
    let scale = params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
    for params in [&params, &own] {
        params.materialise(Key::new(3), DType::F64, device)?;
    }
    let target = Target::new(copy, own, Momentum::Constant(0.9), &params)?;
    Ok(Dense { target: Some(target), ..Dense::new(online, Box::new(Learned(scale)), params, Optimizer::new(optimizer)) })
}

/// The largest difference between parameters, statistics and the momentum copy of two learners, as a part of the values.
fn apart(a: &Dense<Siamese<Net>>, b: &Dense<Siamese<Net>>) -> f64 {
    let one = |(a, b): (&Arc<Param>, &Arc<Param>)| {
        let values = |p: &Param| p.tensor().unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let pairs = values(a).into_iter().zip(values(b));
        pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
    };
    a.params.iter().zip(b.params.iter()).map(one).fold(0.0, f64::max)
}

fn sgd() -> OptimizerRecipe {
    OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.9, decay: 0.01, ..SgdRecipe::default() })
}

#[test]
fn a_learner_on_cuda_has_the_cpus_values_and_goes_on_from_its_checkpoint() {
    let lars = |form| OptimizerRecipe::Lars(LarsRecipe { momentum: 0.9, decay: 0.02, form, ..LarsRecipe::default() });
    let adamw = OptimizerRecipe::Adamw(AdamwRecipe::default());
    for (recipe, part, clip) in [
        (sgd(), 7, None),
        (sgd(), 3, None),
        (sgd(), 7, Some(0.05)),
        (lars(LarsForm::Classic), 7, None),
        (lars(LarsForm::Classic), 7, Some(0.05)),
        (lars(LarsForm::Popular), 7, None),
        (lars(LarsForm::Popular), 3, Some(0.05)),
        (adamw.clone(), 7, None),
        (adamw, 3, Some(0.05)),
    ] {
        let cuda = Device::Cuda(emulated(Limits::default()));
        let on = |device: &Device, recipe: &OptimizerRecipe| Dense { clip, ..on(device, recipe) };
        let (mut here, mut there) = (on(&Device::Cpu, &recipe), on(&cuda, &recipe));
        for _ in 0..10 {
            let [here, there] = [&mut here, &mut there].map(|dense| step(dense, part, 0.1));
            assert!((here - there).abs() <= 1e-9 * here.abs(), "{recipe:?} in parts of {part}: {there}, not {here}");
        }
        assert!(apart(&here, &there) < 1e-9, "{recipe:?} in parts of {part}: {:e}", apart(&here, &there));
        // Each goes on from the other's checkpoint.
        let folder = tempfile::tempdir().unwrap();
        let saved = |dense: &Dense<Siamese<Net>>, name: &str| {
            let manifest = Manifest::new("test", 1, 0, &Recipe::new("r", ""));
            Checkpoint::write(&folder.path().join(name), manifest, |w| dense.save(w)).unwrap()
        };
        let (of_here, of_there) = (saved(&here, "here"), saved(&there, "there"));
        let (mut here, mut there) = (on(&Device::Cpu, &recipe), on(&cuda, &recipe));
        here.load(&of_there.reader()).unwrap();
        there.load(&of_here.reader()).unwrap();
        for dense in [&mut here, &mut there] {
            step(dense, part, 0.1);
        }
        assert!(apart(&here, &there) < 1e-9, "{recipe:?}, resumed on the other: {:e}", apart(&here, &there));
    }
}

#[test]
fn a_step_reads_embeddings_back_and_nothing_else() {
    let lars = |form| OptimizerRecipe::Lars(LarsRecipe { decay: 0.02, form, ..LarsRecipe::default() });
    for recipe in [sgd(), lars(LarsForm::Classic), lars(LarsForm::Popular), OptimizerRecipe::Adamw(AdamwRecipe::default())] {
        let device = emulated(Limits::default());
        let mut dense = on(&Device::Cuda(device.clone()), &recipe);
        step(&mut dense, 7, 0.1);
        let before = device.read_back();
        step(&mut dense, 7, 0.1);
        let rows = 7 * 5;
        // Embeddings of 4 numbers, of the network and its momentum copy.
        assert_eq!(device.read_back() - before, 8 * (2 * rows * 4) as u64, "{recipe:?}");
        // Clipping reads back norms, two numbers for each parameter on the device.
        dense.clip = Some(0.05);
        let before = device.read_back();
        step(&mut dense, 7, 0.1);
        let there = dense.params.iter().filter(|p| p.kind().trained() && !p.device().is_cpu()).count();
        assert_eq!(device.read_back() - before, 8 * (2 * rows * 4 + 2 * there) as u64, "{recipe:?}");
    }
}

#[test]
fn wherever_memory_ends_it_is_an_error() {
    let attempt = |allocations: u64| {
        let device = emulated(Limits { allocations, ..Limits::default() });
        let mut dense = made(&Device::Cuda(device), &sgd())?;
        let draw = |_: usize| multi_crop().draw(&[0, 1, 2, 3], Key::new(0));
        dense.step(&Feed::new(1, 4, Key::new(0), &draw), 0.1).map(drop)
    };
    let first = (0..10_000).find(|&allocations| match attempt(allocations) {
        Err(error) => {
            assert!(error.to_string().contains("the device's memory is full"), "after {allocations} allocations: {error}");
            false
        }
        Ok(()) => true,
    });
    assert!(first.is_some_and(|first| first > 20), "{first:?} allocations are enough");
    assert!(attempt(first.unwrap() + 1).is_ok());
}

#[test]
fn a_parameter_says_where_it_lies() {
    let dense = on(&Device::Cuda(emulated(Limits::default())), &sgd());
    let weight = dense.params.iter().next().unwrap().clone();
    assert_eq!(format!("{:?}", weight.array()), "F64 [6, 1, 3, 3] on an emulated CUDA device");
    assert_eq!(weight.tensor().unwrap().dims(), [6, 1, 3, 3]);
    let zeros = Tensor::zeros((6, 1), DType::F64, &candle_core::Device::Cpu).unwrap();
    assert!(weight.set(&zeros).unwrap_err().to_string().contains("conv"));
}

#[test]
fn a_network_with_parameters_on_two_devices_is_an_error() {
    let (mut here, mut there) = (Params::new(), Params::new());
    let init = Init::Normal { std: 0.5 };
    let linear =
        |params: &mut Params, name| Layer::Linear(Linear::new([3, 3], true, ParamKind::Weight, init, params.root().sub(name)));
    let layers = vec![linear(&mut here, "first"), linear(&mut there, "second")];
    here.materialise(Key::new(1), DType::F64, &Device::Cpu).unwrap();
    there.materialise(Key::new(1), DType::F64, &Device::Cuda(emulated(Limits::default()))).unwrap();
    let network = Sequential::new(layers, here.gradient_store());
    assert!(network.device().is_cpu());
    let x = Tensor::zeros((2, 3), DType::F64, &candle_core::Device::Cpu).unwrap();
    let error = network.forward(&x, &crate::nn::rows::Rows::alone(2), &Pass::eval()).err().unwrap().to_string();
    assert!(error.contains("second.weight") && error.contains("emulated") && error.contains("cpu"), "{error}");
}
