//! The vocabulary of a static student: its teacher's pieces, without those that no text has, and words of its own.
//!
//! `[unused…]` pieces and special tokens are dropped from WordPiece and word-level tokenizers, and the others are numbered anew in the same
//! order. Other kinds of tokenizers keep all their pieces, because their merges and scores refer to them; rows that no text looks up are
//! zeros.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ctk_core::{Context, Error, Result, opened};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, Tokenizer,
};

use super::teacher::Teacher;
use crate::sentences::table;
use crate::sentences::tokenizing::before;

/// What a student's rows are made of.
pub struct Vocabulary {
    /// Its tokenizer, which adds no special tokens.
    pub tokenizer: Tokenizer,
    /// The tokens by which the teacher reads each piece; none for a row of zeros.
    pub rows: Vec<Option<Vec<u32>>>,
    /// The token that stands for what is not known.
    pub unknown: Option<u32>,
    /// What was dropped, added and left out, to be said.
    pub notes: Vec<String>,
}

/// The names by which tokenizers know the token that fills up short texts.
const PADDING: [&str; 2] = ["[PAD]", "<pad>"];

impl Vocabulary {
    /// The vocabulary of a student of `teacher`, with the words `words`.
    ///
    /// # Errors
    /// Words for a tokenizer that cannot have any; words of which no text can have one.
    pub fn of(teacher: &Teacher, words: &[String]) -> Result<Vocabulary> {
        let mut notes = Vec::new();
        let tokenizer = teacher.tokenizer();
        let mut file: Value = serde_json::from_str(&tokenizer.to_string(false).map_err(Error::new)?)?;
        for own in ["truncation", "padding", "post_processor"] {
            file[own] = Value::Null;
        }
        let steps = teacher.described().rules.steps();
        if !steps.is_empty() {
            before(&mut file, steps);
        }
        let unknown = table::unknown(tokenizer);
        let special = special(teacher, &file, unknown);
        let [before, behind] = teacher.around();
        let by = |id: u32| [&before[..], &[id], behind].concat();
        let kind = file["model"]["type"].as_str().unwrap_or_default().to_string();
        let mut rows: Vec<Option<Vec<u32>>>;
        if kind == "WordPiece" || kind == "WordLevel" {
            let mut pieces: Vec<(u32, String)> = tokenizer.get_vocab(true).into_iter().map(|(piece, id)| (id, piece)).collect();
            pieces.sort_unstable();
            let all = pieces.len();
            let unused = |piece: &str| {
                let number = piece.strip_prefix("[unused").and_then(|rest| rest.strip_suffix(']'));
                number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
            };
            let kept = |id: &u32, piece: &str| !special.contains(id) || Some(*id) == unknown || is_padding(piece);
            pieces.retain(|(id, piece)| kept(id, piece) && !unused(piece));
            let numbers: HashMap<u32, u32> = pieces.iter().zip(0..).map(|((old, _), new)| (*old, new)).collect();
            renumber(&mut file, &numbers);
            rows = pieces.iter().map(|(id, _)| (!special.contains(id)).then(|| by(*id))).collect();
            if rows.len() < all {
                notes.push(format!(
                    "pieces that no text has are left out of the vocabulary ([unused…], special tokens): {}",
                    all - rows.len()
                ));
            }
        } else {
            let count = tokenizer.get_vocab(true).values().max().map_or(0, |last| *last as usize + 1);
            let known: HashSet<u32> = tokenizer.get_vocab(true).into_values().collect();
            rows = (0..count as u32).map(|id| (known.contains(&id) && !special.contains(&id)).then(|| by(id))).collect();
        }
        let own = if words.is_empty() { Vec::new() } else { added(&file, &kind, words, rows.len(), &mut notes)? };
        for (word, id) in &own {
            file["model"]["vocab"][word] = json!(id);
            rows.push(Some(teacher.word(word)?));
        }
        let tokenizer = read(&file)?;
        Ok(Vocabulary { unknown: table::unknown(&tokenizer), tokenizer, rows, notes })
    }
}

fn read(file: &Value) -> Result<Tokenizer> {
    Tokenizer::from_bytes(file.to_string()).map_err(|e| Error::new(format!("the student's tokenizer cannot be made: {e}")))
}

fn is_padding(piece: &str) -> bool {
    PADDING.contains(&piece)
}

