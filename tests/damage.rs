//! A flipped bit in any file of a run's folder is never silent: it is reported, or the run's results are the same as without it.
//!
//! `CTK_FLIPS` sets the number of flipped bits, spread over all files of three kinds of run: `CTK_FLIPS=500 cargo test --test damage --
//! --nocapture`. After each flip, a copy of the run is evaluated, embedded and resumed. A flip is silent if every command succeeds, none
//! names the file, and a figure, a feature or a byte of the last checkpoint differs.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use common::copy;

/// With a hold-out, and with labels held back for the best checkpoint: every kind of file that a run of images has.
const VISION: &str = "[data]\npath = \"photos\"\nholdout = 0.25\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 8\n[schedule]\nwarmup = 1\n[train]\nepochs = 4\nbatch = 6\n[checkpoint]\nevery = \"1 epoch\"\n\
    keep_best = true\n[eval.knn]\nevery = 2\n";

/// With phrases, and words of a run that it begins with: every kind of file that a run of words has.
const WORDS: &str = "[data]\npath = \"text.txt\"\n[vocabulary]\nmin_count = 2\n[pairs]\nsubsample = 0\n[encoder.table]\nwidth = 8\n\
    [train]\nepochs = 4\nbatch = 4\ndeterministic = true\n[checkpoint]\nevery = \"1 epoch\"\n";

const PHRASES: &[&str] =
    &["--set", "vocabulary.phrases.passes=1", "--set", "vocabulary.phrases.threshold=20.0", "--set", "train.epochs=1"];

