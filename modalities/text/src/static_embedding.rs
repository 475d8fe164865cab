//! Writes word vectors as a folder that sentence-transformers opens: a `StaticEmbedding` module, in which a text's vector is the mean of
//! its words' rows.
//!
//! `modules.json` names one module, in `0_StaticEmbedding/`: `tokenizer.json` cuts texts as the run's corpus was cut, and
//! `model.safetensors` holds `embedding.weight`, a row for each token. A word outside the vocabulary is `[UNK]`, a row of zeros: it makes a
//! text's vector shorter without changing its direction, so that cosines are those of the known words.

use std::io::Write;
use std::path::Path;

use candle_core::{Device, Tensor};
use ctk_core::eval::Table;
use ctk_core::{Error, Result, store::files, store::safetensors_header};
use ctk_texts::corpus::{Normalise, Reading, Tokens};
use tokenizers::Tokenizer;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, NFKC, NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};

use crate::modules;

/// Rows that are read at once.
const BLOCK: usize = 256;

/// The module's folder.
const MODULE: &str = "0_StaticEmbedding";

/// Writes the folder `out`, and returns notes. `reading` is how the text was cut that the words were learned from. The folder's tokenizer
/// cuts texts in the same way, but does not join phrases, which no tokenizer file can do. With subwords, only words of the vocabulary have
/// rows.
///
/// # Errors
/// Something other than an empty folder exists at `out`; there are no rows; or the table cannot be read.
pub fn write(words: &dyn Table, reading: Reading, out: &Path) -> Result<Vec<String>> {
    if words.is_empty() {
        return Err(Error::new("there are no words to export"));
    }
    let mut notes = reading.notes.clone();
    notes.extend(lost(words, &reading, "the folder's tokenizer", "texts have to be joined before, and `ctk embed` joins them"));
    let (tokenizer, rows) = tokenizer(words, reading)?;
    files::folder_with(out, |folder| {
        let module = folder.join(MODULE);
        let text = tokenizer.to_string(true).map_err(Error::new)?;
        files::write(&module.join("tokenizer.json"), text.as_bytes())?;
        weights(words, &rows, &module.join("model.safetensors"))?;
        files::sync_folder(&module)?;
        modules::write(folder, &[("StaticEmbedding", MODULE)], Default::default())?;
        files::write(&folder.join("README.md"), card(words).as_bytes())
    })?;
    Ok(notes)
}

/// A tokenizer that cuts texts as [`write`]'s does, the table of its tokens (tokens, width), and notes.
///
/// # Errors
/// There are no words; the table cannot be read.
pub fn table(words: &dyn Table, reading: Reading) -> Result<(Tokenizer, Tensor, Vec<String>)> {
    if words.is_empty() {
        return Err(Error::usage("there are no words here"));
    }
    let mut notes = reading.notes.clone();
    notes.extend(lost(words, &reading, "the encoder's tokenizer", "texts have to be joined before"));
    let (tokenizer, places) = tokenizer(words, reading)?;
    let known = words.features()?;
    let mut rows = vec![0f32; places.len() * known.width];
    for (row, place) in rows.chunks_exact_mut(known.width).zip(&places) {
        if let Some(place) = place {
            row.copy_from_slice(known.row(*place));
        }
    }
    Ok((tokenizer, Tensor::from_vec(rows, (places.len(), known.width), &Device::Cpu)?, notes))
}

/// What `by`, a tokenizer, cannot do with these words; `instead` says what can be done about phrases.
fn lost(words: &dyn Table, reading: &Reading, by: &str, instead: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let phrases = reading.phrases.len();
    if phrases > 0 {
        notes.push(format!("{by} does not join the run's {phrases} phrases, since tokenizer files cannot: {instead}"));
    }
    let spaced = (0..words.len()).filter(|&row| words.name(row).contains(char::is_whitespace)).count();
    if spaced > 0 {
        notes.push(format!("words with white space in them, which no text of {by} is cut into: {spaced}"));
    }
    notes
}

/// Matches a capital sigma at the end of a word: after a cased letter and before none, ignoring marks between. By Unicode's rules its lower
/// case is ς there and σ everywhere else; a tokenizer's own lower-casing looks at one letter at a time.
const FINAL_SIGMA: &str = concat!(
    r"(?<=[\p{Cased}&&[^\p{Case_Ignorable}]]|[\p{Cased}&&[^\p{Case_Ignorable}]]\p{Case_Ignorable}",
    r"|[\p{Cased}&&[^\p{Case_Ignorable}]]\p{Case_Ignorable}{2}|[\p{Cased}&&[^\p{Case_Ignorable}]]\p{Case_Ignorable}{3})",
    r"Σ(?!(?>\p{Case_Ignorable}*)\p{Cased})",
);

