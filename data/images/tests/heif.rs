//! HEIC and AVIF files compared with PIL's pixels. `make_heif.py` beside this file makes `fixtures/heif.tar.gz`.

#![cfg(feature = "heif")]

use std::collections::BTreeMap;
use std::io::Read;

use ctk_images::decode::{Background, EXTENSIONS, Kind, Law, decode, decode_by, look};
use flate2::read::GzDecoder;

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(&include_bytes!("fixtures/heif.tar.gz")[..]));
    let read = |entry: std::io::Result<tar::Entry<GzDecoder<&[u8]>>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Largest difference in levels: decoders interpolate colours differently.
const NEAR: u8 = 8;

#[test]
fn pictures_stand_upright_and_have_pils_pixels() {
    let files = files();
    for (name, bytes) in files.iter().filter(|(name, _)| !name.ends_with(".rgba")) {
        let expected = &files[&format!("{name}.rgba")];
        let number = |at: usize| u32::from_le_bytes(expected[at..at + 4].try_into().unwrap()) as usize;
        let found = look(bytes).unwrap();
        assert_eq!((found.kind, found.width, found.height), (Kind::Heif, number(0), number(4)), "{name}");
        assert_eq!((found.more, found.deep), (name.starts_with("several"), false), "{name}");
        assert!(EXTENSIONS.contains(&name.rsplit('.').next().unwrap()), "{name}");
        let dropped = decode(bytes).unwrap();
        let law = Law { background: Background::WHITE, ..Law::default() };
        let shown = decode_by(bytes, &law).unwrap();
        assert_eq!((dropped.width, dropped.height), (found.width, found.height), "{name}");
        for (at, pixel) in expected[8..].as_chunks::<4>().0.iter().enumerate() {
            let [colours @ .., alpha] = *pixel;
            for (c, colour) in colours.into_iter().enumerate() {
                let white = (u32::from(colour) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255;
                assert!(dropped.pixels[3 * at + c].abs_diff(colour) <= NEAR, "{name}: pixel {at}");
                assert!(shown.pixels[3 * at + c].abs_diff(white as u8) <= NEAR, "{name}: pixel {at} on white");
            }
        }
    }
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    for (name, bytes) in files().iter().filter(|(name, _)| name.starts_with("plain") && !name.ends_with(".rgba")) {
        let error = decode(&bytes[..bytes.len() - 60]).unwrap_err().to_string();
        assert!(error.contains("cannot decode the image") && error.contains("hint:"), "{name}: {error}");
    }
}
