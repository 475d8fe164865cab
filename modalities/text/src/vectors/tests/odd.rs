//! Tests with odd words, and odd bytes of values, in every format: what is written can be read again, and everything else is refused.

use ctk_core::rng::Key;
use ctk_texts::vocabulary::Vocabulary;
use rand::Rng as _;

use super::*;
use crate::fasttext::{self, Args, Loss, ModelKind, Parts};

/// Words that have broken a reader of some format.
fn odd() -> Vec<String> {
    let mut words: Vec<String> = [
        "a",
        "7",
        "1984",
        "3.14",
        "-1e9",
        "nan",
        "inf",
        "infinity",
        "5 3",
        "7 ",
        " 7",
        "x 1",
        "x nan",
        "1 x",
        ". . .",
        "new york",
        "new\nyork",
        "new\ryork",
        "tab\there",
        "tab\t7",
        "\t",
        " ",
        "",
        "\u{feff}",
        "\u{feff}a",
        "a\u{a0}b",
        "\u{2028}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\0",
        "a\0b",
        "[UNK]",
        "</s>",
        "<>",
        "\"",
        "\\n",
        "é",
        "e\u{301}",
        "日本",
        "👩‍👩‍👧",
        "BZh91AY&SY",
        "P*M\u{18}",
        "{",
        "abcd\0\0\0\0{",
        "Σ",
        "ς",
        "\u{fffd}",
        "word2vec",
        "2 3",
        "0",
        "00",
        "+",
        "\r",
        "a\r",
    ]
    .map(String::from)
    .to_vec();
    words.extend([(1 << 16) - 1, 1 << 16, 100_000].map(|length| "x".repeat(length)));
    words
}

/// The value with these bytes, if it is finite.
fn value(bytes: [u8; 4]) -> Option<f32> {
    Some(f32::from_le_bytes(bytes)).filter(|value| value.is_finite())
}

fn table(names: Vec<String>, rows: Vec<f32>) -> Features {
    Features { width: rows.len() / names.len(), rows, names, ..Features::default() }
}

/// Writes and reads the words, if the format takes them; returns whether it did.
fn there_and_back(folder: &Folder, features: &Features, format: &str) -> bool {
    let path = folder.at("v.any");
    match write::as_format(features, format, &path) {
        Ok(_) => {
            let read = open(&path).unwrap_or_else(|e| panic!("{format} of {:?}: {e}", features.names));
            same(&read.unwrap_or_else(|| panic!("{format} of {:?} is no file of vectors", features.names)), features);
            std::fs::remove_file(path).unwrap();
            true
        }
        Err(error) => {
            assert!(error.to_string().contains("hint: "), "{error}");
            assert!(!path.exists());
            false
        }
    }
}

#[test]
fn whatever_is_written_is_read_again() {
    let folder = Folder::new();
    let (words, mut rng) = (odd(), Key::new(9).rng());
    // Bytes that end lines and words, digits, and bytes that make a value look like a line of text.
    let bytes = [b'\n', b' ', b'1', b'.', b'\r', b'\t', b'a', 0, 0x3f, 0xbf, 0x80, b'5'];
    let mut written = std::collections::HashMap::<&str, usize>::new();
    for round in 0..400 {
        let (count, width) = (rng.random_range(1..5usize), rng.random_range(1..4usize));
        let mut names: Vec<String> = Vec::new();
        while names.len() < count {
            let word = &words[rng.random_range(0..words.len())];
            if !names.contains(word) {
                names.push(word.clone());
            }
        }
        let mut rows = Vec::new();
        while rows.len() < count * width {
            let odd: [u8; 4] = std::array::from_fn(|_| bytes[rng.random_range(0..bytes.len())]);
            rows.extend(if round % 3 == 0 { Some(rng.random_range(-1.0..1.0)) } else { value(odd) });
        }
        let features = table(names, rows);
        for format in FILES {
            *written.entry(format).or_default() += usize::from(there_and_back(&folder, &features, format));
        }
    }
    assert!(FILES.iter().all(|format| written[format] > 30), "{written:?}");
}

