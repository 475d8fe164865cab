//! Recognises the kind of an image file by its first bytes; lists the extensions that are read, and the names of kinds that are not.

use ctk_core::{Error, Result};

use super::BROKEN;

/// Extensions of files that are read, in lower case.
pub const EXTENSIONS: &[&str] = &[
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "jif",
    "pjpeg",
    "pjp",
    "png",
    "apng",
    "webp",
    "gif",
    "bmp",
    "dib",
    "tif",
    "tiff",
    "pnm",
    "pbm",
    "pgm",
    "ppm",
    "pam",
    #[cfg(feature = "heif")]
    "heic",
    #[cfg(feature = "heif")]
    "heif",
    #[cfg(feature = "heif")]
    "hif",
    #[cfg(feature = "heif")]
    "avif",
];

/// Kinds of image files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG; the still image of an animated one.
    Png,
    /// WebP, lossy and lossless; the first frame of an animated one.
    Webp,
    /// TIFF; the first of several pages.
    Tiff,
    /// GIF; the first of several frames.
    Gif,
    /// Windows' BMP.
    Bmp,
    /// Netpbm's PBM, PGM, PPM and PAM.
    Pnm,
    /// HEIC, AVIF and other HEIF files; the primary one of several images.
    #[cfg(feature = "heif")]
    Heif,
}

const CONVERT: &str = "convert it to PNG or JPEG, as ImageMagick does with a folder:";

/// First bytes of files that are not read: images of other kinds, and files that are often mistaken for images.
const OTHERS: &[(usize, &[u8], &str)] = &[
    (0, b"\xff\x0a", "a JPEG XL image"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\xff\xd8\xff\xf7", "a JPEG-LS image"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\0\0\x01\0", "an icon (ICO)"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"qoif", "a QOI image"),
    (0, b"#?RADIANCE", "a Radiance HDR image"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"SIMPLE  =", "a FITS image"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (8, b"CR\x02", "a camera's raw file (CR2)"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, whose file was not fetched"),
];

impl Kind {
    /// The kind of a file by its bytes.
    ///
    /// # Errors
    /// The kind is not supported; the message names it, if it is known.
    pub fn of(bytes: &[u8]) -> Result<Kind> {
        let begins = |with: &[u8]| bytes.starts_with(with);
        Ok(match () {
            () if bytes.is_empty() => return Err(Error::new("this file is empty").hint(BROKEN)),
            #[cfg(feature = "heif")]
            () if other(bytes).is_some_and(|name| HEIF.contains(&name)) => Kind::Heif,
            () if other(bytes).is_some() => return Err(refused(other(bytes).unwrap_or_default())),
            () if begins(b"\xff\xd8\xff") => Kind::Jpeg,
            () if begins(b"\x89PNG\r\n\x1a\n") => Kind::Png,
            () if begins(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") => Kind::Webp,
            () if [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|with| begins(with)) => Kind::Tiff,
            () if begins(b"GIF87a") || begins(b"GIF89a") => Kind::Gif,
            () if begins(b"BM") => Kind::Bmp,
            () if matches!(bytes, [b'P', b'1'..=b'7', b' ' | b'\t' | b'\n' | b'\r' | b'#', ..]) => Kind::Pnm,
            () if bytes.iter().all(|&byte| byte == 0) => {
                return Err(
                    Error::new("this file holds only zeros").hint("copying or downloading it was interrupted: get it again")
                );
            }
            () => {
                return Err(Error::new("this is not an image of a kind that ctk reads: JPEG, PNG, WebP, TIFF, GIF, BMP, PNM")
                    .hint(BROKEN));
            }
        })
    }
}

/// Kinds that are read with the feature `heif`, by the system's libheif.
const HEIF: [&str; 3] = ["an AVIF image", "an HEIC image", "an HEIF image"];

/// The name of a kind that is not read, if it is known.
fn other(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(brand(bytes));
    }
    let begins = |&&(at, with, _): &&(usize, &[u8], &'static str)| bytes.get(at..).is_some_and(|rest| rest.starts_with(with));
    if let Some((_, _, name)) = OTHERS.iter().find(begins) {
        return Some(name);
    }
    let text = bytes[..bytes.len().min(256)].trim_ascii_start().to_ascii_lowercase();
    match () {
        () if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") => Some("a web page (HTML)"),
        () if text.starts_with(b"<svg") || text.starts_with(b"<?xml") => Some("an SVG drawing, or other XML"),
        () => None,
    }
}

/// The kind of an ISO media file, by the first of its brands that is known.
fn brand(bytes: &[u8]) -> &'static str {
    let length = bytes.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
    let brands = bytes.get(8..length.clamp(12, 256).min(bytes.len())).unwrap_or_default();
    let known = |brand: &[u8; 4]| match brand {
        b"avif" | b"avis" => Some("an AVIF image"),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => Some("an HEIC image"),
        b"crx " => Some("a camera's raw file (CR3)"),
        _ => None,
    };
    let still = brands.as_chunks::<4>().0.iter().any(|brand| matches!(brand, b"mif1" | b"msf1"));
    let found = brands.as_chunks::<4>().0.iter().find_map(known);
    found.unwrap_or(if still { "an HEIF image" } else { "a video (MP4 or QuickTime)" })
}

fn refused(name: &str) -> Error {
    let extension = match name {
        "an AVIF image" => "avif",
        "an HEIC image" | "an HEIF image" => "heic",
        "a JPEG XL image" => "jxl",
        "a JPEG 2000 image" => "jp2",
        _ => {
            return Error::new(format!("this is {name}, which ctk does not read"))
                .hint("remove the file, or put an image in its place");
        }
    };
    let build = if HEIF.contains(&name) { "build ctk with --features heif, which reads it by libheif, or " } else { "" };
    Error::new(format!("this is {name}, which ctk does not read"))
        .hint(format!("{build}{CONVERT} magick mogrify -format jpg *.{extension}"))
}