/// A kind of run.
struct Case {
    /// The fraction of all flips that this kind gets.
    share: f64,
    /// Makes the run `run` in a folder.
    make: fn(&Path),
    /// The commands that are run on it; `RUN` stands for its name.
    commands: &'static [&'static [&'static str]],
}

fn ctk(at: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn done(at: &Path, args: &[&str]) {
    let (fine, _, stderr) = ctk(at, args);
    assert!(fine, "{args:?}: {stderr}");
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

fn pretrained(at: &Path) {
    photos(at);
    fs::write(at.join("recipe.toml"), VISION).unwrap();
    done(at, &["train", "vision", "--config", "recipe.toml", "--out", "run", "--quiet"]);
    done(at, &["eval", "knn", "run", "--quiet"]);
}

fn fine_tuned(at: &Path) {
    pretrained(at);
    fs::rename(at.join("run"), at.join("first")).unwrap();
    let searched = ["--labels", "9-per-class", "--rates", "0.01,0.02", "--folds", "2", "--epochs", "4", "--batch", "6"];
    let kept = ["--set", "checkpoint.every=1 epoch", "--out", "run", "--quiet"];
    done(at, &[&["finetune", "first"][..], &searched, &kept].concat());
    done(at, &["eval", "classify", "run", "--quiet"]);
}

fn words(at: &Path) {
    let line = |i: usize| match i % 8 {
        0 => "the new york house is big in town\n".to_string(),
        _ => format!("the {} house is {} in town\n", ["red", "blue"][i % 2], ["big", "small"][i % 3 / 2]),
    };
    fs::write(at.join("text.txt"), (0..400).map(line).collect::<String>()).unwrap();
    fs::write(at.join("recipe.toml"), WORDS).unwrap();
    let train = ["train", "word2vec", "--config", "recipe.toml", "--quiet", "--threads", "1"];
    done(at, &[&train[..], PHRASES, &["--out", "first"]].concat());
    done(at, &[&train[..], &["--set", "train.init=first", "--out", "run"]].concat());
    done(at, &["eval", "geometry", "run", "--quiet"]);
}

const CASES: [Case; 3] = [
    Case {
        share: 0.5,
        make: pretrained,
        commands: &[
            &["eval", "knn", "RUN", "--json"],
            &["embed", "RUN", "--out", "RUN.npy", "--force"],
            &["eval", "knn", "RUN/checkpoints/best", "--json"],
            &["train", "vision", "--resume", "RUN", "--set", "train.epochs=6", "--json"],
            &["eval", "knn", "RUN", "--json"],
        ],
    },
    Case {
        share: 0.25,
        make: fine_tuned,
        commands: &[
            &["eval", "classify", "RUN", "--json"],
            &["predict", "RUN", "--out", "RUN.npy.csv", "--force"],
            &["embed", "RUN", "--out", "RUN.npy", "--force"],
            &["train", "vision", "--resume", "RUN", "--set", "train.epochs=6", "--json"],
            &["eval", "classify", "RUN", "--json"],
        ],
    },
    Case {
        share: 0.25,
        make: words,
        commands: &[
            &["neighbors", "RUN", "new york", "town", "--json"],
            &["embed", "RUN", "--out", "RUN.npy", "--force"],
            &["eval", "geometry", "RUN", "--json"],
            &["train", "word2vec", "--resume", "RUN", "--set", "train.epochs=6", "--threads", "1", "--json"],
            &["neighbors", "RUN", "new york", "town", "--json"],
        ],
    },
];

/// Figures that depend on the clock or on the run's place.
const UNEQUAL: [&str; 8] =
    ["run", "checkpoint", "seconds", "images_per_second", "words_per_second", "ingest_seconds", "total_seconds", "report"];

/// The results of the run `run`, and all messages; an error if any command fails.
fn outcome(at: &Path, case: &Case, run: &str) -> Result<(BTreeMap<String, String>, String), String> {
    let (mut found, mut words) = (BTreeMap::new(), String::new());
    for (number, command) in case.commands.iter().enumerate() {
        let command: Vec<String> = command.iter().map(|word| word.replace("RUN", run)).collect();
        let (fine, stdout, stderr) = ctk(at, &command.iter().map(String::as_str).collect::<Vec<_>>());
        words.push_str(&stderr);
        if !fine {
            return Err(words);
        }
        if let Ok(Value::Object(figures)) = serde_json::from_str(stdout.lines().last().unwrap_or_default()) {
            let figures = figures.iter().filter(|(name, _)| !UNEQUAL.contains(&name.as_str()));
            found.extend(figures.map(|(name, value)| (format!("{number} {name}"), value.to_string())));
        }
    }
    for name in ["npy", "npy.names.tsv", "npy.csv"] {
        found.insert(name.to_string(), format!("{:?}", fs::read(at.join(format!("{run}.{name}"))).ok()));
        let _ = fs::remove_file(at.join(format!("{run}.{name}")));
    }
    let checkpoints = at.join(run).join("checkpoints");
    let steps = fs::read_dir(&checkpoints).unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<usize>().ok());
    let last = fs::read(checkpoints.join(steps.max().unwrap().to_string()).join("manifest.json")).unwrap();
    found.insert("last".into(), serde_json::from_slice::<Value>(&last).unwrap()["files"].to_string());
    Ok((found, words))
}

#[test]
fn no_flipped_bit_is_silent() {
    let flips: usize = std::env::var("CTK_FLIPS").map_or(24, |flips| flips.parse().expect("CTK_FLIPS is a number"));
    let (mut refused, mut told, mut same, mut looked_at) = (0, 0, BTreeMap::<String, usize>::new(), 0);
    for case in &CASES {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        (case.make)(at);
        copy(&at.join("run"), &at.join("whole"));
        let expected = outcome(at, case, "whole").unwrap().0;

        let all = files(&at.join("run"));
        let all: Vec<&PathBuf> = all.iter().filter(|path| fs::metadata(path).unwrap().len() > 0).collect();
        looked_at += all.len();
        let mut seed = 11u64;
        let flips = (flips as f64 * case.share).round() as usize;
        for flip in 0..flips {
            // A small number of flips is spread over all files.
            let number = if flips < all.len() { flip * all.len() / flips } else { flip % all.len() };
            let file = all[number].strip_prefix(at.join("run")).unwrap();
            let _ = fs::remove_dir_all(at.join("copy"));
            copy(&at.join("run"), &at.join("copy"));
            let path = at.join("copy").join(file);
            let mut bytes = fs::read(&path).unwrap();
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bit = (seed >> 20) as usize % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            let name = file.file_name().unwrap().to_string_lossy();
            match outcome(at, case, "copy") {
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
    }
    println!("{flips} flips over {looked_at} files: {refused} refused, {told} told, 0 silent; the same came of {same:?}");
}
