//! Samples by index: what there is to learn from, before any pair is made.

use crate::error::Result;

/// A finite, indexed collection of samples. Index order is part of the data: it must be the same at every start.
///
/// `get` returns the sample as stored (an encoded image, a row of pixels); decoding and augmenting belong to the
/// [`PairGenerator`](crate::data::pair::PairGenerator), so that loader threads do it.
pub trait Dataset: Sync {
    /// One sample as stored.
    type Sample;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Sample `index`, `0..len`. Errors are about this sample alone; callers add its name.
    fn get(&self, index: usize) -> Result<Self::Sample>;

    /// The sample's name for people: a path, a record number.
    fn name(&self, index: usize) -> String;

    /// The sample's class, where there is one.
    fn label(&self, _index: usize) -> Option<u32> {
        None
    }

    /// Whether there is nothing to learn from.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
