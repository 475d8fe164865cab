//! Tests of archives in all usual forms: with folders, compressed in any way, with keys in any order.

use super::*;

/// Makes a zip file by hand: stored or deflated.
pub(super) fn zip(entries: &[(&str, &[u8])], deflated: bool) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        let body = if deflated { packed.finish().unwrap() } else { bytes.to_vec() };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut shared = vec![20, 0, 0, 0, if deflated { 8 } else { 0 }, 0, 0, 0, 0x21, 0x50];
        shared.extend(crc.sum().to_le_bytes());
        shared.extend((body.len() as u32).to_le_bytes());
        shared.extend((bytes.len() as u32).to_le_bytes());
        shared.extend((name.len() as u16).to_le_bytes());
        shared.extend([0, 0]);
        central.extend(b"PK\x01\x02\x14\x00");
        central.extend(&shared);
        central.extend([0; 10]);
        central.extend((out.len() as u32).to_le_bytes());
        central.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&shared);
        out.extend(name.as_bytes());
        out.extend(body);
    }
    let (at, count) = (out.len() as u32, entries.len() as u16);
    out.extend(&central);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend((central.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// The same files in every kind of archive, by its ending.
fn packed(entries: &[(&str, &[u8])]) -> Vec<(&'static str, Vec<u8>)> {
    let tar = tar(entries);
    vec![
        ("tar.gz", gzip(&tar)),
        ("tgz", gzip(&tar)),
        ("tar.zst", zstd::encode_all(&tar[..], 1).unwrap()),
        ("zip", zip(entries, false)),
        ("ZIP", zip(entries, true)),
        ("tar", tar),
    ]
}

#[test]
fn folders_in_any_archive_are_read_as_folders() {
    let pictures: Vec<Vec<u8>> = (1..=5).map(png).collect();
    let names =
        ["data/train/dog/1.png", "data/train/cat/2.png", "data/test/cat/3.png", "data/test/dog/4.png", "__MACOSX/x/._1.png"];
    let mut entries: Vec<(&str, &[u8])> = names.into_iter().zip(pictures.iter().map(Vec::as_slice)).collect();
    entries.push(("data/notes.txt", b"x"));
    let folder = tempfile::tempdir().unwrap();
    for (ending, bytes) in packed(&entries) {
        let name = format!("photos.{ending}");
        put(folder.path(), &name, &bytes);
        let splits = open(&folder.path().join(&name), None).unwrap();
        assert_eq!(listed(&splits.train), [row("train/cat/2.png", 0, 2), row("train/dog/1.png", 1, 1)], "{ending}");
        assert_eq!(splits.test.as_ref().unwrap().names(), ["test/cat/3.png", "test/dog/4.png"], "{ending}");
        assert_eq!((splits.found.files, splits.found.not_read["txt"].count), (5, 1), "{ending}");
        let kept = splits.found.notes.iter().any(|note| note.contains("kept in memory"));
        assert_eq!(kept, ending.contains('z') && ending != "zip", "{ending}: {:?}", splits.found.notes);
    }
}

#[test]
fn archives_are_parts_by_whole_words() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let shard = |value: u8| tar(&[("a.png", &png(value)), ("a.cls", b"0"), ("b.png", &png(value + 1)), ("b.cls", b"1")]);
    for (name, value) in [("testimonials-0", 1), ("valley", 3), ("contest", 5)] {
        put(root, &format!("whole/{name}.tar"), &shard(value));
    }
    let whole = open(&root.join("whole"), None).unwrap();
    assert!(whole.test.is_none() && whole.train.len() == 6, "names that only begin so are no parts");
    for (name, value) in [("imagenet1k-train-00", 1), ("imagenet1k-validation-00", 3), ("imagenet1k-test-00", 5)] {
        put(root, &format!("timm/{name}.tar"), &shard(value));
    }
    let timm = open(&root.join("timm"), None).unwrap();
    let names = |images: &Option<Images>| images.as_ref().unwrap().name(0);
    assert_eq!(
        (timm.train.len(), names(&timm.val), names(&timm.test)),
        (2, "imagenet1k-validation-00.tar/a".into(), "imagenet1k-test-00.tar/a".into())
    );
    let pictures = [png(1), png(2), png(3)];
    let of = |part: &str| [("cat/1.png", 0), ("dog/2.png", 1)].map(|(name, at)| (format!("{part}/{name}"), at));
    for part in ["train", "test"] {
        let names = of(part);
        let entries: Vec<(&str, &[u8])> = names.iter().map(|(name, at)| (name.as_str(), &pictures[*at][..])).collect();
        put(root, &format!("zips/{part}.zip"), &zip(&entries, true));
    }
    let zips = open(&root.join("zips"), None).unwrap();
    assert_eq!(
        (zips.train.names(), zips.test.unwrap().len()),
        (vec!["train.zip/train/cat/1.png".into(), "train.zip/train/dog/2.png".into()], 2)
    );
}

#[test]
fn samples_are_found_by_key_wherever_their_files_lie() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let [one, two, three] = [1, 2, 3].map(png);
    let apart = tar(&[
        ("a/1.cls", b"1"),
        ("a/2.cls", b"0"),
        ("a/2.png", &two),
        ("a/photo.v1.png", &three),
        ("a/1.png", &one),
        ("a/photo.v1.cls", b"2"),
    ]);
    put(root, "apart.tar", &apart);
    let splits = open(&root.join("apart.tar"), None).unwrap();
    let rows = [row("apart.tar/a/2", 0, 2), row("apart.tar/a/photo.v1", 2, 3), row("apart.tar/a/1", 1, 1)];
    assert_eq!(listed(&splits.train), rows);
    for (name, entries) in [
        ("twice.tar", vec![("x.png", &one[..]), ("y.png", &two), ("x.png", &three), ("x.cls", b"1")]),
        ("kinds.tar", vec![("x.png", &one[..]), ("x.jpg", &two), ("x.cls", b"1")]),
        ("classes.tar", vec![("x.png", &one[..]), ("x.cls", b"0"), ("x.cls", b"1")]),
    ] {
        put(root, name, &tar(&entries));
        let text = refusal(&root.join(name), None);
        assert!(text.contains("the key `x` has more than one") && text.contains("hint:") && text.contains(name), "{text}");
    }
    let second = tar(&[("x.png", &one[..]), ("x.seg.png", &two), ("x.cls", b"1"), ("y.cls", b"0")]);
    put(root, "second.tar", &second);
    let second = open(&root.join("second.tar"), None).unwrap();
    assert_eq!((second.train.len(), second.found.not_read["further picture of a sample"].count), (1, 1));
    assert!(second.found.notes[0].contains("1 class without an image (y.cls)"), "{:?}", second.found.notes);
}

