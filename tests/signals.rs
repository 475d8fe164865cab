//! Signals end the program at any time with the exit codes of shells, and training is saved; SIGUSR1 saves and continues.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const RECIPE: &str = "[data]\ntrain = 24\ntest = 12\n[pairs]\nsize = 8\n[encoder.resnet]\ndepth = 20\nwidth = 0.25\n\
    [head]\nlayers = 2\nwidth = 8\n[schedule]\nwarmup = 1\n[train]\nepochs = 100000\nbatch = 4\n";

/// A generous limit: signals take some milliseconds, but the machine may be busy.
const SOON: Duration = Duration::from_secs(10);

fn ctk(at: &Path, args: &[&str]) -> Child {
    let mut ctk = Command::new(env!("CARGO_BIN_EXE_ctk"));
    ctk.current_dir(at).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, signal: &str) {
    assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `done`, within the limit.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let clock = Instant::now();
    while !done() {
        assert!(clock.elapsed() < 6 * SOON, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the signal; returns the exit code and stderr.
fn ended(mut child: Child, signal: &str) -> (Option<i32>, String) {
    let clock = Instant::now();
    send(&child, signal);
    while child.try_wait().unwrap().is_none() {
        assert!(clock.elapsed() < SOON, "SIG{signal} did not end it");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_run_in_training_saves_and_ends_with_the_signals_code() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let run = at.join(signal);
        let child = ctk(at, &["train", "vision", "--config", "recipe.toml", "--out", signal]);
        wait("training begins", || lines(&run) > 0);
        let (found, stderr) = ended(child, signal);
        assert_eq!(found, Some(code), "{stderr}");
        assert!(stderr.contains("stopping after this step") && stderr.contains("they are saved"), "{stderr}");
        assert!(stderr.contains(&format!("--resume {signal}")), "{stderr}");
        assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 1, "one checkpoint, nothing half-written");
    }
}

#[test]
fn a_program_that_waits_or_reads_ends_at_once_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let child = ctk(at, &["train", "word2vec", "--data", "-", "--out", "run"]);
        // Its handlers are installed once it reads.
        std::thread::sleep(Duration::from_millis(500));
        let (found, stderr) = ended(child, signal);
        assert_eq!(found, Some(code), "{stderr}");
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), 0, "no folder, no temporary file");
}

#[test]
fn usr1_saves_and_training_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    let run = at.join("run");
    let child = ctk(at, &["train", "vision", "--config", "recipe.toml", "--out", "run"]);
    wait("training begins", || lines(&run) > 0);
    assert!(!run.join("checkpoints").exists(), "five minutes are not over");
    send(&child, "USR1");
    wait("a checkpoint appears", || fs::read_dir(run.join("checkpoints")).is_ok_and(|entries| entries.count() == 1));
    let before = lines(&run);
    wait("training goes on", || lines(&run) > before + 2);
    let (code, stderr) = ended(child, "TERM");
    assert_eq!(code, Some(143), "{stderr}");
}

#[test]
#[cfg(target_os = "linux")]
fn under_nohup_a_hangup_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("recipe.toml"), RECIPE).unwrap();
    let run = at.join("run");
    let mut nohup = Command::new("nohup");
    nohup.arg(env!("CARGO_BIN_EXE_ctk")).args(["train", "vision", "--config", "recipe.toml", "--out", "run"]);
    let child = nohup.current_dir(at).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait("training begins", || lines(&run) > 0);
    send(&child, "HUP");
    let before = lines(&run);
    wait("training goes on", || lines(&run) > before + 5);
    let (code, stderr) = ended(child, "TERM");
    assert_eq!(code, Some(143), "{stderr}");
}
