//! JPEGs of every kind compared with PIL's pixels: sampling × scans × sizes × restarts × passes × colours, each within 4 levels.
//! `make_jpegs.py` beside this file makes `fixtures/jpegs.tar.gz`.

use std::collections::BTreeMap;
use std::io::Read;

use ctk_images::decode::decode;
use flate2::read::GzDecoder;

const PACKED: &[u8] = include_bytes!("fixtures/jpegs.tar.gz");

/// Largest difference from PIL in levels.
const LEVELS: u8 = 4;

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(GzDecoder::new(PACKED));
    let read = |entry: std::io::Result<tar::Entry<GzDecoder<&[u8]>>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (name, bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// The JPEGs whose names begin with one of `kinds`.
fn jpegs<'a>(files: &'a BTreeMap<String, Vec<u8>>, kinds: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a [u8])> {
    let wanted = |name: &&String| name.ends_with(".jpg") && kinds.iter().any(|kind| name.starts_with(kind));
    files.iter().filter(move |(name, _)| wanted(name)).map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
}

#[test]
fn every_jpeg_is_within_four_levels_of_pil() {
    let files = files();
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, bytes) in jpegs(&files, &[""]).filter(|(name, _)| !name.starts_with("refused")) {
        count += 1;
        let pixels = &files[&format!("{}.rgb", name.split("--").next().unwrap())];
        match decode(bytes) {
            Err(e) => wrong.push(format!("{name}: {e}")),
            Ok(picture) if picture.pixels.len() != pixels.len() => wrong.push(format!("{name}: another size")),
            Ok(picture) => {
                let most = picture.pixels.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if most > LEVELS {
                    wrong.push(format!("{name}: {most} levels"));
                }
            }
        }
    }
    assert!(wrong.is_empty() && count > 500, "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn arithmetic_coding_is_refused_by_name() {
    let files = files();
    let refused: Vec<_> = jpegs(&files, &["refused"]).collect();
    assert_eq!(refused.len(), 2);
    for (name, bytes) in refused {
        let error = decode(bytes).unwrap_err().to_string();
        assert!(error.contains("arithmetic coding") && error.contains("hint: "), "{name}: {error}");
    }
}

#[test]
fn missing_scan_data_is_an_error_where_the_end_marker_is_there() {
    let files = files();
    let kinds = ["1x1_1x1_1x1-33x18", "2x2_1x1_1x1-33x18", "1x2_1x1_1x1-33x18", "1x1_2x2_2x2-33x18", "gray-1x1"];
    let (mut count, mut silent) = (0, Vec::new());
    for (name, bytes) in jpegs(&files, &kinds) {
        let scan = bytes.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap() + 14;
        for share in 1..8 {
            let at = scan + (bytes.len() - scan) * share / 10;
            let mut cut = bytes[..at].to_vec();
            assert!(decode(&cut).is_err(), "{name} cut to {share}0 %");
            cut.extend([0xFF, 0xD9]);
            match decode(&cut) {
                Err(e) => assert!(e.to_string().contains("hint: "), "{e}"),
                // Cut between two scans, it is a progressive JPEG of fewer passes.
                Ok(_) if matches!(bytes[at..], [0xFF, 0xC4 | 0xDA, ..]) => {}
                Ok(_) => silent.push(format!("{name} cut to {share}0 % and closed")),
            }
            // Like a file whose space was reserved before it was written.
            let mut zeros = bytes.to_vec();
            zeros[at..].fill(0);
            assert!(decode(&zeros).is_err(), "{name} with zeros behind {share}0 %");
            count += 1;
        }
    }
    assert!(silent.is_empty() && count > 250, "{} of {count}:\n{}", silent.len(), silent.join("\n"));
}

#[test]
fn bytes_that_are_changed_never_panic() {
    let files = files();
    let mut state = 1_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for (_, bytes) in jpegs(&files, &[""]).filter(|(name, _)| name.contains("-9x7--") || name.starts_with("ink")) {
        for _ in 0..20 {
            let mut bytes = bytes.to_vec();
            for _ in 0..1 + next(3) {
                let at = 2 + next(bytes.len() - 2);
                bytes[at] = next(256) as u8;
            }
            let _ = decode(&bytes);
        }
    }
}
