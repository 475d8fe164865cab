//! Changes and losses since a run was saved are noticed when it is resumed, and only one process trains in a folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const RECIPE: &str = "[data]\npath = \"photos\"\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 8\n[schedule]\nwarmup = 1\n[train]\nepochs = 3\nbatch = 6\n[checkpoint]\nevery = \"1 epoch\"\n";

fn ctk(at: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(args.split(' ')).output().unwrap()
}

/// Runs and expects success; what was said on stderr.
fn said(at: &Path, args: &str) -> String {
    let output = ctk(at, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args}\n{stderr}");
    stderr
}

/// Runs and expects an error with `code` that contains each of `parts`.
fn fails(at: &Path, args: &str, code: i32, parts: &[&str]) {
    let output = ctk(at, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args}: `{part}` is missing in:\n{stderr}");
    }
}

fn photo(at: &Path, name: &str, shade: u8) {
    let path = at.join("photos").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let pixel = |p: u8| shade.wrapping_add(p.wrapping_mul(37) % 40);
    fs::write(path, [b"P5 8 8 255\n".to_vec(), (0..64).map(pixel).collect()].concat()).unwrap();
}

/// A folder with twelve photos and a recipe.
fn prepared(at: &Path, recipe: &str) {
    (0..12u8).for_each(|i| photo(at, &format!("{i:02}.pgm"), i * 11));
    fs::write(at.join("recipe.toml"), recipe).unwrap();
}

/// The same, and a run of three epochs on them.
fn trained(at: &Path) {
    prepared(at, RECIPE);
    said(at, "train vision --config recipe.toml --out run --quiet");
}

fn edit(path: &Path, was: &str, is: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(was), "{was} in {text}");
    fs::write(path, text.replacen(was, is, 1)).unwrap();
}

const RESUME: &str = "train vision --resume run";

#[test]
fn a_recipe_that_was_edited_is_told_by_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    let recipe = at.join("run/recipe.toml");
    edit(&recipe, "epochs = 3", "epochs = 4");
    let stderr = said(at, RESUME);
    assert!(stderr.contains("train.epochs from 3 to 4") && stderr.contains("recipe.toml was edited"), "{stderr}");
    edit(&recipe, "batch = 6", "batch = 4");
    edit(&recipe, "epochs = 4", "epochs = 5");
    fails(
        at,
        RESUME,
        2,
        &["was edited", "train.batch from 6 to 4", "run/recipe.toml", "hint: ", "--init", "--accept-changes", "train.epochs"],
    );
    let stderr = said(at, &format!("{RESUME} --accept-changes"));
    assert!(stderr.contains("train.batch from 6 to 4"), "{stderr}");
    // The change was accepted, and the new checkpoint has it.
    assert!(!said(at, RESUME).contains("train.batch"), "told once");
}

#[test]
fn a_run_that_is_to_have_fewer_steps_than_it_has_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    let manifest = at.join("run/checkpoints/6/manifest.json");
    let before = fs::read(&manifest).unwrap();
    let stderr = said(at, &format!("{RESUME} --set train.max_steps=2"));
    assert!(stderr.contains("this run has 6 steps, and its recipe now ends after 2: nothing left to train"), "{stderr}");
    assert_eq!(fs::read(&manifest).unwrap(), before);
    assert!(!at.join("run/checkpoints/2").exists());
}

#[test]
fn data_that_changed_is_refused_and_data_that_moved_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    let longer = |epochs: usize| format!("{RESUME} --set train.epochs={epochs}");
    photo(at, "12.pgm", 3);
    fails(at, &longer(4), 2, &["the data is not what this run was trained on", "hint: ", "--accept-changes"]);
    fs::remove_file(at.join("photos/12.pgm")).unwrap();
    said(at, &longer(4));
    photo(at, "03.pgm", 200);
    fails(at, &longer(5), 2, &["the data is not what this run was trained on"]);
    let stderr = said(at, &format!("{} --accept-changes", longer(5)));
    assert!(stderr.contains("not what this run was trained on so far"), "{stderr}");
    fs::rename(at.join("photos/04.pgm"), at.join("photos/0x.pgm")).unwrap();
    fails(at, &longer(6), 2, &["the data is not what"]);

    // Words: files in another order, another word.
    for (name, text) in [("a.txt", "one two three four\n"), ("b.txt", "five six seven eight\n")] {
        fs::write(at.join(name), text.repeat(300)).unwrap();
    }
    let small = "--set vocabulary.min_count=1 --set pairs.subsample=0.0 --set encoder.table.width=8 --set train.epochs=1";
    said(at, &format!("train word2vec --data a.txt --data b.txt {small} --out words --quiet"));
    let words = "train word2vec --resume words --set train.epochs=2";
    edit(&at.join("a.txt"), "one two three", "two one three");
    fails(at, words, 2, &["the data is not what this run was trained on"]);
    edit(&at.join("a.txt"), "two one three", "one two three");
    said(at, words);
}

#[test]
fn a_damaged_checkpoint_is_named_and_an_older_one_is_used_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    let newest = at.join("run/checkpoints/6/model.safetensors");
    let mut bytes = fs::read(&newest).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&newest, bytes).unwrap();
    for verb in
        ["embed run --out a.npy", "export run --format safetensors --out a.st", "eval geometry run", "finetune run --labels 50%"]
    {
        fails(
            at,
            verb,
            1,
            &["the newest checkpoint of this run, of step 6, is damaged", "6/model.safetensors", "run/checkpoints/4", "hint: "],
        );
    }
    said(at, "embed run/checkpoints/4 --out a.npy");
    let stderr = said(at, RESUME);
    assert!(stderr.contains("the checkpoint of step 6 is passed over") && stderr.contains("6/model.safetensors"), "{stderr}");
    // The cached file was made again.
    said(at, "embed run --out b.npy");
}

