//! Where tensors live, by the name a user gives; threads and vectors of the CPU.

use candle_core::Device;

use crate::error::{Error, Result};
pub use crate::nn::cpu::{isa, quick_pairs, wide};

/// The device called `name`: `auto` (CUDA where this binary was built for it and a card answers, else the CPU), `cpu`,
/// `cuda`, `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    match (kind, number.parse::<usize>()) {
        ("cpu", Ok(0)) => Ok(Device::Cpu),
        ("auto", Ok(0)) => Ok(Device::new_cuda(0).unwrap_or(Device::Cpu)),
        ("cuda", Ok(n)) => Device::new_cuda(n).map_err(|e| {
            let hint = match candle_core::utils::cuda_is_available() {
                true => "see that the driver answers (`nvidia-smi`), or use --device cpu",
                false => "this ctk was built without CUDA: build it with `--features cuda`, or use --device cpu",
            };
            Error::usage(format!("cannot use the device `{name}`: {e}")).hint(hint)
        }),
        _ => Err(Error::usage(format!("`{name}` is not a device")).hint("devices are auto, cpu, cuda and cuda:N")),
    }
}

/// Uses `threads` threads for everything that computes; absent: one a core. Call before the first tensor.
pub fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        return Err(Error::usage("--threads must be at least 1"));
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(Error::new)
}

/// Runs `work` with a pool of `threads` threads of its own: what a test of "threads change nothing" needs.
pub fn with_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Error::new)?;
    Ok(pool.install(work))
}
