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
    let mut out = Vec::new();
    for (name, data) in [("images", &photos), ("texts", &path("texts.txt"))] {
        let file = path(&format!("ctk-{name}.npy"));
        ctk(&["embed", &run, "--data", data, "--out", &file, "--quiet"]);
        let rows = |name: &str| Tensor::read_npy(name).unwrap().to_dtype(DType::F64).unwrap();
        let off = (rows(&file) - rows(&path(&format!("{name}.npy")))).unwrap().abs().unwrap().flatten_all().unwrap();
        let off = off.max(0).unwrap().to_scalar::<f64>().unwrap();
        println!("{network}, {name}: {off:e}");
        assert!(off < BOUND, "{network}, {name}: off by {off:e}");
        out.push(file);
    }
    let exported = path("exported");
    ctk(&["export", &run, "--format", "transformers", "--out", &exported]);
    [exported, photos, path("texts.txt"), out[0].clone(), out[1].clone()].join("\t")
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn pairs_of_towers_come_and_go() {
    let all = ["transformers:clip", "transformers:siglip", "open_clip:erf"];
    let folder = tempfile::tempdir().unwrap();
    python(&[&["make", folder.path().to_str().unwrap()][..], &all].concat());
    let asked: Vec<String> = all.iter().map(|network| same(&folder.path().join(network), network)).collect();
    let file = folder.path().join("asked");
    std::fs::write(&file, asked.join("\n")).unwrap();
    let said = python(&["check", file.to_str().unwrap()]);
    let found: Vec<Vec<f64>> = said
        .lines()
        .filter_map(|line| Some(line.strip_prefix("off ")?.split(' ').map(|number| number.parse().unwrap()).collect()))
        .collect();
    assert_eq!(found.len(), all.len(), "{said}");
    for (network, numbers) in all.iter().zip(found) {
        let bias = if network.contains("siglip") { -3.25 } else { 0.0 };
        assert!(numbers[0] < BOUND, "{network}: off by {:e}", numbers[0]);
        assert!((numbers[1] - 2.5).abs() < 1e-5 && (numbers[2] - bias).abs() < 1e-5, "{network}: {numbers:?}");
    }
}
