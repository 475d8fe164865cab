//! Whole runs on the emulated CUDA device: pretraining by several methods, fine-tuning and distillation have the CPU's losses and weights,
//! runs go on on the other device, and a step reads nothing back but what the loss needs.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use ctk_core::Device;
use ctk_core::modality::Modality;
use ctk_core::process::Process;
use ctk_core::recipe::Recipe;
use ctk_core::store::checkpoint::Checkpoint;
use ctk_core::store::run::{Place, Run};
use ctk_vision::Vision;

fn emulated() -> Device {
    Device::open("emulated").unwrap().0
}

/// Generated images, ten steps, a line of metrics for each. Sections that a case has itself come from the case.
fn recipe(case: &str) -> Recipe {
    let mut text = case.to_string();
    for (section, keys) in [
        ("[data]", "train = 64\ntest = 12\n"),
        ("[pairs]", "size = 16\n"),
        ("[encoder.resnet]", "depth = 18\nwidth = 0.25\nstem = \"small\"\n"),
        ("[head]", "layers = 2\nwidth = 16\n"),
        ("[optimizer.sgd]", "rate = 0.02\n"),
        ("[schedule]", "warmup = 0\n"),
    ] {
        let kind = section.split('.').next().unwrap().trim_end_matches(']');
        if !text.contains(&format!("{kind}]")) && !text.contains(&format!("{kind}.")) {
            text.push_str(&format!("{section}\n{keys}"));
        }
    }
    if !text.contains("[train]") {
        text.push_str("[train]\n");
    }
    let train = "[train]\nexact = true\nbatch = 8\nmax_steps = 10\nlog_every = 1\nloaders = 0\n";
    Recipe::new("case", text.replacen("[train]\n", train, 1))
}

/// Trains, or goes on; returns the losses of the metrics and the weights of the newest checkpoint.
fn train(recipe: &Recipe, place: Place, device: &Device) -> (Vec<f64>, HashMap<String, Tensor>) {
    let (Place::New(folder) | Place::Resume(folder)) = &place else { unreachable!("places have folders here") };
    let folder = folder.clone();
    let mut run = Run::new(place, "vision", recipe.clone()).unwrap();
    Vision.plan(recipe).unwrap().run(&mut run, &mut Process::new(device.clone())).unwrap();
    let lines = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64();
    (lines.lines().filter_map(loss).collect(), weights(&folder))
}

fn weights(folder: &Path) -> HashMap<String, Tensor> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let reader = checkpoint.reader();
    let mut all = reader.tensors("model.safetensors").unwrap();
    all.extend(reader.tensors("head.safetensors").unwrap());
    all
}

/// The largest relative distance between tensors of the same names, and its name.
fn apart(a: &HashMap<String, Tensor>, b: &HashMap<String, Tensor>) -> (f64, String) {
    assert_eq!(a.len(), b.len());
    let norm = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
    let of =
        |(name, a): (&String, &Tensor)| (norm((wide(a) - wide(&b[name])).unwrap()) / (norm(wide(&b[name])) + 1e-3), name.clone());
    a.iter().map(of).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

/// The run of a recipe on both devices: losses of each step and weights at the end agree up to the rounding of f32.
fn same_on_both(name: &str, recipe: &Recipe) {
    let folder = tempfile::tempdir().unwrap();
    let [here, there] = [("cpu", Device::Cpu), ("cuda", emulated())]
        .map(|(at, device)| train(recipe, Place::New(folder.path().join(at)), &device));
    assert!(here.0.len() >= 10 && here.0.len() == there.0.len(), "{name}: {:?} {:?}", here.0, there.0);
    for (step, (here, there)) in here.0.iter().zip(&there.0).enumerate() {
        // Rounding grows from step to step.
        assert!((here - there).abs() <= 1e-5 * 2f64.powi(step as i32) * here.abs(), "{name}, step {}: {here}, {there}", step + 1);
    }
    let (off, tensor) = apart(&there.1, &here.1);
    assert!(off < 5e-3, "{name}: {tensor} is off by {off:e}");
}

#[test]
fn pretraining_has_the_cpus_losses_and_weights() {
    for (name, case) in [
        ("a ResNet-18", ""),
        (
            "a ResNet-50 with selective kernels",
            "[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 50\nwidth = 0.25\nsk_ratio = 0.0625\nstem = \"small\"\n",
        ),
        ("moco", "[loss.moco]\nqueue = 32\n[train]\nbn_groups = 1\n"),
        ("byol", "[loss.byol]\n[predictor]\nhidden = 16\n"),
        ("gradient caching", "[train]\npart = 4\n"),
        ("recomputation", "[train]\nrecompute = true\n"),
        ("lars", "[optimizer.lars]\nrate = 0.1\n"),
    ] {
        same_on_both(name, &recipe(case));
    }
}

#[test]
fn a_run_goes_on_on_the_other_device() {
    let folder = tempfile::tempdir().unwrap();
    let (ten, mut five) = (
        recipe("[loss.moco]\nqueue = 32\n[train]\nbn_groups = 1\n"),
        recipe("[loss.moco]\nqueue = 32\n[train]\nbn_groups = 1\n"),
    );
    five.set("train.max_steps", "5").unwrap();
    let straight = train(&ten, Place::New(folder.path().join("straight")), &Device::Cpu);
    for (name, first, second) in [("there", emulated(), Device::Cpu), ("here", Device::Cpu, emulated())] {
        let at = folder.path().join(name);
        train(&five, Place::New(at.clone()), &first);
        let (losses, weights) = train(&ten, Place::Resume(at), &second);
        assert_eq!(losses.len(), straight.0.len());
        let (off, tensor) = apart(&weights, &straight.1);
        assert!(off < 5e-3, "begun {name}: {tensor} is off by {off:e}");
    }
}