#[test]
fn each_odd_word_goes_into_some_format_or_is_refused_by_all() {
    let folder = Folder::new();
    for word in odd() {
        let features = table(vec!["first".into(), word.clone(), "last".into()], vec![0.5, -0.25, 1.5]);
        let taken: Vec<&str> = FILES.into_iter().filter(|format| there_and_back(&folder, &features, format)).collect();
        let lines = word.contains(['\n', '\r']) || word.is_empty() || word == "tab\t7";
        assert_eq!(taken.is_empty(), lines && word != "tab\t7", "{word:?}: {taken:?}");
    }
    // Longer than any reader accepts.
    let long = table(vec!["first".into(), "x".repeat(LONGEST_WORD)], vec![0.5, 1.0]);
    for format in FILES {
        let error = write::as_format(&long, format, &folder.at("long")).unwrap_err().to_string();
        assert!(error.contains("has 16777216 bytes") && error.len() < 500, "{error}");
    }
}

#[test]
fn fasttexts_models_hold_odd_words_too() {
    let folder = Folder::new();
    let path = folder.at("m.bin");
    let words = odd();
    let (args, counts) = (
        Args {
            width: 2,
            window: 5,
            epochs: 1,
            min_count: 1,
            negatives: 5,
            word_ngrams: 1,
            loss: Loss::NegativeSampling,
            kind: ModelKind::SkipGram,
            buckets: 3,
            min: 2,
            max: 3,
            rate_every: 100,
            subsample: 1e-4,
        },
        vec![1; words.len()],
    );
    let vocabulary =
        Vocabulary::new(words.iter().filter(|word| !word.contains('\0')).cloned().collect(), counts[..words.len() - 3].to_vec());
    assert_eq!(vocabulary.len(), words.len() - 3, "three have zero bytes");
    let input: Vec<f32> = (0..2 * (vocabulary.len() + 3)).map(|i| i as f32).collect();
    let output = vec![0.0; 2 * vocabulary.len()];
    fasttext::write(&Parts { args: args.clone(), vocabulary: &vocabulary, input: &input, output: &output }, &path).unwrap();
    let read = fasttext::open(&path).unwrap();
    assert_eq!((read.vectors.words(), read.vectors.input()), (vocabulary.words(), &input[..]));
    for (word, value) in [("a\0b".to_string(), 0.5), ("x".repeat(LONGEST_WORD), 0.5), ("a".to_string(), f32::NAN)] {
        let one = Vocabulary::new(vec![word], vec![1]);
        let parts = Parts { args: args.clone(), vocabulary: &one, input: &[value; 8], output: &[0.0; 2] };
        assert!(fasttext::write(&parts, &folder.at("none")).unwrap_err().to_string().contains("hint: "));
        assert!(!folder.at("none").exists());
    }
}

#[test]
fn values_that_are_no_numbers_are_not_written_since_nobody_reads_them() {
    let folder = Folder::new();
    for format in FILES {
        let features = table(vec!["a".into(), "b".into()], vec![0.5, f32::NAN]);
        let error = write::as_format(&features, format, &folder.at("v")).unwrap_err().to_string();
        assert!(error.contains("a value of `b` is NaN") && !folder.at("v").exists(), "{format}: {error}");
        let none = Features { width: 3, ..Features::default() };
        assert!(write::as_format(&none, format, &folder.at("v")).unwrap_err().to_string().contains("0 rows"));
    }
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0);
}

#[test]
fn words_beside_the_vectors_have_a_name_of_their_own() {
    let folder = Folder::new();
    for name in ["v.tsv", "v.TSV"] {
        let error = write::as_format(&some(), "safetensors", &folder.at(name)).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("the same name"), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 0);
    // Every other format takes any name.
    write::as_format(&some(), "word2vec-text", &folder.at("v.tsv")).unwrap();
    same(&opened(&folder.at("v.tsv")), &some());
}

