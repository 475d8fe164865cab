//! Encoders of sentences, both ways: sentence-transformers, transformers and model2vec open ctk's folders, and ctk opens theirs, with the
//! same features.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};

use super::{ctk, floats, interpreter};

/// Runs a check of `tests/python/sentences_check.py`; returns its output.
fn python(check: &str, path: &Path, expected: &Map<String, Value>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("expected.json");
    std::fs::write(&file, serde_json::to_vec(expected).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/sentences_check.py");
    let output = Command::new(interpreter()).arg(script).arg(check).arg(path).arg(file).output().expect("python starts");
    assert!(output.status.success(), "{check}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The features that `ctk embed` gives texts without line ends.
fn embedded(at: &Path, model: &str, texts: &[&str]) -> Vec<Vec<f64>> {
    let (list, out) = (at.join("texts.txt"), at.join("rows.csv"));
    std::fs::write(&list, texts.join("\n")).unwrap();
    let [list, file] = [&list, &out].map(|path| path.to_str().unwrap());
    ctk(&["embed", model, "--data", list, "--out", file, "--quiet", "--force"]);
    let mut reader = csv::Reader::from_path(&out).unwrap();
    let numbers: Vec<usize> = (0..reader.headers().unwrap().len())
        .filter(|&at| reader.headers().unwrap()[at].starts_with(|c: char| c.is_ascii_digit() || c == 'f'))
        .collect();
    let rows: Vec<Vec<f64>> =
        reader.records().map(|row| numbers.iter().map(|&at| row.as_ref().unwrap()[at].parse().unwrap()).collect()).collect();
    assert_eq!(rows.len(), texts.len());
    rows
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn other_programs_open_our_sentences() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let file = |name: &str| at.join(name).to_str().unwrap().to_string();
    for (name, encoder) in [
        ("static", "encoder={static={width=16}}"),
        ("transformer", "encoder={transformer={layers=2,width=16,heads=2,positions=40}}"),
    ] {
        let out = file(name);
        let mut train = vec!["train", "sentences", "--quiet", "--out", &out];
        for set in [encoder, "data.pairs=300", "train.batch=32", "tokenizer.train.size=400"] {
            train.extend(["--set", set]);
        }
        ctk(&train);
        let exported = file(&format!("{name}-folder"));
        ctk(&["export", &file(name), "--format", "sentence-transformers", "--out", &exported, "--quiet"]);
        let texts = ["the mayor of paris", "a dog and a castle", "it is very cold", &"the king and the queen ".repeat(20)];
        let rows = embedded(at, &file(name), &texts);
        let expected = texts.iter().zip(rows).map(|(text, row)| (text.trim().to_string(), json!(row))).collect();
        python("opens", Path::new(&exported), &expected);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn we_open_the_sentences_of_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let made: Map<String, Value> = serde_json::from_str(&python("makes", &folder.path().join("m"), &Map::new())).unwrap();
    assert_eq!(made.len(), 3);
    for (model, rows) in &made {
        let texts: Vec<&str> = rows.as_object().unwrap().keys().map(String::as_str).collect();
        for (row, (text, expected)) in embedded(folder.path(), model, &texts).iter().zip(rows.as_object().unwrap()) {
            let off = row.iter().zip(floats(expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(row.len() == floats(expected).len() && off < 1e-4, "{model}: {text}: off by {off:e}");
        }
    }
}
