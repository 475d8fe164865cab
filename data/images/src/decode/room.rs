//! Limits the memory in which images are decoded, over all threads: the size that a header claims is reserved before anything is allocated.
//!
//! Small images need no reservation. Large ones wait for each other if they do not fit at the same time; one that would not fit alone is an
//! error. The decoded pixels do not depend on any of this.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use ctk_core::{Result, memory};

/// Images that need less memory are not counted: those of a megapixel or less, on any number of threads.
const SMALL: u64 = 16 << 20;

/// Memory reserved for an image that is being decoded; released when this is dropped.
pub(super) struct Room(u64);

/// Bytes that are reserved, and bytes that were free when none was reserved.
struct Taken {
    bytes: u64,
    of: u64,
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { bytes: 0, of: 0 });
static GIVEN_BACK: Condvar = Condvar::new();

fn taken() -> MutexGuard<'static, Taken> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// Reserves `bytes`, and waits until they are available.
    ///
    /// # Errors
    /// Fewer are available when nothing else is decoded.
    pub fn take(bytes: u64) -> Result<Room> {
        if bytes < SMALL {
            return Ok(Room(0));
        }
        let mut taken = taken();
        loop {
            if taken.bytes == 0 {
                taken.of = memory::free().unwrap_or(u64::MAX);
                memory::require("it", bytes, |_| String::new())?;
            }
            if taken.bytes == 0 || taken.bytes + bytes <= taken.of {
                taken.bytes += bytes;
                return Ok(Room(bytes));
            }
            taken = GIVEN_BACK.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.0 > 0 {
            taken().bytes -= self.0;
            GIVEN_BACK.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn large_pictures_wait_for_each_other_and_what_never_fits_is_an_error() {
        let free = memory::free().unwrap();
        let error = Room::take(u64::MAX / 2).err().expect("there is not as much").to_string();
        assert!(error.contains("it needs about 9.2 EB of memory"), "{error}");
        assert!(Room::take(1).is_ok());
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let one = free / 3;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // Memory that other programs allocate or free meanwhile may change how many of them fit.
                    let Ok(_room) = Room::take(one) else { return };
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.into_inner() <= 4);
        assert_eq!(taken().bytes, 0);
    }
}
