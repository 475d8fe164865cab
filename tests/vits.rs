//! Vision transformers from a user's view: every verb takes them as it takes a ResNet, runs resume exactly, and images of other sizes get
//! resampled positions.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, command: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(command.split_whitespace()).output().expect("ctk starts")
}

/// Runs with `--json` and expects success; the last line of stdout.
fn json(folder: &Path, command: &str) -> Value {
    let output = ctk(folder, &format!("{command} --json"));
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{command}\n{stderr}");
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Expects exit code 2 and each of `parts` in stderr.
fn refused(folder: &Path, command: &str, parts: &[&str]) {
    let output = ctk(folder, command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command}\n{stderr}");
    parts.iter().for_each(|part| assert!(stderr.contains(part), "{command}: `{part}` is missing in\n{stderr}"));
}

const NETWORK: &str = "--set encoder.vit.patch=4 --set encoder.vit.width=16 --set encoder.vit.layers=2 --set encoder.vit.heads=2 \
                       --set encoder.vit.registers=2 --set encoder.vit.layer_scale=0.1 --set pairs.size=12";
const SHORT: &str = "--set data.train=48 --set data.test=24 --set train.batch=12 --set schedule.warmup=0 --quiet";

fn weights(run: &Path) -> Value {
    let checkpoint = fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let last = checkpoint.max_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<usize>().unwrap_or(0)).unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(last.join("manifest.json")).unwrap()).unwrap();
    manifest["files"]["model.safetensors"].clone()
}

#[test]
fn every_verb_takes_a_vit() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let train = format!("train vision {NETWORK} {SHORT} --set optimizer.adamw.rate=1e-3 --set train.epochs=2");
    json(at, &format!("{train} --set eval.knn.every=1 --out run"));
    let recipe = fs::read_to_string(at.join("run/recipe.toml")).unwrap();
    assert!(recipe.contains("size = 12"), "the size of the positions is stated:\n{recipe}");

    // Threads, a resumed run, and recomputation give the same bits.
    let whole = weights(&at.join("run"));
    json(at, &format!("{train} --set eval.knn.every=1 --set train.max_steps=3 --out half"));
    json(at, "train vision --resume half --set train.max_steps=100 --quiet");
    assert_eq!(weights(&at.join("half")), whole, "resumed");
    json(at, &format!("{train} --set eval.knn.every=1 --set train.recompute=true --out again"));
    assert_eq!(weights(&at.join("again")), whole, "recomputed");
    let output = Command::new(env!("CARGO_BIN_EXE_ctk"))
        .current_dir(at)
        .args(format!("{train} --set eval.knn.every=1 --out one").split_whitespace())
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(weights(&at.join("one")), whole, "on one thread");

    // Methods with a momentum copy, a predictor, and in mixed precision.
    for more in ["--method moco --set loss.moco.queue=24", "--method byol", "--set train.precision=bf16", "--set train.part=6"] {
        let run = more.replace([' ', '-'], "");
        json(at, &format!("{train} {more} --set eval={{}} --out {run}"));
        assert_ne!(weights(&at.join(&run)), whole, "{more}");
    }

    // Measured, embedded, also at another size; fine-tuned, distilled, asked.
    let knn = json(at, "eval knn run --quiet");
    assert!(knn["top1"].is_f64(), "{knn}");
    json(at, "eval linear-probe run --quiet");
    let tune = "finetune run --labels 2-per-class --rates 0.01 --epochs 1 --batch 8 --optimizer sgd --quiet";
    json(at, &format!("{tune} --out tuned"));
    json(at, &format!("{tune} --set pairs.size=20 --out larger"));
    let larger = fs::read_to_string(at.join("larger/recipe.toml")).unwrap();
    assert!(
        larger.contains("size = 20") && larger.contains("size = 12"),
        "images have 20 pixels, positions are for 12:\n{larger}"
    );
    json(at, "eval classify larger --quiet");
    json(at, "distill tuned --epochs 1 --batch 8 --out student --quiet");
    json(at, "eval classify student --quiet");

    // Another run begins with it; the positions stay those of the first run.
    json(at, &format!("{train} --init run --set pairs.size=16 --set train.max_steps=1 --set eval={{}} --out begun"));
    let begun = fs::read_to_string(at.join("begun/recipe.toml")).unwrap();
    assert!(begun.contains("size = 16") && begun.contains("size = 12"), "{begun}");
}

#[test]
fn vits_are_timed_and_what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let timed = json(at, "bench vision --encoder vit-ti4 --size 8 --batch 4 --steps 1 --quiet");
    assert_eq!((&timed["encoder"], &timed["size"]), (&"ViT-Ti/4".into(), &8.into()), "{timed}");
    refused(at, "bench vision --encoder vit-x16", &["vit-x16", "no such encoder", "vit-s16", "resnet18"]);
    refused(at, "bench vision --encoder vit-s16 --size 40", &["40 pixels", "32 or 48 pixels are"]);
    let train = format!("train vision {NETWORK} {SHORT} --out run");
    refused(at, &format!("{train} --set pairs.size=14"), &["14 pixels", "12 or 16 pixels are", "size = 14"]);
    refused(at, &format!("{train} --set encoder.vit.heads=3"), &["heads must divide the width", "3 heads", "16"]);
    refused(at, &format!("{train} --set encoder.vit.pooling=first"), &["pooling", "class", "mean", "attention"]);
    assert!(!at.join("run").exists());
}
