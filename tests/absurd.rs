//! Absurd values of every key of every recipe: each is either refused, with its key, its value and what is allowed, or trained with.
//! Nothing panics, aborts, hangs or takes more memory than it is given.
//!
//! Keys are those of `ctk config keys`, so a new key is tested without being named here. The whole test, with a process for each value, is
//! `cargo test --test absurd -- --ignored --nocapture`; `ABSURD=pairs.` limits it to keys with this prefix.
#![cfg(unix)]

#[path = "absurd/child.rs"]
mod child;
#[path = "absurd/flags.rs"]
mod flags;
#[path = "absurd/values.rs"]
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;

use child::{Ended, ctk};

const MODALITIES: [&dyn Modality; 4] =
    [&ctk_vision::Vision, &ctk_text::Word2Vec, &ctk_text::Sentences, &ctk_image_text::ImageText];

/// Processes that run at once in the whole test.
const WORKERS: usize = 2;

/// The ordinary tests train with one in so many of the accepted values.
const SOME: usize = 29;

/// A key with a value that was accepted.
struct Accepted {
    modality: &'static dyn Modality,
    key: String,
    value: String,
    recipe: Recipe,
}

/// A recipe of a few small steps in which `key` has an effect; runs to begin with are in `runs`.
fn small(modality: &dyn Modality, key: &str, runs: &Path) -> Recipe {
    let text = match modality.name() {
        "vision" => VISION,
        "word2vec" => WORD2VEC,
        "image-text" => IMAGE_TEXT,
        _ => SENTENCES,
    };
    let mut recipe = Recipe::new("small.toml", text);
    let run = |name: &str| format!("{:?}", runs.join(name).display().to_string());
    let (learned, taught) = (run("learned"), run("taught"));
    let mut set = |key: &str, value: &str| recipe.set(key, value).unwrap();
    match key {
        _ if key.starts_with("loss.byol") => {
            set("loss.byol.momentum", "0.9");
            set("predictor.hidden", "8");
        }
        _ if key.starts_with("loss.simsiam") => {
            set("loss.simsiam", "{}");
            set("predictor.hidden", "8");
        }
        _ if key.starts_with("predictor") => {
            set("loss.byol", "{}");
            set("predictor.hidden", "8");
        }
        "image.features" => recipe.remove("image.encoder").unwrap(),
        "text.features" => ["encoder", "tokenizer"].iter().for_each(|name| recipe.remove(&format!("text.{name}")).unwrap()),
        "image.encoder.vit.weights" => set("image.encoder.vit", "{}"),
        _ if key.starts_with("image.encoder.vit") || key == "image.unlock_last" => {
            set("image.encoder.vit", "{ patch = 4, size = 8, width = 8, layers = 1, heads = 2 }");
        }
        "image.encoder.resnet.sk_ratio" => set("image.encoder.resnet.depth", "50"),
        "text.encoder.transformer.weights" => set("text.encoder.transformer", "{}"),
        _ if key.starts_with("text.encoder.transformer") || key == "text.unlock_last" => {
            set("text.encoder.transformer", "{ layers = 1, width = 8, heads = 2, positions = 40 }")
        }
        _ if key.ends_with("matryoshka.weights") => set(&key.replace("weights", "widths"), "[8, 4]"),
        "loss.nt-xent.momentum" => set("loss.nt-xent.memory", "8"),
        "pairs.eval_resize" => set("pairs.eval_fit", "resize"),
        _ if key.starts_with("pairs.normalise") => {
            set("pairs.normalise.mean", "[0, 0, 0]");
            set("pairs.normalise.deviation", "[1, 1, 1]");
        }
        "encoder.vit.weights" => set("encoder.vit", "{}"),
        _ if key.starts_with("encoder.vit") => {
            set("encoder.vit", "{ patch = 4, size = 8, width = 8, layers = 1, heads = 2 }");
        }
        "encoder.resnet.sk_ratio" => set("encoder.resnet.depth", "50"),
        _ if key.starts_with("eval.") && modality.name() == "vision" => set("eval.knn.every", "1"),
        _ if key.starts_with("task.finetune") && modality.name() == "sentences" => {
            set("task.finetune.scratch", "true");
            set("task.finetune.labels", "2-per-class");
        }
        _ if key.starts_with("task.finetune") => {
            set("task.finetune.from", &learned);
            set("task.finetune.folds", "2");
        }
        _ if key.starts_with("task.distill") && modality.name() == "sentences" => {
            set("task.distill.teacher", &run("reads"));
            set("data.path", &run("texts.txt"));
            set("loss.mse", "{}");
        }
        _ if key.starts_with("task.distill") => set("task.distill.teacher", &taught),
        _ if key.starts_with("encoder.subwords") && key != "encoder.subwords.buckets" => set("encoder.subwords.buckets", "100"),
        _ if key.starts_with("vocabulary.phrases") && !key.ends_with("passes") => set("vocabulary.phrases.passes", "1"),
        "encoder.transformer.weights" => set("encoder.transformer", "{}"),
        _ if key.starts_with("encoder.transformer") => {
            set("encoder.transformer", "{ layers = 1, width = 8, heads = 2, positions = 40 }")
        }
        _ if key.starts_with("data.columns.") && key != "data.columns.anchor" && modality.name() == "sentences" => {
            set("data.columns.anchor", "\"a\"");
            if key != "data.columns.label" {
                set("data.columns.positive", "\"b\"");
            }
        }
        "train.shards" => set("train.deterministic", "true"),
        _ => {}
    }
    recipe
}

