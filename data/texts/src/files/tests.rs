//! Tests of every compression and encoding of texts, and of files that are not text.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ctk_core::Result;

use super::chunks::whole_within;
use super::*;
use crate::corpus::Invalid;

/// `printf 'one two\nthree\n' | bzip2`, and `… | xz`.
const BZIP2: &str = "425a68393141592653596d0e9bc4000004d1800010400002419480200031064c410d189a62149f18e08bc5dc914e14241b43\
                     a6f100";
const XZ: &str = "fd377a585a000004e6d6b4460200210116000000742fe5a301000d6f6e652074776f0a74687265650a000000e7a7950c7e71\
                     f5840001260e081be0041fb6f37d010000000004595a";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn holding(&self, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.at("t"), content).unwrap();
        self.at("t")
    }
}

fn text(path: &Path, encoding: &str) -> Result<Whole> {
    whole(path, Encoding::named(encoding)?, Invalid::Refuse)
}

#[test]
fn texts_are_unpacked_by_their_first_bytes_whatever_they_are_called() {
    let folder = Folder::new();
    let plain = "one two\nthree\n";
    let gzip = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    // Any of sixteen magic numbers, four bytes of length, and so many bytes to skip.
    let skipped = |mark: u8| [&[mark, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
    for (packed, what) in [
        (plain.as_bytes().to_vec(), "plain"),
        (gzip(plain), "gzip"),
        ([gzip("one two\n"), gzip("three\n")].concat(), "two streams of gzip"),
        (zstd(plain), "zstd"),
        ([skipped(0x50), zstd(plain)].concat(), "zstd after a frame to be skipped"),
        ([skipped(0x5f), zstd("one two\n"), skipped(0x51), zstd("three\n")].concat(), "frames to be skipped everywhere"),
        (bytes(BZIP2), "bzip2"),
        (bytes(XZ), "xz"),
    ] {
        let read = text(&folder.holding(&packed), "auto").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((read.text.as_str(), read.notes.len()), (plain, 0), "{what}");
        // A compressed file that is cut short must not be read as a shorter text.
        if packed != plain.as_bytes() {
            let cut = &packed[..packed.len() - 5];
            assert!(text(&folder.holding(cut), "auto").is_err(), "{what}, cut short");
        }
    }
    let twice = [bytes(BZIP2), bytes(BZIP2)].concat();
    assert_eq!(text(&folder.holding(twice), "auto").unwrap().text, plain.repeat(2), "two streams of bzip2");
    let twice = [bytes(XZ), bytes(XZ)].concat();
    assert_eq!(text(&folder.holding(twice), "auto").unwrap().text, plain.repeat(2), "two streams of xz");
    // Text that begins like a compressed file, except for later bytes.
    assert_eq!(text(&folder.holding("BZh9 is how bzip2 begins"), "auto").unwrap().text, "BZh9 is how bzip2 begins");
}

#[test]
fn utf_16_is_seen_by_its_mark_or_its_zero_bytes_and_said() {
    let folder = Folder::new();
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    for plain in ["one two\nthree\n", "a\tb\nc\td\n", "Привет, мир\nещё слова\n", "καλημέρα κόσμε\n", "שלום עולם\n"]
    {
        for (encoded, name, by) in [
            ([vec![0xff, 0xfe], little(plain)].concat(), "UTF-16LE", "byte order mark"),
            ([vec![0xfe, 0xff], big(plain)].concat(), "UTF-16BE", "byte order mark"),
            (little(plain), "UTF-16LE", "zero bytes"),
            (big(plain), "UTF-16BE", "zero bytes"),
        ] {
            let read = text(&folder.holding(&encoded), "auto").unwrap();
            assert_eq!(read.text, plain, "{name} by its {by}");
            assert!(read.notes[0].contains(name) && read.notes[0].contains(by), "{:?}", read.notes);
            let named = text(&folder.holding(&encoded), name).unwrap();
            assert_eq!((named.text.as_str(), named.notes.len()), (plain, 0), "{name} that was named");
        }
        let read = text(&folder.holding(plain), "auto").unwrap();
        assert_eq!((read.text.as_str(), read.notes.len()), (plain, 0), "UTF-8");
    }
    // Lines as short as UTF-16's characters.
    let short = "1\n2\n3\n4\n".repeat(50);
    assert_eq!(text(&folder.holding(&short), "auto").unwrap().text, short);
    // An odd byte at the end is half a character.
    let error = text(&folder.holding([little("one two"), vec![b'x']].concat()), "auto").unwrap_err().to_string();
    assert!(error.contains("this is not UTF-16LE") && error.contains("byte 7 of the text in UTF-8"), "{error}");
}

#[test]
fn other_encodings_are_read_where_they_are_named_and_named_where_they_are_not() {
    let folder = Folder::new();
    for (name, encoded, plain) in [
        ("windows-1252", &b"caf\xe9 \x80\n"[..], "café €\n"),
        ("latin1", b"caf\xe9\n", "café\n"),
        ("iso-8859-2", b"\xb9koda\n", "škoda\n"),
        ("koi8-r", b"\xcd\xc9\xd2\n", "мир\n"),
        ("shift_jis", b"\x93\xfa\x96{\n", "日本\n"),
        ("gb18030", b"\xd6\xd0\xce\xc4\n", "中文\n"),
    ] {
        assert_eq!(text(&folder.holding(encoded), name).unwrap().text, plain, "{name}");
        let error = text(&folder.holding(encoded), "auto").unwrap_err().to_string();
        assert!(error.contains("not UTF-8") && error.contains("data.encoding = "), "{error}");
    }
    let wrong = folder.holding(b"fine \x93\xff\xff more\n");
    let error = text(&wrong, "shift_jis").unwrap_err().to_string();
    assert!(error.contains("this is not Shift_JIS") && error.contains("byte 5"), "{error}");
    let replaced = whole(&wrong, Encoding::named("shift_jis").unwrap(), Invalid::Replace).unwrap();
    assert!(replaced.text.starts_with("fine \u{fffd}") && replaced.notes[0].starts_with("replaced "), "{replaced:?}");
    let error = Encoding::named("utf-9").unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("windows-1252"), "{error}");
    // Longer than what is inspected and decoded at once, cut anywhere.
    let long = "äöü ß\n".repeat(60_000);
    let latin: Vec<u8> = long.chars().map(|c| c as u8).collect();
    assert_eq!(text(&folder.holding(latin), "latin1").unwrap().text, long);
}

#[test]
fn what_is_no_text_is_refused_by_its_name() {
    let folder = Folder::new();
    let mut tar = vec![b'a'; 257];
    tar.extend(b"ustar\0");
    for (content, part) in [
        (b"PK\x03\x04rest".to_vec(), "a zip archive"),
        (tar, "a tar archive"),
        (b"\x04\x22\x4d\x18rest".to_vec(), "packed by LZ4"),
        (b"%PDF-1.4\n".to_vec(), "a PDF file"),
        (b"\xff\xfe\0\0a\0\0\0".to_vec(), "UTF-32"),
        (b"a\0\0\0b\0\0\0".to_vec(), "UTF-32"),
        (b"a text with a zero\0byte in it\n".to_vec(), "a zero byte"),
    ] {
        let error = text(&folder.holding(&content), "auto").unwrap_err().to_string();
        assert!(
            error.contains(part) && error.contains("hint: ") && error.contains(&folder.at("t").display().to_string()),
            "{error}"
        );
    }
    assert_eq!(text(&folder.holding(b"zero\0byte\n"), "utf-8").unwrap().text, "zero\0byte\n", "whoever names it gets it");
    let error = open(&folder.at("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
#[cfg(unix)]
fn pipes_devices_and_folders_are_refused_before_they_are_opened() {
    let folder = Folder::new();
    let pipe = folder.at("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, kind) in [(pipe.as_path(), "a named pipe"), (Path::new("/dev/zero"), "a device"), (folder.0.path(), "a folder")] {
        for error in [open(path).unwrap_err(), text(path, "auto").unwrap_err(), Chunks::lines(path).err().unwrap()] {
            assert!(
                error.exit_code() == 2 && error.to_string().contains(&format!("this is {kind}, and has to be a file")),
                "{error}"
            );
        }
    }
    let error = find(&[pipe.display().to_string()]).unwrap_err().to_string();
    assert!(error.contains("a named pipe") && error.contains("standard input (-)"), "{error}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let folder = Folder::new();
    let path = folder.holding("one two\n".repeat(100_000));
    let chunks = Chunks::text(&path, Encoding::default()).unwrap();
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(&b"more\n".repeat(3_000_000)).unwrap();
    let mut chunks = chunks;
    let read: usize = chunks.by_ref().map(|chunk| chunk.unwrap().bytes.len()).sum();
    assert_eq!((read, chunks.grown()), (800_000, Some(15_000_000)));
    let mut chunks = Chunks::text(&path, Encoding::default()).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    let error = chunks.find_map(|chunk| chunk.err()).expect("it has become shorter").to_string();
    assert!(error.contains("shorter while it was read") && error.contains(&path.display().to_string()), "{error}");
}

#[test]
fn text_without_white_space_ends_in_an_error_and_not_in_hours() {
    let folder = Folder::new();
    let endless = folder.holding(vec![b'x'; 80 << 20]);
    for (chunks, what) in
        [(Chunks::text(&endless, Encoding::default()).unwrap(), "white space"), (Chunks::lines(&endless).unwrap(), "line's end")]
    {
        let mut chunks = chunks;
        let error = chunks.next().unwrap().err().expect("this is no text").to_string();
        assert!(error.contains(&format!("no {what} in 64 MB")) && error.contains("hint: "), "{error}");
    }
    // White space of other scripts is white space.
    let spaced = "日本語のテキスト\u{3000}".repeat(700_000);
    let read: Vec<Chunk> = Chunks::text(&folder.holding(&spaced), Encoding::default()).unwrap().map(Result::unwrap).collect();
    assert!(read.len() > 3 && read.iter().all(|chunk| std::str::from_utf8(&chunk.bytes).unwrap().ends_with('\u{3000}')));
    assert!(read.iter().flat_map(|chunk| chunk.bytes.iter().copied()).eq(spaced.bytes()));
}

#[test]
fn a_text_that_is_read_at_once_has_a_bound_before_it_is_read() {
    let folder = Folder::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&b"a line\n".repeat(100_000)).unwrap();
    for content in [gzip.finish().unwrap(), b"a line\n".repeat(100_000)] {
        let path = folder.holding(content);
        let error = whole_within(&path, Encoding::default(), Invalid::Refuse, 1000).unwrap_err().to_string();
        assert!(error.contains("more than 1000 bytes") && error.contains("hint: "), "{error}");
        assert!(whole_within(&path, Encoding::default(), Invalid::Refuse, 1 << 20).is_ok());
    }
}
