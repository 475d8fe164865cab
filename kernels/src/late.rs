//! Tables whose rows take steps of Adam at different times, many steps at once. A row without a gradient still moves, by its moving averages,
//! until what is left of them is too small to change a bit.

#![allow(clippy::needless_range_loop, reason = "values that stay in registers")]

use rayon::prelude::*;

use crate::element::{Real, zero};
use crate::update::{Adam, Factors};
use crate::wide;

/// A table whose rows take steps of Adam at different times. All three have rows of `width` values.
pub struct AdamRows<'a, R> {
    /// The table.
    pub w: &'a mut [R],
    /// The moving averages of its gradient and of the gradient's square.
    pub states: [&'a mut [R]; 2],
    /// Values of a row.
    pub width: usize,
}

/// A row with steps to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateRow {
    /// Its number in the table.
    pub row: u32,
    /// How many of the steps it has taken.
    pub taken: u32,
}

/// Rows that are worth a task.
const ROWS: usize = 32;
/// Values of a row that stay in registers while all its steps are taken.
const HELD: usize = 64;

impl<R: Real> AdamRows<'_, R> {
    /// Applies to each of `rows` (ascending, each once) the `steps` that it has not taken, with a gradient of zeros. If `last` is given, the
    /// last step uses its gradients instead: one row for each of `rows`, multiplied by the factor. The result has the same bits as steps of the
    /// whole table in which rows without a gradient have a gradient of zeros.
    ///
    /// # Panics
    /// If a row is not in the table, or rows are not ascending.
    pub fn catch_up(&mut self, rows: &[LateRow], steps: &[Adam], last: Option<(&[R], f64)>) {
        let width = self.width;
        let scale = last.map_or(1.0, |(_, scale)| scale);
        let mut factors: Vec<Factors<R>> = steps.iter().map(|step| Factors::new(step, 1.0)).collect();
        if let (Some(last), Some(step)) = (factors.last_mut(), steps.last()) {
            *last = Factors::new(step, scale);
        }
        let still = still(&steps[..steps.len() - usize::from(last.is_some())]);
        let mut tasks = Vec::with_capacity(rows.len().div_ceil(ROWS));
        let [m, v] = &mut self.states;
        let (mut w, mut m, mut v) = (&mut *self.w, &mut **m, &mut **v);
        let mut start = 0;
        for (number, some) in rows.chunks(ROWS).enumerate() {
            let [first, end] = [some[0].row as usize, some[some.len() - 1].row as usize + 1];
            let parts = [&mut w, &mut m, &mut v].map(|all| {
                let (own, rest) = std::mem::take(all)[(first - start) * width..].split_at_mut((end - first) * width);
                *all = rest;
                own
            });
            start = end;
            let gradients = last.map(|(g, _)| &g[number * ROWS * width..][..some.len() * width]);
            tasks.push((parts, some, gradients));
        }
        tasks.into_par_iter().for_each(|([w, m, v], rows, gradients)| {
            wide!({
                for (at, row) in rows.iter().enumerate() {
                    let (from, taken) = ((row.row - rows[0].row) as usize * width, row.taken as usize);
                    let g = gradients.map(|g| &g[at * width..][..width]);
                    let [w, m, v] = [&mut *w, &mut *m, &mut *v].map(|all| &mut all[from..][..width]);
                    take(&factors[taken..], &still[taken.min(still.len())..], w, m, v, g);
                }
            });
        });
    }
}

/// Takes all steps of a row, [`HELD`] values at a time; the last one with the gradient `g`, if there is one. `still` are the others' bounds.
#[inline(always)]
fn take<R: Real>(steps: &[Factors<R>], still: &[Still<R>], w: &mut [R], m: &mut [R], v: &mut [R], g: Option<&[R]>) {
    let ((w, w_rest), (m, m_rest), (v, v_rest)) = (w.as_chunks_mut(), m.as_chunks_mut(), v.as_chunks_mut());
    let (g, g_rest) = g.map_or((None, None), |g| (Some(g.as_chunks::<HELD>().0), Some(g.as_chunks::<HELD>().1)));
    for (at, ((w, m), v)) in w.iter_mut().zip(m).zip(v).enumerate() {
        take_held(steps, still, w, m, v, g.map(|g| &g[at]));
    }
    let count = w_rest.len();
    if count > 0 {
        let padded = |from: &[R]| {
            let mut held = [zero::<R>(); HELD];
            held[..count].copy_from_slice(from);
            held
        };
        let [mut w, mut m, mut v] = [&*w_rest, m_rest, v_rest].map(padded);
        take_held(steps, still, &mut w, &mut m, &mut v, g_rest.map(padded).as_ref());
        w_rest.copy_from_slice(&w[..count]);
        m_rest.copy_from_slice(&m[..count]);
        v_rest.copy_from_slice(&v[..count]);
    }
}

