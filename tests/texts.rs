//! Texts and word vectors from a user's view: later texts are processed like a run's own text, and notes say what was left out, guessed or
//! refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; returns stdout's last line as JSON, if it is JSON, and stderr.
fn said(folder: &Path, arguments: &[&str]) -> (Value, String) {
    let output = ctk(folder, arguments);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    (serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_default(), stderr)
}

/// Runs and expects `code`; returns stderr.
fn fails(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    stderr
}

/// Trains on `text` with `set`; returns stderr.
fn trained(folder: &Path, text: &[u8], set: &[&str]) -> String {
    fs::write(folder.join("text.txt"), text).unwrap();
    let all = ["encoder.table.width=8", "train.epochs=2", "pairs.subsample=0", "vocabulary.min_count=2"];
    let set = all.iter().chain(set).flat_map(|set| ["--set", set]);
    let arguments = ["train", "word2vec", "--data", "text.txt", "--out", "run", "--json"];
    said(folder, &arguments.into_iter().chain(set).collect::<Vec<_>>()).1
}

/// Rows of the features of `lines`.
fn rows(folder: &Path, lines: &str) -> (Vec<Vec<f64>>, String) {
    fs::write(folder.join("list.txt"), lines).unwrap();
    let (_, stderr) = said(folder, &["embed", "run", "--data", "list.txt", "--out", "f.csv", "--force", "--json"]);
    let table = fs::read_to_string(folder.join("f.csv")).unwrap();
    let row = |line: &str| line.split(',').filter_map(|cell| cell.parse().ok()).collect();
    (table.lines().skip(1).map(row).collect(), stderr)
}

#[test]
fn phrases_case_and_normal_form_hold_wherever_words_are_asked_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let line = |i: usize| match i % 8 {
        0 => "the New York caf\u{e9} is big in town\n".to_string(),
        _ => format!("the {} caf\u{e9} is {} in town\n", ["red", "blue"][i % 2], ["big", "small"][i % 3 / 2]),
    };
    let text: String = (0..400).map(line).collect();
    let phrases = ["vocabulary.phrases.passes=1", "vocabulary.phrases.threshold=20.0", "vocabulary.phrases.joiner=+"];
    trained(at, text.as_bytes(), &[&phrases[..], &["data.lowercase=true", "data.normalise=nfc"]].concat());
    let checkpoint = checkpoint(&at.join("run"));
    let words = fs::read_to_string(checkpoint.join("vocabulary.tsv")).unwrap();
    assert!(words.contains("new+york\t50\n") && !words.contains("new\t"), "{words}");
    assert_eq!(fs::read_to_string(checkpoint.join("phrases.tsv")).unwrap(), "pass\tfirst\tsecond\t+\n0\tnew\tyork\n");
    let json = |word: &str| said(at, &["neighbors", "run", word, "--count", "3", "--json"]).0[word].clone();
    assert!(json("new+york").is_array());
    for spelling in ["new york", "New York", "NEW YORK", "new  york"] {
        assert_eq!(json(spelling), json("new+york"), "{spelling}");
    }
    assert_eq!(json("CAFE\u{301}"), json("caf\u{e9}"), "another normal form");
    let (found, stderr) = rows(at, "New York\nnew+york\ncafe\u{301}\ncaf\u{e9}\n");
    assert!(found[0] == found[1] && found[2] == found[3] && found.iter().all(|row| row.iter().any(|v| *v != 0.0)), "{found:?}");
    assert!(!stderr.contains("zeros"), "{stderr}");
    let (_, stderr) = rows(at, "New York\nnobody knows\n");
    assert!(stderr.contains("no word has a vector") && stderr.contains("1 of 2"), "{stderr}");
    fs::write(at.join("pairs.tsv"), "New York\tcafe\u{301}\t5\nred\tblue\t3\nred\tcaf\u{e9}\t1\n").unwrap();
    let (found, _) = said(at, &["eval", "similarity", "run", "--pairs", "pairs.tsv", "--json"]);
    assert_eq!((found["pairs"].as_u64(), found["missing"].as_u64()), (Some(3), Some(0)), "{found}");
    fs::write(at.join("sets.csv"), "place,New York\nplace,Town\ncolour,Red\ncolour,Blue\n").unwrap();
    let (found, _) = said(at, &["eval", "categorize", "run", "sets.csv", "--json"]);
    assert_eq!((found["sets"][0]["words"].as_u64(), found["sets"][0]["missing"].as_u64()), (Some(4), Some(0)), "{found}");
    // An exported folder cannot join them, and a note says so.
    let (_, stderr) = said(at, &["export", "run", "--format", "static-embedding", "--out", "m"]);
    assert!(stderr.contains("phrases") && stderr.contains("ctk embed"), "{stderr}");
}

