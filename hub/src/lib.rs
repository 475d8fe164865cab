//! Files of the Hugging Face Hub by a path: `hf://owner/name[@revision]/file`, or `hf://datasets/owner/name[@revision]/file`.
//!
//! A file is downloaded once, into the cache that the hub's own libraries use (`HF_HUB_CACHE`, else `hub` below `HF_HOME`, else below
//! `~/.cache/huggingface`), and then opened from there; a revision is a branch, a tag or a commit, `main` where none is named. A
//! branch is looked up once too: delete its file in the cache's `refs` to see what has become of it, or name a commit.
//!
//! `HF_ENDPOINT` names another server that speaks the hub's protocol, `HF_TOKEN` (or the file `token` that the hub's login writes)
//! who asks, and with `HF_HUB_OFFLINE=1` nothing is asked of the network: what is not in the cache is an error.

use std::borrow::Cow;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ctk_core::{Context, Error, Result};
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

const SCHEME: &str = "hf://";
const FORM: &str = "write hf://owner/name/file or hf://owner/name@revision/file; of a dataset hf://datasets/owner/name/file";

/// Where `path` lies on this machine: itself, unless it names a file of the hub, which then is in the cache, or is downloaded to it.
///
/// # Errors
/// A path that names no file of a repository; a file that is not there, may not be read, or cannot be had offline.
pub fn local(path: &Path) -> Result<Cow<'_, Path>> {
    if !is_remote(path) {
        return Ok(Cow::Borrowed(path));
    }
    let file: Remote = path.to_string_lossy().parse()?;
    let place = Place::from_env()?;
    let found = place.cached(&file).map_or_else(|| place.fetch(&file), |found| Ok(Some(found)))?;
    found.map(Cow::Owned).ok_or_else(|| {
        Error::usage(format!("the hub{} has no such file, repository or revision", place.asked()))
            .at(&file)
            .hint("names are exact, also in upper and lower case; a revision is a branch, a tag or a commit")
    })
}

/// Brings the file `name` of the folder in which `path`, a file of the hub, lies, beside it in the cache; nothing where there is none, or
/// where it cannot be had offline.
///
/// # Errors
/// Those of [`local`], but for a file that is not there.
pub fn beside(path: &Path, name: &str) -> Result<()> {
    let mut file: Remote = path.to_string_lossy().parse()?;
    file.file = file.file.rsplit_once('/').map_or_else(|| name.to_string(), |(folder, _)| format!("{folder}/{name}"));
    let place = Place::from_env()?;
    if !place.offline && place.cached(&file).is_none() {
        place.fetch(&file)?;
    }
    Ok(())
}

