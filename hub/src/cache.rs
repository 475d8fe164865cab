//! The cache folder, shared with the hub's own libraries: contents by name in `blobs`, the files of a commit in `snapshots` as links to
//! them, the commits of branches and tags in `refs`, locks in `.locks`. hf-hub decides these names; this file decides what is written and
//! what is trusted.

use std::fs;
use std::path::{Component, Path, PathBuf};

use ctk_core::store::files;
use ctk_core::{Context, Error, Result};
use hf_hub::CacheRepo;

use crate::answer::is_commit;
use crate::remote::Remote;

/// The cache's folder; an absolute path.
pub(crate) struct Cache(pub PathBuf);

impl Cache {
    fn repository(&self, file: &Remote) -> PathBuf {
        self.0.join(file.repo().folder_name())
    }

    fn names(&self, file: &Remote) -> CacheRepo {
        hf_hub::Cache::new(self.0.clone()).repo(file.repo())
    }

    /// The file of a content. `etag` has been checked.
    pub fn blob(&self, file: &Remote, etag: &str) -> PathBuf {
        self.repository(file).join("blobs").join(etag)
    }

    /// The lock for programs that download the same content; the same path as in Python's library.
    pub fn lock(&self, file: &Remote, etag: &str) -> PathBuf {
        self.0.join(".locks").join(file.repo().folder_name()).join(format!("{etag}.lock"))
    }

    /// The file, if it was downloaded before.
    ///
    /// # Errors
    /// A link that leads out of the repository's folder, or something that is not a file.
    pub fn found(&self, file: &Remote) -> Result<Option<PathBuf>> {
        let repository = self.repository(file);
        let branch = fs::read_to_string(repository.join("refs").join(&file.revision)).ok();
        // Python's library stores no reference for a file that was requested by its commit.
        let commit = branch.as_deref().map(str::trim).filter(|text| is_commit(text));
        let Some(commit) = commit.or_else(|| Some(&*file.revision).filter(|text| is_commit(text))) else { return Ok(None) };
        let path = self.names(file).pointer_path(commit).join(&file.file);
        let Ok(real) = fs::canonicalize(&path) else { return Ok(None) };
        // Contents may be on another disk, behind a link of the whole folder.
        let homes = [repository.clone(), repository.join("blobs"), repository.join("snapshots")];
        let inside = homes.iter().filter_map(|home| fs::canonicalize(home).ok()).any(|home| real.starts_with(home));
        if !inside || !real.is_file() {
            let what = if inside { "this is not a file" } else { "this link of the hub's cache leads out of it" };
            return Err(Error::new(what).at(path.display()).at(file).hint("delete it: the file is then downloaded again"));
        }
        Ok(Some(path))
    }

    /// Links existing content as the file of its commit, and records the commit of the branch.
    ///
    /// # Errors
    /// A folder of the cache leads out of it, or a file cannot be written.
    pub fn keep(&self, file: &Remote, commit: &str, etag: &str) -> Result<PathBuf> {
        let repository = self.repository(file);
        let snapshots = repository.join("snapshots");
        let path = self.names(file).pointer_path(commit).join(&file.file);
        let (folder, name) = (path.parent().unwrap_or(&snapshots), path.file_name().unwrap_or_default());
        fs::create_dir_all(folder).at(folder.display())?;
        if !fs::canonicalize(folder).at(folder.display())?.starts_with(fs::canonicalize(&snapshots).at(snapshots.display())?) {
            return Err(Error::new("this folder of the hub's cache leads out of it").at(folder.display()).hint("delete it"));
        }
        let up = Path::new(&file.file).components().filter(|part| matches!(part, Component::Normal(_))).count() + 1;
        let content: PathBuf = std::iter::repeat_n("..", up).chain(["blobs", etag]).collect();
        // Made under another name and renamed, so that an existing file is replaced at once.
        let new = folder.join(format!(".{}-{}", name.to_string_lossy(), std::process::id()));
        let _ = fs::remove_file(&new);
        link(&content, &self.blob(file, etag), &new).and_then(|()| fs::rename(&new, &path)).at(path.display())?;
        if file.revision != commit {
            files::write(&repository.join("refs").join(&file.revision), commit.as_bytes())?;
        }
        Ok(path)
    }
}

#[cfg(unix)]
fn link(content: &Path, _: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(content, at)
}

/// Links to files need a right that few users have there.
#[cfg(windows)]
fn link(content: &Path, whole: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(content, at)
        .or_else(|_| fs::hard_link(whole, at))
        .or_else(|_| fs::copy(whole, at).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_file_is_kept_and_found_and_leads_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache(folder.path().join("hub"));
        let file: Remote = "hf://a/b@v%2F1/c/d.txt".parse().unwrap();
        assert_eq!(cache.found(&file).unwrap(), None);
        files::write(&cache.blob(&file, "e7a9"), b"content").unwrap();
        let path = cache.keep(&file, COMMIT, "e7a9").unwrap();
        assert_eq!(path, folder.path().join(format!("hub/models--a--b/snapshots/{COMMIT}/c/d.txt")));
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(cache.found(&file).unwrap(), Some(path.clone()));
        let exact: Remote = format!("hf://a/b@{COMMIT}/c/d.txt").parse().unwrap();
        assert_eq!(cache.found(&exact).unwrap(), Some(path.clone()));
        // Again, over an existing file.
        files::write(&cache.blob(&file, "e7aa"), b"other").unwrap();
        cache.keep(&file, COMMIT, "e7aa").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn links_and_references_that_lead_out_are_refused() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache(folder.path().join("hub"));
        let file: Remote = "hf://a/b/c/d.txt".parse().unwrap();
        let secret = folder.path().join("secret");
        files::write(&secret, b"secret").unwrap();
        let repository = folder.path().join("hub/models--a--b");
        files::write(&repository.join("refs/main"), COMMIT.as_bytes()).unwrap();
        let snapshot = repository.join("snapshots").join(COMMIT);
        fs::create_dir_all(snapshot.join("c")).unwrap();
        symlink(&secret, snapshot.join("c/d.txt")).unwrap();
        let error = cache.found(&file).unwrap_err().to_string();
        assert!(error.contains("leads out of it") && error.contains("hint: delete it"), "{error}");
        fs::remove_dir_all(snapshot.join("c")).unwrap();
        symlink(folder.path(), snapshot.join("c")).unwrap();
        files::write(&cache.blob(&file, "e7a9"), b"content").unwrap();
        let error = cache.keep(&file, COMMIT, "e7a9").unwrap_err().to_string();
        assert!(error.contains("leads out of it") && !folder.path().join("d.txt").exists(), "{error}");
        files::write(&repository.join("refs/main"), b"../../..").unwrap();
        assert_eq!(cache.found(&file).unwrap(), None);
    }

    #[test]
    #[cfg(unix)]
    fn contents_may_lie_on_another_disk() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache(folder.path().join("hub"));
        let file: Remote = "hf://a/b/d.txt".parse().unwrap();
        fs::create_dir_all(folder.path().join("hub/models--a--b")).unwrap();
        fs::create_dir(folder.path().join("big")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("big"), folder.path().join("hub/models--a--b/blobs")).unwrap();
        files::write(&cache.blob(&file, "e7a9"), b"content").unwrap();
        cache.keep(&file, COMMIT, "e7a9").unwrap();
        assert!(cache.found(&file).unwrap().is_some());
    }
}
