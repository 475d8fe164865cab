//! Runs that are continued: made longer, used to begin another, moved; and the messages for wrong commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; what was said on stderr and stdout.
fn said(folder: &Path, arguments: &[&str]) -> (String, String) {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    (stderr, String::from_utf8(output.stdout).unwrap())
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let (_, stdout) = said(folder, arguments);
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects exit code 2 and an error that contains each of `parts`.
fn refused(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: `{part}` is missing in:\n{stderr}");
    }
}

/// A recipe of a very small run: twelve images of 8 pixels, batches of four.
const SMALL: &str = "[data]\ntrain = 12\ntest = 6\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 4\n[schedule]\nwarmup = 0.5\n[train]\nepochs = 2\nbatch = 4\nloaders = 0\n[eval.knn]\nevery = 1\n";

fn small(folder: &Path) {
    fs::write(folder.join("small.toml"), SMALL).unwrap();
}

fn recipe(run: &Path) -> String {
    fs::read_to_string(run.join("recipe.toml")).unwrap()
}

#[test]
fn a_run_is_made_longer_and_what_the_schedule_does_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    small(at);
    let first = json(at, &["train", "vision", "--config", "small.toml", "--out", "run", "--json", "--quiet"]);
    assert_eq!(first["steps"], 6);
    assert!(recipe(&at.join("run")).contains("length = \"steps\""), "a new run stores what its schedule is counted by");
    let (stderr, stdout) = said(at, &["train", "vision", "--resume", "run", "--set", "train.epochs=4", "--json"]);
    assert!(stderr.contains("now lasts 4 epochs, not 2") && stderr.contains("schedule"), "{stderr}");
    let told: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&told["steps"], &told["epochs"]), (&Value::from(12), &Value::from(4.0)));
    assert!(recipe(&at.join("run")).contains("epochs = 4"));
    // The longer run is finished: a third command has nothing to do.
    let (stderr, _) = said(at, &["train", "vision", "--resume", "run"]);
    assert!(stderr.contains("finished already"), "{stderr}");
    for key in ["train.batch=8", "optimizer.sgd.rate=1", "data.train=20", "loss.infonce={}"] {
        let name = key.split('=').next().unwrap();
        refused(at, &["train", "vision", "--resume", "run", "--set", key], &[name, "cannot change", "train.epochs", "--init"]);
    }
}

#[test]
fn the_end_says_how_good_it_is_and_what_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    small(at);
    let (_, stdout) = said(at, &["train", "vision", "--config", "small.toml", "--out", "my run", "--quiet"]);
    assert!(stdout.contains("nearest neighbours, top-1 accuracy on held-out images: "), "{stdout}");
    assert!(stdout.contains("next:\n  ctk eval linear-probe 'my run' --baseline\n"), "{stdout}");
    assert!(stdout.contains("ctk finetune 'my run'"), "{stdout}");
}

#[test]
fn a_run_of_images_begins_with_another() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    small(at);
    said(at, &["train", "vision", "--config", "small.toml", "--out", "first", "--quiet"]);
    // A rate of 0 leaves the parameters unchanged; running statistics move.
    let still = ["--set", "optimizer.sgd.rate=1e-30", "--set", "train.max_steps=1", "--quiet"];
    let weights = |run: &str| {
        let step = fs::read_dir(at.join(run).join("checkpoints")).unwrap().map(|e| e.unwrap().path()).max().unwrap();
        fs::read(step.join("head.safetensors")).unwrap()
    };
    said(at, &[&["train", "vision", "--init", "first", "--out", "second"][..], &still].concat());
    assert!(weights("first").len() == weights("second").len());
    let (stderr, _) = said(
        at,
        &["train", "vision", "--init", "first", "--out", "third", "--set", "head.layers=1", "--set", "train.max_steps=1"],
    );
    assert!(stderr.contains("begins as that of") && stderr.contains("projection head is new"), "{stderr}");
    // The run that it began with may be deleted: the new one has its own values.
    fs::remove_dir_all(at.join("first")).unwrap();
    said(at, &["train", "vision", "--resume", "third", "--set", "train.max_steps=2", "--quiet"]);
    refused(at, &["train", "vision", "--init", "second", "--set", "encoder.resnet.width=0.5"], &["another encoder", "--init"]);
    refused(at, &["train", "vision", "--init", "nowhere"], &["nowhere"]);
}

