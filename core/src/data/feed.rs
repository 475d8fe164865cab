//! Batches in order: shuffled by a key, and either drawn ahead by loader threads or pulled part by part by the learner's own threads.
//!
//! A run is a list of steps. A step is a list of parts: one part, unless the learner works through a large batch piece by piece or with
//! many threads. Some learners go through the parts of a step twice. [`Order`] says which samples a part holds. [`Loader`] draws parts
//! ahead on its own threads, and keeps at most `depth` of them in memory. [`Feed`] is what a learner sees of one step. Loader threads are
//! plain threads, never rayon's: a training step that waits inside rayon could be given an image to decode.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rand::seq::SliceRandom;

use crate::data::distinct::Arranged;
use crate::data::source::Source;
use crate::error::{Error, Result};
use crate::rng::Key;

/// How a source changes the order of an epoch: see [`Source::arrange`].
type Arrange<'a> = Box<dyn Fn(&mut Vec<u32>, usize, usize) -> Arranged + Send + Sync + 'a>;

/// Which samples each step holds: a pure function of (key, epoch), and of the source if it arranges its samples.
pub struct Order<'a> {
    // Samples of an epoch, and all samples: a source may leave some out of an epoch.
    len: usize,
    all: usize,
    batch: usize,
    part: usize,
    shuffle: bool,
    drop_last: bool,
    key: Key,
    rank: usize,
    world: usize,
    passes: usize,
    arrange: Option<Arrange<'a>>,
    // Two epochs are in use while the loader crosses from one to the next.
    recent: Mutex<Vec<Epoch>>,
}

/// The order of an epoch.
struct Epoch {
    number: usize,
    order: Arc<Vec<u32>>,
    arranged: Arranged,
}

impl<'a> Order<'a> {
    /// Orders `len` samples in batches of `batch`, each in parts of `part` samples; a `batch` above `len` means one batch of all samples.
    pub fn new(len: usize, batch: usize, part: usize, shuffle: bool, drop_last: bool, key: Key) -> Self {
        let batch = batch.clamp(1, len.max(1));
        let key = key.of("order");
        let part = part.clamp(1, batch);
        Order {
            len,
            all: len,
            batch,
            part,
            shuffle,
            drop_last,
            key,
            rank: 0,
            world: 1,
            passes: 1,
            arrange: None,
            recent: Mutex::default(),
        }
    }

    /// The order of `source`, which may leave samples out of an epoch and arrange the others. The order has to be made for
    /// [`Source::per_epoch`] samples.
    pub fn arranged_by<S: Source>(self, source: &'a S) -> Self {
        let arrange = move |order: &mut Vec<u32>, batch: usize, epoch: usize| source.arrange(order, batch, epoch);
        Order { all: source.len(), arrange: Some(Box::new(arrange)), ..self }
    }

    /// What the source changed in the last epoch that was drawn.
    pub fn arranged(&self) -> Arranged {
        lock(&self.recent).iter().max_by_key(|epoch| epoch.number).map(|epoch| epoch.arranged).unwrap_or_default()
    }

    /// The same order for rank `rank` of `world` ranks. Each rank has a contiguous stretch of every step's batch, and all stretches
    /// together are the batch, even if it does not divide evenly.
    pub(crate) fn of_rank(self, rank: usize, world: usize) -> Self {
        let part = self.part.min(self.batch.div_ceil(world.max(1)));
        Order { rank, world: world.max(1), part, ..self }
    }

    /// The same order for a learner that goes through the parts of a step `passes` times. Steps with a single part are gone through once.
    pub fn with_passes(self, passes: usize) -> Self {
        let passes = if self.parts() == 1 { 1 } else { passes.max(1) };
        Order { passes, ..self }
    }

    /// Steps in an epoch.
    pub fn steps(&self) -> usize {
        if self.drop_last { self.len / self.batch } else { self.len.div_ceil(self.batch) }
    }

    /// Parts in a full step; a short last step leaves its last parts empty.
    pub fn parts(&self) -> usize {
        self.batch.div_ceil(self.world).div_ceil(self.part)
    }

    /// How often a step goes through its parts: twice with gradient caching, else once.
    pub fn passes(&self) -> usize {
        self.passes
    }

    /// Units of a step: its parts times its passes.
    pub fn units(&self) -> usize {
        self.parts() * self.passes
    }

    /// This rank's stretch of the batch of `step`, and the number of samples in the whole batch.
    pub fn share(&self, step: usize) -> (Range<usize>, usize) {
        let count = ((step + 1) * self.batch).min(self.len).saturating_sub(step * self.batch);
        let cut = |rank: usize| count * rank / self.world;
        (cut(self.rank)..cut(self.rank + 1), count)
    }

