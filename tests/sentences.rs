//! Sentences from a user's view: training on a file of pairs, using the run, exporting it, evaluating it; and what is refused.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn ctk(at: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(arguments.split(' ')).output().expect("ctk starts")
}

/// Runs and expects success; stdout as JSON, if it is JSON, and stderr.
fn said(at: &Path, arguments: &str) -> (Value, String) {
    let output = ctk(at, arguments);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{arguments}\n{stderr}");
    (serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_default(), stderr)
}

/// Runs and expects an error: 2 for a mistake of the user, 1 for data that is wrong.
fn fails(at: &Path, arguments: &str, parts: &[&str]) {
    let output = ctk(at, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments}: `{part}` is missing in:\n{stderr}");
    }
}

const THINGS: [&str; 8] = ["river", "mountain", "engine", "violin", "lemon", "castle", "planet", "needle"];
const WAYS: [&str; 6] = ["old", "quiet", "broken", "bright", "heavy", "hidden"];

/// Pairs that belong together by two words, in other sentences.
fn pairs() -> String {
    let mut text = String::from("question\tanswer\n");
    for thing in THINGS {
        for way in WAYS {
            writeln!(text, "where is the {way} {thing} now?\tthey say that the {thing} is {way} and far away").unwrap();
        }
    }
    text
}

const STATIC: &str = "[encoder.static]\nwidth = 16\n[tokenizer.train]\nsize = 300\n[optimizer.adamw]\nrate = 0.05\n\
    [train]\nepochs = 8\nbatch = 16\nseed = 3\n";

const TRANSFORMER: &str = "[encoder.transformer]\nlayers = 1\nwidth = 16\nheads = 2\npositions = 40\n[tokenizer]\nlongest = 16\n\
    [tokenizer.train]\nsize = 300\n[optimizer.adamw]\nrate = 3e-3\n[train]\nepochs = 2\nbatch = 16\n";

#[test]
fn a_run_embeds_texts_is_exported_and_opens_again_with_the_same_features() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("my pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("texts.txt"), "the old river\na castle\nnothing known: zzzz\n").unwrap();
    for (name, recipe) in [("static", STATIC), ("transformer", TRANSFORMER)] {
        fs::write(at.join(format!("{name}.toml")), format!("[data]\npath = \"my pairs.tsv\"\ndev_share = 0.2\n{recipe}"))
            .unwrap();
        let (figures, stderr) = said(at, &format!("train sentences --config {name}.toml --out {name} --json"));
        for part in ["question", "answer", "48 pairs", "held out", "a tokenizer was trained"] {
            assert!(stderr.contains(part), "{name}: {part} is missing in\n{stderr}");
        }
        let recall = figures["dev_recall_at_1"].as_f64().unwrap();
        assert!(name == "transformer" || recall > 0.5, "{name}: {recall}");
        said(at, &format!("export {name} --format sentence-transformers --out {name}-folder --quiet"));
        let rows = |model: &str| {
            let (_, stderr) = said(at, &format!("embed {model} --data texts.txt --out {model}.csv"));
            (fs::read_to_string(at.join(format!("{model}.csv"))).unwrap(), stderr)
        };
        let asked = ctk(at, &format!("neighbors {name} castle --data texts.txt --count 1 --quiet"));
        let asked = String::from_utf8(asked.stdout).unwrap();
        assert!(name == "transformer" || asked.contains("a castle"), "a query is a text: {asked}");
        let (own, _) = rows(name);
        let (exported, _) = rows(&format!("{name}-folder"));
        assert_eq!(own, exported, "{name}");
        assert_eq!(own.lines().count(), 4, "{own}");
        // A new run begins with the folder's weights: with a rate that moves nothing it has the folder's features.
        let init =
            format!("train sentences --init {name}-folder --data texts.txt --out again-{name} --quiet --set train.batch=2");
        said(at, &format!("{init} --set optimizer.adamw.rate=1e-12 --set train.max_steps=1"));
        let (again, _) = rows(&format!("again-{name}"));
        assert_eq!(again, own, "{name}");
    }
}

