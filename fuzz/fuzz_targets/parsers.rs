//! Runs the parser that `CTK_PARSER` names on libFuzzer's input.

#![no_main]

#[path = "../parsers.rs"]
mod parsers;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static PARSER: OnceLock<(parsers::Parser, tempfile::TempDir)> = OnceLock::new();
    let (parser, folder) = PARSER.get_or_init(|| {
        let name = std::env::var("CTK_PARSER").expect("CTK_PARSER names a parser");
        let parser = parsers::PARSERS.into_iter().find(|parser| parser.name == name).expect("CTK_PARSER names a parser");
        (parser, tempfile::tempdir().expect("a folder for files"))
    });
    (parser.read)(bytes, folder.path());
});
