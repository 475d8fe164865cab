//! Deterministic training: the same bits on any number of threads. Shards of a step train private copies of the rows, whose changes are
//! then added in order.
//!
//! A step's blocks are dealt to a fixed number of shards. Each shard trains replicas of the tables, which equal the common tables whenever
//! shards are merged. On a merge each common row moves by the changes of its replicas, in the order of the shards, and every replica is set
//! to the result. So it does not matter which thread does what, and when.
//!
//! Rows of frequent words are in so many windows that their replicas would soon differ much, so they are merged more often. Even so,
//! replicas that each shard has trained many times have all moved in the same direction as far as the gradient leads, and the sum of their
//! changes would be several times as far, and diverge. Such changes are averaged (Zinkevich et al. 2010). Changes of rows that were trained
//! a few times, or at a low rate, are added, as lock-free training in effect does. Between these, the factor is interpolated.

use ctk_core::Result;
use rayon::prelude::*;

use super::kernel::Touch;
use super::rows::Rows;
use super::rows::stepper::Tables;

/// Blocks of a shard in a round, after which rows of frequent words are merged.
pub const ROUND: usize = 4;

/// Rounds after which all rows are merged, as they are at a step's end.
pub const ROUNDS: usize = 16;

/// The number of rows of frequent words in each table.
const FREQUENT: usize = 1024;

/// A table of one shard.
struct Replica {
    rows: Rows,
    // How often each row was trained since the last merge.
    uses: Vec<u32>,
}

/// What one shard trains.
pub struct Shard {
    input: Replica,
    output: Replica,
}

impl Shard {
    /// The shard's tables, and the counter of their uses; the row `none` is shared.
    pub fn private<'a>(&'a mut self, none: &'a Rows) -> (Tables<'a>, Counting<'a>) {
        let Shard { input, output } = self;
        let tables = Tables { input: &input.rows, output: &output.rows, none };
        (tables, Counting { inputs: &mut input.uses, outputs: &mut output.uses })
    }
}

/// Counts uses of rows.
pub struct Counting<'a> {
    inputs: &'a mut [u32],
    outputs: &'a mut [u32],
}

impl Touch for Counting<'_> {
    fn inputs(&mut self, ids: &[u32]) {
        ids.iter().for_each(|&id| self.inputs[id as usize] += 1);
    }

    fn outputs(&mut self, ids: &[u32]) {
        // The id that stands for no row is beyond all counts.
        ids.iter().for_each(|&id| self.outputs.get_mut(id as usize).map_or((), |uses| *uses += 1));
    }
}

/// The factor by which the sum of a row's changes is multiplied, if its replicas in `shards` shards were trained `uses` times in all, and
/// each use moves it by the fraction `nearer` of the remaining way to where its gradient ends.
///
/// After n uses a row has gone the fraction 1 − e^−(n·nearer) of the way. Each replica has gone that far, and the factor reduces their sum
/// to what one row would have gone if all of them had trained it in turn.
fn share(shards: usize, uses: u32, nearer: f32) -> f32 {
    let (shards, x) = (shards as f32, (nearer * uses as f32 / shards as f32).max(f32::MIN_POSITIVE));
    (-shards * x).exp_m1() / (shards * (-x).exp_m1())
}

/// The mean squared length of rows of frequent words.
fn length(rows: &Rows) -> f32 {
    let count = rows.len().min(FREQUENT) as u32;
    (0..count).map(|row| rows.square(row)).sum::<f32>() / count.max(1) as f32
}

/// The fraction of the remaining way that a row moves when it is trained at rate `rate` against rows of squared length `length`: rate · σ′
/// · length, as for frequent words.
fn nearer(length: f32, rate: f32) -> f32 {
    const SLOPE: f32 = 0.25;
    rate * SLOPE * length
}

/// All shards.
pub struct Shards {
    shards: Vec<Shard>,
    // The mean squared lengths of the common tables' rows at the last merge of all rows; none while replicas differ from these.
    lengths: Option<[f32; 2]>,
}

