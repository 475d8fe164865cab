//! Tests of files that claim more than they hold or never end: each is refused with its name, before memory is allocated.

use super::archives::zip;
use super::*;

#[cfg(unix)]
fn pipe(root: &Path, name: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn pipes_sockets_and_devices_are_no_images_and_nobody_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, value) in [("data/cat/1.png", 1), ("data/dog/2.png", 2)] {
        put(root, name, &png(value));
    }
    pipe(root, "data/cat/3.png");
    pipe(root, "data/cat/odd");
    pipe(root, "data/more.tar");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("data/dog/4.png")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", root.join("data/dog/5.png")).unwrap();
    let splits = open(&root.join("data"), None).unwrap();
    assert_eq!(splits.train.names(), ["cat/1.png", "dog/2.png"]);
    let counts = ["a named pipe", "a socket", "a device"].map(|kind| splits.found.not_read[kind].count);
    assert_eq!((counts, splits.found.files), ([3, 1, 1], 7));
    for format in [None, Some(Format::Tar), Some(Format::Table), Some(Format::Idx), Some(Format::Folder), Some(Format::Cifar)] {
        for (path, what) in [(root.join("data/cat/3.png"), "a named pipe"), ("/dev/zero".into(), "a device")] {
            let text = refusal(&path, format);
            assert!(text.starts_with(&format!("this is {what}, and has to be a file or a folder")), "{text}");
        }
    }
    assert!(files(&[root.join("data/cat/3.png")]).err().unwrap().to_string().contains("a named pipe"));
    // A table may name any path.
    put(root, "data/table.csv", b"path,label\ncat/1.png,a\ncat/3.png,b\n/dev/zero,b\n");
    let table = root.join("data/table.csv");
    let text = open(&table, None).unwrap().scanned(&table, OnError::Fail).err().unwrap().to_string();
    assert!(text.starts_with("2 images cannot be read") && text.contains("this is a named pipe"), "{text}");
    // Folders where files are expected, and the reverse.
    put(root, "data/other.csv", b"path,label\ncat/1.png,a\ncat,b\ndog/2.png,b\n");
    let table = root.join("data/other.csv");
    let text = open(&table, None).unwrap().scanned(&table, OnError::Fail).err().unwrap().to_string();
    assert!(text.contains("cat: this is a folder, and has to be a file"), "{text}");
    assert!(refusal(&root.join("data/cat/1.png"), Some(Format::Folder)).contains("1.png"));
}

#[test]
fn an_idx_files_claim_is_checked_before_room_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (case, shape, said) in [
        ("large", [60_000, 4096, 4096], "it needs about 1.0 TB of memory"),
        ("many", [u32::MAX, 1, 1], "a list of 4294967295 images needs about"),
        ("wide", [1, u32::MAX, u32::MAX], "1 images of 4294967295 × 4294967295 pixels cannot be"),
        ("all", [u32::MAX; 3], "pixels cannot be"),
        ("none", [4, 0, 4], "pixels cannot be"),
        ("short", [4, 100, 1000], "is shorter than its header says"),
    ] {
        for zipped in [true, false] {
            let pack = |bytes: Vec<u8>| if zipped { gzip(&bytes) } else { bytes };
            let end = if zipped { ".gz" } else { "" };
            let part = root.join(format!("{case}{zipped}"));
            put(&part, &format!("train-images-idx3-ubyte{end}"), &pack(idx(&shape, &[7; 48])));
            put(&part, &format!("train-labels-idx1-ubyte{end}"), &pack(idx(&shape[..1], &[1, 0, 1, 0])));
            let text = refusal(&part, None);
            // Data that stays on disk is not kept in memory.
            let short = "is shorter than its header says";
            let said = if case == "large" && !zipped { short } else { said };
            assert!(text.contains(said), "{case} {zipped}: {text}");
        }
    }
}

/// A tar whose only file claims `size` bytes.
fn claims(name: &str, size: u64) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    [header.as_bytes().to_vec(), png(1)].concat()
}

