//! Towers: encoder, projection head and, for asymmetric methods, predictor. One tower is shared by all views, or each side has its own.

use std::ops::Range;

use candle_core::Tensor;

use super::embeddings::{Embedded, EmbeddedGradient, Embeddings, ViewSet};
use super::encoder::Encoder;
use super::head::ProjectionHead;
use crate::data::pair::{Batch, HostBatch};
use crate::error::Result;
use crate::nn::pass::Pass;
use crate::nn::rows::Rows;
use crate::nn::tape::Tape;

/// From views to embeddings.
pub struct Tower<E> {
    /// h = encoder(view).
    pub encoder: E,
    /// z = head(h).
    pub head: ProjectionHead,
    /// q = predictor(z), for BYOL and SimSiam.
    pub predictor: Option<ProjectionHead>,
}

/// The tape of a tower's forward pass.
struct TowerTape {
    upwards: Tape,
    predictor: Option<Tape>,
}

impl TowerTape {
    /// Runs the backward pass: adds the parameters' gradients to their store.
    fn play(self, gradient: EmbeddedGradient) -> Result<()> {
        let through = match (self.predictor, gradient.query) {
            (Some(predictor), Some(query)) => predictor.play(&query, true)?,
            (_, query) => query,
        };
        let total = match (through, gradient.key) {
            (Some(through), Some(key)) => Some((through + key)?),
            (through, key) => through.or(key),
        };
        match total {
            Some(total) => self.upwards.play(&total, false).map(drop),
            None => Ok(()),
        }
    }
}

impl<E: Encoder> Tower<E> {
    /// The embeddings of uploaded views.
    ///
    /// # Errors
    /// The errors of encoder and heads.
    pub fn embed(&self, x: &<E::Views as HostBatch>::Stacked, rows: &Rows, pass: &Pass) -> Result<Embedded> {
        Ok(self.project(x, rows, pass)?.0)
    }

    fn project(&self, x: &<E::Views as HostBatch>::Stacked, rows: &Rows, pass: &Pass) -> Result<(Embedded, TowerTape)> {
        let (key, upwards) = self.encoder.through(self.head.layers(), x, rows, pass)?;
        Ok(match &self.predictor {
            Some(predictor) => {
                let (query, predictor) = predictor.project(&key, rows, pass)?;
                (Embedded { query, key }, TowerTape { upwards, predictor: Some(predictor) })
            }
            None => (key.into(), TowerTape { upwards, predictor: None }),
        })
    }

    /// Embeddings of some views, `number`ed in the batch. Views of one size share ONE pass, so that batch normalisation sees all of them
    /// (SimCLR's `model.py`). Separate statistics for each view are another method: see [`Groups::Each`](crate::nn::pass::Groups::Each).
    pub(super) fn views(&self, views: &[(usize, &E::Views)], at: &Places, pass: &Pass) -> Result<Passes> {
        let mut passes = Passes { views: Vec::new(), tapes: Vec::new() };
        let mut sizes: Vec<usize> = Vec::new();
        for (_, view) in views {
            if !sizes.contains(&view.size()) {
                sizes.push(view.size());
            }
        }
        for size in sizes {
            let of_size: Vec<(usize, &E::Views)> = views.iter().copied().filter(|(_, view)| view.size() == size).collect();
            let numbers: Vec<u16> = of_size.iter().map(|(number, _)| *number as u16).collect();
            let stacked: Vec<&E::Views> = of_size.iter().map(|(_, view)| *view).collect();
            let rows = Rows::new(at.own.start as u32..at.own.end as u32, &numbers, at.extent.start as u32..at.extent.end as u32);
            let (all, tape) = self.project(&E::Views::stack(&stacked)?, &rows, pass)?;
            let n = at.own.len();
            for (i, (number, _)) in of_size.iter().enumerate() {
                let query = all.query.narrow(0, i * n, n)?;
                let key = if self.predictor.is_some() { all.key.narrow(0, i * n, n)? } else { query.clone() };
                passes.views.push((*number, Embedded { query, key }));
            }
            passes.tapes.push((of_size.iter().map(|(number, _)| *number).collect(), tape));
        }
        Ok(passes)
    }
}

/// The places of a batch's samples in the step's whole batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The places of its samples.
    pub own: Range<usize>,
    /// The range of the whole batch that is divided into groups of batch statistics.
    pub extent: Range<usize>,
}

impl Places {
    /// `count` samples that are the whole batch.
    pub fn alone(count: usize) -> Places {
        Places { own: 0..count, extent: 0..count }
    }
}

