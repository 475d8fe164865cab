//! Texts as tokens, drawn in batches: every text is tokenised once, before training.

use std::collections::HashMap;

use ctk_core::data::dataset::Dataset;
use ctk_core::data::distinct::Arranged;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::objective::LossRecipe;
use ctk_core::rng::Key;
use ctk_core::{Error, Result};
use ctk_texts::pairs::cut::Cut;
use ctk_texts::pairs::{Kind, Pairs};

use super::tokenizing::{Tokenised, Tokenizing};
use crate::tokens::Tokens;

/// Texts that are tokenised at once.
const AT_ONCE: usize = 8192;

/// Samples whose lengths tell those of all.
const SAMPLES: usize = 512;

/// Samples as tokens.
pub struct TokenPairs<'a> {
    pairs: &'a Pairs,
    tokenizing: &'a Tokenizing,
    cut: Cut,
    /// The tokens of all different texts, one after the other; empty if texts are cut anew each time that they are drawn.
    ids: Vec<u32>,
    /// Where the tokens of a text end.
    ends: Vec<usize>,
    /// The number in `ends` of each sample's texts.
    places: Vec<u32>,
    /// Texts that are longer than the encoder reads.
    short: usize,
}

impl<'a> TokenPairs<'a> {
    /// Tokenises the texts of `pairs`. `cut` makes the views of texts that have no pair.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn new(pairs: &'a Pairs, tokenizing: &'a Tokenizing, cut: Cut) -> Result<TokenPairs<'a>> {
        let mut all = TokenPairs { pairs, tokenizing, cut, ids: vec![], ends: vec![], places: vec![], short: 0 };
        if all.cuts() {
            return Ok(all);
        }
        // A text is tokenised once for each prompt that is put before it.
        let columns = pairs.columns();
        let prompts: Vec<usize> = (0..columns)
            .map(|column| (0..column).find(|other| pairs.prompt(*other) == pairs.prompt(column)).unwrap_or(column))
            .collect();
        let mut seen: HashMap<(u32, usize), u32> = HashMap::new();
        let mut wanted: Vec<String> = Vec::new();
        all.places.reserve(pairs.len() * columns);
        for index in 0..pairs.len() {
            for (column, prompt) in prompts.iter().enumerate() {
                let content = pairs.content(index, column).unwrap_or(u32::MAX);
                let next = seen.len() as u32;
                let place = *seen.entry((content, *prompt)).or_insert(next);
                all.places.push(place);
                if place == next {
                    wanted.push([pairs.prompt(column), pairs.text(index, column)].concat());
                    if wanted.len() == AT_ONCE {
                        all.store(&mut wanted)?;
                    }
                }
            }
        }
        all.store(&mut wanted)?;
        Ok(all)
    }

    /// Whether views are parts of a text that are drawn anew each time.
    fn cuts(&self) -> bool {
        self.pairs.columns() == 1 && self.cut != Cut::Same
    }

    fn store(&mut self, wanted: &mut Vec<String>) -> Result<()> {
        for Tokenised { ids, short } in self.tokenizing.cut_all(wanted)? {
            self.ids.extend(ids);
            self.ends.push(self.ids.len());
            self.short += usize::from(short);
        }
        wanted.clear();
        Ok(())
    }

    /// Views of a sample.
    pub fn views(&self) -> usize {
        self.pairs.columns().max(2)
    }

    /// Different texts that are longer than the encoder reads, and all different texts; none if texts are cut anew each time.
    pub fn short(&self) -> Option<(usize, usize)> {
        (!self.cuts()).then_some((self.short, self.ends.len()))
    }

    /// Texts that were tokenised, and their tokens; none if texts are cut anew each time.
    pub fn tokenised(&self) -> Option<(usize, usize)> {
        (!self.cuts()).then_some((self.ends.len(), self.ids.len()))
    }

    /// Tokens of an average text; none if texts are cut anew each time.
    pub fn mean_length(&self) -> Option<f64> {
        (!self.ends.is_empty()).then(|| self.ids.len() as f64 / self.ends.len() as f64)
    }

    /// The tokens of sample `index` in `column`.
    pub fn tokens(&self, index: usize, column: usize) -> &[u32] {
        let place = self.places[index * self.pairs.columns() + column] as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.ids[start..self.ends[place]]
    }

    /// The numbers of tokens of the texts of some samples, spread over the data; texts that are cut anew each time are cut once.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn some_lengths(&self) -> Result<Vec<usize>> {
        let count = self.pairs.len().min(SAMPLES);
        let samples: Vec<u32> = (0..count).map(|at| (at * self.pairs.len() / count) as u32).collect();
        let batch = self.draw(&samples, Key::new(0).of("lengths"))?;
        Ok(batch.left.iter().flat_map(Tokens::lengths).collect())
    }

    /// The samples.
    pub fn pairs(&self) -> &Pairs {
        self.pairs
    }

    fn push(&self, index: usize, key: Key, left: &mut [Tokens]) -> Result<()> {
        if self.cuts() {
            let mut rng = key.at(index as u64).rng();
            let prompt = self.pairs.prompt(0);
            for (view, text) in left.iter_mut().zip(self.cut.draw(self.pairs.text(index, 0), &mut rng)) {
                view.push(&self.tokenizing.cut(&[prompt, text].concat())?.ids);
            }
            return Ok(());
        }
        let last = self.pairs.columns() - 1;
        left.iter_mut().enumerate().for_each(|(view, rows)| rows.push(self.tokens(index, view.min(last))));
        Ok(())
    }
}

impl Source for TokenPairs<'_> {
    type Batch = Batch<Tokens, ()>;

    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn per_epoch(&self) -> usize {
        self.pairs.per_epoch()
    }

    fn arrange(&self, order: &mut Vec<u32>, batch: usize, epoch: usize) -> Arranged {
        self.pairs.arrange(order, batch, epoch)
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let mut left = vec![Tokens::default(); self.views()];
        for &sample in samples {
            let at = sample as usize;
            self.push(at, key, &mut left).map_err(|e| e.at(self.pairs.name(at)))?;
        }
        let known = Known::of(self.pairs, samples, self.views());
        Ok(Batch { left, right: Vec::new(), samples: samples.to_vec(), known })
    }
}

/// What a loss needs of the data, and whether this kind has it.
///
/// # Errors
/// The loss needs classes or scores, and the data has none.
pub fn fits(loss: &LossRecipe, kind: Kind) -> Result<()> {
    let needs = loss.needs();
    let error = |what: &str, hint: &str| {
        let what = format!("[loss.{}] needs {what}, and the data has {}", loss.name(), kind.word());
        Err(Error::usage(what).hint(hint))
    };
    match kind {
        _ if needs.labels && kind != Kind::Labelled => error("a class for every text", "give a table with a column `label`"),
        _ if needs.scores && kind != Kind::Scored => error("a score for every pair", "give a table with a column `score`"),
        Kind::Scored if !needs.scores => {
            error("pairs that belong together", "use [loss.cosent] or [loss.cosine-similarity], which learn from scores")
        }
        Kind::Triplets if loss.name() != "ranking" => error("two views", "use [loss.ranking], which has negatives"),
        _ => Ok(()),
    }
}
