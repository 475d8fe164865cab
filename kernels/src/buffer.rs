//! Buffers in the CPU's memory, and the pool that reuses them.

use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::{Pod, Zeroable};

/// A cache line. All buffers consist of these, so that values of every type begin at a line and one pool serves all types.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

/// Bytes that a pool may always keep beyond the largest use so far: networks smaller than this never lose their buffers.
const SLACK: usize = 256 << 20;

/// A pool of buffers for reuse, by size. A fresh large allocation costs a page fault for every 4 KB, which takes longer than most layers'
/// arithmetic, and the maps of a step have the same sizes as those of the last step.
///
/// A pool holds, in use and free together, at most the largest number of bytes that was in use at once, and a quarter more (or 256 MiB
/// more, if that is larger). So inputs of alternating shapes find their buffers again, and buffers for shapes that do not return are freed:
/// the ones that have been free for longest go first.
pub struct BufferPool {
    slack: usize,
    state: Mutex<State>,
}

impl Default for BufferPool {
    fn default() -> Self {
        BufferPool::new(SLACK)
    }
}

#[derive(Default)]
struct State {
    /// Free buffers by their length in lines; of equal lengths, those free for longest come first. No list is empty.
    free: BTreeMap<usize, VecDeque<Free>>,
    /// Lines in free buffers.
    waiting: usize,
    /// Lines in buffers in use: now, and the maximum so far.
    used: usize,
    most: usize,
    /// The number of buffers returned so far.
    clock: u64,
}

struct Free {
    lines: Vec<Line>,
    since: u64,
}

impl State {
    /// Takes out the buffers that have been free for longest until the limit is met; the caller frees them.
    fn excess(&mut self, slack: usize) -> Vec<Vec<Line>> {
        let mut gone = Vec::new();
        while self.used + self.waiting > self.most + slack.max(self.most / 4) {
            let oldest = self.free.iter().filter_map(|(&len, list)| Some((list.front()?.since, len))).min();
            let Some(buffer) = oldest.and_then(|(_, len)| self.remove(len, VecDeque::pop_front)) else { break };
            gone.push(buffer);
        }
        gone
    }

    fn remove(&mut self, len: usize, take: impl FnOnce(&mut VecDeque<Free>) -> Option<Free>) -> Option<Vec<Line>> {
        let list = self.free.get_mut(&len)?;
        let buffer = take(list)?.lines;
        if list.is_empty() {
            self.free.remove(&len);
        }
        self.waiting -= len;
        Some(buffer)
    }
}

impl BufferPool {
    /// A pool that may always keep `slack` bytes beyond the largest use so far.
    pub fn new(slack: usize) -> Self {
        BufferPool { slack: slack / size_of::<Line>(), state: Mutex::default() }
    }

    /// Bytes held in buffers in use, and in free buffers.
    pub fn held(&self) -> [usize; 2] {
        let state = self.lock();
        [state.used, state.waiting].map(|lines| lines * size_of::<Line>())
    }

    /// Takes the smallest free buffer that has the length and is not much longer.
    fn take(&self, len: usize) -> Vec<Line> {
        if len == 0 {
            return Vec::new();
        }
        let mut state = self.lock();
        let fits = state.free.range(len..=len + len / 4 + 64).next().map(|(&len, _)| len);
        let found = fits.and_then(|len| state.remove(len, VecDeque::pop_back));
        state.used += found.as_ref().map_or(len, Vec::len);
        state.most = state.most.max(state.used);
        let gone = state.excess(self.slack);
        drop(state);
        drop(gone);
        found.unwrap_or_else(|| bytemuck::zeroed_vec(len))
    }

    fn put(&self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        let mut state = self.lock();
        let len = lines.len();
        state.used -= len;
        state.waiting += len;
        state.clock += 1;
        let since = state.clock;
        state.free.entry(len).or_default().push_back(Free { lines, since });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A buffer of `len` values, taken from a pool and returned to it.
pub struct Buffer<T> {
    lines: Vec<Line>,
    len: usize,
    pool: Arc<BufferPool>,
    kind: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// A buffer whose values must be written before they are read.
    pub fn new(len: usize, pool: &Arc<BufferPool>) -> Self {
        let lines = pool.take((len * size_of::<T>()).div_ceil(size_of::<Line>()));
        Buffer { lines, len, pool: pool.clone(), kind: PhantomData }
    }
}

impl<T: Pod> std::ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> std::ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.lines));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Allocates `count` buffers of `mib` MiB, all in use at once; returns their addresses.
    fn pass(pool: &Arc<BufferPool>, count: usize, mib: usize) -> Vec<*const u8> {
        let buffers: Vec<Buffer<u8>> = (0..count).map(|_| Buffer::new(mib * MIB, pool)).collect();
        let mut at: Vec<_> = buffers.iter().map(|buffer| buffer.as_ptr()).collect();
        at.sort();
        at
    }

    #[test]
    fn shapes_that_take_turns_find_their_buffers_again() {
        let pool = Arc::default();
        let (large, small) = (pass(&pool, 16, 4), pass(&pool, 16, 2));
        for _ in 0..3 {
            assert_eq!(pass(&pool, 16, 4), large);
            assert_eq!(pass(&pool, 16, 2), small);
        }
        assert_eq!(pool.held(), [0, 96 * MIB]);
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes_first() {
        let pool = Arc::new(BufferPool::new(0));
        pass(&pool, 1, 20);
        for mib in [1, 2, 4, 8] {
            pass(&pool, 1, mib);
        }
        // 20, 1 and 2 and the 4 in use are more than 25: the first was freed.
        assert_eq!(pool.held(), [0, 15 * MIB]);
        let held = Buffer::<u8>::new(20 * MIB, &pool);
        // 5 may stay free: the last one is too large.
        assert_eq!(pool.held(), [20 * MIB, 0]);
        drop(held);
        assert_eq!(pool.held(), [0, 20 * MIB]);
    }

    #[test]
    fn a_buffer_begins_on_a_lines_border_and_may_be_a_little_longer() {
        let pool = Arc::default();
        let at = Buffer::<f32>::new(10_000, &pool).as_ptr();
        assert!(at.addr().is_multiple_of(64));
        let (shorter, empty) = (Buffer::<f64>::new(4_900, &pool), Buffer::<f64>::new(0, &pool));
        assert_eq!((shorter.as_ptr().addr(), shorter.len(), empty.len()), (at.addr(), 4_900, 0));
        drop(shorter);
        assert_ne!(Buffer::<f32>::new(7_000, &pool).as_ptr(), at, "much longer");
    }
}
