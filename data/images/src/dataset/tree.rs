//! The tree of folders and images, on disk or inside an archive; and which files are images.
//!
//! An image is recognised by its extension, in any case. A file without an extension, or with one that is not known to belong to other
//! files, is recognised by its first bytes. Hidden files belong to other programs and are never data.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ctk_core::opened;
use ctk_core::{Context, Error, Result};

use super::captions::{self, Captions};
use super::report::Found;
use super::{Item, Stored};
use crate::decode::{EXTENSIONS, Kind};

/// Extensions of other files, which are not opened to look for an image. Raw photos and scanned slides are among them: they begin like TIFF
/// files and hold a small preview first.
const OTHERS: &[&str] = &[
    "txt",
    "csv",
    "tsv",
    "json",
    "jsonl",
    "xml",
    "yaml",
    "yml",
    "toml",
    "md",
    "rst",
    "html",
    "htm",
    "css",
    "js",
    "pdf",
    "doc",
    "docx",
    "xls",
    "xlsx",
    "ppt",
    "pptx",
    "npy",
    "npz",
    "mat",
    "pt",
    "pth",
    "bin",
    "safetensors",
    "pkl",
    "pickle",
    "h5",
    "hdf5",
    "parquet",
    "pq",
    "arrow",
    "feather",
    "db",
    "sqlite",
    "ini",
    "cfg",
    "log",
    "py",
    "ipynb",
    "sh",
    "zip",
    "tar",
    "gz",
    "tgz",
    "zst",
    "bz2",
    "xz",
    "7z",
    "rar",
    "mp4",
    "mov",
    "avi",
    "mkv",
    "webm",
    "m4v",
    "mp3",
    "wav",
    "m4a",
    "aac",
    "flac",
    "ogg",
    "heic",
    "heif",
    "avif",
    "jxl",
    "psd",
    "ai",
    "eps",
    "svg",
    "xmp",
    "aae",
    "lock",
    "url",
    "lnk",
    "exe",
    "dll",
    "cr2",
    "cr3",
    "nef",
    "arw",
    "dng",
    "orf",
    "rw2",
    "raf",
    "svs",
    "ndpi",
    "scn",
    "dcm",
    "nii",
    "exr",
    "hdr",
    "jp2",
    "cls",
    "geojson",
    "srt",
];

// More levels than this mean that a link leads to an upper folder.
const DEEPEST: usize = 32;

/// A folder and everything below it. Images are in the order of their names; those of a folder come before those of its subfolders.
#[derive(Default)]
pub(super) struct Node {
    /// Its path relative to the data's root folder, with forward slashes; empty for the root itself.
    pub path: String,
    pub images: Vec<Leaf>,
    pub folders: Vec<Node>,
    /// Number of images here and below.
    pub count: usize,
}

/// An image: its path from the start of the search, and where its bytes lie.
pub(super) struct Leaf {
    pub path: String,
    pub stored: Stored,
    /// The group that it belongs to, if known: a patient, a video.
    pub group: Option<Arc<str>>,
    /// Its captions, if they were asked for and there are any.
    pub captions: Option<Arc<Captions>>,
}

impl Node {
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The folders that hold images, at any depth.
    pub fn filled(&self) -> impl Iterator<Item = &Node> {
        self.folders.iter().filter(|folder| folder.count > 0)
    }

    /// Whether every image is in a subfolder, and there are several of these.
    pub fn holds_classes(&self) -> bool {
        self.images.is_empty() && self.filled().count() > 1
    }

    /// Every image, in order.
    pub fn leaves(self) -> Vec<Leaf> {
        let mut all = self.images;
        all.reserve(self.count - all.len());
        self.folders.into_iter().for_each(|folder| all.extend(folder.leaves()));
        all
    }

    /// Counts every image in it as not read.
    pub fn pass_over(self, kind: &str, found: &mut Found) {
        self.leaves().iter().for_each(|leaf| found.pass_over(kind, &leaf.path));
    }

