//! Few labels from a user's view: fine-tuning, distillation, the study of both; and that no test label changes a byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs `command` (words apart by spaces) with `--json`, expects success; the last line of stdout.
fn json(folder: &Path, command: &str) -> Value {
    let arguments: Vec<&str> = command.split(' ').chain(["--json"]).collect();
    let output = ctk(folder, &arguments);
    assert!(output.status.success(), "{command}\n{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects exit code 2 and an error that says each of `parts`.
fn fails(folder: &Path, command: &str, parts: &[&str]) {
    let output = ctk(folder, &command.split(' ').collect::<Vec<_>>());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{command}\n{stderr}");
    assert!(parts.iter().all(|part| stderr.contains(part)) && !stderr.contains("panicked"), "{parts:?} in\n{stderr}");
    assert!(!folder.join("out").exists(), "something was left behind");
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))).unwrap()
}

/// Every file below a folder, with its bytes.
fn bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The result of training: each file of the last checkpoint and its digest.
fn weights(folder: &Path, run: &Value) -> Value {
    read(folder.join(run["checkpoint"].as_str().unwrap()).join("manifest.json"))["files"].clone()
}

const NETWORK: &str = "--set encoder.resnet.width=0.25 --set pairs.size=12 --set pairs.eval_size=16";

/// A pretrained run `run` of a few steps, on generated images or on the data at `data`.
fn pretrained(folder: &TempDir, data: Option<&str>) -> Value {
    pretrained_by(folder, data, "")
}

/// The same with another method, given as further settings.
fn pretrained_by(folder: &TempDir, data: Option<&str>, method: &str) -> Value {
    let data = data.map_or("--set data.train=90 --set data.test=45".to_string(), |data| format!("--data {data}"));
    let few = "--set train.batch=16 --set train.epochs=1 --set train.max_steps=3 --set schedule.warmup=0 --set eval={}";
    let recipe = "--config config.toml";
    let text = "[encoder.resnet]\ndepth = 20\n[optimizer.sgd]\nrate = 0.1\n[eval]\n";
    fs::write(folder.path().join("config.toml"), format!("# a comment of pretraining\n{text}")).unwrap();
    json(folder.path(), &format!("train vision {recipe} {data} {NETWORK} {few}{method} --out run --quiet"))
}

const FEW: &str = "--batch 16 --epochs 2 --rates 0.02";

/// An IDX data set of gray squares: 3 classes, 8 training images and 5 test images of each; test labels turned by `turn`.
fn idx(folder: &Path, test: bool, turn: u8) {
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
    part("train", 24, 0);
    if test {
        part("t10k", 15, turn);
    }
}

#[test]
fn whatever_method_pretrained_it_is_tuned_and_teaches() {
    let folder = tempfile::tempdir().unwrap();
    let method = " --set loss.byol.momentum=0.9 --set predictor.hidden=8 --set train.bn_groups=2 --set train.part=8";
    pretrained_by(&folder, None, method);
    let tuned = json(folder.path(), &format!("finetune run --labels 4-per-class {FEW} --out tuned --quiet"));
    assert_eq!(tuned["start"], "pretrained");
    let taught = json(folder.path(), "distill tuned --batch 16 --epochs 1 --out taught --quiet");
    assert_eq!(taught["start"], "pretrained");
}

