//! Tables whose rows take the steps of an optimizer only when they are read.
//!
//! A step of AdamW moves every row of a table, also those that a batch did not look up: their gradient is 0, but their moving averages are
//! not. A table has far more rows than a batch looks up, so such a row keeps a note of how many steps it has taken, and takes the missing
//! ones before it is read, all at once and in registers. The bits are those of whole steps.

use ctk_kernels::{Adam, AdamRows, Cpu, LateRow, Real};

use super::array::Array;
use super::gradient::RowGradient;
use super::tensors;
use crate::error::{Error, Result};
use candle_core::DType;

/// Steps after which all rows catch up, so that the notes stay small.
const MOST: usize = 4096;

/// The steps that rows of a table have yet to take. The table is (rows, width) on the CPU.
pub(super) struct Late {
    /// The moving averages of the gradient and of its square.
    states: [Array; 2],
    steps: Vec<Adam>,
    /// How many of `steps` each row has taken.
    taken: Vec<u32>,
}

impl Late {
    /// No step yet, for a table of `rows` rows.
    pub fn new(rows: usize, states: &[Array; 2]) -> Late {
        Late { states: states.clone(), steps: Vec::new(), taken: vec![0; rows] }
    }

    /// Whether all rows should catch up.
    pub fn is_long(&self) -> bool {
        self.steps.len() >= MOST
    }

    /// Lets the rows `ids` (or all) of `table` take their missing steps.
    pub fn catch_up(&mut self, table: &Array, ids: Option<&[u32]>) -> Result<()> {
        let count = self.steps.len() as u32;
        let mut rows = Vec::new();
        let mut take = |row: u32, taken: &mut u32| {
            if *taken < count {
                rows.push(LateRow { row, taken: *taken });
                *taken = count;
            }
        };
        match ids {
            Some(ids) => ids.iter().for_each(|id| take(*id, &mut self.taken[*id as usize])),
            None => (0..).zip(&mut self.taken).for_each(|(row, taken)| take(row, taken)),
        }
        if rows.is_empty() {
            return Ok(());
        }
        rows.sort_unstable_by_key(|late| late.row);
        self.on(table, &rows, &self.steps, None)
    }

    /// Takes `step`. The rows that have a gradient take it at once, with `gradient` times `scale`; the other rows take it when they catch up.
    pub fn step(&mut self, table: &Array, step: Adam, gradient: &RowGradient, scale: f64) -> Result<()> {
        let (rows, width) = (self.taken.len(), gradient.values().dims()[1]);
        if gradient.ids().last().is_some_and(|last| *last as usize >= rows) || table.dims() != [rows, width] {
            let last = gradient.ids().last();
            return Err(Error::new(format!("a gradient of rows up to {last:?} of {width} values for {:?}", table.dims())));
        }
        if gradient.values().dtype() != table.dtype() {
            return Err(Error::new(format!("a gradient of {:?} for {:?}", gradient.values().dtype(), table.dtype())));
        }
        self.catch_up(table, Some(gradient.ids()))?;
        self.steps.push(step);
        let count = self.steps.len() as u32;
        gradient.ids().iter().for_each(|id| self.taken[*id as usize] = count);
        let now: Vec<LateRow> = gradient.ids().iter().map(|&row| LateRow { row, taken: 0 }).collect();
        self.on(table, &now, &[step], Some((gradient, scale)))
    }

    fn on(&self, table: &Array, rows: &[LateRow], steps: &[Adam], last: Option<(&RowGradient, f64)>) -> Result<()> {
        match table.dtype() {
            DType::F64 => self.run::<f64>(table, rows, steps, last),
            _ => self.run::<f32>(table, rows, steps, last),
        }
    }

    fn run<R: Real>(&self, table: &Array, rows: &[LateRow], steps: &[Adam], last: Option<(&RowGradient, f64)>) -> Result<()> {
        let (cpu, width, [first, second]) = (Cpu::default(), table.dims()[1], &self.states);
        let take = |last: Option<(&[R], f64)>| {
            let mut done = Ok(());
            table.change::<Cpu, R>(&cpu, |w| {
                let mut inner = Ok(());
                let outer = first.change::<Cpu, R>(&cpu, |m| {
                    inner = second.change::<Cpu, R>(&cpu, |v| AdamRows { w, states: [m, v], width }.catch_up(rows, steps, last));
                });
                done = outer.and(inner);
            })?;
            done
        };
        match last {
            Some((gradient, scale)) => tensors::read(gradient.values(), |g: &[R]| take(Some((g, scale))))?,
            None => take(None),
        }
    }
}
