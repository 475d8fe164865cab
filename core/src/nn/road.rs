//! The implementations that a network may run by, called roads.

use ctk_cuda::Cuda;
use ctk_kernels::{Cpu, Device as _};

/// The implementation that a network runs by. All give the same values up to rounding.
#[derive(Clone)]
pub enum Road {
    /// Candle's operations with candle's own gradients, on any of candle's devices: the oracle of the tests, many times slower.
    Reference,
    /// The CPU's kernels.
    Cpu(Cpu),
    /// A CUDA device, or the emulated one.
    Cuda(Cuda),
    /// A device with separate memory that computes with the CPU's kernels, used in tests.
    #[cfg(test)]
    #[allow(private_interfaces, reason = "the variant is compiled for tests alone")]
    Emulated(super::emulated::Emulated),
}

impl Default for Road {
    fn default() -> Self {
        Road::Cpu(Cpu::default())
    }
}

impl std::fmt::Display for Road {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Road::Reference => f.write_str("reference"),
            Road::Cpu(cpu) => f.write_str(&cpu.name()),
            Road::Cuda(cuda) => f.write_str(&cuda.name()),
            #[cfg(test)]
            Road::Emulated(emulated) => f.write_str(&emulated.name()),
        }
    }
}
