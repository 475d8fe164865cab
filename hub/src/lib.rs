//! Files of the Hugging Face Hub by a path: `hf://owner/name[@revision]/file`, or `hf://datasets/owner/name[@revision]/file`.
//!
//! A file is downloaded once, into the cache that the hub's own libraries use (`HF_HUB_CACHE`, else `hub` below `HF_HOME`, else below
//! `~/.cache/huggingface`), and then opened from there; a revision is a branch, a tag or a commit, `main` where none is named. A
//! branch is looked up once too: delete its file in the cache's `refs` to see what has become of it, or name a commit.
//!
//! `HF_ENDPOINT` names another server that speaks the hub's protocol, `HF_TOKEN` (or the file `token` that the hub's login writes)
//! who asks, and with `HF_HUB_OFFLINE=1` nothing is asked of the network: what is not in the cache is an error.
//! `HF_HUB_DOWNLOAD_TIMEOUT` is how many seconds a server may be silent, 30 where it is not set.
//!
//! A server is not trusted. What it says is checked before anything is done by it ([`answer`]): its names cannot lead out of the cache, a
//! file has the length and, where the hub tells one, the SHA-256 that was told, and must fit on the disk. The token goes to the server that
//! was named and to no other, and never by plain http over a network; https never becomes http.

pub mod answer;
mod cache;
mod download;
mod remote;
mod server;

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};

use ctk_core::{Error, Result};

use cache::Cache;
use remote::{Remote, SCHEME};
use server::{Server, set};

/// Where `path` lies on this machine: itself, unless it names a file of the hub, which then is in the cache, or is downloaded to it.
///
/// # Errors
/// A path that names no file of a repository; a file that is not there, may not be read, or cannot be had offline; a server that is none
/// of a hub.
pub fn local(path: &Path) -> Result<Cow<'_, Path>> {
    if !is_remote(path) {
        return Ok(Cow::Borrowed(path));
    }
    let file: Remote = path.to_string_lossy().parse()?;
    let place = Place::from_env()?;
    if let Some(found) = place.cache.found(&file)? {
        return Ok(Cow::Owned(found));
    }
    let server = place.server().map_err(|e| e.at(&file))?;
    let fetched = download::fetch(&server, &place.cache, &file).and_then(|found| found.ok_or_else(|| server.none()));
    fetched.map(Cow::Owned).map_err(|e| e.at(&file))
}

/// Brings the file `name` of the folder in which `path`, a file of the hub, lies, beside it in the cache; nothing where there is none, or
/// where it cannot be had offline.
///
/// # Errors
/// Those of [`local`], but for a file that is not there.
pub fn beside(path: &Path, name: &str) -> Result<()> {
    let file = path.to_string_lossy().parse::<Remote>()?.beside(name);
    let place = Place::from_env()?;
    if place.offline || place.cache.found(&file)?.is_some() {
        return Ok(());
    }
    let fetched = place.server().and_then(|server| download::fetch(&server, &place.cache, &file));
    fetched.map(|_| ()).map_err(|e| e.at(&file))
}

/// Whether `path` names something of the hub.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(SCHEME))
}

/// The cache, and how it is filled.
struct Place {
    cache: Cache,
    home: Option<PathBuf>,
    offline: bool,
}

impl Place {
    fn from_env() -> Result<Self> {
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::new("there is no home for the hub's cache").hint("set HF_HOME to a folder"))?;
        let yes = |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        // Links inside the cache are made relative, which takes a place that is not.
        Ok(Place { cache: Cache(std::path::absolute(cache)?), home, offline: set("HF_HUB_OFFLINE").is_some_and(yes) })
    }

    fn server(&self) -> Result<Server> {
        if self.offline {
            return Err(Error::new("this file is not in the cache, and HF_HUB_OFFLINE forbids to ask for it")
                .hint("download it once without HF_HUB_OFFLINE, or set HF_HOME to where it is"));
        }
        Server::from_env(self.home.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_this_machine_is_itself() {
        let path = Path::new("a/b");
        assert_eq!(local(path).unwrap(), path);
    }
}
