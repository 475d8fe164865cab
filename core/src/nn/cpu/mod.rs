//! The kernels: slices in, slices out, no tensors.
//!
//! Work is split into blocks whose size depends on the problem's shape only, never on the number of threads, and partial sums
//! are added in the order of the blocks: one thread and sixteen give the same bits. Unsafe code is in `micro`, `simd`, `fast`
//! (one call) and `gemm` alone.

pub mod conv;
mod direct;
pub mod elementwise;
mod fast;
mod gemm;
pub mod im2col;
mod micro;
pub mod norm;
mod panels;
mod passes;
pub mod pool;
mod rows;
mod simd;
mod taps;
mod winograd;

pub use simd::{isa, quick_pairs, wide};

/// Numbers in one block of an elementwise pass: small enough to stay in a core's cache, large enough to be worth a task.
const BLOCK: usize = 1 << 14;

/// Rows of `c` channels in one block.
fn block_rows(c: usize) -> usize {
    (BLOCK / c).max(1)
}
