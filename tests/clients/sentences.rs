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

/// A run on generated pairs.
fn trained(at: &Path) -> String {
    let out = at.join("run").to_str().unwrap().to_string();
    let mut train = vec!["train", "sentences", "--quiet", "--out", &out];
    for set in ["encoder={static={width=20}}", "data.pairs=300", "train.batch=32", "tokenizer.train.size=400"] {
        train.extend(["--set", set]);
    }
    ctk(&train);
    out
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn codes_are_those_of_sentence_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let texts = |count: usize, from: usize| {
        (from..from + count).map(|i| format!("the mayor of paris has {i} dogs and {} castles\n", i * 7 % 13)).collect::<String>()
    };
    std::fs::write(at("texts.txt"), texts(150, 0)).unwrap();
    std::fs::write(at("other.txt"), texts(120, 400)).unwrap();
    let embed = |data: &str, out: &str, more: &[&str]| {
        let (data, out) = (at(data), at(out));
        ctk(&[&["embed", &run, "--data", &data, "--out", &out, "--truncate-dim", "13", "--quiet"], more].concat());
    };
    embed("texts.txt", "rows.npy", &[]);
    embed("other.txt", "other.npy", &[]);
    for precision in ["int8", "uint8", "binary", "ubinary"] {
        embed("texts.txt", &format!("{precision}.npy"), &["--precision", precision]);
    }
    embed("texts.txt", "calibrated.npy", &["--precision", "int8", "--calibration", &at("other.txt")]);
    embed("texts.txt", "int8.safetensors", &["--precision", "int8"]);
    python("codes", folder.path(), &Map::new());
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn negatives_are_those_of_sentence_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let out = at("folder");
    ctk(&["export", &run, "--format", "sentence-transformers", "--out", &out, "--quiet"]);
    let mut pairs = String::from("anchor\tpositive\n");
    for (i, thing) in ["river", "castle", "king", "queen", "dog", "mayor", "house", "street"].iter().enumerate() {
        for (j, way) in ["old", "cold", "quiet", "new", "great", "small"].iter().enumerate() {
            pairs +=
                &format!("where is the {way} {thing} number {i}?\tthe {thing} of paris is {way} and has {} dogs\n", i * 7 + j);
        }
    }
    std::fs::write(at("pairs.tsv"), pairs).unwrap();
    let (pairs, mined) = (at("pairs.tsv"), at("mined.tsv"));
    let limits = ["--margin", "0.02", "--relative-margin", "0.05", "--most", "0.95", "--least", "-0.9", "--rank", "2..30"];
    ctk(&[&["mine", &out, "--data", &pairs, "--out", &mined, "--quiet"], &limits[..]].concat());
    python("mined", folder.path(), &Map::new());
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn prompts_are_those_of_sentence_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let out = at("folder");
    ctk(&["export", &run, "--format", "sentence-transformers", "--out", &out, "--quiet"]);
    let path = folder.path().join("folder/config_sentence_transformers.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    settings["prompts"] = json!({ "query": "the king of ", "passage": "a dog and " });
    settings["default_prompt_name"] = "passage".into();
    std::fs::write(&path, settings.to_string()).unwrap();
    let texts = ["paris", "the castle"];
    let behind = |before: &str| texts.map(|text| format!("{before}{text}"));
    let mut expected = Map::new();
    for (name, before) in [("default", "a dog and "), ("passage", "a dog and "), ("query", "the king of ")] {
        // The run has no prompts: its texts are written out.
        let before = behind(before);
        let rows = embedded(folder.path(), &run, &before.each_ref().map(String::as_str));
        expected.insert(name.to_string(), texts.iter().zip(rows).map(|(text, row)| (text.to_string(), json!(row))).collect());
    }
    python("prompts", Path::new(&out), &expected);
}
