//! Features of texts: each text of a table is a row, the mean of its words' vectors.
//!
//! The mean is the simplest representation of a text from word vectors (fastText's classifier begins with it; Shen et al. 2018 evaluate
//! it), so a linear classifier on it shows what the vectors contain.

use std::collections::HashMap;
use std::ops::Range;

use ctk_core::eval::{Features, NOTES, Table};
use ctk_core::modality::Query;
use ctk_core::rng::Key;
use ctk_core::{Context, Error, Result};
use ctk_texts::corpus::Reading;
use ctk_texts::labelled;
use ctk_texts::table::Texts;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use serde_json::json;

/// A row for each text: the mean of the rows of its words. Texts are cut by `reading`; each word is looked up as it is, then lower-cased,
/// then composed by `unseen`. Words without a vector are left out; a text without any is a row of zeros. The figure `missing` is the
/// fraction of words left out.
///
/// # Errors
/// The tokenizer fails; or, in a list of words (no classes, no white space), a word has no vector.
pub fn features(
    texts: Texts,
    words: &Features,
    reading: &Reading,
    unseen: impl Fn(&str) -> Option<Vec<f32>> + Sync,
) -> Result<Features> {
    let mut rows = HashMap::with_capacity(words.len());
    for (row, name) in words.names.iter().enumerate() {
        rows.entry(name.as_str()).or_insert(row);
    }
    let of = |text: &String| {
        let (mut sum, mut known, mut all) = (vec![0f64; words.width], 0u64, 0u64);
        // A line end is one for the corpus, too.
        for line in text.lines() {
            reading.words(line, |word| {
                all += 1;
                let mut add = |row: &[f32]| {
                    known += 1;
                    sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
                };
                match rows.get(word).or_else(|| rows.get(word.to_lowercase().as_str())) {
                    Some(row) => add(words.row(*row)),
                    None => unseen(word).iter().for_each(|row| add(row)),
                }
            })?;
        }
        Ok((sum.into_iter().map(|v| (v / known.max(1) as f64) as f32).collect::<Vec<f32>>(), all - known, all))
    };
    let found: Vec<(Vec<f32>, u64, u64)> = texts.texts.par_iter().map(of).collect::<Result<_>>()?;
    let bare = texts.labels.is_none() && texts.texts.iter().all(|text| text.split_whitespace().count() == 1);
    if let (true, Some(unknown)) = (bare, found.iter().position(|(_, missing, all)| missing == all)) {
        return Err(Error::usage(format!("`{}` is not in the vocabulary", texts.names[unknown]))
            .hint("a run with encoder.subwords has vectors of words that it never saw"));
    }
    let (missing, all) = found.iter().fold((0, 0), |(m, a), (_, missing, all)| (m + missing, a + all));
    Ok(Features {
        rows: found.into_iter().flat_map(|(row, ..)| row).collect(),
        width: words.width,
        names: texts.names,
        labels: texts.labels,
        classes: texts.classes,
        extras: vec![("missing", json!(missing as f64 / all.max(1) as f64))],
        ..Features::default()
    })
}

/// Names of vectors that were not learned: random directions with the words' lengths.
pub const BASELINES: &[&str] = &["random"];

/// The features that a table of word vectors gives: its own rows or, for data, a row for each text, read by `reading`.
///
/// # Errors
/// An unknown baseline, or data that cannot be read as [`Texts`].
pub fn answer(table: &impl Table, query: &Query, reading: impl FnOnce() -> Result<Reading>) -> Result<Features> {
    let mut words = table.features()?;
    match query.baseline.as_deref() {
        None => {}
        Some(name) if BASELINES.contains(&name) => random(&mut words, query.seed),
        Some(name) => return Err(Error::usage(format!("word vectors have no baseline `{name}`"))),
    }
    let Some(path) = &query.data else { return Ok(words) };
    let reading = reading()?;
    let by = labelled::Reading { encoding: reading.encoding, invalid: reading.invalid, ..labelled::Reading::default() };
    let (mut texts, origin) = labelled::read(path, &by)?.part(query.split).at(path.display())?;
    let mut notes = reading.notes.clone();
    notes.append(&mut texts.notes);
    let unseen = |word: &str| if query.baseline.is_none() { table.unseen(word) } else { None };
    let mut features = features(texts, &words, &reading, unseen).at(path.display())?;
    let empty = features.rows.chunks_exact(features.width.max(1)).filter(|row| row.iter().all(|v| *v == 0.0)).count();
    if empty > 0 {
        notes.push(format!("texts of which no word has a vector, so that their rows are zeros: {empty} of {}", features.len()));
    }
    features.extras.extend(origin.map(|origin| ("split", origin.into())));
    if !notes.is_empty() {
        features.extras.push((NOTES, notes.into()));
    }
    Ok(features)
}

/// The features of texts that are not in a file, read by `reading`.
///
/// # Errors
/// As for [`features`].
pub(crate) fn of_texts(table: &impl Table, texts: &[String], reading: &Reading) -> Result<Features> {
    let texts = Texts { names: texts.to_vec(), texts: texts.to_vec(), ..Texts::default() };
    features(texts, &table.features()?, reading, |word| table.unseen(word))
}

