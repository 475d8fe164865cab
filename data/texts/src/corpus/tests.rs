//! Tests of reading files into a corpus, and of what is refused.

mod phrases;

use std::io::Write;

use ctk_core::rng::Key;
use rand::Rng as _;

use super::*;
use crate::files::find;

const ALL: Limits = Limits { min_count: 1, max_size: None };

fn file(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn read<'a>(files: &[impl AsRef<Path>], reading: &Reading, selection: impl Into<Selection<'a>>) -> Result<Corpus> {
    Corpus::read(files, reading, selection, &mut Room { limit: usize::MAX, folder: &mut || panic!("there is room") })
}

fn stream(corpus: &Corpus) -> Vec<u32> {
    corpus.stream.get(0..corpus.stream.len(), &mut Vec::new()).unwrap().to_vec()
}

/// Lines of the corpus as words again.
fn lines(corpus: &Corpus) -> Vec<String> {
    let words = corpus.vocabulary().words();
    stream(corpus)
        .split(|&id| id == END)
        .filter(|line| !line.is_empty())
        .map(|line| line.iter().map(|&id| words[id as usize].as_str()).collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn words_lines_and_counts_come_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "a.txt", b"b a a\n\n  c a\tb \r\nrare b");
    let corpus = read(&[path], &Reading::default(), Limits { min_count: 2, max_size: None }).unwrap();
    assert_eq!(corpus.tokens(), 8);
    assert_eq!(corpus.vocabulary().words(), ["a", "b"]);
    assert_eq!(corpus.vocabulary().counts(), [3, 3]);
    assert_eq!(lines(&corpus), ["b a a", "a b", "b"]);
    let two = Corpus::from_text("a a a b b c c c c\n", Limits { min_count: 1, max_size: Some(2) }).unwrap();
    assert_eq!(two.vocabulary().words(), ["c", "a"]);
}

#[test]
fn compression_folders_and_globs_read_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let text = "one two three\nfour two one\n".repeat(200);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    file(folder.path(), "x/plain.txt", text.as_bytes());
    file(folder.path(), "y/packed.gz", &gzip.finish().unwrap());
    file(folder.path(), "z/packed.zst", &zstd::encode_all(text.as_bytes(), 1).unwrap());
    file(folder.path(), "x/.hidden", b"hidden words");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let found = |paths: &[String]| read(&find(paths).unwrap(), &Reading::default(), ALL).unwrap();
    let plain = found(&[at("x/plain.txt")]);
    for path in ["x", "y", "z/packed.zst", "*/packed.gz"] {
        let other = found(&[at(path)]);
        assert_eq!((stream(&other), other.vocabulary()), (stream(&plain), plain.vocabulary()), "{path}");
    }
    assert_eq!(found(&[at("x"), at("**/packed.*")]).tokens(), 3 * plain.tokens());
    for wrong in ["nowhere.txt", "*.none"] {
        assert!(find(&[at(wrong)]).unwrap_err().to_string().contains("hint: "), "{wrong}");
    }
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(find(&[at("empty")]).unwrap_err().to_string().contains("no file in this folder"));
}

