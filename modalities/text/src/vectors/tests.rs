//! Tests of every format: files are read as they were written, every damage is refused, and other programs' files are read.

mod odd;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ctk_core::device::with_threads;
use ctk_core::eval::{Features, neighbors};

use super::*;

fn some() -> Features {
    let names = ["the", "naïve", "Ġx", "1984"].map(str::to_string).to_vec();
    let rows = (0..12).map(|i| (i as f32 - 5.0) * 0.1).chain([f32::MIN_POSITIVE, 1e30, -0.0, 10.0]).collect();
    Features { rows, width: 4, names, ..Features::default() }
}

/// More rows than a block, a piece or a batch has.
fn many() -> Features {
    let (count, width) = (40_000, 60);
    let rows = (0..count * width).map(|i| (i as f32 * 12.9898).sin() * 43_758.547 % 1.0).collect();
    Features { rows, width, names: (0..count).map(|i| format!("w{i}")).collect(), ..Features::default() }
}

fn same(vectors: &dyn Table, features: &Features) {
    let read = vectors.features().unwrap();
    assert_eq!((read.names, read.width), (features.names.clone(), features.width));
    assert!(
        read.rows.len() == features.rows.len() && read.rows.iter().zip(&features.rows).all(|(a, b)| a.to_bits() == b.to_bits())
    );
}

fn opened(path: &Path) -> WordVectors {
    open(path).unwrap().expect("these are vectors")
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
        std::fs::write(self.at("v"), content).unwrap();
        self.at("v")
    }

    fn refuses(&self, content: impl AsRef<[u8]>) -> String {
        let path = self.holding(content);
        let error = open(&path).expect_err("this is damaged").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        error
    }
}

/// The formats that are read again: all but the folder.
const FILES: [&str; 4] = ["word2vec-text", "word2vec-binary", "glove", "safetensors"];

#[test]
fn every_format_round_trips_every_bit() {
    let folder = Folder::new();
    for features in [some(), many()] {
        let (count, width) = (features.names.len(), features.width);
        for format in FILES {
            // The file's name gives no hint of the format.
            let path = folder.at("vectors");
            write::as_format(&features, format, &path).unwrap();
            let header = Header { words: count, width };
            let expected = match format {
                "word2vec-text" => Format::Text(header),
                "word2vec-binary" => Format::Binary(header),
                "glove" => Format::Glove { width },
                _ => Format::Safetensors,
            };
            assert_eq!(look(&path).unwrap(), Some(expected));
            same(&opened(&path), &features);
        }
    }
}

#[test]
fn a_part_of_a_file_is_read_where_it_lies_by_any_number_of_threads() {
    let folder = Folder::new();
    let (features, path) = (many(), folder.at("v.bin"));
    write::binary(&features, &path).unwrap();
    let vectors = opened(&path);
    assert!(matches!(vectors.values, Values::File { .. }));
    let mut room = vec![7.0; 3];
    for range in [0..0, 17..18, 39_990..40_000, 100..4_000] {
        let expected = &features.rows[range.start * 60..range.end * 60];
        assert_eq!(vectors.block(range, &mut room).unwrap(), expected);
    }
    let near = neighbors(&features, &["w5"], &["w7"], 9).unwrap();
    for threads in [1, 3] {
        assert_eq!(with_threads(threads, || neighbors(&vectors, &["w5"], &["w7"], 9).unwrap()).unwrap(), near);
        write::text(&features, &folder.at("v.txt")).unwrap();
        same(&with_threads(threads, || opened(&folder.at("v.txt"))).unwrap(), &features);
    }
    // The file is cut short while it is open.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1_000_000).unwrap();
    let error = neighbors(&vectors, &["w5"], &[], 9).unwrap_err().to_string();
    assert!(error.contains("byte") && error.contains("meanwhile"), "{error}");
}

