//! `checkpoint.keep_best` from a user's view: what decides about the best checkpoint, that it opens, and that test labels have no
//! influence.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, command: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(command.split_whitespace()).output().expect("ctk starts")
}

/// Runs with `--json` and expects success; the last line of stdout, and stderr.
fn said(folder: &Path, command: &str) -> (Value, String) {
    let output = ctk(folder, &format!("{command} --json"));
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{command}\n{stderr}");
    (serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}")), stderr)
}

fn json(folder: &Path, command: &str) -> Value {
    said(folder, command).0
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))).unwrap()
}

/// The result of training: each file of a checkpoint and its digest.
fn weights(checkpoint: &Path) -> Value {
    read(checkpoint.join("manifest.json"))["files"].clone()
}

/// An IDX data set of gray squares: 3 classes, 30 training images and, if `turn` says by how much their labels are rotated, 15 test images.
fn idx(folder: &Path, turn: Option<u8>) {
    let part = |name: &str, count: u8, turn: u8| {
        let mut images = [&[0u8, 0, 8, 3][..], &u32::from(count).to_be_bytes(), &[0, 0, 0, 16, 0, 0, 0, 16]].concat();
        let mut labels = [&[0u8, 0, 8, 1][..], &u32::from(count).to_be_bytes()].concat();
        for i in 0..count {
            let class = i % 3;
            let mark = |x: u8, y: u8| (x / 4 + class * (y / 4)).is_multiple_of(2);
            images.extend((0..=255u8).map(|at| if mark(at % 16, at / 16) { 200 } else { 7 * i }));
            labels.push((class + turn) % 3);
        }
        fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    };
    fs::create_dir_all(folder).unwrap();
    part("train", 30, 0);
    if let Some(turn) = turn {
        part("t10k", 15, turn);
    }
}

const TRAIN: &str = "train vision --data data --set encoder.resnet.depth=20 --set encoder.resnet.stem=small \
                     --set encoder.resnet.width=0.25 --set pairs.size=12 --set pairs.eval_size=16 --set train.batch=10 \
                     --set train.epochs=4 --set train.keep=1 --set schedule.warmup=0 --set eval={} --quiet";
const TUNE: &str = "--batch 9 --epochs 4 --set train.save_every=1 --set train.keep=1 --set checkpoint.keep_best=true --quiet";

#[test]
fn no_test_label_says_which_checkpoint_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let everything = |turn: u8| {
        let _ = ["run", "tuned", "student"].map(|run| fs::remove_dir_all(at.join(run)));
        idx(&at.join("data"), Some(turn));
        json(at, &format!("{TRAIN} --set checkpoint.keep_best=true --out run"));
        json(at, &format!("finetune run --labels 100% --rates 0.02,0.2 --folds 2 {TUNE} --out tuned"));
        json(at, &format!("distill tuned --alpha 0.5 {TUNE} --out student"));
        ["run", "tuned", "student"].map(|run| {
            let steps: Vec<usize> = fs::read_dir(at.join(run).join("checkpoints"))
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
                .collect();
            let files: Vec<Value> = steps.iter().map(|step| weights(&at.join(run).join(format!("checkpoints/{step}")))).collect();
            let top1 = json(at, &format!("eval knn {run}"))["top1"].as_f64().unwrap();
            ((read(at.join(run).join("checkpoints/best/best.json")), read(at.join(run).join("held_back.json")), files), top1)
        })
    };
    let (straight, turned) = (everything(0), everything(1));
    for (a, b) in straight.iter().zip(&turned) {
        assert_eq!(a.0, b.0);
    }
    assert!(straight.iter().zip(&turned).any(|(a, b)| a.1 != b.1), "the labels did turn");
}

