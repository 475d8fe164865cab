//! Vision transformers of timm, transformers (ViT, DINOv2, CLIP, SigLIP), open_clip and torchvision imported into ctk, trained for a few
//! steps, and exported again: features, gradients and updates must be those of the other program. `tests/python/vits_check.py` makes, loads
//! and compares networks.

use std::path::{Path, PathBuf};
use std::process::Command;

use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::optim::Optimizer;
use ctk_core::recipe::{OptimizerRecipe, SgdRecipe};
use ctk_core::rng::Key;
use ctk_core::world::solo;
use ctk_core::{DType, Device, Tensor};
use ctk_vision::encoder::vit::{Vit, Weights};

use super::{ctk, interpreter};

/// Largest difference of a feature.
const BOUND: f64 = 1e-4;

/// Largest difference of gradients, and of five steps' updates, relative to their length (L2). Rounding errors of f32 grow from step to
/// step.
const OF_F32: [f64; 2] = [1e-4, 1e-3];
/// The same if ctk computes in f64. The other program's values come in files of f32.
const OF_F64: [f64; 2] = [1e-6, 1e-4];

/// Runs the script; returns its output.
fn python(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/vits_check.py");
    let output = Command::new(interpreter()).arg(script).args(arguments).output().expect("python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout.into_owned()
}

/// Another program's network with random values, and its features of a few images.
struct Made<'a> {
    folder: PathBuf,
    network: &'a str,
    /// What the other program is asked in the end, a line each.
    asked: Vec<String>,
}

impl Made<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_string()
    }

    /// Asks the other program in the end.
    fn ask(&mut self, what: &str, program: &str, path: &str) {
        // Torchvision's tensors do not show them.
        let heads = if self.network.starts_with("torchvision") { "2" } else { "4" };
        self.asked.push([what, program, path, &self.path(""), heads].join("\t"));
    }

    /// The features that ctk computes with `run` must be those of the other program.
    fn same(&self, what: &str, run: &str) {
        let out = self.path("ctk.npy");
        ctk(&["embed", &self.path(run), "--data", &self.path("pictures"), "--out", &out, "--force", "--quiet"]);
        let rows = |name: &str| Tensor::read_npy(self.folder.join(name)).unwrap().to_dtype(DType::F64).unwrap();
        let off = (rows("features.npy") - rows("ctk.npy")).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        near(&format!("{}, {what}", self.network), off.to_scalar().unwrap());
    }

    /// Imports the weights, whose features must be the other program's.
    fn import(&self) {
        // Torchvision has no description of images.
        let odd = "pairs.normalise={mean=[0.4,0.3,0.6],deviation=[0.3,0.2,0.15]}";
        let set: &[&str] = if self.network.starts_with("torchvision") { &["--set", odd] } else { &[] };
        ctk(&[&["import", &self.path("weights"), "--out", &self.path("run"), "--quiet"][..], set].concat());
        self.same("imported", "run");
    }

    /// Exports the run, imports it again, and asks the program that the format is for.
    fn export(&mut self, format: &str) {
        let out = self.path(format);
        ctk(&["export", &self.path("run"), "--format", format, "--out", &out]);
        self.ask("load", format, &out);
        if format != "torchvision" {
            let again = format!("{format}-run");
            ctk(&["import", &out, "--out", &self.path(&again), "--quiet"]);
            self.same(&format!("back from {format}"), &again);
        }
    }

    /// Trains a classifier on the run; the program that a format is for must give the images the same probabilities.
    fn classify(&mut self, formats: &[&str]) {
        let (run, data, tuned) = (self.path("run"), self.path("pictures"), self.path("tuned"));
        let tune = ["finetune", &run, "--data", &data, "--labels", "2-per-class", "--epochs", "1", "--rates", "0.001"];
        ctk(&[&tune[..], &["--optimizer", "sgd", "--batch", "4", "--out", &tuned, "--quiet"]].concat());
        let said = self.path("predictions.csv");
        ctk(&["predict", &tuned, "--data", &data, "--top", "2", "--out", &said, "--force", "--quiet"]);
        for format in formats {
            let out = self.path(&format!("{format}-classifier"));
            ctk(&["export", &tuned, "--format", format, "--out", &out]);
            self.ask("classify", format, &out);
        }
    }

    /// The network of a folder of tensors with the names of the other program.
    fn opened(&self, name: &str, dtype: DType) -> (Params, Vit) {
        let weights = Weights::open(Path::new(&self.path(name))).unwrap();
        let mut params = Params::new();
        let net = Vit::new(&weights.encoder().unwrap(), params.root().sub("encoder")).unwrap();
        params.materialise(Key::new(0), dtype, &Device::Cpu).unwrap();
        weights.load(&params).unwrap();
        (params, net)
    }

    /// Five steps of gradient descent: the first one's gradients and all updates must be those of the other program.
    fn train(&self, dtype: DType, bounds: [f64; 2]) {
        let array = |name: &str| Tensor::read_npy(PathBuf::from(self.path(name))).unwrap().to_dtype(dtype).unwrap();
        let (pixels, targets) = (array("pixels.npy"), array("targets.npy"));
        let rate: f64 = std::fs::read_to_string(self.path("rate")).unwrap().parse().unwrap();
        let (params, net) = self.opened("weights", dtype);
        let values = |params: &Params| -> Vec<Tensor> {
            params.iter().map(|param| param.tensor().unwrap().to_dtype(DType::F64).unwrap().copy().unwrap()).collect()
        };
        let before = values(&params);
        let mut sgd = Optimizer::new(&OptimizerRecipe::Sgd(SgdRecipe { momentum: 0.0, decay: 0.0, ..SgdRecipe::default() }));
        let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let compare = |what: &str, bound: f64, ours: &[Tensor], theirs: &[Tensor]| {
            let all = params.iter().zip(ours).zip(theirs);
            let off = all.map(|((param, ours), theirs)| (norm(&(ours - theirs).unwrap()) / norm(theirs).max(1e-6), param.name()));
            let (worst, name) = off.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
            println!("{}, {dtype:?}, {what}: at most {worst:e}, of {name}", self.network);
            assert!(worst < bound, "{}, {dtype:?}, {what} of {name}: off by {worst:e}", self.network);
        };
        for step in 0..5 {
            let rows = Rows::alone(pixels.dims()[0]);
            let (features, tape) = net.encode(&pixels, &rows, &Pass::train(Key::new(step), &solo())).unwrap();
            let count = features.elem_count() as f64;
            tape.play(&((features - &targets).unwrap() * (2.0 / count)).unwrap(), false).unwrap();
            let gradients = params.gradients().unwrap();
            if step == 0 {
                let ours = params.iter().zip(&gradients).map(|(param, of)| of.as_ref().unwrap().dense(param.dims()).unwrap());
                let ours: Vec<Tensor> = ours.map(|tensor| tensor.to_dtype(DType::F64).unwrap()).collect();
                compare("gradients", bounds[0], &ours, &values(&self.opened("gradients", DType::F32).0));
            }
            sgd.step(&params, &gradients, rate).unwrap();
        }
        let moved = |after: &[Tensor]| -> Vec<Tensor> { after.iter().zip(&before).map(|(a, b)| (a - b).unwrap()).collect() };
        compare("updates", bounds[1], &moved(&values(&params)), &moved(&values(&self.opened("after", DType::F32).0)));
    }
}

