//! The roads to a layer's numbers.

use ctk_kernels::{Cpu, Device as _};

/// By what a network runs. All give the same numbers, but for rounding.
#[derive(Clone)]
pub enum Road {
    /// candle's operations with candle's own gradients, on any of candle's devices: the oracle of the others, many times slower.
    Reference,
    /// The kernels of the CPU.
    Cpu(Cpu),
    /// A device with memory of its own, as tests have one.
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
            #[cfg(test)]
            Road::Emulated(emulated) => f.write_str(&emulated.name()),
        }
    }
}
