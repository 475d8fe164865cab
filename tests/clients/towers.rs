//! Text towers of CLIP and SigLIP from transformers and open_clip: ctk embeds texts by them, trains them for a few steps, and writes them for
//! transformers. Features, gradients and updates must be those of the other program. `tests/python/towers_check.py` makes, loads and compares
//! networks.

use std::path::{Path, PathBuf};
use std::process::Command;

use ctk_core::data::pair::HostBatch as _;
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::params::Params;
use ctk_core::nn::pass::Pass;
use ctk_core::nn::rows::Rows;
use ctk_core::optim::Optimizer;
use ctk_core::recipe::{OptimizerRecipe, SgdRecipe};
use ctk_core::rng::Key;
use ctk_core::world::solo;
use ctk_core::{DType, Device, Tensor};
use ctk_text::sentences::folder::Folder;
use ctk_text::tokens::{TokenEncoder, Tokens};

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
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/towers_check.py");
    let output = Command::new(interpreter()).arg(script).args(arguments).output().expect("python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout.into_owned()
}

/// Another program's network with random values, and its features of a few texts.
struct Made<'a> {
    folder: PathBuf,
    network: &'a str,
}

impl Made<'_> {
    fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_string()
    }

    fn embed(&self, run: &str, out: &str) {
        let (run, texts, out) = (self.path(run), self.path("texts.txt"), self.path(out));
        ctk(&["embed", &run, "--data", &texts, "--out", &out, "--force", "--quiet"]);
    }

    /// The features that ctk computes by the folder must be those of the other program.
    fn same(&self) {
        self.embed("weights", "ctk.npy");
        let rows = |name: &str| Tensor::read_npy(self.folder.join(name)).unwrap().to_dtype(DType::F64).unwrap();
        let off = (rows("features.npy") - rows("ctk.npy")).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
        near(self.network, off.to_scalar().unwrap());
    }

    /// A run that begins with the network is trained and exported; returns what transformers is asked about it.
    fn exported(&self) -> String {
        let (run, out, data) = (self.path("run"), self.path("exported"), self.path("pairs.tsv"));
        let pair = |at: usize| format!("w{} w{}\tw{} w{} w{}\n", at % 30, at % 7, at % 30, at % 11, at % 5);
        std::fs::write(&data, (0..120).map(pair).collect::<String>()).unwrap();
        let weights = format!("encoder={{transformer={{weights={:?}}}}}", self.path("weights"));
        let mut train = vec!["train", "sentences", "--data", &data, "--out", &run, "--quiet"];
        for set in [&weights, "train.batch=16", "train.max_steps=5", "head.layers=0"] {
            train.extend(["--set", set]);
        }
        ctk(&train);
        ctk(&["export", &run, "--format", "transformers", "--out", &out]);
        self.embed("run", "run.npy");
        [out, self.path("texts.txt"), self.path("run.npy")].join("\t")
    }

    /// The network of a folder of tensors with the names of the other program.
    fn opened(&self, name: &str, dtype: DType) -> (Params, TokenEncoder) {
        let folder = Folder::read(Path::new(&self.path(name))).unwrap();
        let mut params = Params::new();
        let net = folder.described.network.encoder(params.root().sub("encoder")).unwrap();
        params.materialise(Key::new(0), dtype, &Device::Cpu).unwrap();
        params.load_section("encoder", &folder.tensors).unwrap();
        (params, net)
    }

    /// Five steps of gradient descent: the first one's gradients and all updates must be those of the other program.
    fn train(&self, dtype: DType, bounds: [f64; 2]) {
        let targets = Tensor::read_npy(PathBuf::from(self.path("targets.npy"))).unwrap().to_dtype(dtype).unwrap();
        let ids: Vec<Vec<u32>> = serde_json::from_str(&std::fs::read_to_string(self.path("ids.json")).unwrap()).unwrap();
        let mut texts = Tokens::default();
        ids.iter().for_each(|ids| texts.push(ids));
        let stacked = Tokens::stack(&[&texts]).unwrap();
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
            let (features, tape) = net.encode(&stacked, &Rows::alone(ids.len()), &Pass::train(Key::new(step), &solo())).unwrap();
            let count = features.elem_count() as f64;
            tape.play(&((features - &targets).unwrap() * (2.0 / count)).unwrap(), false).unwrap();
            let gradients = params.gradients().unwrap();
            if step == 0 {
                let ours = params.iter().zip(&gradients).map(|(param, of)| of.as_ref().unwrap().dense(param.dims()).unwrap());
                let ours: Vec<Tensor> = ours.map(|tensor| tensor.to_dtype(DType::F64).unwrap()).collect();
                let theirs = values(&self.opened("gradients", DType::F32).0);
                compare("gradients", bounds[0], &ours, &theirs);
                self.keys(&params, &ours);
            }
            sgd.step(&params, &gradients, rate).unwrap();
        }
        let moved = |after: &[Tensor]| -> Vec<Tensor> { after.iter().zip(&before).map(|(a, b)| (a - b).unwrap()).collect() };
        compare("updates", bounds[1], &moved(&values(&params)), &moved(&values(&self.opened("after", DType::F32).0)));
    }

    /// A key's bias has the gradient 0: softmax cancels it.
    fn keys(&self, params: &Params, gradients: &[Tensor]) {
        for (param, gradient) in params.iter().zip(gradients).filter(|(param, _)| param.name().ends_with("qkv.bias")) {
            let width = gradient.dims()[0] / 3;
            let largest = gradient.narrow(0, width, width).unwrap().abs().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
            assert!(largest < 1e-6, "{}, {}: {largest:e}", self.network, param.name());
        }
    }
}

fn near(what: &str, off: f64) {
    println!("{what}: {off:e}");
    assert!(off < BOUND, "{what}: off by {off:e}");
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn towers_of_other_programs_come_are_trained_and_go() {
    let all = [
        "transformers:clip",
        "transformers:clip-text",
        "transformers:clip-bare",
        "transformers:siglip",
        "transformers:siglip-text",
        "open_clip:erf",
        "open_clip:quick",
        "open_clip:custom",
        "open_clip:siglip",
    ];
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    python(&[&["make", root][..], &all].concat());
    let mut asked = Vec::new();
    for network in all {
        let made = Made { folder: folder.path().join(network), network };
        made.same();
        made.train(DType::F32, OF_F32);
        made.train(DType::F64, OF_F64);
        asked.push(made.exported());
    }
    let file = folder.path().join("asked");
    std::fs::write(&file, asked.join("\n")).unwrap();
    let said = python(&["check", file.to_str().unwrap()]);
    let off: Vec<f64> = said.lines().filter_map(|line| line.strip_prefix("off ")?.parse().ok()).collect();
    assert_eq!(off.len(), asked.len(), "{said}");
    asked.iter().zip(off).for_each(|(what, off)| near(what, off));
}
