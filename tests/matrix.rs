//! Runs tests/matrix/*.toml as named tests: `cargo test --test matrix resume` runs the cases whose name contains `resume`.

use std::path::{Path, PathBuf};
use std::process::Command;

use ctk::matrix::File;
use ctk_core::modality::Modality;
use ctk_core::recipe::Recipe;
use ctk_core::{Error, Result};
use libtest_mimic::{Arguments, Trial};

const MODALITIES: &[&dyn Modality] =
    &[&ctk_vision::Vision, &ctk_text::Word2Vec, &ctk_text::Sentences, &ctk_image_text::ImageText];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut trials = Vec::new();
    for file in files(&root.join("tests/matrix")) {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let cases = File::read(&file).and_then(|file| file.cases(MODALITIES)).unwrap_or_else(|e| panic!("{e}"));
        for case in cases {
            let name = format!("{stem}/{}", case.name);
            trials.push(Trial::test(name, move || case.run().map(|_| ()).map_err(|e| e.to_string().into())));
        }
    }
    for modality in MODALITIES {
        for file in files(&root.join("configs").join(modality.name())) {
            trials.extend(config(*modality, file));
        }
    }
    for file in files(&root.join("configs/ablations")) {
        let name = format!("configs/ablations/{}/checks", file.file_name().unwrap().to_string_lossy());
        let check = move || match File::read(&file).and_then(|file| file.studies(None, MODALITIES)) {
            Ok(studies) if !studies.is_empty() => Ok(()),
            Ok(_) => Err("it holds no study".into()),
            Err(e) => Err(e.to_string().into()),
        };
        trials.push(Trial::test(name, check));
    }
    assert!(!trials.is_empty());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Every shipped config is checked, and trained for a few steps on tiny data of the same kind.
fn config(modality: &'static dyn Modality, file: PathBuf) -> Vec<Trial> {
    let stem = format!("configs/{}/{}", modality.name(), file.file_name().unwrap().to_string_lossy());
    let checked = {
        let file = file.clone();
        move || modality.plan(&Recipe::read(&file)?).map(|_| ())
    };
    let steps = move || {
        let folder = tempfile::tempdir()?;
        let labelled = std::fs::read_to_string(&file)?.contains("[loss.supcon]");
        tiny(modality.name(), labelled, &folder.path().join("data"))?;
        let config = ["train", modality.name(), "--config", &file.to_string_lossy(), "--set", "train.max_steps=2"];
        ctk(folder.path(), &[&config[..], &["--data", "data", "--out", "run", "--quiet"]].concat())
    };
    let trial = |what: &str, run: Box<dyn FnOnce() -> Result<()> + Send>| {
        Trial::test(format!("{stem}/{what}"), move || run().map_err(|e| e.to_string().into()))
    };
    vec![trial("checks", Box::new(checked)), trial("takes-steps", Box::new(steps))]
}

/// A folder of four images, in two classes if a loss needs labels, or with captions, or of a small text.
fn tiny(modality: &str, labelled: bool, data: &Path) -> Result<()> {
    std::fs::create_dir(data)?;
    if modality == "word2vec" {
        return Ok(std::fs::write(data.join("text.txt"), "the quick brown fox jumps over the lazy dog\n".repeat(100))?);
    }
    if modality == "sentences" {
        let row = |i: usize| format!("the colour of thing number {i}\tthing {i} is of colour {}\n", i % 7);
        return Ok(std::fs::write(data.join("pairs.tsv"), (0..40).map(row).collect::<String>())?);
    }
    let set = |seed: u8| format!("train.seed={seed}");
    if modality == "image-text" {
        let row = |i: usize| format!("{i}.png,generated picture number {i}\n");
        std::fs::write(data.join("metadata.csv"), format!("file_name,caption\n{}", (0..4).map(row).collect::<String>()))?;
    }
    ["a", "b"].iter().filter(|_| labelled).try_for_each(|class| std::fs::create_dir(data.join(class)))?;
    (0..4).try_for_each(|seed| {
        let class = if labelled { ["a/", "b/"][usize::from(seed % 2)] } else { "" };
        ctk(data, &["preview", "--set", &set(seed), "--out", &format!("{class}{seed}.png")])
    })
}

fn ctk(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output()?;
    if output.status.success() { Ok(()) } else { Err(Error::new(String::from_utf8_lossy(&output.stderr))) }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}