const VISION: &str = "[data]
train = 16
test = 8
[pairs]
size = 8
[encoder.resnet]
depth = 20
width = 0.25
stem = \"small\"
[head]
layers = 2
width = 8
[train]
batch = 8
epochs = 1
max_steps = 2
";

const WORD2VEC: &str = "[data]
words = 3000
[encoder.table]
width = 8
[train]
batch = 2
epochs = 1
max_steps = 2
";

const SENTENCES: &str = "[data]
pairs = 40
[tokenizer]
longest = 32
[tokenizer.train]
size = 300
[encoder.static]
width = 8
[train]
batch = 8
epochs = 1
max_steps = 2
";

const IMAGE_TEXT: &str = "[data]
train = 18
test = 9
[pairs]
size = 8
[image.encoder.resnet]
depth = 20
width = 0.25
stem = \"small\"
[image.head]
width = 8
[text.tokenizer]
longest = 32
[text.tokenizer.train]
size = 300
[text.encoder.static]
width = 8
[text.head]
width = 8
[train]
batch = 8
epochs = 1
max_steps = 2
";

/// Every key that `ctk config keys` prints, except those of losses that images cannot have: they are refused by the loss's name, whatever the
/// value is.
fn keys(modality: &dyn Modality) -> Vec<String> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ctk"))
        .args(["config", "keys", modality.name(), "--json"])
        .output()
        .expect("ctk starts");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = told["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap().to_string());
    let only = std::env::var("ABSURD").unwrap_or_default();
    let refused = ["loss.cosent.", "loss.cosine-similarity.", "loss.mse.", "loss.kl."];
    names.filter(|name| name.starts_with(&only) && !refused.iter().any(|loss| name.starts_with(loss))).collect()
}

/// Checks every key with every value; returns the number of checks, the accepted values, and mistakes in refusals.
fn checked(runs: &Path) -> (usize, Vec<Accepted>, Vec<String>) {
    let (mut tried, mut accepted, mut wrong) = (0, Vec::new(), Vec::new());
    for modality in MODALITIES {
        for key in keys(modality) {
            let base = small(modality, &key, runs);
            if let Err(e) = modality.plan(&base) {
                wrong.push(format!("{key}: the small recipe is refused: {e}"));
                continue;
            }
            for value in values::of(&key, modality.paths().contains(&key.as_str()), runs) {
                tried += 1;
                let mut recipe = base.clone();
                let what = format!("{} {key} = {}", modality.name(), shortened(&value));
                // A section that is set to a number has no key.
                if recipe.set(&key, &value).is_err() {
                    continue;
                }
                match catch_unwind(AssertUnwindSafe(|| modality.plan(&recipe).map(|_| ()))) {
                    Err(_) => wrong.push(format!("{what}: a panic")),
                    Ok(Ok(())) => accepted.push(Accepted { modality, key: key.clone(), value, recipe }),
                    Ok(Err(e)) => wrong.extend(unclear(&key, &value, &e).map(|why| format!("{what}: {why}:\n{e}"))),
                }
            }
        }
    }
    (tried, accepted, wrong)
}