    /// The samples of `part` of `step` of `epoch`.
    pub fn samples(&self, epoch: usize, step: usize, part: usize) -> Vec<u32> {
        let own = self.share(step).0;
        let from = (own.start + part * self.part).min(own.end);
        let to = (from + self.part).min(own.end);
        let (from, to) = (step * self.batch + from, step * self.batch + to);
        if !self.shuffle && self.arrange.is_none() {
            return (from as u32..to as u32).collect();
        }
        self.permutation(epoch)[from..to].to_vec()
    }

    /// Draws unit `unit` of a run. Units are numbered through the run: step by step, pass by pass, part by part. Each epoch has its own key
    /// below `views`.
    ///
    /// # Errors
    /// The errors of the source.
    pub fn draw<S: Source>(&self, source: &S, unit: usize, views: Key) -> Result<S::Batch> {
        let (step, within) = (unit / self.units(), unit % self.units());
        let (pass, part) = (within / self.parts(), within % self.parts());
        let (epoch, step) = (step / self.steps(), step % self.steps());
        let (samples, key) = (self.samples(epoch, step, part), views.at(epoch as u64));
        if pass == 0 { source.draw(&samples, key) } else { source.redraw(&samples, key) }
    }

    /// The feed of step `step` of a run; `draw` makes a unit by its number.
    ///
    /// # Errors
    /// The feed returns the errors of `draw`.
    pub fn feed<'d, B>(&self, step: usize, key: Key, draw: &'d (dyn Fn(usize) -> Result<B> + Sync)) -> Feed<'d, B> {
        let (own, count) = self.share(step % self.steps().max(1));
        Feed { places: own, count, passes: self.passes, ..Feed::new(self.parts(), count, key, draw) }
    }

    fn permutation(&self, epoch: usize) -> Arc<Vec<u32>> {
        let mut recent = lock(&self.recent);
        if let Some(epoch) = recent.iter().find(|known| known.number == epoch) {
            return epoch.order.clone();
        }
        let mut order: Vec<u32> = (0..self.all as u32).collect();
        if self.shuffle {
            order.shuffle(&mut self.key.at(epoch as u64).rng());
        }
        let arranged = self.arrange.as_ref().map(|arrange| arrange(&mut order, self.batch, epoch)).unwrap_or_default();
        debug_assert_eq!(order.len(), self.len, "an epoch has as many samples as its source says");
        let order = Arc::new(order);
        if recent.len() == 2 {
            recent.remove(0);
        }
        recent.push(Epoch { number: epoch, order: order.clone(), arranged });
        order
    }
}

/// What a learner sees of one step: its parts. Any thread may draw them, more than once.
pub struct Feed<'a, B> {
    parts: usize,
    passes: usize,
    places: Range<usize>,
    count: usize,
    key: Key,
    progress: f64,
    draw: &'a (dyn Fn(usize) -> Result<B> + Sync),
}

impl<'a, B> Feed<'a, B> {
    /// A step of `count` samples in `parts` parts, all of them this rank's. `key` is the step's own, for the learner's own draws (dropout,
    /// negatives). `draw` makes part p, in either pass.
    pub fn new(parts: usize, count: usize, key: Key, draw: &'a (dyn Fn(usize) -> Result<B> + Sync)) -> Self {
        Feed { parts, passes: 1, places: 0..count, count, key, progress: 0.0, draw }
    }

    /// The same step at `progress` of the run, 0 to 1.
    pub fn after(self, progress: f64) -> Self {
        Feed { progress, ..self }
    }

    /// The fraction of the run that is done before this step, 0 to 1.
    pub fn progress(&self) -> f64 {
        self.progress
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The places of this rank's samples in the step's whole batch.
    pub fn places(&self) -> Range<usize> {
        self.places.clone()
    }

    /// Samples of the step's whole batch, over all ranks.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The step's own key: the same in a replay and after a resume.
    pub fn key(&self) -> Key {
        self.key
    }

    /// Part `part`, `0..parts()`.
    ///
    /// # Errors
    /// The part cannot be drawn.
    pub fn part(&self, part: usize) -> Result<B> {
        (self.draw)(part)
    }

    /// Part `part` for the second pass over the parts ([`Source::redraw`]).
    ///
    /// # Errors
    /// The part cannot be drawn.
    pub fn again(&self, part: usize) -> Result<B> {
        (self.draw)(if self.passes > 1 { self.parts + part } else { part })
    }
}

/// Draws units (parts of steps) ahead in bounded memory, and hands them out by number.
pub struct Loader<'a, B> {
    draw: &'a (dyn Fn(usize) -> Result<B> + Sync),
    depth: usize,
    // Whether any thread draws.
    ahead: AtomicBool,
    state: Mutex<State<B>>,
    changed: Condvar,
}

struct State<B> {
    ready: BTreeMap<usize, Result<B>>,
    drawing: BTreeSet<usize>, // units that threads are drawing now
    next: usize,              // the next unit a thread will draw
    wanted: usize,            // one more than the last unit that was handed out: threads stay below wanted + depth
    end: usize,
    stop: bool,
}