/// The error that word vectors have no classifier; its hint says what to use instead.
pub(crate) fn no_classifier() -> Error {
    Error::usage("word vectors have no classifier of texts, so they cannot predict classes").hint(
        "`ctk eval text-classification RUN TRAIN.tsv TEST.tsv` fits one and judges it; `ctk embed RUN --data TEXTS.tsv --out FILE.npy` \
         writes features for one of your own",
    )
}

/// The words of a run as a table whose rows are found by any spelling that its text is normalised from: normal form, case, phrases.
pub(crate) struct Spelt<'a, T> {
    /// The rows.
    pub table: &'a T,
    /// How the text was read; none if that is no longer known.
    pub reading: Option<Reading>,
}

impl<T: Table> Table for Spelt<'_, T> {
    fn len(&self) -> usize {
        self.table.len()
    }

    fn width(&self) -> usize {
        self.table.width()
    }

    fn name(&self, row: usize) -> &str {
        self.table.name(row)
    }

    fn block<'a>(&'a self, range: Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        self.table.block(range, room)
    }

    fn spelling(&self, name: &str) -> Option<String> {
        self.reading.as_ref()?.spelling(name)
    }

    fn unseen(&self, name: &str) -> Option<Vec<f32>> {
        self.table.unseen(&self.spelling(name).unwrap_or_else(|| name.to_string()))
    }
}

/// [`answer`] as a table, for which the words' own rows are not copied.
///
/// # Errors
/// As for [`answer`].
pub(crate) fn answer_table<'a>(
    table: &'a impl Table,
    query: &Query,
    reading: impl FnOnce() -> Result<Reading>,
) -> Result<Box<dyn Table + 'a>> {
    match (&query.data, &query.baseline) {
        (None, None) => Ok(Box::new(Spelt { table, reading: reading().ok() })),
        _ => Ok(Box::new(answer(table, query, reading)?)),
    }
}

/// Replaces the rows by random directions of the same lengths, to show what a classifier does without word vectors.
fn random(features: &mut Features, seed: u64) {
    let key = Key::new(seed).of("random baseline");
    features.rows.par_chunks_exact_mut(features.width).enumerate().for_each(|(row, values)| {
        let length = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let wanted = length(values);
        StandardNormal.sample_iter(key.at(row as u64).rng()).zip(values.iter_mut()).for_each(|(drawn, v): (f32, _)| *v = drawn);
        let scale = (wanted / length(values).max(f64::MIN_POSITIVE)) as f32;
        values.iter_mut().for_each(|v| *v *= scale);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctk_texts::corpus::Tokens;

    fn words() -> Features {
        let names = ["good", "bad", "Paris", "paris"].map(String::from).to_vec();
        Features { rows: vec![1.0, 0.0, 0.0, 1.0, 4.0, 4.0, 8.0, 2.0], width: 2, names, ..Features::default() }
    }

    #[test]
    fn a_text_is_the_mean_of_its_words() {
        let texts = Texts::parse("1\tgood bad good Good\n0\tnothing known\n1\tParis PARIS, bad\n").unwrap();
        assert_eq!((texts.labels.clone().unwrap(), &texts.classes[..]), (vec![1, 0, 1], &["0".to_string(), "1".to_string()][..]));
        let found = features(texts.clone(), &words(), &Reading::default(), |_| None).unwrap();
        assert_eq!((found.row(0), found.row(1), found.row(2)), (&[0.75, 0.25][..], &[0.0, 0.0][..], &[2.0, 2.5][..]));
        assert_eq!(found.extras, [("missing", json!(3.0 / 9.0))], "`PARIS,` has a comma");
        // Cut by the reading, in which the comma is a word of its own.
        let reading = Reading { tokens: Tokens::Words, lowercase: true, ..Reading::default() };
        let found = features(texts.clone(), &words(), &reading, |_| None).unwrap();
        assert_eq!((found.row(2), &found.extras[..]), (&[16.0 / 3.0, 5.0 / 3.0][..], &[("missing", json!(0.3))][..]));
        let made = features(texts, &words(), &reading, |word| (word == ",").then(|| vec![3.0, 0.0])).unwrap();
        assert_eq!((made.row(2), made.row(1)), (&[4.75, 1.25][..], &[0.0, 0.0][..]));
    }

    #[test]
    fn a_list_of_words_has_to_be_known() {
        let list = Texts::parse("good\nPARIS\n").unwrap();
        let found = features(list, &words(), &Reading::default(), |_| None).unwrap();
        assert_eq!(
            (&found.names[..], &found.rows[..]),
            (&["good".to_string(), "PARIS".to_string()][..], &[1.0, 0.0, 8.0, 2.0][..])
        );
        let unknown = || Texts::parse("good\nbetter\n").unwrap();
        let error = features(unknown(), &words(), &Reading::default(), |_| None).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("`better`"), "{error}");
        assert!(features(unknown(), &words(), &Reading::default(), |_| Some(vec![1.0, 1.0])).is_ok());
    }
}