    /// A folder with `leaves`, which are sorted first: the content of an archive or a list.
    pub fn of(mut leaves: Vec<Leaf>) -> Node {
        leaves.sort_by(|a, b| a.path.cmp(&b.path));
        let mut root = Node::default();
        for leaf in leaves {
            let mut at = &mut root;
            at.count += 1;
            let ends: Vec<usize> = leaf.path.match_indices('/').map(|(end, _)| end).collect();
            for end in ends {
                let path = &leaf.path[..end];
                let place = at.folders.iter().position(|folder| folder.path == path).unwrap_or_else(|| {
                    at.folders.push(Node { path: path.to_string(), ..Node::default() });
                    at.folders.len() - 1
                });
                at = &mut at.folders[place];
                at.count += 1;
            }
            at.images.push(leaf);
        }
        root.sort();
        root
    }

    /// Moves it and everything in it below the folder `parent`.
    pub fn move_below(&mut self, parent: &str) {
        let moved = |path: &str| if path.is_empty() { parent.to_string() } else { format!("{parent}/{path}") };
        self.path = moved(&self.path);
        self.images.iter_mut().for_each(|leaf| leaf.path = moved(&leaf.path));
        self.folders.iter_mut().for_each(|folder| folder.move_below(parent));
    }

    fn sort(&mut self) {
        self.folders.sort_by(|a, b| a.path.cmp(&b.path));
        self.folders.iter_mut().for_each(Node::sort);
    }
}

impl Leaf {
    pub fn new(path: impl Into<String>, stored: Stored) -> Leaf {
        Leaf { path: path.into(), stored, group: None, captions: None }
    }

    /// Adds captions after those that it has.
    pub fn add_captions(&mut self, captions: Captions) {
        match &mut self.captions {
            Some(all) => Arc::make_mut(all).extend(captions),
            None => self.captions = captions::kept(captions),
        }
    }

    /// The image with its name relative to `root`, a folder's path.
    pub fn item(self, root: &str, label: Option<u32>) -> Item {
        Item::new(below(root, &self.path), label, self.stored).of_group(self.group).captioned(self.captions)
    }
}

/// `path` relative to `root`.
pub(super) fn below<'a>(root: &str, path: &'a str) -> &'a str {
    path.strip_prefix(root).map_or(path, |rest| rest.trim_start_matches('/'))
}

/// Whether a file's name is that of an image.
pub(super) fn is_image(name: &str) -> bool {
    extension(name).is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// The kind under which a file that is not read is counted.
pub(super) fn kind(name: &str) -> String {
    match extension(name) {
        _ if name.starts_with('.') => "hidden".into(),
        Some(extension) => extension,
        None => "without extension".into(),
    }
}

/// The extension in lower case.
pub(super) fn extension(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let plain = !stem.is_empty() && !extension.is_empty() && extension.len() <= 12 && !extension.contains(' ');
    plain.then(|| extension.to_lowercase())
}

/// Whether only a file's first bytes can tell what it is.
pub(super) fn is_unclear(name: &str) -> bool {
    extension(name).is_none_or(|e| !OTHERS.contains(&e.as_str()))
}

/// Whether these are the first bytes of an image.
pub(super) fn begins_as_image(bytes: &[u8]) -> bool {
    // Text files may begin with two letters and a line end, too.
    Kind::of(bytes).is_ok_and(|kind| !matches!(kind, Kind::Bmp | Kind::Pnm))
}

/// Whether a name is that of another program's hidden file.
pub(super) fn is_mark(name: &str) -> bool {
    let of_images = is_image(name) && !name.starts_with("._");
    (name.starts_with('.') && !of_images) || ["thumbs.db", "desktop.ini"].contains(&name.to_lowercase().as_str())
}

/// Whether a folder belongs to another program: it is hidden, or macOS put it into an archive.
pub(super) fn is_foreign(folder: &str) -> bool {
    folder.starts_with('.') || folder == "__MACOSX"
}

/// Everything below the folder `root`; files that are not images are counted in `found`.
///
/// # Errors
/// A folder cannot be listed, or folders are nested too deeply.
pub(super) fn walk(root: &Path, found: &mut Found) -> Result<Node> {
    step(root, String::new(), 0, found)
}

/// Refuses a `folder` that is nested too deeply below the start of the search.
pub(super) fn check_depth(folder: &Path, depth: usize) -> Result<()> {
    match depth > DEEPEST {
        true => Err(Error::new("folders nest too deep here: is one a link to an upper folder?").at(folder.display())),
        false => Ok(()),
    }
}

fn step(folder: &Path, path: String, depth: usize, found: &mut Found) -> Result<Node> {
    check_depth(folder, depth)?;
    let mut entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).at(folder.display())?;
    entries.sort_by_cached_key(fs::DirEntry::file_name);
    let mut node = Node { path, ..Node::default() };
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let here = if node.path.is_empty() { name.clone() } else { format!("{}/{name}", node.path) };
        let kind_of = entry.file_type().at(folder.display())?;
        // Only a link needs a second look.
        let is_folder = kind_of.is_dir() || (kind_of.is_symlink() && entry.path().is_dir());
        match is_folder {
            true if is_foreign(&name) => {}
            true => {
                let below = step(&entry.path(), here, depth + 1, found)?;
                node.count += below.count;
                node.folders.push(below);
            }
            false if is_mark(&name) => {}
            false if kind_of.is_symlink() && !entry.path().exists() => {
                found.files += 1;
                found.pass_over("link to nothing", &here);
            }
            // Opening a pipe would wait for ever.
            false if let Some(what) = odd(kind_of, &entry.path()) => {
                found.files += 1;
                found.pass_over(what, &here);
            }
            false => {
                found.files += 1;
                if !name.starts_with('.') && (is_image(&name) || (is_unclear(&name) && looks_like_one(&entry.path()))) {
                    node.images.push(Leaf::new(here, Stored::File(entry.path())));
                } else {
                    found.pass_over(kind(&name), &here);
                }
            }
        }
    }
    node.count += node.images.len();
    Ok(node)
}

