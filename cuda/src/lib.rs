//! `ctk-cuda`: the operations of ctk's layers on CUDA devices.
//!
//! [`Cuda`] implements the kernels crate's [`Device`](ctk_kernels::Device). It is written for any [`Calls`], the thin layer of memory, launches
//! and vendor products below it. The kernels are CUDA C++ (`src/kernels`), whose text is embedded.
//!
//! Reductions have a fixed order, nothing is added atomically, and work is divided by shapes alone: the same input gives the same bits.

mod calls;
mod device;
#[cfg(feature = "emulated")]
mod emulated;
mod launch;
mod memory;
#[cfg(feature = "cuda")]
mod vendor;

pub use calls::{Address, Argument, Calls, Convolution, Fault, MatrixProduct, Product, THREADS};
#[cfg(feature = "emulated")]
pub use emulated::{Emulated, Limits};
pub use launch::{Cuda, Moments, Normal, caught};
pub use memory::{Block, View, ViewMut};
#[cfg(feature = "cuda")]
pub use vendor::{Library, Listed, Vendor, devices, libraries};

/// The text of all kernels, for the run-time compiler.
pub const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.cu"));
