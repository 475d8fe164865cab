//! Memory of a device: blocks that are kept and used again, since a device's own allocation is slow and waits for its work.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ctk_kernels::Plain;

use crate::calls::{Address, Calls, Fault};

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
    times: Mutex<Times>,
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
            times: Mutex::default(),
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

    /// Makes a call, and times it if calls are timed: then it waits for the device before and after.
    pub fn call(&self, name: impl FnOnce() -> String, make: impl FnOnce(&dyn Calls) -> Result<(), Fault>) -> Result<(), Fault> {
        if !self.timed.load(Ordering::Relaxed) {
            return make(&*self.calls);
        }
        self.calls.wait()?;
        let start = Instant::now();
        make(&*self.calls)?;
        self.calls.wait()?;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = times.entry(name()).or_default();
        *entry = (entry.0 + 1, entry.1 + start.elapsed());
        Ok(())
    }

    /// Takes the times so far.
    pub fn times(&self) -> Times {
        std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn passed(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
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
