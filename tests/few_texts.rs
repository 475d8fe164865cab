//! Few labels of texts from a user's view: fine-tuning an encoder of sentences, predicting classes, judging; and what is refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn ctk(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(at).args(arguments).output().expect("ctk starts")
}

/// Runs words apart by spaces, and expects success; stdout and stderr.
fn said(at: &Path, arguments: &str) -> (String, String) {
    let output = ctk(at, &arguments.split_whitespace().collect::<Vec<_>>());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments}\n{stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// The same with `--json`; the last line of stdout, and stderr.
fn json(at: &Path, arguments: &str) -> (Value, String) {
    let (stdout, stderr) = said(at, &format!("{arguments} --json"));
    (serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {stdout}")), stderr)
}

/// Runs and expects exit code 2 and an error that says each of `parts`; nothing is left behind.
fn fails(at: &Path, arguments: &str, parts: &[&str]) {
    let output = ctk(at, &arguments.split_whitespace().collect::<Vec<_>>());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments}\n{stderr}");
    for part in parts.iter().chain(&["hint: "]) {
        assert!(stderr.contains(part) && !stderr.contains("panicked"), "{arguments}: `{part}` is missing in:\n{stderr}");
    }
    assert!(!at.join("out").exists(), "{arguments}: something was left behind");
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))).unwrap()
}

/// Every file of a run's newest checkpoint with its digest.
fn weights(at: &Path, run: &Value) -> Value {
    read(at.join(run["checkpoint"].as_str().unwrap()).join("manifest.json"))["files"].clone()
}

const GOOD: [&str; 6] = ["fine", "lovely", "bright", "clever", "warm", "witty"];
const BAD: [&str; 6] = ["dull", "awful", "clumsy", "boring", "cold", "silly"];
const THINGS: [&str; 8] = ["film", "plot", "song", "book", "play", "scene", "actor", "story"];

/// Texts of two classes; `turn` gives the test texts the other class.
fn table(turn: bool) -> String {
    let mut text = String::from("split\tlabel\ttext\n");
    for (at, thing) in THINGS.iter().enumerate() {
        for (good, bad) in GOOD.iter().zip(BAD) {
            let test = at % 4 == 3;
            let [first, second] = if test && turn { ["bad", "good"] } else { ["good", "bad"] };
            let split = if test { "test" } else { "train" };
            writeln!(text, "{split}\t{first}\ta {good} {thing} it is\n{split}\t{second}\twhat a {bad} {thing}").unwrap();
        }
    }
    text
}

/// A run `run` of a static embedding and one `wide` of a transformer, of a few steps, and the table `texts.tsv`.
fn pretrained() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut pairs = String::from("question\tanswer\n");
    for thing in THINGS {
        for (good, bad) in GOOD.iter().zip(BAD) {
            writeln!(pairs, "is the {thing} {good}\ta {good} {thing}\nis the {thing} {bad}\twhat a {bad} {thing} it is").unwrap();
        }
    }
    fs::write(at.join("pairs.tsv"), pairs).unwrap();
    fs::write(at.join("texts.tsv"), table(false)).unwrap();
    let small = "--set tokenizer.train.size=300 --set train.batch=16 --quiet";
    said(at, &format!("train sentences --data pairs.tsv --set encoder.static.width=16 --set train.epochs=4 {small} --out run"));
    let network = "--set encoder={transformer={layers=1,width=16,heads=2,positions=40}} --set tokenizer.longest=16";
    said(at, &format!("train sentences --data pairs.tsv {network} --set train.max_steps=2 {small} --out wide"));
    folder
}

