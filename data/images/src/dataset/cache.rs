//! The cache of decoded images in memory: its size and what is left of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytesize::ByteSize;
use ctk_core::{Result, memory};

/// The default size: enough for all of CIFAR several times over.
const DEFAULT: usize = 1_000_000_000;

/// Bytes that a cached image costs besides its pixels: its size, its counters, the allocator's overhead.
const OVERHEAD: usize = 96;

/// The cache of decoded images, shared by all images of a run. Which images are kept depends on which came first; the images returned do
/// not depend on it. None is evicted, because each epoch needs each image once, in random order.
pub struct Cache {
    limit: usize,
    room: AtomicUsize,
}

impl Default for Cache {
    fn default() -> Self {
        Cache::new(DEFAULT)
    }
}

impl Cache {
    /// A cache of `limit` bytes.
    pub fn new(limit: usize) -> Cache {
        Cache { limit, room: AtomicUsize::new(limit) }
    }

    /// The cache that `data.cache` asks for: `auto` (half of the free memory), `off`, or an amount such as `2GB`.
    ///
    /// # Errors
    /// Any other text.
    pub fn of(wish: &str) -> Result<Cache> {
        memory::limit("data.cache", wish).map(Cache::new)
    }

    /// Reserves space for an image of `pixels` bytes, if there is enough.
    pub(super) fn take(&self, pixels: usize) -> bool {
        let less = |room: usize| room.checked_sub(pixels + OVERHEAD);
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Frees the space of such an image.
    pub(super) fn give_back(&self, pixels: usize) {
        self.room.fetch_add(pixels + OVERHEAD, Ordering::Relaxed);
    }

    /// One line about how the cache fits `count` images of about `pixels` bytes, to print.
    pub fn line(&self, count: usize, pixels: usize) -> String {
        let bytes = |n: usize| ByteSize::b(n as u64).display().si();
        let needed = (pixels + OVERHEAD).saturating_mul(count);
        if self.limit == 0 {
            return format!("decoded images are not kept (data.cache is off); keeping them would take about {}", bytes(needed));
        }
        if needed <= self.limit {
            return format!("decoded images stay in memory: about {} of at most {}", bytes(needed), bytes(self.limit));
        }
        format!(
            "decoded images need about {}, and data.cache allows {}: {} % stay in memory, the others are decoded in every epoch",
            bytes(needed),
            bytes(self.limit),
            (self.limit as f64 / needed as f64 * 100.0) as usize,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_and_given_back_and_never_exceeded() {
        let cache = Cache::new(1000 + 2 * OVERHEAD);
        assert!(cache.take(600) && !cache.take(401) && cache.take(400) && !cache.take(0));
        cache.give_back(400);
        assert!(cache.take(400));
        assert!(!Cache::new(0).take(1));
    }

    #[test]
    fn it_tells_how_much_fits() {
        let all = Cache::new(1_000_000_000).line(50_000, 3072);
        assert_eq!(all, "decoded images stay in memory: about 158.4 MB of at most 1.0 GB");
        let some = Cache::new(1_000_000_000).line(1_000_000, 562_500);
        assert!(some.contains("562.6 GB") && some.contains(": 0 % stay"), "{some}");
        assert!(Cache::new(0).line(10, 100).contains("not kept"));
    }
}
