//! CLIP and SigLIP models of transformers and open_clip as both towers of a run of image-text, and such runs as models of transformers: rows of
//! images and texts, temperature and bias must be those of the other program. `tests/python/pairs_check.py` makes, loads and compares models.

use std::path::Path;
use std::process::Command;

use ctk_core::{DType, Tensor};

use super::{ctk, interpreter};

/// Largest difference of a value.
const BOUND: f64 = 1e-4;

fn python(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/pairs_check.py");
    let output = Command::new(interpreter()).arg(script).args(arguments).output().expect("python starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout.into_owned()
}

/// Trains one step of the model at a rate that moves nothing, and returns the largest difference of rows.
fn same(folder: &Path, network: &str) -> String {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (weights, photos, run) = (path("weights"), path("photos"), path("run"));
    let mut train = vec!["train", "image-text", "--init", &weights, "--data", &photos, "--out", &run, "--quiet"];
    for set in ["train.batch=4", "train.max_steps=1", "optimizer.adamw.rate=1e-12", "schedule.warmup=0"] {
        train.extend(["--set", set]);
    }
    ctk(&train);
    for (name, data) in [("images", &photos), ("texts", &path("texts.txt"))] {
        // The run that began with the model, and the model itself.
        for (model, what) in [(&run, "run"), (&weights, "folder")] {
            let file = path(&format!("{what}-{name}.npy"));
            ctk(&["embed", model, "--data", data, "--out", &file, "--quiet"]);
            let rows = |name: &str| Tensor::read_npy(name).unwrap().to_dtype(DType::F64).unwrap();
            let off = (rows(&file) - rows(&path(&format!("{name}.npy")))).unwrap().abs().unwrap().flatten_all().unwrap();
            let off = off.max(0).unwrap().to_scalar::<f64>().unwrap();
            println!("{network}, {what}, {name}: {off:e}");
            assert!(off < BOUND, "{network}, {what}, {name}: off by {off:e}");
        }
    }
    let rows = ["images", "texts"].map(|name| path(&format!("run-{name}.npy")));
    let exported = path("exported");
    ctk(&["export", &run, "--format", "transformers", "--out", &exported]);
    [&exported, &photos, &path("texts.txt"), &rows[0], &rows[1]].map(String::as_str).join("\t")
}

/// A CLIP that no other program has begun, which reads images and texts as the script does.
const SCRATCH: &str = "[pairs]\nsize = 16\nnormalise = { mean = [0.48, 0.45, 0.4], deviation = [0.27, 0.26, 0.28] }\n\
    [image.encoder.vit]\npatch = 4\nwidth = 64\nlayers = 2\nheads = 1\nnormalise_tokens = true\npatch_bias = false\n\
    [image.head]\nlayers = 1\nwidth = 32\n\
    [text.encoder.transformer]\nform = \"clip\"\nlayers = 2\nwidth = 64\nheads = 1\npositions = 12\n\
    [text.tokenizer.train]\nsize = 300\n[text.head]\nlayers = 1\nwidth = 32\n[train]\nbatch = 4\nmax_steps = 2\n";

/// Trains one on the photos in `folder`, exports it, and stores its rows.
fn scratch(folder: &Path) -> String {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
    let (recipe, photos, texts, run, exported) =
        (path("scratch.toml"), path("photos"), path("texts.txt"), path("scratch"), path("scratch-exported"));
    std::fs::write(&recipe, SCRATCH).unwrap();
    ctk(&["train", "image-text", "--config", &recipe, "--data", &photos, "--out", &run, "--quiet"]);
    let rows = [("images", &photos), ("texts", &texts)].map(|(name, data)| {
        let file = path(&format!("scratch-{name}.npy"));
        ctk(&["embed", &run, "--data", data, "--out", &file, "--quiet"]);
        file
    });
    ctk(&["export", &run, "--format", "transformers", "--out", &exported]);
    [exported, photos, texts, rows[0].clone(), rows[1].clone()].join("\t")
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn pairs_of_towers_come_and_go() {
    let all = ["transformers:clip", "transformers:siglip", "open_clip:erf"];
    let folder = tempfile::tempdir().unwrap();
    python(&[&["make", folder.path().to_str().unwrap()][..], &all].concat());
    let mut asked: Vec<String> = all.iter().map(|network| same(&folder.path().join(network), network)).collect();
    asked.push(scratch(&folder.path().join(all[0])));
    let file = folder.path().join("asked");
    std::fs::write(&file, asked.join("\n")).unwrap();
    let said = python(&["check", file.to_str().unwrap()]);
    let found: Vec<Vec<f64>> = said
        .lines()
        .filter_map(|line| Some(line.strip_prefix("off ")?.split(' ').map(|number| number.parse().unwrap()).collect()))
        .collect();
    // The scale of the model from scratch is that of a temperature of .07, which two steps hardly change.
    let scales = [2.5, 2.5, 2.5, -(0.07_f64.ln())];
    assert_eq!(found.len(), scales.len(), "{said}");
    for ((network, numbers), scale) in all.iter().chain(&["scratch"]).zip(found).zip(scales) {
        let (bias, moved) =
            (if network.contains("siglip") { -3.25 } else { 0.0 }, if *network == "scratch" { 0.05 } else { 1e-5 });
        assert!(numbers[0] < BOUND, "{network}: off by {:e}", numbers[0]);
        assert!((numbers[1] - scale).abs() < moved && (numbers[2] - bias).abs() < 1e-5, "{network}: {numbers:?}");
    }
}
