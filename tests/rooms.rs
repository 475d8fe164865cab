//! Tests of the architecture: which files may name what, and what may exist only once.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source in the given folders, as (path from the root, text).
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folders:?} hold no sources: has a folder moved?");
    found.sort();
    found
}

/// The part of a file before its unit tests, without comments.
fn shipped(text: &str) -> String {
    let body = text.split("\n#[cfg(test)]\nmod ").next().unwrap();
    body.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

const LIBRARIES: [&str; 10] = [
    "alloc/src",
    "kernels/src",
    "cuda/src",
    "core/src",
    "hub/src",
    "data/images/src",
    "data/texts/src",
    "modalities/vision/src",
    "modalities/text/src",
    "modalities/image-text/src",
];

/// Files of `folders` whose code contains one of `words`, except those in `allowed`.
fn naming(folders: &[&str], words: &[&str], allowed: &[&str]) -> Vec<String> {
    sources(folders)
        .into_iter()
        .filter(|(name, text)| {
            let tests = name.ends_with("tests.rs") || name.contains("/tests/");
            let text = if tests { String::new() } else { shipped(text) };
            words.iter().any(|w| text.contains(w)) && !allowed.iter().any(|a| name.starts_with(a))
        })
        .map(|(name, _)| name)
        .collect()
}

fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(manifest)).unwrap();
    let table: toml::Table = text.parse().unwrap();
    table["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn dependencies_run_one_way() {
    let core = dependencies("core/Cargo.toml");
    for foreign in [
        "image",
        "tokenizers",
        "ureq",
        "clap",
        "indicatif",
        "ctk-hub",
        "ctk-images",
        "ctk-texts",
        "ctk-vision",
        "ctk-text",
        "ctk-image-text",
        "ctk",
    ] {
        assert!(!core.iter().any(|d| d == foreign), "core depends on {foreign}");
    }
    let kernels = dependencies("kernels/Cargo.toml");
    assert!(!kernels.iter().any(|d| d.starts_with("ctk-") || d.starts_with("candle")), "kernels stand below all: {kernels:?}");
    assert_eq!(dependencies("cuda/Cargo.toml"), ["bytemuck", "ctk-kernels", "cudarc"]);
    assert_eq!(dependencies("hub/Cargo.toml"), ["ctk-core", "hf-hub", "sha2", "ureq"]);
    for data in ["data/images/Cargo.toml", "data/texts/Cargo.toml"] {
        let names = dependencies(data);
        let ours: Vec<&str> = names.iter().map(String::as_str).filter(|d| d.starts_with("ctk")).collect();
        assert!(ours.iter().all(|d| ["ctk-core", "ctk-hub"].contains(d)), "{data} depends on {ours:?}");
    }
    for modality in ["modalities/vision/Cargo.toml", "modalities/text/Cargo.toml"] {
        let names = dependencies(modality);
        for foreign in ["clap", "indicatif", "ctk", "ctk-vision", "ctk-text", "ctk-image-text"] {
            assert!(!names.iter().any(|d| d == foreign), "{modality} depends on {foreign}");
        }
    }
    // Above vision and text, whose encoders it builds.
    let names = dependencies("modalities/image-text/Cargo.toml");
    assert!(!names.iter().any(|d| ["clap", "indicatif", "ctk"].contains(&d.as_str())), "{names:?}");
    assert!(
        !dependencies("Cargo.toml").iter().any(|d| d.starts_with("candle") || d == "rayon"),
        "the command line names no tensor"
    );
    assert_eq!(naming(&["cli"], &["candle", "Tensor"], &[]), Vec::<String>::new());
}

#[test]
fn inside_core_data_flows_one_way() {
    // Recipes are plain data; layers depend on no model, models on no loss, losses on no training loop.
    for (room, above) in [
        ("recipe", &["nn", "model", "objective", "optim", "train", "store", "eval"][..]),
        ("nn", &["model", "objective", "optim", "train", "eval", "modality"]),
        ("model", &["objective", "train", "eval", "modality"]),
        ("objective", &["train", "eval", "modality"]),
        ("store", &["nn", "model", "objective", "optim", "train", "eval", "modality"]),
        ("data", &["nn", "model", "objective", "optim", "train", "store", "modality"]),
    ] {
        let words: Vec<String> = above.iter().map(|name| format!("crate::{name}::")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(naming(&[&format!("core/src/{room}")], &words, &["core/src/objective/testing.rs"]), Vec::<String>::new());
    }
    assert_eq!(naming(&["kernels/src"], &["candle", "ctk_core"], &[]), Vec::<String>::new());
    assert!(dependencies("kernels/Cargo.toml").iter().all(|d| !d.starts_with("ctk") && !d.starts_with("candle")));
}

#[test]
fn there_is_one_loop_one_writer_of_weights_and_one_of_files() {
    assert_eq!(naming(&LIBRARIES, &["pub fn fit<"], &[]), ["core/src/train/fit.rs"]);
    assert_eq!(naming(&LIBRARIES, &["safetensors::serialize_to_file"], &[]), ["core/src/store/checkpoint.rs"]);
    let writers = naming(&[&LIBRARIES[..], &["cli"]].concat(), &["fs::write(", "File::create(", "OpenOptions"], &[]);
    assert_eq!(writers, ["core/src/store/checkpoint.rs", "core/src/store/files.rs", "core/src/store/run.rs"]);
}

#[test]
fn libraries_do_not_print_and_draw_nothing_unseeded() {
    assert_eq!(naming(&LIBRARIES, &["println!", "eprintln!", "print!("], &[]), Vec::<String>::new());
    let unseeded = ["rand::rng()", "rand::random", "from_os_rng", "thread_rng", "Tensor::rand", "SystemTime"];
    assert_eq!(naming(&[&LIBRARIES[..], &["cli"]].concat(), &unseeded, &[]), Vec::<String>::new());
}

#[test]
fn unsafe_code_stays_in_kernels_row_stores_the_allocator_and_calls_of_devices() {
    let allowed = ["alloc/src/", "kernels/src/", "cuda/src/emulated.rs", "cuda/src/vendor", "modalities/text/src/word2vec/rows"];
    assert_eq!(
        naming(&[&LIBRARIES[..], &["cli"]].concat(), &["unsafe {", "unsafe fn", "unsafe impl"], &allowed),
        Vec::<String>::new()
    );
}

#[test]
fn every_file_says_what_it_is_for_and_is_one_room() {
    for (name, text) in sources(&[&LIBRARIES[..], &["cli", "tests"]].concat()) {
        assert!(text.starts_with("//! "), "{name} does not open with what it is for");
        let lines = text.lines().count();
        assert!(lines <= 600, "{name} has {lines} lines: has it several purposes?");
    }
}

#[test]
fn every_config_opens_with_its_command_and_its_result() {
    for modality in ["vision", "word2vec", "sentences"] {
        let folder = root().join("configs").join(modality);
        let mut count = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let header: String = text.lines().take_while(|l| l.starts_with('#')).collect();
            assert!(header.contains(&format!("ctk train {modality}")), "{} names no command", Path::new(&path).display());
            assert!(header.contains("easured"), "{} does not say what was measured", path.display());
            count += 1;
        }
        assert!(count > 0, "configs/{modality} is empty");
    }
}
