//! Studies of a matrix file: made in pieces, judged seed by seed; mistakes are reported before anything is trained.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const STUDY: &str = r#"
[[study]]
name = "small"
modality = "vision"
set = { "data.train" = 72, "data.test" = 36, "encoder.resnet.width" = 0.25, "train.batch" = 36, "train.epochs" = 1, "eval" = { linear-probe = { baselines = false } } }
seeds = 2
figures = { top1 = "linear probe" }
variants = [{ name = "three layers" }, { name = "two layers", set = { "head.layers" = 2 } }]
finetune = [{ name = "tuned", labels = "2-per-class", from_layer = 0, rates = [0.02], epochs = [1] }]
"#;

fn matrix(folder: &Path, text: &str, more: &[&str]) -> Output {
    fs::write(folder.join("study.toml"), text).unwrap();
    let ctk = || Command::new(env!("CARGO_BIN_EXE_ctk"));
    ctk().current_dir(folder).args(["matrix", "study.toml"]).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn a_study_is_one_table_of_runs_that_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let found = json(&matrix(path, STUDY, &["--json", "--quiet", "--out", "out"]));
    let rows = found["rows"].as_array().unwrap();
    let named: Vec<(&str, &str)> =
        rows.iter().map(|row| (row["variant"].as_str().unwrap(), row["figure"].as_str().unwrap())).collect();
    assert_eq!(
        named,
        [("three layers", "linear probe"), ("three layers", "tuned"), ("two layers", "linear probe"), ("two layers", "tuned")]
    );
    for (row, first) in rows.iter().zip([true, true, false, false]) {
        let values: Vec<f64> = row["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let mean = row["mean"].as_f64().unwrap();
        assert!(values.len() == 2 && (mean - (values[0] + values[1]) / 2.0).abs() < 1e-12 && row["sd"].is_number(), "{row}");
        assert_eq!(row["difference"].is_null(), first, "{row}");
    }
    let less = |figure: usize| rows[2 + figure]["mean"].as_f64().unwrap() - rows[figure]["mean"].as_f64().unwrap();
    assert!((rows[2]["difference"]["mean"].as_f64().unwrap() - less(0)).abs() < 1e-12);
    // The runs have the seeds and variants that they should have.
    let recipe = |cell: &str| fs::read_to_string(path.join("out/small").join(cell).join("recipe.toml")).unwrap();
    assert!(recipe("two-layers-seed-1").contains("layers = 2") && recipe("two-layers-seed-1").contains("seed = 1"));
    assert!(recipe("three-layers-seed-0/tuned").contains("[task.finetune]"));
    // An unfinished cell is made again, the others are found.
    fs::remove_dir_all(path.join("out/small/two-layers-seed-1/tuned")).unwrap();
    fs::remove_file(path.join("out/small/three-layers-seed-0/result.json")).unwrap();
    assert_eq!(json(&matrix(path, STUDY, &["--json", "--quiet", "--out", "out"])), found);
    let told = text(&matrix(path, STUDY, &["--quiet", "--out", "out"]).stdout);
    assert!(
        told.contains("mean ± sd of 2 seeds") && told.contains("difference to three layers") && told.contains(" to "),
        "{told}"
    );
    // Several studies of a file are made one after the other.
    let one = [("small", "one"), ("seeds = 2", "seeds = 1"), (", { name = \"two layers\", set = { \"head.layers\" = 2 } }", "")];
    let one = one.iter().fold(STUDY.to_string(), |text, (from, to)| text.replace(from, to));
    let both = format!("{STUDY}{}", one.split_once("finetune").unwrap().0);
    let output = matrix(path, &both, &["--out", "out"]);
    let (told, progress) = (text(&output.stdout), text(&output.stderr));
    // Eight cells exist and the ninth is made; when it ends, nothing is left to do.
    for part in ["cell 1 of 9: out/small/", "cell 9 of 9: out/one/", "cell 9 of 9, 0 s left in all  step "] {
        assert!(progress.contains(part), "`{part}` is missing in:\n{progress}");
    }
    assert!(told.contains("small: mean") && told.contains("one: mean ± sd of 1 seed,"), "{told}");
    let other = matrix(path, &STUDY.replace("layers\" = 2", "layers\" = 1"), &["--quiet", "--out", "out"]);
    assert!(text(&other.stderr).contains("another recipe") && text(&other.stderr).contains("hint: "), "{}", text(&other.stderr));
}

#[test]
fn mistakes_are_told_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    for (from, to, words) in [
        ("seeds = 2", "seeds = 0", "needs a variant and a seed"),
        ("head.layers", "head.leyers", "did you mean"),
        ("\"two layers\"", "\"three  layers\"", "have one name"),
        ("figures = { top1 = \"linear probe\" }", "figurs = {}", "did you mean `figures`"),
        ("modality = \"vision\"", "modality = \"sound\"", "sound"),
        (
            "\n[[study]]",
            "\n[[study]]\nname = \"Small\"\nmodality = \"vision\"\nseeds = 1\nfigures = { top1 = \"a\" }\nvariants = [{ name = \"a\" }]\n[[study]]",
            "two studies have one name",
        ),
    ] {
        let output = matrix(folder.path(), &STUDY.replace(from, to), &[]);
        assert_eq!(output.status.code(), Some(2), "{to}");
        let told = text(&output.stderr);
        assert!(told.contains(words) && told.contains("study.toml"), "{told}");
        assert!(!folder.path().join("runs").exists(), "{to}");
    }
    let output = matrix(folder.path(), &STUDY.replace("top1", "top2"), &["--quiet"]);
    assert!(
        text(&output.stderr).contains("no figure `top2`") && text(&output.stderr).contains("top1"),
        "{}",
        text(&output.stderr)
    );
}
