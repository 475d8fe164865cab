//! Lists of idle blocks by size class. A list's links are stored in the blocks themselves, so the cache allocates nothing.

use std::ptr::null_mut;

use crate::class;

/// Lists of idle blocks, and their total size in bytes.
pub struct Cache {
    idle: [*mut Block; class::COUNT],
    /// When each class was last used.
    used: [u64; class::COUNT],
    clock: u64,
    bytes: usize,
}

/// The link that is written into an idle block.
pub struct Block {
    next: *mut Block,
    class: usize,
}

/// Blocks that have left the cache and must be given back to the system.
pub struct Leaving(*mut Block);

// SAFETY: the pointers are to blocks that only the cache owns, so whichever thread holds the cache may use them.
unsafe impl Send for Cache {}

impl Cache {
    pub const fn new() -> Self {
        Cache { idle: [null_mut(); class::COUNT], used: [0; class::COUNT], clock: 0, bytes: 0 }
    }

    /// Takes an idle block of `class`. If there is none, the result is an error with as many idle bytes as the caller now takes from the
    /// system, to be given back, so that memory in unused sizes is replaced by memory in used sizes.
    pub fn take(&mut self, class: usize) -> Result<*mut u8, Leaving> {
        self.touch(class);
        match self.pop(class) {
            Some(block) => Ok(block.cast()),
            None => Err(self.shrink(self.bytes.saturating_sub(class::size(class)))),
        }
    }

    /// Keeps a block of `class`, and returns blocks of the classes unused for longest so that at most `bound` bytes stay idle.
    ///
    /// # Safety
    /// `block` must be a whole block of `class` that the caller owns.
    pub unsafe fn give(&mut self, block: *mut u8, class: usize, bound: usize) -> Leaving {
        self.touch(class);
        let block: *mut Block = block.cast();
        // SAFETY: the caller owns the block, which is larger than a `Block` and aligned for one.
        unsafe { block.write(Block { next: self.idle[class], class }) };
        self.idle[class] = block;
        self.bytes += class::size(class);
        self.shrink(bound)
    }

    /// The number of idle bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes blocks until at most `bound` bytes are idle.
    pub fn shrink(&mut self, bound: usize) -> Leaving {
        let mut leaving = Leaving(null_mut());
        while self.bytes > bound {
            let oldest = (0..class::COUNT).filter(|&class| !self.idle[class].is_null()).min_by_key(|&class| self.used[class]);
            let Some(block) = oldest.and_then(|class| self.pop(class)) else { break };
            // SAFETY: the block was in a list, so `give` has written a `Block` into it; it is in no list any more, so nothing else reads
            // it.
            unsafe { (*block).next = leaving.0 };
            leaving.0 = block;
        }
        leaving
    }

    fn touch(&mut self, class: usize) {
        self.clock += 1;
        self.used[class] = self.clock;
    }

    fn pop(&mut self, class: usize) -> Option<*mut Block> {
        let block = self.idle[class];
        if block.is_null() {
            return None;
        }
        // SAFETY: the block is in a list, so `give` has written a `Block` into it.
        self.idle[class] = unsafe { (*block).next };
        self.bytes -= class::size(class);
        Some(block)
    }
}

impl Iterator for Leaving {
    type Item = (*mut u8, usize);

    /// The next block and its class.
    fn next(&mut self) -> Option<(*mut u8, usize)> {
        if self.0.is_null() {
            return None;
        }
        let block = self.0;
        // SAFETY: `shrink` linked only blocks into which `give` has written a `Block`.
        let Block { next, class } = unsafe { block.read() };
        self.0 = next;
        Some((block.cast(), class))
    }
}
