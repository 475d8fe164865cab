//! A bounded caching allocator: freed large blocks are kept and used again, with their pages still in place.
//!
//! Every step of a training run allocates the same large arrays: gradients, inputs, logits. A system's allocator returns large blocks to
//! the kernel when they are freed, and the kernel zeroes their pages again, with one fault for every 4 KB, when they are next allocated.
//! [`Caching`] keeps freed blocks of 128 KB and more instead, up to a bound. Smaller requests go directly to the system. The gain depends
//! on the system: glibc learns to keep blocks of up to 32 MB by itself.
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: ctk_alloc::Caching = ctk_alloc::Caching::new(256 << 20);
//!
//! let freed = vec![1.0f32; 1 << 20];
//! let at = freed.as_ptr();
//! drop(freed);
//! assert_eq!(vec![0.0f32; 1 << 20].as_ptr(), at);
//! ```

mod cache;
mod class;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cache::{Cache, Leaving};

/// The system's allocator with a cache of idle blocks in front of it.
pub struct Caching {
    bound: usize,
    cache: Mutex<Cache>,
}

impl Caching {
    /// An allocator that keeps at most `bound` bytes idle.
    pub const fn new(bound: usize) -> Self {
        Caching { bound, cache: Mutex::new(Cache::new()) }
    }

    /// The number of idle bytes.
    pub fn idle(&self) -> usize {
        self.lock().bytes()
    }

    /// Gives every idle block back to the system.
    pub fn clear(&self) {
        let leaving = self.lock().shrink(0);
        self.release(leaving);
    }

    // Nothing panics while the lock is held; and an allocator must continue whatever happened elsewhere.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle block of `class`, if there is one.
    fn take(&self, class: usize) -> Option<*mut u8> {
        // A separate statement, so that the lock is released before the system is called.
        let taken = self.lock().take(class);
        taken.map_err(|leaving| self.release(leaving)).ok()
    }

    /// Gives blocks back to the system, which may take long, so the lock must not be held.
    fn release(&self, leaving: Leaving) {
        // SAFETY: the blocks were allocated by `fresh` with this class's layout, and they are in no list any more.
        leaving.for_each(|(block, class)| unsafe { System.dealloc(block, block_layout(class)) });
    }

    /// Allocates a block of `class` from the system.
    fn fresh(&self, class: usize, zeroed: bool) -> *mut u8 {
        let layout = block_layout(class);
        // SAFETY: the layout's size is not 0, because no class has size 0.
        unsafe { if zeroed { System.alloc_zeroed(layout) } else { System.alloc(layout) } }
    }
}

impl Drop for Caching {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The layout with which blocks of `class` are allocated.
fn block_layout(class: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the largest class is far from overflowing.
    unsafe { Layout::from_size_align_unchecked(class::size(class), class::ALIGN) }
}

// SAFETY: a request with a class is served by a whole block of that class, allocated by the system with `block_layout` and given back with
// the same layout. A block is at least as large and as aligned as the request (`class::of`), and is either in use by one caller or in one
// list of the cache. A request's class depends on its layout alone, so `dealloc` finds the class that `alloc` used. All other requests go
// to the system unchanged. Nothing here allocates or unwinds.
unsafe impl GlobalAlloc for Caching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class::of(layout) {
            Some(class) => self.take(class).unwrap_or_else(|| self.fresh(class, false)),
            // SAFETY: the caller promises that `layout` has a size above 0, which the system's allocator demands.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class::of(layout) else {
            // SAFETY: the caller promises that `layout` has a size above 0, which the system's allocator demands.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let Some(block) = self.take(class) else { return self.fresh(class, true) };
        // SAFETY: the block was just taken from the cache, so it is ours alone, and it is at least that long.
        unsafe { block.write_bytes(0, layout.size()) };
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class::of(layout) else {
            // SAFETY: a layout without a class was served by the system with the same layout.
            return unsafe { System.dealloc(block, layout) };
        };
        // SAFETY: the caller gives up a block that was allocated with this layout, so it is a whole block of this class.
        let leaving = unsafe { self.lock().give(block, class, self.bound) };
        self.release(leaving);
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class::of(layout), class::of(wanted)) {
            // SAFETY: neither layout has a class, so the block is the system's and was allocated with the old layout.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (Some(from), Some(to)) if from == to => block,
            // The system can move pages without copying them.
            // SAFETY: the block is a whole block of the class `from`, and the new size is that of the class `to`.
            (Some(from), Some(to)) => unsafe { System.realloc(block, block_layout(from), class::size(to)) },
            // SAFETY: the new block is distinct from the old one, and both are at least as long as what is copied.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    new.copy_from_nonoverlapping(block, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}
