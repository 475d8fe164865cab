//! Idle blocks by class. A block's own first bytes hold its place in the list, so the cache itself allocates nothing.

use std::ptr::null_mut;

use crate::class;

/// Lists of idle blocks, and how many bytes they are.
pub struct Cache {
    idle: [*mut Block; class::COUNT],
    /// When each class was last taken from or given to.
    used: [u64; class::COUNT],
    clock: u64,
    bytes: usize,
}

/// What an idle block holds.
pub struct Block {
    next: *mut Block,
    class: usize,
}

/// Blocks that have left the cache, to be given back to the system.
pub struct Leaving(*mut Block);

// SAFETY: blocks in a cache belong to nobody else, and whoever has the cache has them.
unsafe impl Send for Cache {}

impl Cache {
    pub const fn new() -> Self {
        Cache { idle: [null_mut(); class::COUNT], used: [0; class::COUNT], clock: 0, bytes: 0 }
    }

    /// A block of `class`; none if there is no idle one. In that case as many idle bytes leave as the caller will now get from
    /// the system: what a program no longer needs makes room for what it does.
    pub fn take(&mut self, class: usize) -> Result<*mut u8, Leaving> {
        self.touch(class);
        match self.pop(class) {
            Some(block) => Ok(block.cast()),
            None => Err(self.shrink(self.bytes.saturating_sub(class::size(class)))),
        }
    }

    /// Keeps a block of `class`, and no more than `bound` bytes: what leaves for it are blocks of the classes unused for longest.
    ///
    /// # Safety
    /// `block` is a whole block of `class`, and the caller's alone to give.
    pub unsafe fn give(&mut self, block: *mut u8, class: usize, bound: usize) -> Leaving {
        self.touch(class);
        let block: *mut Block = block.cast();
        // SAFETY: a block is larger than a `Block`, aligned for one, and nobody else's.
        unsafe { block.write(Block { next: self.idle[class], class }) };
        self.idle[class] = block;
        self.bytes += class::size(class);
        self.shrink(bound)
    }

    /// Bytes that are idle.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets blocks go until at most `bound` bytes are idle.
    pub fn shrink(&mut self, bound: usize) -> Leaving {
        let mut leaving = Leaving(null_mut());
        while self.bytes > bound {
            let oldest = (0..class::COUNT).filter(|&class| !self.idle[class].is_null()).min_by_key(|&class| self.used[class]);
            let Some(block) = oldest.and_then(|class| self.pop(class)) else { break };
            // SAFETY: it was in a list, so it holds a `Block`; it is in none now, so nobody else reads it.
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
        // SAFETY: blocks in a list hold a `Block`, written by `give`.
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
        // SAFETY: `shrink` linked only blocks that hold a `Block`.
        let Block { next, class } = unsafe { block.read() };
        self.0 = next;
        Some((block.cast(), class))
    }
}
