//! Tests of reading and writing fastText's models: what was written is read back, damaged files are refused, the bytes of a file are those of
//! fastText's layout.

use std::path::Path;

use ctk_core::eval::Table;
use ctk_core::rng::Key;
use rand::RngCore;

use super::*;

fn args() -> Args {
    Args {
        width: 3,
        window: 5,
        epochs: 2,
        min_count: 1,
        negatives: 4,
        word_ngrams: 1,
        loss: Loss::NegativeSampling,
        kind: ModelKind::SkipGram,
        buckets: 11,
        min: 2,
        max: 4,
        rate_every: 100,
        subsample: 1e-4,
    }
}

fn vocabulary() -> Vocabulary {
    Vocabulary::new(["the", "naïve", "日本", "</s>"].map(str::to_string).to_vec(), vec![9, 5, 2, 1])
}

fn values(count: usize) -> Vec<f32> {
    let mut rng = Key::new(3).rng();
    (0..count).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect()
}

fn written(path: &Path) -> Vec<u8> {
    let vocabulary = vocabulary();
    let (input, output) = (values(15 * 3), values(4 * 3));
    write(&Parts { args: args(), vocabulary: &vocabulary, input: &input, output: &output }, path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn what_is_written_is_read_with_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let bytes = written(&path);
    assert!(bytes.starts_with(&MAGIC.to_le_bytes()));
    let model = open(&path).unwrap();
    assert_eq!(model.args, args());
    assert_eq!((model.vectors.words(), &model.counts[..]), (vocabulary().words(), vocabulary().counts()));
    assert_eq!((model.vectors.input(), model.vectors.width()), (&values(15 * 3)[..], 3));
    assert_eq!(model.vectors.subwords(), crate::subwords::Subwords { min: 2, max: 4, buckets: 11 });
    assert!(model.labels.is_empty() && model.notes.is_empty());
    // A line end has only its own row.
    assert_eq!(model.vectors.vector("</s>"), model.vectors.input()[9..12]);
    assert!(model.vectors.vector("unseen").iter().any(|&value| value != 0.0));
}

#[test]
fn the_layout_is_fasttexts() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = written(&folder.path().join("m.bin"));
    let mut wanted = Vec::new();
    for number in [793_712_314, 12, 3, 5, 2, 1, 4, 1, 2, 2, 11, 2, 4, 100] {
        wanted.extend(i32::to_le_bytes(number));
    }
    wanted.extend(1e-4f64.to_le_bytes());
    [4i32, 4, 0].iter().for_each(|number| wanted.extend(number.to_le_bytes()));
    [17i64, -1].iter().for_each(|number| wanted.extend(number.to_le_bytes()));
    wanted.extend(b"the\0\x09\0\0\0\0\0\0\0\0");
    assert_eq!(bytes[..wanted.len()], wanted);
    assert_eq!(bytes.len(), 64 + 28 + (3 + 6 + 6 + 4) + 4 * 10 + 2 * 17 + 4 * (15 + 4) * 3);
}

#[test]
fn a_file_that_ends_anywhere_is_refused_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let whole = written(&path);
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = open(&path).unwrap_err().to_string();
        assert!(error.contains("m.bin") && error.contains("hint: "), "{length}: {error}");
    }
}

#[test]
fn numbers_that_cannot_be_are_refused_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let whole = written(&path);
    let input = 64 + 28 + 19 + 40;
    let changed = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, damaged).unwrap();
        open(&path).unwrap_err().to_string()
    };
    let huge = i32::MAX.to_le_bytes();
    for (at, bytes, said) in [
        (0, &huge[..], "not a fastText model"),
        (0, &[0x1f, 0x8b], "compressed"),
        (0, &[0x28, 0xb5, 0x2f, 0xfd], "compressed"),
        (4, &13i32.to_le_bytes(), "version 13"),
        (8, &huge, "asks for"),
        (8, &0i32.to_le_bytes(), "width 0"),
        (32, &9i32.to_le_bytes(), "loss is number 9"),
        (36, &0i32.to_le_bytes(), "kind is number 0"),
        (40, &huge, "asks for"),
        (40, &(-1i32).to_le_bytes(), "-1 buckets"),
        (64, &[huge, huge, [0; 4]].concat(), "entries"),
        (64, &[4i32, 5, -1].map(i32::to_le_bytes).concat(), "-1 labels"),
        (64, &[4i32, 3, 1].map(i32::to_le_bytes).concat(), "3 words come first"),
        (84, &5i64.to_le_bytes(), "quantised"),
        (96, &(-5i64).to_le_bytes(), "count is negative"),
        (input, &[1], "quantised"),
        (input + 1, &i64::MAX.to_le_bytes(), "asks for"),
        (input + 17, &f32::NAN.to_le_bytes(), "the row of `the`"),
        (input + 17 + 4 * 3 * 5, &f32::INFINITY.to_le_bytes(), "bucket 1"),
        (input + 17 + 4 * 45, &[1], "quantised"),
    ] {
        let error = changed(at, bytes);
        assert!(error.contains(said) && error.contains("m.bin"), "{said}: {error}");
    }
    // All of them together, with sizes that agree with each other.
    let mut damaged = whole.clone();
    damaged[8..12].copy_from_slice(&huge);
    damaged[40..44].copy_from_slice(&huge);
    damaged[input + 1..input + 9].copy_from_slice(&(i64::from(i32::MAX) + 4).to_le_bytes());
    damaged[input + 9..input + 17].copy_from_slice(&i64::from(i32::MAX).to_le_bytes());
    std::fs::write(&path, damaged).unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("ends too early"));
}

