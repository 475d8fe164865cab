//! A digest that shows whether a text is still the text of a run, without reading all of it: the files' names, order and sizes, and some of
//! their bytes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ctk_core::store::files;
use ctk_core::{Context, Result};

/// Places in a file whose bytes are read, spread evenly, and the number of bytes there.
const PLACES: u64 = 16;
const BYTES: usize = 4096;

/// A digest of the names, the order and the sizes of `paths`, and of a sample of their bytes. The folders of the files do not matter. None
/// if one of them is standard input or not a regular file, which cannot be read twice.
///
/// # Errors
/// A file that is missing or cannot be read.
pub fn identity(paths: &[PathBuf]) -> Result<Option<String>> {
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        if path == Path::new("-") || !fs::metadata(path).is_ok_and(|m| m.is_file()) {
            return Ok(None);
        }
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let file = File::open(path).at(path.display())?;
        let length = file.metadata().at(path.display())?.len();
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&length.to_le_bytes());
        let mut bytes = vec![0; BYTES.min(length as usize)];
        let last = length - bytes.len() as u64;
        for place in 0..PLACES {
            files::read_at(&file, &mut bytes, last * place / (PLACES - 1)).at(path.display())?;
            hasher.update(&bytes);
        }
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_with_names_order_sizes_and_bytes_and_not_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let of = |paths: &[&PathBuf]| identity(&paths.iter().map(|p| p.to_path_buf()).collect::<Vec<_>>()).unwrap().unwrap();
        let (a, b, elsewhere) = (write("a.txt", "one two"), write("b.txt", ""), write("x/a.txt", "one two"));
        assert_eq!(of(&[&a, &b]), of(&[&elsewhere, &b]));
        let before = of(&[&a, &b]);
        let long = write("long.txt", &"word ".repeat(100_000));
        let first = of(&[&long]);
        let different = [of(&[&b, &a]), of(&[&a]), of(&[&a, &write("c.txt", "")]), of(&[&write("a.txt", "one twp"), &b])];
        assert!(different.iter().all(|other| *other != before));
        write("long.txt", &format!("{}end. ", "word ".repeat(99_999)));
        assert_ne!(of(&[&long]), first);
        assert_eq!(identity(&[PathBuf::from("-")]).unwrap(), None);
    }
}