impl<'a, B: Send> Loader<'a, B> {
    /// Runs `body` with a loader over `units`, drawn by `threads` threads at most `depth` units ahead. With no thread, units are drawn when
    /// they are asked for, on the thread that asks. The units are the same either way.
    ///
    /// # Errors
    /// The errors of `body`.
    pub fn run<R>(
        threads: usize,
        depth: usize,
        units: Range<usize>,
        draw: &'a (dyn Fn(usize) -> Result<B> + Sync),
        body: impl FnOnce(&Loader<'a, B>) -> R,
    ) -> R {
        let (ready, drawing) = (BTreeMap::new(), BTreeSet::new());
        let state = State { ready, drawing, next: units.start, wanted: units.start, end: units.end, stop: false };
        let loader = Loader {
            draw,
            depth: depth.max(1),
            ahead: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            // If the system gives fewer threads, these draw all units: results do not depend on the number of threads.
            let begun = |_: &usize| std::thread::Builder::new().spawn_scoped(scope, || loader.work()).is_ok();
            let ahead = (0..threads).take_while(begun).count() > 0;
            loader.ahead.store(ahead, Ordering::Relaxed);
            // Stops the threads however `body` ends; otherwise the scope would wait for ever.
            let _stop = Stop(&loader);
            body(&loader)
        })
    }

