//! PNG and JPEG bytes to a [`Picture`].
//!
//! What a file may hold, and what becomes of it:
//! - gray: three equal channels;
//! - alpha: dropped, the colours below it are kept as they are (as PIL's `convert("RGB")` does, hence torchvision);
//! - palette: looked up; 1, 2, 4 bits: scaled to 8;
//! - 16 bits: scaled to 8 (PIL clips 16-bit gray instead, which leaves it white);
//! - CMYK and YCCK JPEG: converted by multiplication with black, without a colour profile;
//! - EXIF orientation: applied, so that a photo stands upright.
//!
//! A file that ends early is an error: half a picture filled with gray would be learned as if it were one.

use std::fmt::Display;
use std::io::Cursor;

use ctk_core::{Error, Result};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::picture::Picture;

/// No photo is larger, and a decompression bomb is (PIL refuses at the same number).
const MOST_PIXELS: u64 = 178_956_970;

/// Decodes a PNG or JPEG file's bytes.
///
/// # Errors
/// Where the bytes are no PNG or JPEG, end early, or claim an absurd size. The caller knows the file's name.
pub fn decode(bytes: &[u8]) -> Result<Picture> {
    let opened = open(bytes)?;
    let orientation = opened.orientation;
    let rgb = match opened.decoder {
        Decoder::Jpeg(_) if jpeg_ends_early(bytes) => {
            return Err(Error::new("this JPEG ends before its picture does").hint(BROKEN));
        }
        Decoder::Jpeg(mut decoder) => {
            let pixels = decoder.decode().map_err(broken)?;
            RgbImage::from_raw(opened.width, opened.height, pixels)
                .ok_or_else(|| broken("its size is not what its header says"))?
        }
        Decoder::Png(decoder) => DynamicImage::from_decoder(decoder).map_err(broken)?.into_rgb8(),
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

/// Height and width from the header alone, orientation applied.
///
/// # Errors
/// As [`decode`], as far as a header can tell.
pub fn size(bytes: &[u8]) -> Result<(usize, usize)> {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let Opened { width, height, orientation, .. } = open(bytes)?;
    Ok(match orientation {
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH => (width as usize, height as usize),
        _ => (height as usize, width as usize),
    })
}

const BROKEN: &str = "remove the file, or store it again as PNG or JPEG";

/// A file whose header was read.
struct Opened<'a> {
    width: u32,
    height: u32,
    orientation: Orientation,
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    // Not through `image`, which reads the header three times and turns gray into RGB slowly, and afterwards.
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>),
    Png(Box<dyn ImageDecoder + 'a>),
}

fn open(bytes: &[u8]) -> Result<Opened<'_>> {
    let opened = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB).set_strict_mode(false);
            let options = options.set_max_width(usize::MAX).set_max_height(usize::MAX);
            let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
            decoder.decode_headers().map_err(broken)?;
            let (width, height) = decoder.dimensions().ok_or_else(|| broken("it has no size"))?;
            let orientation = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
            Opened {
                width: width as u32,
                height: height as u32,
                orientation: orientation.unwrap_or(Orientation::NoTransforms),
                decoder: Decoder::Jpeg(Box::new(decoder)),
            }
        }
        Ok(ImageFormat::Png) => {
            let reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
            let mut decoder = reader.into_decoder().map_err(broken)?;
            let ((width, height), orientation) = (decoder.dimensions(), decoder.orientation().map_err(broken)?);
            Opened { width, height, orientation, decoder: Decoder::Png(Box::new(decoder)) }
        }
        Ok(other) => return Err(Error::new(format!("this is {other:?}, and only PNG and JPEG are read")).hint(BROKEN)),
        Err(_) if bytes.is_empty() => return Err(Error::new("this file is empty").hint(BROKEN)),
        Err(_) => return Err(Error::new("this is no image: neither PNG nor JPEG").hint(BROKEN)),
    };
    let Opened { width, height, .. } = opened;
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Error::new(format!("this image claims {width} × {height} pixels, more than {MOST_PIXELS}")).hint(BROKEN));
    }
    Ok(opened)
}

fn broken(e: impl Display) -> Error {
    Error::new(format!("cannot decode the image: {e}")).hint(BROKEN)
}

