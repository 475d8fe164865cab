//! Runs the program in a process with little memory and little time.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The address space of the process, in kilobytes.
const MEMORY: usize = 4_000_000;

/// The time limit.
const TIME: Duration = Duration::from_secs(90);

/// How a process ended.
pub struct Ended {
    /// Its exit code; none if it was killed by a signal or took too long.
    pub code: Option<i32>,
    pub stderr: String,
    pub seconds: f64,
}

/// Runs ctk in `folder`, with empty standard input.
pub fn ctk(folder: &Path, arguments: &[&str]) -> Ended {
    // A file and not a pipe, which could fill up.
    let told = tempfile::NamedTempFile::new_in(folder).unwrap();
    let began = Instant::now();
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -v {MEMORY}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_ctk")])
        .args(arguments)
        .current_dir(folder)
        .env("CTK_CACHE", folder.join("cache"))
        .env("HF_HUB_OFFLINE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(told.path()).unwrap())
        .spawn()
        .expect("sh starts");
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if began.elapsed() > TIME {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let stderr = String::from_utf8_lossy(&std::fs::read(told.path()).unwrap()).into_owned();
    Ended { code, stderr, seconds: began.elapsed().as_secs_f64() }
}