#[test]
fn archives_that_claim_or_hold_more_than_fits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for size in [1 << 40, u64::MAX, u64::MAX / 2] {
        let name = format!("{size}.tar");
        put(root, &name, &claims("a.png", size));
        let text = refusal(&root.join(&name), None);
        // Sizes that overflow are refused when the archive is read.
        let odd = size == u64::MAX && text.contains("overflow");
        assert!(odd || text.contains("ends inside this file"), "{size}: {text}");
        let name = format!("{size}.tar.gz");
        put(root, &name, &gzip(&claims("a.png", size)));
        let text = refusal(&root.join(&name), None);
        let odd = size == u64::MAX && text.contains("overflow");
        assert!(odd || text.contains("its images take more than") && text.contains("a.png"), "{size}: {text}");
    }
    // A sparse file is counted and not read.
    let mut sparse = claims("holes.png", 4096);
    sparse[156] = b'S';
    // Its size including the holes.
    sparse[483..495].copy_from_slice(b"00000000000\0");
    let mut header = ::tar::Header::from_byte_slice(&sparse[..512]).clone();
    header.set_size(0);
    header.set_cksum();
    let whole = [header.as_bytes().to_vec(), tar(&[("a.png", &png(1))])].concat();
    put(root, "sparse.tar", &whole);
    let found = open(&root.join("sparse.tar"), None).unwrap().found;
    assert_eq!(found.not_read["file with holes (sparse)"].count, 1);

    // Zeros compressed to a thousandth: images do not compress so well.
    let mut header = ::tar::Header::new_gnu();
    header.set_path("a.txt").unwrap();
    header.set_size(2 << 30);
    header.set_mode(0o644);
    header.set_cksum();
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    zeros.write_all(&vec![0; 16 << 20]).unwrap();
    let packed = [gzip(header.as_bytes()), zeros.finish().unwrap().repeat(70)].concat();
    put(root, "bomb.tgz", &packed);
    let text = refusal(&root.join("bomb.tgz"), None);
    assert!(text.contains("unpacks to more than 200 times its size"), "{text}");
}

#[test]
fn a_zip_that_lies_about_sizes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let (name, picture) = ("a.png", png(1));
    // Sizes are in the central directory, compressed and unpacked, after the name's own header.
    let with = |packed: Option<u32>, whole: Option<u32>| {
        let mut bytes = zip(&[(name, &picture)], true);
        let central = bytes.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
        for (at, size) in [(central + 20, packed), (central + 24, whole)] {
            if let Some(size) = size {
                bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
            }
        }
        bytes
    };
    for (case, bytes, said) in [
        ("packed", with(Some(u32::MAX - 1), None), "ends inside this file"),
        ("whole", with(None, Some(u32::MAX - 1)), "would unpack to 4.3 GB, and no image is so large"),
    ] {
        put(root, &format!("{case}.zip"), &bytes);
        let text = refusal(&root.join(format!("{case}.zip")), None);
        assert!(text.contains(said) && text.contains(name), "{case}: {text}");
    }
    put(root, "more.zip", &with(None, Some(1_000_000_000)));
    let at = root.join("more.zip");
    let text = open(&at, None).unwrap().scanned(&at, OnError::Fail).err().unwrap().to_string();
    assert!(text.contains("announces 1000000000 bytes here and holds"), "{text}");
    // A file that is not an image is not unpacked.
    let zeros = vec![0; 64 << 20];
    put(root, "zeros.zip", &zip(&[("a.png", &picture), ("data", &zeros)], true));
    assert!(open(&root.join("zeros.zip"), None).is_ok());
}

#[test]
fn an_image_file_larger_than_memory_is_refused_by_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    (1..3).for_each(|value| put(root, &format!("{value}.png"), &png(value)));
    fs::File::create(root.join("3.png")).unwrap().set_len(1 << 42).unwrap();
    let text = open(root, None).unwrap().scanned(root, OnError::Fail).err().unwrap().to_string();
    assert!(text.contains("3.png: this file needs about 4.4 TB of memory"), "{text}");
    put(root, "t.csv", b"path\n1.png\n");
    fs::OpenOptions::new().write(true).open(root.join("t.csv")).unwrap().set_len(1 << 42).unwrap();
    assert!(refusal(&root.join("t.csv"), None).contains("4.4 TB"));
}
