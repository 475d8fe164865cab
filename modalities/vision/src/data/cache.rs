//! Memory for decoded pictures: how much of it there may be, and how much is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytesize::ByteSize;
use ctk_core::{Error, Result};
use sysinfo::System;

/// Room where nobody says otherwise, and for `auto` where the system does not tell what is free: 1 GB, all of CIFAR several
/// times over.
const DEFAULT: usize = 1_000_000_000;

/// `auto` takes one part in this many of the memory that is free.
const SHARE: u64 = 2;

/// What a kept picture costs beside its pixels: its size, its counters, what the allocator adds.
const OVERHEAD: usize = 96;

/// Room for decoded pictures, shared by all images of a run. Which ones are kept depends on who came first, what is returned
/// does not; none is put out for another, since an epoch asks for each once and in random order.
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
    /// Room for `limit` bytes.
    pub fn new(limit: usize) -> Cache {
        Cache { limit, room: AtomicUsize::new(limit) }
    }

    /// What `data.cache` asks for: `auto` (half of the memory that is free), `off`, or an amount such as `2GB`.
    ///
    /// # Errors
    /// Anything else.
    pub fn of(wish: &str) -> Result<Cache> {
        let limit = match wish {
            "auto" => free().map_or(DEFAULT as u64, |free| free / SHARE),
            "off" => 0,
            // A bare number would be bytes, which nobody means.
            amount if amount.ends_with(['b', 'B']) => amount.parse::<ByteSize>().map_err(|_| unknown(wish))?.as_u64(),
            _ => return Err(unknown(wish)),
        };
        Ok(Cache::new(usize::try_from(limit).unwrap_or(usize::MAX)))
    }

    /// Takes room for a picture of `pixels` bytes, unless there is too little left.
    pub(super) fn take(&self, pixels: usize) -> bool {
        let less = |room: usize| room.checked_sub(pixels + OVERHEAD);
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Gives the room of such a picture back.
    pub(super) fn give_back(&self, pixels: usize) {
        self.room.fetch_add(pixels + OVERHEAD, Ordering::Relaxed);
    }

    /// One line for whoever watches: how the cache fits `count` pictures of about `pixels` bytes.
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

fn unknown(wish: &str) -> Error {
    Error::usage(format!("data.cache: `{wish}` is no amount of memory"))
        .hint("write \"auto\" (half of the memory that is free), \"off\", or an amount such as \"500MB\" or \"2GB\"")
}

/// Memory that is free, in bytes: the machine's, or what a container allows of it.
fn free() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory();
    let machine = Some(system.available_memory()).filter(|&free| free > 0);
    let container = system.cgroup_limits().map(|limits| limits.free_memory);
    machine.into_iter().chain(container).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_understood_and_mistakes_are_told() {
        let limit = |wish: &str| Cache::of(wish).unwrap().limit;
        assert_eq!(["off", "500MB", "1.5 GB", "2gb", "1GiB"].map(limit), [0, 500_000_000, 1_500_000_000, 2_000_000_000, 1 << 30]);
        let auto = limit("auto");
        assert!(auto > 1_000_000, "{auto}");
        for wrong in ["", "lots", "12", "GB", "-1GB", "2 apples", "NaNGB"] {
            let error = Cache::of(wrong).err().unwrap_or_else(|| panic!("`{wrong}` is an amount"));
            assert!(error.exit_code() == 2 && error.to_string().contains("hint: write \"auto\""), "{error}");
        }
    }

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
