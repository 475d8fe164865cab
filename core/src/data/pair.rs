//! Positive pairs: what a modality says belongs together.

use candle_core::Device;

use crate::error::Result;
use crate::rng::Rng;

/// Host-side rows of one side of a batch, filled in place by loader threads.
pub trait Views: Default + Send {
    /// The same rows on the device, ready for an encoder.
    type On;

    /// Stacks parts in order (left, then right: this is where 2N happens) and uploads them.
    fn upload(parts: &[&Self], device: &Device) -> Result<Self::On>;
}

/// The empty side of one-sided tasks (fine-tuning has no second view).
impl Views for () {
    type On = ();

    fn upload(_: &[&Self], _: &Device) -> Result<()> {
        Ok(())
    }
}

/// Makes a positive pair of one sample. Everything random comes from `rng`, the sample's own stream.
pub trait PairGenerator: Sync {
    /// What the dataset holds.
    type Sample;
    /// Rows of the left side.
    type Left: Views;
    /// Rows of the right side.
    type Right: Views;

    /// Appends one row to `left` and one to `right`.
    fn pairs(&self, sample: &Self::Sample, rng: &mut Rng, left: &mut Self::Left, right: &mut Self::Right) -> Result<()>;
}

/// The pairs of some samples, in the order of `samples`.
#[derive(Clone, Debug)]
pub struct Batch<L, R> {
    /// Left rows, one a sample.
    pub left: L,
    /// Right rows, one a sample.
    pub right: R,
    /// Indices into the dataset.
    pub samples: Vec<u32>,
    /// Classes, where every sample has one.
    pub labels: Option<Vec<u32>>,
}