#[test]
fn a_fine_tuned_run_is_a_run_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pretrained(&folder, None);
    let before = bytes(&path.join("run"));
    let tuned =
        json(path, "finetune run --labels 4-per-class --batch 16 --epochs 1,2 --rates 0.02,0.08 --folds 2 --out out --quiet");
    assert_eq!(bytes(&path.join("run")), before, "the run that it starts from stays as it was");
    assert_eq!((&tuned["labels"], &tuned["labelled"], &tuned["test"]), (&"4-per-class".into(), &36.into(), &45.into()));
    assert!(
        tuned["top1"].as_f64().is_some() && tuned["fold_top1"].as_f64().is_some() && tuned["start"] == "pretrained",
        "{tuned}"
    );
    // Four candidates on two folds of 18 images each.
    let trials = read(path.join("out/search.json"));
    assert_eq!(trials.as_array().unwrap().len(), 8);
    assert!(trials.as_array().unwrap().iter().all(|t| t["held_out"] == 18 && t["loss"].as_f64().is_some()), "{trials}");
    let best = |of: fn(&Value) -> u64| trials.as_array().unwrap().chunks(2).map(|two| two.iter().map(of).sum::<u64>()).max();
    assert_eq!(tuned["fold_top1"], best(|t| t["hits"].as_u64().unwrap()).unwrap() as f64 / 36.0);
    assert_eq!(read(path.join("out/labels.json"))["names"].as_array().unwrap().len(), 36);
    let recipe = fs::read_to_string(path.join("out/recipe.toml")).unwrap();
    assert!(
        recipe.contains("task.finetune") && !recipe.contains("comment of pretraining") && !recipe.contains("[loss"),
        "{recipe}"
    );
    // The same run again, and every verb that takes a run.
    let again = json(path, "train vision --resume out --quiet");
    assert_eq!((&again["top1"], &again["rate"]), (&tuned["top1"], &tuned["rate"]));
    let embedded = json(path, "embed out --out rows.npy");
    assert_eq!((&embedded["rows"], &embedded["width"]), (&135.into(), &16.into()));
    assert!(json(path, "eval linear-probe out")["top1"].as_f64().is_some());
    assert!(ctk(path, &["export", "out", "--format", "safetensors", "--out", "model.safetensors"]).status.success());
    fs::remove_file(path.join("model.safetensors")).unwrap();
    // Distilled into the same network, and into another one.
    let own = json(path, "distill out --epochs 1 --batch 16 --out self --quiet");
    assert_eq!((&own["start"], &own["temperature"], &own["images"]), (&"pretrained".into(), &0.1.into(), &90.into()));
    assert_eq!(own["teacher_top1"], tuned["top1"]);
    fs::write(path.join("small.toml"), "[pairs]\nsize = 12\neval_size = 16\n[encoder.resnet]\ndepth = 32\nwidth = 0.5\n")
        .unwrap();
    let other = json(path, "distill out --student small.toml --alpha 0.5 --epochs 1 --batch 16 --out small --quiet");
    assert_eq!((&other["start"], &other["temperature"]), (&"scratch".into(), &1.0.into()));
    assert_eq!(read(path.join("small/labels.json")), read(path.join("out/labels.json")), "the labels are the teacher's");
}

#[test]
fn tasks_are_resumed_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pretrained(&folder, None);
    let often = "--epochs 3 --batch 16 --set train.save_every=1 --quiet";
    for (run, command) in [
        ("a", format!("finetune run --labels 4-per-class --rates 0.02 {often} --out a")),
        ("b", format!("distill a --alpha 0.5 {often} --out b")),
    ] {
        let straight = json(path, &command);
        let newest = path.join(straight["checkpoint"].as_str().unwrap());
        let expected = weights(path, &straight);
        // As if the last epoch had never been run.
        fs::remove_dir_all(newest).unwrap();
        let resumed = json(path, &format!("train vision --resume {run} --quiet"));
        assert_eq!((weights(path, &resumed), &resumed["top1"]), (expected, &straight["top1"]), "{command}");
    }
}

