//! Unpacks the images of compressed tables once into a temporary file, where each can be read by its position.
//!
//! Pages of a table are compressed as a whole and hold hundreds of images, which training needs in random order. Unpacking a page for each
//! image would cost hundreds of times the work. The file is as large as the images; it has no name, so it disappears when the process ends,
//! in whatever way.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::store::files;
use ctk_core::{Context, Error, Result};

/// Bytes that are written at once.
const BUFFER: usize = 1 << 18;

/// A file that is being filled.
pub(super) struct Spool {
    file: Arc<File>,
    out: BufWriter<File>,
    length: u64,
    folder: PathBuf,
}

/// A table and the file that its images were unpacked to.
pub(crate) struct Unpacked {
    /// The table.
    pub table: PathBuf,
    file: Arc<File>,
}

/// One image of an unpacked table.
#[derive(Clone)]
pub(crate) struct Cell {
    pub of: Arc<Unpacked>,
    /// Its row in the table.
    pub row: u32,
    pub length: u32,
    offset: u64,
}

impl Spool {
    /// An empty file in the system's folder for temporary files.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn new() -> Result<Spool> {
        let folder = std::env::temp_dir();
        let file = tempfile::tempfile_in(&folder).map_err(|e| full(e, &folder))?;
        let out = BufWriter::with_capacity(BUFFER, file.try_clone()?);
        Ok(Spool { file: Arc::new(file), out, length: 0, folder })
    }

    /// Registers the table whose images are added next.
    pub fn table(&self, table: &Path) -> Arc<Unpacked> {
        Arc::new(Unpacked { table: table.to_path_buf(), file: self.file.clone() })
    }

    /// Adds the image of row `row` of a table.
    ///
    /// # Errors
    /// The disk is full; or a table has more than 4 GB in a row or more than 4 billion rows.
    pub fn add(&mut self, of: &Arc<Unpacked>, row: usize, bytes: &[u8]) -> Result<Cell> {
        let short =
            |n: usize| u32::try_from(n).map_err(|_| Error::new("a table of images has more than 4 billion rows or bytes a row"));
        let cell = Cell { of: of.clone(), row: short(row)?, length: short(bytes.len())?, offset: self.length };
        self.out.write_all(bytes).map_err(|e| full(e, &self.folder))?;
        self.length += bytes.len() as u64;
        Ok(cell)
    }

    /// Finishes the file. Returns the number of bytes written, and the folder.
    ///
    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> Result<(u64, PathBuf)> {
        self.out.flush().map_err(|e| full(e, &self.folder))?;
        Ok((self.length, self.folder))
    }
}

fn full(e: std::io::Error, folder: &Path) -> Error {
    Error::new(format!("images of a table cannot be unpacked to a temporary file: {e}"))
        .at(folder.display())
        .hint("it takes as much room as the images do: set TMPDIR to a folder on a larger disk")
}

impl Cell {
    /// The image's bytes.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.length as usize];
        files::read_at(&self.of.file, &mut bytes, self.offset).at("the temporary file of unpacked images")?;
        Ok(bytes)
    }
}
