//! Features in files: written for other programs, and read back.
//!
//! - `x.npy`: the rows, little-endian f32, `(n, width)`; read by `numpy.load("x.npy")`.
//! - `x.safetensors`: `features` (n, width) f32 and, if known, `labels` (n) i64.
//! - `x.npy.names.tsv` or `x.safetensors.names.tsv` beside these: a header, then one line for each row: the name and, if known, label,
//!   class name and part. Backslash, tab, line feed and carriage return in a name are written `\\`, `\t`, `\n`, `\r`.
//! - `x.csv`, `x.parquet`: everything in one table (`csv.rs`, `parquet.rs`).
//! - Codes of fewer bits ([`Codes`]) are written to the first two alone: `.npy` of int8 or uint8, `(n, bytes of a row)`; `.safetensors` with
//!   `features` of I8 or U8 and, where codes have ranges, `ranges` (2, width) f32, the least and the largest value of each column. They are
//!   not read back.

mod csv;
mod npy;
mod parquet;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error::{Context, Error, Result};
use crate::eval::Features;
use crate::eval::precision::{Codes, Precision};
use crate::memory;
use crate::opened;
use crate::store::files;
use crate::store::safetensors_header::Header;

enum Format {
    Npy,
    Safetensors,
    Csv,
    Parquet,
}

fn format(path: &Path) -> Result<Format> {
    match path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("npy") => Ok(Format::Npy),
        Some("safetensors") => Ok(Format::Safetensors),
        Some("csv") => Ok(Format::Csv),
        Some("parquet") => Ok(Format::Parquet),
        _ => Err(Error::usage("the file's name does not say its format")
            .at(path.display())
            .hint("features are kept in .npy, .safetensors, .csv or .parquet files")),
    }
}

/// The format that codes are written in to `path`.
fn format_of_codes(path: &Path) -> Result<Format> {
    match format(path)? {
        format @ (Format::Npy | Format::Safetensors) => Ok(format),
        Format::Csv | Format::Parquet => Err(Error::usage("a file of this format has values in f32, and no codes of fewer bits")
            .at(path.display())
            .hint("codes are written to .npy or .safetensors files")),
    }
}

/// Checks that codes can be written to `path`, before features are computed.
///
/// # Errors
/// A format that holds values in f32 alone.
pub fn holds_codes(path: &Path) -> Result<()> {
    format_of_codes(path).map(drop)
}

/// Codes in a file are refused: without their ranges, or the number of their bits, they would be taken for values.
fn coded() -> Error {
    Error::usage("this file has whole numbers of one byte, as `ctk embed --precision` writes them: codes, and no values")
        .hint("write the features with --precision float32 as well, and use these")
}

/// The files that [`Features::save`] writes for `path`, so that they can be announced before features are computed.
///
/// # Errors
/// The ending of `path` names no format.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(match format(path)? {
        Format::Npy | Format::Safetensors => vec![path.to_path_buf(), names_path(path)],
        Format::Csv | Format::Parquet => vec![path.to_path_buf()],
    })
}

/// Whether the file at `path` holds features, and not word vectors or texts: a `.npy` file, a `.safetensors` file with a tensor `features`,
/// a `.csv` file with the header of features, or a `.parquet` file with a column `embedding` of lists.
pub fn is_features(path: &Path) -> bool {
    // Only regular files are opened; a pipe, for instance, is not.
    match format(path) {
        _ if !path.is_file() => false,
        Ok(Format::Npy) => true,
        Ok(Format::Csv) => csv::is_features(path),
        Ok(Format::Parquet) => parquet::is_features(path),
        Ok(Format::Safetensors) => {
            let header = opened::open(path).and_then(|file| Header::read(&file));
            header.is_ok_and(|header| header.tensors.info("features").is_some())
        }
        Err(_) => false,
    }
}

/// The file with the names of the rows in `path`.
pub(crate) fn names_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".names.tsv");
    PathBuf::from(name)
}

