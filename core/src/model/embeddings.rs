//! The embeddings of a batch, and their gradients: any number of views of each sample, on one side or two.

use candle_core::{Tensor, Var};

use crate::error::{Error, Result};

/// One view's embeddings, `(n, d)`: after and before the predictor. Without a predictor both are the same tensor.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The embeddings that are compared with others' keys: the predictor's output.
    pub query: Tensor,
    /// The embeddings that queries are compared with: the projection head's output.
    pub key: Tensor,
}

impl From<Tensor> for Embedded {
    /// Embeddings without a predictor.
    fn from(rows: Tensor) -> Self {
        Embedded { query: rows.clone(), key: rows }
    }
}

/// The views of a batch in order: those of the left side, then those of the right side.
#[derive(Clone, Debug, Default)]
pub struct Embeddings {
    views: Vec<Option<Embedded>>,
    left: usize,
}

/// Which views go through the towers, by their number in [`Embeddings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewSet {
    /// All views.
    #[default]
    All,
    /// One view.
    One(usize),
    /// The first so many views (the global crops, where local crops follow).
    First(usize),
}

impl ViewSet {
    /// Whether view `view` is in the set.
    pub fn contains(self, view: usize) -> bool {
        match self {
            ViewSet::All => true,
            ViewSet::One(one) => view == one,
            ViewSet::First(count) => view < count,
        }
    }
}

/// The gradient of one view's embeddings; none where the loss does not depend on them.
#[derive(Clone, Debug, Default)]
pub struct EmbeddedGradient {
    /// With respect to `query`.
    pub query: Option<Tensor>,
    /// With respect to `key`; without a predictor it is added to `query`.
    pub key: Option<Tensor>,
}

impl EmbeddedGradient {
    /// The rows `from..from + count`.
    pub(crate) fn narrow(&self, from: usize, count: usize) -> Result<EmbeddedGradient> {
        let cut = |of: &Option<Tensor>| of.as_ref().map(|rows| rows.narrow(0, from, count)).transpose();
        Ok(EmbeddedGradient { query: cut(&self.query)?, key: cut(&self.key)? })
    }

    /// Whether the loss depends on the view.
    pub fn is_some(&self) -> bool {
        self.query.is_some() || self.key.is_some()
    }
}

impl Embeddings {
    /// The first `left` views are those of the left side. Views that did not go through a tower are `None`.
    pub fn new(left: usize, views: Vec<Option<Embedded>>) -> Embeddings {
        Embeddings { views, left }
    }

    /// Two views of one side: what most methods compare.
    pub fn of_two(first: impl Into<Embedded>, second: impl Into<Embedded>) -> Embeddings {
        Embeddings::new(2, vec![Some(first.into()), Some(second.into())])
    }

    /// Number of views, absent ones included.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Whether there is no view.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Views of the left side.
    pub fn left(&self) -> usize {
        self.left
    }

    /// View `view`.
    ///
    /// # Errors
    /// There is no such view, or it did not go through a tower.
    pub fn view(&self, view: usize) -> Result<&Embedded> {
        let found = self.views.get(view).and_then(Option::as_ref);
        found.ok_or_else(|| Error::new(format!("a loss asks for view {view} of {}, which has no embeddings", self.views.len())))
    }

    /// The views that have embeddings, with their numbers.
    pub fn views(&self) -> impl Iterator<Item = (usize, &Embedded)> {
        self.views.iter().enumerate().filter_map(|(at, view)| Some((at, view.as_ref()?)))
    }

    /// Both views of a method that has exactly two.
    ///
    /// # Errors
    /// There are more views or fewer; the loss would otherwise ignore some of them silently.
    pub fn pair(&self) -> Result<(&Embedded, &Embedded)> {
        match &self.views[..] {
            [Some(first), Some(second)] => Ok((first, second)),
            _ => Err(Error::usage(format!("this loss compares two views, and the batch has {}", self.views.len()))),
        }
    }