#[test]
fn a_run_that_begins_with_another_joins_its_phrases() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let line = |i: usize, verb: &str| match i % 8 {
        0 => format!("the New York house {verb} big in town\n"),
        _ => format!("the {} house {verb} {} in town\n", ["red", "blue"][i % 2], ["big", "small"][i % 3 / 2]),
    };
    let text = |verb: &str| -> String { (0..400).map(|i| line(i, verb)).collect() };
    let phrases = ["vocabulary.phrases.passes=1", "vocabulary.phrases.threshold=20.0"];
    trained(at, text("is").as_bytes(), &[&phrases[..], &["data.lowercase=true"]].concat());
    fs::rename(at.join("run"), at.join("first")).unwrap();
    let first = fs::read_to_string(checkpoint(&at.join("first")).join("phrases.tsv")).unwrap();
    assert_eq!(first, "pass\tfirst\tsecond\t_\n0\tnew\tyork\n");

    let begun = ["train.init=first", "checkpoint.every=1 epoch"];
    let stderr = trained(at, text("stands").as_bytes(), &[&begun[..], &["data.lowercase=true"]].concat());
    assert!(stderr.contains("first that are joined in this text: 1\n") && !stderr.contains("was trained with"), "{stderr}");
    let newest = checkpoint(&at.join("run"));
    let words = fs::read_to_string(newest.join("vocabulary.tsv")).unwrap();
    assert!(words.contains("new_york\t50\n") && words.contains("stands\t"), "{words}");
    assert_eq!(fs::read_to_string(newest.join("phrases.tsv")).unwrap(), first);
    // The same holds for a resumed run.
    fs::remove_dir_all(&newest).unwrap();
    said(at, &["train", "word2vec", "--resume", "run", "--threads", "1", "--json"]);
    assert_eq!(checkpoint(&at.join("run")), newest);
    assert_eq!(fs::read_to_string(newest.join("phrases.tsv")).unwrap(), first);
    assert_eq!(fs::read_to_string(newest.join("vocabulary.tsv")).unwrap(), words);

    // Its own phrases are found on request, and another case is noted.
    fs::remove_dir_all(at.join("run")).unwrap();
    let stderr = trained(at, text("stands").as_bytes(), &[&phrases[..], &["train.init=first"]].concat());
    assert!(stderr.contains("first that are not joined in this text: 1\n"), "{stderr}");
    assert!(stderr.contains("first was trained with data.lowercase = true, and this text is read with false"), "{stderr}");
}

/// The newest checkpoint of a run.
fn checkpoint(run: &Path) -> PathBuf {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let steps = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<usize>().ok());
    run.join("checkpoints").join(steps.max().expect("there is a checkpoint").to_string())
}

