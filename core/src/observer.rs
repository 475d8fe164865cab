//! The events that training reports (start, steps, measurements, checkpoints, notes, end), and the [`Observer`] trait that receives them. Core
//! prints nothing itself: an observer decides how events are shown.
//!
//! Long work outside of training, such as computing features, tells how far it is by [`advanced`].

use std::cell::RefCell;
use std::marker::PhantomData;

type Meter = Box<dyn FnMut(usize, usize)>;

thread_local! {
    /// Receives how far this thread's work is.
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// As long as this is kept, its function is told how far long work of this thread is.
pub struct Metered(PhantomData<*const ()>);

impl Metered {
    /// `meter` gets the number of samples that are done, and of all samples of this piece of work.
    pub fn by(meter: impl FnMut(usize, usize) + 'static) -> Metered {
        METER.set(Some(Box::new(meter)));
        Metered(PhantomData)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.set(None);
    }
}

/// Says that `done` of `all` samples are done.
pub fn advanced(done: usize, all: usize) {
    METER.with_borrow_mut(|meter| meter.iter_mut().for_each(|meter| meter(done, all)));
}

/// Something that happened in a run.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// Training starts (or continues) at `step` of `steps`.
    Started {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
    },
    /// A logged step.
    Step(&'a Progress),
    /// A step that is not logged; progress bars advance.
    Tick {
        /// Steps done.
        step: usize,
    },
    /// Measurements after an epoch.
    Measured {
        /// Epochs done.
        epoch: usize,
        /// Name and value.
        figures: &'a [(String, f64)],
    },
    /// A checkpoint was saved.
    Saved {
        /// Steps done.
        step: usize,
    },
    /// A sentence about data, recipe and run, before the first step.
    About(&'a str),
    /// A note for the user.
    Note(&'a str),
    /// Training is over.
    Finished,
}

/// Where a run stands at a logged step.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Epochs done, with a fraction.
    pub epoch: f64,
    /// Mean loss since the last logged step.
    pub loss: f64,
    /// Learning rate of this step.
    pub rate: f64,
    /// Samples per second since the last logged step.
    pub samples_per_second: f64,
    /// Further scalars of the loss.
    pub extras: Vec<(&'static str, f64)>,
}

/// Receives events.
pub trait Observer: Send {
    /// Called from the training thread, in order.
    fn event(&mut self, event: &Event);
}

/// An observer that ignores all events.
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
}
