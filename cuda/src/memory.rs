//! Memory of a device: blocks that are kept and used again, since a device's own allocation is slow and waits for its work.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ctk_kernels::Plain;

use crate::calls::{Address, Calls, Fault, INBOXES, Mark};

/// Small blocks are rounded up to this many bytes, which is also what the libraries want addresses to be divisible by.
const LEAST: usize = 512;

/// The calls of a device, its free blocks, and how much was read from it.
pub(crate) struct Memory {
    pub calls: Box<dyn Calls>,
    /// Free blocks by their size.
    free: Mutex<BTreeMap<usize, Vec<Address>>>,
    /// Bytes that were copied to the host.
    pub read: AtomicU64,
    /// Bytes of the device that are in use or free to be used again, and the most that they ever were.
    held: AtomicU64,
    pub most: AtomicU64,
    /// Whether calls are timed.
    pub timed: AtomicBool,
    /// The inbox that is filled next, and all of them: address and bytes.
    inboxes: Mutex<(usize, [(Address, usize); INBOXES])>,
    /// Timed calls: their names, and the moments before and after them.
    marks: Mutex<Vec<(String, Mark, Mark)>>,
}

/// How often each call was made, and how long the device took for it in all.
pub type Times = BTreeMap<String, (u64, Duration)>;

impl Memory {
    pub fn new(calls: Box<dyn Calls>) -> Memory {
        Memory {
            calls,
            free: Mutex::default(),
            read: AtomicU64::default(),
            held: AtomicU64::default(),
            most: AtomicU64::default(),
            timed: AtomicBool::default(),
            inboxes: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// A block of at least so many bytes, and its size. Sizes have at most 12 % to spare, so that blocks of nearly one size serve each
    /// other.
    fn take(&self, bytes: usize) -> Result<(Address, usize), Fault> {
        let size = rounded(bytes);
        if let Some(at) = self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&size).and_then(Vec::pop) {
            return Ok((at, size));
        }
        let at = self.calls.allocate(size).or_else(|_| {
            self.release();
            self.calls.allocate(size)
        })?;
        let held = self.held.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
        self.most.fetch_max(held, Ordering::Relaxed);
        Ok((at, size))
    }

    fn give(&self, at: Address, size: usize) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(size).or_default().push(at);
    }

    /// Returns all free blocks to the device.
    pub fn release(&self) {
        // Calls that use the blocks may still be under way; a failure shows at the next call.
        let _ = self.calls.wait();
        let free = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        for (size, blocks) in free {
            self.held.fetch_sub((size * blocks.len()) as u64, Ordering::Relaxed);
            blocks.into_iter().for_each(|at| self.calls.free(at));
        }
    }

    /// Sends bytes to an inbox, beside the calls that are under way; `receive` makes the calls that read them, at the address that it gets.
    pub fn send(&self, from: &[u8], receive: impl FnOnce(Address) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut inboxes = self.inboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let (slot, places) = &mut *inboxes;
        let (at, size) = &mut places[*slot];
        if *size < from.len() {
            let larger = self.take(from.len())?;
            if *size > 0 {
                self.give(*at, *size);
            }
            (*at, *size) = larger;
            // Calls that are under way may use the memory that it comes from.
            self.calls.wait()?;
        }
        self.calls.send(from, *at, *slot)?;
        receive(*at)?;
        self.calls.received(*slot)?;
        *slot = (*slot + 1) % INBOXES;
        Ok(())
    }

    /// Makes a call, and marks its begin and end on the device if calls are timed. A library that lacks memory for itself gets what is kept
    /// for use again, and the call is made once more.
    pub fn call(
        &self,
        name: impl FnOnce() -> String,
        mut make: impl FnMut(&dyn Calls) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let timed = self.timed.load(Ordering::Relaxed);
        let begin = if timed { Some(self.calls.mark()?) } else { None };
        make(&*self.calls).or_else(|fault| match fault {
            Fault::Memory { .. } => {
                self.release();
                make(&*self.calls)
            }
            other => Err(other),
        })?;
        if let Some(begin) = begin {
            let called = (name(), begin, self.calls.mark()?);
            self.marks.lock().unwrap_or_else(PoisonError::into_inner).push(called);
        }
        Ok(())
    }

    /// The times of the calls since the last time it was asked.
    ///
    /// # Errors
    /// The device failed.
    pub fn times(&self) -> Result<Times, Fault> {
        let mut times = Times::new();
        for (name, begin, end) in std::mem::take(&mut *self.marks.lock().unwrap_or_else(PoisonError::into_inner)) {
            let took = self.calls.between(begin, end)?;
            let entry = times.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1 + took);
        }
        Ok(times)
    }

    pub fn passed(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let (_, places) = std::mem::take(self.inboxes.get_mut().unwrap_or_else(PoisonError::into_inner));
        places.into_iter().filter(|(_, size)| *size > 0).for_each(|(at, size)| self.give(at, size));
        self.release();
    }
}

/// A size with at most three bits below its highest.
fn rounded(bytes: usize) -> usize {
    let bytes = bytes.max(LEAST);
    let step = (1usize << bytes.ilog2() >> 3).max(LEAST);
    bytes.next_multiple_of(step)
}

/// Values in a device's memory, which goes back to the free blocks when it is dropped.
pub struct Block<T> {
    pub(crate) at: Address,
    pub(crate) len: usize,
    size: usize,
    memory: Arc<Memory>,
    kind: PhantomData<T>,
}

impl<T: Plain> Block<T> {
    pub(crate) fn new(len: usize, memory: &Arc<Memory>) -> Result<Block<T>, Fault> {
        let (at, size) = memory.take(len * size_of::<T>())?;
        Ok(Block { at, len, size, memory: memory.clone(), kind: PhantomData })
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        self.memory.give(self.at, self.size);
    }
}

/// Read access to a block.
pub struct View<'a, T> {
    pub(crate) at: Address,
    pub(crate) len: usize,
    block: PhantomData<&'a T>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

/// Write access to a block.
pub struct ViewMut<'a, T> {
    pub(crate) at: Address,
    pub(crate) len: usize,
    block: PhantomData<&'a mut T>,
}

impl<T> ViewMut<'_, T> {
    /// The same values, for reading.
    pub(crate) fn seen(&self) -> View<'_, T> {
        View { at: self.at, len: self.len, block: PhantomData }
    }

    /// The same values for another write.
    pub(crate) fn again(&mut self) -> ViewMut<'_, T> {
        ViewMut { at: self.at, len: self.len, block: PhantomData }
    }
}

impl<T> Block<T> {
    pub(crate) fn view(&self) -> View<'_, T> {
        View { at: self.at, len: self.len, block: PhantomData }
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { at: self.at, len: self.len, block: PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_by_an_eighth_at_most() {
        assert_eq!([0, 1, 512, 513, 5000, 1 << 20].map(rounded), [512, 512, 512, 1024, 5120, 1 << 20]);
        for bytes in (1..2_000_000).step_by(997) {
            let size = rounded(bytes);
            assert!(size >= bytes && size.is_multiple_of(LEAST) && (size - bytes) * 8 <= bytes.max(LEAST * 8), "{bytes}: {size}");
        }
    }
}
