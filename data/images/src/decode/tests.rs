//! Tests of decoding: every kind of content, and files that are damaged or not images.

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
    let all = [(b"IHDR", &header[..])].into_iter().chain(parts.iter().copied()).chain([(b"IDAT", &packed[..]), (b"IEND", &[])]);
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
        rgb(&jpeg(16, 16, &red, ExtendedColorType::Rgb8)).chunks(3).all(|p| p[0].abs_diff(200) <= 3 && p[1].abs_diff(30) <= 3)
    );
}

/// A baseline JPEG with one flat 8 × 8 block for each of four components, given by their DC differences, quantised by 1.
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

/// `bytes` with an EXIF segment that has an orientation.
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
    for (orientation, (height, width), (y, x)) in
        [(1, (16, 32), (2, 2)), (2, (16, 32), (2, 29)), (3, (16, 32), (13, 29)), (6, (32, 16), (2, 13)), (8, (32, 16), (29, 2))]
    {
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
    assert!(half.contains("ends before its image is complete") && half.contains("hint:"), "{half}");
    assert!(decode(b"").unwrap_err().to_string().contains("empty"));
    assert!(decode(b"hello, this is text").unwrap_err().to_string().contains("not an image"));
    assert!(decode(b"GIF89a\x01\0\x01\0\0\0\0").is_err());
    let bomb = chunks([0x00, 0x01, 0, 0, 0x00, 0x01, 0, 0, 1, 0, 0, 0, 0], &[], &[0]);
    assert!(decode(&bomb).unwrap_err().to_string().contains("65536 × 65536"));
    assert!(size(&bomb).is_err());
}

#[test]
#[cfg_attr(feature = "heif", ignore = "HEIC and AVIF are read")]
fn what_is_not_read_is_named_with_a_way_out() {
    let media = |brands: &[u8]| [&(8 + brands.len() as u32).to_be_bytes()[..], b"ftyp", brands, b"and more"].concat();
    for (bytes, what, way) in [
        (media(b"avif\0\0\0\0avifmif1miaf"), "an AVIF image", "magick mogrify -format jpg *.avif"),
        (media(b"mif1\0\0\0\0mif1avif"), "an AVIF image", "build ctk with --features heif"),
        (media(b"heic\0\0\0\0mif1heic"), "an HEIC image", "*.heic"),
        (media(b"mif1\0\0\0\0mif1heix"), "an HEIC image", "*.heic"),
        (media(b"isom\0\0\0\0isommp41"), "a video", "remove"),
        (b"\xff\x0a and so on".to_vec(), "a JPEG XL image", "*.jxl"),
        (b"\0\0\0\x0cjP  \r\n\x87\n".to_vec(), "a JPEG 2000 image", "*.jp2"),
        (b"  <!DOCTYPE HTML><html>404".to_vec(), "a web page", "remove"),
        (b"<svg xmlns=''>".to_vec(), "an SVG drawing", "remove"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "Git LFS", "remove"),
        (b"PK\x03\x04".to_vec(), "a ZIP archive", "remove"),
        (vec![0; 5000], "only zeros", "get it again"),
        (b"BLOB".to_vec(), "not an image of a kind that ctk reads: JPEG, PNG, WebP, TIFF, GIF, BMP, PNM", "hint: "),
    ] {
        for error in [decode(&bytes).unwrap_err(), look(&bytes).unwrap_err()] {
            let text = error.to_string();
            assert!(text.contains(what) && text.contains(way) && text.contains("hint: "), "{text}");
        }
    }
}

#[test]
fn alpha_lies_over_the_background() {
    let alpha = png(2, 1, &[200, 100, 50, 128, 40, 50, 60, 0], ExtendedColorType::Rgba8);
    let over = |background| decode_by(&alpha, &Law { background, ..Law::default() }).unwrap().pixels;
    assert_eq!(over(Background::WHITE), [227, 177, 152, 255, 255, 255]);
    assert_eq!(over(Background::Colour([0, 0, 255])), [100, 50, 152, 0, 0, 255]);
    assert_eq!(over(Background::Drop), rgb(&alpha));
}

#[test]
fn deep_pictures_say_how_much_of_their_range_they_use() {
    let values: Vec<u8> = [100_u16, 4095].iter().flat_map(|v| v.to_ne_bytes()).collect();
    let deep = png(2, 1, &values, ExtendedColorType::L16);
    let share = used_range(&deep).unwrap().unwrap();
    assert!((share - 3995.0 / 65535.0).abs() < 1e-9);
    let warning = narrow_range(share).unwrap();
    assert!(warning.contains("6 % of their range") && warning.contains("data.range = \"minmax\""), "{warning}");
    assert_eq!((narrow_range(0.2), used_range(&png(1, 1, &[3], ExtendedColorType::L8)).unwrap()), (None, None));
    let stretched = decode_by(&deep, &Law { range: Range::Minmax, ..Law::default() }).unwrap();
    assert_eq!(stretched.pixels, [0, 0, 0, 255, 255, 255]);
}

/// A file of four pixels by each encoder, whose header claims the largest possible size.
fn absurd(format: image::ImageFormat) -> Vec<u8> {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    let mut out = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_pixel(2, 2, image::Rgb([9, 9, 9])).write_to(&mut out, format).unwrap();
    let mut bytes = out.into_inner();
    let mut put = |at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
    match format {
        Png => {
            put(16, &[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF]);
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[12..29]);
            let sum = crc.sum().to_be_bytes();
            bytes[29..33].copy_from_slice(&sum);
        }
        Jpeg => {
            let frame = bytes.windows(2).position(|two| two == [0xFF, 0xC0]).unwrap();
            bytes[frame + 5..frame + 9].fill(0xFF);
        }
        Gif => put(6, &[0xFF; 4]),
        Bmp => put(18, &[0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0x7F]),
        WebP => put(21, &[0xFF, 0xFF, 0xFF, 0x0F]),
        Pnm => bytes = b"P6 999999999 999999999 255\n\0\0\0".to_vec(),
        Tiff => {
            let number = |at: usize, bytes: &[u8]| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let first = number(4, &bytes) + 2;
            for entry in (first..).step_by(12).take(usize::from(bytes[first - 2])) {
                if matches!(bytes[entry..entry + 2], [0, 1] | [1, 1]) {
                    let long = bytes[entry + 2] == 4;
                    bytes[entry + 8..entry + if long { 12 } else { 10 }].fill(0xFF);
                }
            }
        }
        _ => unreachable!("no other is tried"),
    }
    bytes
}

#[test]
fn a_header_of_every_kind_is_believed_no_more_pixels_than_memory_holds() {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    for format in [Png, Jpeg, Gif, Bmp, WebP, Pnm, Tiff] {
        let bytes = absurd(format);
        for error in [decode(&bytes).unwrap_err(), look(&bytes).unwrap_err()] {
            let said = error.to_string();
            let none = said.contains("it has none");
            let refused = said.contains("this image claims") && (none || said.contains("more than 178956970"));
            // Some decoders refuse such sizes before they report them.
            assert!(refused || said.contains("cannot decode the image"), "{format:?}: {said}");
        }
    }
}
