//! A dataset: samples by index, before any pair is made of them.

use crate::data::distinct::Arranged;
use crate::error::Result;

/// A finite, indexed collection of samples. The order of the indices is part of the data: it must be the same at every start.
///
/// `get` returns a sample as stored (an encoded image, a row of pixels). Decoding and augmentation are the work of the
/// [`PairGenerator`](crate::data::pair::PairGenerator), so that loader threads do them.
pub trait Dataset: Sync {
    /// One sample as stored.
    type Sample;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Sample `index`, `0..len`.
    ///
    /// # Errors
    /// The sample cannot be read. The error concerns this sample alone; callers add its name.
    fn get(&self, index: usize) -> Result<Self::Sample>;

    /// The sample's name to print: a path, or a record number.
    fn name(&self, index: usize) -> String;

    /// The sample's class, if it has one.
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }

    /// How similar the two views of the sample are, if somebody judged that.
    fn score(&self, _index: usize) -> Option<f32> {
        None
    }

    /// A number for what view `view` of the sample shows, if equal contents can be recognised: see [`Known::contents`].
    ///
    /// [`Known::contents`]: crate::data::known::Known::contents
    fn content(&self, _index: usize, _view: usize) -> Option<u32> {
        None
    }

    /// Number of samples that an epoch has: see [`Source::per_epoch`](crate::data::source::Source::per_epoch).
    fn per_epoch(&self) -> usize {
        self.len()
    }

    /// Changes the order of an epoch: see [`Source::arrange`](crate::data::source::Source::arrange).
    fn arrange(&self, _order: &mut Vec<u32>, _batch: usize, _epoch: usize) -> Arranged {
        Arranged::default()
    }

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
