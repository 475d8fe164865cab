//! JPEG: decoded by the fast decoder where it is correct, and by a slower one where it is not.
//!
//! `zune-jpeg` is the faster of the two. It decodes some files to garbage without an error: those with one component in each scan and
//! chroma coarser than luma, and those with chroma finer than luma. `frame` recognises these by the headers; `tests/jpegs.rs` compares both
//! decoders with PIL's pixels on all kinds of files.
//!
//! Both decoders fill missing data with gray. In strict mode the fast one reports it for baseline scans whose data end in ones. In that
//! case, and for other scans, `scans` counts the blocks: a file that has all of them is decoded, any other is an error.

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

/// Decodes a JPEG; returns the image and its orientation.
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

/// The size as stored, and the orientation.
pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    Frame::read(bytes)?.header()
}

fn early() -> Error {
    Error::new("this JPEG ends before its image is complete").hint(BROKEN)
}

/// The file with ones inserted before its end marker at `end`. No code begins with so many ones, so the fast decoder, which reads missing
/// data as zeros, reports an error there. In a whole file it does not read so far.
fn guarded(bytes: &[u8], end: usize) -> Vec<u8> {
    [&bytes[..end], &[0xFF, 0].repeat(8), &bytes[end..]].concat()
}

/// RGB, three bytes for each pixel.
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

/// The light that remains after an ink and black, each from none (0) to all (255): (1 − ink)(1 − black), rounded.
fn left(ink: u8, black: u8) -> u8 {
    let product = (255 - u32::from(ink)) * (255 - u32::from(black));
    ((product + 127) / 255) as u8
}