#[test]
fn a_fine_tuned_run_predicts_and_is_a_run_like_any_other() {
    let folder = pretrained();
    let at = folder.path();
    let (tuned, stderr) = json(at, "finetune run --data texts.tsv --labels 8-per-class --out tuned");
    assert_eq!((&tuned["scheme"], &tuned["start"], &tuned["labelled"]), (&"setfit".into(), &"pretrained".into(), &16.into()));
    assert_eq!(
        (&tuned["test"], &tuned["classes"]["good"], &tuned["test_part"]),
        (&24.into(), &8.into(), &"the file's own".into())
    );
    assert_eq!((&tuned["pairs"], &tuned["steps"]), (&144.into(), &9.into()), "72 + 64 pairs, the fewer repeated");
    assert!(tuned["top1"].as_f64().unwrap() > 0.7 && tuned["regularisation"].is_f64(), "{tuned}");
    assert!(stderr.contains("72 of one class and as many of two") && stderr.contains("16 of 72 labels"), "{stderr}");
    let recipe = fs::read_to_string(at.join("tuned/recipe.toml")).unwrap();
    for part in
        ["[task.finetune]", "scheme = \"setfit\"", "rate = 0.01", "batch = 16", "labels = \"8-per-class\"", "warmup = 0.1"]
    {
        assert!(recipe.contains(part), "{part}: {recipe}");
    }
    // The same labels as the linear probe's, wherever the data is named from.
    let (probe, _) = json(at, "eval linear-probe run --data texts.tsv --labels 8-per-class --quiet");
    assert_eq!((&probe["train"], &probe["test"]), (&16.into(), &24.into()));
    fs::create_dir(at.join("elsewhere")).unwrap();
    let (again, _) = json(&at.join("elsewhere"), "finetune ../run --data ../texts.tsv --labels 8-per-class --out same --quiet");
    assert_eq!(read(at.join("elsewhere/same/labels.json")), read(at.join("tuned/labels.json")));
    assert_eq!(weights(&at.join("elsewhere"), &again), weights(at, &tuned), "the same bytes");
    // A smaller amount is a part of a larger one.
    said(at, "finetune run --data texts.tsv --labels 4-per-class --out fewer --quiet");
    let names = |run: &str| read(at.join(run).join("labels.json"))["names"].as_array().unwrap().clone();
    assert!(names("fewer").iter().all(|name| names("tuned").contains(name)));

    // A finished run is told again, and every verb takes it.
    let (resumed, _) = json(at, "train sentences --resume tuned --quiet");
    assert_eq!((&resumed["top1"], &resumed["steps"]), (&tuned["top1"], &tuned["steps"]));
    assert_eq!(json(at, "embed tuned --data texts.tsv --out rows.npy --quiet").0["rows"], 96);
    assert_eq!(json(at, "embed tuned --split test --out own.npy --quiet").0["rows"], 24);
    let (exported, _) = said(at, "export tuned --format sentence-transformers --out folder");
    assert!(exported.contains("classifier stays in the run") || at.join("folder/modules.json").is_file(), "{exported}");
    let (judged, _) = json(at, "eval classify tuned --quiet");
    assert_eq!((&judged["accuracy"], &judged["texts"], &judged["part"]), (&tuned["top1"], &24.into(), &"test".into()));
    assert!(judged["classes"][0]["texts"].is_number(), "{judged}");
    let (calibrated, stderr) = json(at, "eval classify tuned --data texts.tsv --calibrate");
    assert_eq!((&calibrated["accuracy"], &calibrated["calibrated_on"]), (&tuned["top1"], &56.into()));
    assert!(stderr.contains("56 training texts whose labels were not given"), "{stderr}");

    // Predictions: of a table, of lines, of texts on the command line.
    let (told, _) = json(at, "predict tuned --data texts.tsv --split test --out p.jsonl --quiet");
    assert_eq!((&told["rows"], &told["classes"], &told["labelled"]), (&24.into(), &2.into(), &24.into()));
    let lines: Vec<Value> =
        fs::read_to_string(at.join("p.jsonl")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let right = lines.iter().filter(|line| line["label"] == line["predicted"]).count();
    assert_eq!(right as f64 / 24.0, tuned["top1"].as_f64().unwrap());
    assert!(lines[0]["name"].as_str().unwrap().starts_with("texts.tsv:") && lines[0]["probability"].as_f64() > Some(0.5));
    fs::write(at.join("lines.txt"), "a lovely book it is\nwhat a boring play\n").unwrap();
    let (csv, _) = said(at, "predict tuned --data lines.txt --top 2 --quiet");
    assert!(csv.starts_with("name,label,predicted,probability,predicted_2,probability_2\na lovely book it is,,good,"), "{csv}");
    let output =
        ctk(at, &["predict", "tuned", "--text", "a lovely book it is", "--text", "what a boring play", "--json", "--quiet"]);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let both: Vec<&str> = [0, 1].map(|row: usize| all["predictions"][row]["predicted"].as_str().unwrap()).to_vec();
    assert_eq!(both, ["good", "bad"], "{all}");
}

#[test]
fn either_scheme_trains_either_network_and_is_resumed_exactly() {
    let folder = pretrained();
    let at = folder.path();
    for (name, command) in [
        ("a", "finetune run --labels 8-per-class"),
        ("b", "finetune wide --labels 6-per-class --scheme plain --epochs 3"),
        ("c", "finetune wide --labels 6-per-class --from-scratch --epochs 3"),
        ("d", "finetune wide --labels 8-per-class --set train.part=5"),
    ] {
        let often =
            format!("{command} --data texts.tsv --set checkpoint.every='1_steps' --set train.batch=16 --quiet --out {name}");
        let arguments: Vec<String> = often.split_whitespace().map(|word| word.replace("'1_steps'", "1 steps")).collect();
        let output = ctk(at, &arguments.iter().map(String::as_str).chain(["--json"]).collect::<Vec<_>>());
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let straight: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = weights(at, &straight);
        assert!(expected["classifier.json"].is_object(), "{expected}");
        // As if the last step had never been made; what it began with is gone, too.
        fs::remove_dir_all(at.join(straight["checkpoint"].as_str().unwrap())).unwrap();
        let hidden = at.join("hidden");
        let origin = at.join(command.split(' ').nth(1).unwrap());
        fs::rename(&origin, &hidden).unwrap();
        let (resumed, _) = json(at, &format!("train sentences --resume {name} --quiet"));
        fs::rename(&hidden, &origin).unwrap();
        assert_eq!((weights(at, &resumed), &resumed["top1"]), (expected, &straight["top1"]), "{command}");
        let (judged, _) = json(at, &format!("eval classify {name} --quiet"));
        assert_eq!(judged["accuracy"], straight["top1"], "{command}: the stored classifier is the trained one");
    }
}

#[test]
fn no_test_label_changes_a_byte() {
    let folder = pretrained();
    let at = folder.path();
    let everything = |turn: bool| {
        for scheme in ["setfit", "plain"] {
            let _ = fs::remove_dir_all(at.join(scheme));
        }
        fs::write(at.join("texts.tsv"), table(turn)).unwrap();
        ["setfit", "plain"].map(|scheme| {
            let command =
                format!("finetune run --data texts.tsv --labels 50% --scheme {scheme} --epochs 1 --out {scheme} --quiet");
            let (run, _) = json(at, &command);
            (weights(at, &run), run["regularisation"].clone(), run["top1"].as_f64().unwrap())
        })
    };
    let (straight, turned) = (everything(false), everything(true));
    for (one, other) in straight.iter().zip(&turned) {
        assert_eq!((&one.0, &one.1), (&other.0, &other.1));
        assert!((one.2 + other.2 - 1.0).abs() < 1e-9, "the labels did turn: {} {}", one.2, other.2);
    }
}

#[test]
fn files_of_every_kind_are_read_and_what_is_odd_in_them_is_said() {
    let folder = pretrained();
    let at = folder.path();
    // A folder with parts; a class with one text, a class that is only tested, an empty text, a text in both parts.
    fs::create_dir(at.join("set")).unwrap();
    let rows = table(false);
    let part = |name: &str| -> String {
        rows.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('\t')).map(|line| format!("{line}\n")).collect()
    };
    fs::write(at.join("set/train.tsv"), format!("label\ttext\n{}rare\ta rare thing\nbad\t \n", part("train"))).unwrap();
    fs::write(at.join("set/test.tsv"), format!("label\ttext\n{}odd\tan odd one\ngood\ta fine film it is\n", part("test")))
        .unwrap();
    fs::write(at.join("set/dev.tsv"), "label\ttext\ngood\tunused\n").unwrap();
    let (found, stderr) = json(at, "finetune run --data set --labels 8-per-class --out parts");
    for part in [
        "dev.tsv is not read",
        "1 of 74 training texts are skipped",
        "train.tsv:75",
        "1 test texts are of classes that no training text has, and count as wrong: `odd`",
        "no test text is of these classes: `rare`",
        "1 of 26 test texts are among the training texts",
        "1 of 3 classes have fewer than 8, and keep all: rare (1)",
    ] {
        assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
    }
    assert_eq!((&found["labelled"], &found["test"], &found["classes"]["rare"]), (&17.into(), &26.into(), &1.into()));
    assert!(found["top1"].as_f64().unwrap() < 1.0);
    // The probe and the study see the same texts.
    let (probe, _) = json(at, "eval linear-probe run --data set --labels 8-per-class --quiet");
    assert_eq!((&probe["train"], &probe["test"]), (&17.into(), &26.into()));
    // JSON lines and CSV with columns of other names, and test texts in a file of their own.
    let (mut lines, mut cells) = (String::new(), String::from("verdict,who,remark\n"));
    for line in part("train").lines() {
        let (label, text) = line.split_once('\t').unwrap();
        writeln!(lines, "{}", serde_json::json!({ "label": usize::from(label == "good"), "text": text, "tags": ["x"] })).unwrap();
        writeln!(cells, "{label},somebody,\"{text}, really\"").unwrap();
    }
    fs::write(at.join("texts.jsonl"), lines).unwrap();
    fs::write(at.join("my texts.csv"), cells).unwrap();
    let (found, _) = json(at, "finetune run --data texts.jsonl --labels 50% --out lines --quiet");
    assert_eq!((&found["test_part"], &found["classes"]["1"]), (&"a fifth of each class held out, seed 0".into(), &15.into()));
    fs::copy(at.join("my texts.csv"), at.join("own.csv")).unwrap();
    let columns = "--set data.columns.anchor=remark --set data.columns.label=verdict";
    let arguments = format!("finetune run --test own.csv {columns} --labels 50% --out cells --quiet --json --data");
    let output = ctk(at, &arguments.split(' ').chain(["my texts.csv"]).collect::<Vec<_>>());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((&found["labelled"], &found["test"], &found["test_part"]), (&36.into(), &72.into(), &"a file of its own".into()));
    let (judged, _) = json(at, "eval classify cells --quiet");
    assert_eq!(judged["accuracy"], found["top1"]);
    let (told, _) = said(at, "predict cells --data own.csv --quiet");
    assert_eq!(told.lines().count(), 73, "by the run's own columns");
    // A folder of another program instead of a run, without a word of the first one's data.
    said(at, "export run --format sentence-transformers --out folder --quiet");
    let (found, _) = json(at, "finetune folder --data set --labels 8-per-class --out of-folder --quiet");
    let same = |run: &str| BTreeMap::from([("model.safetensors", read(at.join(run))["files"]["model.safetensors"].clone())]);
    let manifest = |run: &Value| format!("{}/manifest.json", run["checkpoint"].as_str().unwrap());
    let (of_run, _) = json(at, "train sentences --resume parts --quiet");
    assert_eq!(same(&manifest(&found)), same(&manifest(&of_run)), "the same encoder from a run and from its folder");
}