/// The numbers of tokens that no text is cut into: those around a text, special ones, padding, and what stands for the unknown.
fn special(teacher: &Teacher, file: &Value, unknown: Option<u32>) -> HashSet<u32> {
    let added = file["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let added = added.iter().filter(|token| token["special"].as_bool() == Some(true)).filter_map(|token| token["id"].as_u64());
    let padding = PADDING.iter().filter_map(|name| teacher.tokenizer().token_to_id(name));
    let mut special: HashSet<u32> = added.map(|id| id as u32).chain(unknown).chain(padding).collect();
    special.extend(teacher.around().concat());
    special
}

/// Gives the pieces of a tokenizer's file their new numbers; those without one are removed.
fn renumber(file: &mut Value, numbers: &HashMap<u32, u32>) {
    let new = |id: &Value| id.as_u64().and_then(|id| numbers.get(&(id as u32)).copied());
    if let Some(vocabulary) = file["model"]["vocab"].as_object_mut() {
        vocabulary.retain(|_, id| new(id).is_some());
        vocabulary.values_mut().for_each(|id| *id = new(id).map_or(Value::Null, Value::from));
    }
    if let Some(added) = file["added_tokens"].as_array_mut() {
        added.retain(|token| new(&token["id"]).is_some());
        added.iter_mut().for_each(|token| token["id"] = new(&token["id"]).map_or(Value::Null, Value::from));
    }
}

/// The words that join a vocabulary of `first` pieces, in the form in which texts are cut into them, with their numbers.
fn added(file: &Value, kind: &str, words: &[String], first: usize, notes: &mut Vec<String>) -> Result<Vec<(String, usize)>> {
    if kind != "WordPiece" && kind != "WordLevel" {
        return Err(Error::usage(format!("words cannot be added to the teacher's tokenizer, which is {kind}"))
            .hint("give a teacher with a WordPiece tokenizer, as BERT's and MiniLM's, or leave out the words"));
    }
    let tokenizer = read(file)?;
    let longest = file["model"]["max_input_chars_per_word"].as_u64().unwrap_or(u64::MAX);
    let mut seen: HashSet<String> = HashSet::new();
    let (mut own, mut twice, mut known) = (Vec::new(), 0, 0);
    let mut split: (usize, Option<&String>) = (0, None);
    for word in words {
        match &pieces(&tokenizer, word)?[..] {
            [piece] if piece.chars().count() as u64 <= longest => {
                if tokenizer.token_to_id(piece).is_some() {
                    known += 1;
                } else if seen.insert(piece.clone()) {
                    own.push((piece.clone(), first + own.len()));
                } else {
                    twice += 1;
                }
            }
            _ => split = (split.0 + 1, split.1.or(Some(word))),
        }
    }
    notes.push(format!("words that join the vocabulary: {} of {}", own.len(), words.len()));
    for (what, count) in [
        ("words that stand twice, or differ only as the tokenizer does not see, so that they join once", twice),
        ("words that are pieces of the vocabulary already", known),
    ] {
        if count > 0 {
            notes.push(format!("{what}: {count}"));
        }
    }
    if let (count, Some(example)) = split {
        let what = "words that the tokenizer never cuts texts into, because it divides them";
        notes.push(format!("{what}: {count} (the first: `{example}`)"));
        if count == words.len() {
            return Err(Error::usage(format!("{what}: all {count}, such as `{example}`"))
                .hint("a word has no space and no punctuation in it"));
        }
    }
    Ok(own)
}

/// What the tokenizer's normalisation and first cut make of a text.
fn pieces(tokenizer: &Tokenizer, text: &str) -> Result<Vec<String>> {
    let fails = |e: tokenizers::Error| Error::new(format!("the tokenizer fails: {e}"));
    let mut normalised = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut normalised).map_err(fails)?;
    }
    let mut cut = PreTokenizedString::from(normalised);
    if let Some(first) = tokenizer.get_pre_tokenizer() {
        first.pre_tokenize(&mut cut).map_err(fails)?;
    }
    let splits = cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
    Ok(splits.into_iter().map(|(piece, ..)| piece.to_string()).filter(|piece| !piece.is_empty()).collect())
}

/// The words of a file, one a line; blank lines do not count.
///
/// # Errors
/// A file that cannot be read, or has no word.
pub fn words(path: &Path) -> Result<Vec<String>> {
    let text = opened::text(path).at(path.display())?;
    let words: Vec<String> = text.lines().map(str::trim).filter(|word| !word.is_empty()).map(String::from).collect();
    if words.is_empty() {
        return Err(Error::usage("there is no word in this file").at(path.display()).hint("write one word on each line"));
    }
    Ok(words)
}

/// The most frequent `count` words of `texts` that are no pieces of the tokenizer, as it cuts them; of equally frequent ones the first by
/// its bytes.
///
/// # Errors
/// The tokenizer fails.
pub fn frequent(tokenizer: &Tokenizer, texts: &[&str], count: usize) -> Result<Vec<String>> {
    let count_of = |texts: &[&str]| -> Result<HashMap<String, u64>> {
        let mut counts: HashMap<String, u64> = HashMap::new();
        for text in texts {
            pieces(tokenizer, text)?.into_iter().for_each(|piece| *counts.entry(piece).or_default() += 1);
        }
        Ok(counts)
    };
    let counts = texts.par_chunks(4096).map(count_of).try_reduce(HashMap::new, |mut all, more| {
        more.into_iter().for_each(|(word, count)| *all.entry(word).or_default() += count);
        Ok(all)
    })?;
    let mut all: Vec<(String, u64)> = counts.into_iter().filter(|(word, _)| tokenizer.token_to_id(word).is_none()).collect();
    all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(all.into_iter().take(count).map(|(word, _)| word).collect())
}