impl Shards {
    /// Allocates `count` replicas of the tables `common`.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(count: usize, common: Tables) -> Result<Shards> {
        let of = |table: &Rows| -> Result<Replica> {
            Ok(Replica { rows: Rows::zeros(table.len(), table.width())?, uses: vec![0; table.len()] })
        };
        let shard = |_| Ok(Shard { input: of(common.input)?, output: of(common.output)? });
        Ok(Shards { shards: (0..count).map(shard).collect::<Result<_>>()?, lengths: None })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.shards.len()
    }

    /// Each of them.
    pub fn each(&mut self) -> &mut [Shard] {
        &mut self.shards
    }

    /// Marks the common tables as changed.
    pub fn forget(&mut self) {
        self.lengths = None;
    }

    /// Copies the common tables to the replicas, if they were [changed](Self::forget).
    pub fn begin(&mut self, common: Tables) {
        if self.lengths.is_none() {
            for (table, replicas) in self.tables(common) {
                (0..table.len() as u32).into_par_iter().for_each(|row| {
                    replicas.iter().for_each(|replica| replica.rows.copy(table, row));
                });
            }
            self.lengths = Some([length(common.input), length(common.output)]);
        }
    }

    fn tables<'a>(&'a self, common: Tables<'a>) -> [(&'a Rows, Vec<&'a Replica>); 2] {
        let replicas = |of: fn(&Shard) -> &Replica| self.shards.iter().map(of).collect();
        [(common.input, replicas(|shard| &shard.input)), (common.output, replicas(|shard| &shard.output))]
    }

    /// Merges the rows of frequent words, and if `all`, all other rows too, after training at rate `rate`.
    pub fn merge(&mut self, common: Tables, rate: f32, all: bool) {
        let met = |table: &Rows| if all { table.len() } else { table.len().min(FREQUENT) };
        let [input, output] = self.lengths.unwrap_or_default();
        // Inputs are trained against outputs, and the other way round.
        for ((table, replicas), length) in self.tables(common).into_iter().zip([output, input]) {
            let nearer = nearer(length, rate);
            // Each row is merged by itself, so it does not matter which thread does it.
            (0..met(table)).into_par_iter().with_min_len(128).for_each(|row| {
                let trained = replicas.iter().filter(|replica| replica.uses[row] > 0);
                let count = trained.clone().count();
                if count > 0 {
                    let share = share(count, trained.clone().map(|replica| replica.uses[row]).sum(), nearer);
                    let trained = trained.map(|replica| &replica.rows);
                    table.meet(row, share, trained, replicas.iter().map(|replica| &replica.rows));
                }
            });
        }
        for Shard { input, output } in &mut self.shards {
            input.uses[..met(common.input)].fill(0);
            output.uses[..met(common.output)].fill(0);
        }
        if all {
            self.lengths = Some([length(common.input), length(common.output)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::rng::Key;

    use super::super::rows::step::NONE;
    use super::*;

    #[test]
    fn moves_of_all_shards_add_up_and_rows_that_nobody_took_stay() {
        let (input, output) = (Rows::uniform(40, 20, Key::new(1)).unwrap(), Rows::zeros(40, 20).unwrap());
        let none = Rows::zeros(1, 20).unwrap();
        let common = Tables { input: &input, output: &output, none: &none };
        let before = input.to_vec();
        let mut shards = Shards::new(2, common).unwrap();
        for _ in 0..2 {
            shards.begin(common);
            for (number, shard) in shards.each().iter_mut().enumerate() {
                let (private, mut counting) = shard.private(&none);
                counting.inputs(&[3, 5 + number as u32]);
                counting.outputs(&[NONE]);
                let row = 3 * 20;
                let moved: Vec<f32> = private.input.to_vec()[row..row + 20].iter().map(|v| v + 0.5 + number as f32).collect();
                private.input.set(3, &moved);
            }
            shards.merge(common, 0.1, true);
            shards.each().iter_mut().for_each(|shard| assert_eq!(shard.private(&none).0.input.to_vec(), input.to_vec()));
        }
        let after = input.to_vec();
        for (at, (after, before)) in after.iter().zip(&before).enumerate() {
            // Each period, .5 from the one and 1.5 from the other.
            let expected = if at / 20 == 3 { before + 4.0 } else { *before };
            assert!((after - expected).abs() < 1e-5, "value {at}: {before} became {after}");
        }
        assert!(output.to_vec().iter().all(|v| *v == 0.0));
    }

    #[test]
    fn few_moves_are_added_and_many_are_averaged() {
        assert!([1, 100_000].into_iter().all(|uses| (share(1, uses, 0.1) - 1.0).abs() < 1e-6));
        assert_eq!(share(4, 100_000, 0.0), 1.0, "moves of nothing");
        assert!((share(4, 4, 0.01) - 1.0).abs() < 0.02, "few moves");
        assert!((share(4, 4_000_000, 0.01) - 0.25).abs() < 1e-4, "many moves");
        assert!(share(4, 200, 0.01) > share(4, 400, 0.01));
        let rows = Rows::zeros(2, 20).unwrap();
        rows.set(1, &[1.0; 20]);
        assert_eq!(nearer(length(&rows), 0.1), 0.25, "a tenth of a quarter of a mean square of 10");
    }
}
