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
    fs::write(at.join("words.vec"), "2 2\na 1 0\nb 0 1\n").unwrap();
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
    assert!(stderr.contains("kept.rows") && !stderr.contains("there already") && stderr.contains("ridge regression"), "{stderr}");
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
        ("words.vec", &["words.vec", "no network", "--init"]),
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

/// The bytes of an array in a `.npy` file, behind its header, and the header.
fn array(path: &Path) -> (Vec<u8>, String) {
    let bytes = fs::read(path).unwrap();
    let start = 10 + u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    (bytes[start..].to_vec(), String::from_utf8_lossy(&bytes[10..start]).to_string())
}

#[test]
fn rows_are_cut_and_written_with_fewer_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("texts.txt"), "the old river\na castle\nthe quiet violin\n").unwrap();
    fs::write(at.join("static.toml"), format!("[data]\npath = \"pairs.tsv\"\n{STATIC}")).unwrap();
    said(at, "train sentences --config static.toml --out run --quiet");
    let embed = |more: &str| said(at, &format!("embed run --data texts.txt --json {more}"));
    embed("--out rows.npy");
    let rows: Vec<f32> = array(&at.join("rows.npy")).0.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(rows.len(), 3 * 16);
    let (figures, stderr) = embed("--truncate-dim 9 --precision ubinary --out bits.npy");
    assert!(figures["width"] == 9 && figures["row_bytes"] == 2 && figures["precision"] == "ubinary", "{figures}");
    assert!(stderr.contains("first 9 of 16 values") && stderr.contains("--normalize"), "{stderr}");
    let (bits, header) = array(&at.join("bits.npy"));
    assert!(header.contains("'|u1'") && header.contains("(3, 2)"), "{header}");
    for (row, bits) in rows.chunks(16).zip(bits.chunks(2)) {
        (0..9).for_each(|at| assert_eq!(row[at] > 0.0, bits[at / 8] >> (7 - at % 8) & 1 == 1));
        assert_eq!(bits[1] & 0x7f, 0);
    }
    let (figures, stderr) = embed("--precision int8 --out codes.safetensors");
    assert!(figures["outside"] == 0 && stderr.contains("3 rows only"), "{figures} {stderr}");
    let codes = fs::read(at.join("codes.safetensors")).unwrap();
    let header = String::from_utf8_lossy(&codes).to_string();
    assert!(header.contains("\"I8\"") && header.contains("ranges") && header.contains("[3,16]"), "{header}");
    // Ranges of other texts: some values are outside.
    let (figures, stderr) = embed("--precision uint8 --calibration pairs.tsv --out other.npy");
    assert!(figures["outside"].is_u64() && stderr.contains("49 rows only"), "{figures} {stderr}");
    assert_eq!(array(&at.join("other.npy")).0.len(), 3 * 16);
    embed("--truncate-dim 4 --normalize --out short.npy");
    let short: Vec<f32> = array(&at.join("short.npy")).0.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let length: f32 = rows[..4].iter().map(|v| v * v).sum::<f32>().sqrt();
    assert!(short.len() == 12 && (0..4).all(|at| (short[at] - rows[at] / length).abs() < 1e-6), "{short:?}");
    for (arguments, parts) in [
        ("embed run --data texts.txt --precision int8 --out x.csv", &["x.csv", ".safetensors"][..]),
        ("embed run --data texts.txt --precision int8 --out x.parquet", &["x.parquet", ".npy"]),
        ("embed run --data texts.txt --calibration pairs.tsv --out x.npy", &["--calibration", "int8"]),
        ("embed run --data texts.txt --truncate-dim 17 --out x.npy", &["17", "1 to 16"]),
        ("neighbors bits.npy 0", &["codes", "float32"]),
        ("neighbors codes.safetensors 0", &["codes", "float32"]),
    ] {
        fails(at, arguments, parts);
    }

    let mut sts = String::from("score\tsentence1\tsentence2\n");
    for (number, thing) in THINGS.iter().enumerate() {
        let far = THINGS[(number + 3) % 8];
        writeln!(sts, "5\tthe {thing} is old\twhere is the old {thing}\n1\tthe {thing} is old\tthe hidden {far}").unwrap();
    }
    fs::write(at.join("sts.tsv"), sts).unwrap();
    let (full, _) = said(at, "eval sts run --pairs sts.tsv --json");
    assert!(full.get("full_spearman").is_none() && full.get("loss").is_none(), "{full}");
    for precision in ["int8", "uint8", "binary", "ubinary"] {
        let (found, _) = said(at, &format!("eval sts run --pairs sts.tsv --precision {precision} --json"));
        assert!(found["precision"] == *precision && found["full_spearman"] == full["spearman"], "{found}");
        assert_eq!(found["full_pearson"], full["pearson"]);
        let [now, before, loss] = ["spearman", "full_spearman", "loss"].map(|key| found[key].as_f64().unwrap());
        assert!((before - now - loss).abs() < 1e-12 && loss < 0.3, "{found}");
    }
    let (cut, _) = said(at, "eval sts run --pairs sts.tsv --truncate-dim 4 --precision int8 --json");
    assert!(cut["width"] == 4 && cut["full_spearman"] == full["spearman"] && cut["precision"] == "int8", "{cut}");
}