#[test]
fn what_other_programs_write_is_read() {
    let folder = Folder::new();
    let expected = |names: &[&str]| Features {
        names: names.iter().map(|n| n.to_string()).collect(),
        rows: [1.0, -2.5, 0.25, 4.0][..2 * names.len()].to_vec(),
        width: 2,
        ..Features::default()
    };
    let reads = |content: &str, names: &[&str]| same(&opened(&folder.holding(content)), &expected(names));
    reads("2 2\na 1 -2.5\nb 0.25 4\n", &["a", "b"]);
    reads("2 2\na 1 -2.5 \nb 2.5e-1 4.000 ", &["a", "b"]); // fastText's space at the end, no last line's end
    reads("\u{feff}2 2\r\na\t1\t-2.5\r\nb\t0.25\t4\r\n\r\n", &["a", "b"]);
    reads("a 1 -2.5\nb 0.25 4", &["a", "b"]);
    reads("\u{feff}a 1 -2.5\n", &["a"]);
    reads("1984 1 -2.5\n7 0.25 4\n", &["1984", "7"]);
    // glove.840B has such words; of Unicode's white space only ASCII's separates fields.
    reads(". . . 1 -2.5\nat name@domain.com 0.25 4\n", &[". . .", "at name@domain.com"]);
    reads("2 2\na\u{a0}b 1 -2.5\n\u{2028} 0.25 4\n", &["a\u{a0}b", "\u{2028}"]);

    let row = |word: &str, values: [f32; 2]| [word.as_bytes(), b" ", &values.map(f32::to_le_bytes).concat()].concat();
    let (a, b) = (row("a", [1.0, -2.5]), row("Новый_Йорк", [0.25, 4.0]));
    let names = ["a", "Новый_Йорк"];
    for (between, end) in [(&b""[..], &b""[..]), (b"\n", b"\n"), (b"\n", b"")] {
        let content = [b"2 2\n", &a[..], between, &b, end].concat();
        same(&opened(&folder.holding(&content)), &expected(&names));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        same(&opened(&folder.holding(gzip.finish().unwrap())), &expected(&names));
    }
    let text = zstd::encode_all(&b"2 2\na 1 -2.5\nb 0.25 4\n"[..], 1).unwrap();
    same(&opened(&folder.holding(text)), &expected(&["a", "b"]));
    // Rows wider than what is inspected.
    let wide = Features {
        names: vec!["w".into()],
        rows: (0..200_000).map(|i| i as f32 / 7.0).collect(),
        width: 200_000,
        ..Features::default()
    };
    write::text(&wide, &folder.at("wide")).unwrap();
    same(&opened(&folder.at("wide")), &wide);
    write::binary(&wide, &folder.at("wide")).unwrap();
    same(&opened(&folder.at("wide")), &wide);
}

#[test]
fn of_equal_words_the_first_counts_and_it_is_said() {
    let folder = Folder::new();
    let twice = Features {
        names: ["a", "b", "a", "c", "b"].map(String::from).to_vec(),
        rows: (0..10).map(|i| i as f32).collect(),
        width: 2,
        ..Features::default()
    };
    let once = Features {
        names: ["a", "b", "c"].map(String::from).to_vec(),
        rows: vec![0.0, 1.0, 2.0, 3.0, 6.0, 7.0],
        width: 2,
        ..Features::default()
    };
    for format in FILES {
        write::as_format(&twice, format, &folder.at("v")).unwrap();
        let vectors = opened(&folder.at("v"));
        same(&vectors, &once);
        assert!(vectors.notes()[0].contains("2 (`a` is the first)"), "{:?}", vectors.notes());
    }
    let vectors = opened(&folder.holding(b"1 1\n\xffx 5\n"));
    assert_eq!(vectors.name(0), "\u{fffd}x");
    assert!(vectors.notes()[0].contains("UTF-8"));
}

#[test]
fn damaged_text_is_refused_with_its_line() {
    let folder = Folder::new();
    for (content, parts) in [
        ("2 2\na 1 2\nb 1\n", &["line 3", "1 values, expected 2"][..]),
        ("2 2\na 1 2\nb 1 x\n", &["line 3", "`x` is not a number", "`b`"]),
        ("2 2\na 1 x\nb 1 2\n", &["line 2", "`x` is not a number", "`a`"]),
        ("2 2\na 1 2\nb 1 2 3\n", &["line 3", "more than 2"]),
        ("a 1 2\nb 1 2\nc 1 y\n", &["line 3", "`y`", "`c`"]),
        ("3 2\na 1 2\nb 1 2\n", &["says 3 words", "has 2"]),
        ("1 2\na 1 2\nb 1 2\n", &["says 1 words", "has 2"]),
        ("2 2\na 1 2\nb nan 2\n", &["line 3", "`b`", "NaN", "hint: "]),
        ("2 2\na 1 2\nb 1 -1e39\n", &["line 3", "`b`", "-inf"]),
        ("2 2\na 1 2\n 1 2\n", &["line 3", "expected 2"]),
        ("0 5\n", &["no row"]),
        ("5 0\n", &["5 words of 0 values"]),
        ("99999999999999999999999 5\na 1\n", &["announces", "hint: "]),
        ("3 18446744073709551615\na 1\n", &["announces", "hint: "]),
        ("9000000000000000000 300\na 1 2 3\n", &["announces 9000000000000000000 words", "hint: "]),
        ("4000000000 1000000\na 1 2 3\n", &["announces", "hint: "]),
    ] {
        let error = folder.refuses(content);
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is missing in:\n{error}"));
    }
}

