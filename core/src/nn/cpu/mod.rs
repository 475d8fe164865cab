//! The kernels: slices in, slices out, no tensors.
//!
//! Work is split into blocks whose size depends on the problem's shape only, never on the number of threads, and partial sums
//! are added in the order of the blocks: one thread and sixteen give the same bits.

pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod norm;
pub mod pool;

/// Numbers in one block of an elementwise pass: small enough to stay in a core's cache, large enough to be worth a task.
const BLOCK: usize = 1 << 14;

/// Rows of `c` channels in one block.
fn block_rows(c: usize) -> usize {
    (BLOCK / c).max(1)
}

/// Runs a block's loop compiled for the widest vectors that this machine has; the arithmetic, and so the result, is the same.
#[inline(always)]
fn wide<R>(block: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(block)
}
