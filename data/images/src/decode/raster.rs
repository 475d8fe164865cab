//! PNG, WebP, TIFF, GIF, BMP and PNM, decoded by the `image` crate.

use std::io::Cursor;

use ctk_core::Result;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

use super::law::{self, Law};
use super::{Header, Kind, broken};

/// Decodes the first image in a file.
pub(super) fn decode(kind: Kind, bytes: &[u8], law: &Law) -> Result<(RgbImage, Orientation)> {
    let (header, decoder) = open(kind, bytes)?;
    let _room = header.room()?;
    let picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok((law.apply(picture), header.orientation))
}

/// The size as stored, and the orientation.
pub(super) fn header(kind: Kind, bytes: &[u8]) -> Result<Header> {
    open(kind, bytes).map(|(header, _)| header)
}

/// The fraction of its range that the values of an image of more than 8 bits use.
pub(super) fn used_range(kind: Kind, bytes: &[u8]) -> Result<Option<f64>> {
    let (header, decoder) = open(kind, bytes)?;
    if !header.deep {
        return Ok(None);
    }
    let _room = header.room()?;
    Ok(law::used(DynamicImage::from_decoder(decoder).map_err(broken)?))
}

fn open(kind: Kind, bytes: &[u8]) -> Result<(Header, Box<dyn ImageDecoder + '_>)> {
    let format = match kind {
        #[cfg(feature = "heif")]
        Kind::Heif => return Err(broken("libheif reads these")),
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Png => ImageFormat::Png,
        Kind::Webp => ImageFormat::WebP,
        Kind::Tiff => ImageFormat::Tiff,
        Kind::Gif => ImageFormat::Gif,
        Kind::Bmp => ImageFormat::Bmp,
        Kind::Pnm => ImageFormat::Pnm,
    };
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(broken)?;
    let ((width, height), orientation) = (decoder.dimensions(), decoder.orientation().map_err(broken)?);
    let colour = decoder.color_type();
    let deep = colour.bytes_per_pixel() / colour.channel_count() > 1;
    let header = Header { width, height, orientation, deep }.bounded()?;
    Ok((header, Box::new(decoder)))
}

/// Whether there are pages or frames after the first one; false for a file that is too damaged to tell.
pub(super) fn more(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::Tiff => pages(bytes).unwrap_or(false),
        Kind::Gif => frames(bytes).unwrap_or(false),
        // The animation flag in the extended header.
        Kind::Webp => bytes.get(12..16) == Some(b"VP8X") && bytes.get(20).is_some_and(|flags| flags & 2 != 0),
        Kind::Png => {
            let before_data = bytes.windows(4).take(4096).take_while(|name| name != b"IDAT");
            before_data.into_iter().any(|name| name == b"acTL")
        }
        Kind::Jpeg | Kind::Bmp | Kind::Pnm => false,
        #[cfg(feature = "heif")]
        Kind::Heif => super::heif::more(bytes),
    }
}

/// Whether a TIFF's first directory is followed by another.
fn pages(bytes: &[u8]) -> Option<bool> {
    let big_endian = bytes.starts_with(b"M");
    let number = |at: usize, length: usize| {
        let digits = bytes.get(at..at.checked_add(length)?)?;
        let fold = |sum: u64, &digit: &u8| sum << 8 | u64::from(digit);
        Some(if big_endian { digits.iter().fold(0, fold) } else { digits.iter().rev().fold(0, fold) })
    };
    let large = number(2, 2)? == 43;
    let (places, counts, entry) = if large { (8, 8, 20) } else { (4, 2, 12) };
    let first = usize::try_from(number(if large { 8 } else { 4 }, places)?).ok()?;
    let entries = usize::try_from(number(first, counts)?).ok()?;
    let next = first.checked_add(counts)?.checked_add(entries.checked_mul(entry)?)?;
    Some(number(next, places)? != 0)
}

/// Whether a GIF has a second image.
fn frames(bytes: &[u8]) -> Option<bool> {
    let table = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + table(*bytes.get(10)?);
    let mut images = 0;
    loop {
        match *bytes.get(at)? {
            0x2c => {
                images += 1;
                if images == 2 {
                    return Some(true);
                }
                // Skips place, size and flags, the frame's colours, and the size of codes.
                at += 11 + table(*bytes.get(at + 9)?);
            }
            0x21 => at += 2,
            _ => return Some(false),
        }
        // Skips blocks, up to an empty one.
        while *bytes.get(at)? != 0 {
            at += 1 + usize::from(bytes[at]);
        }
        at += 1;
    }
}
