//! Opens ctk's exports with the programs that they are for: gensim, fastText, sentence-transformers, spaCy; torchvision, timm, transformers
//! (`resnets`, `vits`), open_clip (`vits`); sentence-transformers, transformers, model2vec (`sentences`); text towers of transformers and open_clip
//! (`towers`), and whole CLIP and SigLIP models (`pairs`). Each must get the vectors that ctk reports.
//!
//!     python3 -m venv venv && venv/bin/pip install -r tests/python/requirements.txt
//!     CTK_PYTHON=venv/bin/python cargo test --test clients -- --ignored

#[path = "clients/pairs.rs"]
mod pairs;
#[path = "clients/resnets.rs"]
mod resnets;
#[path = "clients/sentences.rs"]
mod sentences;
#[path = "clients/towers.rs"]
mod towers;
#[path = "clients/vits.rs"]
mod vits;

use std::path::{Path, PathBuf};
use std::process::Command;

use ctk_text::fasttext;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn ctk(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_ctk")).args(arguments).output().expect("ctk starts");
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The Python interpreter that has the programs.
fn interpreter() -> PathBuf {
    let python = std::env::var("CTK_PYTHON").unwrap_or_else(|_| "python3".into());
    // Relative to the folder in which cargo was started, not to the package.
    std::path::absolute(&python).ok().filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(&python))
}

