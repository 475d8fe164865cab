//! Files of the Hugging Face Hub by a path: `hf://owner/name[@revision]/file`, or `hf://datasets/owner/name[@revision]/file`.
//!
//! A file is downloaded once, into the cache of the hub's own libraries (`HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in
//! `~/.cache/huggingface`), and then opened from there. A revision is a branch, a tag or a commit; the default is `main`. A branch is
//! looked up once, too: to get its newest commit, delete its file in the cache's `refs`, or name the commit.
//!
//! `HF_ENDPOINT` names another server with the hub's protocol. `HF_TOKEN` (or the file `token` that the hub's login writes) is sent as the
//! user's token. With `HF_HUB_OFFLINE=1` nothing is requested from the network: a file that is not in the cache is an error.
//! `HF_HUB_DOWNLOAD_TIMEOUT` is the number of seconds that a server may be silent, 30 by default.
//!
//! Servers are not trusted. Their answers are checked before they are used ([`answer`]): names cannot lead out of the cache, and a file
//! must have the announced length and, where the hub gives one, the announced SHA-256, and must fit on the disk. The token is sent only to
//! the server that the user named, and never by plain http over a network; https is never downgraded to http.

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

/// The local path of `path`: itself, or for a file of the hub its path in the cache, to which it is downloaded if needed.
///
/// # Errors
/// A path that names no file of a repository; a file that does not exist, may not be read, or is not available offline; a server that is
/// not a hub.
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

/// Downloads the file `name` from the folder of `path`, a file of the hub, beside it in the cache. Does nothing if there is no such file,
/// or if it is not available offline.
///
/// # Errors
/// Those of [`local`], except for a file that does not exist.
pub fn beside(path: &Path, name: &str) -> Result<()> {
    let file = path.to_string_lossy().parse::<Remote>()?.beside(name);
    Place::from_env()?.if_there(&file).map(drop)
}

/// The local folder of `path`: itself, or for a repository of the hub its folder in the cache, to which the files of these names are
/// downloaded if needed, as far as the repository has them.
///
/// # Errors
/// Those of [`local`], except for a file that does not exist; a repository that has none of them.
pub fn folder<'a>(path: &'a Path, names: &[&str]) -> Result<Cow<'a, Path>> {
    if !is_repository(path) {
        return Ok(Cow::Borrowed(path));
    }
    let place = Place::from_env()?;
    let mut folder = None;
    for name in names {
        let file: Remote = path.join(name).to_string_lossy().parse()?;
        let found = place.if_there(&file)?;
        folder = folder.or(found.and_then(|found| found.ancestors().nth(name.split('/').count()).map(Path::to_path_buf)));
    }
    folder.map(Cow::Owned).ok_or_else(|| {
        let what = format!("this names no file, and the repository has none of {}", names.join(", "));
        let form = remote::FORM;
        let hint = if place.offline { format!("HF_HUB_OFFLINE forbids to ask for them; {form}") } else { form.to_string() };
        Error::usage(what).at(path.display()).hint(hint)
    })
}

/// Whether `path` names a repository of the hub as a whole, `hf://owner/name` or `hf://owner/name@revision`.
pub fn is_repository(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.strip_prefix(SCHEME).is_some_and(|rest| rest.trim_end_matches('/').split('/').count() == 2)
}

/// Whether `path` names a file of the hub.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(SCHEME))
}

/// The cache and the server.
struct Place {
    cache: Cache,
    home: Option<PathBuf>,
    offline: bool,
}

impl Place {
    fn from_env() -> Result<Self> {
        let home = set("HF_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join("hub")));
        let cache =
            cache.ok_or_else(|| Error::new("there is no home folder for the hub's cache").hint("set HF_HOME to a folder"))?;
        let yes = |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        // Links inside the cache are made relative, which needs an absolute path of the cache.
        Ok(Place { cache: Cache(std::path::absolute(cache)?), home, offline: set("HF_HUB_OFFLINE").is_some_and(yes) })
    }

    /// The path of `file` in the cache, to which it is downloaded if needed; none if there is no such file, or if it is not available offline.
    fn if_there(&self, file: &Remote) -> Result<Option<PathBuf>> {
        match self.cache.found(file)? {
            None if self.offline => Ok(None),
            None => self.server().and_then(|server| download::fetch(&server, &self.cache, file)).map_err(|e| e.at(file)),
            found => Ok(found),
        }
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
        assert_eq!(folder(path, &["config.json"]).unwrap(), path);
    }

    #[test]
    fn a_repository_has_an_owner_and_a_name() {
        for (path, is) in [
            ("hf://owner/name", true),
            ("hf://owner/name@v1/", true),
            ("hf://owner/name/file", false),
            ("hf://datasets/owner/name", false),
            ("owner/name", false),
        ] {
            assert_eq!(is_repository(Path::new(path)), is, "{path}");
        }
    }
}
