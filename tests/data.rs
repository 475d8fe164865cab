//! Images in users' usual layouts, through the program: what is printed before training, and what `ctk data check` finds.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    let cache = folder.join("cache");
    Command::new(env!("CARGO_BIN_EXE_ctk"))
        .current_dir(folder)
        .env("CTK_CACHE", cache)
        .args(arguments)
        .output()
        .expect("ctk starts")
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A different picture for each seed, drawn by `ctk preview`.
fn picture(folder: &Path, name: &str, seed: usize) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let seed = format!("train.seed={seed}");
    let arguments = ["preview", "--set", "data.train=4", "--set", "data.test=1", "--set", &seed, "--out", path.to_str().unwrap()];
    assert!(ctk(folder, &arguments).status.success());
}

/// Two steps of a small network.
const QUICK: [&str; 9] = [
    "--set",
    "train.max_steps=2",
    "--set",
    "train.batch=4",
    "--set",
    "encoder.resnet.width=0.25",
    "--set",
    "schedule.warmup=0",
    "--json",
];

#[test]
#[cfg_attr(feature = "heif", ignore = "HEIC and AVIF are read")]
fn a_check_prints_its_figures_and_a_run_says_what_it_understood() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    for (seed, name) in ["Train/cat/1.png", "Train/cat/2.png", "Train/dog/3.png", "Train/dog/4.png", "Test/5.png", "Test/6.png"]
        .into_iter()
        .enumerate()
    {
        picture(at, &format!("photos/{name}"), seed);
    }
    write(at, "photos/Train/dog/bad.png", b"no image");
    write(at, "photos/notes.heic", b"x");

    let checked = ctk(at, &["data", "check", "photos", "--json"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let figures: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let keys: Vec<&str> = figures.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["files", "images", "labelled", "classes", "parts", "not_read", "bad", "duplicates", "leaks", "bytes"]);
    assert_eq!(figures["parts"], json!({"train": 4, "val": 0, "test": 2}));
    assert_eq!((&figures["files"], &figures["images"], &figures["labelled"]), (&json!(8), &json!(6), &json!(4)));
    let lines = String::from_utf8(ctk(at, &["data", "check", "photos"]).stdout).unwrap();
    for line in
        ["6 images in 2 classes: cat 2, dog 2", "warning: 1 of 8 files is not read: 1 heic (notes.heic)", "Train/dog/bad.png: "]
    {
        assert!(lines.contains(line), "{line} in {lines}");
    }

    let train = |more: &[&str]| ctk(at, &[&["train", "vision", "--data", "photos"][..], more, &QUICK].concat());
    let refused = train(&[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("1 image cannot be read") && said.contains("bad.png") && said.contains("on_error=skip"), "{said}");
    let trained = train(&["--set", "data.on_error=skip"]);
    let said = String::from_utf8(trained.stderr).unwrap();
    assert!(trained.status.success(), "{said}");
    for line in [
        "train: 4 images from Train",
        "its 2 images are used neither for evaluation",
        "one is drawn from the training part",
        "1 image that cannot be read left out",
        "other programs: ctk export writes it for transformers",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert_eq!(said.matches("warning: 1 of 8 files is not read").count(), 2, "at the start and at the end: {said}");

    // Several paths are one dataset.
    let checked = ctk(at, &["data", "check", "photos/Train/cat", "photos/Te*", "--json"]);
    let figures: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(figures["images"], 4, "{figures}");
}

#[test]
fn every_kind_is_read_and_what_is_not_seen_of_it_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let kinds = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/images/tests/fixtures/kinds.tar.gz");
    let checked = ctk(at, &["data", "check", kinds.to_str().unwrap(), "--json"]);
    let figures: Value = serde_json::from_slice(&checked.stdout).unwrap();
    // Two kinds that the TIFF reader does not know; they are reported by name.
    let bad: Vec<&str> = figures["bad"].as_array().unwrap().iter().map(|bad| bad["path"].as_str().unwrap()).collect();
    assert_eq!(bad, ["tiff--float.tif", "tiff--palette.tif"], "{figures}");
    assert_eq!((&figures["images"], &figures["not_read"]), (&json!(38), &json!({"rgb": 40})), "{figures}");
    let lines = String::from_utf8(ctk(at, &["data", "check", kinds.to_str().unwrap()]).stdout).unwrap();
    assert!(lines.contains("of 4 files, which hold several pages or frames, the first is read: gif--more.gif, "), "{lines}");
    assert!(!lines.contains("nearly black"), "{lines}");

    // Twelve bits stored in sixteen: nearly black, with a warning, until the range is set.
    for name in ["a", "b"] {
        let values = (0..64u16).flat_map(|i| (i * 64 + u16::from(name == "b")).to_be_bytes());
        write(at, &format!("slides/{name}.pgm"), &b"P5 8 8 65535\n".iter().copied().chain(values).collect::<Vec<u8>>());
    }
    let said = |more: &[&str]| String::from_utf8(ctk(at, &[&["data", "check", "slides"], more].concat()).stdout).unwrap();
    assert!(said(&[]).contains("warning: images of 16 bits use 6 % of their range"), "{}", said(&[]));
    assert!(!said(&["--set", "data.range=[0, 4095]"]).contains("nearly black"));
    let refused = ctk(at, &["data", "check", "slides", "--set", "data.range=[9, 1]"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("data.range") && message.contains("the lower first"), "{message}");
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_run_states_what_lies_behind_transparent_pixels_and_others_that_begin_from_it_keep_that() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let run = |verb: &[&str], out: &str| {
        let small = ["--set", "data.train=16", "--set", "data.test=8", "--out", out];
        let trained = ctk(at, &[verb, &small, &QUICK].concat());
        assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
        let recipe = fs::read_to_string(at.join(out).join("recipe.toml")).unwrap();
        recipe.lines().find_map(|line| line.strip_prefix("background = ")).map(str::to_string).expect("it is stated")
    };
    assert_eq!(run(&["train", "vision"], "new"), "\"white\"");
    assert_eq!(run(&["train", "vision", "--set", "data.background=#102030"], "own"), "\"#102030\"");
    assert_eq!(run(&["train", "vision", "--init", "own"], "more"), "\"#102030\"");
    // A run from before this key existed.
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stored_runs/format-1/byol");
    assert_eq!(run(&["train", "vision", "--init", old.to_str().unwrap()], "old"), "\"drop\"");
}

#[test]
fn help_shows_an_example() {
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["data", "--help"][..], &["data", "check", "--help"]] {
        assert!(String::from_utf8(ctk(dir.path(), verb).stdout).unwrap().contains("ctk data check photos/"));
    }
}
