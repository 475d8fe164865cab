//! Positive pairs: views of a sample that a modality says belong together.

use candle_core::Device;

use crate::error::Result;
use crate::rng::Rng;

/// Host-side rows of one view of a batch, filled in place by loader threads.
pub trait HostBatch: Default + Send {
    /// The same rows on the device, ready for an encoder.
    type On;

    /// What rows must have in common to be stacked into one pass (the side of a picture). Views of different sizes go through
    /// the encoder in a pass each.
    fn size(&self) -> usize {
        0
    }

    /// Stacks views in order (this is where 2N happens) and uploads them.
    ///
    /// # Errors
    /// Views that cannot be stacked.
    fn upload(views: &[&Self], device: &Device) -> Result<Self::On>;
}

/// The side that one-sided methods do not have.
impl HostBatch for () {
    type On = ();

    fn upload(_: &[&Self], _: &Device) -> Result<()> {
        Ok(())
    }
}

/// Makes the views of one sample. Everything random comes from `rng`, the sample's own stream.
///
/// Views are of one side (the two, or the two global and six local crops of a picture) or of two (pictures and captions). A view
/// has one size; views may differ in it.
pub trait PairGenerator: Sync {
    /// What the dataset holds.
    type Sample;
    /// Rows of a view of the left side.
    type Left: HostBatch;
    /// Rows of a view of the right side; `()` where there is none.
    type Right: HostBatch;

    /// Views a sample: of the left side, of the right side.
    fn views(&self) -> [usize; 2];

    /// Appends one row to every view of both sides.
    ///
    /// # Errors
    /// About the sample.
    fn pairs(&self, sample: &Self::Sample, rng: &mut Rng, left: &mut [Self::Left], right: &mut [Self::Right]) -> Result<()>;
}

/// The views of some samples, in the order of `samples`.
#[derive(Clone, Debug)]
pub struct Batch<L, R> {
    /// The left side's views, each with a row a sample.
    pub left: Vec<L>,
    /// The right side's.
    pub right: Vec<R>,
    /// Indices into the dataset.
    pub samples: Vec<u32>,
    /// Classes, where every sample has one.
    pub labels: Option<Vec<u32>>,
}