/// What is missing in a refusal.
fn unclear(key: &str, value: &str, error: &ctk_core::Error) -> Option<&'static str> {
    let said = error.to_string();
    let last = key.rsplit('.').next().unwrap_or(key);
    let begins: String = value.trim_matches('"').chars().take(12).collect();
    let allowed = ["must", "has to be", "expected", "needs", "hint: ", "names", "is for"];
    match () {
        () if error.exit_code() != 2 => Some("not a mistake of use"),
        () if said.len() > 4000 || said.lines().any(|line| line.chars().count() > 1000) => Some("too long to be read"),
        () if !said.contains(last) => Some("the key is not named"),
        () if !said.contains(&begins) && !value.contains('\\') && !said.contains("nan") && !said.contains("number") => {
            Some("the value is not named")
        }
        () if !allowed.iter().any(|word| said.contains(word)) => Some("what is allowed is not said"),
        () => None,
    }
}

fn shortened(value: &str) -> String {
    match value.chars().count() {
        0..60 => value.to_string(),
        count => format!("{}… ({count} characters)", value.chars().take(40).collect::<String>()),
    }
}

/// Makes runs to begin with: a pretrained one, a fine-tuned one, and a transformer that reads texts, with some texts.
fn runs(folder: &Path) {
    let texts: String = (0..40).map(|at| format!("a text of some words number {at} with {} ends\n", at % 7)).collect();
    std::fs::write(folder.join("texts.txt"), texts).unwrap();
    let reads = SENTENCES
        .replace("[encoder.static]\nwidth = 8", "[encoder.transformer]\nlayers = 1\nwidth = 8\nheads = 2\npositions = 40");
    std::fs::write(folder.join("reads.toml"), reads).unwrap();
    let file = folder.join("reads.toml");
    let ended = ctk(folder, &["train", "sentences", "--config", &file.to_string_lossy(), "--out", "reads", "--quiet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    std::fs::write(folder.join("paired.toml"), IMAGE_TEXT).unwrap();
    let file = folder.join("paired.toml");
    let ended = ctk(folder, &["train", "image-text", "--config", &file.to_string_lossy(), "--out", "paired", "--quiet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let learned = folder.join("learned");
    let text = small(MODALITIES[0], "", folder).text().to_string();
    std::fs::write(folder.join("learned.toml"), text).unwrap();
    let file = folder.join("learned.toml");
    let ended = ctk(folder, &["train", "vision", "--config", &file.to_string_lossy(), "--out", "learned", "--quiet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let taught =
        ["finetune", &learned.to_string_lossy(), "--labels", "100%", "--out", "taught", "--quiet", "--set", "train.max_steps=2"];
    let ended = ctk(folder, &taught);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// Trains with each recipe in a process of its own; returns wrong endings, and the counts of successes and refusals.
fn trained(accepted: &[&Accepted], runs: &Path) -> (Vec<String>, [usize; 2]) {
    let (next, wrong, ends) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new([0, 0]));
    let work = |worker: usize| {
        while let Some(Accepted { modality, key, value, recipe }) = accepted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = runs.join(format!("recipe-{worker}.toml"));
            std::fs::write(&file, recipe.text()).unwrap();
            let out = format!("out-{worker}");
            let arguments = ["train", modality.name(), "--config", &file.to_string_lossy(), "--out", &out, "--quiet"];
            let Ended { code, stderr, seconds } = ctk(runs, &arguments);
            let _ = std::fs::remove_dir_all(runs.join(&out));
            let what = format!("{} {key} = {} ({seconds:.1} s)", modality.name(), shortened(value));
            let error = stderr.find("error: ").map(|at| &stderr[at..]).unwrap_or_default();
            let failure = match code {
                None => Some("it was killed, or took too long".to_string()),
                Some(0) => None,
                Some(1 | 2) if !error.is_empty() && !stderr.contains("panicked") => None,
                Some(code) => Some(format!("exit code {code}")),
            };
            ends.lock().unwrap()[usize::from(code != Some(0))] += 1;
            if let Some(failure) = failure {
                let end: String = stderr.chars().take(1500).collect();
                println!("WRONG {what}: {failure}\n{end}");
                wrong.lock().unwrap().push(format!("{what}: {failure}\n{end}"));
            } else if code != Some(0) {
                println!("refused in time: {what}:\n{}", error.chars().take(700).collect::<String>());
            } else if seconds > 5.0 {
                println!("slow: {what}");
            }
        }
    };
    std::thread::scope(|scope| (0..WORKERS).for_each(|worker| drop(scope.spawn(move || work(worker)))));
    (wrong.into_inner().unwrap(), ends.into_inner().unwrap())
}

fn sweep(one_in: usize) {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (tried, accepted, mut wrong) = checked(folder.path());
    std::panic::set_hook(hook);
    let few: Vec<&Accepted> = accepted.iter().step_by(one_in).collect();
    wrong.iter().for_each(|what| println!("WRONG {what}"));
    let (of_training, [whole, refused]) = trained(&few, folder.path());
    wrong.extend(of_training);
    println!(
        "{tried} values: {} refused before anything was read, {} trained by, of which {whole} to the end and {refused} refused then",
        tried - accepted.len(),
        few.len()
    );
    assert!(tried > 1000 || std::env::var("ABSURD").is_ok(), "{tried}");
    assert!(wrong.is_empty(), "{} of {tried} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_key_is_checked_and_some_values_are_trained_by() {
    sweep(SOME);
}

#[test]
#[ignore = "starts a process for each value, which takes some minutes"]
fn every_key_is_trained_by() {
    sweep(1);
}

/// Runs verbs with one in `one_in` of the absurd values of their flags.
fn sweep_flags(one_in: usize) {
    let folder = tempfile::tempdir().unwrap();
    runs(folder.path());
    let words = folder.path().join("words.toml");
    std::fs::write(&words, WORD2VEC).unwrap();
    let words = words.to_string_lossy();
    let ended = ctk(folder.path(), &["train", "word2vec", "--config", &words, "--out", "words", "--quiet"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    std::fs::write(folder.path().join("pairs.tsv"), "king\tqueen\t9\nking\tman\t3\nman\tking\t1\n").unwrap();
    std::fs::write(folder.path().join("questions.txt"), ": all\nking queen man woman\n").unwrap();
    std::fs::write(folder.path().join("sts.tsv"), "king man\tqueen\t9\nking\tman\t3\nman queen\tking\t1\n").unwrap();
    std::fs::create_dir(folder.path().join("collection")).unwrap();
    std::fs::write(folder.path().join("collection/passages.tsv"), "0\tking man\n1\tqueen\n").unwrap();
    std::fs::write(folder.path().join("collection/questions.tsv"), "0\tking\tman\n1\tqueen king\tqueen\n").unwrap();
    let (lines, untried) = flags::lines(folder.path());
    assert!(untried.is_empty(), "tests/absurd/flags.rs does not say how to try {untried:?}");
    assert!(lines.len() > 500, "{}", lines.len());
    let some: Vec<_> = lines.iter().step_by(one_in).collect();
    let wrong = flags::run(&some, folder.path());
    println!("{} command lines of {}", some.len(), lines.len());
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn some_values_of_flags_are_tried() {
    sweep_flags(61);
}

#[test]
#[ignore = "starts a process for each value, which takes some minutes"]
fn every_flag_is_tried() {
    sweep_flags(1);
}