    /// Unit `unit`: waits for it if it is being drawn ahead, and draws it here if it was handed out before.
    ///
    /// # Errors
    /// The unit cannot be drawn, or the thread that drew it panicked.
    pub fn take(&self, unit: usize) -> Result<B> {
        let mut state = lock(&self.state);
        loop {
            // Another thread may have taken a later unit before: this one is then ready, or still being drawn.
            if let Some(ready) = state.ready.remove(&unit) {
                state.wanted = state.wanted.max(unit + 1);
                self.changed.notify_all();
                return ready;
            }
            let handed_out = unit < state.next && !state.drawing.contains(&unit);
            if !self.ahead.load(Ordering::Relaxed) || handed_out || unit >= state.end {
                drop(state);
                return (self.draw)(unit);
            }
            // A unit far ahead must move the window; otherwise both sides would wait for ever.
            if unit >= state.wanted + self.depth {
                state.wanted = unit + 1 - self.depth;
                self.changed.notify_all();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self) {
        loop {
            let mut state = lock(&self.state);
            while !state.stop && state.next < state.end && state.next >= state.wanted + self.depth {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop || state.next >= state.end {
                return;
            }
            let unit = state.next;
            state.next += 1;
            state.drawing.insert(unit);
            drop(state);
            // A panic here must become an error, or the learner would wait for a unit that never comes.
            let drawn = catch_unwind(AssertUnwindSafe(|| (self.draw)(unit)))
                .unwrap_or_else(|panic| Err(Error::new(format!("a loader thread failed: {}", message(&*panic)))));
            let mut state = lock(&self.state);
            state.drawing.remove(&unit);
            state.ready.insert(unit, drawn);
            drop(state);
            self.changed.notify_all();
        }
    }
}

struct Stop<'a, 'b, B>(&'a Loader<'b, B>);

impl<B> Drop for Stop<'_, '_, B> {
    fn drop(&mut self) {
        lock(&self.0.state).stop = true;
        self.0.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn an_epoch_holds_each_sample_once() {
        let order = Order::new(10, 4, 3, true, false, Key::new(0));
        let epoch = |e: usize| -> Vec<u32> {
            let parts = (0..order.steps()).flat_map(|s| (0..order.parts()).map(move |p| (s, p)));
            parts.flat_map(|(s, p)| order.samples(e, s, p)).collect()
        };
        let (a, b) = (epoch(0), epoch(1));
        assert_ne!(a, b);
        for mut e in [a, b] {
            e.sort();
            assert_eq!(e, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(Order::new(10, 4, 4, true, true, Key::new(0)).steps(), 2);
        assert_eq!(Order::new(3, 256, 256, true, true, Key::new(0)).steps(), 1, "a batch is never larger than the data");
    }

    #[test]
    fn ranks_together_are_the_batch_also_where_it_does_not_divide() {
        let whole = Order::new(23, 7, 7, true, false, Key::new(3));
        for (world, part) in [(2, 7), (3, 2), (4, 1)] {
            let ranks: Vec<Order> =
                (0..world).map(|rank| Order::new(23, 7, part, true, false, Key::new(3)).of_rank(rank, world)).collect();
            for step in 0..whole.steps() {
                let of = |order: &Order| (0..order.parts()).flat_map(|p| order.samples(1, step, p)).collect::<Vec<u32>>();
                assert_eq!(ranks.iter().flat_map(of).collect::<Vec<u32>>(), of(&whole), "{world} ranks, step {step}");
                let (places, count) = ranks[world - 1].share(step);
                assert_eq!((places.end, count), (of(&whole).len(), of(&whole).len()));
            }
        }
    }

    #[test]
    fn both_passes_over_the_parts_are_drawn_ahead() {
        struct Numbers;
        impl Source for Numbers {
            type Batch = (Vec<u32>, bool);

            fn len(&self) -> usize {
                10
            }

            fn draw(&self, samples: &[u32], _: Key) -> Result<Self::Batch> {
                Ok((samples.to_vec(), false))
            }

            fn redraw(&self, samples: &[u32], _: Key) -> Result<Self::Batch> {
                Ok((samples.to_vec(), true))
            }
        }
        let order = Order::new(10, 5, 2, false, true, Key::new(0)).with_passes(2);
        assert_eq!((order.parts(), order.units()), (3, 6));
        let here = std::thread::current().id();
        let draw = |unit: usize| {
            assert_ne!(std::thread::current().id(), here, "unit {unit} was drawn by the thread that learns");
            order.draw(&Numbers, unit, Key::new(0))
        };
        Loader::run(1, 2, 0..order.units() * 2, &draw, |loader| {
            for step in 0..2 {
                let pull = |unit: usize| loader.take(step * order.units() + unit);
                let feed = order.feed(step, Key::new(0), &pull);
                let first = step as u32 * 5;
                let expected = [vec![first, first + 1], vec![first + 2, first + 3], vec![first + 4]];
                (0..3).for_each(|p| assert_eq!(feed.part(p).unwrap(), (expected[p].clone(), false)));
                (0..3).for_each(|p| assert_eq!(feed.again(p).unwrap(), (expected[p].clone(), true)));
            }
        });
        assert_eq!(Order::new(10, 5, 5, false, true, Key::new(0)).with_passes(2).units(), 1);
    }

    #[test]
    fn units_come_in_order_whatever_the_threads_and_stay_bounded() {
        for threads in [0, 1, 3] {
            let (alive, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let draw = |u: usize| {
                most.fetch_max(alive.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if u.is_multiple_of(3) {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                Ok(u * 10)
            };
            Loader::run(threads, 4, 0..40, &draw, |loader| {
                for u in 0..40 {
                    assert_eq!(loader.take(u).unwrap(), u * 10);
                    alive.fetch_sub(1, Ordering::SeqCst);
                }
                assert_eq!(loader.take(7).unwrap(), 70, "a part can be drawn again");
            });
            assert!(most.load(Ordering::SeqCst) <= 5, "{threads} threads held {most:?}");
        }
    }

    #[test]
    fn threads_may_take_units_in_any_order() {
        // Word2vec's threads do this: one may wait for a unit while others take later ones.
        for round in 0..50 {
            let draw = |u: usize| {
                if u.is_multiple_of(4) {
                    std::thread::sleep(std::time::Duration::from_micros(200 + 10 * round));
                }
                Ok(u * 10)
            };
            Loader::run(2, 6, 0..48, &draw, |loader| {
                let next = AtomicUsize::new(0);
                std::thread::scope(|scope| {
                    for _ in 0..3 {
                        scope.spawn(|| {
                            loop {
                                let unit = next.fetch_add(1, Ordering::SeqCst);
                                if unit >= 48 {
                                    return;
                                }
                                assert_eq!(loader.take(unit).unwrap(), unit * 10);
                            }
                        });
                    }
                });
                assert!(lock(&loader.state).ready.is_empty());
            });
        }
    }

    #[test]
    fn a_unit_taken_after_a_later_one_is_drawn_once() {
        let drawn: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        let draw = |u: usize| {
            if u == 3 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            drawn[u].fetch_add(1, Ordering::SeqCst);
            Ok(u)
        };
        Loader::run(2, 6, 0..8, &draw, |loader| {
            for unit in [4, 3, 1, 0, 2, 7, 6, 5] {
                assert_eq!(loader.take(unit).unwrap(), unit);
            }
            assert!(lock(&loader.state).ready.is_empty());
            assert!(drawn.iter().all(|count| count.load(Ordering::SeqCst) == 1), "{drawn:?}");
        });
    }

    #[test]
    fn an_error_and_a_panic_reach_the_caller() {
        let draw = |u: usize| match u {
            1 => Err(Error::new("cannot decode").at("cat.png")),
            2 => panic!("boom"),
            _ => Ok(u),
        };
        Loader::run(2, 2, 0..4, &draw, |loader| {
            assert_eq!(loader.take(0).unwrap(), 0);
            assert!(loader.take(1).unwrap_err().to_string().contains("cat.png"));
            assert!(loader.take(2).unwrap_err().to_string().contains("boom"));
        });
    }
}
