//! The same bits on any number of threads: shards of a step train copies of their own, whose moves are then added up in order.
//!
//! A step's blocks are dealt to a fixed number of shards. Each trains private rows, copied from the common ones as they are
//! first needed; every few blocks each common row moves by its copies' moves, in the order of the shards. Which thread does what,
//! and when, cannot show.
//!
//! Rows of frequent words are in so many windows that copies of them would soon drift apart: they come together more often than
//! others. Even so, copies that each shard has trained many times have all gone the same way, as far as it goes, and the sum of
//! their moves would go several times as far, and diverge. Such moves are averaged (Zinkevich et al. 2010), those of rows that
//! were trained a few times, or at a low rate, are added, which is what training without a lock comes to, and in between it is
//! something in between.

use rayon::prelude::*;

use super::kernel::Touch;
use super::rows::Rows;
use super::rows::step::{NONE, Tables};
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

/// Blocks of a shard in a round, after which frequent words' rows come together.
pub const ROUND: usize = 2;

/// Rounds after which all rows do, as they do at a step's end.
pub const ROUNDS: usize = 32;

/// How many rows are frequent words', of each table.
const FREQUENT: usize = 512;

/// Where in time a copy is, in rounds counted from 1.
#[derive(Clone, Copy)]
pub struct Period {
    /// Since when copies of most rows are good.
    pub start: u32,
    /// Since when those of frequent words' rows are.
    pub round: u32,
}

impl Period {
    fn since(self, row: usize) -> u32 {
        if row < FREQUENT { self.round } else { self.start }
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
        (tables, Copying { common, private: tables, stamps, period, firsts: Vec::new() })
    }
}

/// Rows between asking for one and copying it.
const AHEAD: usize = 4;

/// Copies rows before their first use in a period.
pub struct Copying<'a> {
    common: Tables<'a>,
    private: Tables<'a>,
    stamps: [&'a mut [(u32, u32)]; 2],
    period: Period,
    // Those of one call that are to be copied.
    firsts: Vec<u32>,
}

impl Copying<'_> {
    /// Counts one more use of the rows `ids` of table `table`, and copies those whose first in the period that is.
    fn touch(&mut self, table: usize, ids: &[u32]) {
        let (stamps, firsts) = (&mut *self.stamps[table], &mut self.firsts);
        firsts.resize(ids.len(), 0);
        let mut count = 0;
        for &id in ids.iter().filter(|id| **id != NONE) {
            let (stamp, uses) = &mut stamps[id as usize];
            let first = *stamp < self.period.since(id as usize);
            (*stamp, *uses) = (self.period.round, if first { 1 } else { *uses + 1 });
            // Written in any case: which are, no branch foresees.
            firsts[count] = id;
            count += usize::from(first);
        }
        let (from, to) = match table {
            0 => (self.common.input, self.private.input),
            _ => (self.common.output, self.private.output),
        };
        for (at, &id) in firsts[..count].iter().enumerate() {
            if let Some(&soon) = firsts[..count].get(at + AHEAD) {
                from.expect(soon, to);
            }
            to.copy(from, id);
        }
    }
}

impl Touch for Copying<'_> {
    fn inputs(&mut self, ids: &[u32]) {
        self.touch(0, ids);
    }

    fn outputs(&mut self, ids: &[u32]) {
        self.touch(1, ids);
    }
}

/// By how much of their sum a row moves whose copies in `shards` shards were trained `uses` times in all, each of which brings it
/// nearer to where its gradient ends by `nearer` of the way that is left.
///
/// After n times it has gone 1 − e^−(n·nearer) of it. So far each copy has gone, and so much less than their sum would the row have
/// gone if it had been trained by all of them in turn.
fn share(shards: usize, uses: u32, nearer: f32) -> f32 {
    let (shards, x) = (shards as f32, (nearer * uses as f32 / shards as f32).max(f32::MIN_POSITIVE));
    (-shards * x).exp_m1() / (shards * (-x).exp_m1())
}

/// How much nearer a row comes where it goes when it is trained at rate `rate` against rows of `others`: by rate · σ′ · their squared
/// length, as it is for frequent words.
fn nearer(others: &Rows, rate: f32) -> f32 {
    const SLOPE: f32 = 0.25;
    let rows = others.len().min(FREQUENT) as u32;
    rate * SLOPE * (0..rows).map(|row| others.square(row)).sum::<f32>() / rows.max(1) as f32
}

/// Moves the rows of frequent words, and if `all`, all others too, by the moves of their copies of `period`, made at rate `rate`.
pub fn merge(common: Tables, shards: &[Shard], period: Period, rate: f32, all: bool) {
    let nearer = [nearer(common.output, rate), nearer(common.input, rate)];
    let copies: [Vec<_>; 2] = [shards.iter().map(|s| &s.input).collect(), shards.iter().map(|s| &s.output).collect()];
    for ((table, copies), nearer) in [common.input, common.output].into_iter().zip(copies).zip(nearer) {
        let rows = if all { table.len() } else { table.len().min(FREQUENT) };
        // Each row by itself: how they are dealt to threads cannot show either.
        (0..rows).into_par_iter().with_min_len(128).for_each_init(Vec::new, |local, row| {
            let moved = || copies.iter().filter(|copies| copies.stamps[row].0 >= period.since(row));
            let count = moved().count();
            if count > 0 {
                let share = share(count, moved().map(|copies| copies.stamps[row].1).sum(), nearer);
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
        for period in [Period { start: 1, round: 1 }, Period { start: 2, round: 2 }] {
            for (number, shard) in shards.iter_mut().enumerate() {
                let (private, mut copying) = shard.private(common, period);
                copying.inputs(&[3, 5 + number as u32]);
                let row = 3 * 20;
                let moved: Vec<f32> = private.input.to_vec()[row..row + 20].iter().map(|v| v + 0.5 + number as f32).collect();
                private.input.set(3, &moved);
            }
            merge(common, &shards, period, 0.1, true);
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
        assert_eq!(nearer(&rows, 0.1), 0.25, "a tenth of a quarter of a mean square of 10");
    }
}