#[test]
fn a_binary_file_is_one_though_its_values_look_like_lines() {
    let folder = Folder::new();
    let value = f32::from_le_bytes;
    for (names, rows) in [
        // "1984 \n…": a number and a line end.
        (["1984", "b"], vec![value([b'\n', 0, 0x80, 0x3f]), 0.5]),
        (["a", "b"], vec![value([b'5', b'\n', 0x80, 0x3f]), value([b' ', b'7', b'\n', 0x3e])]),
        (["a", "b"], vec![0.5, 0.5, value([b'\n', b'\n', b'\n', 0x3e]), value([b' ', b'1', b' ', 0x3e])]),
    ] {
        let features = table(names.map(String::from).to_vec(), rows);
        write::binary(&features, &folder.at("v")).unwrap();
        same(&opened(&folder.at("v")), &features);
        // Also in the form of other programs, without line ends.
        let mut bytes = format!("{} {}\n", features.names.len(), features.width).into_bytes();
        for (row, name) in features.names.iter().enumerate() {
            bytes.extend([name.as_bytes(), b" "].concat());
            features.row(row).iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        }
        same(&opened(&folder.holding(bytes)), &features);
    }
}

#[test]
fn words_with_spaces_in_binary_files_are_read_where_rows_end_lines_and_refused_where_not() {
    let folder = Folder::new();
    let width = 10;
    let names: Vec<String> = (0..500)
        .map(|i| match i % 4 {
            0 => format!("new york {i}"),
            1 => format!("a b c {i}"),
            _ => format!("w{i}"),
        })
        .collect();
    let rows: Vec<f32> = (0..500 * width).map(|i| (i as f32 * 12.9898).sin() * 0.4).collect();
    let features = table(names, rows);
    let file = |end: &[u8], names: &dyn Fn(usize) -> String| {
        let mut bytes = format!("500 {width}\n").into_bytes();
        for row in 0..500 {
            bytes.extend(format!("{} ", names(row)).bytes());
            features.row(row).iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            bytes.extend(end);
        }
        bytes
    };
    let own = |row: usize| features.names[row].clone();
    same(&opened(&folder.holding(file(b"\n", &own))), &features);
    let error = folder.refuses(file(b"", &own));
    assert!(error.contains("row ") && error.contains("byte ") && error.contains("hint: "), "{error}");
    // Without spaces both forms are read, and a missing line end is noticed.
    let plain = |row: usize| features.names[row].replace(' ', "_");
    let joined = Features { names: (0..500).map(plain).collect(), ..features.clone() };
    for end in [&b""[..], b"\n"] {
        same(&opened(&folder.holding(file(end, &plain))), &joined);
    }
    let mut cut = file(b"\n", &plain);
    let at = cut.len() / 2;
    cut.drain(at..at + 3);
    assert!(folder.refuses(cut).contains("hint: "));
}

#[test]
fn tables_that_do_not_fit_into_memory_are_refused_before_they_are_read() {
    let folder = Folder::new();
    let error = fits_within(1000, 300, 1_000_000).unwrap_err().to_string();
    assert!(error.contains("1000 rows of 300 values take 1200000 bytes") && error.contains("hint: "), "{error}");
    assert!(fits_within(usize::MAX, 300, u64::MAX).unwrap_err().to_string().contains("more than any machine has"));
    // The length of a compressed file says nothing.
    for first in ["4000000000000 300\n", "9000000000000000000 300\n"] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(first.as_bytes()).unwrap();
        let row: String = (0..300).map(|i| format!(" 0.{i}")).collect();
        gzip.write_all(format!("a{row}\n").as_bytes()).unwrap();
        let error = folder.refuses(gzip.finish().unwrap());
        assert!(error.contains("take ") && error.contains("of memory"), "{error}");
    }
}

#[test]
#[cfg(unix)]
fn pipes_and_devices_are_no_files_of_vectors() {
    let folder = Folder::new();
    let pipe = folder.at("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for (path, kind) in [(pipe.as_path(), "a named pipe"), (Path::new("/dev/zero"), "a device")] {
        for error in [open(path).err(), look(path).err(), fasttext::open(path).err()] {
            let error = error.expect("this is not a file");
            assert!(error.exit_code() == 2 && error.to_string().contains(kind), "{error}");
        }
    }
}

#[test]
fn vectors_in_other_packings_are_read() {
    let folder = Folder::new();
    let whole = b"2 2\na 1 -2.5\nb 0.25 4\n";
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd::encode_all(&whole[..], 1).unwrap()].concat();
    assert_eq!(opened(&folder.holding(skipped)).features().unwrap().rows, [1.0, -2.5, 0.25, 4.0]);
}
