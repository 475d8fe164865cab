//! tests/matrix/*.toml as named tests: `cargo test --test matrix resume` runs the cases whose name contains it.

use std::path::{Path, PathBuf};

use ctk_core::modality::Modality;
use libtest_mimic::{Arguments, Trial};

const MODALITIES: &[&dyn Modality] = &[&ctk_vision::Vision, &ctk_text::Word2Vec];

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut trials = Vec::new();
    for file in files(&root.join("tests/matrix")) {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let cases = ctk::matrix::load(&file, MODALITIES).unwrap_or_else(|e| panic!("{e}"));
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
    assert!(!trials.is_empty());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// Every shipped config is checked; those on generated data also take a few steps.
fn config(modality: &'static dyn Modality, file: PathBuf) -> Vec<Trial> {
    let stem = format!("configs/{}/{}", modality.name(), file.file_name().unwrap().to_string_lossy());
    let checked = move || {
        let recipe = ctk_core::recipe::Recipe::read(&file)?;
        modality.plan(&recipe).map(|_| ())
    };
    vec![Trial::test(format!("{stem}/checks"), move || checked().map_err(|e: ctk_core::Error| e.to_string().into()))]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}