    /// The views of the left side, which are the student's, and those of the right side, which are a teacher's.
    ///
    /// # Errors
    /// A side has no view, or a view has no embeddings.
    pub(crate) fn taught(&self) -> Result<(Vec<&Tensor>, Vec<&Tensor>)> {
        let of = |views: std::ops::Range<usize>| views.map(|view| Ok(&self.view(view)?.query)).collect::<Result<Vec<_>>>();
        let missing = "this loss needs a teacher's embeddings, and the batch has none";
        let hint = "give the teacher's embeddings of the same samples as views of the right side";
        if self.left == 0 || self.left >= self.views.len() || self.views[self.left].is_none() {
            return Err(Error::usage(missing).hint(hint));
        }
        Ok((of(0..self.left)?, of(self.left..self.views.len())?))
    }

    /// The same views followed by `more`, the views of the right side.
    pub(crate) fn followed_by(mut self, more: Vec<Option<Embedded>>) -> Embeddings {
        self.views.extend(more);
        self
    }

    /// The same views as leaves of a new graph, so that candle can differentiate a loss with respect to them.
    pub(crate) fn leaves(&self) -> Result<Embeddings> {
        self.each(|rows| Ok(Var::from_tensor(&rows.detach())?.into_inner()))
    }

    /// The first `width` values of every embedding, as leaves of a new graph.
    ///
    /// # Errors
    /// A view has fewer values.
    pub(crate) fn cut(&self, width: usize) -> Result<Embeddings> {
        self.each(|rows| match rows.dim(1)? {
            values if values < width => Err(Error::new(format!("embeddings of {values} values cannot be cut to {width}"))),
            _ => Ok(Var::from_tensor(&rows.detach().narrow(1, 0, width)?.contiguous()?)?.into_inner()),
        })
    }

    /// The same views with `of` their rows. Query and key that are one tensor remain one.
    fn each(&self, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Embeddings> {
        let views = self.views.iter().map(|view| {
            let Some(view) = view else { return Ok(None) };
            let query = of(&view.query)?;
            let key = if view.key.id() == view.query.id() { query.clone() } else { of(&view.key)? };
            Ok(Some(Embedded { query, key }))
        });
        Ok(Embeddings { views: views.collect::<Result<_>>()?, left: self.left })
    }

    /// The views of all parts of a batch, concatenated.
    pub(crate) fn joined(parts: &[Embeddings]) -> Result<Embeddings> {
        let Some(first) = parts.first() else { return Err(Error::new("a batch without a sample has no embeddings")) };
        if parts.len() == 1 {
            return Ok(first.clone());
        }
        let cat = |view: usize, of: fn(&Embedded) -> &Tensor| -> Result<Tensor> {
            let rows: Vec<&Tensor> = parts.iter().map(|part| part.view(view).map(of)).collect::<Result<_>>()?;
            Ok(Tensor::cat(&rows, 0)?)
        };
        let views = first.views.iter().enumerate().map(|(at, view)| {
            let Some(view) = view else { return Ok(None) };
            let query = cat(at, |view| &view.query)?;
            let key = if view.key.id() == view.query.id() { query.clone() } else { cat(at, |view| &view.key)? };
            Ok(Some(Embedded { query, key }))
        });
        Ok(Embeddings { views: views.collect::<Result<_>>()?, left: first.left })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn rows(n: usize) -> Tensor {
        Tensor::zeros((n, 2), DType::F64, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_method_of_two_views_refuses_more_and_fewer() {
        assert!(Embeddings::of_two(rows(3), rows(3)).pair().is_ok());
        let three = Embeddings::new(3, (0..3).map(|_| Some(rows(3).into())).collect());
        assert!(three.pair().unwrap_err().to_string().contains("two views, and the batch has 3"));
        let one = Embeddings::new(2, vec![Some(rows(3).into()), None]);
        assert!(one.pair().is_err() && one.view(1).is_err() && one.view(0).is_ok());
        assert_eq!(one.views().count(), 1);
        assert!(ViewSet::First(2).contains(1) && !ViewSet::First(2).contains(2) && !ViewSet::One(1).contains(0));
    }

    #[test]
    fn parts_are_joined_view_by_view() {
        let parts = [2, 3].map(|n| Embeddings::of_two(rows(n), Embedded { query: rows(n), key: rows(n) }));
        let whole = Embeddings::joined(&parts).unwrap();
        let (first, second) = whole.pair().unwrap();
        assert_eq!((first.query.dims(), second.key.dims()), (&[5, 2][..], &[5, 2][..]));
        assert!(first.query.id() == first.key.id() && second.query.id() != second.key.id());
    }
}
