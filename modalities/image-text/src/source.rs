//! Draws batches of pairs: a view of each image, and one of its captions.

use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::rng::Key;
use ctk_images::augment::Augment;
use ctk_text::sentences::tokenizing::Tokenizing;
use rand::Rng as _;

use crate::data::Captioned;
use crate::input::Input;
use crate::stored::{Found, Stored};

/// What the image tower reads.
#[derive(Clone, Copy)]
pub enum Images<'a> {
    /// Views of the images.
    Views(&'a Augment),
    /// Rows of a file, of each image.
    Stored(&'a Stored, &'a Found),
}

/// What the text tower reads.
#[derive(Clone, Copy)]
pub enum Captions<'a> {
    /// The tokens of all captions.
    Tokens(&'a Tokens),
    /// Rows of a file, of each caption.
    Stored(&'a Stored, &'a Found),
}

/// The tokens of many texts.
#[derive(Default)]
pub struct Tokens {
    /// One text after the other.
    ids: Vec<u32>,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl Tokens {
    /// The tokens of `texts`, with how many texts were cut and how many have no token.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn of(tokenizing: &Tokenizing, texts: &[String]) -> Result<(Tokens, [usize; 2])> {
        let (mut all, mut cut, mut empty) = (Tokens::default(), 0, 0);
        for text in tokenizing.cut_all(texts)? {
            cut += usize::from(text.short);
            empty += usize::from(text.ids.is_empty());
            all.ids.extend(text.ids);
            all.ends.push(all.ids.len());
        }
        Ok((all, [cut, empty]))
    }

    /// The tokens of text `at`.
    pub fn text(&self, at: u32) -> &[u32] {
        let at = at as usize;
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.ids[start..self.ends[at]]
    }

    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Tokens of a text, on average.
    pub fn mean(&self) -> f64 {
        self.ids.len() as f64 / self.ends.len().max(1) as f64
    }
}

/// Pairs of images and captions.
pub struct Pairs<'a> {
    /// The images with the numbers of their captions.
    pub data: &'a Captioned,
    /// What the image tower reads.
    pub images: Images<'a>,
    /// What the text tower reads.
    pub captions: Captions<'a>,
}

impl Pairs<'_> {
    /// Appends a pair for sample `at`; returns the image that it is of, which is another one if this one cannot be read and is to be skipped.
    fn push(&self, at: usize, key: Key, left: &mut Input, right: &mut Input) -> Result<usize> {
        // What is drawn for a view does not depend on the caption, nor the caption on the view.
        let rng = |what: &str| key.of(what).at(at as u64).rng();
        let shown = match &self.images {
            Images::Views(augment) => {
                let (shown, picture) = self.data.images.readable(at)?;
                augment.view(&picture, &mut rng("view"), left.grow(augment.size));
                shown
            }
            Images::Stored(rows, found) => {
                left.push_row(rows.row(one(&found.0[at], &mut rng("view"))))?;
                at
            }
        };
        let caption = one(&self.data.captions[shown], &mut rng("caption"));
        match &self.captions {
            Captions::Tokens(tokens) => right.push_text(tokens.text(caption)),
            Captions::Stored(rows, found) => {
                right.push_row(rows.row(one(&found.0[caption as usize], &mut rng("row of the caption"))))?;
            }
        }
        Ok(shown)
    }
}

/// One of `all`, each as likely.
fn one(all: &[u32], rng: &mut ctk_core::rng::Rng) -> u32 {
    match all {
        [only] => *only,
        _ => all[rng.random_range(0..all.len())],
    }
}

impl Source for Pairs<'_> {
    type Batch = Batch<Input, Input>;

    fn len(&self) -> usize {
        self.data.len()
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let (mut left, mut right) = (Input::default(), Input::default());
        let mut sets = Vec::with_capacity(samples.len());
        for &sample in samples {
            let at = sample as usize;
            let shown = self.push(at, key, &mut left, &mut right).map_err(|e| e.at(self.data.images.name(at)))?;
            sets.push(self.data.sets[shown]);
        }
        let known = Known { contents: vec![sets.clone(), sets], ..Known::default() };
        Ok(Batch { left: vec![left], right: vec![right], samples: samples.to_vec(), known })
    }
}