#[test]
fn encoders_are_judged_by_scored_pairs_and_by_retrieval() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("static.toml"), format!("[data]\npath = \"pairs.tsv\"\n{STATIC}")).unwrap();
    said(at, "train sentences --config static.toml --out run --quiet");
    let mut sts = String::from("set\tscore\tsentence1\tsentence2\n");
    for (number, thing) in THINGS.iter().enumerate() {
        let (near, far) = (["a", "b"][number % 2], THINGS[(number + 3) % 8]);
        writeln!(sts, "{near}\t5\tthe {thing} is old\twhere is the old {thing}\n{near}\t1\tthe {thing} is old\tthe hidden {far}")
            .unwrap();
        writeln!(sts, "{near}\t\tno score\there").unwrap();
    }
    fs::write(at.join("sts.tsv"), sts).unwrap();
    let (found, stderr) = said(at, "eval sts run --pairs sts.tsv --json");
    assert!(found["spearman"].as_f64().unwrap() > 0.8 && found["pairs"] == 16, "{found}");
    assert_eq!(found["sets"].as_array().unwrap().len(), 2);
    assert!(stderr.contains('8') && stderr.contains("score"), "rows without a score are counted: {stderr}");
    let (one, _) = said(at, "eval sts run --pairs sts.tsv --without b --truncate-dim 8 --json --quiet");
    assert!(one["pairs"] == 8 && one["width"] == 8 && one["without"][0] == "b", "{one}");
    fails(at, "eval sts run --pairs sts.tsv --without c", &["--without c", "a, b"]);
    fails(at, "eval sts run --pairs sts.tsv --truncate-dim 17", &["17", "16"]);

    let beir = at.join("beir");
    fs::create_dir_all(beir.join("qrels")).unwrap();
    let (mut corpus, mut queries, mut judged) = (String::new(), String::new(), String::from("query-id\tcorpus-id\tscore\n"));
    for (number, thing) in THINGS.iter().enumerate() {
        writeln!(corpus, "{{\"_id\": \"d{number}\", \"title\": \"\", \"text\": \"they say that the {thing} is quiet\"}}")
            .unwrap();
        writeln!(queries, "{{\"_id\": \"q{number}\", \"text\": \"where is the quiet {thing}\"}}").unwrap();
        writeln!(judged, "q{number}\td{number}\t1").unwrap();
    }
    writeln!(judged, "q0\tnowhere\t1").unwrap();
    fs::write(beir.join("corpus.jsonl"), corpus).unwrap();
    fs::write(beir.join("queries.jsonl"), queries).unwrap();
    fs::write(beir.join("qrels/test.tsv"), judged).unwrap();
    let (found, _) = said(at, "eval retrieval run beir --json");
    assert!(found["first"].as_f64().unwrap() > 0.8 && found["ndcg@10"].as_f64().unwrap() > 0.8, "{found}");
    assert!(found["relevant_missing"] == 1 && found["documents"] == 8 && found["queries"] == 8, "{found}");
    // Word vectors are judged in the same way.
    fs::write(at.join("words.txt"), pairs().repeat(10)).unwrap();
    said(at, "train word2vec --data words.txt --out words --set vocabulary.min_count=1 --set train.epochs=1 --quiet");
    let (found, _) = said(at, "eval sts words --pairs sts.tsv --json --quiet");
    assert!(found["spearman"].is_number(), "{found}");
    fails(at, "eval retrieval run pairs.tsv", &["folder"]);
}

#[test]
fn a_transformer_is_distilled_and_every_verb_takes_the_student() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    let texts: String = THINGS.iter().flat_map(|thing| WAYS.map(|way| format!("the {way} {thing} is here\n"))).collect();
    fs::write(at.join("my texts.txt"), &texts).unwrap();
    fs::write(at.join("data.txt"), &texts).unwrap();
    fs::write(at.join("teacher.toml"), format!("[data]\npath = \"pairs.tsv\"\n{TRANSFORMER}")).unwrap();
    said(at, "train sentences --config teacher.toml --out teacher --quiet");
    said(at, "export teacher --format sentence-transformers --out teacher-folder --quiet");

    // The vocabulary alone, of a run and of its folder.
    let (figures, stderr) = said(at, "distill teacher --width 8 --out one --json");
    assert!(figures["width"] == 8 && figures["steps"] == 0 && figures["frequencies"] == "ranks", "{figures}");
    assert!(stderr.contains("left out of the vocabulary") && stderr.contains("weighted by frequencies"), "{stderr}");
    said(at, "distill teacher-folder --width 8 --out two --quiet");
    let rows = |model: &str| {
        said(at, &format!("embed {model} --data data.txt --out {model}.csv --quiet --force"));
        fs::read_to_string(at.join(format!("{model}.csv"))).unwrap()
    };
    assert_eq!(rows("one"), rows("two"), "a run and its folder are the same teacher");
    said(at, "export one --format sentence-transformers --out one-folder --quiet");
    assert_eq!(rows("one-folder"), rows("one"));
    fs::write(at.join("sts.tsv"), "score\tsentence1\tsentence2\n5\told river\told river here\n1\tlemon\tcastle\n2\ta\tengine\n")
        .unwrap();
    assert!(said(at, "eval sts one --pairs sts.tsv --json --quiet").0["spearman"].is_number());
    // A new run begins with it, by pairs, and with a rate that moves nothing it has its features.
    let init = "train sentences --init one --data pairs.tsv --quiet --set train.batch=16 --set train.max_steps=1 --set optimizer.adamw.rate=1e-12";
    said(at, &format!("{init} --out begun"));
    assert_eq!(rows("begun"), rows("one"));
    fails(at, "embed one --out x.npy", &["no texts of its own", "--data"]);

    // Texts, and the rows that are kept.
    let learn = "distill teacher --width 8 --data data.txt --set task.distill.rows=kept.rows --set data.dev_share=0.2 --batch 8 --epochs 2";
    let (figures, stderr) = said(at, &format!("{learn} --out taught --json"));
    assert!(figures["steps"] == 8 && figures["dev_agreement"].is_number() && figures["frequencies"] == "ranks", "{figures}");
    assert!(stderr.contains("kept.rows") && !stderr.contains("there already"), "{stderr}");
    let (_, stderr) = said(at, &format!("{learn} --out again"));
    assert!(stderr.contains("rows of 48 of 48 texts were there already"), "{stderr}");
    assert_eq!(rows("taught"), rows("again"));
    fs::write(at.join("small.toml"), "[encoder.transformer]\nlayers = 1\nwidth = 8\nheads = 1\npositions = 20\n").unwrap();
    said(at, "distill teacher --student small.toml --data data.txt --epochs 1 --batch 8 --out small --quiet");
    rows("small");

    for (arguments, parts) in [
        ("teacher --width 17", &["--width 17", "16 values"][..]),
        ("one", &["static embedding already"]),
        ("nowhere", &["nowhere"]),
        ("teacher --alpha 0.5", &["--alpha", "texts have no labels"]),
        ("teacher --optimizer sgd", &["--optimizer", "AdamW"]),
        ("teacher --student small.toml", &["needs texts"]),
        ("teacher --student small.toml --width 4", &["--width"]),
        ("teacher --vocabulary nowhere.txt", &["nowhere.txt"]),
        ("teacher --width 8 --data pairs.tsv --set task.distill.rows=kept.rows", &["kept.rows", "other texts"]),
        ("teacher --width 8 --data nowhere.txt", &["nowhere.txt"]),
    ] {
        fails(at, &format!("distill {arguments} --out refused"), parts);
        assert!(!at.join("refused").exists(), "{arguments}: nothing is left behind");
    }
}

