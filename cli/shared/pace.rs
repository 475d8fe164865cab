//! Estimates the time left for all cells of a study, from the cells that are finished and the progress of the one that runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The kind of a cell; cells of one kind take about the same time.
pub type Kind = (usize, usize);

/// The cells of a study, and how long those took that this process made.
#[derive(Default)]
pub struct Pace {
    /// In the order in which they are made; none for a cell that was finished before.
    cells: Vec<Option<Kind>>,
    took: BTreeMap<Kind, Vec<f64>>,
}

impl Pace {
    pub fn new(cells: Vec<Option<Kind>>) -> Pace {
        Pace { cells, took: BTreeMap::new() }
    }

    /// Notes that cell `number`, counted from 1, is finished and took so many seconds.
    pub fn took(&mut self, number: usize, seconds: f64) {
        if let Some(kind) = self.kind(number) {
            self.took.entry(kind).or_default().push(seconds);
        }
    }

    fn kind(&self, number: usize) -> Option<Kind> {
        self.cells.get(number.wrapping_sub(1)).copied().flatten()
    }

    /// Seconds until the last cell is finished. Cell `number` has run for `since` seconds and expects `own` more seconds by its own steps.
    /// None while nothing is known yet.
    fn left(&self, number: usize, since: f64, own: Option<f64>) -> Option<f64> {
        let mean = |all: &[f64]| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        let alike = |kind: Kind| self.took.get(&kind).and_then(|all| mean(all));
        let any = mean(&self.took.values().flatten().copied().collect::<Vec<_>>());
        let now = match self.kind(number) {
            None => Some(0.0),
            // A cell may train several times, so its own steps tell the time left in its first training only.
            Some(kind) => match (alike(kind), own) {
                (Some(mean), own) => Some(own.unwrap_or(0.0).max(mean - since).max(0.0)),
                (None, Some(own)) => Some(own),
                (None, None) => any.map(|mean| (mean - since).max(0.0)),
            },
        }?;
        let this = self.kind(number).map(|kind| (kind, since + now));
        let later = self.cells.iter().skip(number).flatten().map(|&kind| {
            let this_kind = this.filter(|(of, _)| *of == kind).map(|(_, whole)| whole);
            alike(kind).or(this_kind).or(any).or(this.map(|(_, whole)| whole))
        });
        later.sum::<Option<f64>>().map(|later| now + later)
    }

    /// A line such as `cell 3 of 12, 1 h 20 min left in all`; `what` is the word for a cell.
    pub fn line(&self, what: &str, number: usize, since: f64, own: Option<f64>) -> String {
        let count = self.cells.len();
        match self.left(number, since, own) {
            Some(left) => format!("{what} {number} of {count}, {} left in all", time(left)),
            None => format!("{what} {number} of {count}"),
        }
    }
}

/// The cell that is running, among the others.
#[derive(Clone)]
pub struct Cell {
    pub pace: Arc<Mutex<Pace>>,
    pub number: usize,
    pub began: Instant,
}

impl Cell {
    /// The cell's number and the time left for all cells; `own` is the time left for this cell by its own steps, in seconds.
    pub fn line(&self, own: Option<f64>) -> String {
        let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.line("cell", self.number, self.began.elapsed().as_secs_f64(), own)
    }

    /// Notes that the cell is finished.
    pub fn done(&self) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.took(self.number, self.began.elapsed().as_secs_f64());
    }
}

/// A duration to print, in two units at most.
pub fn time(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (minutes, hours) = (seconds.div_ceil(60), seconds.div_ceil(60) / 60);
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{minutes} min"),
        6_000..=172_799 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<Kind> = Some((0, 0));
    const B: Option<Kind> = Some((0, 1));

    #[test]
    fn what_is_left_goes_by_cells_of_a_kind_and_by_the_one_that_runs() {
        // The second cell was finished before.
        let mut pace = Pace::new(vec![A, None, A, B, B, A]);
        assert_eq!(pace.left(1, 0.0, None), None, "nothing is known");
        // 10 s of 30 s have passed: 20 s are left here, 30 s for each other cell of its kind, and the same for the others.
        assert_eq!(pace.left(1, 10.0, Some(20.0)), Some(20.0 + 4.0 * 30.0));
        pace.took(1, 40.0);
        assert_eq!(pace.left(2, 0.0, None), Some(4.0 * 40.0), "what was there takes no time");
        pace.took(2, 9.0);
        assert_eq!(pace.left(3, 10.0, Some(5.0)), Some(30.0 + 3.0 * 40.0), "its steps may be those of a first training");
        assert_eq!(pace.left(3, 10.0, Some(60.0)), Some(60.0 + 3.0 * 40.0), "or it is slower");
        pace.took(3, 60.0);
        // The first cell of another kind is estimated by its own steps.
        assert_eq!(pace.left(4, 1.0, Some(1.0)), Some(1.0 + 2.0 + 50.0));
        pace.took(4, 2.0);
        assert_eq!(pace.left(5, 0.0, None), Some(2.0 + 50.0));
        assert_eq!(pace.left(6, 50.0, Some(0.0)), Some(0.0));
    }

    #[test]
    fn a_line_says_how_many_and_how_long() {
        let mut pace = Pace::new(vec![A; 12]);
        assert_eq!(pace.line("cell", 1, 0.0, None), "cell 1 of 12");
        pace.took(1, 480.0);
        assert_eq!(pace.line("cell", 2, 0.0, None), "cell 2 of 12, 88 min left in all");
        assert_eq!(pace.line("case", 12, 470.0, None), "case 12 of 12, 10 s left in all");
        let times = [0.2, 99.4, 100.0, 5_999.0, 6_001.0, 7_200.0, 90_000.0, 360_000.0].map(time);
        assert_eq!(times, ["0 s", "99 s", "2 min", "100 min", "1 h 41 min", "2 h 0 min", "25 h 0 min", "4 d 4 h"]);
    }
}
