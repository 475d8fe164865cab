//! Sources: a batch as a pure function of (samples, key).

use crate::data::dataset::Dataset;
use crate::data::distinct::Arranged;
use crate::data::known::Known;
use crate::data::pair::{Batch, PairGenerator};
use crate::error::Result;
use crate::rng::Key;

/// Draws batches. What [`draw`](Source::draw) returns depends on its arguments alone: not on the thread, not on earlier calls. Resuming,
/// replaying and parallel loading depend on that.
pub trait Source: Sync {
    /// What a learner consumes.
    type Batch: Send;

    /// Number of samples.
    fn len(&self) -> usize;

    /// The batch of `samples`. `key` is the epoch's; each sample draws from its own stream below it.
    ///
    /// # Errors
    /// A sample cannot be read or decoded.
    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch>;

    /// The same batch for the second of two passes over it. Sources override this if they draw something that only the first pass reads.
    ///
    /// # Errors
    /// As [`draw`](Source::draw).
    fn redraw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        self.draw(samples, key)
    }

    /// Number of samples that an epoch has. By default each sample is in every epoch; a source whose samples have weights leaves some of
    /// them out in [`arrange`](Source::arrange).
    fn per_epoch(&self) -> usize {
        self.len()
    }

    /// Changes the order of epoch `epoch`, which is called once for each epoch. `order` has all samples, shuffled; afterwards it has
    /// [`per_epoch`](Source::per_epoch) different ones. Each `batch` of them, from the first on, are a step's batch over all ranks. What it
    /// does depends on its arguments alone. By default nothing is changed.
    fn arrange(&self, _order: &mut Vec<u32>, _batch: usize, _epoch: usize) -> Arranged {
        Arranged::default()
    }

    /// Whether there is nothing to draw.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The usual source: a dataset, and a generator that makes views of its samples.
pub struct Paired<D, G> {
    /// The samples.
    pub data: D,
    /// Makes the views of a sample.
    pub pairs: G,
}

impl<D: Dataset, G: PairGenerator<Sample = D::Sample>> Source for Paired<D, G> {
    type Batch = Batch<G::Left, G::Right>;

    fn len(&self) -> usize {
        self.data.len()
    }

    fn per_epoch(&self) -> usize {
        self.data.per_epoch()
    }

    fn arrange(&self, order: &mut Vec<u32>, batch: usize, epoch: usize) -> Arranged {
        self.data.arrange(order, batch, epoch)
    }

    fn draw(&self, samples: &[u32], key: Key) -> Result<Self::Batch> {
        let [lefts, rights] = self.pairs.views();
        let mut left: Vec<G::Left> = (0..lefts).map(|_| G::Left::default()).collect();
        let mut right: Vec<G::Right> = (0..rights).map(|_| G::Right::default()).collect();
        for &s in samples {
            let at = s as usize;
            let mut rng = key.at(u64::from(s)).rng();
            self.data
                .get(at)
                .and_then(|sample| self.pairs.pairs(&sample, &mut rng, &mut left, &mut right))
                .map_err(|e| e.at(self.data.name(at)))?;
        }
        let known = Known::of(&self.data, samples, lefts + rights);
        Ok(Batch { left, right, samples: samples.to_vec(), known })
    }
}
