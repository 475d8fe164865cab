//! What is measured on held-out samples while an encoder trains.

use std::collections::HashMap;

use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::eval::retrieval::{self, Relevant, retrieval};
use ctk_core::eval::{Features, sts};
use ctk_core::nn::pass::Precision;
use ctk_texts::pairs::Kind;

use super::data::TokenPairs;
use super::encoder::encode;
use crate::tokens::TokenEncoder;

/// A measurement on held-out pairs, triplets or scored pairs.
pub struct Measure<'a> {
    data: &'a TokenPairs<'a>,
}

impl<'a> Measure<'a> {
    /// The measurement for this data; none for data that has no pairs.
    pub fn of(data: &'a TokenPairs<'a>) -> Option<Measure<'a>> {
        let paired = matches!(data.pairs().kind(), Kind::Pairs | Kind::Triplets | Kind::Scored);
        (paired && !data.pairs().is_empty()).then_some(Measure { data })
    }

    fn scored(&self) -> bool {
        self.data.pairs().kind() == Kind::Scored
    }

    /// Its JSON name.
    pub fn name(&self) -> &'static str {
        if self.scored() { "dev_spearman" } else { "dev_recall_at_1" }
    }

    /// The measurement in words.
    pub fn what(&self) -> String {
        let samples = self.samples();
        match self.scored() {
            true => format!("Spearman correlation of cosines with the scores of {samples} held-out pairs"),
            false => format!("anchors of {samples} held-out samples that find their positive first"),
        }
    }

    /// A value to print.
    pub fn shown(&self, value: f64) -> String {
        if self.scored() { format!("{value:.3}") } else { format!("{:.1} %", 100.0 * value) }
    }

    /// Samples that it is made on.
    pub fn samples(&self) -> usize {
        self.data.pairs().len()
    }

    /// The measured value of an encoder: more is better.
    ///
    /// # Errors
    /// The device fails; features that are not finite; the process was asked to end.
    pub fn value(&self, encoder: &TokenEncoder) -> Result<f64> {
        let rows = |column: usize, of: &[usize]| -> Result<Features> {
            let tokens: Vec<&[u32]> = of.iter().map(|&index| self.data.tokens(index, column)).collect();
            let mut rows = Vec::new();
            encode(encoder, Precision::F32, &tokens, &mut rows)?;
            let width = rows.len() / of.len().max(1);
            Ok(Features { rows, width, names: vec![String::new(); of.len()], ..Features::default() })
        };
        let all: Vec<usize> = (0..self.samples()).collect();
        if self.scored() {
            let scores: Vec<f64> = all.iter().map(|&at| self.data.pairs().score(at).unwrap_or_default().into()).collect();
            // Without an order, if all scores are equal, there is no correlation: 0.
            return Ok(sts::sts(&rows(0, &all)?, &rows(1, &all)?, &scores, None)?.spearman.unwrap_or_default());
        }
        // Equal texts are one query, or one document; a query has all positives of its anchor.
        let (anchors, queries) = self.distinct(0);
        let (positives, documents) = self.distinct(1);
        let mut relevance: Vec<Relevant> = vec![Vec::new(); queries.len()];
        for (anchor, positive) in anchors.iter().zip(&positives) {
            if !relevance[*anchor].iter().any(|(document, _)| document == positive) {
                relevance[*anchor].push((*positive, 1.0));
            }
        }
        let found = retrieval(&rows(0, &queries)?, &rows(1, &documents)?, &relevance, &retrieval::Options::default())?;
        Ok(found.first)
    }

    /// The number of each sample's text in `column` among different texts, and for each of these a sample that has it.
    fn distinct(&self, column: usize) -> (Vec<usize>, Vec<usize>) {
        let mut first = Vec::new();
        let mut seen = HashMap::new();
        let number = |index: usize| {
            *seen.entry(self.data.pairs().content(index, column)).or_insert_with(|| {
                first.push(index);
                first.len() - 1
            })
        };
        let numbers = (0..self.samples()).map(number).collect();
        (numbers, first)
    }
}