#[test]
fn pieces_change_nothing() {
    // Lines of all lengths, some far longer than a block, over several pieces and threads; compared with one plain split.
    let mut rng = Key::new(7).rng();
    let mut text = String::new();
    while text.len() < 9 << 20 {
        let words = if rng.random_range(0..200) == 0 { rng.random_range(0..60_000) } else { rng.random_range(0..40) };
        (0..words).for_each(|_| text.push_str(&format!("w{} ", rng.random_range(0..3000u32))));
        text.push('\n');
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "big.txt", text.as_bytes());
    let whole = Corpus::from_text(&text, ALL).unwrap();
    let pieces = read(&[path], &Reading::default(), ALL).unwrap();
    assert_eq!(pieces.vocabulary(), whole.vocabulary());
    assert!(stream(&pieces) == stream(&whole) && pieces.blocks == whole.blocks);

    // A file gives the same result, whether all numbers go there or only the rest.
    let path = folder.path().join("big.txt");
    for limit in [0, 1 << 20] {
        let mut asked = 0;
        let mut there = || {
            asked += 1;
            Ok(folder.path().to_path_buf())
        };
        let limits = Limits { min_count: 600, max_size: None };
        let mut room = Room { limit, folder: &mut there };
        let filed = Corpus::read(&[&path], &Reading::default(), limits, &mut room).unwrap();
        assert!(filed.in_file() && asked == 1);
        let kept = read(&[&path], &Reading::default(), limits).unwrap();
        assert!(stream(&filed) == stream(&kept) && filed.blocks == kept.blocks && filed.tokens() == kept.tokens());
        assert!(kept.len() > 1 && kept.vocabulary().len() < whole.vocabulary().len(), "words were dropped");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!((0..kept.len()).rev().all(|i| filed.block(i, &mut a).unwrap() == kept.block(i, &mut b).unwrap()));
    }
    let mut nowhere = Room { limit: 0, folder: &mut || Ok(folder.path().join("nowhere")) };
    let error = Corpus::read(&[&path], &Reading::default(), ALL, &mut nowhere).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn few_words_at_once_change_nothing() {
    // Words of all lengths, most of them rare, so that tables are full many times in every piece.
    let mut rng = Key::new(9).rng();
    let mut text = String::new();
    while text.len() < 9 << 20 {
        let word = (1.0 / rng.random_range(1e-5f64..1.0)) as u32;
        text.push_str(&format!("{:x}{}", word, if word.is_multiple_of(9) { "-and-a-long-tail-é" } else { "" }));
        text.push(if rng.random_range(0..20) == 0 { '\n' } else { ' ' });
    }
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "rare.txt", text.as_bytes());
    let limits = Limits { min_count: 3, max_size: Some(20_000) };
    let whole = Corpus::from_text(&text, limits).unwrap();
    assert!(whole.notes().is_empty());
    let mut counts = std::collections::HashMap::new();
    text.split_whitespace().for_each(|word| *counts.entry(word).or_insert(0u64) += 1);
    let vocabulary = whole.vocabulary();
    assert!(vocabulary.words().iter().zip(vocabulary.counts()).all(|(word, count)| counts[&**word] == *count));
    for (limit, in_memory, threads) in [(usize::MAX, 1, 3), (0, 1, 2), (1 << 20, 2_000, 2)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let selection = Selection { in_memory, ..Selection::from(limits) };
        let mut room = Room { limit, folder: &mut || Ok(folder.path().to_path_buf()) };
        let filed = pool.install(|| Corpus::read(&[&path], &Reading::default(), selection, &mut room)).unwrap();
        assert!(filed.notes()[0].contains("vocabulary.in_memory"), "{:?}", filed.notes());
        assert!(filed.vocabulary() == vocabulary && filed.tokens() == whole.tokens());
        assert!(stream(&filed) == stream(&whole) && filed.blocks == whole.blocks);
    }
    let mut nowhere = Room { limit: usize::MAX, folder: &mut || Ok(folder.path().join("nowhere")) };
    let selection = Selection { in_memory: 1, ..Selection::from(limits) };
    let error = Corpus::read(&[&path], &Reading::default(), selection, &mut nowhere).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("vocabulary.in_memory"), "{error}");
}

#[test]
fn known_words_are_kept_however_rare() {
    let known = ["z", "b", "rare", "absent"].map(String::from);
    let text = "a b a b a b\nc d c d c rare\n";
    let corpus = |max_size, min_count| {
        let limits = Limits { min_count, max_size };
        Corpus::from_text(text, Selection { known: &known, ..Selection::from(limits) }).unwrap()
    };
    let all = corpus(None, 2);
    let words = |corpus: &Corpus| corpus.vocabulary().words().join(" ");
    assert_eq!(words(&all), "a b c d rare absent z");
    assert_eq!(all.vocabulary().counts(), [3, 3, 3, 2, 1, 0, 0]);
    // Space for one word beside the known ones, and for none.
    assert_eq!((words(&corpus(Some(5), 2)), words(&corpus(Some(2), 2))), ("a b rare absent z".into(), "b rare absent z".into()));
    assert_eq!(words(&corpus(None, 9)), "b rare absent z");
    // The result taken as known words gives the same corpus: this is how a run is resumed.
    let again = Selection { known: all.vocabulary().words(), ..Selection::from(Limits { min_count: 2, max_size: None }) };
    assert_eq!(Corpus::from_text(text, again).unwrap().vocabulary(), all.vocabulary());
}

