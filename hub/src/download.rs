//! The bytes of a file on their way into the cache: no more than the hub says and the disk holds, from where an earlier try stopped, and
//! only whole under their name.

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

/// What must have come whenever the time has passed in which a server may be silent: a server that sends a byte now and then is silent.
const SLOWEST: u64 = 16 << 10;
/// What is left free on the disk for others.
const SPARE: u64 = 64 << 20;

/// Content that was promised, its lock, and what is there of it.
struct Promised {
    commit: String,
    etag: String,
    hashed: bool,
    size: Option<u64>,
    /// Where its bytes are collected.
    part: PathBuf,
    _lock: Lock,
    whole: bool,
}

/// Downloads `file` into `cache`, unless another program just did; nothing where the hub has no such file.
///
/// # Errors
/// All that can be wrong with a server, a network and a disk.
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
        let no = |what: &str| Error::new(what).hint("this is no answer of a hub: see HF_ENDPOINT");
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

    /// What an earlier try has left.
    fn start(&self) -> u64 {
        let there = self.part.symlink_metadata().map_or(0, |part| if part.is_file() { part.len() } else { 0 });
        // A part that is whole was stopped before its last check, one that is more is of something else: from the beginning.
        if self.size.is_some_and(|size| there < size) { there } else { 0 }
    }
}

/// Writes an answer's bytes behind those that are there.
fn receive(answer: Answer, promised: &Promised, silence: Duration) -> Result<()> {
    let told = &answer.told;
    let no = |what: String| Error::new(what).hint("try again; if it stays so, the server or a proxy before it is at fault");
    if told.compressed {
        return Err(no("the server sends the file compressed, which was not asked for".to_string()));
    }
    // A server may send the whole file where a part was asked for.
    let from = if answer.status == 206 { told.from.unwrap_or(0) } else { 0 };
    if from != 0 && from != promised.start() {
        return Err(no(format!("the server goes on at byte {from} of the file, not at byte {}", promised.start())));
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
        return discarded(promised, no(format!("the server sends more than the {size} bytes that it says")));
    }
    if at < size {
        let what = format!("the download stops after {at} of {size} bytes: it is not as long as the hub says");
        return Err(Error::new(what).hint("try again: it goes on where it stopped"));
    }
    if promised.hashed && !hash(&mut part).at(promised.part.display())?.eq_ignore_ascii_case(&promised.etag) {
        return discarded(promised, no("the bytes are not those that the hub names: their SHA-256 is another".to_string()));
    }
    part.sync_all().at(promised.part.display())
}

/// The error, and no part that a later try could go on with.
fn discarded(promised: &Promised, error: Error) -> Result<()> {
    files::remove(&promised.part)?;
    Err(error)
}

/// How many bytes there are in the end: at most one more than `size`.
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
            // A connection that broke is told by the length.
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
    Error::new(format!("the download stalls: less than {} KB came within {} s", SLOWEST >> 10, silence.as_secs()))
        .hint("try again: it goes on where it stopped; HF_HUB_DOWNLOAD_TIMEOUT is how many seconds a server may be silent")
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

/// The bytes that this user may still write on the disk of `folder`; nothing where the system does not say.
#[cfg(unix)]
fn free(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

/// The bytes that this user may still write on the disk of `folder`; nothing where the system does not say.
#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
