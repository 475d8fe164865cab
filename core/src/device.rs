//! The device that a model's layers run on, by its name; the CPU's threads.

use std::fmt;

pub use ctk_cuda::{CAPABILITY, Library, Listed, Rules, Times};
use ctk_cuda::{Cuda, usable};
use ctk_kernels::Device as _;
pub use ctk_kernels::{isa, quick_pairs, wide};

use crate::error::{Error, Result};
use crate::memory;

/// Where a model's layers run, and where its parameters and their state lie. Clones share the device.
#[derive(Clone, Default)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A CUDA device, or the emulated one.
    Cuda(Cuda),
}

impl Device {
    /// The device called `name`: `cpu`; `cuda` or `cuda:0`, the first CUDA device, `cuda:1` the second and so on; `auto`, the first CUDA
    /// device if there is one that can be used, otherwise the CPU. With it comes what a user should know about the choice.
    ///
    /// # Errors
    /// Another name, or a device that cannot be used.
    pub fn open(name: &str) -> Result<(Device, Option<String>)> {
        match name {
            "cpu" => Ok((Device::Cpu, None)),
            "auto" => Ok(real::automatic()),
            #[cfg(any(test, feature = "emulated"))]
            _ if name.starts_with("emulated") => Ok((Device::Cuda(emulated(name)?), None)),
            _ => {
                let number = if name == "cuda" { Some("0") } else { name.strip_prefix("cuda:") };
                match number.and_then(|number| number.parse().ok()) {
                    Some(number) => Ok((Device::Cuda(real::open(number)?), None)),
                    None => {
                        Err(Error::usage(format!("`{name}` is not a device")).hint("devices are auto, cpu, cuda, and cuda:N"))
                    }
                }
            }
        }
    }

    /// Waits until the device has done all that was asked of it.
    ///
    /// # Errors
    /// The device failed, now or earlier.
    pub fn wait(&self) -> Result<()> {
        match self {
            Device::Cpu => Ok(()),
            Device::Cuda(cuda) => cuda.wait().map_err(Error::new),
        }
    }

    /// Runs `work` with every call timed by the device: how often each was made, and how long it took. The CPU has none.
    ///
    /// # Errors
    /// The device failed.
    pub fn timed<R>(&self, work: impl FnOnce() -> R) -> Result<(R, Times)> {
        match self {
            Device::Cpu => Ok((work(), Times::new())),
            Device::Cuda(cuda) => cuda.timed(work).map_err(Error::new),
        }
    }

    /// The bytes of its memory that are free; none where the system does not say.
    pub fn free_memory(&self) -> Option<u64> {
        match self {
            Device::Cpu => memory::free(),
            Device::Cuda(cuda) => cuda.free_memory().ok(),
        }
    }