/// The same for values that stay in registers.
#[inline(always)]
fn take_held<R: Real>(
    steps: &[Factors<R>],
    still: &[Still<R>],
    to_w: &mut [R; HELD],
    to_m: &mut [R; HELD],
    to_v: &mut [R; HELD],
    g: Option<&[R; HELD]>,
) {
    let (mut w, mut m, mut v) = (*to_w, *to_m, *to_v);
    let nothing = [zero::<R>(); HELD];
    let (idle, last) = steps.split_at(still.len());
    for (number, step) in idle.iter().enumerate() {
        if number.is_multiple_of(BETWEEN) && still[number].holds(&w, &m, &v) {
            for step in &idle[number..] {
                for i in 0..HELD {
                    [m[i], v[i]] = step.averages([m[i], v[i]], nothing[i]);
                }
            }
            break;
        }
        for i in 0..HELD {
            [w[i], m[i], v[i]] = step.step([w[i], m[i], v[i]], nothing[i]);
        }
    }
    for step in last {
        let g = g.unwrap_or(&nothing);
        for i in 0..HELD {
            [w[i], m[i], v[i]] = step.step([w[i], m[i], v[i]], g[i]);
        }
    }
    (*to_w, *to_m, *to_v) = (w, m, v);
}

/// Steps between two questions whether the rest move a row.
const BETWEEN: usize = 16;

/// When the steps from one on, all with a gradient of zeros, move no weight any more. A weight w stays where it is while what is taken off is
/// less than a quarter of the distance to the next number, so less than ε·|w|/8, with ε the distance from 1 to the next number. After k steps
/// it is at most
///
/// ```text
/// rate·m·β₁ᵏ / (√(v·β₂ᵏ)·root) = m/√v · (β₁/√β₂)ᵏ·rate/root
/// ```
///
/// whose last factor's maximum over the steps is `reach`.
#[derive(Clone, Copy)]
struct Still<R> {
    reach: R,
    /// v below which it may become 0 in these steps, after which the bound does not hold.
    floor: R,
}

/// The bounds from each of the steps on.
fn still<R: Real>(steps: &[Adam]) -> Vec<Still<R>> {
    let (mut reach, mut kept) = (0f64, 1f64);
    let mut all: Vec<Still<R>> = steps
        .iter()
        .rev()
        .map(|step| {
            let [b1, b2] = step.betas;
            // Room for the rounding of thousands of steps.
            let own = 1.01 * step.rate.abs() / step.root;
            let moves = step.keep != 1.0 || step.eps <= 0.0;
            reach = if moves { f64::INFINITY } else { b1 / b2.sqrt() * reach.max(own) };
            kept *= b2;
            Still { reach: R::of(reach), floor: R::of(1e3 * R::min_positive_value().wide() / kept) }
        })
        .collect();
    all.reverse();
    all
}