/// Whether a JPEG has no end marker after its last scan begins. The decoder itself fills what is missing with gray.
fn jpeg_ends_early(bytes: &[u8]) -> bool {
    // Segments carry their length, so an end marker inside one (an EXIF thumbnail's) is stepped over; the entropy-coded
    // data after the first scan's header escapes every 0xFF, so there the marker can only be the end itself.
    let mut at = 2;
    while let Some(&[marker, code]) = bytes.get(at..at + 2) {
        match (marker, code) {
            (0xFF, 0xDA) => return !bytes[at..].windows(2).rev().any(|w| w == [0xFF, 0xD9]),
            (0xFF, 0xFF) => at += 1,
            (0xFF, 0x01 | 0xD0..=0xD8) => at += 2,
            (0xFF, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => at += 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return true,
            },
            // Stray bytes between segments: tolerated by decoders, so step over them.
            _ => at += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};

    fn png(width: u32, height: u32, pixels: &[u8], colour: ExtendedColorType) -> Vec<u8> {
        let mut out = Vec::new();
        PngEncoder::new(&mut out).write_image(pixels, width, height, colour).unwrap();
        out
    }

    fn jpeg(width: u32, height: u32, pixels: &[u8], colour: ExtendedColorType) -> Vec<u8> {
        let mut out = Vec::new();
        JpegEncoder::new_with_quality(&mut out, 100).write_image(pixels, width, height, colour).unwrap();
        out
    }

    fn rgb(bytes: &[u8]) -> Vec<u8> {
        decode(bytes).unwrap().pixels
    }

    /// A PNG from its parts, for kinds that the encoder does not write.
    fn chunks(header: [u8; 13], parts: &[(&[u8; 4], &[u8])], lines: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(lines).unwrap();
        let packed = packed.finish().unwrap();
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let all =
            [(b"IHDR", &header[..])].into_iter().chain(parts.iter().copied()).chain([(b"IDAT", &packed[..]), (b"IEND", &[])]);
        for (name, body) in all {
            let mut crc = flate2::Crc::new();
            crc.update(name);
            crc.update(body);
            out.extend((body.len() as u32).to_be_bytes());
            out.extend(name);
            out.extend(body);
            out.extend(crc.sum().to_be_bytes());
        }
        out
    }

    #[test]
    fn gray_alpha_and_sixteen_bits_become_rgb() {
        assert_eq!(rgb(&png(2, 1, &[7, 200], ExtendedColorType::L8)), [7, 7, 7, 200, 200, 200]);
        let alpha = png(2, 1, &[10, 20, 30, 0, 40, 50, 60, 128], ExtendedColorType::Rgba8);
        assert_eq!(rgb(&alpha), [10, 20, 30, 40, 50, 60], "alpha is dropped, hidden colours stay");
        assert_eq!(rgb(&png(1, 1, &[90, 0], ExtendedColorType::La8)), [90; 3]);
        let sixteen: Vec<u8> = [0_u16, 257 * 100, 65535].iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(rgb(&png(1, 1, &sixteen, ExtendedColorType::Rgb16)), [0, 100, 255]);
        assert_eq!(rgb(&png(3, 1, &sixteen, ExtendedColorType::L16)), [0, 0, 0, 100, 100, 100, 255, 255, 255]);
    }

    #[test]
    fn palettes_and_single_bits_are_looked_up() {
        let palette: &[u8] = &[255, 0, 0, 0, 255, 0, 9, 8, 7];
        // 3 × 1, two bits a pixel, palette; with a transparent first colour, too.
        let header = [0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 0, 0, 0];
        for parts in [vec![(b"PLTE", palette)], vec![(b"PLTE", palette), (b"tRNS", &[0_u8][..])]] {
            assert_eq!(rgb(&chunks(header, &parts, &[0, 0b10_00_01_00])), [9, 8, 7, 255, 0, 0, 0, 255, 0]);
        }
        let header = [0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0];
        assert_eq!(rgb(&chunks(header, &[], &[0, 0b0100_0000])), [0, 0, 0, 255, 255, 255], "one bit a pixel");
    }

    #[test]
    fn jpegs_decode_in_gray_and_colour() {
        let gray = rgb(&jpeg(16, 16, &[77; 256], ExtendedColorType::L8));
        assert!(gray.iter().all(|&v| v.abs_diff(77) <= 1));
        let red: Vec<u8> = [200, 30, 40].repeat(256);
        assert!(
            rgb(&jpeg(16, 16, &red, ExtendedColorType::Rgb8))
                .chunks(3)
                .all(|p| p[0].abs_diff(200) <= 3 && p[1].abs_diff(30) <= 3)
        );
    }

    /// A baseline JPEG of one 8 × 8 block a component, each flat: `(DC difference)` for four components, quantised by 1.
    fn flat_cmyk(values: [u8; 4], transform: u8) -> Vec<u8> {
        let mut out = vec![0xFF, 0xD8];
        out.extend([0xFF, 0xEE, 0, 14]);
        out.extend(b"Adobe\0\x64\0\0\0\0");
        out.push(transform);
        out.extend([0xFF, 0xDB, 0, 67, 0]);
        out.extend([8; 64]);
        out.extend([0xFF, 0xC0, 0, 20, 8, 0, 8, 0, 8, 4]);
        (1..=4).for_each(|component| out.extend([component, 0x11, 0]));
        // One DC code for each length 0 to 8, all four bits long; one AC code, `end of block`, one bit long.
        out.extend([0xFF, 0xC4, 0, 19 + 9, 0x00, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(0..9);
        out.extend([0xFF, 0xC4, 0, 19 + 1, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([0xFF, 0xDA, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
        let mut bits = String::new();
        for value in values {
            // A flat block's DC is 8 · (value − 128), and the table divides by 8.
            let level = i32::from(value) - 128;
            let length = (32 - level.unsigned_abs().leading_zeros()) as usize;
            bits.push_str(&format!("{length:04b}"));
            let code = if level < 0 { level + (1 << length) - 1 } else { level };
            if length > 0 {
                bits.push_str(&format!("{code:0length$b}"));
            }
            bits.push('0');
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        for byte in bits.as_bytes().chunks(8) {
            let byte = u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap();
            out.push(byte);
            if byte == 0xFF {
                out.push(0);
            }
        }
        out.extend([0xFF, 0xD9]);
        out
    }

    #[test]
    fn cmyk_and_ycck_become_rgb() {
        // Adobe stores ink inverted: 255 is no ink. Colour = stored ink · stored black / 255.
        let cmyk = decode(&flat_cmyk([255, 128, 64, 200], 0)).unwrap();
        let expected = [200, 128 * 200 / 255, 64 * 200 / 255];
        assert_eq!((cmyk.height, cmyk.width), (8, 8));
        assert!(
            cmyk.at(3, 3).iter().zip(expected).all(|(&v, e)| v.abs_diff(e as u8) <= 2),
            "{:?}, expected {expected:?}",
            cmyk.at(3, 3)
        );
        // YCCK without chroma; the value is PIL's.
        let ycck = decode(&flat_cmyk([100, 128, 128, 255], 2)).unwrap();
        assert!(ycck.at(0, 0).iter().all(|v| v.abs_diff(155) <= 2), "{:?}", ycck.at(0, 0));
    }

    /// `bytes` with an EXIF segment that holds an orientation.
    fn oriented(bytes: &[u8], orientation: u8) -> Vec<u8> {
        let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        let mut out = bytes[..2].to_vec();
        out.extend([0xFF, 0xE1]);
        out.extend((exif.len() as u16 + 2).to_be_bytes());
        out.extend(exif);
        out.extend(&bytes[2..]);
        out
    }

    #[test]
    fn exif_orientation_stands_a_photo_upright() {
        // 32 × 16, bright in the top left corner.
        let pixels: Vec<u8> = (0..16 * 32).map(|i| if i % 32 < 8 && i / 32 < 8 { 250 } else { 5 }).collect();
        let plain = jpeg(32, 16, &pixels, ExtendedColorType::L8);
        for (orientation, (height, width), (y, x)) in [
            (1, (16, 32), (2, 2)),
            (2, (16, 32), (2, 29)),
            (3, (16, 32), (13, 29)),
            (6, (32, 16), (2, 13)),
            (8, (32, 16), (29, 2)),
        ] {
            let bytes = oriented(&plain, orientation);
            let picture = decode(&bytes).unwrap();
            assert_eq!(((picture.height, picture.width), size(&bytes).unwrap()), ((height, width), (height, width)));
            assert!(picture.at(y, x)[0] > 200, "orientation {orientation}");
        }
    }

    #[test]
    fn what_is_no_whole_image_is_refused() {
        let noise: Vec<u8> = (0..64 * 64).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (png, jpeg) = (png(64, 64, &noise, ExtendedColorType::L8), jpeg(64, 64, &noise, ExtendedColorType::L8));
        assert!(decode(&png).is_ok() && decode(&jpeg).is_ok());
        for whole in [&png, &jpeg] {
            for share in 1..10 {
                let cut = decode(&whole[..whole.len() * share / 10]);
                assert!(cut.is_err(), "cut to {share}0 %");
            }
        }
        let with_thumbnail = {
            // An end marker inside the EXIF segment is the thumbnail's, not the picture's.
            let mut bytes = oriented(&jpeg, 1);
            bytes[26..28].copy_from_slice(&[0xFF, 0xD9]);
            bytes
        };
        let half = decode(&with_thumbnail[..with_thumbnail.len() / 2]).unwrap_err().to_string();
        assert!(half.contains("ends before its picture does") && half.contains("hint:"), "{half}");
        assert!(decode(b"").unwrap_err().to_string().contains("empty"));
        assert!(decode(b"hello, this is text").unwrap_err().to_string().contains("no image"));
        assert!(decode(b"GIF89a\x01\0\x01\0\0\0\0").unwrap_err().to_string().contains("only PNG and JPEG"));
        let bomb = chunks([0x00, 0x01, 0, 0, 0x00, 0x01, 0, 0, 1, 0, 0, 0, 0], &[], &[0]);
        assert!(decode(&bomb).unwrap_err().to_string().contains("65536 × 65536"));
        assert!(size(&bomb).is_err());
    }
}