#[test]
fn small_files_and_metrics_of_a_run_are_looked_at_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for i in 0..24u8 {
        photo(at, &format!("{}/{i:02}.pgm", i % 2), i * 9);
    }
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    said(at, "train vision --config recipe.toml --out run --quiet");
    let (splits, metrics) = (at.join("run/splits.json"), at.join("run/metrics.jsonl"));
    let whole = fs::read_to_string(&metrics).unwrap();
    edit(&metrics, "\"loss\":", "\"lass\":");
    let stderr = said(at, &format!("{RESUME} --set train.epochs=4"));
    assert!(stderr.contains("metrics.jsonl is not as this run wrote it"), "{stderr}");
    fs::write(&metrics, &whole[..whole.len() / 2]).unwrap();
    assert!(said(at, RESUME).contains("metrics.jsonl is not as this run wrote it"));
    let text = fs::read_to_string(&splits).unwrap();
    edit(&splits, "\"seed\": 0", "\"seed\": 1");
    fails(at, RESUME, 1, &["not as it was written", "run/splits.json"]);
    fails(at, "eval knn run", 1, &["not as it was written", "splits.json"]);
    fs::remove_file(&splits).unwrap();
    fails(at, RESUME, 1, &["is missing", "run/splits.json", "hint: "]);
    fails(at, "eval knn run", 1, &["is missing", "splits.json", "hint: "]);
    fs::write(&splits, text).unwrap();
    said(at, RESUME);
}

#[test]
#[cfg(unix)]
fn a_pipe_in_the_place_of_a_file_of_a_run_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    for name in ["lock", "metrics.jsonl"] {
        let (path, kept) = (at.join("run").join(name), at.join("kept"));
        fs::rename(&path, &kept).unwrap();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        fails(at, RESUME, 2, &["this is a named pipe", name]);
        fs::rename(&kept, &path).unwrap();
    }
    assert!(Command::new("mkfifo").arg(at.join("run/evals.jsonl")).status().unwrap().success());
    let stderr = said(at, "eval geometry run");
    assert!(stderr.contains("evals.jsonl is not a file, so the figures are not kept there"), "{stderr}");
}

#[test]
fn a_folder_that_was_only_begun_is_begun_again_and_one_that_holds_anything_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    for (name, files) in [("empty", &[][..]), ("killed", &["lock", ".tmp-recipe.toml-77", "metrics.jsonl"])] {
        fs::create_dir(at.join(name)).unwrap();
        files.iter().for_each(|file| fs::write(at.join(name).join(file), "").unwrap());
        said(at, &format!("train vision --config recipe.toml --out {name} --quiet"));
        assert!(!at.join(name).join(".tmp-recipe.toml-77").exists(), "what was left is swept away");
    }
    fs::create_dir(at.join("full")).unwrap();
    fs::write(at.join("full/notes.txt"), "mine").unwrap();
    fails(at, "train vision --config recipe.toml --out full", 2, &["this folder is not empty", "full", "hint: "]);
    assert_eq!(fs::read_dir(at.join("full")).unwrap().count(), 1);
}

#[test]
fn a_run_whose_folder_was_filled_while_it_waited_does_not_write_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_ctk"));
    waiting.current_dir(at).args(["train", "word2vec", "--data", "-", "--out", "run", "--set", "vocabulary.min_count=1"]);
    let mut waiting =
        waiting.args(["--set", "pairs.subsample=0.0"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    said(at, "train word2vec --out run --set data.words=20000 --set train.epochs=1 --quiet");
    let before = fs::read(at.join("run/recipe.toml")).unwrap();
    let mut text = waiting.stdin.take().unwrap();
    std::io::Write::write_all(&mut text, "one two three four\n".repeat(500).as_bytes()).unwrap();
    drop(text);
    let output = waiting.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("this folder is not empty"), "{stderr}");
    assert_eq!(fs::read(at.join("run/recipe.toml")).unwrap(), before);
}

#[test]
fn a_folder_that_goes_while_it_is_trained_in_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepared(at, &RECIPE.replace("epochs = 3", "epochs = 100000"));
    let mut ctk = Command::new(env!("CARGO_BIN_EXE_ctk"));
    let ctk = ctk.current_dir(at).args(["train", "vision", "--config", "recipe.toml", "--out", "run"]);
    let child = ctk.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let clock = Instant::now();
    while !at.join("run/checkpoints/4").exists() && clock.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::rename(at.join("run"), at.join("away")).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("was removed during training") && stderr.contains("hint: "), "{stderr}");
    assert!(!at.join("run").exists(), "it is not made again");
    // What was saved is complete, wherever it is now.
    said(at, "embed away --out a.npy");
}

#[test]
fn a_rate_beyond_all_numbers_is_an_error_and_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    trained(at);
    let wild = "--set optimizer.sgd.rate=1e300 --set schedule.warmup=0 --set train.max_steps=1";
    fails(at, &format!("train vision --config recipe.toml {wild} --out wild"), 2, &["optimizer.sgd.rate", "1e300"]);
    assert!(!at.join("wild").exists(), "nothing is left of a run that saved nothing");
    fails(at, "train vision --config recipe.toml --set train.on_nonfinite=ignore", 2, &["ignore", "stop", "skip"]);
    let told: Value = {
        let output = ctk(at, "train vision --config recipe.toml --set train.on_nonfinite=skip --out fine --json --quiet");
        serde_json::from_str(String::from_utf8(output.stdout).unwrap().lines().last().unwrap()).unwrap()
    };
    assert!(told["effective_rank"].as_f64().is_some_and(|rank| rank > 1.0) && told.get("left_out").is_none(), "{told}");
}
