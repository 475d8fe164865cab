//! ResNets of torchvision, timm, transformers and SimCLRv2's PyTorch conversion imported into ctk, and ctk's exported to the first three:
//! the same images must have the same features. `tests/python/resnets_check.py` makes, loads and compares networks.

use std::path::Path;
use std::process::Command;

use ctk_core::model::encoder::Encoder as _;
use ctk_core::model::head::ProjectionHead;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::rng::Key;
use ctk_core::{DType, Tensor};
use ctk_vision::encoder::resnet::{ResNet, Weights};
use tempfile::TempDir;

use super::{ctk, interpreter};

/// Largest difference of a feature; features are about 1.
const BOUND: f64 = 1e-4;

/// Runs the script; returns the last word of its output.
fn python(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/resnets_check.py");
    let output = Command::new(interpreter()).arg(script).args(arguments).output().expect("python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout.split_whitespace().last().unwrap_or_default().to_string()
}

/// Another program's network `arch` with random values, and its features of a few images.
struct Made {
    folder: TempDir,
    what: String,
}

impl Made {
    fn new(program: &str, arch: &str) -> Made {
        let made = Made { folder: tempfile::tempdir().unwrap(), what: format!("{program} {arch}") };
        python(&["make", program, arch, made.folder.path().to_str().unwrap()]);
        made
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    /// Imports the weights; the run's features of the images must be those of the other program.
    fn import(&self, weights: &str, set: &[&str]) {
        let (weights, run) = (self.path(weights), self.path("run"));
        let mut arguments = vec!["import", &weights, "--out", &run, "--quiet"];
        arguments.extend(set.iter().flat_map(|set| ["--set", set]));
        ctk(&arguments);
        self.same("imported", "run");
    }

    /// The features that ctk computes with `run` must be those of the other program.
    fn same(&self, what: &str, run: &str) {
        let out = self.path("ctk.npy");
        ctk(&["embed", &self.path(run), "--data", &self.path("pictures"), "--out", &out, "--force", "--quiet"]);
        self.near(what, &python(&["compare", &self.path("features.npy"), &out]));
    }

    /// Exports the run, opens it in the program that the format is for, and imports it again.
    fn export(&self, format: &str, loader: &str) {
        let out = self.path(loader);
        ctk(&["export", &self.path("run"), "--format", format, "--out", &out]);
        let off = python(&["load", loader, &out, self.folder.path().to_str().unwrap()]);
        self.near(&format!("exported to {loader}"), &off);
        if format != "safetensors" {
            let again = format!("{loader}-run");
            ctk(&["import", &out, "--out", &self.path(&again), "--quiet"]);
            self.same(&format!("back from {loader}"), &again);
        }
    }

    /// Trains a classifier on the run, after so many layers of its head; the program that the format is for must give the images the same
    /// probabilities.
    fn classify(&self, layers: &str, exports: &[(&str, &str)]) {
        let (run, data) = (self.path("run"), self.path("pictures"));
        let tuned = self.path(&format!("tuned{layers}"));
        // The step is so small that probabilities stay away from 0 and 1, where differences would be invisible.
        let tune = ["finetune", &run, "--data", &data, "--labels", "2-per-class", "--epochs", "1", "--rates", "0.001"];
        ctk(&[
            &tune[..],
            &["--optimizer", "sgd", "--bn", "frozen", "--batch", "4", "--from-layer", layers, "--out", &tuned, "--quiet"],
        ]
        .concat());
        let said = self.path("predictions.csv");
        ctk(&["predict", &tuned, "--data", &data, "--top", "2", "--out", &said, "--force", "--quiet"]);
        for (format, loader) in exports {
            let out = self.path(&format!("{loader}-classifier{layers}"));
            ctk(&["export", &tuned, "--format", format, "--out", &out]);
            let off = python(&["classify", loader, &out, self.folder.path().to_str().unwrap()]);
            self.near(&format!("classifier exported to {loader}"), &off);
        }
    }

    /// The head beside the encoder must give the same output as the program's own head.
    fn head(&self) {
        let weights = Weights::open(Path::new(&self.path("model.safetensors"))).unwrap();
        let mut params = Params::new();
        let encoder = ResNet::new(&weights.encoder().unwrap(), params.root().sub("encoder")).unwrap();
        let head = ProjectionHead::new(&weights.head(), encoder.width(), params.root().sub("head"));
        params.materialise(Key::new(0), DType::F32, &ctk_core::Device::Cpu).unwrap();
        weights.load(&params, true).unwrap();
        let features = Tensor::read_npy(self.path("features.npy")).unwrap();
        head.project(&features, &Rows::alone(features.dims()[0]), &Pass::eval())
            .unwrap()
            .0
            .write_npy(self.path("ours.npy"))
            .unwrap();
        self.near("head", &python(&["compare", &self.path("embeddings.npy"), &self.path("ours.npy")]));
    }

    fn near(&self, what: &str, off: &str) {
        println!("{}, {what}: {off}", self.what);
        let off: f64 = off.parse().unwrap_or_else(|_| panic!("{off}"));
        assert!(off < BOUND, "{}, {what}: features are off by {off:e}", self.what);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn networks_that_compute_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    python(&["others", folder.path().to_str().unwrap()]);
    let others: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(others.len() >= 12, "{others:?}");
    for weights in others {
        let out = folder.path().join("out");
        let output = Command::new(env!("CARGO_BIN_EXE_ctk")).arg("import").arg(&weights).arg("--out").arg(&out).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("{}\n{stderr}", weights.display());
        assert!(output.status.code() == Some(2) && stderr.contains("hint: ") && !out.exists(), "{}: {stderr}", weights.display());
    }
}

/// The file does not describe images: they have 72 pixels, and are used whole.
const WHOLE: [&str; 2] = ["pairs.size=72", "pairs.centre=1.0"];

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn torchvisions_resnets_come_and_go_to_all_three() {
    for arch in ["resnet18", "resnet50"] {
        let made = Made::new("torchvision", arch);
        made.import("model.safetensors", &WHOLE);
        made.export("safetensors", "torchvision");
        made.export("timm", "timm");
        made.export("transformers", "transformers");
        made.classify("0", &[("safetensors", "torchvision"), ("timm", "timm"), ("transformers", "transformers")]);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn timms_folders_come_and_go() {
    for arch in ["resnet18", "resnet50", "resnet18d", "resnet50d"] {
        let made = Made::new("timm", arch);
        made.import("weights", &[]);
        made.export("timm", "timm");
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn transformers_folders_come_and_go_in_any_width() {
    for arch in ["resnet18", "resnet50", "resnet50-2x"] {
        let made = Made::new("transformers", arch);
        made.import("weights", &[]);
        made.export("transformers", "transformers");
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn simclrv2s_conversion_is_read_as_it_computes() {
    for arch in ["r50_1x_sk0", "r50_1x_sk1"] {
        let made = Made::new("simclrv2", arch);
        made.import("model.safetensors", &WHOLE);
        made.head();
        if arch == "r50_1x_sk0" {
            // Without selective kernels it is PyTorch's own network.
            made.export("timm", "timm");
        }
        for layers in ["1", "2", "3"] {
            // Selective kernels exist in no other program.
            let exports: &[(&str, &str)] = if arch == "r50_1x_sk0" { &[("safetensors", "torchvision-plain")] } else { &[] };
            made.classify(layers, exports);
        }
    }
}

/// A program's own preprocessing gives its network the same views as ctk, for images of any size.
#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn photos_of_any_size_have_the_same_features_in_other_programs() {
    let made = Made::new("torchvision", "resnet18");
    let photos = made.path("photos");
    std::fs::create_dir(&photos).unwrap();
    python(&["photos", &photos]);
    let sets = [
        &["pairs.size=72"][..],
        &["pairs.size=72", "pairs.eval_filter=bilinear", "pairs.centre=1.0"],
        &["pairs.size=64", "pairs.eval_fit=squash", "pairs.centre=1.0"],
        &["pairs.size=64", "pairs.eval_fit=squash", "pairs.eval_resize=80"],
        &["pairs.size=96", "pairs.eval_resize=111"],
    ];
    // If half a pixel is left over, each program begins the centre crop in its own way.
    for (program, offset) in [("timm", "pairs.eval_offset=even"), ("transformers", "pairs.eval_offset=floor")] {
        for (number, set) in sets.iter().enumerate() {
            let place = |what: &str| made.path(&format!("{what}-{program}-{number}"));
            let (run, features, out) = (place("run"), place("features") + ".npy", place("exported"));
            let set: Vec<&str> = set.iter().chain([&offset]).flat_map(|set| ["--set", set]).collect();
            ctk(&[&["import", &made.path("model.safetensors"), "--out", &run, "--quiet"][..], &set].concat());
            ctk(&["embed", &run, "--data", &photos, "--out", &features, "--quiet"]);
            ctk(&["export", &run, "--format", program, "--out", &out]);
            let least: f64 = python(&["alike", program, &out, &photos, &features]).parse().unwrap();
            println!("{set:?}, {program}: {least}");
            assert!(least >= 0.999, "{set:?}, {program}: {least}");
        }
    }
}