#[test]
fn a_classifiers_labels_are_no_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let mut bytes = written(&path);
    // The last entry becomes a label, its row is removed, and the output table has one row.
    bytes[36..40].copy_from_slice(&3i32.to_le_bytes());
    bytes[64..76].copy_from_slice(&[4i32, 3, 1].map(i32::to_le_bytes).concat());
    let input = 64 + 28 + 19 + 40;
    bytes[input - 1] = 1;
    bytes[input + 1..input + 9].copy_from_slice(&14i64.to_le_bytes());
    bytes.drain(input + 17 + 9 * 4..input + 17 + 12 * 4);
    let output = input + 17 + 14 * 12;
    bytes[output + 1..output + 9].copy_from_slice(&1i64.to_le_bytes());
    bytes.truncate(output + 17 + 12);
    std::fs::write(&path, &bytes).unwrap();
    let model = open(&path).unwrap();
    assert_eq!((model.vectors.words(), &model.labels[..]), (&vocabulary().words()[..3], &[("</s>".to_string(), 1)][..]));
    assert_eq!(model.vectors.place("</s>"), None);
    // Classifiers of version 11 had no n-grams.
    bytes[4..8].copy_from_slice(&11i32.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let old = open(&path).unwrap();
    assert_eq!(old.vectors.vector("the"), values(3));
}

#[test]
fn n_grams_of_words_that_are_not_utf_8_are_those_of_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let mut bytes = written(&path);
    bytes[92] = 0xff;
    std::fs::write(&path, bytes).unwrap();
    let model = open(&path).unwrap();
    assert_eq!(model.vectors.words()[0], "\u{fffd}he");
    assert!(model.notes[0].contains("UTF-8"));
    let (mut ids, mut other) = (Vec::new(), Vec::new());
    model.vectors.subwords().ids_of(b"\xffhe", &mut ids);
    model.vectors.subwords().ids("\u{fffd}he", &mut other);
    assert_ne!(ids, other);
    let rows: Vec<usize> = std::iter::once(0).chain(ids.iter().map(|id| 4 + *id as usize)).collect();
    let mut wanted = vec![0.0; 3];
    crate::subwords::mean(model.vectors.input(), rows.into_iter(), &mut wanted);
    let mut room = Vec::new();
    assert_eq!(model.vectors.block(0..1, &mut room).unwrap(), wanted);
    assert_eq!(model.vectors.vector("\u{fffd}he"), wanted, "by the name that it has here");
}

#[test]
fn models_of_2016_are_said_to_be_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let whole = written(&path);
    std::fs::write(&path, &whole[8..]).unwrap();
    assert_eq!(crate::vectors::look(&path).unwrap(), Some(crate::vectors::Format::FastText));
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("a fastText model of 2016") && error.contains("hint: ") && error.contains(".vec"), "{error}");
    for other in [&b"two words\n"[..], &[0; 100], &[1; 100]] {
        std::fs::write(&path, other).unwrap();
        assert!(!open(&path).unwrap_err().to_string().contains("2016"));
    }
}

#[test]
fn words_that_never_occurred_are_written_as_if_they_had_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let vocabulary = Vocabulary::new(["a", "b", "c"].map(str::to_string).to_vec(), vec![4, 0, 0]);
    let (input, output) = (values(14 * 3), values(3 * 3));
    write(&Parts { args: args(), vocabulary: &vocabulary, input: &input, output: &output }, &path).unwrap();
    assert_eq!(open(&path).unwrap().counts, [4, 1, 1]);
    assert_eq!(std::fs::read(&path).unwrap()[76..84], 6i64.to_le_bytes());
}

#[test]
fn what_the_format_cannot_hold_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.bin");
    let (input, output) = (values(12 * 3), values(3));
    let fails = |word: &str, input: &[f32]| {
        let vocabulary = Vocabulary::new(vec![word.to_string()], vec![1]);
        write(&Parts { args: args(), vocabulary: &vocabulary, input, output: &output }, &path).unwrap_err().to_string()
    };
    assert!(fails("a\0b", &input).contains("a\\0b"));
    assert!(fails("a", &input[..33]).contains("tables of 33"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
