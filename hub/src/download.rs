//! Downloads a file into the cache: at most as many bytes as the hub says and the disk has free, continuing an interrupted download, and
//! under its final name only when it is complete.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctk_core::store::files::{self, Lock};
use ctk_core::{Context, Error, Result};
use sha2::{Digest, Sha256};

use crate::answer::{Told, is_commit};
use crate::cache::Cache;
use crate::remote::Remote;
use crate::server::{Answer, Server};

/// The number of bytes that must arrive within the timeout: a server that sends a byte now and then counts as silent.
const SLOWEST: u64 = 16 << 10;
/// Disk space that is left free for other programs.
const SPARE: u64 = 64 << 20;

/// The content that the server has announced, its lock, and the part that is there.
struct Promised {
    commit: String,
    etag: String,
    hashed: bool,
    size: Option<u64>,
    /// The file in which its bytes are collected.
    part: PathBuf,
    _lock: Lock,
    whole: bool,
}

/// Downloads `file` into `cache`, unless another program has just done so; none if the hub has no such file.
///
/// # Errors
/// Failures of the server, the network and the disk.
pub(crate) fn fetch(server: &Server, cache: &Cache, file: &Remote) -> Result<Option<PathBuf>> {
    let mut promised = None;
    let answer = server.ask(file, |told| {
        let new = Promised::new(cache, file, told)?;
        let start = if new.whole { None } else { Some(new.start()) };
        promised = Some(new);
        Ok(start)
    })?;
    let Some(promised) = promised else { return Ok(None) };
    if let Some(answer) = answer {
        receive(answer, &promised, server.silence)?;
        let blob = cache.blob(file, &promised.etag);
        fs::rename(&promised.part, &blob).at(blob.display())?;
    }
    cache.keep(file, &promised.commit, &promised.etag).map(Some)
}

impl Promised {
    fn new(cache: &Cache, file: &Remote, told: &Told) -> Result<Promised> {
        let no = |what: &str| Error::new(what).hint("this is not a hub's answer: check HF_ENDPOINT");
        let commit = told.commit.clone().ok_or_else(|| no("the server names no commit of this file"))?;
        let etag = told.etag.clone().ok_or_else(|| no("the server has no name for this content (`etag`)"))?;
        if is_commit(&file.revision) && !commit.eq_ignore_ascii_case(&file.revision) {
            return Err(no("the server answers with another commit than the one that was asked for"));
        }
        let lock = files::lock(&cache.lock(file, &etag))?;
        let blob = cache.blob(file, &etag);
        let whole = blob.metadata().is_ok_and(|there| there.is_file() && told.size.is_none_or(|size| size == there.len()));
        let part = blob.with_file_name(format!("{etag}.part"));
        Ok(Promised { commit, etag, hashed: told.hashed, size: told.size, part, _lock: lock, whole })
    }

    /// The number of bytes left by an earlier try.
    fn start(&self) -> u64 {
        let there = self.part.symlink_metadata().map_or(0, |part| if part.is_file() { part.len() } else { 0 });
        // A complete part was interrupted before its last check, and a longer one belongs to other content: start from the beginning.
        if self.size.is_some_and(|size| there < size) { there } else { 0 }
    }
}

/// Appends an answer's bytes to those that are there.
fn receive(answer: Answer, promised: &Promised, silence: Duration) -> Result<()> {
    let told = &answer.told;
    let no = |what: String| Error::new(what).hint("try again; if it stays so, the server or a proxy before it is at fault");
    if told.compressed {
        return Err(no("the server sends the file compressed, which was not asked for".to_string()));
    }
    // A server may send the whole file although a part was requested.
    let from = if answer.status == 206 { told.from.unwrap_or(0) } else { 0 };
    if from != 0 && from != promised.start() {
        return Err(no(format!("the server continues at byte {from} of the file, not at byte {}", promised.start())));
    }
    let sent = told.length.and_then(|length| length.checked_add(from));
    let size = match (promised.size.or(told.size), told.size.or(sent)) {
        (None, None) => return Err(no("the server does not say how long the file is".to_string())),
        (Some(a), Some(b)) if a != b || sent.is_some_and(|sent| sent != a) => {
            return Err(no(format!("the hub says that the file has {a} bytes, and sends {}", sent.unwrap_or(b))));
        }
        (a, b) => a.or(b).unwrap_or(0),
    };
    let folder = promised.part.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).at(folder.display())?;
    if let Some(free) = free(folder).filter(|&free| (size - from).saturating_add(SPARE) > free) {
        let need =
            format!("the file needs {} MB, and the disk of the hub's cache has {} MB free", (size - from) >> 20, free >> 20);
        return Err(Error::new(need).at(folder.display()).hint("set HF_HUB_CACHE to a folder on a disk with room"));
    }
    let mut part = files::go_on(&promised.part, from)?;
    let at = copy(&mut answer.body.into_reader(), &mut part, from, size, silence).map_err(|e| e.at(promised.part.display()))?;
    if at > size {
        return discarded(promised, no(format!("the server sends more than the {size} bytes that it announced")));
    }
    if at < size {
        let what = format!("the download stops after {at} of {size} bytes: it is not as long as the hub says");
        return Err(Error::new(what).hint("try again: the download continues where it stopped"));
    }
    if promised.hashed && !hash(&mut part).at(promised.part.display())?.eq_ignore_ascii_case(&promised.etag) {
        return discarded(promised, no("the bytes are not those that the hub announced: their SHA-256 differs".to_string()));
    }
    part.sync_all().at(promised.part.display())
}

/// Removes the part, so that a later try does not continue it, and returns the error.
fn discarded(promised: &Promised, error: Error) -> Result<()> {
    files::remove(&promised.part)?;
    Err(error)
}

/// Returns the number of bytes at the end: at most one more than `size`.
fn copy(body: &mut impl Read, part: &mut File, from: u64, size: u64, silence: Duration) -> Result<u64> {
    let mut block = vec![0; 64 << 10];
    let mut body = body.take((size - from).saturating_add(1));
    let (mut at, mut since, mut come) = (from, Instant::now(), 0);
    loop {
        let read = match body.read(&mut block) {
            Ok(0) => return Ok(at),
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::TimedOut || timed_out(&e) => return Err(stalled(silence)),
            // A broken connection shows in the length.
            Err(_) => return Ok(at),
        };
        at += read as u64;
        if at <= size {
            part.write_all(&block[..read])?;
        }
        come += read as u64;
        if since.elapsed() >= silence {
            if come < SLOWEST && at < size {
                return Err(stalled(silence));
            }
            (since, come) = (Instant::now(), 0);
        }
    }
}

fn timed_out(error: &std::io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()).is_some_and(|e| matches!(e, ureq::Error::Timeout(_)))
}

fn stalled(silence: Duration) -> Error {
    Error::new(format!("the download stalls: less than {} KB came within {} s", SLOWEST >> 10, silence.as_secs())).hint(
        "try again: the download continues where it stopped; HF_HUB_DOWNLOAD_TIMEOUT is how many seconds a server may be silent",
    )
}

fn hash(part: &mut File) -> std::io::Result<String> {
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    part.seek(SeekFrom::Start(0))?;
    loop {
        match part.read(&mut block)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(&block[..read]),
        }
    }
}

/// The number of bytes that this user may still write on the disk of `folder`; none if the system does not say.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// The number of bytes that this user may still write on the disk of `folder`; none if the system does not say.
#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
