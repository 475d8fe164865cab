//! Absurd values as TOML: of every type, for a key of any type.

use std::path::Path;

/// The values to try for `key`; with `path` also files of wrong kinds, some of them in `folder`.
pub fn of(key: &str, path: bool, folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = [
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "1000000000",
        "4294967296",
        "1000000",
        "65536",
        "4096",
        "1",
        "0",
        "-1",
        "nan",
        "inf",
        "-inf",
        "1e308",
        "1e-308",
        "-1.5",
        "0.5",
        "true",
        "false",
        "1979-05-27",
        "\"\"",
        "\" \"",
        "\"none\"",
        "\"\\u0000\"",
        "\"🦀\"",
        "[]",
        "[[]]",
        "[0]",
        "[-1, nan]",
        "[1e308, -1e308]",
        "[-1e308, 1e308]",
        "[1e-308, 1e308]",
        "[\"\", \"\"]",
        "{}",
        "{ other = 1 }",
    ]
    .map(str::to_string)
    .into();
    all.push(format!("{:?}", "x".repeat(100_000)));
    all.push(format!("[{}]", "1, ".repeat(100_000)));
    all.push(format!("[{}]", "\"x\", ".repeat(100_000)));
    if key.ends_with("labels") {
        let amounts = ["1e-300%", "100%", "nan%", "inf%", "9223372036854775807-per-class", "99999999999999999999-per-class"];
        all.extend(amounts.map(|amount| format!("\"{amount}\"")));
    }
    if key.ends_with("cache") {
        let amounts = ["off", "0B", "1B", "999999999999999GB", "1e308GB", "-1GB", "nanGB"];
        all.extend(amounts.map(|amount| format!("\"{amount}\"")));
    }
    if key.ends_with("background") || key.ends_with("range") {
        all.extend(["\"#ffffff\"", "\"#fff\"", "\"#gggggg\"", "\"minmax\"", "[0, 1e308]"].map(str::to_string));
    }
    if path {
        let special = ["/dev/zero", "/dev/null", "/dev/full", "/", "-", "hf://", "hf://../..", "[", "/*/*/*.none"];
        all.extend(special.map(|path| format!("{path:?}")));
        all.push(format!("{:?}", fifo(folder)));
    }
    all
}

/// A named pipe without a writer.
pub fn fifo(folder: &Path) -> String {
    let path = folder.join("pipe");
    if !path.exists() {
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo starts").success());
    }
    path.display().to_string()
}
