//! One flipped bit in any file of a run's folder is never silent: it is told, or what comes of the run is what it would have been.
//!
//! `CTK_FLIPS` says how many bits are flipped, spread over all files: `CTK_FLIPS=500 cargo test --test damage -- --nocapture`. After
//! each, a copy of the run goes on, is judged and embedded. Silent is: every command succeeds, none names the file, and a figure, a
//! feature or a byte of the last checkpoint is another.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use common::copy;

/// Labels held out by ctk, the best checkpoint told by some that are held back: every kind of file that a run has.
const RECIPE: &str = "[data]\npath = \"photos\"\nholdout = 0.25\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 8\n[schedule]\nwarmup = 1\n[train]\nepochs = 4\nbatch = 6\n[checkpoint]\nevery = \"1 epoch\"\n\
    keep_best = true\n[eval.knn]\nevery = 2\n";

fn ctk(at: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Gray pictures of two classes.
fn photos(at: &Path) {
    for i in 0..48u32 {
        let (class, path) = (i % 2, at.join(format!("photos/{}/{i:02}.pgm", ["flat", "striped"][i as usize % 2])));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixel = |p: u32| (60 + i * 3 + 90 * class * (p / 8 % 2) + (p * 7 + i * 13) % 11) as u8;
        fs::write(path, [b"P5 8 8 255\n".to_vec(), (0..64).map(pixel).collect()].concat()).unwrap();
    }
}

/// What comes of the run in `run`, and all that was said on the way; an error of any command ends it.
fn outcome(at: &Path, run: &str) -> Result<(BTreeMap<String, String>, String), String> {
    let (mut found, mut words) = (BTreeMap::new(), String::new());
    let features = format!("{run}.npy");
    let commands: [&[&str]; 5] = [
        &["eval", "knn", run, "--json"],
        &["embed", run, "--out", &features],
        &["eval", "knn", &format!("{run}/checkpoints/best"), "--json"],
        &["train", "vision", "--resume", run, "--set", "train.epochs=6", "--json"],
        &["eval", "knn", run, "--json"],
    ];
    for (at_command, args) in commands.iter().enumerate() {
        let (fine, stdout, stderr) = ctk(at, args);
        words.push_str(&stderr);
        if !fine {
            return Err(words);
        }
        if let Ok(Value::Object(figures)) = serde_json::from_str(stdout.lines().last().unwrap_or_default()) {
            for name in ["knn_top1", "top1", "loss", "best_step", "best_value", "spread", "k", "train", "test"] {
                found.insert(format!("{at_command} {name}"), figures.get(name).map(Value::to_string).unwrap_or_default());
            }
        }
    }
    found.insert("features".into(), format!("{:?}", fs::read(at.join(features)).unwrap()));
    let last = fs::read(at.join(run).join("checkpoints/36/manifest.json")).unwrap();
    found.insert("last".into(), serde_json::from_slice::<Value>(&last).unwrap()["files"].to_string());
    Ok((found, words))
}

#[test]
fn no_flipped_bit_is_silent() {
    let flips: usize = std::env::var("CTK_FLIPS").map_or(24, |flips| flips.parse().expect("CTK_FLIPS is a number"));
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    photos(at);
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    let (fine, _, stderr) = ctk(at, &["train", "vision", "--config", "recipe.toml", "--out", "run", "--quiet"]);
    assert!(fine, "{stderr}");
    assert!(ctk(at, &["eval", "knn", "run", "--quiet"]).0);
    copy(&at.join("run"), &at.join("whole"));
    let expected = outcome(at, "whole").unwrap().0;

    let all = files(&at.join("run"));
    let all: Vec<&PathBuf> = all.iter().filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
    let (mut refused, mut told, mut same) = (0, 0, BTreeMap::<String, usize>::new());
    let mut seed = 11u64;
    for flip in 0..flips {
        let file = all[flip % all.len()].strip_prefix(at.join("run")).unwrap();
        let _ = fs::remove_dir_all(at.join("copy"));
        copy(&at.join("run"), &at.join("copy"));
        let path = at.join("copy").join(file);
        let mut bytes = fs::read(&path).unwrap();
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let bit = (seed >> 20) as usize % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let name = file.file_name().unwrap().to_string_lossy();
        match outcome(at, "copy") {
            Err(words) => {
                assert!(words.contains("error: ") && !words.contains("panicked"), "bit {bit} of {}: {words}", file.display());
                refused += 1;
            }
            Ok((_, words)) if words.contains(&*name) || words.contains("passed over") => told += 1,
            Ok((found, words)) => {
                for (what, value) in &expected {
                    assert_eq!(found.get(what), Some(value), "SILENT: bit {bit} of {}: {what}\n{words}", file.display());
                }
                *same.entry(file.display().to_string()).or_default() += 1;
            }
        }
    }
    println!("{flips} flips over {} files: {refused} refused, {told} told, 0 silent; the same came of {same:?}", all.len());
}