#[test]
fn paths_are_beside_the_recipe_and_a_run_opens_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::create_dir_all(at.join("work/texts")).unwrap();
    fs::create_dir_all(at.join("elsewhere")).unwrap();
    fs::write(at.join("work/texts/a.txt"), "one two three four five six seven\n".repeat(200)).unwrap();
    let words = "[data]\npath = \"texts/a.txt\"\n[vocabulary]\nmin_count = 1\n[pairs]\nsubsample = 0.0\n[encoder.table]\nwidth = 8\n\
        [train]\nepochs = 1\nbatch = 50\nloaders = 0\n";
    fs::write(at.join("work/words.toml"), words).unwrap();
    // From another folder, with a recipe whose path is relative to its own folder.
    said(&at.join("elsewhere"), &["train", "word2vec", "--config", "../work/words.toml", "--out", "run", "--quiet"]);
    let stored = recipe(&at.join("elsewhere/run"));
    let whole = fs::canonicalize(at.join("work/texts/a.txt")).unwrap();
    let path = stored.lines().find(|line| line.starts_with("path")).unwrap().split('"').nth(1).unwrap();
    assert!(Path::new(path).is_absolute() && fs::canonicalize(path).unwrap() == whole, "{stored}");
    let (_, stdout) = said(at, &["neighbors", "elsewhere/run", "two", "--quiet"]);
    assert!(stdout.contains("three") || stdout.contains("one"), "{stdout}");
    // --data is relative to the current folder.
    said(&at.join("work"), &["train", "word2vec", "--config", "words.toml", "--data", "texts", "--out", "again", "--quiet"]);
    assert!(recipe(&at.join("work/again")).contains(&format!("path = \"{}", at.join("work").display())));
}

#[test]
fn what_users_of_other_programs_write_gets_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (flag, key) in [("--epochs=10", "train.epochs"), ("--lr=0.1", ".rate"), ("--batch-size=64", "train.batch")] {
        refused(at, &["train", "vision", flag], &["tip: ", "--set ", key]);
    }
    refused(at, &["train", "vision", "--epochs", "10"], &["--set train.epochs=…"]);
    refused(at, &["train", "vision", "photos/"], &["--data photos/"]);
    refused(at, &["train", "vision", "--set", "epochs=10"], &["--set epochs", "no such key", "did you mean", "train.epochs"]);
    refused(at, &["train", "vision", "--set", "nonsense=10"], &["no such key", "ctk config keys vision"]);
    refused(at, &["train", "vision", "--set", "loss.simclr={}"], &["simclr", "did you mean `nt-xent`?"]);
    refused(at, &["train", "vision", "--set", "train.epochs=many"], &["the text \"many\"", "a whole number"]);
    refused(at, &["train", "vision", "--set", "train.batch=1"], &["at least 2"]);
    refused(at, &["train", "vision", "--set", "schedule.decay=step"], &["unknown choice `step`"]);
}

#[test]
fn every_key_can_be_printed() {
    let folder = tempfile::tempdir().unwrap();
    let (_, all) = said(folder.path(), &["config", "keys", "vision"]);
    assert!(all.contains("train.batch: a whole number, by default 256\n") && all.contains("loss.moco.queue: "), "{all}");
    let (_, part) = said(folder.path(), &["config", "keys", "word2vec", "train."]);
    let keys: Vec<&str> = part.lines().filter(|line| !line.starts_with(' ')).collect();
    assert!(keys.len() > 5 && keys.iter().all(|key| key.starts_with("train.")), "{part}");
    let told = json(folder.path(), &["config", "keys", "vision", "schedule", "--json"]);
    assert_eq!(told["keys"][0]["key"], "schedule.warmup");
    refused(folder.path(), &["config", "keys", "vision", "lr"], &["no key of vision", "optimizer.sgd.rate"]);
}

#[test]
fn odd_schedules_are_said_and_one_image_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    small(at);
    let train = |out: &str, set: &[&str]| {
        let sets: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
        said(at, &[&["train", "vision", "--config", "small.toml", "--out", out][..], &sets].concat()).0
    };
    let long = train("long", &["schedule.warmup=5"]);
    assert!(long.contains("warm-up of 15 steps") && long.contains("schedule.warmup"), "{long}");
    let low = train("low", &["optimizer.sgd.rate=1e-40"]);
    assert!(low.contains("moves no weight"), "{low}");
    assert!(!train("usual", &[]).contains("warm-up"));
    refused(at, &["train", "vision", "--config", "small.toml", "--set", "data.train=1"], &["one image"]);
}

#[test]
fn what_an_evaluation_finds_is_kept_in_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    small(at);
    said(at, &["train", "vision", "--config", "small.toml", "--out", "run", "--quiet"]);
    let knn = json(at, &["eval", "knn", "run", "--json"]);
    json(at, &["eval", "geometry", "run", "--json"]);
    let kept = fs::read_to_string(at.join("run/evals.jsonl")).unwrap();
    let lines: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["eval"].as_str().unwrap()).collect::<Vec<_>>(), ["knn", "geometry"]);
    assert_eq!((&lines[0]["figures"], &lines[0]["step"], &lines[0]["data"]), (&knn, &Value::from(6), &Value::Null));
    // A checkpoint is not a run, and stores no evaluations.
    json(at, &["eval", "geometry", "run/checkpoints/6", "--json"]);
    assert_eq!(fs::read_to_string(at.join("run/evals.jsonl")).unwrap(), kept);
}
