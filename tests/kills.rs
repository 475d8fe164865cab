//! A run that is killed repeatedly ends as one that was never killed: the same checkpoint to the byte, the same lines of metrics.
//!
//! Processes are killed (SIGKILL) at random moments, most of them while a checkpoint is written, because one is written after every step.
//! Then they are started again, with `--resume` if the run had begun. `CTK_KILLS` sets the number of kills for each modality:
//! `CTK_KILLS=100 cargo test --test kills -- --nocapture`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const VISION: &str = "[data]\ntrain = 24\ntest = 12\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 8\n[loss.moco]\nqueue = 12\n[schedule]\nwarmup = 1\n[train]\nepochs = 4\nbatch = 4\nlog_every = 5\n\
    [checkpoint]\nevery = \"1 step\"\n[eval.knn]\nevery = 2\n";

const WORDS: &str = "[data]\nwords = 30_000\n[vocabulary]\nmin_count = 5\n[encoder.table]\nwidth = 8\n\
    [train]\nepochs = 4\nbatch = 4\nlog_every = 3\ndeterministic = true\n[checkpoint]\nevery = \"1 step\"\n";

const SENTENCES: &str = "[data]\npairs = 60\ndev_share = 0.2\n[tokenizer]\nlongest = 32\n[tokenizer.train]\nsize = 300\n\
    [encoder.transformer]\nlayers = 1\nwidth = 8\nheads = 2\n[train]\nepochs = 4\nbatch = 12\nlog_every = 3\n\
    [checkpoint]\nevery = \"1 step\"\nkeep_best = true\n";

const PAIRS: &str = "[data]\ntrain = 36\ntest = 9\n[pairs]\nsize = 8\n[image.encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [image.head]\nwidth = 8\n[text.tokenizer.train]\nsize = 300\n[text.encoder.transformer]\nlayers = 1\nwidth = 8\n\
    heads = 2\npositions = 32\n[text.head]\nwidth = 8\n[train]\nepochs = 4\nbatch = 12\nlog_every = 3\n\
    [checkpoint]\nevery = \"1 step\"\nkeep_best = true\n";

const TEXTS: &str = "[data]\npairs = 200\n[tokenizer.train]\nsize = 300\n[encoder.static]\nwidth = 8\n\
    [task.finetune]\nscratch = true\nscheme = \"setfit\"\nlabels = \"4-per-class\"\n[train]\nbatch = 32\nlog_every = 3\n\
    [checkpoint]\nevery = \"1 step\"\n";

/// Pseudo-random numbers, the same in every run of the test.
struct Chance(u64);

impl Chance {
    /// A number below `below`.
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % below.max(1)
    }
}

fn kills() -> usize {
    std::env::var("CTK_KILLS").map_or(5, |kills| kills.parse().expect("CTK_KILLS is a number"))
}

/// The command that begins the run, or resumes it.
fn command(at: &Path, modality: &str, run: &str) -> Command {
    let mut ctk = Command::new(env!("CARGO_BIN_EXE_ctk"));
    ctk.current_dir(at).args(["train", modality, "--json", "--quiet"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    match at.join(run).join("recipe.toml").is_file() {
        true => ctk.args(["--resume", run]),
        false => ctk.args(["--config", "recipe.toml", "--out", run]),
    };
    ctk
}

/// The results of a finished run: digests of its files, lines of its metrics, its figures; without those that depend on the clock.
fn outcome(at: &Path, run: &str, told: &str) -> (Value, Vec<Value>, Value) {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let mut figures = json(told.lines().last().unwrap());
    let clocks = [
        "run",
        "checkpoint",
        "seconds",
        "images_per_second",
        "words_per_second",
        "samples_per_second",
        "texts_per_second",
        "pairs_per_second",
        "ingest_seconds",
        "total_seconds",
        "report",
    ];
    clocks.iter().for_each(|name| drop(figures.as_object_mut().unwrap().remove(*name)));
    let metrics = fs::read_to_string(at.join(run).join("metrics.jsonl")).unwrap();
    let lines = metrics.lines().map(|line| {
        let mut line = json(line);
        line.as_object_mut().unwrap().remove("samples_per_second");
        line
    });
    let manifest = at.join(run).join(format!("checkpoints/{}/manifest.json", figures["steps"]));
    (json(&fs::read_to_string(manifest).unwrap())["files"].clone(), lines.collect(), figures)
}

fn killed_runs_end_as_straight_ones(modality: &str, recipe: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("recipe.toml"), recipe).unwrap();
    let clock = Instant::now();
    let straight = command(at, modality, "straight").output().unwrap();
    assert!(straight.status.success(), "{}", String::from_utf8_lossy(&straight.stderr));
    let straight = outcome(at, "straight", &String::from_utf8(straight.stdout).unwrap());
    let whole = clock.elapsed();

    let (wanted, mut chance) = (kills(), Chance(7));
    let (mut done, mut round, mut begun_again) = (0, 0, 0);
    while done < wanted {
        let run = format!("killed-{round}");
        round += 1;
        loop {
            begun_again += usize::from(at.join(&run).exists() && !at.join(&run).join("recipe.toml").exists());
            let mut child = command(at, modality, &run).spawn().unwrap();
            let until = Instant::now() + Duration::from_micros(chance.next(whole.as_micros() as u64 * 6 / 10));
            while done < wanted && Instant::now() < until && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300));
            }
            if done < wanted && child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                done += 1;
                continue;
            }
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "after {done} kills: {stderr}");
            let found = outcome(at, &run, &String::from_utf8(output.stdout).unwrap());
            assert_eq!(found.0, straight.0, "after {done} kills: other bytes");
            assert_eq!(found.1, straight.1, "after {done} kills: other metrics");
            assert_eq!(found.2, straight.2, "after {done} kills: other figures");
            break;
        }
    }
    println!(
        "{modality}: {done} kills over {round} runs, {begun_again} before the recipe was written; each run ended as the straight one"
    );
}

#[test]
fn vision_ends_as_it_would_have() {
    killed_runs_end_as_straight_ones("vision", VISION);
}

#[test]
fn word2vec_ends_as_it_would_have() {
    killed_runs_end_as_straight_ones("word2vec", WORDS);
}

#[test]
fn sentences_end_as_they_would_have() {
    killed_runs_end_as_straight_ones("sentences", SENTENCES);
}

#[test]
fn texts_with_few_labels_end_as_they_would_have() {
    killed_runs_end_as_straight_ones("sentences", TEXTS);
}

#[test]
fn images_and_captions_end_as_they_would_have() {
    killed_runs_end_as_straight_ones("image-text", PAIRS);
}