#[test]
fn the_best_is_told_kept_and_opened() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    idx(&at.join("data"), None);
    let (run, _) = said(at, &format!("{TRAIN} --set checkpoint.keep_best=true --out run"));
    // 30 images, 6 held out for testing; a tenth of the labels of 24, one of each class.
    assert_eq!((&run["best_measure"], &run["best_on"]), (&"knn_top1".into(), &"a tenth of the training labels".into()), "{run}");
    let best = read(at.join("run/checkpoints/best/best.json"));
    assert_eq!((&run["best_step"], &run["best_value"], &best["samples"]), (&best["step"], &best["value"], &3.into()));
    let (tested, held) = (read(at.join("run/splits.json")), read(at.join("run/held_back.json")));
    let names = |of: &Value| of["held_out"].as_array().unwrap().clone();
    assert!(names(&held).len() == 3 && names(&held).iter().all(|name| !names(&tested).contains(name)));
    json(at, "eval linear-probe run/checkpoints/best");

    // Fine-tuning leaves these images out, with a note; its trials are not measured.
    let tune = format!("finetune run/checkpoints/best --labels 100% --rates 0.02,0.2 --folds 2 {}", TUNE.replace(" --quiet", ""));
    let (tuned, stderr) = said(at, &format!("{tune} --out tuned"));
    assert!(stderr.contains("decided by 3 of the 24 labels, which are held back and not trained on"), "{stderr}");
    assert!(stderr.contains("training on all 21 by rate"), "{stderr}");
    assert!(tuned["best_measure"] == "top1" && tuned["best_step"].is_u64() && tuned["best_value"].is_f64(), "{tuned}");
    let classified = json(at, "eval classify tuned/checkpoints/best --calibrate --quiet");
    // These images were not trained on, so a temperature can be fitted on them.
    assert_eq!((&classified["calibration_set"], &classified["calibrated_on"]), (&"labels-not-given".into(), &3.into()));
    // The printed report, and the next command.
    let told = String::from_utf8(ctk(at, "train vision --resume tuned --quiet").stdout).unwrap();
    for part in ["best step", "best checkpoint: step ", "on 3 images (a tenth of", "ctk eval classify tuned/checkpoints/best"] {
        assert!(told.contains(part), "`{part}` is missing in:\n{told}");
    }
    // A run that is resumed from an earlier checkpoint finds the same best one.
    let kept = weights(&at.join("tuned/checkpoints").join(tuned["best_step"].to_string()));
    let last = weights(Path::new(&at.join(tuned["checkpoint"].as_str().unwrap())));
    let one = tune.replace("0.02,0.2", "0.2");
    let straight = json(at, &format!("{one} --out straight --quiet"));
    json(at, &format!("{one} --set train.keep=9 --set train.max_steps=6 --out again --quiet"));
    let again = json(at, "train vision --resume again --set train.max_steps=1000 --set train.keep=1 --quiet");
    assert_eq!((&again["best_step"], &again["best_value"]), (&straight["best_step"], &straight["best_value"]));
    let files = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert!(files(&kept).contains(&"best.json".to_string()) && files(&last) == files(&kept));
}

#[test]
fn a_loss_that_looks_at_labels_does_without_those_held_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    idx(&at.join("data"), Some(0));
    let steps = |more: &str| {
        let run = json(at, &format!("{TRAIN} --set train.batch=9 --set train.epochs=1 --set loss.supcon={{}} {more}"));
        run["steps"].as_u64().unwrap()
    };
    // 30 images are three batches of nine, and so are 27; 26 would be two.
    assert_eq!((steps("--out a"), steps("--set checkpoint.keep_best=true --out b")), (3, 3));
    let labelled = |more: &str| ctk(at, &format!("{} {more}", TRAIN.replace(" --quiet", "")));
    let told = labelled("--set train.batch=28 --set train.epochs=1 --set loss.supcon={} --set checkpoint.keep_best=true --out c");
    assert!(String::from_utf8(told.stderr).unwrap().contains("the batch is all 27 images"), "the batch is of what is left");
}

#[test]
fn data_without_labels_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir_all(at.join("flat")).unwrap();
    ["a", "b"].iter().for_each(|name| assert!(ctk(at, &format!("preview --out flat/{name}.png")).status.success()));
    let refused = |command: &str, parts: &[&str]| {
        let output = ctk(at, command);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}\n{stderr}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{parts:?} in\n{stderr}");
        assert!(!at.join("out").exists(), "something was left behind");
    };
    let flat = TRAIN.replace("--data data", "--data flat");
    refused(&format!("{flat} --set checkpoint.keep_best=true --out out"), &["checkpoint.keep_best", "none", "hint: ", "classes"]);
    refused(&format!("{flat} --set checkpoint.keep_bset=true --out out"), &["keep_bset", "keep_best"]);
    // Too few labels to hold any back.
    idx(&at.join("data"), Some(0));
    json(at, &format!("{TRAIN} --out run"));
    let few = format!("finetune run --labels 1-per-class --rates 0.02 {TUNE} --out out");
    refused(&few, &["could be held out", "checkpoint.keep_best", "hint: ", "two different images"]);
}