    /// The most bytes of its own memory that were in use at once since the program began; none for the CPU.
    pub fn most_memory(&self) -> Option<u64> {
        match self {
            Device::Cpu => None,
            Device::Cuda(cuda) => Some(cuda.most_memory()),
        }
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Device::Cpu)
    }

    /// The same device, whose products follow `rules`; on the CPU all products are exact and deterministic anyway.
    pub fn by(&self, rules: Rules) -> Device {
        match self {
            Device::Cpu => Device::Cpu,
            Device::Cuda(cuda) => Device::Cuda(cuda.by(rules)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("the CPU"),
            Device::Cuda(cuda) => f.write_str(&cuda.name()),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What there is of CUDA on this machine.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Whether the program has the code for CUDA devices.
    pub built: bool,
    /// The libraries that a device needs.
    pub libraries: Vec<Library>,
    /// The devices that the driver lists.
    pub devices: Vec<Listed>,
    /// Why the driver lists none, if it failed.
    pub failure: Option<String>,
}

impl Survey {
    /// Looks at this machine.
    pub fn new() -> Survey {
        real::survey()
    }

    /// The number of the first device that can be used.
    pub fn usable(&self) -> Option<usize> {
        let whole = self.built && usable(&self.libraries).is_ok();
        self.devices.iter().find(|device| whole && device.trouble().is_none()).map(|device| device.number)
    }
}

/// The emulated device: `emulated`, `emulated:BYTES` with so many bytes of memory, or `emulated:BYTES,N` that fails after N allocations.
#[cfg(any(test, feature = "emulated"))]
fn emulated(name: &str) -> Result<Cuda> {
    let mut limits = ctk_cuda::Limits::default();
    if let Some(bytes) = name.strip_prefix("emulated:") {
        let (bytes, allocations) = bytes.split_once(',').map_or((bytes, None), |(bytes, count)| (bytes, Some(count)));
        let wrong = |number: &str| Error::usage(format!("`{number}` is no number"));
        limits.bytes = bytes.parse().map_err(|_| wrong(bytes))?;
        if let Some(count) = allocations {
            limits.allocations = count.parse().map_err(|_| wrong(count))?;
        }
    }
    Ok(Cuda::new(ctk_cuda::Emulated::new(limits)))
}

/// Devices of this machine, if the program has the code for them.
#[cfg(feature = "cuda")]
mod real {
    use std::path::PathBuf;

    use ctk_cuda::{Build, Cuda, Fault, Vendor, devices, driver, found};

    use super::{Device, Survey};
    use crate::error::{Error, Result};
    use crate::store::files;

    pub fn survey() -> Survey {
        let libraries = found().to_vec();
        let listed = if libraries[0].there { devices() } else { Ok(Vec::new()) };
        let failure = listed.as_ref().err().map(ToString::to_string);
        Survey { built: true, libraries, devices: listed.unwrap_or_default(), failure }
    }

    pub fn open(number: usize) -> Result<Cuda> {
        let opened = Vendor::open(number, image);
        let said =
            |fault: Fault| Error::new(fault).hint("`ctk devices` says what is there, and what is missing; or use --device cpu");
        opened.map(Cuda::new).map_err(said)
    }

    /// The first device, if the driver lists one and everything else is there.
    pub fn automatic() -> (Device, Option<String>) {
        // On a machine without the driver no other library is looked for.
        let listed = if driver() { devices().unwrap_or_default() } else { Vec::new() };
        let best = listed.iter().find(|device| device.trouble().is_none()).or(listed.first());
        let Some(first) = best else { return (Device::Cpu, None) };
        match Vendor::open(first.number, image) {
            Ok(vendor) => {
                let device = Device::Cuda(Cuda::new(vendor));
                let note = format!("computing on {device} (--device cpu for the CPU)");
                (device, Some(note))
            }
            Err(fault) => (Device::Cpu, Some(format!("computing on the CPU, not on {}: {fault}", first.name))),
        }
    }

    /// The compiled kernels: those of an earlier process if they are kept, which are then as it wrote them; otherwise compiled now and kept,
    /// if there is a place for them.
    fn image(build: &Build) -> Result<Vec<u8>, Fault> {
        let file = place(build);
        let kept = file.as_ref().and_then(|file| whole(&std::fs::read(file).ok()?));
        if let Some(image) = kept {
            return Ok(image);
        }
        let image = build.compile()?;
        if let Some(file) = file {
            let folder = file.parent().map(std::fs::create_dir_all);
            if folder.is_some_and(|made| made.is_ok()) {
                // Without the file the next process compiles again.
                drop(files::write(&file, &[files::digest(&image).as_bytes(), b"\n", &image].concat()));
            }
        }
        Ok(image)
    }

    /// The image in a kept file, if its digest is right.
    fn whole(file: &[u8]) -> Option<Vec<u8>> {
        let end = file.iter().position(|byte| *byte == b'\n')?;
        let (digest, image) = (&file[..end], &file[end + 1..]);
        (files::digest(image).as_bytes() == digest).then(|| image.to_vec())
    }

    /// Where the kernels of a build are kept: in `$XDG_CACHE_HOME/ctk` or `~/.cache/ctk`.
    fn place(build: &Build) -> Option<PathBuf> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let folder = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or_else(home)?;
        let source = files::digest([ctk_cuda::KERNELS, &build.options().join(" ")].concat().as_bytes());
        let ([major, minor], [first, second]) = (build.capability, build.nvrtc);
        let kind = if build.own { "cubin" } else { "ptx" };
        Some(folder.join("ctk").join(format!("kernels-{}-{major}.{minor}-nvrtc-{first}.{second}.{kind}", &source[..16])))
    }
}

/// A program without the code for CUDA devices.
#[cfg(not(feature = "cuda"))]
mod real {
    use super::*;

    pub fn survey() -> Survey {
        Survey::default()
    }

    pub fn open(_: usize) -> Result<Cuda> {
        Err(Error::new("this ctk was built without CUDA").hint("build it with `--features cuda`, or use --device cpu"))
    }

    pub fn automatic() -> (Device, Option<String>) {
        (Device::Cpu, None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        assert!(Device::open("cpu").unwrap().0.is_cpu());
        assert!(!Device::open("emulated").unwrap().0.is_cpu() && !Device::open("emulated:1000000").unwrap().0.is_cpu());
        for wrong in ["tpu", "cuda:", "cuda:one", "cuda0", "cuda:-1", ""] {
            let error = Device::open(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}` is not a device")) && error.contains("cuda:N"), "{wrong}: {error}");
        }
    }
}
