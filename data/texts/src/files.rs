//! Finds the files of a corpus. [`unpacked`] reads a file's bytes, [`Chunks`] its text in pieces, [`whole`] its whole text.

mod chunks;
mod encoding;
#[cfg(test)]
mod tests;
mod unpack;

use std::path::{Path, PathBuf};

use ctk_core::opened;
use ctk_core::store::files;
use ctk_core::{Error, Result};
use globset::GlobBuilder;

pub use chunks::{Chunk, Chunks, Origin, Whole, whole};
pub use encoding::Encoding;
pub use unpack::{Unpacked, is_packed, open, unpacked};

/// The path that stands for standard input.
const STDIN: &str = "-";

/// How error messages name a file.
pub fn shown(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_string() } else { path.display().to_string() }
}

/// The files that `paths` name: `-` for standard input, files (on the hub, too), folders (every file below, except hidden ones) and globs,
/// in the given order; the files of each folder and glob are sorted.
///
/// # Errors
/// A path that does not exist, a folder without files, or a glob that matches nothing: each is a mistake in the recipe.
/// A path that does not exist, a folder without files, a glob that matches nothing: each is a mistake in the recipe.
pub fn find(paths: &[String]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for given in paths {
        let path = ctk_hub::local(Path::new(given))?;
        let path = &*path;
        if given == STDIN || path.is_file() {
            found.push(path.to_path_buf());
        } else if path.is_dir() {
            let files = files::below(path)?;
            if files.is_empty() {
                return Err(Error::usage("there is no file in this folder")
                    .at(path.display())
                    .hint("put text files into it, plain, .gz, .bz2, .xz or .zst"));
            }
            found.extend(files);
        } else if given.contains(['*', '?', '[', '{']) {
            found.extend(glob(given)?);
        } else if let Some(what) = opened::odd(path) {
            return Err(Error::usage(format!("this is {what}, and has to be a file"))
                .at(path.display())
                .hint("write what comes from there into a file; text for `ctk train` can also come by standard input (-)"));
        } else {
            return Err(Error::usage("there is no such file or folder")
                .at(path.display())
                .hint("data.path takes text files, folders of them, globs, and - for standard input"));
        }
    }
    Ok(found)
}

fn glob(pattern: &str) -> Result<Vec<PathBuf>> {
    let bad = |e: globset::Error| Error::usage(format!("not a glob: {e}")).at(pattern);
    let matcher = GlobBuilder::new(pattern).literal_separator(true).build().map_err(bad)?.compile_matcher();
    // The search starts at the last folder without a wildcard.
    let root: PathBuf =
        Path::new(pattern).components().take_while(|c| !c.as_os_str().to_string_lossy().contains(['*', '?', '[', '{'])).collect();
    let start = if root.as_os_str().is_empty() { Path::new(".") } else { &root };
    let mut files = if start.is_dir() { files::below(start)? } else { Vec::new() };
    let plain = |path: &Path| path.strip_prefix(".").map(Path::to_path_buf).unwrap_or_else(|_| path.to_path_buf());
    files.retain(|path| matcher.is_match(path) || matcher.is_match(plain(path)));
    if files.is_empty() {
        return Err(Error::usage("no file matches this glob").at(pattern).hint("`**` crosses folders, `*` does not"));
    }
    Ok(files)
}
