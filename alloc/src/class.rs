//! Size classes: eight for each doubling, so that a block is at most an eighth larger than the request.

use std::alloc::Layout;

/// Smaller requests go directly to the system, whose own caches handle them well.
pub const SMALLEST: usize = 1 << 17;

/// The number of classes, which cover sizes up to 32 GB.
pub const COUNT: usize = 19 * STEPS;

/// The alignment of every block: the one that the system's allocator gives by default, so that it can still return fresh zero pages and
/// move blocks by remapping them.
pub const ALIGN: usize = 16;

const STEPS: usize = 1 << STEPS_LOG;
const STEPS_LOG: u32 = 3;

/// The class of blocks that serves `layout`; none for requests that go directly to the system.
pub fn of(layout: Layout) -> Option<usize> {
    if layout.size() < SMALLEST || layout.align() > ALIGN {
        return None;
    }
    // Class c holds sizes above (8 + c mod 8) eighths of its octave, up to and including the next eighth.
    let last = layout.size() - 1;
    let octave = last.ilog2();
    let eighth = (last >> (octave - STEPS_LOG)) % STEPS;
    let class = (octave + 1 - SMALLEST.ilog2()) as usize * STEPS + eighth;
    (class < COUNT).then_some(class)
}

/// The size of the blocks of a class, in bytes.
pub fn size(class: usize) -> usize {
    let octave = (class / STEPS) as u32 + SMALLEST.ilog2() - 1;
    (STEPS + class % STEPS + 1) << (octave - STEPS_LOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(size: usize, align: usize) -> Option<usize> {
        of(Layout::from_size_align(size, align).unwrap())
    }

    #[test]
    fn a_block_holds_what_was_asked_for_and_little_more() {
        for near in (17..34).flat_map(|octave| (0..9).map(move |eighth| (8 + eighth) << (octave - 3))) {
            for size in [near - 1, near, near + 1].into_iter().filter(|&size| size >= SMALLEST) {
                let class = class(size, 4).unwrap();
                let block = super::size(class);
                assert!(block >= size && block - size <= size / 8, "{size} in {block}");
                assert!(class == 0 || super::size(class - 1) < size, "{size} would fit the class below");
            }
        }
    }

    #[test]
    fn small_aligned_and_enormous_requests_are_the_systems() {
        assert!(class(SMALLEST - 1, 8).is_none() && class(SMALLEST, 32).is_none() && class(1 << 40, 8).is_none());
        assert!(class(SMALLEST, 16).is_some());
        assert_eq!((class(32 << 30, 8), class((32 << 30) + 1, 8)), (Some(COUNT - 1), None));
    }
}
