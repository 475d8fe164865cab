//! A learner on a device with separate memory: the CPU's bits, and parameters that stay on the device.

use super::*;
use crate::model::target::{Momentum, Target};
use crate::nn::emulated::Emulated;
use crate::recipe::{AdamwRecipe, LarsForm, LarsRecipe};

/// A learner with a momentum copy; all of its parameters except the loss's are on the device of `road`.
pub(super) fn on(road: &Road, optimizer: &OptimizerRecipe) -> Dense<Siamese<Net>> {
    made(road, optimizer).unwrap()
}

pub(super) fn made(road: &Road, optimizer: &OptimizerRecipe) -> Result<Dense<Siamese<Net>>> {
    let materialise = |params: &Params| match road {
        Road::Cuda(device) => params.materialise_on::<_, f64>(Key::new(3), device),
        Road::Emulated(device) => params.materialise_on::<_, f64>(Key::new(3), device),
        _ => params.materialise(Key::new(3), DType::F64, &Device::Cpu),
    };
    let (mut params, online) = towers(With::Norm, road);
    let (own, copy) = towers(With::Norm, road);
    let scale = params.root().sub("loss").param("scale", (), ParamKind::Scalar, Init::Constant(0.7));
    for params in [&params, &own] {
        materialise(params)?;
    }
    let target = Target::new(copy, own, Momentum::Constant(0.9), &params)?;
    Ok(Dense { target: Some(target), ..Dense::new(online, Box::new(Learned(scale)), params, Optimizer::new(optimizer)) })
}

/// The digest of each file of a checkpoint.
fn digests(dense: &Dense<Siamese<Net>>, folder: &std::path::Path) -> (Checkpoint, Vec<String>) {
    let manifest = Manifest::new("test", 1, 0, &Recipe::new("r", ""));
    let saved = Checkpoint::write(folder, manifest, |w| dense.save(w)).unwrap();
    let digests = saved.manifest().files.iter().map(|(name, file)| format!("{name} {file:?}")).collect();
    (saved, digests)
}

#[test]
fn a_learner_on_another_device_saves_the_cpus_bits_whole_and_in_parts() {
    let lars = |form| OptimizerRecipe::Lars(LarsRecipe { momentum: 0.9, decay: 0.02, form, ..LarsRecipe::default() });
    let sgd = |momentum| OptimizerRecipe::Sgd(SgdRecipe { momentum, decay: 0.01, ..SgdRecipe::default() });
    let adamw = OptimizerRecipe::Adamw(AdamwRecipe::default());
    for (recipe, part) in
        [(sgd(0.0), 7), (sgd(0.9), 7), (sgd(0.9), 3), (lars(LarsForm::Classic), 7), (lars(LarsForm::Popular), 7), (adamw, 7)]
    {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let emulated = Road::Emulated(Emulated::default());
        let (mut here, mut there) = (on(&Road::default(), &recipe), on(&emulated, &recipe));
        for _ in 0..3 {
            let losses = [&mut here, &mut there].map(|dense| step(dense, part, 0.1));
            assert_eq!(losses[0].to_bits(), losses[1].to_bits());
        }
        let (saved, expected) = digests(&here, &at("here"));
        assert_eq!(digests(&there, &at("there")).1, expected, "{recipe:?} in parts of {part}");
        // A checkpoint of the CPU is resumed on the device.
        let mut resumed = on(&emulated, &recipe);
        resumed.load(&saved.reader()).unwrap();
        for dense in [&mut here, &mut resumed] {
            step(dense, part, 0.1);
        }
        assert_eq!(digests(&resumed, &at("on there")).1, digests(&here, &at("on here")).1, "resumed with {recipe:?}");
    }
}

#[test]
fn a_step_moves_the_batch_and_its_embeddings_between_host_and_device_and_no_parameter() {
    let device = Emulated::default();
    let recipe = OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.9, decay: 0.01, ..SgdRecipe::default() });
    let mut dense = on(&Road::Emulated(device.clone()), &recipe);
    step(&mut dense, 7, 0.1);
    let before = device.passed();
    step(&mut dense, 7, 0.1);
    // Seven samples of two views of 8 × 8 pixels and three of 5 × 5; representations of 6 numbers, embeddings of 4.
    let (pixels, rows) = (7 * (2 * 64 + 3 * 25), 7 * 5);
    let (encoder, head) = (pixels + rows * 6, rows * 6 + rows * 4);
    let (forward, backward) = (encoder + head, rows * 4 + rows * 6 + rows * 6);
    assert_eq!(device.passed() - before, 8 * (2 * forward + backward) as u64, "the momentum copy has no way back");
}

#[test]
fn a_parameter_says_where_it_lies() {
    let device = Emulated::default();
    let recipe = OptimizerRecipe::Sgd(SgdRecipe::default());
    let mut dense = on(&Road::Emulated(device), &recipe);
    let weight = dense.params.iter().next().unwrap().clone();
    assert_eq!(format!("{:?}", weight.array()), "F64 [6, 1, 3, 3] on emulated");
    assert_eq!(weight.tensor().unwrap().dims(), [6, 1, 3, 3]);
    assert!(weight.set(&Tensor::zeros((6, 1), DType::F64, &Device::Cpu).unwrap()).unwrap_err().to_string().contains("conv"));
    // A network on the CPU cannot read it.
    dense.towers.tower.head = {
        let mut other = Params::new();
        let head = ProjectionHead::new(&HeadRecipe { layers: 1, width: 4, ..HeadRecipe::default() }, 6, other.root().sub("head"));
        other.materialise_on::<_, f64>(Key::new(1), &Emulated::default()).unwrap();
        assert!(other.materialise_on::<_, f64>(Key::new(1), &Emulated::default()).is_err(), "it lies there already");
        head
    };
    let draw = |_: usize| multi_crop().draw(&[0, 1, 2], Key::new(0));
    let error = dense.step(&Feed::new(1, 3, Key::new(0), &draw), 0.1).err().unwrap().to_string();
    assert!(error.contains("head.layers.0.weight") && error.contains("emulated") && error.contains("cpu"), "{error}");
}