/// Runs a check of `tests/python/clients_check.py`; returns its output.
fn python(check: &str, path: &Path, expected: &Map<String, Value>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("expected.json");
    std::fs::write(&file, serde_json::to_vec(expected).unwrap()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/clients_check.py");
    let output = Command::new(interpreter()).arg(script).arg(check).arg(path).arg(file).output().expect("python starts");
    assert!(output.status.success(), "{check}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A run on a few words, some beyond ASCII.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new(set: &[&str]) -> Run {
        let run = Run { folder: tempfile::tempdir().unwrap() };
        let (text, out) = (run.file("text.txt"), run.file("run"));
        let line =
            |i: usize| format!("the größte House {} of 日本 has naïve number{} x👍🏽y , and a dog", ["is", "was"][i % 2], i % 9);
        std::fs::write(&text, (0..3000).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let mut arguments = vec!["train", "word2vec", "--quiet", "--data", &text, "--out", &out];
        arguments.extend(["--set", "pairs.subsample=0", "--set", "pairs.window=2", "--set", "train.epochs=5"]);
        arguments.extend(set.iter().flat_map(|set| ["--set", set]));
        ctk(&arguments);
        run
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    fn export(&self, format: &str, name: &str) -> PathBuf {
        let out = self.file(name);
        ctk(&["export", &self.file("run"), "--format", format, "--out", &out]);
        PathBuf::from(out)
    }

    /// The words and their vectors, from the text export.
    fn vectors(&self) -> Map<String, Value> {
        let text = std::fs::read_to_string(self.export("word2vec-text", "v.txt")).unwrap();
        let rows = text.lines().skip(1).map(|line| {
            let mut fields = line.split(' ');
            let word = fields.next().unwrap().to_string();
            // Parsed as f32, then converted to f64 without loss.
            (word, json!(fields.map(|value| f64::from(value.parse::<f32>().unwrap())).collect::<Vec<_>>()))
        });
        let rows: Map<String, Value> = rows.collect();
        assert!(rows.len() > 20 && rows.contains_key("größte"), "{:?}", rows.keys());
        rows
    }
}

fn floats(vector: &Value) -> Vec<f64> {
    vector.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn near(what: &str, ours: &[f32], theirs: &[f64]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let off = ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-6, "{what}: off by {off}");
}

const SUBWORDS: [&str; 4] =
    ["encoder.subwords.width=12", "encoder.subwords.min=2", "encoder.subwords.max=4", "encoder.subwords.buckets=3000"];

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn gensim_reads_text_and_binary() {
    for set in [&["encoder.table.width=12"][..], &SUBWORDS] {
        let run = Run::new(set);
        run.export("word2vec-binary", "v.bin");
        let expected = run.vectors();
        python("gensim-word2vec", Path::new(&run.file("v")), &expected);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn fasttext_and_gensim_open_our_models_and_gensim_trains_on() {
    let with = |more: &[&'static str]| [&SUBWORDS[..], more].concat();
    for set in
        [with(&[]), with(&["pairs.architecture=cbow"]), with(&["loss.hierarchical-softmax={}"]), vec!["encoder.table.width=12"]]
    {
        let run = Run::new(&set);
        let path = run.export("fasttext", "m.bin");
        let model = fasttext::open(&path).unwrap();
        // The file and the run give the same vectors of known words.
        let seen = run.vectors();
        seen.iter().for_each(|(word, vector)| near(word, &model.vectors.vector(word), &floats(vector)));
        let mut expected = seen.clone();
        for word in ["größer", "日", "houses", "unseen", "👍"] {
            assert!(!seen.contains_key(word));
            expected.insert(word.to_string(), json!(model.vectors.vector(word)));
        }
        if model.args.loss == fasttext::Loss::HierarchicalSoftmax {
            std::fs::copy(run.file("text.txt"), run.file("m.bin.text")).unwrap();
        }
        python("fasttext-wheel", &path, &expected);
        python("gensim-fasttext", &path, &expected);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn we_open_fasttexts_models() {
    let folder = tempfile::tempdir().unwrap();
    let made: Map<String, Value> =
        serde_json::from_str(&python("fasttext-makes", &folder.path().join("m"), &Map::new())).unwrap();
    assert_eq!(made.len(), 5);
    for (name, vectors) in &made {
        let model = fasttext::open(&folder.path().join(format!("m.{name}.bin"))).unwrap();
        let vectors = vectors.as_object().unwrap();
        assert!(vectors.len() > 15);
        vectors.iter().for_each(|(word, vector)| near(&format!("{name}: {word}"), &model.vectors.vector(word), &floats(vector)));
        assert_eq!(model.labels.len(), if ["classes", "words beside labels"].contains(&name.as_str()) { 2 } else { 0 });
    }
    let error = fasttext::open(&folder.path().join("m.quantised.bin")).unwrap_err();
    assert!(error.to_string().contains("quantised"), "{error}");
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn sentence_transformers_opens_a_folder() {
    for set in [vec!["encoder.table.width=12", "data.lowercase=true", "data.tokens=words"], SUBWORDS.to_vec()] {
        let run = Run::new(&set);
        let vectors = run.vectors();
        let width = floats(&vectors["dog"]).len();
        let mut expected = Map::new();
        for text in ["dog", "the größte dog", "the zzz dog", "zzz", "a dog, 日本 naïve", "a a dog"] {
            // Words are separated by spaces, so that all tokenizers agree, except about the comma.
            let comma = text.replace(',', if set.len() == 3 { " ," } else { "," });
            let words: Vec<&str> = comma.split(' ').collect();
            let mut mean = vec![0.0; width];
            for vector in words.iter().filter_map(|&word| vectors.get(word)) {
                mean.iter_mut().zip(floats(vector)).for_each(|(mean, value)| *mean += value / words.len() as f64);
            }
            expected.insert(text.to_string(), json!(mean));
        }
        if set.len() == 3 {
            expected.insert("THE Größte DOG".to_string(), expected["the größte dog"].clone());
        }
        python("sentence-transformers", &run.export("static-embedding", "folder"), &expected);
    }
}

#[test]
#[ignore = "needs python with tests/python/requirements.txt; CTK_PYTHON names the interpreter"]
fn spacy_takes_the_text_form() {
    let run = Run::new(&["encoder.table.width=12"]);
    let expected = run.vectors();
    python("spacy", Path::new(&run.file("v")), &expected);
}