/// The kind of a folder's entry, if it is neither a file nor a folder; a link has the kind of its target.
fn odd(kind: fs::FileType, path: &Path) -> Option<&'static str> {
    if kind.is_file() { None } else { opened::odd(path) }
}

/// Whether a file begins like an image; false for one that cannot be opened.
pub(super) fn looks_like_one(path: &Path) -> bool {
    let mut start = [0; 16];
    let read = opened::open(path).and_then(|file| Ok(file.take(16).read(&mut start)?));
    read.is_ok_and(|length| begins_as_image(&start[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_of_every_kind_in_any_case() {
        for name in [
            "a.PNG", "a.jpg", "b.JPEG", "c.jpe", "d.jfif", "e.webp", "f.tif", "g.TIFF", "h.bmp", "i.dib", "j.gif", "k.ppm",
            "l.pbm",
        ] {
            assert!(is_image(name), "{name}");
        }
        for (name, of) in [
            ("a.psd", "psd"),
            ("x.tar.GZ", "gz"),
            ("README", "without extension"),
            (".x.png", "hidden"),
            ("v1. one", "without extension"),
        ] {
            assert!(!is_image(name) || name.starts_with('.'), "{name}");
            assert_eq!(kind(name), of);
        }
        assert!(is_mark(".DS_Store") && is_mark("Thumbs.db") && is_mark("._a.png") && !is_mark(".a.png"));
        assert!(is_unclear("IMG_0001") && is_unclear("photo.jpg_large") && !is_unclear("notes.txt") && !is_unclear("raw.NEF"));
    }

    #[test]
    fn a_list_becomes_folders_in_the_order_of_a_walk() {
        let leaf = |path: &str| Leaf::new(path, Stored::File(path.into()));
        let root = Node::of(["b/2.png", "b-1/1.png", "z.png", "b/c/d.png", "a/1.png"].map(leaf).into());
        assert_eq!((root.count, root.folders.iter().map(Node::name).collect::<Vec<_>>()), (5, vec!["a", "b", "b-1"]));
        let paths: Vec<String> = root.leaves().into_iter().map(|leaf| leaf.path).collect();
        assert_eq!(paths, ["z.png", "a/1.png", "b/2.png", "b/c/d.png", "b-1/1.png"]);
    }
}
