//! `ctk-kernels`: numbers, buffers, vector instructions and kernels, below the layers and without candle.
//!
//! [`Device`] is the interface that layers are written for. [`Cpu`] is the device of this crate's kernels, which take and fill slices. Work
//! is divided into blocks whose size depends on the problem's shape only, never on the number of threads, and partial sums are added in the
//! order of the blocks: one thread and sixteen give the same bits. Unsafe code is only in `micro`, `simd`, `fast`, `gemm` and
//! `winograd::tiles`.

mod attention;
mod blocks;
mod buffer;
mod conv;
mod cpu;
mod device;
mod direct;
mod dropout;
mod element;
mod elementwise;
mod fast;
mod folds;
mod gelu;
mod gemm;
mod geometry;
mod im2col;
mod late;
mod layer_norm;
mod lengths;
mod map;
mod math;
mod micro;
mod norm;
mod number;
mod panels;
mod passes;
mod pool;
mod products;
mod ranks;
mod rows;
mod scratch;
mod simd;
mod table;
mod taps;
mod texts;
mod update;
mod winograd;

pub use attention::Attention;
pub use buffer::{Buffer, BufferPool};
pub use cpu::Cpu;
pub use device::{Change, Device, Finish, Plain, Read};
pub use dropout::{Dropout, Identity};
pub use element::{Bf16, Element, Kind, Real};
pub use elementwise::compare;
pub use gelu::Gelu;
pub use geometry::Geometry;
pub use late::{AdamRows, LateRow};
pub use lengths::{unit_rows, unit_rows_gradient};
pub use map::Map;
pub use number::Number;
pub use pool::Windows;
pub use ranks::{Candidates, Judge, Ranked, Ranks};
#[doc(hidden)]
pub use simd::run_wide;
pub use simd::{isa, quick_pairs};
pub use table::Groups;
pub use update::{Adam, Lars, Momentum, Step};
