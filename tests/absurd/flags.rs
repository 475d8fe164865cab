//! Absurd values of every flag of every verb, found in the output of `--help`.

use std::path::Path;
use std::process::Command;

use crate::child::ctk;
use crate::values::fifo;

/// Values for any flag with a value; among them is a path that cannot be written.
const VALUES: [&str; 13] = [
    "9223372036854775807",
    "18446744073709551616",
    "4294967295",
    "65535",
    "1e9",
    "0",
    "-1",
    "nan",
    "inf",
    "1e308",
    "",
    "none",
    ",",
];

/// Flags that name an output file.
const WRITTEN: [&str; 5] = ["--out", "--csv", "--svg", "--ranks", "--export"];

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ctk")).args(words).arg("--help").output().expect("ctk starts");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs that `--help` lists, by groups or not.
fn verbs(words: &[&str]) -> Vec<String> {
    let text = help(words);
    let listed = text.lines().take_while(|line| *line != "Options:").filter_map(|line| line.strip_prefix("  "));
    let named = listed.filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()));
    named.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").map(String::from).collect()
}

/// The flags of a verb that take a value.
fn flags(words: &[&str]) -> Vec<String> {
    let text = help(words);
    let lines = text.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let valued = lines.filter_map(|line| {
        let (before, _) = line.split_once('<')?;
        before.split_whitespace().map(|word| word.trim_end_matches([',', '['])).find(|word| word.starts_with("--"))
    });
    valued.map(String::from).collect()
}

/// The usual arguments of a verb that make its work quick, besides the flag that is tested.
fn usual(verb: &str, runs: &Path) -> Option<Vec<String>> {
    let at = |name: &str| runs.join(name).display().to_string();
    let words: Vec<String> = match verb {
        "train" => ["vision", "--config", &at("learned.toml"), "--out", "out", "--quiet"].map(String::from).into(),
        "finetune" => [at("learned").as_str(), "--labels", "50%", "--set", "train.max_steps=1", "--out", "out", "--quiet"]
            .map(String::from)
            .into(),
        "distill" => [at("taught").as_str(), "--set", "train.max_steps=1", "--out", "out", "--quiet"].map(String::from).into(),
        "predict" => vec![at("taught")],
        "eval linear-probe" | "eval knn" | "eval geometry" | "embed" => vec![at("learned")],
        "eval classify" => vec![at("taught")],
        "eval label-efficiency" => ["--methods", "probe", "--seeds", "1", "--labels", "100%"]
            .map(String::from)
            .into_iter()
            .chain([at("learned")])
            .collect(),
        "eval similarity" => vec![at("words"), "--pairs".into(), at("pairs.tsv")],
        "eval analogy" => vec![at("words"), "--questions".into(), at("questions.txt")],
        "eval categorize" => vec![at("words"), at("pairs.tsv")],
        "eval text-classification" => vec![at("words"), at("pairs.tsv"), "--baseline".into(), "random".into()],
        "eval sts" => vec![at("words"), "--pairs".into(), at("sts.tsv")],
        "eval retrieval" => vec![at("words"), at("collection")],
        "eval zero-shot" => vec![at("paired")],
        "tokenizer train" => vec!["--data".into(), at("pairs.tsv"), "--out".into(), at("written"), "--size".into(), "300".into()],
        "mine" => {
            ["--anchor", "1", "--positive", "2", "--out", &at("mined.tsv"), "--data", &at("pairs.tsv"), "--force", &at("words")]
                .map(String::from)
                .into()
        }
        "neighbors" => vec![at("words"), "king".into()],
        "analogy" => vec![at("words"), "king".into(), "queen".into(), "man".into()],
        "export" => vec![at("words"), "--format".into(), "glove".into(), "--out".into(), at("written")],
        "preview" => vec!["--config".into(), at("learned.toml"), "--out".into(), at("written")],
        "bench" => ["vision", "--config", &at("learned.toml"), "--steps", "1"].map(String::from).into(),
        "devices" => vec!["--self-test".into()],
        "config check" => vec!["vision".into(), at("learned.toml")],
        "config show" | "config keys" => vec!["vision".into()],
        "data check" => vec![at("learned.toml")],
        "matrix" => vec![at("learned.toml")],
        "import" => vec![at("learned.toml")],
        _ => return None,
    };
    Some(words)
}

/// A flag with a value, in a command line that works otherwise.
pub struct Line {
    words: Vec<String>,
    what: String,
}

/// Every flag of every verb with every value; and verbs for which this test has no usual arguments.
pub fn lines(runs: &Path) -> (Vec<Line>, Vec<String>) {
    let (mut lines, mut untried) = (Vec::new(), Vec::new());
    let nested = ["eval", "config", "data", "tokenizer"];
    let all: Vec<String> = verbs(&[])
        .into_iter()
        .flat_map(|verb| match nested.contains(&verb.as_str()) {
            true => verbs(&[&verb]).into_iter().map(|below| format!("{verb} {below}")).collect(),
            false => vec![verb],
        })
        .collect();
    let pipe = fifo(runs);
    for verb in all {
        let words: Vec<&str> = verb.split(' ').collect();
        let flags = flags(&words);
        let Some(usual) = usual(&verb, runs) else {
            untried.extend((!flags.iter().all(|flag| flag == "--threads")).then_some(verb));
            continue;
        };
        for flag in flags {
            for value in VALUES.into_iter().chain([pipe.as_str()]) {
                // An empty path is not written to; a large number of steps would be timed.
                if WRITTEN.contains(&flag.as_str()) && value.is_empty() || flag == "--steps" && value == "65535" {
                    continue;
                }
                // The tested value replaces the usual one.
                let mut rest = usual.clone();
                if let Some(at) = rest.iter().position(|word| *word == flag) {
                    rest.drain(at..at + 2);
                }
                let what = format!("{verb} {flag}={value}");
                let mut words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
                words.extend(rest);
                words.push(format!("{flag}={value}"));
                lines.push(Line { words, what });
            }
        }
    }
    (lines, untried)
}

/// Runs each line in a folder of its own; returns wrong endings.
pub fn run(lines: &[&Line], runs: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in lines {
        let folder = tempfile::tempdir_in(runs).unwrap();
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        let ended = ctk(folder.path(), &words);
        let fine = match ended.code {
            Some(0) => true,
            Some(1 | 2) => ended.stderr.contains("error: ") && !ended.stderr.contains("panicked"),
            _ => false,
        };
        if !fine {
            let end: String = ended.stderr.chars().take(800).collect();
            wrong.push(format!("{} ({:?}, {:.1} s)\n{end}", line.what, ended.code, ended.seconds));
            println!("WRONG {}", wrong[wrong.len() - 1]);
        } else if ended.seconds > 5.0 {
            println!("slow: {} ({:.1} s)", line.what, ended.seconds);
        }
    }
    wrong
}