#[test]
fn a_tokenizer_is_trained_alone_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    for kind in ["wordpiece", "bpe"] {
        let train = format!("tokenizer train --data pairs.tsv --size 320 --kind {kind} --json --out");
        let (figures, _) = said(at, &format!("{train} {kind}.json"));
        assert!(figures["pieces"].as_u64().unwrap() <= 320, "{figures}");
        said(at, &format!("{train} again.json --quiet"));
        assert_eq!(fs::read(at.join(format!("{kind}.json"))).unwrap(), fs::read(at.join("again.json")).unwrap(), "{kind}");
        fs::remove_file(at.join("again.json")).unwrap();
        let set = format!("--set tokenizer.file={kind}.json --set train.max_steps=1 --set train.batch=8 --quiet --out {kind}");
        said(at, &format!("train sentences --data pairs.tsv {set}"));
    }
    fails(at, "tokenizer train --data pairs.tsv --out bpe.json", &["bpe.json", "--force"]);
    fails(at, "tokenizer train --data nowhere.txt --out x.json", &["nowhere.txt"]);
}

#[test]
fn what_cannot_be_trained_on_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("one.txt"), "a single text\n").unwrap();
    fs::write(at.join("ragged.tsv"), "question\tanswer\na\tb\nc\nd\te\n").unwrap();
    fs::write(at.join("scored.tsv"), "sentence1\tsentence2\tscore\na b\tc d\t1.5\ne f\tg h\tnan\n").unwrap();
    fs::write(at.join("sound.tsv"), "sentence1\tsentence2\tscore\na b\tc d\t1.5\ne f\tg h\t2\n").unwrap();
    for (arguments, parts) in [
        ("--data one.txt", &["one", "at least two"][..]),
        ("--data ragged.tsv", &["ragged.tsv", "line 3"]),
        ("--data scored.tsv", &["scored.tsv", "line 3", "nan"]),
        ("--data sound.tsv", &["[loss.ranking]", "[loss.cosent]"]),
        ("--data pairs.tsv --set loss={cosent={}}", &["[loss.cosent] needs a score"]),
        ("--data pairs.tsv --set loss={supcon={}}", &["[loss.supcon] needs a class"]),
        ("--data pairs.tsv --set loss={mse={}}", &["loss.mse", "teacher"]),
        ("--data pairs.tsv --set train.batch=1", &["train.batch"]),
        ("--data pairs.tsv --set encoder={transformer={width=10,heads=3}}", &["encoder.transformer.heads", "10"]),
        ("--data pairs.tsv --set checkpoint.keep_best=true", &["checkpoint.keep_best", "data.dev"]),
        ("--data pairs.tsv --set tokenizer.longest=2", &["tokenizer.longest"]),
        ("--data pairs.tsv --set encoder={static={widht=3}}", &["did you mean `width`?"]),
        ("--data pairs.tsv --set encoder={static={weights=\"nowhere\"}}", &["nowhere"]),
        ("--data nowhere.tsv", &["nowhere.tsv"]),
    ] {
        fails(at, &format!("train sentences {arguments} --out run"), parts);
        assert!(!at.join("run").exists(), "{arguments}: nothing is left behind");
    }
    said(at, "train sentences --data sound.tsv --set loss={cosent={}} --set train.batch=2 --out scored --quiet");
    let (own, _) = said(at, "embed scored --out x.npy --json --quiet");
    assert_eq!(own["rows"], 4, "the run's own texts");
    let (geometry, _) = said(at, "eval geometry scored --json --quiet");
    assert!(geometry["alignment"].is_number(), "{geometry}");
    fails(at, "predict scored --data pairs.tsv", &["no classifier"]);
}
