//! The steps of optimizers for all parameters at once: the table that the kernels of `update.cu` read, and their launches.

use ctk_kernels::{Adam, Lars, Momentum, Real, Step};

use crate::calls::{Address, Argument};
use crate::launch::{Cuda, at, counted, int, named, to};
use crate::memory::Block;

/// Values of a chunk, as in `update.cu`.
const CHUNK: usize = 1 << 14;
/// Words of 64 bits in a row of the table, which is `Change` in `update.cu`.
const ROW: usize = 13;

/// The rules of `update.cu`.
const BLEND: u32 = 0;
const MOMENTUM: u32 = 1;
const CLASSIC: u32 = 2;
const POPULAR: u32 = 3;
const ADAM: u32 = 4;
const NORM: u32 = 5;

/// Parameters and the steps that they take.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<u64>,
    /// The number of the row that each chunk belongs to.
    owners: Vec<u32>,
    /// Whether a step needs norms, and whether one has two stages.
    norms: bool,
    stages: bool,
}

/// A table in the device's memory.
pub(crate) struct Placed {
    rows: Block<u64>,
    owners: Block<u32>,
}

impl Table {
    /// Adds an array of `n` values at the first address, with its states and its gradient at the others, the step that it takes and the
    /// gradient's factor; without a step only its norm is asked for.
    pub fn add(&mut self, step: Option<(&Step, f64)>, addresses: [Address; 4], n: usize) {
        let (step, scale) = step.unzip();
        let (rule, factors) = match step {
            None => (NORM, vec![]),
            Some(Step::Blend { keep, add }) => (BLEND, vec![*keep, *add]),
            Some(Step::Momentum(Momentum { velocity, weight })) => (MOMENTUM, [*velocity, *weight].concat()),
            Some(Step::Lars(Lars { momentum, decay, rate, trust, popular })) => {
                (if *popular { POPULAR } else { CLASSIC }, vec![*momentum, *decay, *rate, trust.unwrap_or(-1.0)])
            }
            Some(Step::Adam(Adam { betas, keep, rate, root, eps })) => {
                (ADAM, vec![betas[0], betas[1], *keep, *rate, *root, *eps])
            }
        };
        self.norms |= rule == CLASSIC || rule == POPULAR;
        self.stages |= rule == POPULAR;
        let (number, chunks) = ((self.rows.len() / ROW) as u32, n.div_ceil(CHUNK));
        let factors = (0..6).map(|i| factors.get(i).copied().unwrap_or(0.0).to_bits());
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        self.rows.extend(addresses.into_iter().chain(factors).chain([scale.unwrap_or(1.0).to_bits()]));
        self.rows.extend([pair(counted(n), rule), pair(self.owners.len() as u32, chunks as u32)]);
        self.owners.extend(std::iter::repeat_n(number, chunks));
    }
}

impl Cuda {
    /// The table in the device's memory; none if it has no values.
    pub(crate) fn placed(&self, table: &Table) -> Option<Placed> {
        let any = !table.owners.is_empty();
        any.then(|| Placed { rows: self.uploaded(&table.rows), owners: self.uploaded(&table.owners) })
    }

    /// ‖w‖ and ‖x‖ of every row.
    pub(crate) fn norms_of<R: Real>(&self, table: &Table, on: &Placed) -> Block<f64> {
        let (rows, chunks) = (table.rows.len() / ROW, table.owners.len());
        let [mut parts, mut norms] = [2 * chunks, 2 * rows].map(|len| self.block::<f64>(len));
        let arguments = [at(on.rows.view()), at(on.owners.view()), to(&parts.view_mut())];
        self.launch(&named("squares", R::KIND), [chunks, 1], &arguments);
        self.launch("norms_of", [rows, 1], &[at(on.rows.view()), at(parts.view()), to(&norms.view_mut())]);
        norms
    }

    /// Takes every step of the table.
    pub(crate) fn take<R: Real>(&self, table: &Table) {
        let Some(on) = self.placed(table) else { return };
        let stage = |number: usize, norms: Argument| {
            let arguments = [at(on.rows.view()), at(on.owners.view()), norms, int(number)];
            self.launch(&named("step", R::KIND), [table.owners.len(), 1], &arguments);
        };
        if table.stages {
            stage(0, Argument::Address(0));
        }
        match table.norms {
            true => stage(1, at(self.norms_of::<R>(table, &on).view())),
            false => stage(1, Argument::Address(0)),
        }
    }
}