#[test]
fn a_study_compares_what_there_is_for_texts() {
    let folder = pretrained();
    let at = folder.path();
    let study =
        "eval label-efficiency run --data texts.tsv --labels 2-per-class,8-per-class --seeds 2 --epochs 1 --out study --quiet";
    let (found, _) = json(at, study);
    assert_eq!(found["cells"].as_array().unwrap().len(), 2 * 2 * 3, "texts are not distilled");
    let (csv, svg) =
        (fs::read_to_string(at.join("study/results.csv")).unwrap(), fs::read_to_string(at.join("study/plot.svg")).unwrap());
    assert!(csv.contains("\n8-per-class,16,1,finetune,") && svg.contains("16 texts") && svg.contains("chance 50.0 %"), "{csv}");
    assert_eq!(json(at, study).0, found, "nothing is made again");
    let (people, _) = said(at, study);
    assert!(people.contains("test texts, %") && people.contains("labels       texts"), "{people}");
    said(at, "export run --format sentence-transformers --out folder --quiet");
    let few = "--data texts.tsv --labels 2-per-class --seeds 1 --methods probe,finetune";
    let (found, _) = json(at, &format!("eval label-efficiency folder {few} --out other --quiet"));
    assert_eq!(found["cells"].as_array().unwrap().len(), 2);
    fails(at, &format!("eval label-efficiency folder {few}"), &["--out DIR"]);
    fails(at, &format!("eval label-efficiency run {few},distill --out out2 --quiet"), &["cannot be distilled"]);
}