#[test]
fn prompts_are_put_before_texts_by_name_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("static.toml"), format!("[data]\npath = \"pairs.tsv\"\n{STATIC}")).unwrap();
    said(at, "train sentences --config static.toml --out run --quiet");
    said(at, "export run --format sentence-transformers --out folder --quiet");
    let config = |folder: &str| at.join(folder).join("config_sentence_transformers.json");
    let mut settings: Value = serde_json::from_slice(&fs::read(config("folder")).unwrap()).unwrap();
    assert!(settings["prompts"].as_object().unwrap().is_empty() && settings["default_prompt_name"].is_null());
    settings["prompts"] = serde_json::json!({ "query": "where is ", "passage": "they say that " });
    fs::write(config("folder"), settings.to_string()).unwrap();
    fs::write(at.join("texts.txt"), "the old river\na castle\n").unwrap();
    fs::write(at.join("asked.txt"), "where is the old river\nwhere is a castle\n").unwrap();
    let rows = |arguments: &str| {
        let (figures, stderr) = said(at, &format!("embed {arguments} --out rows.npy --force --json"));
        (array(&at.join("rows.npy")).0, figures, stderr)
    };
    let (plain, figures, stderr) = rows("folder --data texts.txt");
    assert!(stderr.contains("(passage, query)") && figures.get("prompt").is_none(), "{stderr}");
    let (asked, ..) = rows("folder --data asked.txt");
    let (named, figures, stderr) = rows("folder --data texts.txt --prompt query");
    assert!(named == asked && named != plain && figures["prompt"] == "where is ", "{figures}");
    assert!(stderr.contains("`where is ` is put before these texts (2)"), "{stderr}");
    let output = Command::new(env!("CARGO_BIN_EXE_ctk"))
        .current_dir(at)
        .args(["embed", "run", "--data", "texts.txt", "--prompt-text", "where is ", "--out", "rows.npy", "--force"])
        .output()
        .unwrap();
    assert!(output.status.success() && array(&at.join("rows.npy")).0 == asked, "a text of its own, for a run without prompts");
    fails(
        at,
        "embed folder --data texts.txt --prompt question --out x.npy",
        &["`question`", "passage (`they say that `), query"],
    );
    fails(at, "embed run --data texts.txt --prompt query --out x.npy", &["none by name", "--prompt-text"]);
    fails(at, "embed folder --data texts.txt --prompt query --prompt-text x --out x.npy", &["cannot be used with"]);
    let near = |more: &str| {
        let output = ctk(at, &format!("neighbors folder castle --data texts.txt --count 2 --quiet {more}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (_, stderr) = said(at, "neighbors folder castle --data texts.txt --count 1 --document-prompt passage");
    assert!(stderr.contains("`they say that ` is put before these texts (2)"), "what is searched is said: {stderr}");
    assert_ne!(near("--prompt query"), near("--prompt query --document-prompt passage"));
    said(at, "embed folder --data texts.txt --out stored.npy --quiet");
    fails(at, "neighbors folder castle --data stored.npy --document-prompt passage", &["features already"]);

    // Retrieval takes them by their roles.
    fs::create_dir(at.join("set")).unwrap();
    fs::write(at.join("set/passages.tsv"), "1\tthe old river\n2\ta quiet castle\n").unwrap();
    fs::write(at.join("set/questions.tsv"), "1\told river\tx\n2\tquiet castle\tx\n").unwrap();
    let retrieval = |more: &str| said(at, &format!("eval retrieval folder set --json{more}"));
    let (found, stderr) = retrieval("");
    assert!(found["query_prompt"] == "where is " && found["document_prompt"] == "they say that ", "{found}");
    assert!(stderr.contains("`they say that ` is put before these texts (2)"), "{stderr}");
    let (other, _) = retrieval(" --document-prompt query --precision binary");
    assert!(other["document_prompt"] == "where is " && other["full_ndcg@10"].is_f64() && other["loss"].is_f64(), "{other}");
    fails(at, "eval retrieval folder set --query-prompt nothing", &["`nothing`", "query (`where is `)"]);
    fails(at, "eval retrieval folder set --query-prompt query --query-prompt-text x", &["cannot be used with"]);

    // A run that begins with the folder keeps them, and its export has them.
    said(at, "train sentences --init folder --data pairs.tsv --set train.max_steps=1 --set train.batch=8 --out next --quiet");
    let (kept, ..) = rows("next --data texts.txt --prompt query");
    assert_eq!(kept.len(), asked.len());
    // A recipe's prompts are the run's, by the same names.
    let by = "--set data.prompts.anchor=Q: --set data.prompts.positive=D:";
    said(
        at,
        &format!(
            "train sentences --init folder --data pairs.tsv --set train.max_steps=1 --set train.batch=8 --out own --quiet {by}"
        ),
    );
    let (_, figures, stderr) = rows("own --data texts.txt --prompt document");
    assert!(figures["prompt"] == "D:" && stderr.contains("(document, passage, query)"), "{figures} {stderr}");
    settings["default_prompt_name"] = "query".into();
    fs::write(config("folder"), settings.to_string()).unwrap();
    let (usual, figures, stderr) = rows("folder --data texts.txt");
    assert!(usual == asked && stderr.contains("`where is ` is put before every text") && figures.get("prompt").is_none());
    said(at, "train sentences --init folder --data pairs.tsv --set train.max_steps=1 --set train.batch=8 --out last --quiet");
    said(at, "export last --format sentence-transformers --out again --quiet");
    let written: Value = serde_json::from_slice(&fs::read(config("again")).unwrap()).unwrap();
    assert_eq!((&written["prompts"], &written["default_prompt_name"]), (&settings["prompts"], &"query".into()));
}

#[test]
fn a_step_is_timed_and_its_memory_is_what_was_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let shape = "--set encoder.transformer.width=128 --set encoder.transformer.heads=4 --set tokenizer.train.size=400 --set data.pairs=500";
    let bench = |more: &str| said(at, &format!("bench sentences --steps 1 --batch 64 --json --quiet {shape} {more}")).0;
    let whole = bench("--set encoder.transformer.layers=2");
    for key in ["gflops", "tokens_per_second", "texts_per_second", "epoch_seconds", "peak_rss_mb", "forecast_mb"] {
        assert!(whole[key].as_f64().unwrap() > 0.0, "{key}: {whole}");
    }
    for stage in ["batch", "forward", "loss", "backward", "optimizer", "total"] {
        assert!(whole["step_ms"][stage].is_f64(), "{stage}: {whole}");
    }
    assert!(whole["tokenizing"]["tokens_per_second"].as_f64().unwrap() > 0.0 && whole["epoch_samples"] == 500, "{whole}");
    assert!(whole["embedding"]["texts_per_second"].as_f64().unwrap() > 0.0, "{whole}");
    let ratio = |of: &Value| of["peak_rss_mb"].as_f64().unwrap() / of["forecast_mb"].as_f64().unwrap();
    assert!((0.6..1.5).contains(&ratio(&whole)), "{whole}");
    let less = bench("--set encoder.transformer.layers=2 --set train.recompute=true");
    assert!(less["forecast_mb"].as_f64() < whole["forecast_mb"].as_f64(), "{less}");
    assert!((0.5..1.7).contains(&ratio(&less)), "{less}");
    fails(at, "bench sentences --size 32", &["--size", "--set"]);
    let small = "--set data.pairs=500 --set tokenizer.train.size=400 --set encoder.static.width=32";
    fs::write(at.join("static.toml"), "[encoder.static]\n").unwrap();
    let (table, _) = said(at, &format!("bench sentences --steps 1 --config static.toml --json --quiet {small}"));
    assert!(table.get("gflops").is_none() && table["encoder"] == "static", "{table}");
}

#[test]
fn features_are_computed_in_bf16_if_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("texts.txt"), "the old river\na castle\nwhere is the hidden engine now?\n").unwrap();
    for (name, recipe) in [("static", STATIC), ("transformer", TRANSFORMER)] {
        fs::write(at.join(format!("{name}.toml")), format!("[data]\npath = \"pairs.tsv\"\n{recipe}")).unwrap();
        said(at, &format!("train sentences --config {name}.toml --out {name} --quiet"));
    }
    let rows = |more: &str| {
        let (figures, _) = said(at, &format!("embed transformer --data texts.txt --out rows.npy --force --json --quiet{more}"));
        (array(&at.join("rows.npy")).0, figures)
    };
    let (exact, figures) = rows("");
    let (half, of_half) = rows(" --compute bf16");
    assert!(figures.get("compute").is_none() && of_half["compute"] == "bf16");
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect() };
    let (exact, half) = (values(&exact), values(&half));
    let off = exact.iter().zip(&half).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 0.0 && off < 0.03, "{off}");
    fs::write(at.join("sts.tsv"), "score\tsentence1\tsentence2\n5\tthe old river\ta river\n1\ta castle\ta river\n").unwrap();
    said(at, "eval sts transformer --pairs sts.tsv --compute bf16 --quiet --json");
    let kept = fs::read_to_string(at.join("transformer/evals.jsonl")).unwrap();
    assert!(kept.contains("\"compute\":\"bf16\""), "{kept}");
    fails(at, "embed static --data texts.txt --out x.npy --compute bf16", &["static embedding", "bf16"]);
    fails(at, "embed rows.npy --out x.npy --compute bf16", &["no bf16"]);
    fails(at, "export transformer --format sentence-transformers --out x --compute bf16", &["--compute"]);
}

