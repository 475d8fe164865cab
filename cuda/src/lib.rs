//! `ctk-cuda`: the operations of ctk's layers on CUDA devices.
//!
//! [`Cuda`] implements the kernels crate's [`Device`](ctk_kernels::Device). It is written for any [`Calls`], the thin layer of memory, launches
//! and vendor products below it. The kernels are CUDA C++ (`src/kernels`), whose text is embedded.
//!
//! Reductions have a fixed order, nothing is added atomically, and work is divided by shapes alone: the same input gives the same bits.

mod attention;
mod calls;
mod contrast;
mod device;
#[cfg(feature = "emulated")]
mod emulated;
mod found;
mod launch;
mod memory;
mod steps;
#[cfg(feature = "cuda")]
mod vendor;

pub use calls::{Address, Argument, Calls, Convolution, Fault, INBOXES, Mark, MatrixProduct, Product, Rules, THREADS};
pub use contrast::{Contrast, Denominator, NO_LABEL};
#[cfg(feature = "emulated")]
pub use emulated::{Emulated, Limits};
pub use found::{CAPABILITY, Library, Listed, chosen, usable};
pub use launch::{Cuda, Moments, Normal, caught};
pub use memory::{Block, Times, View, ViewMut};
#[cfg(feature = "cuda")]
pub use vendor::{
    Vendor,
    libraries::{Build, devices, driver, found},
};

/// The text of all kernels, for the run-time compiler.
pub const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.cu"));

/// The name of every kernel.
pub fn kernels() -> Vec<String> {
    include_str!(concat!(env!("OUT_DIR"), "/kernels.txt")).lines().map(str::to_string).collect()
}