#[test]
fn glue_tables_and_csv_files_are_judged_by_the_right_columns() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let text: String = (0..300).map(|i| format!("a {} film {}\n", ["good", "bad"][i % 2], ["nice", "poor"][i % 2])).collect();
    trained(at, text.as_bytes(), &[]);
    let line = |i: usize| (format!("a {} film number{i} {}", ["good", "bad"][i % 2], ["nice", "poor"][i % 2]), i % 2);
    let sst: String = (0..60).map(line).map(|(text, label)| format!("{text} \t{label}\n")).collect();
    let csv: String = (0..60).map(line).map(|(text, label)| format!("\"{text}, \"\"yes\"\"\",{label}\n")).collect();
    for (name, content, noted) in [
        ("glue.tsv", format!("sentence\tlabel\n{sst}"), false),
        ("bare.tsv", sst, true),
        ("imdb.csv", format!("review,sentiment\n{csv}"), false),
    ] {
        fs::write(at.join(name), content).unwrap();
        let (found, stderr) = said(at, &["eval", "text-classification", "run", name, "--json"]);
        assert_eq!((found["classes"].as_u64(), found["accuracy"].as_f64()), (Some(2), Some(1.0)), "{name}: {found}");
        assert!(found.get("notes").is_none(), "{found}");
        assert_eq!(stderr.contains("note: the label is the last column"), noted, "{name}: {stderr}");
    }
}

#[test]
fn texts_in_other_encodings_are_read_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let text: String =
        (0..200).map(|i| format!("наш {} дом стоит {}\n", ["большой", "малый"][i % 2], ["тут", "там"][i % 2])).collect();
    let utf_16: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let stderr = trained(at, &utf_16, &[]);
    assert!(stderr.contains("read as UTF-16BE, known by its zero bytes"), "{stderr}");
    assert!(said(at, &["neighbors", "run", "дом", "--json"]).0["дом"].is_array());
    fs::write(at.join("text.txt"), b"caf\xe9 noir\n").unwrap();
    let error = fails(at, 1, &["train", "word2vec", "--data", "text.txt", "--out", "other", "--quiet"]);
    assert!(error.contains("not UTF-8") && error.contains("data.encoding = \"windows-1252\""), "{error}");
    let error = fails(at, 2, &["train", "word2vec", "--data", "text.txt", "--out", "other", "--set", "data.encoding=latin-99"]);
    assert!(error.contains("`latin-99` is not an encoding") && error.contains("data.encoding"), "{error}");
    assert!(!at.join("other").exists());
}

#[test]
fn words_of_an_earlier_run_that_the_text_lacks_go_into_a_model_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    trained(at, "one two three four\n".repeat(50).as_bytes(), &[]);
    fs::rename(at.join("run"), at.join("first")).unwrap();
    fs::write(at.join("more.txt"), "one five\n".repeat(50)).unwrap();
    let set = ["encoder.table.width=8", "train.epochs=1", "pairs.subsample=0"].map(|set| ["--set", set]).concat();
    let train = ["train", "word2vec", "--init", "first", "--data", "more.txt", "--out", "run", "--quiet"];
    said(at, &[&train[..], &set].concat());
    let (_, stderr) = said(at, &["export", "run", "--format", "fasttext", "--out", "m.bin"]);
    assert!(stderr.contains("as if they occurred once: 3"), "{stderr}");
    let ask = |from: &str| said(at, &["neighbors", from, "two", "--json"]).0;
    assert_eq!(ask("run"), ask("m.bin"));
    let error = fails(at, 2, &["export", "run", "--format", "safetensors", "--out", "words.tsv"]);
    assert!(error.contains("the same name") && !at.join("words.tsv").exists(), "{error}");
}

#[test]
#[cfg(unix)]
fn pipes_are_refused_wherever_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    trained(at, "one two three four\n".repeat(50).as_bytes(), &[]);
    for name in ["pipe", "pipe.csv", "pipe.npy", "pipe.safetensors", "pipe.json"] {
        assert!(Command::new("mkfifo").arg(at.join(name)).status().unwrap().success());
        let embed = ["embed", "run", "--data", name, "--out", "f.npy"];
        for arguments in [&["neighbors", name, "one"][..], &embed, &["train", "word2vec", "--data", name, "--out", "other"]] {
            let error = fails(at, 2, arguments);
            assert!(error.contains("pipe") && error.contains("hint: "), "{arguments:?}: {error}");
        }
    }
    let tokens = ["train", "word2vec", "--data", "text.txt", "--out", "other", "--set", "data.tokens=pipe.json"];
    assert!(fails(at, 2, &tokens).contains("this is a named pipe"));
}
