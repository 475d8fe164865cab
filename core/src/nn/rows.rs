//! The identity of an input's rows: which sample of the step's batch, which view of it, and, for texts, which tokens.

use std::ops::Range;
use std::sync::Arc;

use ctk_kernels::Identity;

/// The identity of an input's rows, in their order. What a layer draws for a row (dropout) depends on it and never on the row's position in
/// memory, so parts, groups and ranks change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    places: Arc<[u32]>,
    views: Arc<[u16]>,
    offsets: Option<Arc<[u32]>>,
    extent: Range<u32>,
}

impl Rows {
    /// The samples at `places` of the step's batch (0 is its first sample, on the first rank), once for each of `views`: all samples of the
    /// first view, then all of the next. `extent` is the range of the batch that is divided into groups of batch statistics.
    pub fn new(places: Range<u32>, views: &[u16], extent: Range<u32>) -> Rows {
        let count = places.len();
        Rows {
            places: views.iter().flat_map(|_| places.clone()).collect(),
            views: views.iter().flat_map(|&view| std::iter::repeat_n(view, count)).collect(),
            offsets: None,
            extent,
        }
    }

    /// `count` rows of one view that are a batch of their own, as in evaluation.
    pub fn alone(count: usize) -> Rows {
        let count = count as u32;
        Rows::new(0..count, &[0], 0..count)
    }

    /// The same rows as texts of several tokens each: row i has the tokens `offsets[i]..offsets[i + 1]`.
    ///
    /// # Panics
    /// Unless there is one offset more than there are rows.
    pub fn with_offsets(self, offsets: Vec<u32>) -> Rows {
        assert_eq!(offsets.len(), self.len() + 1, "a row's tokens lie between two offsets");
        Rows { offsets: Some(offsets.into()), ..self }
    }

    /// The same for kernels.
    pub(crate) fn identity(&self) -> Identity<'_> {
        Identity { places: &self.places, views: &self.views, offsets: self.offsets() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Each row's place in the step's batch.
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// Each row's view.
    pub fn views(&self) -> &[u16] {
        &self.views
    }

    /// Where each row's tokens begin, and where the last one ends; none where a row is one vector or one image.
    pub fn offsets(&self) -> Option<&[u32]> {
        self.offsets.as_deref()
    }

    /// The tokens of a row in a map of all rows, which has `pixels` positions for each if the rows have no offsets.
    pub(crate) fn tokens(&self, row: usize, pixels: usize) -> Range<usize> {
        match &self.offsets {
            Some(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            None => row * pixels..(row + 1) * pixels,
        }
    }

    /// Whether a map of `n` images of `pixels` pixels is that of these rows.
    pub(crate) fn covers(&self, n: usize, pixels: usize) -> bool {
        match &self.offsets {
            Some(offsets) => {
                let ascending = offsets.len() == self.len() + 1 && offsets[0] == 0 && offsets.is_sorted();
                ascending && pixels == 1 && offsets.last() == Some(&(n as u32))
            }
            None => n == self.len(),
        }
    }

    /// The same rows as one vector each: what is left of texts whose tokens were pooled.
    pub(crate) fn pooled(&self) -> Rows {
        Rows { offsets: None, ..self.clone() }
    }

    /// The range of the step's batch that is divided into groups of batch statistics.
    pub(crate) fn extent(&self) -> Range<u32> {
        self.extent.clone()
    }

    /// Number of views: runs of rows of the same view.
    pub(crate) fn view_count(&self) -> usize {
        self.views.chunk_by(|a, b| a == b).count()
    }

    /// The rows `from..from + count`.
    ///
    /// # Panics
    /// If there are fewer rows, or if rows have tokens: texts are never divided into groups.
    pub fn narrow(&self, from: usize, count: usize) -> Rows {
        assert!(self.offsets.is_none(), "rows with tokens cannot be cut");
        let (places, views) = (self.places[from..from + count].into(), self.views[from..from + count].into());
        Rows { places, views, offsets: None, extent: self.extent() }
    }

    /// The rows in the given order.
    ///
    /// # Panics
    /// As [`narrow`](Rows::narrow).
    pub fn pick(&self, order: &[u32]) -> Rows {
        assert!(self.offsets.is_none(), "rows with tokens cannot be permuted");
        Rows {
            places: order.iter().map(|&row| self.places[row as usize]).collect(),
            views: order.iter().map(|&row| self.views[row as usize]).collect(),
            offsets: None,
            extent: self.extent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_identity_wherever_they_go() {
        let rows = Rows::new(4..7, &[0, 2], 0..12);
        assert_eq!((rows.places(), rows.views()), (&[4, 5, 6, 4, 5, 6][..], &[0, 0, 0, 2, 2, 2][..]));
        assert_eq!((rows.len(), rows.view_count(), rows.extent()), (6, 2, 0..12));
        let picked = rows.pick(&[5, 0]);
        assert_eq!((picked.places(), picked.views()), (&[6, 4][..], &[2, 0][..]));
        assert_eq!(rows.narrow(3, 2).places(), [4, 5]);
        assert_eq!(Rows::alone(2).with_offsets(vec![0, 3, 5]).offsets(), Some(&[0, 3, 5][..]));
    }
}