impl Features {
    /// Writes the rows to `path` (`.npy` or `.safetensors`) and the names beside it, or everything into one `.csv` or `.parquet`. Each file
    /// appears whole or not at all.
    ///
    /// # Errors
    /// An unknown ending, or a file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let format = format(path)?;
        self.consistent(self.rows.len() == self.len() * self.width).at(path.display())?;
        if matches!(format, Format::Npy | Format::Safetensors) {
            files::write_with(&names_path(path), |out| self.write_names(out))?;
        }
        match format {
            Format::Csv => files::write_with(path, |out| csv::write(self, out)),
            Format::Parquet => files::write_with(path, |out| parquet::write(self, out)),
            Format::Npy => files::write_with(path, |out| self.write_npy(out)),
            Format::Safetensors => {
                let values: Vec<u8> = self.rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.write_tensors(path, (Dtype::F32, self.width, &values), None)
            }
        }
    }

    /// Writes `codes` of the rows in place of the rows, to a `.npy` or `.safetensors` file with the names beside it.
    ///
    /// # Errors
    /// Another ending, or a file that cannot be written.
    pub fn save_codes(&self, path: &Path, codes: &Codes) -> Result<()> {
        let format = format_of_codes(path)?;
        self.consistent(codes.bytes.len() == self.len() * codes.width).at(path.display())?;
        files::write_with(&names_path(path), |out| self.write_names(out))?;
        let signed = matches!(codes.precision, Precision::Int8 | Precision::Binary);
        match format {
            Format::Safetensors => {
                let kind = if signed { Dtype::I8 } else { Dtype::U8 };
                let ranges = codes.ranges.as_ref().map(|ranges| ranges.values());
                self.write_tensors(path, (kind, codes.width, &codes.bytes), ranges.as_deref())
            }
            _ => files::write_with(path, |out| {
                npy::header(out, if signed { "|i1" } else { "|u1" }, [self.len(), codes.width])?;
                Ok(out.write_all(&codes.bytes)?)
            }),
        }
    }

    /// Checks that there is a label and a part for each row, or for none, and that the rows are `whole`.
    fn consistent(&self, whole: bool) -> Result<()> {
        let labels = self.labels.as_ref().map_or(self.len(), Vec::len);
        let parts = if self.parts.is_empty() { self.len() } else { self.parts.len() };
        if whole && labels == self.len() && parts == self.len() {
            return Ok(());
        }
        Err(Error::new(format!("{} names, {labels} labels, {} values", self.len(), self.rows.len())))
    }

    /// Writes a safetensors file: `features` of this type and width, and perhaps labels and ranges.
    fn write_tensors(&self, path: &Path, (kind, width, bytes): (Dtype, usize, &[u8]), ranges: Option<&[f32]>) -> Result<()> {
        let labels: Vec<u8> = self.labels.iter().flatten().flat_map(|label| i64::from(*label).to_le_bytes()).collect();
        let ranges: Option<Vec<u8>> = ranges.map(|ranges| ranges.iter().flat_map(|value| value.to_le_bytes()).collect());
        let mut tensors = vec![("features", TensorView::new(kind, vec![self.len(), width], bytes)?)];
        if self.labels.is_some() {
            tensors.push(("labels", TensorView::new(Dtype::I64, vec![self.len()], &labels)?));
        }
        if let Some(ranges) = &ranges {
            tensors.push(("ranges", TensorView::new(Dtype::F32, vec![2, width], ranges)?));
        }
        files::write(path, &safetensors::serialize(tensors, None)?)
    }

    /// Reads what [`save`](Features::save) wrote, or any two-dimensional `.npy` file of numbers, or a `.safetensors` file with `features`.
    /// Without a file of names, rows are named by their numbers.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no features.
    pub fn load(path: &Path) -> Result<Features> {
        read(path).at(path.display())
    }

    /// The label of row `i` in a table, if there are labels: the class's name, or its number if classes have no names.
    fn label_text(&self, i: usize) -> Option<String> {
        let label = self.labels.as_ref()?[i];
        let class = self.classes.get(label as usize).filter(|class| !class.is_empty());
        Some(class.cloned().unwrap_or_else(|| label.to_string()))
    }

    /// The same rows with the labels of a table: one for each row, empty if the row has none. If no row has a part, there are no parts.
    fn told(mut self, labels: &[String]) -> Features {
        if self.parts.iter().all(String::is_empty) {
            self.parts.clear();
        }
        self.labelled(labels)
    }

    fn write_npy(&self, out: &mut impl Write) -> Result<()> {
        npy::header(out, "<f4", [self.len(), self.width])?;
        for value in &self.rows {
            out.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    }

    fn write_names(&self, out: &mut impl Write) -> Result<()> {
        let of = |known: bool, columns: &'static str| if known { columns } else { "" };
        writeln!(out, "name{}{}", of(self.labels.is_some(), LABELLED), of(!self.parts.is_empty(), PARTED))?;
        for (i, name) in self.names.iter().enumerate() {
            write!(out, "{}", escape(name))?;
            if let Some(labels) = &self.labels {
                write!(out, "\t{}\t{}", labels[i], escape(self.classes.get(labels[i] as usize).map_or("", String::as_str)))?;
            }
            if let Some(part) = self.parts.get(i) {
                write!(out, "\t{}", escape(part))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

/// The header of the names' columns after `name`: where labels are known, and where parts are known.
const LABELLED: &str = "\tlabel\tclass";
const PARTED: &str = "\tsplit";

fn read(path: &Path) -> Result<Features> {
    // All values are read at once, in f32; as text they may be longer.
    let length = opened::open(path)?.metadata()?.len();
    memory::require("what this file holds", length, |_| "embed less data at once".to_string())?;
    let (rows, mut labels) = match format(path)? {
        Format::Csv => return csv::read(path),
        Format::Parquet => return parquet::read(path),
        Format::Npy => {
            if npy::check(path)? {
                return Err(coded());
            }
            (Tensor::read_npy(path)?, None)
        }
        Format::Safetensors => {
            let header = opened::open(path).and_then(|file| Header::read(&file))?;
            if header.tensors.info("features").is_some_and(|info| matches!(info.dtype, Dtype::I8 | Dtype::U8)) {
                return Err(coded());
            }
            let mut tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
            let rows = tensors.remove("features").ok_or_else(|| Error::new("the file holds no tensor `features`"))?;
            let labels = tensors.remove("labels").map(|l| numbers(&l)).transpose()?;
            (rows, labels)
        }
    };
    let &[n, width] = rows.dims() else {
        return Err(Error::new(format!("features have two dimensions, these have shape {:?}", rows.dims())));
    };
    let rows = rows.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (mut names, mut classes, mut parts) = ((0..n).map(|i| i.to_string()).collect(), Vec::new(), Vec::new());
    let beside = names_path(path);
    if beside.is_file() {
        let text = opened::text(&beside).at(beside.display())?;
        (names, labels, classes, parts) = read_names(&text).at(beside.display())?;
    }
    if names.len() != n || labels.as_ref().is_some_and(|l| l.len() != n) {
        return Err(Error::new(format!("{n} rows, but {} names or labels", names.len())));
    }
    Ok(Features { rows, width, names, labels, classes, parts, extras: Vec::new() })
}

fn numbers(labels: &Tensor) -> Result<Vec<u32>> {
    let labels = labels.to_dtype(DType::I64)?.to_vec1::<i64>()?;
    labels.into_iter().map(|l| u32::try_from(l).map_err(|_| Error::new(format!("{l} is not a label")))).collect()
}

/// Names, labels, classes and parts.
type Names = (Vec<String>, Option<Vec<u32>>, Vec<String>, Vec<String>);

fn read_names(text: &str) -> Result<Names> {
    let mut lines = text.split_terminator('\n');
    let header = lines.next().and_then(|header| header.strip_prefix("name"));
    let (header, parted) = header.map_or((None, false), |h| h.strip_suffix(PARTED).map_or((Some(h), false), |h| (Some(h), true)));
    let labelled = match header {
        Some("") => false,
        Some(LABELLED) => true,
        _ => return Err(Error::new("the first line is not `name`, or `name`, `label`, `class`, or either and `split`")),
    };
    let (mut names, mut labels, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    let mut classes = std::collections::BTreeMap::new();
    for (at, line) in lines.enumerate() {
        let mut fields = line.split('\t');
        names.push(unescape(fields.next().unwrap_or_default()));
        if labelled {
            let label = fields.next().and_then(|l| l.parse().ok());
            let label: u32 = label.ok_or_else(|| Error::new("no label").at(format!("line {}", at + 2)))?;
            labels.push(label);
            classes.insert(label, unescape(fields.next().unwrap_or_default()));
        }
        if parted {
            parts.push(unescape(fields.next().unwrap_or_default()));
        }
    }
    // Class names keep their numbers, if the numbers have no large gaps.
    let named = classes.values().any(|c| !c.is_empty());
    let count = classes.keys().last().map_or(0, |l| *l as usize + 1);
    let by_number = |l: usize| classes.get(&(l as u32)).cloned().unwrap_or_default();
    let classes = if named && count <= 1 << 20 { (0..count).map(by_number).collect() } else { Vec::new() };
    Ok((names, labelled.then_some(labels), classes, parts))
}

fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let escaped = if c == '\\' { chars.next() } else { None };
        out.push(match escaped {
            None => c,
            Some('t') => '\t',
            Some('n') => '\n',
            Some('r') => '\r',
            Some(other) => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn some() -> Features {
        Features {
            rows: vec![1.5, -2.0, f32::MIN_POSITIVE, 0.1, 7.0, 1e30],
            width: 2,
            names: vec!["a/b.png".into(), "tab\tline\nback\\t\r".into(), "ümlaut, \"quote\"".into()],
            labels: Some(vec![2, 0, 2]),
            classes: vec!["cat".into(), String::new(), "d\tog".into()],
            parts: vec!["train".into(), String::new(), "test".into()],
            extras: vec![],
        }
    }

    #[test]
    fn saved_features_come_back() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x.npy", "sub/x.safetensors"] {
            let unlabelled = Features { labels: None, classes: vec![], ..some() };
            let plain = Features { parts: vec![], ..some() };
            for features in [some(), unlabelled, Features { classes: vec![], ..some() }, plain] {
                let path = folder.path().join(name);
                features.save(&path).unwrap();
                let back = Features::load(&path).unwrap();
                assert_eq!((&back.rows, back.width, &back.names), (&features.rows, features.width, &features.names));
                assert_eq!((&back.labels, &back.classes, &back.parts), (&features.labels, &features.classes, &features.parts));
                assert!(is_features(&path));
                fs::remove_file(names_path(&path)).unwrap();
                let bare = Features::load(&path).unwrap();
                assert_eq!(bare.names, ["0", "1", "2"]);
                assert_eq!(bare.labels, if name.ends_with("npy") { None } else { features.labels });
            }
        }
    }

    #[test]
    fn the_npy_header_is_numpys() {
        let mut bytes = Vec::new();
        some().write_npy(&mut bytes).unwrap();
        let length = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
        assert_eq!((&bytes[..8], (10 + length) % 64), (&b"\x93NUMPY\x01\x00"[..], 0));
        let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
        assert!(header.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }") && header.ends_with(" \n"));
        assert_eq!(bytes.len(), 10 + length + 6 * 4);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        assert_eq!(some().save(&folder.path().join("x.tsv")).unwrap_err().exit_code(), 2);
        assert!(Features { width: 3, ..some() }.save(&path).is_err());
        assert!(Features::load(&path).unwrap_err().to_string().contains("x.npy"));
        some().save(&path).unwrap();
        for names in ["name\na\nb\n", "word\na\nb\nc\n", "name\tlabel\tclass\na\t1\t\nb\t\t\nc\t1\t\n"] {
            fs::write(names_path(&path), names).unwrap();
            assert!(Features::load(&path).is_err(), "{names:?}");
        }
        fs::write(&path, b"\x93NUMPY\x01\x00").unwrap();
        assert!(Features::load(&path).is_err());
    }
}