/// The tokenizer, and the word's row of each token; none for a row of zeros.
fn tokenizer(words: &dyn Table, reading: Reading) -> Result<(Tokenizer, Vec<Option<usize>>)> {
    let mut normalizers: Vec<NormalizerWrapper> = match reading.normalise {
        Normalise::None => Vec::new(),
        Normalise::Nfc => vec![NFC.into()],
        Normalise::Nfkc => vec![NFKC.into()],
    };
    if reading.lowercase {
        let sigma = ReplacePattern::Regex(FINAL_SIGMA.to_string());
        normalizers.push(Replace::new(sigma, "ς").map_err(Error::new)?.into());
        normalizers.push(Lowercase.into());
    }
    let cut: PreTokenizerWrapper = match reading.tokens {
        Tokens::Whitespace => WhitespaceSplit.into(),
        Tokens::Words => Whitespace {}.into(),
        Tokens::Bert => BertPreTokenizer.into(),
        Tokens::File(tokenizer) => return pieces(words, *tokenizer, normalizers),
    };
    // The corpus can contain that word itself; no word contains a space.
    let names = || (0..words.len()).map(|row| words.name(row));
    let unknown = if names().any(|word| word == "[UNK]") { "[unknown word]" } else { "[UNK]" };
    // Of equal words the first counts.
    let vocabulary: Vec<(String, u32)> = std::iter::once(unknown).chain(names()).map(String::from).zip(0..).collect();
    let model = WordLevel::builder()
        .vocab(vocabulary.into_iter().rev().collect())
        .unk_token(unknown.to_string())
        .build()
        .map_err(Error::new)?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(sequence(normalizers)).map_err(Error::new)?.with_pre_tokenizer(Some(cut));
    Ok((tokenizer, std::iter::once(None).chain((0..words.len()).map(Some)).collect()))
}

/// The given tokenizer, preceded by the run's own normal form and case: a row for each token, zeros if it never occurred.
fn pieces(
    words: &dyn Table,
    mut tokenizer: Tokenizer,
    mut normalizers: Vec<NormalizerWrapper>,
) -> Result<(Tokenizer, Vec<Option<usize>>)> {
    normalizers.extend(tokenizer.get_normalizer().cloned());
    tokenizer.with_normalizer(sequence(normalizers)).map_err(Error::new)?;
    let places: std::collections::HashMap<&str, usize> = (0..words.len()).map(|row| (words.name(row), row)).collect();
    let tokens = tokenizer.get_vocab(true);
    let mut rows = vec![None; tokens.values().max().map_or(0, |&last| last as usize + 1)];
    for (token, id) in &tokens {
        // Words contain no white space: see `Reading::words`.
        rows[*id as usize] = places.get(token.trim()).copied();
    }
    Ok((tokenizer, rows))
}

fn sequence(mut normalizers: Vec<NormalizerWrapper>) -> Option<NormalizerWrapper> {
    match normalizers.len() {
        0 | 1 => normalizers.pop(),
        _ => Some(Sequence::new(normalizers).into()),
    }
}

