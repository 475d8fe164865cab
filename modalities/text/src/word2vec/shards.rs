//! The same bits on any number of threads: shards of a step train copies of their own, whose moves are then added up in order.
//!
//! A step's blocks are dealt to a fixed number of shards. Each trains private rows, copied from the common ones as they are
//! first needed; when all are done, every common row moves by its copies' moves, in the order of the shards. Which thread does
//! what, and when, cannot show.
//!
//! Rows of frequent words are in so many windows that copies of them would drift apart within a step: they come together
//! every few blocks. Even so, copies that each shard has trained many times have all gone the same way, as far as it goes, and
//! the sum of their moves would go several times as far, and diverge: such moves are averaged (Zinkevich et al. 2010), those of
//! rows that were trained a few times are added, which is what training without a lock comes to, and in between it is something
//! in between.

use rayon::prelude::*;

use super::kernel::Touch;
use super::rows::Rows;
use super::rows::step::Tables;
use ctk_core::Result;

/// One shard's copies.
pub struct Shard {
    input: Copies,
    output: Copies,
}

/// Copies of some rows of a table.
struct Copies {
    rows: Rows,
    // Of each row, the round in which it was copied last, and how often it was trained since.
    stamps: Vec<(u32, u32)>,
}

/// How often a shard trains a row until it has gone about as far as it goes.
const MANY: f32 = 16.0;

/// Blocks of a shard between two merges of frequent words' rows.
pub const ROUND: usize = 2;

/// How many rows are frequent words', of each table.
const FREQUENT: usize = 512;

/// Where in time a copy is: both are counted from 1, and a step's number is that of its first round.
#[derive(Clone, Copy)]
pub struct Period {
    /// Since when copies of most rows are good.
    pub step: u32,
    /// Since when those of frequent words' rows are.
    pub round: u32,
}

impl Period {
    fn since(self, row: usize) -> u32 {
        if row < FREQUENT { self.round } else { self.step }
    }
}

impl Copies {
    fn of(table: &Rows) -> Result<Copies> {
        Ok(Copies { rows: Rows::zeros(table.len(), table.width())?, stamps: vec![(0, 0); table.len()] })
    }
}

impl Shard {
    /// Room for copies of all rows of `common`.
    ///
    /// # Errors
    /// There is not as much memory.
    pub fn new(common: Tables) -> Result<Shard> {
        Ok(Shard { input: Copies::of(common.input)?, output: Copies::of(common.output)? })
    }

    /// What is trained, and the one who copies before it is.
    pub fn private<'a>(&'a mut self, common: Tables<'a>, period: Period) -> (Tables<'a>, Copying<'a>) {
        let Shard { input, output } = self;
        let tables = Tables { input: &input.rows, output: &output.rows, none: common.none };
        let stamps = [&mut input.stamps[..], &mut output.stamps[..]];
        (tables, Copying { common, private: tables, stamps, period })
    }
}

/// Copies rows before their first use in a period.
pub struct Copying<'a> {
    common: Tables<'a>,
    private: Tables<'a>,
    stamps: [&'a mut [(u32, u32)]; 2],
    period: Period,
}

impl Copying<'_> {
    /// Counts one more use of row `id` of table `table`; whether it is the period's first.
    #[inline]
    fn first(&mut self, table: usize, id: u32) -> bool {
        let (stamp, uses) = &mut self.stamps[table][id as usize];
        let first = *stamp < self.period.since(id as usize);
        (*stamp, *uses) = (self.period.round, if first { 1 } else { *uses + 1 });
        first
    }
}

impl Touch for Copying<'_> {
    #[inline]
    fn input(&mut self, id: u32) {
        if self.first(0, id) {
            self.private.input.copy(self.common.input, id);
        }
    }

    #[inline]
    fn output(&mut self, id: u32) {
        if self.first(1, id) {
            self.private.output.copy(self.common.output, id);
        }
    }
}

/// By how much of their sum a row moves whose copies in `shards` shards were trained `uses` times in all.
fn share(shards: usize, uses: u32) -> f32 {
    let mean = uses as f32 / shards as f32;
    1.0 / (1.0 + (shards - 1) as f32 * (mean - 1.0) / (mean - 1.0 + MANY))
}

/// Moves the rows of frequent words, and if `all`, all others too, by the moves of their copies of `period`.
pub fn merge(common: Tables, shards: &[Shard], period: Period, all: bool) {
    for (table, copies) in [
        (common.input, shards.iter().map(|s| &s.input).collect::<Vec<_>>()),
        (common.output, shards.iter().map(|s| &s.output).collect()),
    ] {
        let rows = if all { table.len() } else { table.len().min(FREQUENT) };
        // Each row by itself: how they are dealt to threads cannot show either.
        (0..rows).into_par_iter().with_min_len(128).for_each_init(Vec::new, |local, row| {
            let moved = || copies.iter().filter(|copies| copies.stamps[row].0 >= period.since(row));
            let count = moved().count();
            if count > 0 {
                let share = share(count, moved().map(|copies| copies.stamps[row].1).sum());
                table.add_moves(row as u32, share, moved().map(|copies| &copies.rows), local);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use ctk_core::rng::Key;

    use super::*;

    #[test]
    fn moves_of_all_shards_add_up_and_rows_that_nobody_took_stay() {
        let (input, output) = (Rows::uniform(40, 20, Key::new(1)).unwrap(), Rows::zeros(40, 20).unwrap());
        let none = Rows::zeros(1, 20).unwrap();
        let common = Tables { input: &input, output: &output, none: &none };
        let before = input.to_vec();
        let mut shards = [Shard::new(common).unwrap(), Shard::new(common).unwrap()];
        for period in [Period { step: 1, round: 1 }, Period { step: 2, round: 2 }] {
            for (number, shard) in shards.iter_mut().enumerate() {
                let (private, mut copying) = shard.private(common, period);
                for id in [3, 5 + number as u32] {
                    copying.input(id);
                }
                let row = 3 * 20;
                let moved: Vec<f32> = private.input.to_vec()[row..row + 20].iter().map(|v| v + 0.5 + number as f32).collect();
                private.input.set(3, &moved);
            }
            merge(common, &shards, period, true);
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
        assert_eq!((share(1, 1), share(1, 100_000), share(4, 4)), (1.0, 1.0, 1.0));
        assert!((share(4, 4_000_000) - 0.25).abs() < 1e-4);
        assert!(share(4, 4 * 17) == 0.4 && share(4, 40) > share(4, 80));
    }
}
