//! Which files a corpus consists of, and their bytes in bounded pieces that end where a line does.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ctk_core::{Context, Error, Result, store::files};
use globset::GlobBuilder;

/// Bytes of a piece; a line's end is looked for around here.
const CHUNK: usize = 4 << 20;

/// The path that stands for standard input.
const STDIN: &str = "-";

/// How errors name a file.
pub fn shown(path: &Path) -> String {
    if path == Path::new(STDIN) { "standard input".to_string() } else { path.display().to_string() }
}

/// The files that `paths` name: `-` for standard input, files (also of the hub), folders (every file below, hidden ones left out) and
/// globs, in the order given, each folder's and glob's files sorted.
///
/// # Errors
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
                    .hint("put text files into it, plain, .gz or .zst"));
            }
            found.extend(files);
        } else if given.contains(['*', '?', '[', '{']) {
            found.extend(glob(given)?);
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
    // The walk starts at the last folder without a wildcard.
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

/// A file's bytes, decompressed if they need it, and whether they did; gzip and zstd are known by their first bytes.
pub fn decompressed(path: &Path) -> Result<(Box<dyn Read + Send>, bool)> {
    let file: Box<dyn Read + Send> =
        if path == Path::new(STDIN) { Box::new(std::io::stdin()) } else { Box::new(File::open(path).at(path.display())?) };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let head = file.fill_buf().at(shown(path))?;
    let (gzip, zstd) = (head.starts_with(&[0x1f, 0x8b]), head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let reader: Box<dyn Read + Send> = if gzip {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if zstd {
        Box::new(zstd::Decoder::with_buffer(file).at(shown(path))?)
    } else {
        Box::new(file)
    };
    Ok((reader, gzip || zstd))
}

/// A piece of a file's text.
pub struct Chunk {
    /// Its bytes, not yet checked.
    pub bytes: Vec<u8>,
    /// Where it starts in the (decompressed) text.
    pub offset: u64,
    /// Whether offsets are of decompressed text.
    pub compressed: bool,
}

/// A file in pieces. A piece ends after a line's end; a line longer than a piece is cut at white space.
pub struct Chunks {
    path: PathBuf,
    reader: Box<dyn Read + Send>,
    compressed: bool,
    offset: u64,
    rest: Vec<u8>,
    done: bool,
}

impl Chunks {
    /// Opens a file, plain or compressed.
    pub fn open(path: &Path) -> Result<Chunks> {
        let (reader, compressed) = decompressed(path)?;
        Ok(Chunks { path: path.to_path_buf(), reader, compressed, offset: 0, rest: Vec::new(), done: false })
    }

    /// Whether the file is compressed.
    pub fn compressed(&self) -> bool {
        self.compressed
    }

    fn read(&mut self) -> Result<Option<Chunk>> {
        let mut bytes = std::mem::take(&mut self.rest);
        let mut goal = CHUNK;
        let cut = loop {
            let want = goal.saturating_sub(bytes.len()) as u64;
            let read = self.reader.by_ref().take(want).read_to_end(&mut bytes).at(shown(&self.path))?;
            if read == 0 {
                self.done = true;
                break bytes.len();
            }
            if bytes.len() < goal {
                continue;
            }
            // ASCII bytes are never part of a longer UTF-8 sequence, so these cuts split no character.
            let line = bytes.iter().rposition(|&b| b == b'\n');
            if let Some(at) = line.or_else(|| bytes.iter().rposition(u8::is_ascii_whitespace)) {
                break at + 1;
            }
            goal += CHUNK;
        };
        self.rest = bytes.split_off(cut);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        // A byte order mark would become part of the first word.
        if offset == 0 && bytes.starts_with(&[0xef, 0xbb, 0xbf]) {
            bytes[..3].fill(b' ');
        }
        Ok((!bytes.is_empty()).then_some(Chunk { bytes, offset, compressed: self.compressed }))
    }
}

impl Iterator for Chunks {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Result<Chunk>> {
        if self.done { None } else { self.read().transpose() }
    }
}