/// Writes a safetensors file piece by piece, because the table is in memory already.
fn weights(words: &dyn Table, rows: &[Option<usize>], out: &Path) -> Result<()> {
    let head = safetensors_header::of_one("embedding.weight", [rows.len(), words.width()])?;
    files::write_with(out, |file| {
        file.write_all(&head)?;
        let (mut room, mut bytes) = (Vec::new(), Vec::new());
        // Consecutive rows are read together.
        let follows = |a: &Option<usize>, b: &Option<usize>| a.map(|a| a + 1) == *b && a.is_some();
        for run in rows.chunk_by(follows).flat_map(|run| run.chunks(BLOCK)) {
            bytes.clear();
            match run[0] {
                Some(first) => {
                    let values = words.block(first..first + run.len(), &mut room)?;
                    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                }
                None => bytes.resize(4 * words.width(), 0),
            }
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

fn card(words: &dyn Table) -> String {
    let about = format!(
        "{} words of {} values. A text's vector is the mean of its words'; words that are not known count as zeros.",
        words.len(),
        words.width()
    );
    modules::card(&["static-embedding"], "Word vectors trained by ctk", &about)
}

#[cfg(test)]
mod tests {
    use ctk_core::eval::Features;
    use ctk_texts::corpus::Found;

    use super::*;

    fn some() -> Features {
        let names = ["der", "straße", "[UNK]", "é"].map(str::to_string).to_vec();
        Features { rows: (1..=8).map(|i| i as f32).collect(), width: 2, names, ..Features::default() }
    }

    /// The folder as its reader sees it: the tokenizer, and a row for each token.
    fn opened(folder: &Path) -> (Tokenizer, Vec<Vec<f32>>) {
        let module = folder.join(MODULE);
        let tokenizer = Tokenizer::from_file(module.join("tokenizer.json")).unwrap();
        let tensors = candle_core::safetensors::load(module.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
        (tokenizer, tensors["embedding.weight"].to_vec2().unwrap())
    }

    #[test]
    fn words_are_cut_as_in_training_and_have_their_rows() {
        let folder = tempfile::tempdir().unwrap();
        for (tokens, text, rows) in [
            (
                "whitespace",
                "Der\u{a0}E\u{301} [UNK] Straße, nie",
                &[[1.0, 2.0], [7.0, 8.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]][..],
            ),
            ("words", "Straße,der", &[[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]),
            ("bert", "é..", &[[7.0, 8.0], [0.0, 0.0], [0.0, 0.0]]),
        ] {
            let reading = Reading {
                tokens: Tokens::named(tokens).unwrap(),
                lowercase: true,
                normalise: Normalise::Nfc,
                ..Reading::default()
            };
            let out = folder.path().join(tokens);
            write(&some(), reading, &out).unwrap();
            let (tokenizer, table) = opened(&out);
            let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
            let found: Vec<&[f32]> = ids.iter().map(|&id| &table[id as usize][..]).collect();
            assert_eq!(found, rows, "{tokens}");
            assert_eq!(table.len(), 5);
        }
        let again = write(&some(), Reading::default(), &folder.path().join("bert")).unwrap_err();
        assert_eq!(again.exit_code(), 2, "{again}");
    }

    #[test]
    fn a_word_that_is_written_like_the_unknown_one_keeps_its_row() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("m");
        write(&some(), Reading::default(), &out).unwrap();
        let (tokenizer, table) = opened(&out);
        let ids = tokenizer.encode("[UNK] Der", false).unwrap().get_ids().to_vec();
        assert_eq!(ids.iter().map(|&id| table[id as usize][0]).collect::<Vec<_>>(), [5.0, 0.0]);
    }

    #[test]
    fn a_tokenizers_pieces_keep_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.json");
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"Lowercase"},
            "pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,
            "model":{"type":"WordPiece","unk_token":"?","continuing_subword_prefix":"","max_input_chars_per_word":100,
            "vocab":{"?":0,"straße":2,"n":3,"der":7}}}"#;
        std::fs::write(&file, json).unwrap();
        let reading = Reading { tokens: Tokens::named(file.to_str().unwrap()).unwrap(), ..Reading::default() };
        write(&some(), reading, &folder.path().join("m")).unwrap();
        let (tokenizer, table) = opened(&folder.path().join("m"));
        let ids = tokenizer.encode("DER Straßen x", false).unwrap().get_ids().to_vec();
        assert_eq!(ids, [7, 2, 3, 0]);
        assert_eq!(ids.iter().map(|&id| table[id as usize][0]).collect::<Vec<_>>(), [1.0, 3.0, 0.0, 0.0]);
        assert_eq!(table.len(), 8);
    }

    /// The words of a text by the run's own reading, and by the folder's tokenizer.
    fn both(reading: impl Fn() -> Reading, text: &str, words: &Features) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        write(words, reading(), &folder.path().join("m")).unwrap();
        let (tokenizer, _) = opened(&folder.path().join("m"));
        let mut own = Vec::new();
        let known = |word: &str| words.names.iter().any(|name| name == word);
        text.lines().for_each(|line| {
            reading().words(line, |word| own.push(if known(word) { word.to_string() } else { "[UNK]".into() })).unwrap();
        });
        (own, tokenizer.encode(text, false).unwrap().get_tokens().to_vec())
    }

    #[test]
    fn a_folder_cuts_every_text_as_the_run_did() {
        // Capitals whose lower case depends on their neighbours or has several letters; marks, joiners, unusual white space.
        let text = "ΟΔΟΣ ΣΑΣ Σ ΑΣ. 'ΑΣ' ΑΣ'Α ΌΣΑ Ό\u{301}Σ\u{301} Α\u{ad}Σ Α·Σ ΣΣ ΣΙΣΥΦΟΣ σ ς ΑΣʰ ʰΣ \u{345}Σ ΑΣ'\nİSTANBUL ISI STRASSE ẞ ﬁN Ǆ Ⅷ ﾆﾎﾝ ＡＢＣ \
                    E\u{301}té\u{a0}x\u{2028}y\u{3000}z don't a-b_c 3.14 日本語 😀x \u{200b}w A\u{345}Σ";
        for tokens in ["whitespace", "words", "bert"] {
            for normalise in [Normalise::None, Normalise::Nfc, Normalise::Nfkc] {
                for lowercase in [false, true] {
                    let reading =
                        || Reading { tokens: Tokens::named(tokens).unwrap(), lowercase, normalise, ..Reading::default() };
                    let mut names = Vec::new();
                    reading().words(&text.replace('\n', " "), |word| names.push(word.to_string())).unwrap();
                    names.sort();
                    names.dedup();
                    let words = Features { rows: vec![1.0; names.len()], width: 1, names, ..Features::default() };
                    let (own, folder) = both(reading, text, &words);
                    assert_eq!(own, folder, "{tokens} {normalise:?} {lowercase}");
                    assert!(!own.contains(&"[UNK]".to_string()));
                }
            }
        }
    }

    #[test]
    fn what_a_folder_cannot_do_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let phrases = Found::by_spelling(["new_york"], "_", 1);
        let reading = Reading { phrases, notes: vec!["cut off".to_string()], ..Reading::default() };
        let names = ["new_york", "new york"].map(String::from).to_vec();
        let words = Features { rows: vec![1.0, 2.0], width: 1, names, ..Features::default() };
        let notes = write(&words, reading, &folder.path().join("m")).unwrap();
        assert!(notes[0] == "cut off" && notes[1].contains("1 phrases") && notes[2].ends_with("cut into: 1"), "{notes:?}");
    }
}
