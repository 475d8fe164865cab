//! Uploads through pinned memory. A copy from other memory may still read it when the call returns, or waits for everything before it; from
//! pinned memory it does neither, and an event says when it is done.

use cudarc::driver::{result as driver, sys};

use super::done;
use crate::calls::{Address, Fault};

/// Bytes of a slot: longer uploads go in pieces, of which one is written while another is copied.
const SLOT: usize = 4 << 20;
/// Slots.
const SLOTS: usize = 4;

/// A piece of pinned memory, and the event of the last copy from it.
struct Slot {
    memory: *mut u8,
    copied: sys::CUevent,
}

/// The slots, which are used in turn; made at the first upload.
#[derive(Default)]
pub(super) struct Staging {
    slots: Vec<Slot>,
    next: usize,
}

impl Staging {
    /// Copies `from` to the device. `from` has been read when this returns; the copies are done in the stream's order.
    ///
    /// # Safety
    /// The context is current, the stream is alive, and `to` has as many bytes.
    pub unsafe fn upload(&mut self, from: &[u8], to: Address, stream: sys::CUstream) -> Result<(), Fault> {
        for (at, piece) in from.chunks(SLOT).enumerate() {
            if self.slots.len() < SLOTS {
                // SAFETY: a size and flags are all that they take. Flag 0: pinned memory for this context.
                let memory: *mut u8 = done("cuMemHostAlloc", unsafe { driver::malloc_host(SLOT, 0) })?.cast();
                let copied = driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
                let copied = done("cuEventCreate", copied).inspect_err(|_| {
                    // SAFETY: it was reserved just before, and nothing uses it.
                    let _ = unsafe { driver::free_host(memory.cast()) };
                })?;
                self.slots.push(Slot { memory, copied });
                self.next = self.slots.len() - 1;
            }
            let slot = &self.slots[self.next];
            self.next = (self.next + 1) % SLOTS.min(self.slots.len().max(1));
            // SAFETY: the event is alive; an event that was never recorded is done. Then nothing reads the slot, which has room for a piece; the copy
            // reads it until the event that is recorded behind it.
            unsafe {
                done("cuEventSynchronize", driver::event::synchronize(slot.copied))?;
                std::ptr::copy_nonoverlapping(piece.as_ptr(), slot.memory, piece.len());
                let staged = std::slice::from_raw_parts(slot.memory, piece.len());
                done("cuMemcpyHtoDAsync", driver::memcpy_htod_async(to + (at * SLOT) as Address, staged, stream))?;
                done("cuEventRecord", driver::event::record(slot.copied, stream))?;
            }
        }
        Ok(())
    }

    /// Gives the slots back.
    ///
    /// # Safety
    /// The context is current, and no copy is under way.
    pub unsafe fn free(&mut self) {
        for slot in self.slots.drain(..) {
            // SAFETY: both were made by `upload` and are released once. A failure leaves nothing to do.
            unsafe {
                let _ = driver::event::destroy(slot.copied);
                let _ = driver::free_host(slot.memory.cast());
            }
        }
    }
}
