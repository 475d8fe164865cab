//! Decodes the bytes of an image file to a [`Picture`]: JPEG, PNG, WebP, TIFF, GIF, BMP and PNM, recognised by their first bytes; with the
//! feature `heif` also HEIC and AVIF.
//!
//! How contents are decoded:
//! - gray: three equal channels; palette: looked up; 1, 2, 4 bits: scaled to 8;
//! - alpha: composited or dropped, as a [`Law`] says; 16 bits and floats: scaled to 8, as a [`Law`] says;
//! - CMYK and YCCK: converted by multiplication with black, without a colour profile;
//! - several pages or frames: the first one ([`Look::more`] says that there are others);
//! - orientation, by EXIF or TIFF's tag: applied, so that a photo is upright.
//!
//! A file that ends early is an error: half an image filled with gray would otherwise be learned as a whole one.
//!
//! - [`kinds`](self) recognises files and names those that are not read; `jpeg/` decodes JPEG, `heif` HEIC and AVIF, `raster` all others;
//!   [`Law`] is what a recipe may choose.

#[cfg(feature = "heif")]
mod heif;
mod jpeg;
mod kinds;
mod law;
mod raster;
mod room;

use std::fmt::Display;

use ctk_core::{Error, Result};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use crate::picture::Picture;
use room::Room;

pub use kinds::{EXTENSIONS, Kind};
pub use law::{Background, Law, Range};

/// The largest number of pixels: no photo is larger, and a decompression bomb is (PIL has the same limit).
pub(crate) const MOST_PIXELS: u64 = 178_956_970;

const BROKEN: &str = "remove the file, or store it again as PNG or JPEG";

/// Decodes an image file's bytes as PIL does: alpha dropped, every bit depth by its full range.
///
/// # Errors
/// The bytes are of a kind that is not read, end early, or claim an absurd size. The caller adds the file's name.
pub fn decode(bytes: &[u8]) -> Result<Picture> {
    decode_by(bytes, &Law::default())
}

/// Decodes an image file's bytes by the rules of `law`.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_by(bytes: &[u8], law: &Law) -> Result<Picture> {
    let (rgb, orientation) = match Kind::of(bytes)? {
        Kind::Jpeg => jpeg::decode(bytes)?,
        #[cfg(feature = "heif")]
        Kind::Heif => heif::decode(bytes, law)?,
        kind => raster::decode(kind, bytes, law)?,
    };
    let rgb = match orientation {
        Orientation::NoTransforms => rgb,
        turned => {
            let mut picture = DynamicImage::from(rgb);
            picture.apply_orientation(turned);
            picture.into_rgb8()
        }
    };
    Ok(Picture { height: rgb.height() as usize, width: rgb.width() as usize, pixels: rgb.into_raw() })
}

/// What the header of an image file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The kind of file.
    pub kind: Kind,
    /// Height in pixels, with the orientation applied.
    pub height: usize,
    /// Width in pixels, with the orientation applied.
    pub width: usize,
    /// Whether the file holds pages or frames beyond the first, which are not read.
    pub more: bool,
    /// Whether it has more than 8 bits a channel, so that [`Law::range`] matters.
    pub deep: bool,
}

/// Reads the header only.
///
/// # Errors
/// As [`decode`], as far as a header can tell.
pub fn look(bytes: &[u8]) -> Result<Look> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let kind = Kind::of(bytes)?;
    let (header, more) = match kind {
        Kind::Jpeg => (jpeg::header(bytes)?, false),
        #[cfg(feature = "heif")]
        Kind::Heif => (heif::header(bytes)?, heif::more(bytes)),
        kind => (raster::header(kind, bytes)?, raster::more(kind, bytes)),
    };
    let Header { width, height, orientation, deep } = header;
    let (height, width) = match orientation {
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => (width as usize, height as usize),
        _ => (height as usize, width as usize),
    };
    Ok(Look { kind, height, width, more, deep })
}

/// Height and width from the header alone, orientation applied.
///
/// # Errors
/// As [`look`].
pub fn size(bytes: &[u8]) -> Result<(usize, usize)> {
    look(bytes).map(|look| (look.height, look.width))
}

/// The fraction of their range that the values of an image of more than 8 bits use, from the lowest to the highest; none for 8 bits. Twelve
/// bits stored in sixteen use 6 %: in their full range such images are nearly black.
///
/// # Errors
/// Those of [`decode`].
pub fn used_range(bytes: &[u8]) -> Result<Option<f64>> {
    match Kind::of(bytes)? {
        Kind::Jpeg => Ok(None),
        #[cfg(feature = "heif")]
        Kind::Heif => Ok(None),
        kind => raster::used_range(kind, bytes),
    }
}

/// The warning for images that use the fraction `share` of their range; none from a tenth on.
pub fn narrow_range(share: f64) -> Option<String> {
    (share < 0.1).then(|| {
        format!(
            "warning: images of 16 bits use {:.0} % of their range and are nearly black; data.range = \"minmax\" stretches each, \
             data.range = [low, high] all alike",
            100.0 * share
        )
    })
}

/// The header of an image as it is stored.
struct Header {
    width: u32,
    height: u32,
    orientation: Orientation,
    deep: bool,
}

impl Header {
    /// Refuses sizes that are zero or above the limit.
    fn bounded(self) -> Result<Header> {
        let Header { width, height, .. } = self;
        if u64::from(width) * u64::from(height) > MOST_PIXELS {
            let what = format!("this image claims {width} × {height} pixels, more than {MOST_PIXELS}");
            return Err(Error::new(what).hint(BROKEN));
        }
        if width == 0 || height == 0 {
            return Err(Error::new(format!("this image claims {width} × {height} pixels: it has none")).hint(BROKEN));
        }
        Ok(self)
    }

    /// Waits until there is memory to decode it in.
    ///
    /// # Errors
    /// There is not enough even if nothing else is decoded.
    fn room(&self) -> Result<Room> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        Room::take(pixels * if self.deep { DEEP } else { SHALLOW }).map_err(|e| {
            Error::new(format!("this image has {} × {} pixels: to decode it {}", self.width, self.height, e.what()))
                .hint("make it smaller, or leave it out (data.on_error = \"skip\")")
        })
    }
}

/// Bytes for each pixel during decoding: the decoder's output, its buffers, and the three bytes that stay; above 8 bits a channel also the
/// scaled values.
const SHALLOW: u64 = 12;
const DEEP: u64 = 28;

fn broken(e: impl Display) -> Error {
    let what = e.to_string();
    // The standard library's message about a file that is too short.
    let what = if what.contains("failed to fill whole buffer") { "the file ends early" } else { &what };
    Error::new(format!("cannot decode the image: {what}")).hint(BROKEN)
}

/// An image from a decoder's bytes, three for each pixel.
fn rgb(width: u32, height: u32, pixels: Vec<u8>) -> Result<RgbImage> {
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| broken("its size is not what its header says"))
}

#[cfg(test)]
mod tests;
