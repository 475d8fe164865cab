//! The example works as its chapter says: it trains, goes on to the same bytes, is judged, and what it learns beats raw values and an
//! encoder that took one step.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs the program and expects success; what it printed.
fn timeseries(at: &Path, args: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_timeseries")).current_dir(at).args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "{args}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(at: &Path, args: &str) -> Value {
    serde_json::from_str(&timeseries(at, &format!("{args} --json --quiet"))).unwrap()
}

#[test]
fn it_is_one_file_that_is_read_in_a_few_minutes() {
    assert!(include_str!("../src/main.rs").lines().count() < 150);
}

#[test]
fn learned_features_tell_more_than_raw_values_and_than_one_step() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for seed in 0..3 {
        json(at, &format!("train timeseries --out long-{seed} --set train.seed={seed}"));
        json(at, &format!("train timeseries --out short-{seed} --set train.seed={seed} --set train.max_steps=1"));
        for (judge, margin) in [("linear-probe", 0.0), ("knn", 0.1)] {
            let found = json(at, &format!("eval {judge} long-{seed} --baseline"));
            let (learned, raw) = (found["top1"].as_f64().unwrap(), found["raw_top1"].as_f64().unwrap());
            let short = json(at, &format!("eval {judge} short-{seed}"))["top1"].as_f64().unwrap();
            println!("seed {seed}, {judge}: learned {learned:.3}, one step {short:.3}, raw {raw:.3}");
            assert!(learned > raw + 0.4 && learned >= short + margin, "seed {seed}, {judge}: {learned}, {short}, {raw}");
        }
    }
}

#[test]
fn a_run_that_goes_on_is_the_run_that_was_not_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    json(at, "train timeseries --out whole --set train.max_steps=20");
    json(at, "train timeseries --out parts --set train.max_steps=9");
    json(at, "train timeseries --resume parts --set train.max_steps=20");
    for file in ["model", "head", "trainer"] {
        let bytes = |run: &str| fs::read(at.join(run).join(format!("checkpoints/20/{file}.safetensors"))).unwrap();
        assert_eq!(bytes("whole"), bytes("parts"), "{file}");
    }
}

#[test]
fn a_file_with_classes_or_without_is_read_and_a_bad_row_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let row = |class: &str, i: usize| {
        let values: Vec<String> = (0..80).map(|t| ((t * (1 + i % 2)) as f32 / 7.0).sin().to_string()).collect();
        format!("{class},{}\n", values.join(","))
    };
    let rows = |classes: [&str; 2]| (0..40).map(|i| row(classes[i % 2], i)).collect::<String>();
    fs::write(at.join("named.csv"), rows(["slow", "fast"])).unwrap();
    fs::write(at.join("bare.csv"), rows(["", ""])).unwrap();
    json(at, "train timeseries --data named.csv --out run --set train.max_steps=4");
    let features = json(at, "embed run --data bare.csv --out bare.csv.npy");
    assert!(features["rows"] == 40 && features["width"] == 64, "{features}");
    assert_eq!(json(at, "eval knn run")["classes"], 2);
    assert!(timeseries(at, "config show timeseries --data named.csv").contains("named.csv"));

    fs::write(at.join("bad.csv"), rows(["a", "b"]) + "a,1,x\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_timeseries"))
        .current_dir(at)
        .args(["train", "timeseries", "--data", "bad.csv", "--out", "bad"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("row 41"), "{stderr}");
    assert!(!at.join("bad").exists(), "a mistake leaves no folder");
}
