//! Working memory of a task within a kernel. It belongs to the thread that runs the task, so that no lock is taken: a text of twelve tokens
//! needs a dozen small buffers for each head, and threads that take turns at a pool would wait longer than they compute.

use std::cell::RefCell;
use std::marker::PhantomData;

use bytemuck::Pod;

use crate::buffer::Line;

/// Buffers have a power of two of lines, up to this one: 4 MiB. Larger ones are not kept.
const CLASSES: usize = 17;

/// Free buffers of a size that a thread keeps; a task uses a dozen.
const KEPT: usize = 16;

thread_local! {
    /// This thread's free buffers, by the logarithm of their lines.
    static FREE: RefCell<[Vec<Vec<Line>>; CLASSES]> = const { RefCell::new([const { Vec::new() }; CLASSES]) };
}

/// A buffer of `len` values whose memory returns to the thread that drops it.
pub(crate) struct Scratch<T> {
    lines: Vec<Line>,
    len: usize,
    kind: PhantomData<T>,
}

impl<T: Pod> Scratch<T> {
    /// A buffer whose values must be written before they are read.
    pub(crate) fn new(len: usize) -> Scratch<T> {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>()).next_power_of_two();
        let class = lines.trailing_zeros() as usize;
        let found = FREE.with_borrow_mut(|free| free.get_mut(class).and_then(Vec::pop));
        Scratch { lines: found.unwrap_or_else(|| bytemuck::zeroed_vec(lines)), len, kind: PhantomData }
    }
}

impl<T: Pod> std::ops::Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> std::ops::DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let class = lines.len().trailing_zeros() as usize;
        // A thread that ends has no list any more.
        let _ = FREE.try_with(|free| {
            if let Some(kept) = free.borrow_mut().get_mut(class).filter(|kept| kept.len() < KEPT) {
                kept.push(lines);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_found_again_by_its_thread() {
        let mut first = Scratch::<f32>::new(100);
        first.fill(7.0);
        let at = first.as_ptr() as usize;
        assert!(first.len() == 100 && at.is_multiple_of(64));
        drop(first);
        let again = Scratch::<u8>::new(300);
        assert!(again.as_ptr() as usize == at && again.len() == 300, "one memory for all types");
        let other = Scratch::<f32>::new(100);
        assert!(other.as_ptr() as usize != at && other.iter().all(|value| *value == 0.0));
        let elsewhere = std::thread::spawn(move || Scratch::<f32>::new(100).as_ptr() as usize).join().unwrap();
        assert_ne!(elsewhere, again.as_ptr() as usize);
        assert!(Scratch::<f32>::new(0).is_empty());
    }

    #[test]
    fn a_thread_keeps_a_bounded_number() {
        let many: Vec<Scratch<u8>> = (0..2 * KEPT).map(|_| Scratch::new(1 << 10)).collect();
        drop(many);
        let large = Scratch::<u8>::new(64 << CLASSES);
        drop(large);
        let kept = FREE.with_borrow(|free| free.iter().map(Vec::len).collect::<Vec<_>>());
        assert_eq!((kept[4], kept.iter().sum::<usize>()), (KEPT, KEPT));
    }
}