#[test]
fn mistakes_are_told_before_a_folder_is_made() {
    let folder = pretrained();
    let at = folder.path();
    fs::write(at.join("one.tsv"), "label\ttext\na\tone\na\ttwo\na\tthree\n").unwrap();
    fs::write(at.join("plain.txt"), "one text\nanother text\n").unwrap();
    fs::write(at.join("other.tsv"), "label\ttext\nx\tone\ny\ttwo\n").unwrap();
    fs::write(at.join("empty.tsv"), "").unwrap();
    fs::write(at.join("words.vec"), "2 2\na 1 0\nb 0 1\n").unwrap();
    let labels = "--labels 8-per-class --out out";
    for (arguments, parts) in [
        ("finetune run --data one.tsv", &["all 2 training texts are of one class, `a`", "data.columns.label"][..]),
        ("finetune run --data plain.txt", &["no classes", "plain.txt"]),
        ("finetune run", &["no texts with classes", "--data TABLE"]),
        ("finetune run --data nowhere.tsv", &["nowhere.tsv"]),
        ("finetune run --data texts.tsv --test nowhere.tsv", &["nowhere.tsv"]),
        ("finetune run --data texts.tsv --test plain.txt", &["no classes", "plain.txt"]),
        ("finetune run --data texts.tsv --test other.tsv", &["no class of the test texts", "`x`, `y`", "`bad`, `good`"]),
        (
            "finetune run --data texts.tsv --set data.columns.anchor=text --set data.columns.label=verdict",
            &["no column `verdict`", "`label`", "data.columns.label"],
        ),
        ("finetune run --data texts.tsv --set data.columns.anchor=9", &["no column 9"]),
        ("finetune run --data texts.tsv --optimizer sgd", &["--optimizer", "AdamW"]),
        ("finetune run --data texts.tsv --crops 0.5", &["--crops"]),
        ("finetune run --data texts.tsv --from-layer 1", &["--from-layer"]),
        ("finetune run --data texts.tsv --rates 0.1,0.2", &["one rate"]),
        ("finetune words.vec --data texts.tsv", &["words.vec", "no network", "--init"]),
        ("finetune nowhere --data texts.tsv", &["nowhere"]),
    ] {
        fails(at, &format!("{arguments} {labels}"), parts);
    }
    for (set, key) in [
        ("loss={ranking={}}", "loss.ranking: a task has a loss of its own"),
        ("head.layers=1", "head: a task has no projection head"),
        ("encoder={static={width=8}}", "encoder.static: is that of the encoder"),
        ("data.dev=other.tsv", "data.dev: "),
        ("eval.every=1", "eval: "),
        ("checkpoint.keep_best=true", "checkpoint.keep_best: cannot be"),
        ("task.finetune.folds=1", "task.finetune.folds"),
        ("task.finetune.pairs=0", "task.finetune.pairs"),
    ] {
        let output = ctk(at, &["finetune", "run", "--data", "texts.tsv", "--labels", "50%", "--out", "out", "--set", set]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(key) && !at.join("out").exists(), "{set}: {stderr}");
    }
    let empty = ctk(at, &["finetune", "run", "--data", "empty.tsv", "--labels", "50%", "--out", "out"]);
    let stderr = String::from_utf8(empty.stderr).unwrap();
    assert!(!empty.status.success() && stderr.contains("no text") && stderr.contains("empty.tsv"), "{stderr}");
    fails(at, "predict run --data texts.tsv", &["no classifier", "ctk finetune run --data"]);
    fails(at, "eval classify run", &["no classifier"]);
    said(at, "finetune run --data texts.tsv --labels 100% --out whole --quiet");
    fails(at, "eval classify whole --calibrate", &["trained on all of them", "--labels 90%"]);
    let vision = "train vision --set data.train=8 --set data.test=4 --set train.max_steps=1 --set train.batch=4 --set eval={} \
                  --set encoder.resnet.depth=20 --set encoder.resnet.width=0.25 --set pairs.size=8 --out images --quiet";
    said(at, vision);
    fails(at, &format!("finetune images --test texts.tsv {labels}"), &["--test", "texts.tsv"]);
    fails(at, &format!("finetune images --scheme setfit {labels}"), &["--scheme"]);
    fails(at, "predict images --text word", &["--text"]);
}
