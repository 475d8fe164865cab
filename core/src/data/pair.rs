//! Positive pairs: the views of one sample.

use candle_core::{Device, Tensor};

use crate::data::known::Known;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Host-side rows of one view of a batch, filled in place by loader threads.
pub trait HostBatch: Default + Send {
    /// Stacked rows, as an encoder reads them.
    type Stacked;

    /// What rows must have in common to be stacked into one pass: for images, their side in pixels. Views of different sizes go through the
    /// encoder in separate passes.
    fn size(&self) -> usize {
        0
    }

    /// Stacks the views in order: two views of N samples give 2N rows.
    ///
    /// # Errors
    /// The views cannot be stacked.
    fn stack(views: &[&Self]) -> Result<Self::Stacked>;
}

/// Stands for the right side of methods that have one side.
impl HostBatch for () {
    type Stacked = ();

    fn stack(_: &[&Self]) -> Result<()> {
        Ok(())
    }
}

/// Views that are arrays of f32, `(height, width, channels)` each: images, windows of a series, or with a height and a width of 1
/// vectors. Stacked they are `(n, height, width, channels)`, which a [`Sequential`](crate::nn::Sequential) reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Maps {
    values: Vec<f32>,
    shape: [usize; 3],
}

impl Maps {
    /// Appends a row of this shape.
    ///
    /// # Errors
    /// Values that are not as many as the shape has; a row of another shape than those before it.
    pub fn push(&mut self, shape: [usize; 3], values: &[f32]) -> Result<()> {
        let before = if self.values.is_empty() { shape } else { self.shape };
        if shape != before || values.len() != shape.iter().product::<usize>() || values.is_empty() {
            let what = format!("{} values cannot be a row of shape {shape:?} among rows of shape {before:?}", values.len());
            return Err(Error::new(what));
        }
        self.shape = shape;
        self.values.extend_from_slice(values);
        Ok(())
    }
}

impl HostBatch for Maps {
    type Stacked = Tensor;

    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    fn stack(views: &[&Self]) -> Result<Tensor> {
        let shape = views.first().map_or([0; 3], |view| view.shape);
        if views.iter().any(|view| view.shape != shape) {
            return Err(Error::new("views of different shapes cannot be stacked"));
        }
        let values = views.iter().map(|view| view.values.as_slice()).collect::<Vec<_>>().concat();
        let (size, [height, width, channels]) = (shape.iter().product::<usize>().max(1), shape);
        Ok(Tensor::from_slice(&values, (values.len() / size, height, width, channels), &Device::Cpu)?)
    }
}

/// Makes the views of one sample. All randomness comes from `rng`, the sample's own stream.
///
/// Views are of one side (two augmentations, or two global and six local crops) or of two sides (images and captions). A view has one size;
/// different views may have different sizes.
pub trait PairGenerator: Sync {
    /// What the dataset holds.
    type Sample;
    /// Rows of a view of the left side.
    type Left: HostBatch;
    /// Rows of a view of the right side; `()` if there is none.
    type Right: HostBatch;

    /// Number of views of a sample: on the left side, on the right side. Two on the left by default.
    fn views(&self) -> [usize; 2] {
        [2, 0]
    }

    /// Appends one row to every view of both sides.
    ///
    /// # Errors
    /// The sample cannot be decoded.
    fn pairs(&self, sample: &Self::Sample, rng: &mut Rng, left: &mut [Self::Left], right: &mut [Self::Right]) -> Result<()>;
}

/// The views of some samples; rows are in the order of `samples`.
#[derive(Clone, Debug)]
pub struct Batch<L, R> {
    /// The left side's views, each with one row for each sample.
    pub left: Vec<L>,
    /// The right side's views.
    pub right: Vec<R>,
    /// Indices into the dataset.
    pub samples: Vec<u32>,
    /// What else is known of them.
    pub known: Known,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_stacked_in_order_and_have_one_shape() {
        let [mut left, mut right] = [Maps::default(), Maps::default()];
        left.push([1, 2, 1], &[1.0, 2.0]).unwrap();
        right.push([1, 2, 1], &[3.0, 4.0]).unwrap();
        let stacked = Maps::stack(&[&left, &right]).unwrap();
        assert_eq!(stacked.dims(), [2, 1, 2, 1]);
        assert_eq!(stacked.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0]);
        for (shape, values) in [([2, 1, 1], &[5.0, 6.0][..]), ([1, 2, 1], &[5.0]), ([1, 0, 1], &[])] {
            assert!(left.push(shape, values).is_err(), "{shape:?}");
        }
        let mut wide = Maps::default();
        wide.push([1, 1, 2], &[7.0, 8.0]).unwrap();
        assert!(Maps::stack(&[&left, &wide]).is_err());
    }
}
