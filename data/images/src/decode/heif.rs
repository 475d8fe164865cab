//! HEIC, AVIF and other HEIF files, decoded by the system's libheif.
//!
//! libheif rotates and mirrors an image itself, by the file's own properties; applying the EXIF orientation as well would rotate it twice.
//! More than 8 bits are scaled to 8.

use ctk_core::{Error, Result};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};
use libheif_rs::{ColorSpace, HeifContext, HeifError, ImageHandle, LibHeif, RgbChroma};

use super::law::Law;
use super::{Header, broken, rgb};

/// Decodes the primary image of the file.
pub(super) fn decode(bytes: &[u8], law: &Law) -> Result<(RgbImage, Orientation)> {
    let file = HeifContext::read_from_bytes(bytes).map_err(wrong)?;
    let picture = file.primary_image_handle().map_err(wrong)?;
    let header = of(&picture).bounded()?;
    let _room = header.room()?;
    let Header { width, height, .. } = header;
    let alpha = picture.has_alpha_channel();
    let chroma = if alpha { RgbChroma::Rgba } else { RgbChroma::Rgb };
    let decoded = LibHeif::new().decode(&picture, ColorSpace::Rgb(chroma), None).map_err(wrong)?;
    let plane = decoded.planes().interleaved.ok_or_else(|| broken("it has no colours"))?;
    // Lines may be longer than the image is wide.
    let line = width as usize * if alpha { 4 } else { 3 };
    let mut pixels = Vec::with_capacity(line * height as usize);
    if (plane.width, plane.height) == (width, height) {
        plane
            .data
            .chunks(plane.stride)
            .take(height as usize)
            .for_each(|row| pixels.extend_from_slice(&row[..line.min(row.len())]));
    }
    if !alpha {
        return Ok((rgb(width, height, pixels)?, Orientation::NoTransforms));
    }
    if picture.is_premultiplied_alpha() {
        for [colours @ .., alpha] in pixels.as_chunks_mut::<4>().0 {
            let most = u32::from((*alpha).max(1));
            colours.iter_mut().for_each(|c| *c = ((u32::from(*c) * 255 + most / 2) / most).min(255) as u8);
        }
    }
    let picture = RgbaImage::from_raw(width, height, pixels).ok_or_else(|| broken("its size is not what its header says"))?;
    Ok((law.apply(DynamicImage::ImageRgba8(picture)), Orientation::NoTransforms))
}

/// The size after rotation.
pub(super) fn header(bytes: &[u8]) -> Result<Header> {
    let file = HeifContext::read_from_bytes(bytes).map_err(wrong)?;
    of(&file.primary_image_handle().map_err(wrong)?).bounded()
}

/// Whether the file holds other images.
pub(super) fn more(bytes: &[u8]) -> bool {
    HeifContext::read_from_bytes(bytes).is_ok_and(|file| file.number_of_top_level_images() > 1)
}

fn wrong(e: HeifError) -> Error {
    broken(e.message.trim())
}

fn of(picture: &ImageHandle) -> Header {
    Header { width: picture.width(), height: picture.height(), orientation: Orientation::NoTransforms, deep: false }
}
