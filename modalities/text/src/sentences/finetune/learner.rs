//! The learner of SetFit: the encoder on pairs of labelled texts. Its checkpoints also have a logistic regression on what the encoder makes of
//! these texts, which depends on nothing but the encoder's weights.

use std::cell::RefCell;
use std::sync::Arc;

use ctk_core::Result;
use ctk_core::data::feed::Feed;
use ctk_core::data::pair::Batch;
use ctk_core::eval::{Features, normalise};
use ctk_core::model::encoder::Encoder as _;
use ctk_core::nn::pass::Precision;
use ctk_core::objective::Terms;
use ctk_core::store::checkpoint::{Reader, Writer};
use ctk_core::train::learner::Learner;
use ctk_core::world::Collective;

use super::super::encoder::{encode, encode_all};
use super::super::learner::Trainee;
use super::classifier::{About, Logits};
use crate::tokens::{TokenEncoder, Tokens};

/// An encoder that is trained on pairs of labelled texts.
pub(super) struct SetFit<'a> {
    /// The encoder.
    pub trainee: Trainee,
    /// The tokens of the labelled texts, their names and classes.
    pub texts: &'a [Vec<u32>],
    pub names: &'a [String],
    pub labels: &'a [u32],
    pub about: About,
    /// Whether features are scaled to length 1.
    pub normalise: bool,
    pub folds: usize,
    pub seed: u64,
    /// The classifier of the last checkpoint, until the next step.
    pub fitted: RefCell<Option<(Logits, Option<f64>)>>,
}

impl SetFit<'_> {
    fn encoder(&self) -> &TokenEncoder {
        &self.trainee.dense.towers.tower.encoder
    }

    fn scale(&self, rows: &mut [f32]) {
        if self.normalise {
            normalise(rows, self.encoder().width());
        }
    }

    /// The features of texts of these tokens.
    pub fn features(&self, texts: &[&[u32]]) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        encode(self.encoder(), Precision::F32, texts, &mut rows)?;
        self.scale(&mut rows);
        Ok(rows)
    }

    /// The logistic regression on the labelled texts' features, and its L2 strength. Work that a request to stop does not end, because a
    /// checkpoint needs it.
    pub fn classifier(&self) -> Result<(Logits, Option<f64>)> {
        if let Some(fitted) = &*self.fitted.borrow() {
            return Ok(fitted.clone());
        }
        let tokens: Vec<&[u32]> = self.texts.iter().map(Vec::as_slice).collect();
        let mut rows = Vec::new();
        encode_all(self.encoder(), &tokens, &mut rows)?;
        let width = self.encoder().width();
        self.scale(&mut rows);
        let (names, labels) = (self.names.to_vec(), Some(self.labels.to_vec()));
        let features = Features { rows, width, names, labels, ..Features::default() };
        let found = Logits::fit(&features, self.folds, self.seed, self.about.clone())?;
        *self.fitted.borrow_mut() = Some(found.clone());
        Ok(found)
    }
}

impl Learner for SetFit<'_> {
    type Batch = Batch<Tokens, ()>;

    fn join(&mut self, world: &Arc<dyn Collective>) {
        self.trainee.join(world);
    }

    fn step(&mut self, feed: &Feed<Self::Batch>, rate: f64) -> Result<Terms> {
        *self.fitted.get_mut() = None;
        self.trainee.step(feed, rate)
    }

    fn passes(&self) -> usize {
        self.trainee.passes()
    }

    fn save(&self, writer: &mut Writer) -> Result<()> {
        self.trainee.save(writer)?;
        self.classifier()?.0.save(writer)
    }

    fn load(&mut self, reader: &Reader) -> Result<()> {
        *self.fitted.get_mut() = None;
        self.trainee.load(reader)
    }
}
