//! Test that ctk's networks are torchvision's: the same weights give the same features in both programs.
//!
//! Drives `tests/python/torchvision_check.py`; `CTK_PYTHON` names the interpreter (default `python3`).

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device, Tensor};
use ctk_core::model::encoder::Encoder;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::rng::Key;
use ctk_vision::encoder::resnet::{ResNet, ResnetRecipe, Stem, Weights};
use rand::Rng as _;

fn noise(dims: &[usize], low: f32, high: f32, key: Key) -> Tensor {
    let mut rng = key.rng();
    let values: Vec<f32> = (0..dims.iter().product()).map(|_| rng.random_range(low..high)).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn check(arch: &str, recipe: &ResnetRecipe, size: usize) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut params = Params::new();
    let net = ResNet::new(recipe, params.root().sub("encoder")).unwrap();
    params.materialise(Key::new(0), DType::F32, &ctk_core::Device::Cpu).unwrap();
    for p in params.iter().filter(|p| p.dims().len() == 1) {
        let positive = p.name().ends_with("weight") || p.name().ends_with("running_var");
        let (low, high) = if positive { (0.5, 1.1) } else { (-0.3, 0.3) };
        p.var().set(&noise(p.dims(), low, high, Key::new(1).of(p.name()))).unwrap();
    }
    let images = noise(&[3, size, size, 3], 0.0, 1.0, Key::new(2));
    images.write_npy(file("images.npy")).unwrap();
    net.encode(&images, &Rows::alone(images.dims()[0]), &Pass::eval()).unwrap().0.write_npy(file("features.npy")).unwrap();
    let weights: HashMap<String, Tensor> = params.section("encoder").unwrap().into_iter().collect();
    candle_core::safetensors::save(&weights, file("model.safetensors")).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/torchvision_check.py");
    let python = std::env::var("CTK_PYTHON").unwrap_or_else(|_| "python3".into());
    let stem = if recipe.stem == Stem::Small { "small" } else { "imagenet" };
    let mut command = Command::new(python);
    command.arg(script).args(["--arch", arch, "--stem", stem]);
    for (option, name) in [
        ("--weights", "model.safetensors"),
        ("--images", "images.npy"),
        ("--features", "features.npy"),
        ("--random", "random.safetensors"),
    ] {
        command.arg(option).arg(file(name));
    }
    let output = command.output().expect("the python interpreter starts");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));

    let random = candle_core::safetensors::load(file("random.safetensors"), &Device::Cpu).unwrap();
    assert!(random.contains_key("fc.weight") && random.contains_key("bn1.num_batches_tracked"));
    let weights = Weights::open(&file("random.safetensors")).unwrap();
    let found = weights.encoder().unwrap();
    assert_eq!((found.depth, found.stem, found.width), (recipe.depth, recipe.stem, 1.0));
    weights.load(&params, false).unwrap();
    let (ours, _) = net.encode(&images, &Rows::alone(images.dims()[0]), &Pass::eval()).unwrap();
    let theirs = Tensor::read_npy(file("random.safetensors.features.npy")).unwrap();
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    let off = norm(&(ours - &theirs).unwrap()) / norm(&theirs);
    assert!(off < 1e-4, "{arch}: torchvision's weights give features that are off by {off:e}");
}

#[test]
#[ignore = "needs python with torch, torchvision, safetensors"]
fn resnet18_with_the_small_stem() {
    check("resnet18", &ResnetRecipe::default(), 32);
}

#[test]
#[ignore = "needs python with torch, torchvision, safetensors"]
fn resnet50_with_the_imagenet_stem() {
    check("resnet50", &ResnetRecipe { depth: 50, stem: Stem::Imagenet, ..Default::default() }, 97);
}