/// The passes of a tower, one for each size of view.
pub(super) struct Passes {
    views: Vec<(usize, Embedded)>,
    tapes: Vec<(Vec<usize>, TowerTape)>,
}

/// The backward pass from the embeddings of a batch.
#[derive(Default)]
pub struct EmbeddingsTape(Vec<(Vec<usize>, TowerTape)>);

impl EmbeddingsTape {
    /// Takes the gradient of each view's embeddings and adds the parameters' gradients to their store.
    ///
    /// # Errors
    /// The errors of the layers' backward passes.
    pub fn play(self, gradients: &[EmbeddedGradient]) -> Result<()> {
        for (numbers, tape) in self.0.into_iter().rev() {
            let stack = |of: fn(&EmbeddedGradient) -> &Option<Tensor>| -> Result<Option<Tensor>> {
                let views: Vec<Option<&Tensor>> =
                    numbers.iter().map(|&view| gradients.get(view).and_then(|g| of(g).as_ref())).collect();
                let Some(some) = views.iter().flatten().next() else { return Ok(None) };
                // A view that the loss does not depend on was in the pass too, so it gets a gradient of zeros.
                let zeros = some.zeros_like()?;
                Ok(Some(Tensor::cat(&views.iter().map(|view| view.unwrap_or(&zeros)).collect::<Vec<_>>(), 0)?))
            };
            tape.play(EmbeddedGradient { query: stack(|g| &g.query)?, key: stack(|g| &g.key)? })?;
        }
        Ok(())
    }
}

/// The towers of a method, through which a batch goes.
pub trait Towers {
    /// Host rows of a view of the left side.
    type Left: HostBatch;
    /// Host rows of a view of the right side.
    type Right: HostBatch;

    /// Embeddings of the requested views, n rows each, and the tape for the backward pass.
    ///
    /// # Errors
    /// The errors of encoders and heads.
    fn project(
        &self,
        batch: &Batch<Self::Left, Self::Right>,
        views: ViewSet,
        at: &Places,
        pass: &Pass,
    ) -> Result<(Embeddings, EmbeddingsTape)>;
}

/// Puts the views of `passes` at their places among `count` views.
pub(super) fn collected(left: usize, count: usize, passes: Vec<Passes>) -> (Embeddings, EmbeddingsTape) {
    let mut all: Vec<Option<Embedded>> = vec![None; count];
    let mut tapes = Vec::new();
    for pass in passes {
        pass.views.into_iter().for_each(|(number, view)| all[number] = Some(view));
        tapes.extend(pass.tapes);
    }
    (Embeddings::new(left, all), EmbeddingsTape(tapes))
}

/// The requested views of a side, numbered from `first`.
pub(super) fn chosen<V>(side: &[V], first: usize, views: ViewSet) -> Vec<(usize, &V)> {
    side.iter().enumerate().map(|(i, view)| (first + i, view)).filter(|(number, _)| views.contains(*number)).collect()
}

/// One tower for all views.
pub struct Siamese<E> {
    /// The shared tower.
    pub tower: Tower<E>,
}

impl<E: Encoder> Towers for Siamese<E> {
    type Left = E::Views;
    type Right = ();

    fn project(
        &self,
        batch: &Batch<E::Views, ()>,
        views: ViewSet,
        at: &Places,
        pass: &Pass,
    ) -> Result<(Embeddings, EmbeddingsTape)> {
        let count = batch.left.len();
        let passes = self.tower.views(&chosen(&batch.left, 0, views), at, pass)?;
        Ok(collected(count, count, vec![passes]))
    }
}

/// A tower for each side, for pairs whose sides differ (images and captions; centre and context words).
pub struct Dual<L, R> {
    /// The left side's tower.
    pub left: Tower<L>,
    /// The right side's tower.
    pub right: Tower<R>,
}

impl<L: Encoder, R: Encoder> Towers for Dual<L, R> {
    type Left = L::Views;
    type Right = R::Views;

    fn project(
        &self,
        batch: &Batch<L::Views, R::Views>,
        views: ViewSet,
        at: &Places,
        pass: &Pass,
    ) -> Result<(Embeddings, EmbeddingsTape)> {
        let (lefts, rights) = (batch.left.len(), batch.right.len());
        let left = self.left.views(&chosen(&batch.left, 0, views), at, pass)?;
        let right = self.right.views(&chosen(&batch.right, lefts, views), at, pass)?;
        Ok(collected(lefts, lefts + rights, vec![left, right]))
    }
}
