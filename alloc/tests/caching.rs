//! Tests of the allocator in use: freed blocks are used again, the bound holds, and no two owners ever share a byte.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

use ctk_alloc::Caching;

const KB: usize = 1 << 10;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

#[test]
fn a_freed_block_is_handed_out_again_and_zeroed_if_asked() {
    let cache = Caching::new(1024 * KB);
    for size in [128 * KB, 200 * KB, 1000 * KB] {
        let layout = layout(size);
        // SAFETY: each block is freed once, with its own layout, and written within its size.
        unsafe {
            let first = cache.alloc(layout);
            first.write_bytes(7, size);
            cache.dealloc(first, layout);
            assert!(cache.idle() >= size);
            let again = cache.alloc_zeroed(layout);
            assert_eq!(first, again);
            assert!(std::slice::from_raw_parts(again, size).iter().all(|&b| b == 0));
            cache.dealloc(again, layout);
            cache.clear();
        }
        assert_eq!(cache.idle(), 0);
    }
}

#[test]
fn no_more_than_the_bound_is_idle_and_the_oldest_sizes_leave_first() {
    let bound = 2048 * KB;
    let cache = Caching::new(bound);
    // SAFETY: each block is freed once, with its own layout.
    unsafe {
        let free = |sizes: &[usize]| {
            let blocks: Vec<*mut u8> = sizes.iter().map(|&size| cache.alloc(layout(size * KB))).collect();
            for (&size, block) in sizes.iter().zip(blocks) {
                cache.dealloc(block, layout(size * KB));
                assert!(cache.idle() <= bound, "{} bytes are idle", cache.idle());
            }
        };
        free(&[1024, 512, 256]);
        free(&[256, 512, 512]);
        assert_eq!(cache.idle(), bound - 1024 * KB + 256 * KB, "the block of 1024 KB made room");
        // Blocks larger than the bound are never kept.
        free(&[4096]);
        assert!(cache.idle() <= bound);
        // A request for a size that is not cached frees idle blocks of sizes that are no longer requested.
        free(&[512, 512]);
        let idle = cache.idle();
        let new = cache.alloc(layout(640 * KB));
        assert!(cache.idle() + 512 * KB <= idle, "{} of {idle} bytes are idle", cache.idle());
        cache.dealloc(new, layout(640 * KB));
    }
}

#[test]
fn growing_and_shrinking_keep_what_was_written() {
    let cache = Caching::new(1024 * KB);
    let sizes = [4 * KB, 127 * KB, 128 * KB, 129 * KB, 300 * KB, 20_000 * KB, 310 * KB, 128 * KB, 100 * KB, KB];
    // SAFETY: each block is resized or freed once, with the layout that it had, and read within its size.
    unsafe {
        let mut block = cache.alloc(layout(sizes[0]));
        for i in 0..KB {
            block.add(i).write(i as u8);
        }
        for pair in sizes.windows(2) {
            block = cache.realloc(block, layout(pair[0]), pair[1]);
            assert!((0..KB).all(|i| block.add(i).read() == i as u8), "{} to {} bytes", pair[0], pair[1]);
            block.add(pair[1] - 1).write(1);
            (0..KB).for_each(|i| block.add(i).write(i as u8));
        }
        cache.dealloc(block, layout(KB));
    }
}

#[test]
fn large_alignments_are_kept() {
    let cache = Caching::new(1024 * KB);
    for align in [1, 16, 64, 4096] {
        let layout = Layout::from_size_align(256 * KB, align).unwrap();
        // SAFETY: the block is freed once, with its own layout.
        unsafe {
            let block = cache.alloc(layout);
            assert!(block.addr().is_multiple_of(align));
            cache.dealloc(block, layout);
        }
    }
}

#[test]
fn threads_never_hold_the_same_block() {
    static CACHE: Caching = Caching::new(4096 * KB);
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    let clash = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let clash = &clash;
            scope.spawn(move || {
                let mut held: Vec<(*mut u8, Layout, u8)> = Vec::new();
                for round in 0..rounds {
                    let mark = thread * 64 + (round % 64) as u8;
                    let layout = layout(128 * KB + (round * 37 % 9) * 24 * KB);
                    // SAFETY: blocks are written within their size, and freed once, by the thread that holds them.
                    unsafe {
                        let block = CACHE.alloc(layout);
                        block.write(mark);
                        block.add(layout.size() - 1).write(mark);
                        held.push((block, layout, mark));
                        if held.len() > 3 {
                            let (block, layout, mark) = held.remove(round % 3);
                            if block.read() != mark || block.add(layout.size() - 1).read() != mark {
                                clash.store(true, Ordering::Relaxed);
                            }
                            CACHE.dealloc(block, layout);
                        }
                    }
                }
                // SAFETY: the blocks were allocated with this layout and are freed once, by the thread that holds them.
                held.into_iter().for_each(|(block, layout, _)| unsafe { CACHE.dealloc(block, layout) });
            });
        }
    });
    assert!(!clash.into_inner(), "two threads held one block");
    assert!(CACHE.idle() <= 4096 * KB);
    CACHE.clear();
}
