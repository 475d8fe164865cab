//! The settings of a forward pass, and how its rows are divided into groups of batch statistics.

use std::sync::Arc;

use rand::seq::SliceRandom;

use super::rows::Rows;
pub use crate::recipe::Precision;
use crate::rng::Key;
use crate::world::{Collective, Solo};

/// How batch normalisation uses statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Normalise by the batch, and update the running statistics.
    Update,
    /// Normalise by the batch, and leave the running statistics unchanged (in the second pass of two).
    Hold,
    /// Normalise by the running statistics.
    Frozen,
}

impl Statistics {
    /// The setting for a second pass over the same rows, so that only one of the two updates the running statistics.
    pub fn held(self) -> Statistics {
        if self == Statistics::Update { Statistics::Hold } else { self }
    }
}

/// Which rows share the statistics of batch normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// All rows of a pass, those of all its views: SimCLR.
    #[default]
    Together,
    /// Each view is divided into so many groups. 1 gives what methods do that run one pass for each view (BYOL, SimSiam, Barlow Twins,
    /// VICReg); more gives what MoCo does on as many devices.
    Each(usize),
}

/// Whether layers behave as in training: in particular, whether dropout is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As in training.
    Train,
    /// As in evaluation.
    Evaluate,
}

/// One forward pass.
#[derive(Clone)]
pub struct Pass {
    /// Whether layers behave as in training.
    pub mode: Mode,
    /// Whether a tape is kept for the backward pass.
    pub tape: bool,
    /// How batch normalisation uses statistics.
    pub statistics: Statistics,
    /// Which rows share batch statistics.
    pub groups: Groups,
    /// Whether rows are grouped by a permutation drawn from `key` instead of by their order. MoCo's keys are grouped with other rows than
    /// their queries, so that batch statistics do not reveal which key belongs to which query (He et al. 2020, §3.3).
    pub shuffled: bool,
    /// The type in which maps are stored and multiplied.
    pub precision: Precision,
    /// Whether a residual block keeps only its input and runs once more in the backward pass (gradient checkpointing; Chen et al. 2016,
    /// "Training Deep Nets with Sublinear Memory Cost"): the same gradients, in less memory and more time.
    pub recompute: bool,
    /// The step's key, for dropout and the like. Draw by (key, place, view, layer name), never by the number of calls.
    pub key: Key,
    /// The other ranks.
    pub world: Arc<dyn Collective>,
}

impl Pass {
    /// The pass of evaluation: running statistics, no tape.
    pub fn eval() -> Self {
        let train = Pass::train(Key::new(0), &(Arc::new(Solo) as Arc<dyn Collective>));
        Pass { mode: Mode::Evaluate, tape: false, statistics: Statistics::Frozen, ..train }
    }

    /// The pass of a training step.
    pub fn train(key: Key, world: &Arc<dyn Collective>) -> Self {
        Pass {
            mode: Mode::Train,
            tape: true,
            statistics: Statistics::Update,
            groups: Groups::Together,
            shuffled: false,
            precision: Precision::F32,
            recompute: false,
            key,
            world: world.clone(),
        }
    }

    /// The same pass in another precision.
    pub fn at(self, precision: Precision) -> Self {
        Pass { precision, ..self }
    }

    /// The same pass with other statistics.
    pub fn with(self, statistics: Statistics) -> Self {
        Pass { statistics, ..self }
    }

    /// The same pass, which keeps no tape.
    pub fn without_tape(self) -> Self {
        Pass { tape: false, ..self }
    }