#[test]
fn damaged_binary_is_refused_with_its_byte() {
    let folder = Folder::new();
    write::binary(&some(), &folder.at("whole")).unwrap();
    let whole = std::fs::read(folder.at("whole")).unwrap();
    // Cut at any byte.
    for length in 5..whole.len() - 1 {
        let error = folder.refuses(&whole[..length]);
        assert!(error.contains("hint: ") || error.contains("no row"), "{length}: {error}");
    }
    let changed = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|w| w == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    let error = folder.refuses(changed(&10f32.to_le_bytes(), &f32::NAN.to_le_bytes()));
    assert!(error.contains("`1984` is NaN") && error.contains("row 4 of 4"), "{error}");
    let error = folder.refuses(changed(&1e30f32.to_le_bytes(), &f32::NEG_INFINITY.to_le_bytes()));
    assert!(error.contains("`1984` is -inf"), "{error}");
    let error = folder.refuses(changed(b"4 4\n", b"3 4\n"));
    assert!(error.contains("continues after the 3 words"), "{error}");
    for (count, width) in [("5", "4"), ("4000000000000000000", "4"), ("4", "1000000"), ("18446744073709551616", "4")] {
        let error = folder.refuses(changed(b"4 4\n", format!("{count} {width}\n").as_bytes()));
        assert!(error.contains(&format!("{count} words of {width}")) || error.contains("last row"), "{error}");
    }
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    };
    folder.refuses(gzip(&whole[..whole.len() - 9]));
    let packed = gzip(&whole);
    folder.refuses(&packed[..packed.len() - 12]);
}

#[test]
fn damaged_tensors_are_refused() {
    let folder = Folder::new();
    let path = folder.at("v.safetensors");
    write::safetensors(&some(), &path).unwrap();
    let (whole, words) = (std::fs::read(&path).unwrap(), std::fs::read(folder.at("v.tsv")).unwrap());
    let refuses = |bytes: &[u8], words: &[u8], part: &str| {
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.at("v.tsv"), words).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains(part), "`{part}` is missing in:\n{error}");
    };
    let with = |from: &str, to: &str| {
        let (header, values) = whole[8..].split_at(u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize);
        let header = std::str::from_utf8(header).unwrap().replace(from, to);
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), values].concat()
    };
    refuses(&whole[..whole.len() - 1], &words, "its header says");
    refuses(&[&u64::from(u32::MAX).to_le_bytes(), &whole[8..]].concat(), &words, "cut short");
    refuses(&with("[4,4]", "[4611686018427387904,4]"), &words, "not a readable");
    refuses(&with("[4,4]", "[16]"), &words, "shape");
    refuses(&with("F32", "I32"), &words, "I32");
    refuses(&with("[0,64]", "[64,0]"), &words, "not a readable");
    refuses(&with("[0,64]", "[0,18446744073709551615]"), &words, "not a readable");
    refuses(&with("input", "weight"), &words, "no word vectors");
    refuses(&whole, b"a\nb\n", "4 rows, but 2 words");
    let at = whole.len() - 4;
    refuses(&[&whole[..at], &f32::NAN.to_le_bytes()].concat(), &words, "`1984` is NaN");
    std::fs::remove_file(folder.at("v.tsv")).unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("v.tsv"));
    // With counts beside the words, and features as from `ctk embed`.
    std::fs::write(&path, &whole).unwrap();
    std::fs::write(folder.at("v.tsv"), "the\t9\nnaïve\t8\nĠx\t7\n1984\t6\n").unwrap();
    same(&opened(&path), &some());
    some().save(&path).unwrap();
    same(&opened(&path), &some());
}

#[test]
fn what_holds_no_vectors_is_told_apart() {
    let folder = Folder::new();
    for content in [&b""[..], b"hello world\n", b"\x89PNG\r\n\x1a\n\0\0", b"[train]\nepochs = 2\n", b"\n\n", b"a\n", &[0; 64]] {
        assert!(open(&folder.holding(content)).unwrap().is_none(), "{:?}", String::from_utf8_lossy(content));
    }
    let error = folder.refuses([&crate::fasttext::MAGIC.to_le_bytes()[..], &12i32.to_le_bytes()].concat());
    assert!(error.contains("fastText") && error.contains("fasttext::open"), "{error}");
    assert!(open(&folder.at("none")).unwrap_err().to_string().contains("none"));
}

