//! Signals: SIGINT (Ctrl-C), SIGTERM and SIGHUP end the program, SIGUSR1 asks a run to save now.
//!
//! A run that trains ends after the current step, or at once while it measures, and saves first. Every other verb ends at once and removes
//! its half-written files. The exit code is 128 plus the signal's number, as in shells: 130, 143, 129. A second signal ends the program
//! without saving. A signal that was ignored when the program started (as with `nohup`) stays ignored.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ctk_core::error::{Error, Result};
use ctk_core::process::Stop;
use ctk_core::store::files;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::output::say;

/// How often the program checks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// What signals have asked for, and the last signal that asked to end.
static ASKED: OnceLock<(Stop, Arc<AtomicUsize>)> = OnceLock::new();

/// The flag that runs check: it is raised by signals.
pub fn stop() -> Stop {
    ASKED.get().map(|(stop, _)| stop.clone()).unwrap_or_default()
}

/// The exit code after a signal; none if there was no signal.
pub fn exit_code() -> Option<u8> {
    let number = ASKED.get()?.1.load(Ordering::SeqCst);
    if number == 0 { None } else { Some(code(number)) }
}

fn code(signal: usize) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

/// Starts to listen for signals.
///
/// # Errors
/// The system refuses to install a handler.
pub fn listen() -> Result<()> {
    let (came, save) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let last = Arc::new(AtomicUsize::new(0));
    let ignored = ignored();
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup()).filter(|signal| ignored >> (signal - 1) & 1 == 0) {
        flag::register_usize(signal, came.clone(), signal as usize).map_err(Error::from)?;
    }
    if let Some(signal) = user() {
        flag::register(signal, save.clone()).map_err(Error::from)?;
    }
    let stop = Stop::default();
    if ASKED.set((stop.clone(), last.clone())).is_ok() {
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(LOOK);
                if save.swap(false, Ordering::SeqCst) {
                    match stop.heard() {
                        true => stop.ask_to_save(),
                        false => say("note: no run is in training here, so there is nothing to save"),
                    }
                }
                let signal = came.swap(0, Ordering::SeqCst);
                if signal == 0 {
                    continue;
                }
                let again = last.swap(signal, Ordering::SeqCst) != 0;
                stop.raise();
                if again || !stop.heard() {
                    files::remove_temporaries();
                    std::process::exit(code(signal).into());
                }
                say("stopping after this step, then saving; a second signal stops at once");
            }
        });
    }
    Ok(())
}

/// The signals that are ignored, one bit each, signal 1 lowest.
#[cfg(target_os = "linux")]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn ignored() -> u64 {
    0
}

#[cfg(unix)]
fn hangup() -> Option<i32> {
    Some(signal_hook::consts::SIGHUP)
}

#[cfg(unix)]
fn user() -> Option<i32> {
    Some(signal_hook::consts::SIGUSR1)
}

#[cfg(not(unix))]
fn hangup() -> Option<i32> {
    None
}

#[cfg(not(unix))]
fn user() -> Option<i32> {
    None
}
