//! Image files of many kinds compared with PIL's first image. `make_kinds.py` beside this file makes `fixtures/kinds.tar.gz`.

use std::collections::BTreeMap;
use std::io::Read;

use ctk_images::decode::{EXTENSIONS, Kind, decode, look};
use flate2::read::GzDecoder;

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(&include_bytes!("fixtures/kinds.tar.gz")[..]));
    let read = |entry: std::io::Result<tar::Entry<GzDecoder<&[u8]>>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Kinds of TIFF that are not read.
const REFUSED: [&str; 2] = ["tiff--float.tif", "tiff--palette.tif"];

fn images(files: &BTreeMap<String, Vec<u8>>) -> impl Iterator<Item = (&str, &[u8])> {
    files
        .iter()
        .filter(|(name, _)| !name.ends_with(".rgb") && !REFUSED.contains(&name.as_str()))
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
}

#[test]
fn the_first_picture_is_pils() {
    let files = files();
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, bytes) in images(&files) {
        count += 1;
        let pixels = &files[&format!("{name}.rgb")];
        // Lossy kinds, and inks, are rounded differently.
        let levels = if ["lossy", "ink", "jpeg"].iter().any(|kind| name.contains(kind)) { 4 } else { 0 };
        match decode(bytes) {
            Err(e) => wrong.push(format!("{name}: {e}")),
            Ok(picture) => {
                assert_eq!((picture.height, picture.width), (14, 21), "{name}");
                let most = picture.pixels.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if most > levels {
                    wrong.push(format!("{name}: {most} levels"));
                }
            }
        }
    }
    assert!(wrong.is_empty() && count > 30, "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_header_says_kind_size_depth_and_whether_there_is_more() {
    for (name, bytes) in images(&files()) {
        let look = look(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let kind = match name.split("--").next().unwrap() {
            "png" => Kind::Png,
            "webp" => Kind::Webp,
            "tiff" => Kind::Tiff,
            "bmp" => Kind::Bmp,
            "gif" => Kind::Gif,
            _ => Kind::Pnm,
        };
        assert_eq!((look.kind, look.height, look.width), (kind, 14, 21), "{name}");
        assert_eq!(look.more, name.contains("--more."), "{name}");
        assert_eq!(look.deep, name.contains("--deep."), "{name}");
        assert!(EXTENSIONS.contains(&name.rsplit('.').next().unwrap()), "{name}");
    }
}

#[test]
fn what_is_not_read_is_refused_with_a_hint() {
    let files = files();
    for name in REFUSED {
        let error = decode(&files[name]).unwrap_err().to_string();
        assert!(error.contains("cannot decode") && error.contains("hint: "), "{name}: {error}");
    }
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    for (name, bytes) in images(&files()) {
        // Data after the first image is not read.
        let whole = if name.contains("--more.") { bytes.len() / 2 } else { bytes.len() };
        for share in 1..8 {
            assert!(decode(&bytes[..whole * share / 10]).is_err(), "{name} cut to {share}0 %");
        }
    }
}

#[test]
fn bytes_that_are_changed_never_panic() {
    let mut state = 1_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for (_, bytes) in images(&files()) {
        for _ in 0..200 {
            let mut bytes = bytes.to_vec();
            for _ in 0..1 + next(3) {
                let at = next(bytes.len().min(200));
                bytes[at] = next(256) as u8;
            }
            let _ = (decode(&bytes), look(&bytes));
        }
    }
}