fn near(what: &str, off: f64) {
    println!("{what}: {off:e}");
    assert!(off < BOUND, "{what}: off by {off:e}");
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn vits_of_other_programs_come_are_trained_and_go() {
    let all = [
        ("timm:vit", &["timm", "transformers", "torchvision"][..], &["timm", "transformers", "torchvision"][..]),
        ("timm:registers-gap", &["timm"], &["timm"]),
        ("timm:gap", &["timm"], &[]),
        ("timm:clip", &["timm", "transformers"], &[]),
        ("timm:siglip", &["timm", "transformers"], &[]),
        ("timm:dinov2", &["timm"], &[]),
        ("transformers:vit", &["transformers", "timm"], &[]),
        ("transformers:dinov2", &["transformers", "timm"], &[]),
        ("transformers:dinov2-registers", &["transformers", "timm"], &[]),
        ("transformers:clip", &["transformers", "timm"], &[]),
        ("transformers:clip-vision", &["transformers"], &[]),
        ("transformers:siglip", &["transformers", "timm"], &[]),
        ("transformers:siglip-vision", &["transformers"], &[]),
        ("open_clip:erf", &["transformers"], &[]),
        ("open_clip:quick", &["transformers", "timm"], &[]),
        ("open_clip:siglip", &["timm"], &[]),
        ("torchvision:vit", &["torchvision", "timm"], &[]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    python(&[&["make", root][..], &all.map(|(network, ..)| network)].concat());
    let mut asked = Vec::new();
    for (network, formats, classifiers) in all {
        let mut made = Made { folder: folder.path().join(network), network, asked: Vec::new() };
        made.import();
        made.train(DType::F32, OF_F32);
        made.train(DType::F64, OF_F64);
        formats.iter().for_each(|format| made.export(format));
        if !classifiers.is_empty() {
            made.classify(classifiers);
        }
        asked.extend(made.asked);
    }
    let file = folder.path().join("asked");
    std::fs::write(&file, asked.join("\n")).unwrap();
    let said = python(&["check", file.to_str().unwrap()]);
    let off: Vec<f64> = said.lines().filter_map(|line| line.strip_prefix("off ")?.parse().ok()).collect();
    assert_eq!(off.len(), asked.len(), "{said}");
    asked.iter().zip(off).for_each(|(what, off)| near(what, off));
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn vits_that_compute_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    python(&["others", folder.path().to_str().unwrap()]);
    let others: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(others.len() >= 14, "{others:?}");
    for weights in others {
        let out = folder.path().join("out");
        let output = Command::new(env!("CARGO_BIN_EXE_ctk")).arg("import").arg(&weights).arg("--out").arg(&out).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        println!("{}\n{stderr}", weights.display());
        assert!(output.status.code() == Some(2) && stderr.contains("hint: ") && !out.exists(), "{}: {stderr}", weights.display());
    }
}