impl<R: Real> Still<R> {
    /// Whether no weight moves.
    #[inline(always)]
    fn holds(&self, w: &[R; HELD], m: &[R; HELD], v: &[R; HELD]) -> bool {
        let (least, nothing) = (R::of(R::epsilon().wide() / 16.0), zero::<R>());
        let mut moving = 0u32;
        for i in 0..HELD {
            let none = (m[i] == nothing) & (v[i] >= nothing) & (self.reach < R::infinity());
            // False where both sides are too small for a number.
            let small = (self.reach * m[i].abs() < v[i].sqrt() * (w[i].abs() * least)) & (v[i] >= self.floor);
            moving += u32::from(!(none | small));
        }
        moving == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::adam;
    use crate::update::tests::{bits, wave};

    /// The `number`th of some steps.
    fn step_of_adam(number: usize, keep: f64) -> Adam {
        let taken = number as f64 + 1.0;
        let root = 1.0 / (1.0 - 0.99f64.powf(taken)).sqrt();
        Adam { betas: [0.9, 0.99], keep, rate: 0.1 / taken, root, eps: 1e-8 }
    }

    /// Row r has a gradient in step s where `met` says so.
    fn late_rows_are_whole_steps<R: Real>(
        width: usize,
        [rows, steps]: [usize; 2],
        keep: f64,
        met: impl Fn(usize, usize) -> bool,
    ) {
        let step_of_adam = |number| step_of_adam(number, keep);
        let gradient = |row: usize, step: usize| -> Vec<R> { wave(width, (row + 31 * step) as f64 * 0.01 + 0.1) };
        let start: Vec<R> = wave(rows * width, 0.1);
        let mut whole = [start.clone(), vec![R::of(0.0); rows * width], vec![R::of(0.0); rows * width]];
        for step in 0..steps {
            let one = |row| if met(row, step) { gradient(row, step) } else { vec![R::of(0.0); width] };
            let g: Vec<R> = (0..rows).flat_map(one).collect();
            let [w, m, v] = &mut whole;
            adam(&step_of_adam(step), w, m, v, &g, 0.25);
        }
        // All at once, or also all rows after every fourth step.
        for (threads, pause) in [(1, usize::MAX), (3, usize::MAX), (2, 4)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut late = [start.clone(), vec![R::of(0.0); rows * width], vec![R::of(0.0); rows * width]];
            let (mut taken, mut history) = (vec![0u32; rows], Vec::new());
            let [w, m, v] = &mut late;
            let mut table = AdamRows { w, states: [m, v], width };
            let all = |taken: &[u32]| -> Vec<LateRow> {
                taken.iter().zip(0..).map(|(taken, row)| LateRow { row, taken: *taken }).collect()
            };
            for step in 0..steps {
                history.push(step_of_adam(step));
                let some: Vec<LateRow> = all(&taken).into_iter().filter(|late| met(late.row as usize, step)).collect();
                let g: Vec<R> = some.iter().flat_map(|late| gradient(late.row as usize, step)).collect();
                // Before a row is read, it catches up.
                let (before, now) = history.split_at(step);
                let waiting: Vec<LateRow> = some.iter().copied().filter(|late| late.taken < step as u32).collect();
                pool.install(|| table.catch_up(&waiting, before, None));
                let some: Vec<LateRow> = some.iter().map(|late| LateRow { taken: 0, ..*late }).collect();
                pool.install(|| table.catch_up(&some, now, Some((&g, 0.25))));
                some.iter().for_each(|late| taken[late.row as usize] = step as u32 + 1);
                if step % pause == pause - 1 {
                    pool.install(|| table.catch_up(&all(&taken), &history, None));
                    taken.fill(step as u32 + 1);
                }
            }
            pool.install(|| table.catch_up(&all(&taken), &history, None));
            assert_eq!(late.map(|x| bits(&x)), whole.clone().map(|x| bits(&x)), "{threads} threads, pause {pause}");
        }
    }

    #[test]
    fn rows_may_take_their_steps_late() {
        // Row 7 has no gradient.
        let met = |row: usize, step: usize| row != 7 && (row * 7 + step * 11).is_multiple_of(row % 13 + 1);
        for width in [1, 64, 130] {
            late_rows_are_whole_steps::<f32>(width, [200, 30], 0.999, met);
            late_rows_are_whole_steps::<f64>(width, [200, 30], 1.0, met);
        }
    }

    #[test]
    fn rows_that_no_step_moves_any_more_have_the_bits_of_whole_steps() {
        // Gradients at the beginning, in one row again after a long pause: v is 0 in between.
        let met = |row: usize, step: usize| step < row || (row == 3 && step == 11_000);
        for keep in [1.0, 0.9999] {
            late_rows_are_whole_steps::<f32>(65, [4, 1000], keep, met);
            late_rows_are_whole_steps::<f64>(65, [4, 1000], keep, met);
        }
        late_rows_are_whole_steps::<f32>(64, [4, 11_100], 1.0, met);
    }

    #[test]
    fn steps_are_still_only_while_their_bound_holds() {
        let steps: Vec<Adam> = (0..400).map(|number| step_of_adam(number, 1.0)).collect();
        let (bounds, held) = (still::<f32>(&steps), |x: f32| [x; HELD]);
        let first = |w, m, v| bounds[0].holds(&held(w), &held(m), &held(v));
        assert!(first(1.0, 0.0, 0.0) && first(0.0, 0.0, 0.0), "rows that were never met");
        assert!(first(1.0, 1e-12, 1.0) && !first(1.0, 1e-2, 1.0) && !first(0.0, 1e-12, 1.0));
        assert!(!first(1.0, 1e-30, 1e-34), "v becomes 0 on the way");
        assert!(!first(1.0, 0.0, f32::NAN) && !first(1.0, f32::NAN, 1.0), "what is not a number spreads");
        assert!(
            !still::<f32>(&[Adam { rate: 1e-9, ..steps[0] }])[0].holds(&held(0.0), &held(1.2e-38), &held(1.0)),
            "products below all numbers"
        );
        let decayed: Vec<Adam> = (0..400).map(|number| step_of_adam(number, 0.999)).collect();
        assert!(!still::<f32>(&decayed)[0].holds(&held(1.0), &held(0.0), &held(0.0)), "weights that decay move");
        // A rate that grows: the bound is of the largest step that is left.
        let growing: Vec<Adam> = (0..50).map(|number| Adam { rate: 1e-3 * 2f64.powi(number), ..step_of_adam(7, 1.0) }).collect();
        let reach = still::<f64>(&growing)[0].reach;
        let largest =
            (0..50).map(|k| 1e-3 * 2f64.powi(k) / growing[0].root * (0.9 / 0.99f64.sqrt()).powi(k + 1)).fold(0.0, f64::max);
        assert!(reach >= largest && reach < 1.02 * largest, "{reach}, {largest}");
    }
}
