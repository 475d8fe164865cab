//! Texts with their teacher's rows: what a student learns from, and what it is measured by.

use std::collections::HashSet;

use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::eval::correlation::spearman;
use ctk_core::eval::{Features, Table};
use ctk_core::model::supervised::Logits;
use ctk_core::nn::pass::Precision;
use ctk_core::rng::Key;
use ctk_core::store::rows::StoredRows;
use ctk_core::{Error, Result};
use ctk_texts::pairs::Pairs;

use crate::sentences::encoder::encode;
use crate::sentences::tokenizing::Tokenizing;
use crate::tokens::{TokenEncoder, Tokens};

/// Held-out texts with each of which a text is compared: those that follow.
const NEIGHBOURS: usize = 50;

/// Held-out texts that are compared at most.
const COMPARED: usize = 2000;

/// The different texts of some samples, in the order in which they are met, each behind its prompt.
pub fn different(pairs: &Pairs) -> Vec<String> {
    let prompts: HashSet<&str> = (0..pairs.columns()).map(|column| pairs.prompt(column)).collect();
    let columns = pairs.columns();
    let mut seen: HashSet<(&str, &str)> = HashSet::new();
    let mut all = Vec::new();
    for (at, text) in pairs.all_texts().enumerate() {
        let prompt = pairs.prompt(at % columns);
        if seen.insert((prompt, text)) {
            all.push(if prompts.len() == 1 && prompt.is_empty() { text.to_string() } else { [prompt, text].concat() });
        }
    }
    all
}

/// The rows `from..to` of a file as a table.
pub struct Part<'a> {
    /// The file.
    pub rows: &'a StoredRows,
    /// The first row.
    pub from: usize,
    /// The end.
    pub to: usize,
}

impl Table for Part<'_> {
    fn len(&self) -> usize {
        self.to - self.from
    }

    fn width(&self) -> usize {
        self.rows.width()
    }

    fn name(&self, _: usize) -> &str {
        ""
    }

    fn block<'a>(&'a self, range: std::ops::Range<usize>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
        self.rows.read(self.from + range.start..self.from + range.end, room)?;
        Ok(room)
    }
}

/// Texts as the student's tokens, with the rows that it learns.
pub struct Taught {
    ids: Vec<u32>,
    ends: Vec<usize>,
    /// The teacher's rows, one after the other.
    rows: Vec<f32>,
    /// Values of a row.
    pub width: usize,
    /// Texts without a token, which are left out.
    pub empty: usize,
    /// Texts that are longer than the student reads.
    pub short: usize,
}

impl Taught {
    /// `rows` are the teacher's for `texts`, of `width` values.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn new(texts: &[String], tokenizing: &Tokenizing, rows: Vec<f32>, width: usize) -> Result<Taught> {
        let mut taught = Taught { ids: vec![], ends: vec![], rows: Vec::with_capacity(rows.len()), width, empty: 0, short: 0 };
        for (text, row) in tokenizing.cut_all(texts)?.into_iter().zip(rows.chunks_exact(width)) {
            taught.short += usize::from(text.short);
            if text.ids.is_empty() {
                taught.empty += 1;
                continue;
            }
            taught.ids.extend(text.ids);
            taught.ends.push(taught.ids.len());
            taught.rows.extend_from_slice(row);
        }
        Ok(taught)
    }

    /// The tokens of text `index`.
    pub fn tokens(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.ids[start..self.ends[index]]
    }

    /// The teacher's rows of the first `count` texts, one after the other.
    pub fn rows(&self, count: usize) -> &[f32] {
        &self.rows[..count * self.width]
    }

    /// The teacher's row of text `index`.
    fn row(&self, index: usize) -> &[f32] {
        &self.rows[index * self.width..][..self.width]
    }

    /// Tokens of an average text.
    pub fn mean_length(&self) -> f64 {
        self.ids.len() as f64 / self.ends.len().max(1) as f64
    }

    /// How much a student agrees with the teacher about which of these texts are alike: Spearman's correlation of their cosines, over up to
    /// 2,000 texts, each compared with the 50 that follow.
    ///
    /// # Errors
    /// The device fails; features that are not finite; the process was asked to end.
    pub fn agreement(&self, student: &TokenEncoder) -> Result<f64> {
        let count = self.len().min(COMPARED);
        let tokens: Vec<&[u32]> = (0..count).map(|index| self.tokens(index)).collect();
        let mut own = Vec::new();
        encode(student, Precision::F32, &tokens, &mut own)?;
        let features = |rows: Vec<f32>| {
            let width = rows.len() / count.max(1);
            Features { rows, width, names: vec![String::new(); count], ..Features::default() }.normalised()
        };
        let (own, teachers) = (features(own), features(self.rows[..count * self.width].to_vec()));
        let pairs: Vec<(usize, usize)> =
            (0..count).flat_map(|a| (a + 1..count.min(a + 1 + NEIGHBOURS)).map(move |b| (a, b))).collect();
        let cosines = |of: &Features| -> Vec<f64> {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            pairs.iter().map(|(a, b)| dot(of.row(*a), of.row(*b))).collect()
        };
        if own.rows.iter().any(|value| !value.is_finite()) {
            return Err(Error::diverged("the student's features are not finite"));
        }
        // Without an order there is no correlation: 0.
        Ok(spearman(&cosines(&own), &cosines(&teachers)).unwrap_or_default())
    }
}

impl Source for Taught {
    type Batch = Batch<Tokens, Logits>;

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let batch = self.redraw(samples, key)?;
        let rows = samples.iter().flat_map(|sample| self.row(*sample as usize)).copied().collect();
        Ok(Batch { right: vec![Logits { rows, classes: self.width }], ..batch })
    }

    /// The texts alone: the second of two passes does not compute the loss.
    fn redraw(&self, samples: &[u32], _: Key) -> Result<Self::Batch> {
        let mut left = Tokens::default();
        samples.iter().for_each(|sample| left.push(self.tokens(*sample as usize)));
        Ok(Batch { left: vec![left], right: Vec::new(), samples: samples.to_vec(), known: Known::default() })
    }
}