#[test]
fn blocks_hold_every_word_once_and_are_bounded() {
    let mut rng = Key::new(8).rng();
    for longest in [3, 50, 5000] {
        let stream: Vec<u32> =
            (0..30_000).map(|i| if rng.random_range(0..longest) == 0 || i == 29_999 { END } else { i }).collect();
        // In parts of any size.
        let mut cut = blocks::Cut::default();
        stream.chunks(7_001).for_each(|part| cut.push(part));
        let blocks = cut.finish().unwrap_or_default();
        let mut seen = Vec::new();
        for block in &blocks {
            let words: Vec<u32> = stream[block.clone()].iter().copied().filter(|&id| id != END).collect();
            assert!(!words.is_empty() && words.len() <= BLOCK, "{} words", words.len());
            seen.extend(words);
        }
        let all: Vec<u32> = stream.iter().copied().filter(|&id| id != END).collect();
        assert_eq!(seen, all, "lines of about {longest}");
    }
}

#[test]
fn bytes_that_are_no_text_are_refused_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "bad.txt", b"good words\nbad \xff\xfe byte\nand \xc3 more words\n");
    let refused = read(&[&path], &Reading::default(), ALL).unwrap_err().to_string();
    assert!(refused.contains("bad.txt: byte 15") && refused.contains("0xff") && refused.contains("hint: "), "{refused}");
    let lenient = Reading { invalid: Invalid::Replace, ..Reading::default() };
    let corpus = read(&[&path], &lenient, ALL).unwrap();
    assert!(corpus.notes()[0].contains("3 runs") && corpus.notes()[0].contains("byte 15"), "{:?}", corpus.notes());
    assert!(lines(&corpus)[1].starts_with("bad \u{fffd}"));
    let mark = file(folder.path(), "mark.txt", b"\xef\xbb\xbffirst word\n");
    assert_eq!(lines(&read(&[mark], &Reading::default(), ALL).unwrap()), ["first word"]);
}

#[test]
fn words_are_cut_lowered_and_normalised_as_asked() {
    let cut = |reading: &Reading, text: &str| {
        let mut words = Vec::new();
        reading.words(text, |word| words.push(word.to_string())).unwrap();
        words.join("|")
    };
    let with = |tokens: Tokens| Reading { tokens, ..Reading::default() };
    assert_eq!(cut(&with(Tokens::Whitespace), "Don't stop, Zoë!"), "Don't|stop,|Zoë!");
    assert_eq!(cut(&with(Tokens::Words), "Don't stop, Zoë!"), "Don|'|t|stop|,|Zoë|!");
    assert_eq!(cut(&with(Tokens::Bert), "a-b,,c"), "a|-|b|,|,|c");
    let lower = Reading { lowercase: true, normalise: Normalise::Nfkc, ..Reading::default() };
    assert_eq!(cut(&lower, "ﬁne Zoe\u{308} ÄB x²"), "fine|zoë|äb|x2");
    let nfc = Reading { normalise: Normalise::Nfc, ..Reading::default() };
    assert_eq!(cut(&nfc, "Zoe\u{308} ²"), "Zoë|²");
    assert!(Tokens::named("nonsense").unwrap_err().to_string().contains("hint: "));
    assert!(Tokens::named("nowhere.json").unwrap_err().to_string().contains("nowhere.json"));
}

#[test]
fn a_tokenizer_file_cuts_words() {
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"Lowercase"},
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"[UNK]":0,"a":1,"cat":2},"unk_token":"[UNK]"}}"#;
    let path = file(folder.path(), "tokenizer.json", json.as_bytes());
    let reading = Reading { tokens: Tokens::named(&path.display().to_string()).unwrap(), ..Reading::default() };
    let mut words = Vec::new();
    reading.words("A cat, a dog\n", |word| words.push(word.to_string())).unwrap();
    assert_eq!(words, ["a", "cat", "[UNK]", "a", "[UNK]"]);
}

