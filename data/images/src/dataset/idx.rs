//! IDX: the format of MNIST, Fashion-MNIST and EMNIST. A magic number (two zeros, 8 for bytes, the number of dimensions),
//! the dimensions as big-endian u32, the bytes. (LeCun, Cortes, Burges; Xiao et al. 2017)

use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ctk_core::opened;
use ctk_core::{Context, Error, Result, memory};
use flate2::read::GzDecoder;

use super::images::listed;
use super::{Images, Item, Layout, Span, Splits, Stored, entries, file_name};

/// Whether a file holds IDX images: `train-images-idx3-ubyte`, `train-images.idx3-ubyte`, either with `.gz`.
pub(super) fn is_images(name: &str) -> bool {
    name.contains("idx3-ubyte")
}

pub(super) fn open(folder: &Path) -> Result<Splits> {
    let folder = match folder.is_file() {
        true => folder.parent().unwrap_or(Path::new(".")),
        false => folder,
    };
    let files = entries(folder)?.files;
    let part = |test: bool| -> Result<Option<(Vec<Item>, usize)>> {
        let wanted = |f: &&PathBuf, kind: &str| {
            let name = file_name(f);
            name.contains(kind) && (name.contains("t10k") || name.contains("test")) == test
        };
        let Some(pictures) = files.iter().find(|f| wanted(f, "idx3-ubyte")) else { return Ok(None) };
        let labels = files.iter().find(|f| wanted(f, "idx1-ubyte")).ok_or_else(|| {
            Error::usage("these images have no labels beside them")
                .at(pictures.display())
                .hint("the file of the same name with `labels-idx1-ubyte` belongs into the same folder")
        })?;
        records(pictures, labels).map(Some)
    };
    let Some((train, classes)) = part(false)? else {
        return Err(Error::usage("there is no IDX training set here")
            .at(folder.display())
            .hint("it is a folder with train-images-idx3-ubyte and train-labels-idx1-ubyte, .gz or not"));
    };
    let test = part(true)?;
    let classes = test.as_ref().map_or(classes, |t| t.1.max(classes));
    let names: Vec<String> = (0..classes).map(|c| c.to_string()).collect();
    let test = test.map(|t| Images::new(t.0, names.clone()));
    Ok(Splits { test, ..Splits::of(Images::new(train, names)) })
}

/// Bytes before the first image.
const HEADER: usize = 16;

/// The largest number of pixels of an image, as in other image files.
const MOST_PIXELS: usize = crate::decode::MOST_PIXELS as usize;

/// No gzip file unpacks to more than this many times its size.
const PACKED: u64 = 1040;

fn records(pictures: &Path, labels: &Path) -> Result<(Vec<Item>, usize)> {
    let (shape, mut body) = header(pictures, 3).at(pictures.display())?;
    let [count, height, width] = shape[..] else { unreachable!("three dimensions were asked for") };
    let (label_shape, mut label_body) = header(labels, 1).at(labels.display())?;
    if label_shape[0] != count {
        return Err(Error::new(format!("{} labels, and there are {count} images", label_shape[0])).at(labels.display()));
    }
    let area = height.checked_mul(width).filter(|&area| area > 0 && area <= MOST_PIXELS);
    let whole = area.and_then(|area| Some((area, area.checked_mul(count)?.checked_add(HEADER)?)));
    let (area, length) = whole
        .ok_or_else(|| Error::new(format!("{count} images of {height} × {width} pixels cannot be")).at(pictures.display()))?;
    let name = file_name(pictures);
    let zipped = name.ends_with(".gz");
    // The size that headers claim is compared with the file before memory is allocated.
    listed(count as u64).at(pictures.display())?;
    if zipped {
        let what = format!("this file is packed, and its {count} images of {height} × {width} pixels are kept in memory: it");
        let hint = |_| "unpack it: it is then read as it is needed".to_string();
        memory::require(&what, length as u64, hint).at(pictures.display())?;
        if fs::metadata(pictures).at(pictures.display())?.len().saturating_mul(PACKED) < (length - HEADER) as u64 {
            return Err(cut_short().at(pictures.display()));
        }
    }
    let labels = exactly(&mut label_body, count).at(labels.display())?;
    // Compressed data cannot be read by position, so it is kept in memory; other data is read when it is needed.
    let whole = if zipped { Some(Arc::new(exactly(&mut body, count * area).at(pictures.display())?)) } else { None };
    let bytes = fs::metadata(pictures).at(pictures.display())?.len();
    if !zipped && bytes < length as u64 {
        return Err(cut_short().at(pictures.display()));
    }
    let shared = Arc::new(pictures.to_path_buf());
    let item = |index: usize| {
        let stored = match &whole {
            Some(whole) => Stored::Gray(whole.clone(), height, width, index * area..(index + 1) * area),
            None => {
                let span = Span { file: shared.clone(), offset: (HEADER + index * area) as u64, length: area };
                Stored::Raw(span, Layout::Gray(height, width))
            }
        };
        Item::new(format!("{name}/{index:05}"), Some(u32::from(labels[index])), stored)
    };
    let classes = labels.iter().max().map_or(0, |&l| usize::from(l) + 1);
    Ok(((0..count).map(item).collect(), classes))
}

/// The dimensions, and a reader at the first value.
fn header(file: &Path, dimensions: usize) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let raw = BufReader::new(opened::open(file)?);
    let mut reader: Box<dyn Read> = if file_name(file).ends_with(".gz") { Box::new(GzDecoder::new(raw)) } else { Box::new(raw) };
    let magic = exactly(&mut reader, 4)?;
    if magic != [0, 0, 8, dimensions as u8] {
        return Err(Error::new(format!(
            "this is not an IDX file of bytes with {dimensions} dimensions (it begins {magic:02x?})"
        ))
        .hint("fetch the file again"));
    }
    let shape = exactly(&mut reader, 4 * dimensions)?;
    let shape = shape.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    Ok((shape, reader))
}

// The buffer grows with the real content: a damaged header cannot make it allocate more than the file holds.
fn exactly(reader: &mut dyn Read, count: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(count as u64).read_to_end(&mut bytes)?;
    if bytes.len() == count { Ok(bytes) } else { Err(cut_short()) }
}

fn cut_short() -> Error {
    Error::new("the file is shorter than its header says").hint("fetch the file again")
}
