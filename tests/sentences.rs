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
fn hard_negatives_are_mined_and_trained_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("my pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("static.toml"), format!("[data]\npath = \"my pairs.tsv\"\n{STATIC}")).unwrap();
    said(at, "train sentences --config static.toml --out run --quiet");
    let known: Vec<String> = pairs().lines().skip(1).map(String::from).collect();
    let mine = |more: &str| {
        let mut words = vec!["mine", "run", "--data", "my pairs.tsv"];
        words.extend(more.split(' '));
        let output = Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(words).output().unwrap();
        let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{more}\n{stderr}");
        (serde_json::from_str::<Value>(stdout.lines().last().unwrap_or_default()).unwrap_or_default(), stderr)
    };
    let (found, _) = mine("--negatives 2 --out top.tsv --json --threads 1");
    assert!(
        found["rows"] == 96 && found["anchors"] == 48 && found["candidates"] == 48 && found["anchors_with_fewer"] == 0,
        "{found}"
    );
    assert!(found["mean_positive_cosine"].as_f64() > found["mean_negative_cosine"].as_f64(), "{found}");
    let top = fs::read_to_string(at.join("top.tsv")).unwrap();
    assert!(top.starts_with("anchor\tpositive\tnegative\n") && top.lines().count() == 97, "{top}");
    for line in top.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        assert!(known.contains(&format!("{}\t{}", cells[0], cells[1])), "{line}");
        assert!(!known.contains(&format!("{}\t{}", cells[0], cells[2])), "{line}");
    }
    mine("--negatives 2 --out again.tsv --quiet --threads 2");
    assert_eq!(top, fs::read_to_string(at.join("again.tsv")).unwrap(), "threads change nothing");
    let (tuples, stderr) =
        mine("--negatives 4 --rank 0..9 --margin 0.25 --format n-tuple --sampling random --out some.jsonl --json");
    let short = tuples["anchors_with_fewer"].as_u64().unwrap();
    assert_eq!(tuples["rows"].as_u64().unwrap(), 48 - short, "{tuples}");
    assert!(short == 0 || stderr.contains(&format!("{short} of 48 anchors have fewer than 4 negatives")), "{stderr}");
    assert!(tuples["too_near"].as_u64().unwrap() > 0, "{tuples}");
    said(at, "train sentences --data top.tsv --set train.max_steps=2 --set train.batch=8 --out again --quiet");
    // None is far enough: that is said, and no error.
    let (none, stderr) = mine("--most -0.999 --out none.csv --json");
    assert!(none["rows"] == 0 && none["anchors_without"] == 48 && none["mean_negative_cosine"].is_null(), "{none}");
    assert!(stderr.contains("48 of 48 anchors") && stderr.contains("warning: no row was written"), "{stderr}");
    // Other texts, in a table; a single pair.
    fs::write(at.join("one.tsv"), "the old river\tit is far away\n").unwrap();
    fs::write(at.join("corpus.csv"), "id,passage\n1,the quiet violin\n2,the old river\n3,\"a river, old\"\n").unwrap();
    fails(at, "mine run --data one.tsv --corpus corpus.csv --out x.tsv", &["corpus.csv", "passage"]);
    let (found, _) =
        said(at, "mine run --data one.tsv --corpus corpus.csv --corpus-column passage --negatives 2 --out x.csv --json");
    assert!(found["candidates"] == 3 && found["rows"] == 2, "{found}");
    assert!(!fs::read_to_string(at.join("x.csv")).unwrap().contains(",the old river"), "the anchor's own text");
    fails(at, "mine run --data one.tsv --out x.csv", &["x.csv", "--force"]);
    fails(at, "mine run --data one.tsv --out x.txt", &["x.txt", ".jsonl"]);
    fails(at, "mine run --out y.tsv", &["--data"]);
    fails(at, "mine run --data one.tsv --rank 3..4 --out y.tsv", &["3..4", "3 negatives"]);
    fails(at, "mine run --data one.tsv --rank 4..3 --out y.tsv", &["--rank"]);
    fails(at, "mine run --data corpus.csv --anchor id --positive nothing --out y.tsv", &["nothing", "passage"]);
    fs::write(at.join("lines.jsonl"), "{\"anchor\": \"a\", \"positive\": \"b\\nc\"}\n{\"anchor\": \"d\", \"positive\": \"e\"}\n")
        .unwrap();
    fails(at, "mine run --data lines.jsonl --negatives 1 --out y.tsv", &["line end", ".jsonl"]);
    assert!(!at.join("y.tsv").exists());
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
        (
            "--data pairs.tsv --set loss={moco={matryoshka={widths=[8]}}}",
            &["loss.moco.matryoshka: [loss.moco] has no", "[loss.ranking]"],
        ),
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