#[test]
fn a_tokenizer_file_that_cuts_off_and_fills_up_reads_whole_texts_of_words() {
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"version":"1.0","added_tokens":[],"normalizer":null,"post_processor":null,"decoder":null,
        "truncation":{"direction":"Right","max_length":4,"strategy":"LongestFirst","stride":0},
        "padding":{"strategy":{"Fixed":6},"direction":"Right","pad_to_multiple_of":null,"pad_id":2,"pad_type_id":0,"pad_token":"[PAD]"},
        "pre_tokenizer":{"type":"WhitespaceSplit"},"model":{"type":"BPE","dropout":0.9,"unk_token":null,"continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
        "vocab":{"a":0,"b":1,"[PAD]":2,"ab":3},"merges":["a b"]}}"#;
    let path = file(folder.path(), "tokenizer.json", json.as_bytes());
    let recipe = crate::recipe::DataRecipe { tokens: path.display().to_string(), ..Default::default() };
    let reading = recipe.reading().unwrap();
    let text = file(folder.path(), "text.txt", "ab ab a b ab ab a\na b\n".repeat(30).as_bytes());
    let corpus = read(&[&text], &reading, ALL).unwrap();
    assert_eq!((corpus.tokens(), corpus.vocabulary().words()), (270, &["ab", "a", "b"].map(String::from)[..]));
    let note = &corpus.notes()[0];
    assert!(
        ["truncation (after 4 pieces)", "padding (with `[PAD]`)", "dropout (of 0.9"].iter().all(|part| note.contains(part)),
        "{note}"
    );
    assert!(note.contains("tokenizer.json"), "{note}");
}

#[test]
fn encodings_are_read_by_the_corpus_too_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let one = file(folder.path(), "a.txt", &utf_16("наш мир\nваш мир\n"));
    let two = file(folder.path(), "b.txt", &utf_16("наш дом\n"));
    let corpus = read(&[&one, &two], &Reading::default(), ALL).unwrap();
    assert_eq!(lines(&corpus), ["наш мир", "ваш мир", "наш дом"]);
    let note = &corpus.notes()[0];
    assert!(note.contains("2 files") && note.contains("a.txt") && note.contains("UTF-16LE, known by its zero bytes"), "{note}");
    let latin = file(folder.path(), "c.txt", b"caf\xe9 noir\n");
    let reading = |encoding: &str| crate::recipe::DataRecipe { encoding: encoding.into(), ..Default::default() }.reading();
    assert_eq!(lines(&read(&[&latin], &reading("latin1").unwrap(), ALL).unwrap()), ["café noir"]);
    let error = read(&[&latin], &reading("auto").unwrap(), ALL).unwrap_err().to_string();
    assert!(error.contains("c.txt: byte 3") && error.contains("data.encoding = \"windows-1252\""), "{error}");
    assert!(reading("latin-99").unwrap_err().to_string().contains("not an encoding"));
}

#[test]
fn what_cannot_be_learned_from_is_said() {
    let fails =
        |text: &str, min_count: u64| Corpus::from_text(text, Limits { min_count, max_size: None }).unwrap_err().to_string();
    assert!(fails("", 1).contains("the corpus is empty"));
    assert!(fails(" \n \n", 1).contains("the corpus is empty"));
    assert!(fails("word word word\n", 1).contains("one of the corpus's 1 different words"));
    assert!(fails("a b c\n", 2).contains("none of the corpus's 3 different words"));
    assert!(fails("a\nb\na\nb\n", 1).contains("no line of the corpus holds two words"));
}

#[test]
#[cfg_attr(not(ctk_data), ignore = "needs CTK_DATA")]
fn news_and_reviews_are_what_other_programs_read() {
    let text = Path::new(&std::env::var("CTK_DATA").expect("CTK_DATA names the folder of real data")).join("text");
    let limits = Limits { min_count: 5, max_size: None };
    let corpus = read(&[text.join("news-reviews-17m.txt")], &Reading::default(), limits).unwrap();
    // gensim counts the same.
    assert_eq!((corpus.tokens(), corpus.vocabulary().len()), (17_014_669, 55_601));
    let gold = text.join("word-benchmarks-en/gensim-4.4.0");
    let pairs = |name: &str| ctk_core::eval::similarity::read(&gold.join(name)).unwrap().len();
    assert_eq!((pairs("wordsim353.tsv"), pairs("simlex999.txt")), (353, 999));
    let questions = ctk_core::eval::analogy::read(&gold.join("questions-words.txt")).unwrap();
    assert_eq!((questions.len(), questions.iter().filter(|q| q.syntactic).count()), (19_544, 10_675));
}
