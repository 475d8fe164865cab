//! Exports that ctk opens again: a run, its files, and its folder say the same of the same words.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

/// Runs and expects success; the last line of stdout as JSON.
fn json(folder: &Path, arguments: &[&str]) -> Value {
    let output = ctk(folder, arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}"))
}

/// Runs and expects `code`; what stderr says.
fn fails(folder: &Path, code: i32, arguments: &[&str]) -> String {
    let output = ctk(folder, arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{stderr}");
    stderr
}

#[test]
fn subwords_answer_for_words_never_seen_and_travel_as_a_fasttext_model() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let line = |i: usize| format!("the {} house of number{} and a dog\n", ["old", "older", "oldest"][i % 3], i % 9);
    fs::write(at.join("text.txt"), (0..1000).map(line).collect::<String>()).unwrap();
    let sizes = ["encoder.subwords.width=10", "encoder.subwords.buckets=500", "train.epochs=3", "pairs.subsample=0"];
    let set = sizes.iter().flat_map(|set| ["--set", set]);
    let arguments = ["train", "word2vec", "--data", "text.txt", "--out", "run", "--quiet", "--json"];
    json(at, &arguments.into_iter().chain(set).collect::<Vec<_>>());

    let export = |from: &str, format: &str, out: &str| {
        let output = ctk(at, &["export", from, "--format", format, "--out", out]);
        assert!(output.status.success(), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    };
    export("run", "fasttext", "m.bin");
    for words in [&["house"][..], &["houses", "olden"]] {
        let ask = |from: &str| json(at, &[&["neighbors", from, "--json"][..], words].concat());
        let (run, file) = (ask("run"), ask("m.bin"));
        assert_eq!(run, file);
        assert_eq!(run.as_object().unwrap().len(), words.len());
    }
    // The same words and rows, from the run and from its file.
    export("run", "word2vec-text", "a.txt");
    export("m.bin", "word2vec-text", "b.txt");
    assert_eq!(fs::read(at.join("a.txt")).unwrap(), fs::read(at.join("b.txt")).unwrap());

    for from in ["run", "m.bin", "a.txt"] {
        let out = format!("{from}-folder");
        export(from, "static-embedding", &out);
        assert!(at.join(&out).join("0_StaticEmbedding/model.safetensors").is_file());
        let again = fails(at, 2, &["export", from, "--format", "static-embedding", "--out", &out]);
        assert!(again.contains("already"), "a folder that is there is not written over: {again}");
    }
    let error = fails(at, 2, &["export", "a.txt", "--format", "fasttext", "--out", "out"]);
    assert!(error.contains("cannot be exported as `fasttext`") && !at.join("out").exists(), "{error}");
    let whole = fs::read(at.join("m.bin")).unwrap();
    fs::write(at.join("half.bin"), &whole[..whole.len() / 2]).unwrap();
    let error = fails(at, 1, &["neighbors", "half.bin", "house"]);
    assert!(error.contains("ends too early") && error.contains("half.bin") && error.contains("hint: "), "{error}");
}
