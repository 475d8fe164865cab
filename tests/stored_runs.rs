//! Runs stored by an earlier version: they open, evaluate to the same digits, and resume to the same bytes; the same recipe started again
//! does so, too. `fixtures/stored_runs/README.md` says how they were made.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use common::copy;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/stored_runs");

/// Figures that depend on the clock or on the run's place, and figures that ctk did not print then.
const UNEQUAL: [&str; 9] = [
    "run",
    "checkpoint",
    "seconds",
    "images_per_second",
    "words_per_second",
    "ingest_seconds",
    "total_seconds",
    "effective_rank",
    "spread",
];

/// Runs `ctk` in `folder` by portable kernels and expects success; the last line of stdout.
fn ctk(folder: &Path, arguments: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ctk"));
    let output = program.current_dir(folder).env("CTK_ISA", "portable").args(arguments).output().expect("ctk starts");
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_string()
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The figures that two runs of one program have in common.
fn figures(mut told: Value) -> Value {
    told.as_object_mut().unwrap().retain(|name, _| !UNEQUAL.contains(&name.as_str()));
    told
}

/// Length and blake3 of every file of a run's newest checkpoint, from its manifest, and the step. The log of a checkpoint came with format
/// 2.
fn bits(run: &Path, format: u8) -> (Value, Value) {
    let steps = fs::read_dir(run.join("checkpoints")).unwrap();
    let newest = steps.filter_map(|e| e.unwrap().file_name().to_str()?.parse::<usize>().ok()).max().unwrap();
    let manifest = json(&run.join(format!("checkpoints/{newest}/manifest.json")));
    let mut files = manifest["files"].clone();
    if format == 1 {
        files.as_object_mut().unwrap().remove("log.json");
    }
    (manifest["step"].clone(), files)
}

struct Stored {
    format: u8,
    name: &'static str,
    modality: &'static str,
    threads: &'static str,
    judged_by: &'static [&'static str],
}

impl Stored {
    const fn vision(name: &'static str) -> Stored {
        Stored { format: 1, name, modality: "vision", threads: "2", judged_by: &["linear-probe", "knn", "geometry"] }
    }

    const fn words(name: &'static str, threads: &'static str) -> Stored {
        Stored { format: 1, name, modality: "word2vec", threads, judged_by: &["geometry"] }
    }

    fn is_what_it_was(&self) {
        let Stored { name, modality, threads, .. } = self;
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        copy(&Path::new(FIXTURE).join(format!("format-{}", self.format)), at);
        let expected = at.join("expected").join(name);
        let last = {
            let manifest = json(&expected.join("manifest.json"));
            (manifest["step"].clone(), manifest["files"].clone())
        };
        assert_ne!(bits(&at.join(name), self.format).0, last.0, "{name}: the stored run is half-way");

        for verb in self.judged_by {
            let told: Value = serde_json::from_str(&ctk(at, &["eval", verb, name, "--quiet", "--json"])).unwrap();
            assert_eq!(told, json(&expected.join(format!("{verb}.json"))), "{name}: {verb}");
        }
        ctk(at, &["embed", name, "--out", "features.npy", "--quiet"]);
        assert!(
            fs::read(at.join("features.npy")).unwrap() == fs::read(expected.join("features.npy")).unwrap(),
            "{name}: features differ"
        );
        let beside = |folder: &Path| fs::read_to_string(folder.join("features.npy.names.tsv")).unwrap();
        // The column `split` is newer.
        let (now, then) = (beside(at), beside(&expected));
        let parted = now.starts_with("name\tlabel\tclass\tsplit\n");
        let before = now.lines().map(|line| if parted { line.rsplit_once('\t').unwrap().0 } else { line });
        assert!(now == then || self.format == 1 && before.eq(then.lines()), "{name}: names differ");

        let recipe = format!("{name}/recipe.toml");
        let anew = ["--config", &recipe, "--out", "anew"];
        for (run, how) in [(*name, &["--resume", name][..]), ("anew", &anew[..])] {
            let arguments = [&["train", modality][..], how, &["--threads", threads, "--quiet", "--json"]].concat();
            let told: Value = serde_json::from_str(&ctk(at, &arguments)).unwrap();
            assert_eq!(bits(&at.join(run), self.format), last, "{name}: {how:?}");
            let (told, then) = (figures(told), figures(json(&expected.join("resumed.json"))));
            for (figure, then) in then.as_object().unwrap() {
                assert_eq!(&told[figure], then, "{name}: {how:?}: {figure}");
            }
        }
    }
}

#[test]
fn the_queue_of_moco() {
    Stored::vision("moco").is_what_it_was();
}

#[test]
fn the_memory_of_nt_xent_in_parts() {
    Stored::vision("memory").is_what_it_was();
}

#[test]
fn byol_with_its_predictor() {
    Stored::vision("byol").is_what_it_was();
}

#[test]
fn a_fine_tuned_network() {
    Stored::vision("finetuned").is_what_it_was();
}

#[test]
fn a_distilled_network() {
    Stored::vision("distilled").is_what_it_was();
}

#[test]
fn words_on_one_thread() {
    Stored::words("words", "1").is_what_it_was();
}

#[test]
fn words_in_shards() {
    Stored::words("shards", "2").is_what_it_was();
}

#[test]
fn words_of_subwords_by_a_tree() {
    Stored::words("subwords", "1").is_what_it_was();
}

#[test]
fn of_format_2_the_best_of_its_checkpoints() {
    Stored { format: 2, ..Stored::vision("moco") }.is_what_it_was();
}

#[test]
fn of_format_2_words_in_shards() {
    Stored { format: 2, ..Stored::words("words", "2") }.is_what_it_was();
}