#[test]
fn a_static_embedding_begins_with_word_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("pairs.tsv"), pairs()).unwrap();
    fs::write(at.join("corpus.txt"), pairs().replace('\t', "\n")).unwrap();
    fs::write(at.join("texts.txt"), "the old river\nzzzz castle\n").unwrap();
    let words = "--set vocabulary.min_count=1 --set encoder.table.width=8 --set train.epochs=2 --set data.tokens=words";
    said(at, &format!("train word2vec --data corpus.txt {words} --out words --quiet"));
    said(at, "export words --format word2vec-text --out vectors.txt --quiet");
    let still = "--set optimizer.adamw.rate=1e-12 --set train.max_steps=1 --set train.batch=16 --quiet";
    let rows = |arguments: &str| {
        said(at, &format!("embed {arguments} --data texts.txt --out rows.npy --force --quiet"));
        array(&at.join("rows.npy")).0
    };
    let values =
        |bytes: Vec<u8>| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect() };
    let own = values(rows("words --normalize"));
    for (name, init) in [("a", "words"), ("b", "vectors.txt")] {
        said(at, &format!("train sentences --init {init} --data pairs.tsv --out {name} {still}"));
        let begun = values(rows(name));
        let off = own.iter().zip(&begun).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(begun.len() == own.len() && off < 1e-4, "{name}: {off}");
    }
    said(at, &format!("train sentences --init words --data pairs.tsv --set encoder.static.sif=1e-3 --out c {still}"));
    assert_ne!(values(rows("c")), own);
    fails(at, "train sentences --init texts.txt --data pairs.tsv --out d", &["texts.txt", "word vectors"]);
    fs::create_dir(at.join("empty")).unwrap();
    fails(at, "finetune empty --data pairs.tsv --labels 2-per-class", &["empty"]);
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