/// Whether `path` names something of the hub.
pub fn is_remote(path: &Path) -> bool {
    path.to_str().is_some_and(|path| path.starts_with(SCHEME))
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Remote {
    dataset: bool,
    /// `owner/name`.
    repository: String,
    revision: String,
    file: String,
}

impl FromStr for Remote {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::usage(what).at(text).hint(FORM);
        let path = text.strip_prefix(SCHEME).ok_or_else(|| wrong("this is no path of the hub"))?;
        let (dataset, path) = match path.strip_prefix("datasets/") {
            Some(rest) => (true, rest),
            None => (false, path.strip_prefix("models/").unwrap_or(path)),
        };
        let mut parts = path.splitn(3, '/');
        let (owner, name, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        // Branches with a slash are written with %2F, as in the hub's own paths.
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        if owner.is_empty() || name.is_empty() || file.is_empty() || file.ends_with('/') {
            return Err(wrong("this names no file of a repository"));
        }
        // Names become folders of the cache.
        let climbs = |part: &str| part.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if [owner, name, &revision, file].into_iter().any(climbs) || text.contains(['\\', '?', '#']) {
            return Err(wrong("this path of the hub has parts that are no names"));
        }
        Ok(Remote { dataset, repository: format!("{owner}/{name}"), revision, file: file.to_string() })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.dataset { "datasets/" } else { "" };
        write!(f, "{SCHEME}{kind}{}@{}/{}", self.repository, self.revision.replace('/', "%2F"), self.file)
    }
}

impl Remote {
    fn repo(&self) -> Repo {
        let kind = if self.dataset { RepoType::Dataset } else { RepoType::Model };
        Repo::with_revision(self.repository.clone(), kind, self.revision.clone())
    }
}

/// The cache, and the server that fills it.
struct Place {
    cache: Cache,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

impl Place {
    fn from_env() -> Result<Self> {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = || set("HF_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cache/huggingface")));
        let cache = set("HF_HUB_CACHE").map(PathBuf::from).or_else(|| Some(home()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::new("there is no home for the hub's cache").hint("set HF_HOME to a folder"))?;
        // Links inside the cache are made relative, which takes a place that is not.
        let cache = Cache::new(std::path::absolute(cache)?);
        let yes = |value: String| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on");
        let token = || home().map(|home| Cache::new(home.join("hub"))).and_then(|cache| cache.token());
        Ok(Place {
            cache,
            endpoint: set("HF_ENDPOINT").map(|at| at.trim_end_matches('/').to_string()),
            token: set("HF_TOKEN").or_else(token),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
        })
    }

    /// The file as it was downloaded before.
    fn cached(&self, file: &Remote) -> Option<PathBuf> {
        let repo = self.cache.repo(file.repo());
        // Python's library keeps no reference for what was asked for by its commit.
        let commit = || Some(repo.pointer_path(&file.revision).join(&file.file)).filter(|path| path.is_file());
        repo.get(&file.file).or_else(commit)
    }

    /// Downloads the file; none where the hub has no such file.
    fn fetch(&self, file: &Remote) -> Result<Option<PathBuf>> {
        if self.offline {
            return Err(Error::new("this file is not in the cache, and HF_HUB_OFFLINE forbids to ask for it")
                .at(file)
                .hint("download it once without HF_HUB_OFFLINE, or set HF_HOME to where it is"));
        }
        let mut api = ApiBuilder::from_cache(self.cache.clone()).with_progress(false).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            api = api.with_endpoint(endpoint.clone());
        }
        let api = api.build().map_err(|e| self.failed(e))?;
        let repo = api.repo(file.repo());
        let sized = api.metadata(&repo.url(&file.file)).and_then(|of| Ok((repo.download(&file.file)?, of.size() as u64)));
        let (path, size) = match sized {
            Ok(found) => found,
            Err(e) if status(&e, "404") => return Ok(None),
            Err(e) => return Err(self.failed(e).at(file)),
        };
        // A server that closes early or ignores where a download is to go on must not leave half a file in the cache.
        if fs::metadata(&path).at(path.display())?.len() != size {
            let stored = fs::canonicalize(&path).at(path.display())?;
            fs::remove_file(&stored).and_then(|()| fs::remove_file(&path)).at(path.display())?;
            return Err(Error::new("the download is not as long as the hub says").at(file).hint("try again"));
        }
        Ok(Some(path))
    }

    /// Who was asked, if not the hub itself.
    fn asked(&self) -> String {
        self.endpoint.as_deref().map_or(String::new(), |endpoint| format!(" at {endpoint}"))
    }

    /// An error of the hub's library as a user can read it.
    fn failed(&self, error: ApiError) -> Error {
        let asked = self.asked();
        if ["401", "403"].iter().any(|code| status(&error, code)) {
            return Error::new(format!("the hub{asked} does not let this be read"))
                .hint("the repository is private, gated or not there: see its name, or set HF_TOKEN");
        }
        match error {
            ApiError::IoError(e) => Error::new(format!("cannot be stored: {e}")).hint("is the disk full?"),
            ApiError::InvalidResume => Error::new("an earlier download of this file is damaged")
                .hint("delete the files in the cache whose names end in .part"),
            ApiError::LockAcquisition(_) => Error::new("another program is downloading this file").hint("try again later"),
            other => Error::new(format!("cannot be downloaded{asked}: {other}"))
                .hint("is the network there? HF_ENDPOINT names another server, HF_HUB_OFFLINE=1 goes by the cache alone"),
        }
    }
}

/// Whether the server answered with this status, which the hub's library tells in its text alone.
fn status(error: &ApiError, code: &str) -> bool {
    matches!(error, ApiError::RequestError(_)) && error.to_string().contains(&format!("status: {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_file_of_a_revision() {
        let remote = |text: &str| text.parse::<Remote>().unwrap();
        let of = remote("hf://google/simclr/resnet.safetensors");
        assert_eq!(
            (of.dataset, &*of.repository, &*of.revision, &*of.file),
            (false, "google/simclr", "main", "resnet.safetensors")
        );
        let of = remote("hf://datasets/uoft-cs/cifar10@refs%2Fconvert/plain/a.tar");
        assert_eq!(
            (of.dataset, &*of.repository, &*of.revision, &*of.file),
            (true, "uoft-cs/cifar10", "refs/convert", "plain/a.tar")
        );
        assert_eq!(remote(&of.to_string()), of);
        assert_eq!(remote("hf://models/a/b@1.0/c"), remote("hf://a/b@1.0/c"));
        assert!(is_remote(Path::new("hf://x")) && !is_remote(Path::new("hf:/x")));
    }

    #[test]
    fn what_names_no_file_says_so() {
        let paths = [
            "hf://",
            "hf://a",
            "hf://a/b",
            "hf://a/b/",
            "hf://a/b@/c",
            "hf:///b/c",
            "hf://a//c",
            "hf://a/b/../c",
            "hf://../b/c",
            "hf://a/b@../c",
            "hf://a/b/c//d",
            "hf://a/b/c?download=true",
            "hf://a/b/c\\d",
            "hf://datasets/a/b",
        ];
        for path in paths {
            let error = path.parse::<Remote>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("hint: write hf://owner/name"), "{path}: {error}");
        }
    }

    #[test]
    fn a_path_of_this_machine_is_itself() {
        let path = Path::new("a/b");
        assert_eq!(local(path).unwrap(), path);
    }
}
