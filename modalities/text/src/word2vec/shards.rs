//! The same bits on any number of threads: shards of a step train copies of their own, whose moves are then added up in order.
//!
//! A step's blocks are dealt to a fixed number of shards. Each trains private rows, copied from the common ones as they are
//! first needed; when all are done, every common row moves by the sum of its copies' moves, in the order of the shards. Which
//! thread does what, and when, cannot show. A step is then a period of local training (Zinkevich et al. 2010 average such moves;
//! adding them is what lock-free training comes to).

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
    // The period in which each row was copied last.
    stamps: Vec<u32>,
}

impl Copies {
    fn of(table: &Rows) -> Result<Copies> {
        Ok(Copies { rows: Rows::zeros(table.len(), table.width())?, stamps: vec![0; table.len()] })
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

    /// What is trained, and the one who copies before it is: in period `period`, counted from 1.
    pub fn private<'a>(&'a mut self, common: Tables<'a>, period: u32) -> (Tables<'a>, Copying<'a>) {
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
    stamps: [&'a mut [u32]; 2],
    period: u32,
}

impl Touch for Copying<'_> {
    #[inline]
    fn input(&mut self, id: u32) {
        if std::mem::replace(&mut self.stamps[0][id as usize], self.period) != self.period {
            self.private.input.copy(self.common.input, id);
        }
    }

    #[inline]
    fn output(&mut self, id: u32) {
        if std::mem::replace(&mut self.stamps[1][id as usize], self.period) != self.period {
            self.private.output.copy(self.common.output, id);
        }
    }
}

/// Adds to all common rows the moves of their copies of period `period`.
pub fn merge(common: Tables, shards: &[Shard], period: u32) {
    for (table, copies) in [
        (common.input, shards.iter().map(|s| &s.input).collect::<Vec<_>>()),
        (common.output, shards.iter().map(|s| &s.output).collect()),
    ] {
        // Each row by itself: how they are dealt to threads cannot show either.
        (0..table.len()).into_par_iter().with_min_len(512).for_each_init(Vec::new, |local, row| {
            let moved = copies.iter().filter(|copies| copies.stamps[row] == period).map(|copies| &copies.rows);
            table.add_moves(row as u32, moved, local);
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
        for period in 1..=2 {
            for (number, shard) in shards.iter_mut().enumerate() {
                let (private, mut copying) = shard.private(common, period);
                for id in [3, 3, 5 + number as u32] {
                    copying.input(id);
                }
                let row = 3 * 20;
                let moved: Vec<f32> = private.input.to_vec()[row..row + 20].iter().map(|v| v + 0.5 + number as f32).collect();
                private.input.set(3, &moved);
            }
            merge(common, &shards, period);
        }
        let after = input.to_vec();
        for (at, (after, before)) in after.iter().zip(&before).enumerate() {
            // Each period, .5 from the one and 1.5 from the other.
            let expected = if at / 20 == 3 { before + 4.0 } else { *before };
            assert!((after - expected).abs() < 1e-5, "value {at}: {before} became {after}");
        }
        assert!(output.to_vec().iter().all(|v| *v == 0.0));
    }
}
