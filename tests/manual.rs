//! The manual's pages and what the program says of itself.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn ctk(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ctk")).current_dir(folder).args(arguments).output().expect("ctk starts")
}

fn stdout(folder: &Path, arguments: &[&str]) -> String {
    let output = ctk(folder, arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_verb_has_a_page_with_its_examples() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = stdout(at, &["man", "pages"]);
    let pages: Vec<_> = fs::read_dir(at.join("pages")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(told.trim(), format!("{} pages in pages", pages.len()));
    for verb in ["", "-train", "-eval-linear-probe", "-config-keys", "-man"] {
        let page = fs::read_to_string(at.join(format!("pages/ctk{verb}.1"))).unwrap();
        assert!(page.contains(".TH ctk"), "{verb}: {page}");
    }
    let train = fs::read_to_string(at.join("pages/ctk-train.1")).unwrap();
    assert!(train.contains("Examples:") && train.contains("\\-\\-resume"), "{train}");
    let again = ctk(at, &["man", "pages"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
    stdout(at, &["man", "pages", "--force"]);
}

#[test]
fn the_version_says_commit_features_and_instruction_set() {
    let folder = tempfile::tempdir().unwrap();
    let version = stdout(folder.path(), &["--version"]);
    assert!(version.starts_with(concat!("ctk ", env!("CARGO_PKG_VERSION"), " (commit ")), "{version}");
    let portable = Command::new(env!("CARGO_BIN_EXE_ctk")).arg("--version").env("CTK_ISA", "portable").output().unwrap();
    let portable = String::from_utf8(portable.stdout).unwrap();
    assert!(portable.contains("features: ") && portable.trim().ends_with("instruction set: portable)"), "{portable}");
    assert_eq!(version.lines().count(), 1);
}