    /// How a pass over `rows` is divided into groups; `None` if all rows share their statistics. Each view is divided alike, at the places
    /// that divide the whole range [`Rows::extent`] of the batch, so that ranks divide as a single rank would. A group has at least two
    /// samples, because one has no variance; a small batch therefore has fewer groups.
    pub fn split(&self, rows: &Rows) -> Option<Split> {
        let Groups::Each(groups) = self.groups else { return None };
        let views = rows.view_count();
        if self.statistics == Statistics::Frozen || views == 0 || !rows.len().is_multiple_of(views) {
            return None;
        }
        let (n, extent) = (rows.len() / views, rows.extent());
        let groups = groups.min(extent.len() / 2).max(1);
        let first = rows.places().first().map_or(0, |&place| place.saturating_sub(extent.start) as usize);
        let cut = |g: usize| (extent.len() * g / groups).clamp(first, first + n);
        let sizes: Vec<usize> = (0..groups).map(|g| cut(g + 1) - cut(g)).filter(|&size| size > 0).collect();
        if views * sizes.len() == 1 {
            return None;
        }
        let order = (self.shuffled && sizes.len() > 1).then(|| {
            // The same places for the rows of all views.
            let mut order: Vec<u32> = (0..n as u32).collect();
            order.shuffle(&mut self.key.of("groups").rng());
            (0..views as u32).flat_map(|view| order.iter().map(move |row| view * n as u32 + row)).collect()
        });
        Some(Split { order, sizes: sizes.repeat(views) })
    }
}

/// Rows divided into groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which row comes first, second, …; none if the order is unchanged.
    pub order: Option<Vec<u32>>,
    /// The number of rows in each group.
    pub sizes: Vec<usize>,
}

impl Split {
    /// The inverse permutation of `order`.
    pub fn back(order: &[u32]) -> Vec<u32> {
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &row)| back[row as usize] = place as u32);
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::solo;

    fn rows(n: u32, views: &[u16]) -> Rows {
        Rows::new(0..n, views, 0..n)
    }

    #[test]
    fn rows_are_cut_view_by_view() {
        let pass = |groups| Pass { groups, ..Pass::train(Key::new(1), &solo()) };
        let sizes = |groups, rows: Rows| pass(groups).split(&rows).map(|s| s.sizes);
        assert_eq!(sizes(Groups::Together, rows(10, &[0, 1])), None);
        assert_eq!(sizes(Groups::Each(1), rows(20, &[0])), None);
        assert_eq!(sizes(Groups::Each(1), rows(10, &[0, 1])), Some(vec![10, 10]));
        assert_eq!(sizes(Groups::Each(1), rows(4, &[0, 1, 2])), Some(vec![4, 4, 4]));
        assert_eq!(sizes(Groups::Each(3), rows(10, &[0, 1])), Some(vec![3, 3, 4, 3, 3, 4]));
        assert_eq!(sizes(Groups::Each(8), rows(5, &[1])), Some(vec![2, 3]), "two rows at least");
        assert_eq!(sizes(Groups::Each(8), rows(3, &[1])), None);
        assert_eq!(pass(Groups::Each(4)).with(Statistics::Frozen).split(&rows(10, &[0, 1])), None);
    }

    #[test]
    fn ranks_cut_where_one_rank_would() {
        let pass = Pass { groups: Groups::Each(3), ..Pass::train(Key::new(1), &solo()) };
        let sizes = |places: std::ops::Range<u32>| pass.split(&Rows::new(places, &[0], 0..10)).map(|s| s.sizes);
        assert_eq!(sizes(0..10), Some(vec![3, 3, 4]));
        assert_eq!((sizes(0..6), sizes(6..10)), (Some(vec![3, 3]), None));
        assert_eq!((sizes(0..5), sizes(5..10)), (Some(vec![3, 2]), Some(vec![1, 4])));
    }

    #[test]
    fn a_permutation_is_the_keys_stays_in_its_view_and_is_undone() {
        let pass = |seed| Pass { groups: Groups::Each(4), shuffled: true, ..Pass::train(Key::new(seed), &solo()) };
        let order = |seed| pass(seed).split(&rows(20, &[0, 1])).unwrap().order.unwrap();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(order(1)[..20].iter().all(|&row| row < 20));
        assert_ne!(order(1), (0..40).collect::<Vec<u32>>());
        let back = Split::back(&order(1));
        assert!((0..40).all(|row| order(1)[back[row] as usize] == row as u32));
    }
}
