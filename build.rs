//! Tells the tests whether real data is there: without CTK_DATA they show as ignored. Tells `ctk --version` the commit, where git knows it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=CTK_DATA");
    println!("cargo::rustc-check-cfg=cfg(ctk_data)");
    if std::env::var_os("CTK_DATA").is_some() {
        println!("cargo::rustc-cfg=ctk_data");
    }
    // Of a release alone: every commit would build all tests anew.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        if let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) {
            println!("cargo::rustc-env=CTK_COMMIT={commit}");
        }
        // What changes when another commit is checked out.
        for name in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", name]).filter(|path| std::path::Path::new(path).is_file()) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
}

/// What git says, if this is its checkout: a clone, not a package that lies inside another project's.
fn git(arguments: &[&str]) -> Option<String> {
    if !std::path::Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string())
}