#[test]
fn words_that_a_format_cannot_hold_are_refused_before_a_file_is_made() {
    let folder = Folder::new();
    let odd =
        |name: &str| Features { names: vec!["a".into(), name.into()], rows: vec![1.0, 2.0], width: 1, ..Features::default() };
    // A folder for sentence-transformers holds any word.
    let files: Vec<&str> = FORMATS.iter().copied().filter(|format| *format != "static-embedding").collect();
    assert_eq!(files, FILES);
    for (name, formats) in [
        ("new york", &["word2vec-text", "word2vec-binary"][..]),
        ("new\nyork", &files),
        ("", &files),
        ("route 66", &["word2vec-text", "word2vec-binary", "glove"]),
        ("tab\t7", &["word2vec-text", "glove", "safetensors"]),
    ] {
        for format in &files {
            let out = folder.at("out");
            let written = write::as_format(&odd(name), format, &out);
            if formats.contains(format) {
                let error = written.unwrap_err().to_string();
                assert!(error.contains(&name.escape_debug().to_string()) && error.contains("hint: "), "{error}");
                assert!(!out.exists(), "{name:?} as {format}");
            } else {
                written.unwrap();
                same(&opened(&out), &odd(name));
                std::fs::remove_file(out).unwrap();
            }
        }
    }
    assert_eq!(write::as_format(&some(), "csv", &folder.at("out")).unwrap_err().exit_code(), 2);
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn every_set_of_the_word_benchmarks_is_read_whole() {
    use ctk_core::eval::{analogy, similarity};
    let data = PathBuf::from(std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data"));
    let (pairs, others) = similarity::read_all(&data.join("text/word-benchmarks-en")).unwrap();
    let (questions, _) = analogy::read_all(&data.join("text/word-benchmarks-en")).unwrap();
    let named = |name: &str| name.rsplit_once(['/', '\\']).map_or(name, |(_, file)| file).to_string();
    let counts: Vec<(String, usize)> = pairs.iter().map(|set| (named(&set.name), set.questions.len())).collect();
    let expected = [
        ("simlex999.txt", 999),
        ("wordsim353.tsv", 353),
        ("mc-30.csv", 30),
        ("men.csv", 3000),
        ("mturk-287.csv", 287),
        ("mturk-771.csv", 771),
        ("rg-65.csv", 65),
        ("rw.csv", 2034),
        ("semeval17.csv", 500),
        ("simlex999.csv", 999),
        ("simverb-3500.csv", 3500),
        ("verb-143.csv", 130),
        ("wordsim353-rel.csv", 252),
        ("wordsim353-sim.csv", 203),
        ("yp-130.csv", 130),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_string(), count)));
    let men = &pairs[3].questions[0];
    assert_eq!((men.left.as_str(), men.right.as_str(), men.score), ("sun", "sunlight", 50.0));
    let verb = &pairs[10].questions[0];
    assert_eq!((verb.left.as_str(), verb.right.as_str(), verb.score), ("take", "remove", 6.81));
    let counts: Vec<(String, usize, usize)> = questions
        .iter()
        .map(|set| (named(&set.name), set.questions.len(), set.questions.iter().filter(|q| q.syntactic).count()))
        .collect();
    let expected = [
        ("questions-words.txt", 19_544, 10_675),
        ("google-analogies.csv", 19_544, 10_675),
        ("jair.csv", 430, 0),
        ("msr.csv", 8000, 8000),
        ("sat.csv", 5610, 0),
        ("semeval.csv", 10_014, 0),
    ];
    assert_eq!(counts, expected.map(|(name, count, syntactic)| (name.to_string(), count, syntactic)));
    assert_eq!(questions[0].questions, questions[1].questions);
    // Lists of categories and analogies are not pairs.
    assert_eq!(others.len(), 4 + 6);
}

#[test]
#[ignore = "needs python with gensim; CTK_PYTHON names the interpreter"]
fn gensim_reads_both_forms_and_its_own_are_read() {
    let folder = Folder::new();
    let (text, binary) = (folder.at("v.txt"), folder.at("v.bin"));
    write::text(&some(), &text).unwrap();
    write::binary(&some(), &binary).unwrap();
    let script = "import sys, json; from gensim.models import KeyedVectors as K\n\
                  for path, binary in [(sys.argv[1], False), (sys.argv[2], True)]:\n    \
                      k = K.load_word2vec_format(path, binary=binary)\n    \
                      k.save_word2vec_format(path, binary=binary)\n    \
                      print(json.dumps([k.index_to_key, [float(v) for v in k.vectors.reshape(-1)]]))\n";
    let python = std::env::var("CTK_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = std::process::Command::new(python).args(["-c", script]).args([&text, &binary]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(stdout.lines().count(), 2);
    for line in stdout.lines() {
        let (names, rows): (Vec<String>, Vec<f64>) = serde_json::from_str(line).unwrap();
        assert_eq!(names, some().names);
        assert!(rows.iter().zip(&some().rows).all(|(a, b)| *a as f32 == *b), "{rows:?}");
    }
    same(&opened(&text), &some());
    same(&opened(&binary), &some());
}
