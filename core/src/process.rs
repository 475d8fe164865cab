//! What this process has at hand while it trains: a device, the other ranks, an observer, and the wish to stop.
//!
//! A [`Run`](crate::store::run::Run) is a folder. Whatever is of the process and not of the folder is asked here, also who of many
//! ranks writes into the folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;

use crate::observer::{Event, Observer, Silent};
use crate::world::{Collective, Solo};

/// What a job uses beside its run's folder.
pub struct Process {
    device: Device,
    world: Arc<dyn Collective>,
    observer: Box<dyn Observer>,
    stop: Arc<AtomicBool>,
}

impl Process {
    /// A process alone with `device`, that nobody observes or stops.
    pub fn new(device: Device) -> Process {
        Process { device, world: Arc::new(Solo), observer: Box::new(Silent), stop: Arc::default() }
    }

    /// The same, as one rank of `world`.
    pub fn among(self, world: Arc<dyn Collective>) -> Process {
        Process { world, ..self }
    }

    /// The same, told to `observer`.
    pub fn observed_by(self, observer: Box<dyn Observer>) -> Process {
        Process { observer, ..self }
    }

    /// The same, to save and end once somebody raises `stop`.
    pub fn stopped_by(self, stop: Arc<AtomicBool>) -> Process {
        Process { stop, ..self }
    }

    /// The process for a run inside another: nobody observes it, and it stops when this one does.
    pub fn within(&self) -> Process {
        Process::new(self.device.clone()).among(self.world.clone()).stopped_by(self.stop.clone())
    }

    /// Where the model lives.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All ranks that train this model, this one among them.
    pub fn world(&self) -> &Arc<dyn Collective> {
        &self.world
    }

    /// Whether this rank writes into the run's folder: the first one does. The others call none of the run's methods that write.
    pub fn writes(&self) -> bool {
        self.world.rank() == 0
    }

    /// Whether somebody asked this process to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tells the observer.
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
        let (count, stop) = (Count::default(), Arc::new(AtomicBool::new(false)));
        let mut outer = Process::new(Device::Cpu).observed_by(Box::new(count.clone())).stopped_by(stop.clone());
        let mut inner = outer.within();
        inner.tell(&Event::Finished);
        outer.tell(&Event::Finished);
        assert_eq!(*count.0.lock().unwrap(), 1);
        assert!(!inner.stopping());
        stop.store(true, Ordering::Relaxed);
        assert!(inner.stopping() && outer.stopping());
    }
}
