//! The device that tensors live on, by its name; the CPU's threads.

use candle_core::Device;

use crate::error::{Error, Result};
pub use ctk_kernels::{isa, quick_pairs, wide};

/// The device called `name`: `cpu`, or `auto`, which is the CPU as long as only the CPU has kernels.
///
/// # Errors
/// Any other name.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" | "auto" => Ok(Device::Cpu),
        _ if name == "cuda" || name.starts_with("cuda:") => {
            Err(Error::usage(format!("`{name}`: only the CPU has kernels so far")).hint("use --device cpu"))
        }
        _ => Err(Error::usage(format!("`{name}` is not a device")).hint("devices are auto and cpu")),
    }
}

/// Uses `threads` threads for all computation; by default one for each core. Must be called before the first tensor is made.
///
/// # Errors
/// `threads` is 0, or the system does not give so many.
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Error::usage("--threads must be at least 1"));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|e| Error::new(format!("the system does not give {threads} threads: {e}")).hint("ask for fewer by --threads"))
}

/// Runs `work` with a thread pool of `threads` threads. Tests use it to show that the number of threads changes nothing.
///
/// # Errors
/// The system does not give so many threads.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Error::new)?;
    Ok(pool.install(work))
}
