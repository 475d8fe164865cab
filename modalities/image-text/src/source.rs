//! Draws batches of pairs: a view of each image, and one of its captions.

use ctk_core::Result;
use ctk_core::data::dataset::Dataset;
use ctk_core::data::known::Known;
use ctk_core::data::pair::Batch;
use ctk_core::data::source::Source;
use ctk_core::rng::Key;
use ctk_images::augment::Augment;
use rand::Rng as _;

use crate::data::Captioned;
use crate::input::Input;
use crate::stored::{Found, Stored};

/// The left side of a batch.
pub enum Images<'a> {
    /// Views of the images.
    Views(&'a Augment),
    /// Rows of a file.
    Stored(&'a Stored, Found),
}

/// The right side of a batch.
pub enum Captions<'a> {
    /// The tokens of all captions, one after the other, and where each ends.
    Tokens(&'a [u32], &'a [usize]),
    /// Rows of a file.
    Stored(&'a Stored, Found),
}

/// The tokens of caption `at`.
pub fn tokens<'a>(ids: &'a [u32], ends: &[usize], at: u32) -> &'a [u32] {
    let at = at as usize;
    let start = if at == 0 { 0 } else { ends[at - 1] };
    &ids[start..ends[at]]
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
            Captions::Tokens(ids, ends) => right.push_text(tokens(ids, ends, caption)),
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
