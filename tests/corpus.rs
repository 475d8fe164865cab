//! Runs every parser on the fuzzer's corpus without the fuzzer: its seeds (whole, cut short and damaged), and every file that once made it
//! fail. No parser may panic or hang.

#[path = "../fuzz/parsers.rs"]
mod parsers;

use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// The default number of damaged copies of a seed; `CTK_COPIES` sets another.
const COPIES: u64 = 40;
/// The time limit of a parser for all of its corpus; seconds are usual.
const LIMIT: Duration = Duration::from_secs(600);

/// A damaged copy of `seed`: cut short, with bytes changed, or with a piece doubled or removed. The same for the same number.
fn damaged(seed: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.len() as u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end.max(1)
    };
    let mut bytes = seed.to_vec();
    let (from, length) = (below(bytes.len()), below(16) + 1);
    let to = (from + length).min(bytes.len());
    match number % 4 {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(from..to)),
        2 => {
            let piece = bytes[from..to].to_vec();
            bytes.splice(from..from, piece);
        }
        _ => {
            for _ in 0..below(4) + 1 {
                let at = below(bytes.len());
                // Values at which lengths and counts often fail.
                let value = [0, 1, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
            }
        }
    }
    bytes
}

#[test]
fn no_parser_panics_or_hangs_on_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<String> =
        fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    let mut names: Vec<&str> = parsers::PARSERS.iter().map(|parser| parser.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names, "every parser has seeds, and no others are there");
    let copies = std::env::var("CTK_COPIES").map_or(COPIES, |copies| copies.parse().expect("CTK_COPIES is a number"));
    let mut wrong = Vec::new();
    for parser in parsers::PARSERS {
        let (done, waiting) = mpsc::channel();
        let folder = corpus.join(parser.name);
        let thread = std::thread::spawn(move || {
            let room = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let seed = fs::read(&path).unwrap();
                (parser.read)(&seed, room.path());
                for number in 0..copies {
                    // Printed only if it panics or hangs.
                    let _ = done.send(format!("{} damaged by {number}", path.display()));
                    (parser.read)(&damaged(&seed, number), room.path());
                }
            }
        });
        let begun = std::time::Instant::now();
        let mut last = String::new();
        while let Ok(at) = waiting.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
            last = at;
        }
        if begun.elapsed() >= LIMIT {
            wrong.push(format!("{} hangs at {last}", parser.name));
        } else if thread.join().is_err() {
            wrong.push(format!("{} panics at {last}", parser.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
