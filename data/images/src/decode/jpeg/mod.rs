//! JPEG: by the fast decoder where it is right, by a slower one where it is not.
//!
//! `zune-jpeg` is the faster of the two, and decodes some files to garbage without an error: those whose scans hold a
//! component each while their chroma is coarser than luma, and those whose chroma is finer. `frame` reads from the headers which
//! these are; `tests/jpegs.rs` holds both decoders to PIL's pixels over all kinds of files.
//!
//! Both fill what is missing with gray. The fast one says so of baseline scans when it is strict and its data end in ones; then, and of
//! other scans, `scans` counts the blocks: a file that has all of them is decoded, one that has not is an error.

mod frame;
mod scans;

use ctk_core::{Error, Result};
use image::RgbImage;
use image::metadata::Orientation;
use jpeg_decoder::PixelFormat;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{BROKEN, Header, broken, rgb};
use frame::Frame;

/// Decodes a JPEG, and says how it is turned.
pub(super) fn decode(bytes: &[u8]) -> Result<(RgbImage, Orientation)> {
    let frame = Frame::read(bytes)?;
    let header = frame.header()?;
    let _room = header.room()?;
    let Header { width, height, orientation, .. } = header;
    let end = frame.end(bytes).ok_or_else(early)?;
    let right = frame.right(bytes);
    if right.tells
        && frame.restarted(end.restarts)
        && let Ok(pixels) = fast(&frame.plain(&guarded(bytes, end.at)))
    {
        return Ok((rgb(width, height, pixels)?, orientation));
    }
    scans::whole(bytes)?;
    let bytes = &*frame.plain(bytes);
    if right.fast
        && let Ok(pixels) = fast(bytes)
    {
        return Ok((rgb(width, height, pixels)?, orientation));
    }
    if !right.slow {
        let what = "this JPEG has a component of middling sampling in a scan of its own, which no decoder here reads right";
        return Err(Error::new(what).hint(BROKEN));
    }
    Ok((slow(bytes)?, orientation))
}

/// The size, as it lies in the file, and how it is turned.
pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    Frame::read(bytes)?.header()
}

fn early() -> Error {
    Error::new("this JPEG ends before its picture does").hint(BROKEN)
}

/// The file with ones before its end marker at `end`: no code begins with so many, so the fast decoder, which takes what is missing for
/// zeros, meets an error there. What is whole is not read so far.
fn guarded(bytes: &[u8], end: usize) -> Vec<u8> {
    [&bytes[..end], &[0xFF, 0].repeat(8), &bytes[end..]].concat()
}

/// RGB, three bytes a pixel.
fn fast(bytes: &[u8]) -> Result<Vec<u8>> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB).set_strict_mode(true);
    let options = options.set_max_width(usize::MAX).set_max_height(usize::MAX);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options).decode().map_err(broken)
}

fn slow(bytes: &[u8]) -> Result<RgbImage> {
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    let pixels = decoder.decode().map_err(broken)?;
    let info = decoder.info().ok_or_else(|| broken("it has no size"))?;
    let pixels = match info.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|v| [v; 3]).collect(),
        PixelFormat::CMYK32 => {
            pixels.as_chunks::<4>().0.iter().flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| left(ink, k))).collect()
        }
        PixelFormat::L16 => return Err(broken("its samples have 16 bits")),
    };
    rgb(u32::from(info.width), u32::from(info.height), pixels)
}

/// The light that an ink and black leave, each between none (0) and all (255): (1 − ink)(1 − black), rounded.
fn left(ink: u8, black: u8) -> u8 {
    let product = (255 - u32::from(ink)) * (255 - u32::from(black));
    ((product + 127) / 255) as u8
}