#[test]
fn an_archive_that_is_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pictures: Vec<Vec<u8>> = (1..=20).map(png).collect();
    let names: Vec<String> = (0..20).map(|i| format!("{}/{i}.png", i % 2)).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(pictures.iter().map(Vec::as_slice)).collect();
    for (ending, bytes) in packed(&entries) {
        let name = format!("cut.{ending}");
        put(folder.path(), &name, &bytes[..bytes.len() / 2]);
        let text = refusal(&folder.path().join(&name), None);
        assert!(text.contains("hint:") && text.contains(&name), "{ending}: {text}");
    }
    let mut locked = zip(&entries, true);
    let flags: Vec<usize> = (0..locked.len() - 4).filter(|&at| &locked[at..at + 4] == b"PK\x01\x02").collect();
    flags.into_iter().for_each(|at| locked[at + 8] |= 1);
    put(folder.path(), "locked.zip", &locked);
    let text = refusal(&folder.path().join("locked.zip"), None);
    assert!(text.contains("encrypted") && text.contains("hint:"), "{text}");
}

#[test]
fn sizes_that_an_archive_claims_make_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.zip");
    let picture = png(1);
    let entries = [("cat/1.png", &picture[..]), ("dog/2.png", &picture[..])];
    for deflated in [false, true] {
        let mut bytes = zip(&entries, deflated);
        let central = bytes.windows(4).position(|four| four == b"PK\x01\x02").unwrap();
        bytes[central + 20..central + 24].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path, None).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("the archive ends inside this file") && error.contains("fetch it again"), "{error}");
    }
    // A tar writes large sizes in base 256.
    let mut bytes = super::tar(&entries);
    bytes[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfd, 0xff]);
    let sum: u32 =
        bytes[..512].iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let path = folder.path().join("a.tar");
    std::fs::write(&path, bytes).unwrap();
    let error = open(&path, None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("fetch it again") && error.contains("a.tar"), "{error}");
}
