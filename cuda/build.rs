//! Joins the kernels' sources into one text, which is embedded for the run-time compiler. With the feature `emulated` the host's C++ compiler
//! compiles the same text.

#[cfg(feature = "emulated")]
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The sources, in their order.
const SOURCES: [&str; 7] = ["number", "elementwise", "norm", "pool", "update", "contrast", "text"];

/// What a kernel calls if its threads wait for each other.
const TOGETHER: [&str; 5] = ["__syncthreads", "lanes(", "mean_of(", "both_sums(", "largest("];

fn main() {
    println!("cargo::rerun-if-changed=src/kernels");
    println!("cargo::rerun-if-changed=src/emulated");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let read = |name: &&str| fs::read_to_string(format!("src/kernels/{name}.cu")).expect("a kernel's source");
    let text = SOURCES.iter().map(read).collect::<Vec<_>>().join("\n");
    let kernels = kernels(&text);
    let names: Vec<&str> = kernels.iter().map(|(name, _)| name.as_str()).collect();
    fs::write(out.join("kernels.cu"), &text).expect("the build's folder can be written");
    fs::write(out.join("kernels.txt"), names.join("\n")).expect("the build's folder can be written");
    emulated(&kernels, &out);
}

/// Every kernel by the name that the host calls, and whether its threads wait for each other.
fn kernels(text: &str) -> Vec<(String, bool)> {
    let body = |name: &str| {
        let from = text.match_indices(&format!(" {name}(")).find(|(at, _)| text[..*at].ends_with("void")).expect("its body").0;
        text[from..].split("\n}").next().unwrap_or_default()
    };
    let waits = |name: &str| TOGETHER.iter().any(|call| body(name).contains(call));
    let mut all = Vec::new();
    for line in text.lines() {
        let types: &[&str] = match line.split('(').next() {
            Some("FOR_EACH") => &["f32", "f64", "bf16"],
            Some("FOR_HALF") => &["bf16"],
            Some("FOR_REAL" | "FOR_REAL_LARGE") => &["f32", "f64"],
            _ => continue,
        };
        let name = line.split(['(', ',']).nth(1).expect("a kernel's name");
        all.extend(types.iter().map(|kind| (format!("{name}_{kind}"), waits(name))));
    }
    for name in ["merge", "sum_parts", "norms_of"] {
        all.push((name.to_string(), true));
    }
    all
}

#[cfg(not(feature = "emulated"))]
fn emulated(_: &[(String, bool)], _: &Path) {}

#[cfg(feature = "emulated")]
fn emulated(kernels: &[(String, bool)], out: &Path) {
    let mut names = String::new();
    for (name, waits) in kernels {
        writeln!(names, "{}({name})", if *waits { "TOGETHER" } else { "ALONE" }).expect("a string can be written");
    }
    fs::write(out.join("names.h"), names).expect("the build's folder can be written");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-ffp-contract=off")
        // It jumps between stacks, which a hardened longjmp takes for a mistake.
        .flag("-U_FORTIFY_SOURCE")
        .include(out)
        .include("src/emulated")
        .file("src/emulated/device.cpp")
        .warnings(false)
        .compile("ctk_emulated");
}