#[test]
fn the_same_seed_gives_every_method_the_same_labels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pretrained(&folder, None);
    let tuned = json(path, &format!("finetune run --labels 10% {FEW} --seed 3 --out a --quiet"));
    let again = json(path, &format!("finetune run --labels 10% {FEW} --seed 3 --out b --quiet"));
    assert_eq!(weights(path, &tuned), weights(path, &again), "the same run, to the byte");
    let scratch = json(path, &format!("finetune run --labels 10% {FEW} --seed 3 --from-scratch --out c --quiet"));
    assert_ne!(weights(path, &tuned), weights(path, &scratch));
    assert!(scratch["start"] == "scratch" && scratch["steps"].as_u64() >= tuned["steps"].as_u64(), "{scratch}");
    let frozen = json(path, &format!("finetune run --labels 10% {FEW} --seed 3 --bn frozen --optimizer sgd --out d --quiet"));
    assert_ne!(weights(path, &tuned), weights(path, &frozen));
    let labels = |run: &str| read(path.join(run).join("labels.json"));
    assert!([labels("b"), labels("c"), labels("d")].iter().all(|of| *of == labels("a")));
    json(path, &format!("finetune run --labels 50% {FEW} --seed 3 --from-layer 0 --out e --quiet"));
    let names = |run: &str| labels(run)["names"].as_array().unwrap().clone();
    assert!(names("e").len() == 45 && names("a").iter().all(|name| names("e").contains(name)), "subsets are nested");
    json(path, &format!("finetune run --labels 10% {FEW} --seed 4 --out f --quiet"));
    assert_ne!(names("f"), names("a"));
    let kept = |run: &str| bytes(&path.join(run)).into_iter().filter(|(name, _)| name != "evals.jsonl").collect::<Vec<_>>();
    let before = kept("run");
    let probe = json(path, "eval linear-probe run --labels 10% --label-seed 3");
    assert_eq!((&probe["train"], &probe["test"]), (&9.into(), &45.into()));
    assert!(kept("run") == before, "a probe leaves every byte of a run as it was, and adds what it found");
}

#[test]
fn no_test_label_changes_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let everything = |turn: u8| {
        let _ = ["run", "a", "b", "c"].map(|run| fs::remove_dir_all(path.join(run)));
        idx(&path.join("data"), true, turn);
        let run = pretrained(&folder, Some("data"));
        let choices = "--labels 50% --batch 8 --epochs 1,2 --rates 0.02,0.2 --folds 2";
        let tuned = json(path, &format!("finetune run {choices} --out a --quiet"));
        let scratch = json(path, &format!("finetune run {choices} --from-scratch --out b --quiet"));
        let distilled = json(path, "distill a --alpha 0.5 --epochs 2 --batch 8 --out c --quiet");
        let probe = json(path, "eval linear-probe run --labels 50%");
        let choice = ["rate", "crop", "epochs", "fold_top1"].map(|key| tuned[key].clone());
        let trials = read(path.join("a/search.json"));
        let top1 = [&tuned, &scratch, &distilled, &probe].map(|of| of["top1"].as_f64().unwrap());
        (
            [&run, &tuned, &scratch, &distilled].map(|run| weights(path, run)),
            choice,
            trials,
            probe["regularisation"].clone(),
            top1,
        )
    };
    let (straight, turned) = (everything(0), everything(1));
    assert_eq!((&straight.0, &straight.1, &straight.2, &straight.3), (&turned.0, &turned.1, &turned.2, &turned.3));
    assert_ne!(straight.4, turned.4, "the labels did turn");
}

#[test]
fn the_hold_out_of_pretraining_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    idx(&path.join("data"), false, 0);
    pretrained(&folder, Some("data"));
    let held = read(path.join("run/splits.json"));
    json(path, &format!("finetune run --labels 50% {FEW} --seed 5 --set train.seed=9 --out a --quiet"));
    assert_eq!(read(path.join("a/splits.json")), held, "what pretraining saw is never tested on");
    json(path, "distill a --epochs 1 --batch 16 --set train.seed=9 --out b --quiet");
    assert_eq!(read(path.join("b/splits.json")), held);
}

