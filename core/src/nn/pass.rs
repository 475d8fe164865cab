//! What a forward pass needs to know besides its input.

use rand::seq::SliceRandom;

use crate::rng::Key;
use crate::world::Collective;

/// What batch normalisation does with its running statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Normalise by the batch, move the running statistics.
    Update,
    /// Normalise by the batch, leave the running statistics alone (the second pass of two).
    Hold,
    /// Normalise by the running statistics.
    Frozen,
}

impl Statistics {
    /// What a further pass over the same rows does: the first or the last of two moves the running statistics, not both.
    pub fn held(self) -> Statistics {
        if self == Statistics::Update { Statistics::Hold } else { self }
    }
}

/// Which sides of a batch go through the towers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sides {
    /// Both.
    #[default]
    Both,
    /// The left one alone.
    Left,
    /// The right one alone.
    Right,
}

/// Which rows share the statistics of batch normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// All rows, those of both sides: SimCLR.
    #[default]
    Together,
    /// Each side is cut into so many groups. 1 is what methods do that run a pass a side (BYOL, SimSiam, Barlow Twins, VICReg);
    /// more is what MoCo has on as many devices.
    Each(usize),
}

/// What feature maps are kept and multiplied in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// All in f32.
    #[default]
    F32,
    /// Feature maps and the factors of products in bf16; parameters, sums, statistics and losses in f32. On the CPU alone.
    Bf16,
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// One forward pass.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Whether a backward pass may follow: without it nothing is kept.
    pub train: bool,
    /// What normalisation does.
    pub statistics: Statistics,
    /// Which sides it is for.
    pub sides: Sides,
    /// Which rows share batch statistics.
    pub groups: Groups,
    /// Whether a permutation drawn from `key` puts rows into groups, and not their order: MoCo's keys meet other rows than their
    /// queries met, so that statistics do not give away which key is whose (He et al. 2020, §3.3).
    pub shuffled: bool,
    /// What maps are kept and multiplied in.
    pub precision: Precision,
    /// Whether a residual block keeps its input alone and runs once more on the way back (Chen et al. 2016, "Training Deep Nets
    /// with Sublinear Memory Cost"): the same gradients, in less memory and more time.
    pub recompute: bool,
    /// The step's key, for dropout and the like: draw by (key, global row, layer name), never by call count.
    pub key: Key,
    /// The other ranks.
    pub world: &'a dyn Collective,
}

impl Pass<'static> {
    /// The pass of evaluation: running statistics, nothing kept.
    pub fn eval() -> Self {
        Pass { train: false, ..Pass::train(Key::new(0), &crate::world::Solo) }.with(Statistics::Frozen)
    }
}

impl<'a> Pass<'a> {
    /// The pass of a training step.
    pub fn train(key: Key, world: &'a dyn Collective) -> Self {
        Pass {
            train: true,
            statistics: Statistics::Update,
            sides: Sides::Both,
            groups: Groups::Together,
            shuffled: false,
            precision: Precision::F32,
            recompute: false,
            key,
            world,
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

    /// The same pass for other sides.
    pub fn of(self, sides: Sides) -> Self {
        Pass { sides, ..self }
    }

    /// How a pass over `rows` rows is cut into groups; `None` where all share their statistics. No group has fewer than two rows,
    /// which have no variance: a small batch has fewer groups.
    pub fn split(&self, rows: usize) -> Option<Split> {
        let Groups::Each(groups) = self.groups else { return None };
        let views = if self.sides == Sides::Both { 2 } else { 1 };
        let groups = groups.min(rows / views / 2).max(1);
        if self.statistics == Statistics::Frozen || views * groups == 1 || !rows.is_multiple_of(views) {
            return None;
        }
        let n = rows / views;
        let sizes: Vec<usize> = (0..groups).map(|g| n * (g + 1) / groups - n * g / groups).collect();
        let order = (self.shuffled && groups > 1).then(|| {
            // The same places for the rows of both sides.
            let mut order: Vec<u32> = (0..n as u32).collect();
            order.shuffle(&mut self.key.of("groups").rng());
            (0..views as u32).flat_map(|view| order.iter().map(move |row| view * n as u32 + row)).collect()
        });
        Some(Split { order, sizes: sizes.repeat(views) })
    }
}

/// Rows in groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which row comes first, second, …; absent: as they are.
    pub order: Option<Vec<u32>>,
    /// How many rows each group takes.
    pub sizes: Vec<usize>,
}

impl Split {
    /// The order that undoes `order`.
    pub fn back(order: &[u32]) -> Vec<u32> {
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &row)| back[row as usize] = place as u32);
        back
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Solo;

    #[test]
    fn rows_are_cut_side_by_side() {
        let pass = |groups, sides| Pass { groups, ..Pass::train(Key::new(1), &Solo).of(sides) };
        let sizes = |groups, sides, rows| pass(groups, sides).split(rows).map(|s| s.sizes);
        assert_eq!(sizes(Groups::Together, Sides::Both, 20), None);
        assert_eq!(sizes(Groups::Each(1), Sides::Left, 20), None);
        assert_eq!(sizes(Groups::Each(1), Sides::Both, 20), Some(vec![10, 10]));
        assert_eq!(sizes(Groups::Each(3), Sides::Both, 20), Some(vec![3, 3, 4, 3, 3, 4]));
        assert_eq!(sizes(Groups::Each(8), Sides::Right, 5), Some(vec![2, 3]), "two rows at least");
        assert_eq!(sizes(Groups::Each(8), Sides::Right, 3), None);
        assert_eq!(pass(Groups::Each(4), Sides::Both).with(Statistics::Frozen).split(20), None);
    }

    #[test]
    fn a_permutation_is_the_keys_stays_on_its_side_and_is_undone() {
        let pass = |seed| Pass { groups: Groups::Each(4), shuffled: true, ..Pass::train(Key::new(seed), &Solo) };
        let order = |seed| pass(seed).split(40).unwrap().order.unwrap();
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        assert!(order(1)[..20].iter().all(|&row| row < 20));
        assert_ne!(order(1), (0..40).collect::<Vec<u32>>());
        let back = Split::back(&order(1));
        assert!((0..40).all(|row| order(1)[back[row] as usize] == row as u32));
    }
}
