//! A file in a repository of the hub, as an `hf://` path names it.

use std::fmt;
use std::str::FromStr;

use ctk_core::{Error, Result};
use hf_hub::{Repo, RepoType};

pub(crate) const SCHEME: &str = "hf://";
pub(crate) const FORM: &str =
    "write hf://owner/name/file or hf://owner/name@revision/file; of a dataset hf://datasets/owner/name/file";

/// A file in a repository. Each part is a name that is safe as a folder's name in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub dataset: bool,
    /// `owner/name`.
    pub repository: String,
    pub revision: String,
    pub file: String,
}

impl FromStr for Remote {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::usage(what).at(text.escape_debug()).hint(FORM);
        let path = text.strip_prefix(SCHEME).ok_or_else(|| wrong("this is not a path of the hub"))?;
        let (dataset, path) = match path.strip_prefix("datasets/") {
            Some(rest) => (true, rest),
            None => (false, path.strip_prefix("models/").unwrap_or(path)),
        };
        let mut parts = path.splitn(3, '/');
        let (owner, name, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        // Branches with a slash are written with %2F, as in the hub's own addresses.
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        if owner.is_empty() || name.is_empty() || file.is_empty() || file.ends_with('/') {
            return Err(wrong("this names no file of a repository"));
        }
        let climbs = |part: &str| part.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        let odd = |c: char| c.is_control() || matches!(c, '\\' | '?' | '#') || (cfg!(windows) && c == ':');
        if [&revision, file].into_iter().any(climbs) || !is_name(owner) || !is_name(name) || text[SCHEME.len()..].contains(odd) {
            return Err(wrong("this path of the hub has parts that are not names"));
        }
        Ok(Remote { dataset, repository: format!("{owner}/{name}"), revision, file: file.to_string() })
    }
}

/// Whether the hub allows this as the name of an owner or a repository. Two hyphens in a row are not allowed, because the cache writes them
/// for the slash, so two repositories could share a folder.
fn is_name(part: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: char| matches!(c, '-' | '.');
    part.len() <= 96
        && part.chars().all(known)
        && !part.starts_with(edge)
        && !part.ends_with(edge)
        && !part.contains("--")
        && !part.contains("..")
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let kind = if self.dataset { "datasets/" } else { "" };
        write!(f, "{SCHEME}{kind}{}@{}/{}", self.repository, self.revision.replace('/', "%2F"), self.file)
    }
}

impl Remote {
    /// The repository in hf-hub's terms.
    pub fn repo(&self) -> Repo {
        let kind = if self.dataset { RepoType::Dataset } else { RepoType::Model };
        Repo::with_revision(self.repository.clone(), kind, self.revision.clone())
    }

    /// The file `name` in the same folder.
    pub fn beside(&self, name: &str) -> Remote {
        let file = self.file.rsplit_once('/').map_or_else(|| name.to_string(), |(folder, _)| format!("{folder}/{name}"));
        Remote { file, ..self.clone() }
    }

    /// The path of its address on a server, without a leading slash.
    pub fn address(&self) -> String {
        let kind = if self.dataset { "datasets/" } else { "" };
        let file: Vec<String> = self.file.split('/').map(encoded).collect();
        format!("{kind}{}/resolve/{}/{}", self.repository, encoded(&self.revision), file.join("/"))
    }
}

/// One part of an address: characters other than plain ones are written as `%` and two digits.
fn encoded(part: &str) -> String {
    let mut out = String::new();
    for byte in part.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out += &format!("%{byte:02X}"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        assert_eq!(of.address(), "datasets/uoft-cs/cifar10/resolve/refs%2Fconvert/plain/a.tar");
        assert_eq!(remote(&of.to_string()), of);
        assert_eq!(remote("hf://models/a/b@1.0/c"), remote("hf://a/b@1.0/c"));
        assert_eq!(remote("hf://a/b/c d/%2e ü").address(), "a/b/resolve/main/c%20d/%252e%20%C3%BC");
        assert_eq!(remote("hf://a/b/c/d").beside("e").file, "c/e");
        assert!(crate::is_remote(Path::new("hf://x")) && !crate::is_remote(Path::new("hf:/x")));
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
            "hf://a/b@%2F..%2Fx/c",
            "hf://a/b/c//d",
            "hf://a/b//etc/passwd",
            "hf://a/b/c?download=true",
            "hf://a/b/c\\d",
            "hf://a/b/c\n\u{1b}[2J",
            "hf://a--b/c/d",
            "hf://a b/c/d",
            "hf://.a/b/c",
            "hf://a/b:c/d",
            "hf://datasets/a/b",
        ];
        for path in paths {
            let error = path.parse::<Remote>().unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("hint: write hf://owner/name"), "{path}: {error}");
            assert!(!error.to_string().contains('\u{1b}'), "{path}");
        }
    }
}
