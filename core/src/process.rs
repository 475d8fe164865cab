//! The state of one process while it trains: its device, the other ranks, its observer, and requests to save or to stop.
//!
//! A [`Run`](crate::store::run::Run) is a folder. Everything that belongs to the process and not to the folder is here, also which of
//! several ranks writes into the folder.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, Silent};
use crate::world::{Collective, Solo};

/// Requests to a process: to save, or to save and end. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    end: AtomicBool,
    save: AtomicBool,
    /// The number of training loops that listen.
    training: AtomicUsize,
}

thread_local! {
    /// The requests that the training loop of this thread listens to.
    static HERE: RefCell<Stop> = RefCell::default();
}

impl Stop {
    /// The requests to the training loop that this thread works for; without such a loop, requests that are never made.
    pub fn here() -> Stop {
        HERE.with_borrow(Clone::clone)
    }

    /// Asks to save and end.
    pub fn raise(&self) {
        self.0.end.store(true, Ordering::SeqCst);
    }

    /// Whether the process was asked to end.
    pub fn raised(&self) -> bool {
        self.0.end.load(Ordering::SeqCst)
    }

    /// Asks to save after the current step.
    pub fn ask_to_save(&self) {
        self.0.save.store(true, Ordering::SeqCst);
    }

    /// Whether a save was requested since the last call.
    pub fn take_save(&self) -> bool {
        self.0.save.swap(false, Ordering::SeqCst)
    }

    /// Whether a training loop is running, which saves before it ends. Without one a program may end at once.
    pub fn heard(&self) -> bool {
        self.0.training.load(Ordering::SeqCst) > 0
    }

    /// For long work between steps, such as measuring, which can be abandoned when the process is to end.
    ///
    /// # Errors
    /// The process was asked to end.
    pub fn check(&self) -> Result<()> {
        if self.raised() { Err(Error::interrupted("stopped while measuring")) } else { Ok(()) }
    }
}

/// A training loop that listens, until this is dropped.
pub(crate) struct Listening {
    stop: Stop,
    before: Stop,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.0.training.fetch_sub(1, Ordering::SeqCst);
        HERE.set(self.before.clone());
    }
}

/// What a job uses besides its run's folder.
pub struct Process {
    device: Device,
    world: Arc<dyn Collective>,
    observer: Box<dyn Observer>,
    stop: Stop,
}

impl Process {
    /// A single process with `device`, without an observer and without requests to stop.
    pub fn new(device: Device) -> Process {
        Process { device, world: Arc::new(Solo), observer: Box::new(Silent), stop: Stop::default() }
    }

    /// The same as one rank of `world`.
    pub fn among(self, world: Arc<dyn Collective>) -> Process {
        Process { world, ..self }
    }

    /// The same with `observer`.
    pub fn observed_by(self, observer: Box<dyn Observer>) -> Process {
        Process { observer, ..self }
    }

    /// The same, which saves and ends when `stop` is raised.
    pub fn stopped_by(self, stop: Stop) -> Process {
        Process { stop, ..self }
    }

    /// The process for a run inside another run: without an observer, and stopped when this one is.
    pub fn within(&self) -> Process {
        Process::new(self.device.clone()).among(self.world.clone()).stopped_by(self.stop.clone())
    }

    /// The device of the model.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All ranks that train this model, this one among them.
    pub fn world(&self) -> &Arc<dyn Collective> {
        &self.world
    }

    /// Whether this rank writes into the run's folder: only the first rank does. The others call none of the run's methods that write.
    pub fn writes(&self) -> bool {
        self.world.rank() == 0
    }

    /// Whether this process was asked to end.
    pub fn stopping(&self) -> bool {
        self.stop.raised()
    }

    /// Whether a save was requested since the last call.
    pub(crate) fn shall_save(&self) -> bool {
        self.stop.take_save()
    }

    /// Listens to requests as long as the returned value is kept.
    pub(crate) fn listen(&self) -> Listening {
        self.stop.0.training.fetch_add(1, Ordering::SeqCst);
        Listening { stop: self.stop.clone(), before: HERE.replace(self.stop.clone()) }
    }

    /// Passes an event to the observer.
    pub fn tell(&mut self, event: &Event) {
        self.observer.event(event);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use candle_core::Tensor;

    use super::*;
    use crate::error::Result;
    use crate::world::Gathered;

    /// The second of two ranks.
    struct Second;

    impl Collective for Second {
        fn rank(&self) -> usize {
            1
        }

        fn world(&self) -> usize {
            2
        }

        fn gather(&self, rows: &Tensor) -> Result<Gathered> {
            Ok(Gathered { rows: Tensor::cat(&[rows, rows], 0)?, first: rows.dim(0)? })
        }

        fn sum(&self, tensor: &Tensor) -> Result<Tensor> {
            Ok((tensor * 2.0)?)
        }
    }

    #[derive(Clone, Default)]
    struct Count(Arc<Mutex<usize>>);

    impl Observer for Count {
        fn event(&mut self, _: &Event) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn the_first_rank_writes() {
        let alone = Process::new(Device::Cpu);
        assert!(alone.writes() && alone.world().world() == 1);
        let second = alone.among(Arc::new(Second));
        assert!(!second.writes() && !second.within().writes());
    }

    #[test]
    fn a_process_within_is_silent_and_stops_with_the_outer_one() {
        let (count, stop) = (Count::default(), Stop::default());
        let mut outer = Process::new(Device::Cpu).observed_by(Box::new(count.clone())).stopped_by(stop.clone());
        let mut inner = outer.within();
        inner.tell(&Event::Finished);
        outer.tell(&Event::Finished);
        assert_eq!(*count.0.lock().unwrap(), 1);
        assert!(!inner.stopping());
        stop.raise();
        assert!(inner.stopping() && outer.stopping());
    }

    #[test]
    fn work_between_steps_hears_what_the_loop_around_it_hears() {
        let stop = Stop::default();
        let process = Process::new(Device::Cpu).stopped_by(stop.clone());
        assert!(!stop.heard());
        {
            let _listening = process.listen();
            assert!(stop.heard() && Stop::here().check().is_ok());
            stop.raise();
            assert!(Stop::here().check().is_err());
            let inner = Process::new(Device::Cpu);
            let _inner = inner.listen();
            assert!(Stop::here().check().is_ok());
        }
        assert!(!stop.heard() && Stop::here().check().is_ok());
        stop.ask_to_save();
        assert!(process.shall_save() && !process.shall_save());
    }
}