#[test]
fn mistakes_are_told_before_a_folder_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pretrained(&folder, None);
    json(path, &format!("finetune run --labels 1-per-class {FEW} --out tuned --quiet"));
    fails(path, "finetune run --labels 0% --out out", &["not an amount of labels", "hint:"]);
    fails(path, "finetune nowhere --labels 1% --out out", &["no run or checkpoint", "hint:"]);
    fails(path, "finetune tuned --labels 1% --out out", &["no projection head", "hint:"]);
    fails(path, "finetune run --labels 1% --set head.layers=2 --from-layer 3 --out out", &["from_layer", "2 layers"]);
    fails(path, "finetune run --labels 1% --set eval.knn.every=1 --out out", &["eval.knn", "once"]);
    fails(path, "finetune run --labels 1% --rates 0.02,0 --out out", &["rates"]);
    fails(path, "finetune run --labels 1% --set encoder.resnet.width=0.5 --out out", &["another network", "hint:"]);
    fails(path, "distill run --out out", &["no classifier", "ctk finetune"]);
    fails(path, "distill tuned --temperature 0 --out out", &["task.distill.temperature", "above 0"]);
    fails(path, "distill tuned --set data.path=nowhere --out out", &["no such file"]);
    idx(&path.join("data"), true, 0);
    fails(path, "distill tuned --data data --out out", &["classes"]);
    json(path, "train word2vec --set train.epochs=1 --out words --quiet");
    for verb in ["finetune words --labels 1%", "distill words", "eval label-efficiency words"] {
        fails(path, &format!("{verb} --out out"), &["word2vec cannot be fine-tuned", "hint:"]);
    }
    fs::create_dir_all(path.join("flat")).unwrap();
    assert!(ctk(path, &["preview", "--out", "flat/a.png"]).status.success());
    fails(path, "finetune run --labels 1% --data flat --out out", &["no labels", "hint:"]);
}

#[test]
fn a_study_is_made_of_pieces_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    pretrained(&folder, None);
    let study = "eval label-efficiency run --labels 1-per-class,4-per-class --seeds 2 --batch 16 --epochs 1 --rates 0.02 \
        --distill-epochs 1 --quiet --out study";
    let found = json(path, study);
    assert_eq!(found["cells"].as_array().unwrap().len(), 16);
    let table = found["top1"].as_array().unwrap();
    assert!(table.len() == 8 && table.iter().all(|cell| cell["seeds"] == 2 && cell["sd"].is_f64()), "{table:?}");
    let differences = found["differences"].as_array().unwrap();
    assert!(
        differences.len() == 12 && differences.iter().all(|d| d["interval"].as_array().unwrap().len() == 2),
        "{differences:?}"
    );
    assert!(found["note"].as_str().unwrap().contains("one pretraining"));
    assert_eq!(read(path.join("study/results.json")), found);
    let csv = fs::read_to_string(path.join("study/results.csv")).unwrap();
    assert!(csv.starts_with("labels,labelled,seed,method,top1\n1-per-class,9,0,scratch,") && csv.lines().count() == 17, "{csv}");
    let svg = fs::read_to_string(path.join("study/plot.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.matches("<polyline").count() == 4, "{svg}");
    // An unfinished cell is made again, the others are found; the figures stay the same.
    let before = bytes(&path.join("study"));
    fs::remove_dir_all(path.join("study/4-per-class-seed-1-distill")).unwrap();
    fs::remove_file(path.join("study/1-per-class-seed-0-finetune/result.json")).unwrap();
    assert_eq!(json(path, study), found);
    let after = bytes(&path.join("study"));
    let weights = |of: &BTreeMap<String, Vec<u8>>| {
        of.clone().into_iter().filter(|(name, _)| name.contains("safetensors")).collect::<Vec<_>>()
    };
    assert_eq!(weights(&before), weights(&after));
    let people = ctk(path, &study.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8(people.stdout).unwrap();
    assert!(text.contains("fine-tune + distil") && text.contains("±") && text.contains("one pretraining"), "{text}");
    fails(path, &format!("{study} --folds 3"), &["another recipe", "hint:"]);
    fails(path, &study.replace("label-efficiency run", "label-efficiency study/1-per-class-seed-0-finetune"), &["another run"]);
}
